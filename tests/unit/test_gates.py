"""What a gate's command does to its result: real processes, no shell."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

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


def test_the_killer_spares_our_own_group(tmp_path: Path) -> None:
    """A gate has a session of its own."""
    result = python(tmp_path, "import os; print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid())")
    assert result.output == "True True\n"
