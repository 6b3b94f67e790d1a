"""What a gate's command does to its result: real processes, no shell."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coordination import gates
from coordination.model.runs import GateCommand, GateResult


def run(tmp_path: Path, *argv: str, timeout_seconds: float = 20.0) -> GateResult:
    gate = GateCommand(name="unit", argv=argv, timeout_seconds=timeout_seconds)
    environment = {"PATH": os.environ["PATH"], "MARK": "here"}
    return gates.run(gate, commit="c1", directory=tmp_path, log=tmp_path / "gate.log", environment=environment)


def python(tmp_path: Path, program: str, **options: float) -> GateResult:
    return run(tmp_path, sys.executable, "-c", program, **options)


def gone(pid: int) -> bool:
    """Whether nobody alive has that number; a dead process that was not collected yet is gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def until_gone(pid: int) -> bool:
    """Wait until the process is gone; whether it was in time."""
    deadline = time.monotonic() + 10.0
    while not gone(pid) and time.monotonic() < deadline:
        os.sched_yield()
    return gone(pid)


@pytest.mark.parametrize("code", [0, 1, 3, 124])
def test_the_result_is_the_exit_code_bound_to_gate_and_commit(tmp_path: Path, code: int) -> None:
    """0 passes, anything else does not."""
    result = python(tmp_path, f"raise SystemExit({code})")
    assert (result.gate, result.commit, result.exit_code, result.passed) == ("unit", "c1", code, code == 0)
    assert result.seconds > 0


def test_a_signal_counts_as_128_and_its_number(tmp_path: Path) -> None:
    """As the shell has it."""
    result = python(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert result.exit_code == 128 + signal.SIGKILL


def test_a_command_that_cannot_be_started_is_127_and_says_why(tmp_path: Path) -> None:
    """A missing program and one that is not executable fail the gate, not the worker."""
    (tmp_path / "plain").write_text("no program")
    for program in ("no-such-program", "./plain"):
        result = run(tmp_path, program)
        assert result.exit_code == 127
        assert "gate 'unit' cannot be started" in result.output


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    """What a shell would expand arrives as it is written."""
    result = run(tmp_path, sys.executable, "-c", "import sys; print(sys.argv[1:])", "$MARK", "*", "; exit 1", "`id`")
    assert (result.exit_code, result.output) == (0, "['$MARK', '*', '; exit 1', '`id`']\n")


def test_it_runs_in_the_checkout_with_the_given_environment_and_no_input(tmp_path: Path) -> None:
    """Nothing of ours is inherited, and a command that reads waits for nobody."""
    program = "import os, sys; print(os.getcwd(), os.environ['MARK'], 'HOME' in os.environ, repr(sys.stdin.read()))"
    assert python(tmp_path, program).output == f"{tmp_path.resolve()} here False ''\n"


def test_the_tail_of_both_streams_is_kept(tmp_path: Path) -> None:
    """At most 16 KiB, the end of it, errors among it; the log file has all."""
    program = "import sys; print('first'); print('x' * 40_000); sys.stdout.flush(); print('last', file=sys.stderr)"
    result = python(tmp_path, program)
    assert result.output.endswith("x\nlast\n")
    assert "first" not in result.output
    assert len(result.output) == gates.OUTPUT_MAX
    assert (tmp_path / "gate.log").read_text().startswith("first\n")


def test_the_next_gate_does_not_quote_the_one_before(tmp_path: Path) -> None:
    """They share a log file, not their results."""
    python(tmp_path, "print('one')")
    assert python(tmp_path, "print('two')").output == "two\n"


def test_output_that_is_no_text_is_kept_readable(tmp_path: Path) -> None:
    """Broken UTF-8 becomes replacement characters."""
    result = python(tmp_path, "import os; os.write(1, bytes([255]) + b'ok')")
    assert result.output == "\ufffdok"


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    """The command and what it started are gone, the result is 124 and says so; what was printed before is kept."""
    result = run(tmp_path, "sh", "-c", "sleep 600 & echo $! > pids; echo began; sleep 600", timeout_seconds=1.0)
    assert result.exit_code == 124
    assert result.output.startswith("began\n")
    assert "(killed after 1 s)" in result.output
    assert until_gone(int((tmp_path / "pids").read_text()))


def test_what_a_gate_leaves_running_is_killed(tmp_path: Path) -> None:
    """A server in the background would hold the checkout; it does not hold up the result either."""
    program = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        "print(child.pid)"
    )
    result = python(tmp_path, program)
    assert result.passed
    assert until_gone(int(result.output))


class Tries:
    """A gate whose tries end with these exit codes, and no others."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def __call__(self) -> GateResult:
        code = self.codes.pop(0)
        return GateResult(gate="unit", commit="c1", exit_code=code, seconds=code + 0.5, output=f"said {code}")


def judged(tries: Tries, *, reruns: int = 1, again: bool = True) -> GateResult:
    return gates.judge(GateCommand(name="unit", argv=("x",), reruns=reruns), tries, again=lambda: again)


def test_a_pass_at_the_first_try_is_clean() -> None:
    """Nothing is run again, and nothing is said of it."""
    result = judged(Tries(0), reruns=3)
    assert (result.passed, result.flaky, result.failures) == (True, False, ())


def test_a_pass_after_a_failure_is_flaky_and_keeps_both_outputs() -> None:
    """It passed; what it said when it did not is not lost."""
    result = judged(Tries(2, 0))
    assert (result.passed, result.flaky, result.output) == (True, True, "said 0")
    assert [(failure.exit_code, failure.seconds, failure.output) for failure in result.failures] == [(2, 2.5, "said 2")]


def test_a_gate_is_run_again_as_often_as_it_may_be() -> None:
    """The last failure is the result, the others are before it; a failure is never flaky."""
    for reruns, codes in ((0, [1]), (1, [1, 2]), (3, [1, 2, 3, 4])):
        tries = Tries(*codes, 0)
        result = judged(tries, reruns=reruns)
        assert (result.exit_code, result.flaky, tries.codes) == (codes[-1], False, [0])
        assert [failure.exit_code for failure in result.failures] == codes[:-1]


def test_what_is_not_there_or_was_stopped_is_not_run_again() -> None:
    """The program will not be there either; and who was asked to stop begins nothing."""
    assert judged(Tries(127, 0)).exit_code == 127
    assert judged(Tries(1, 0), again=False).exit_code == 1


@pytest.fixture
def passes(tmp_path: Path) -> gates.Passes:
    return gates.Passes(directory=tmp_path / "passes")


PASSED = GateResult(gate="unit", commit="c1", exit_code=0, seconds=2.0, output="fine")


def test_a_pass_is_found_for_the_same_files_of_another_commit(passes: gates.Passes) -> None:
    """It is bound to the commit asked for, took no time, and names the run it is of."""
    passes.note("k1", "tree", "A.2.gate", PASSED)
    found = passes.find("k1", "unit", "tree", "c2")
    assert found == GateResult(gate="unit", commit="c2", exit_code=0, output="fine", cached="A.2.gate")
    assert passes.find("k2", "unit", "tree", "c2") is None


@pytest.mark.parametrize("doubt", [replace(PASSED, exit_code=1), replace(PASSED, flaky=True)])
def test_what_is_no_clean_pass_is_forgotten(passes: gates.Passes, doubt: GateResult) -> None:
    """Neither is remembered, and what was remembered before is no longer believed."""
    passes.note("k1", "tree", "A.2.gate", doubt)
    assert passes.find("k1", "unit", "tree", "c1") is None
    passes.note("k1", "tree", "A.2.gate", PASSED)
    passes.note("k1", "tree", "A.3.gate", doubt)
    assert passes.find("k1", "unit", "tree", "c1") is None


def damage(path: Path, how: str) -> None:
    """Put something else where a pass was."""
    content = path.read_bytes()
    path.unlink()
    match how:
        case "half":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.touch()
        case "another":
            path.write_bytes(content.replace(b"k1", b"k2"))
        case "of another tree":
            path.write_bytes(content.replace(b"tree", b"tre3"))
        case "of the wrong type":
            path.write_bytes(content.replace(b'"fine"', b"7"))
        case "huge":
            path.write_bytes(content + b" " * (1 << 20))
        case "a link":
            (path.parent / "elsewhere").write_bytes(content)
            path.symlink_to(path.parent / "elsewhere")
        case "a pipe":
            os.mkfifo(path)
        case "a directory":
            path.mkdir()
        case "from tomorrow":
            path.write_bytes(re.sub(rb'"at":[0-9.]+', b'"at":%d' % (time.time() + 90_000), content))
        case "old":
            path.write_bytes(re.sub(rb'"at":[0-9.]+', b'"at":%d' % (time.time() - 8 * 86_400), content))


DAMAGES = (
    *("half", "empty", "another", "of another tree", "of the wrong type", "huge", "a link", "a pipe", "a directory"),
    *("from tomorrow", "old"),
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_is_not_what_its_name_says_is_not_there(passes: gates.Passes, how: str) -> None:
    """Damaged, planted or too old: the gate is run, and the next pass is remembered again, if there is room for it."""
    passes.note("k1", "tree", "A.2.gate", PASSED)
    damage(passes.directory / "k1.json", how)
    assert passes.find("k1", "unit", "tree", "c1") is None
    passes.note("k1", "tree", "A.4.gate", PASSED)
    found = passes.find("k1", "unit", "tree", "c1")
    assert how == "a directory" or (found is not None and found.cached == "A.4.gate")


def test_passes_are_bounded(passes: gates.Passes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr(gates, "PASSES_MAX", 3)
    for number in range(6):
        passes.note(f"k{number}", "tree", "A.2.gate", PASSED)
        os.utime(passes.directory / f"k{number}.json", (number, number))
    assert sorted(path.name for path in passes.directory.iterdir()) == ["k3.json", "k4.json", "k5.json"]


def test_a_disk_without_room_costs_nothing_but_time(tmp_path: Path) -> None:
    """Where nothing can be written nothing is remembered."""
    (tmp_path / "passes").write_text("in the way")
    passes = gates.Passes(directory=tmp_path / "passes")
    passes.note("k1", "tree", "A.2.gate", PASSED)
    assert passes.find("k1", "unit", "tree", "c1") is None


def test_the_key_tells_apart_whatever_may_change_the_result() -> None:
    """Files, command, network, environment, sandbox, what was set up; not how long it may take."""
    gate = GateCommand(name="unit", argv=("a", "b"))
    known: dict[str, Any] = {"tree": "t", "environment": {"A": "1"}, "sandboxed": True, "set_up": ""}
    others: list[tuple[GateCommand, dict[str, Any]]] = [
        (gate, known),
        (replace(gate, argv=("a b",)), known),
        (replace(gate, network=True), known),
        (replace(gate, name="types"), known),
        (gate, known | {"tree": "u"}),
        (gate, known | {"environment": {}}),
        (gate, known | {"sandboxed": False}),
        (gate, known | {"set_up": "x"}),
    ]
    keys = [gates.key(each, **values) for each, values in others]
    assert len(set(keys)) == len(others)
    assert gates.key(replace(gate, timeout_seconds=1.0), **known) == keys[0]


def test_the_killer_spares_our_own_group(tmp_path: Path) -> None:
    """A gate has a session of its own."""
    result = python(tmp_path, "import os; print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())")
    assert result.output == "True True\n"
