"""Does the command line do what it says, on a real repository with real processes?"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordination import locks
from coordination.cli import run
from coordination.supervisor.children import marked

SETTINGS = """
[git]
target = "main"
[agents]
backend = "scripted"
[gates]
default = ["there"]
there = ["test", "-e", "README.md"]
[supervisor]
poll_seconds = 0.1
stop_grace_seconds = 1.0
[limits]
attempts_max = 1
[retry]
backoff_seconds = 0.1
"""
READING = ["status", "tasks", "log", "replay", "roles"]


def script(**actions: Any) -> str:
    """A prompt that the scripted backend can play."""
    return f"Do as told\n```script\n{json.dumps(actions)}\n```\n"


GOOD = script(write={"new.txt": "new\n"}, cost_usd=0.25, report="done")
BAD = script(ending="failed", reason="no luck")
LONG = script(write={"new.txt": "new\n"}, sleep_seconds=50)


class Coord:
    """``coord`` in one repository: in this process where nothing but exit code and output matter."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys
        self.told = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command that must exit with ``code``; its stdout. What it said on stderr is ``told``."""
        self._capsys.readouterr()
        found = run(["-C", str(self.root), *arguments])
        out, self.told = self._capsys.readouterr()
        assert found == code, f"coord {arguments} exited {found}: {out}{self.told}"
        assert "Traceback" not in self.told
        return out

    def json(self, *arguments: str) -> Any:
        """The one JSON object a command prints."""
        return json.loads(self(*arguments, "--json"))

    def process(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """The same as a process of its own."""
        command = [sys.executable, "-P", "-m", "coordination", "-C", str(self.root), *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=os.environ | variables, text=True, **streams)  # type: ignore[call-overload,no-any-return]

    def finished(self, *arguments: str, code: int = 0, home: str = "") -> tuple[str, str]:
        """Stdout and stderr of a process that must exit with ``code``."""
        with self.process(*arguments, **({"COORDINATION_HOME": home} if home else {})) as process:
            out, told = process.communicate(timeout=50)
        assert process.returncode == code, f"coord {arguments} exited {process.returncode}: {out}{told}"
        return out, told

    def state(self, task: str) -> str:
        """Where a task stands."""
        return str(self.json("show", task)["state"])

    def configure(self, text: str = SETTINGS) -> None:
        """Put the settings in place."""
        (self.root / ".coordination" / "coordination.toml").write_text(text)


@pytest.fixture
def bare(repository: Path, capsys: pytest.CaptureFixture[str]) -> Coord:
    """A repository that nobody prepared."""
    return Coord(repository, capsys)


@pytest.fixture
def coord(bare: Coord) -> Coord:
    """A prepared one, with the scripted backend."""
    bare("init")
    bare.configure()
    return bare


@contextmanager
def supervised(coord: Coord) -> Iterator[int]:
    """A supervisor in the background, which is gone in any case at the end; its process number."""
    coord.finished("start")
    lock = coord.root / ".coordination" / "locks" / "supervisor.lock"
    who = locks.holder(lock)
    assert who is not None
    assert locks.held(lock)
    try:
        yield who.pid
    finally:
        coord("stop", "--force")


def until(condition: Callable[[], Any], timeout_seconds: float = 30.0) -> Any:
    """What the condition says once it says something."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


# ---- init ------------------------------------------------------------------------------------------------------------


def test_init_is_repeatable_and_invisible(bare: Coord) -> None:
    """The first init makes everything, the second nothing, and git sees neither."""
    assert bare("init").startswith("Made")
    before = (bare.root / ".coordination" / "coordination.toml").read_bytes()
    assert bare("init").startswith("Already there")
    assert (bare.root / ".coordination" / "coordination.toml").read_bytes() == before
    done = subprocess.run(
        ["git", "status", "--porcelain"], cwd=bare.root, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == ""


def test_init_wants_a_branch_with_commits(bare: Coord, tmp_path: Path) -> None:
    """A detached HEAD and a repository without commits are refused with the command that helps."""
    subprocess.run(["git", "switch", "-q", "--detach"], cwd=bare.root, check=True, timeout=30)
    bare("init", code=4)
    assert "git switch" in bare.told
    subprocess.run(["git", "init", "-q", str(tmp_path / "empty")], check=True, timeout=30)
    bare.root = tmp_path / "empty"
    bare("init", code=4)
    assert "git commit" in bare.told
    assert not (bare.root / ".coordination").exists()


def test_every_command_names_init_before_it(bare: Coord) -> None:
    """Before init, what reads or writes is refused and says what to do."""
    for arguments in (*([name] for name in READING), ["show", "x"], ["submit", "x"], ["start"], ["stop"], ["pause"]):
        bare(*arguments, code=4)
        assert "coord init" in bare.told


def test_outside_a_repository_it_says_so(bare: Coord, tmp_path: Path) -> None:
    """Where there is no repository, one sentence tells."""
    bare.root = tmp_path
    bare("status", code=4)
    assert "git init" in bare.told


# ---- submit ----------------------------------------------------------------------------------------------------------


def test_submit_takes_a_prompt_a_file_and_standard_input(
    coord: Coord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each way of handing in a task prints the id alone."""
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"id": "from-file", "prompt": "p", "priority": 7}))
    assert coord("submit", "do this") == "t1\n"
    assert coord("submit", "--file", str(file)) == "from-file\n"
    for sent, identity in ((b'{"prompt": "x", "id": "sent"}', "sent"), (b"just text", "t2"), (b'{"a": 1}', "t3")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))
        assert coord("submit", "-") == f"{identity}\n"
    assert coord.json("show", "FROM-FILE")["priority"] == 7
    assert coord.json("show", "t2")["prompt"] == "just text"
    assert coord.json("show", "t3")["prompt"] == '{"a": 1}'


def test_submit_gives_every_field(coord: Coord) -> None:
    """Each option becomes the field of a task file that it is named for."""
    options = {
        "--id": "whole", "--title": "T", "--kind": "fix", "--role": "green", "--priority": "-3", "--after": "other",
        "--gate": "there", "--path": "src/**", "--base": "main", "--review": "always", "--budget": "1.5",
        "--timeout": "60", "--turns": "9", "--attempts": "2", "--context": "README.md", "--label": "team=a=b",
    }  # fmt: skip
    coord("submit", *(word for pair in options.items() for word in pair), "prompt")
    spec = coord.json("show", "whole")["spec"]
    assert spec == {
        "prompt": "prompt", "title": "T", "kind": "fix", "role": "green", "priority": -3, "after": ["other"],
        "gates": ["there"], "paths": ["src/**"], "base": "main", "review": "always", "budget_usd": 1.5,
        "timeout_seconds": 60.0, "turns_max": 9, "attempts_max": 2, "context": ["README.md"], "labels": {"team": "a=b"},
        "version": 1,
    }  # fmt: skip


def test_the_same_again_is_a_duplicate_and_other_content_is_refused(coord: Coord) -> None:
    """An id is an idempotency key: same content changes nothing, other content exits 2."""
    assert coord.json("submit", "--id", "a", "x") == {"task": "a", "duplicate": False}
    assert coord.json("submit", "--id", "a", "x") == {"task": "a", "duplicate": True}
    coord("submit", "--id", "A", "y", code=2)
    assert len(coord("log").splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "serch", "x"], "did you mean 'search'"),
        (["--gate", "nobody", "x"], "field: gates"),
        (["--budget", "nan", "x"], "field: budget_usd"),
        (["--id", "", "x"], "field: id"),
        (["--after", "me", "--id", "me", "x"], "waits for itself"),
        (["--role", "blue", "x"], "may not write"),
        (["--label", "x", "x"], "KEY=VALUE"),
        ([""], "field: prompt"),
        ([], "expected one of PROMPT"),
    ],
)
def test_what_is_not_a_task_is_rejected_with_the_reason(coord: Coord, arguments: list[str], said: str) -> None:
    """A task that is not accepted exits 2 and names what is wrong; nothing is recorded."""
    assert coord("submit", *arguments, code=2) == ""
    assert said in coord.told
    assert coord("log") == ""


def test_a_file_is_not_mixed_with_options(coord: Coord, tmp_path: Path) -> None:
    """A task file carries everything; what is not JSON, or missing, exits 2 too."""
    file = tmp_path / "task.json"
    file.write_text('{"prompt": "x"}')
    coord("submit", "--file", str(file), "--priority", "0", code=2)
    assert "put priority into it" in coord.told
    coord("submit", "--file", str(file), "and a prompt", code=2)
    file.write_text("{")
    coord("submit", "--file", str(file), code=2)
    assert "not JSON" in coord.told
    coord("submit", "--file", str(tmp_path / "none"), code=2)


# ---- an estimate -----------------------------------------------------------------------------------------------------


def kept(coord: Coord) -> dict[str, bytes]:
    """Every file of the state directory and every ref, with its content."""
    state = coord.root / ".coordination"
    files = {str(file): file.read_bytes() for file in state.rglob("*") if file.is_file()}
    refs = subprocess.run(["git", "show-ref"], cwd=coord.root, capture_output=True, check=True, timeout=30)
    return files | {"refs": refs.stdout}


ESTIMATED = {
    *("task", "duplicate", "kind", "role", "model", "review", "most", "likely", "start", "advice"),
    "supervisor_running",
}


@pytest.mark.parametrize("way", ["prompt", "file", "standard input"])
def test_an_estimate_submits_and_writes_nothing(
    coord: Coord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """However the task is handed in; and where nothing has ended yet, only the bound is told."""
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"id": "T", "prompt": "x", "kind": "fix", "budget_usd": 2}))
    arguments = {
        "prompt": ["--id", "T", "--kind", "fix", "--budget", "2", "x"],
        "file": ["--file", str(file)],
        "standard input": ["-"],
    }[way]
    coord("submit", "--id", "other", "x")
    before = kept(coord)
    shown = []
    for more in ([], ["--json"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
        shown.append(coord("submit", "--estimate", *more, *arguments))
    assert kept(coord) == before
    text, row = shown[0], json.loads(shown[1])
    assert text.startswith("Nothing was submitted. It would be T, for green (sonnet), reviewed by red (opus)")
    assert "2.5000 USD for all tries and reviews" in text
    assert "not known: nothing like it has ended here yet" in text
    assert set(row) == ESTIMATED
    assert (row["task"], row["duplicate"], row["role"], row["likely"]) == ("T", False, "green", None)
    assert (row["most"]["usd"], row["most"]["budget_usd"]) == (2.5, 2.0)
    assert (row["start"]["now"], row["start"]["slots_used"], row["supervisor_running"]) == (True, 2, False)
    assert "as soon as a supervisor runs" in text


def test_an_estimate_of_what_would_be_refused_is_refused(coord: Coord) -> None:
    """With the same words and the same exit codes; what is there already costs nothing."""
    coord("submit", "--id", "a", "x")
    for arguments, said in (
        (["--id", "a", "y"], "exists with other content"),
        (["--kind", "serch", "x"], "did you mean 'search'"),
        (["--role", "blue", "x"], "may not write"),
        (["--id", "me", "--after", "me", "x"], "waits for itself"),
        (["--wait", "x"], "nothing to --wait for"),
        ([], "expected one of PROMPT"),
    ):
        assert coord("submit", "--estimate", *arguments, code=2) == ""
        assert said in coord.told
    assert "submitted before" in coord("submit", "--estimate", "--id", "a", "x")
    assert coord.json("submit", "--estimate", "--id", "a", "x")["duplicate"] is True
    assert len(coord("log").splitlines()) == 1


def test_an_agent_may_ask_what_a_task_would_cost(coord: Coord, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads, as status does."""
    monkeypatch.setenv("COORDINATION_RUN", "log/known.1.work")
    assert coord.json("submit", "--estimate", "x")["task"] == "t1"


def test_an_estimate_rests_on_what_this_repository_did(coord: Coord) -> None:
    """Three tasks of the kind ended: their cost and time are told, by parts; a fourth in the queue could be joined."""
    for name in ("a", "b", "c"):
        coord("submit", "--id", name, script(write={name: "x\n"}, cost_usd=0.25, report="done"))
    coord.finished("start", "--once")
    coord("submit", "--id", "d", "--path", "src/**", "x")
    row = coord.json("submit", "--estimate", "--path", "src/api.py", "x")
    likely = row["likely"]
    assert (likely["by"], likely["name"], likely["tasks"], likely["failed"]) == ("kind", "implement", 3, 0)
    assert likely["usd"] == {"low": 0.25, "median": 0.25, "high": 0.25}
    assert likely["seconds"]["low"] > 0
    assert row["start"]["reasons"] == ["its paths overlap those of d, which holds them"]
    assert ["d"] in [advice["tasks"] for advice in row["advice"] if advice["rule"] == "join"]
    text = coord("submit", "--estimate", "--path", "src/api.py", "x")
    assert "0.2500 USD (0.2500 to 0.2500)" in text
    assert "the last 3 tasks of kind implement that ended" in text
    assert "Cheaper:  It touches the same paths as d" in text
    assert "A merged task cost 0.2500 USD: green (scripted) 0.2500 USD." in coord("status")
    parts = coord.json("status")["money"]["a_merged_task"]
    assert parts == [{"role": "green", "model": "scripted", "runs": 3, "usd": 0.25, "estimated": False}]


# ---- a person's verbs ------------------------------------------------------------------------------------------------


def test_pause_resume_cancel_retry_say_what_they_did(coord: Coord) -> None:
    """Each verb records what was asked once, and says when there is nothing to do."""
    coord("submit", "--id", "Task", "x")
    steps = [("pause", "held"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")]
    for verb, state in steps:
        assert "Task" in coord(verb, "tASK")
        assert coord.state("task") == state
        assert coord(verb, "task").startswith("Nothing to do")
    assert len(coord("log").splitlines()) == 1 + len(steps)


def test_everything_can_be_paused(coord: Coord) -> None:
    """Without a task, pause and resume speak of everything, and status shows it."""
    coord("pause", "--reason", "release day")
    assert coord.json("status")["paused"] is True
    assert "paused" in coord("status")
    assert coord("pause").startswith("Nothing to do")
    coord("resume")
    assert coord.json("status")["paused"] is False
    assert json.loads(coord("log").splitlines()[0])["reason"] == "release day"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["cancel", "nobody"], 3),
        (["retry", "nobody"], 3),
        (["pause", "nobody"], 3),
        (["resume", "nobody"], 3),
        (["approve", "nobody"], 3),
        (["reject", "nobody", "--reason", "x"], 3),
        (["show", "nobody"], 3),
        (["show", "known.1.work"], 3),
        (["log", "--task", "nobody"], 3),
        (["approve", "known"], 4),
        (["reject", "known", "--reason", "x"], 4),
        (["reject", "known"], 2),
        (["reject", "known", "--reason", " "], 2),
        (["tasks", "--state", "runing"], 2),
        (["replay", "--at", "yesterday"], 2),
        (["start", "--no-wait"], 2),
        (["stop", "--drain", "--force"], 2),
    ],
)
def test_exit_codes(coord: Coord, arguments: list[str], code: int) -> None:
    """2 is usage, 3 no such task or run, 4 refused; nothing goes to stdout and nothing to the log."""
    coord("submit", "--id", "known", "x")
    assert coord(*arguments, code=code) == ""
    assert coord.told
    assert len(coord("log").splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["init"],
            ["start"],
            ["stop"],
            ["submit", "x"],
            ["cancel", "known"],
            ["retry", "known"],
            ["pause"],
            ["resume"],
        ),
        *(["approve", "known"], ["reject", "known", "--reason", "x"]),
    ],
)
def test_an_agent_cannot_decide(coord: Coord, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a run every writing command is refused, and reading is not."""
    coord("submit", "--id", "known", "x")
    monkeypatch.setenv("COORDINATION_RUN", "log/known.1.work")
    coord(*arguments, code=4)
    assert "known.1.work" in coord.told
    for name in READING:
        coord(name)


VERBS = (
    *("init", "start", "stop", "submit x", "cancel known", "retry known", "pause", "resume", "approve known"),
    *("reject known --reason x", "repair --apply", "doctor --fix", "replay --repair"),
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody can see who descends from whom")
def test_an_agent_that_cleared_its_environment_cannot_decide(coord: Coord) -> None:
    """Every verb of a person is refused to whoever descends from a run, by what that was started with."""
    coord("submit", "--id", "known", "x")
    verb = f"env -u COORDINATION_RUN setsid -w {sys.executable} -P -m coordination -C {shlex.quote(str(coord.root))}"
    script = "\n".join(f"{verb} {words} 2>&1; echo {{$?}}" for words in VERBS)
    marked = os.environ | {"COORDINATION_RUN": "log/known.1.work"}
    done = subprocess.run(["sh", "-c", script], env=marked, capture_output=True, text=True, timeout=60, check=False)
    said = done.stdout.split("}\n")[:-1]
    assert len(said) == len(VERBS)
    for verb, answer in zip(VERBS, said, strict=True):
        assert answer.startswith("coord: this is run known.1.work of the coordinator"), (verb, answer)
        assert answer.endswith("{4"), (verb, answer)
    assert len(coord("log").splitlines()) == 1


def test_settings_that_cannot_be_read_are_usage(coord: Coord) -> None:
    """A misspelt key exits 2 and names file and key."""
    coord.configure("[limits]\nturns_mx = 3\n")
    coord("start", code=2)
    assert "turns_max" in coord.told
    assert "coordination.toml" in coord.told
    (coord.root / ".coordination" / "coordination.toml").write_bytes(b"\xff")
    coord("status", code=2)
    assert "UTF-8" in coord.told


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_reading_prints_json_with_the_same_keys(coord: Coord) -> None:
    """Every reading command has ``--json``, works without a supervisor, and prints no escape of others raw."""
    coord("submit", "--id", "a", "--after", "unknown", "x\x1b[31m")
    status = coord.json("status")
    assert {"supervisor", "seq", "paused", "counts", "running", "waiting", "needs_person", "cost_usd"} <= set(status)
    assert status["supervisor"]["running"] is False
    assert status["counts"] == {"held": 1}
    assert "unknown" in status["waiting"][0]["waiting"][0]
    assert coord.json("tasks")["task"] == "a"
    assert {"runs", "evidence", "workspace", "preserved", "spec"} <= set(coord.json("show", "a"))
    assert {json.loads(role)["name"] for role in coord("roles", "--json").splitlines()} >= {"blue", "green", "red"}
    assert {"seq", "digest", "state"} <= set(coord.json("replay"))
    for arguments in (["status"], ["tasks"], ["show", "a"], ["log"], ["roles"], ["replay"]):
        assert "\x1b" not in coord(*arguments)


def test_tasks_can_be_chosen_by_state(coord: Coord) -> None:
    """``--state`` shows only tasks of that state."""
    coord("submit", "--id", "a", "x")
    coord("submit", "--id", "b", "x")
    coord("cancel", "a")
    rows = [json.loads(row)["task"] for row in coord("tasks", "--state", "cancelled", "--json").splitlines()]
    assert rows == ["a"]


def test_the_log_is_cut_between_batches(coord: Coord) -> None:
    """``--since`` is exclusive, ``--task`` filters, and every line says where it stands."""
    for name in ("a", "b"):
        coord("submit", "--id", name, "x")
    rows = [json.loads(row) for row in coord("log").splitlines()]
    assert [list(row)[:5] for row in rows] == [["seq", "index", "at", "type", "task"]] * 2
    assert [json.loads(row)["task"] for row in coord("log", "--since", "1").splitlines()] == ["b"]
    assert [json.loads(row)["seq"] for row in coord("log", "--task", "B").splitlines()] == [2]
    assert coord("log", "--since", "2") == ""


def test_following_shows_what_comes(coord: Coord) -> None:
    """``log --follow`` prints an event when it happens, and Ctrl-C ends it with 130."""
    # who runs the tests in the background has a shell ignore Ctrl-C for them, and what is ignored is inherited
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with coord.process("log", "--follow") as follower:
        signal.signal(signal.SIGINT, before)
        try:
            assert follower.stdout is not None
            coord("submit", "--id", "a", "x")
            assert json.loads(follower.stdout.readline())["task"] == "a"
            coord("submit", "--id", "b", "x")
            assert json.loads(follower.stdout.readline())["task"] == "b"
            follower.send_signal(signal.SIGINT)
            assert follower.wait(timeout=20) == 130
        finally:
            follower.kill()


def test_a_reader_that_has_enough_is_no_error(coord: Coord) -> None:
    """A closed pipe ends the command quietly."""
    for _ in range(40):
        coord("submit", "x" * 5000)
    with coord.process("log") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_it_works_from_anywhere_in_the_repository(coord: Coord, tmp_path: Path) -> None:
    """A directory below and a linked worktree lead to the same coordination; ``COORDINATION_HOME`` moves it."""
    (coord.root / "below").mkdir()
    coord("submit", "--id", "a", "x")
    subprocess.run(["git", "worktree", "add", "-q", "-b", "w", str(tmp_path / "w")], cwd=coord.root, check=True)
    for place in (coord.root / "below", tmp_path / "w"):
        assert Coord(place, coord._capsys).json("tasks")["task"] == "a"
    elsewhere = str(tmp_path / "elsewhere")
    coord.finished("tasks", code=4, home=elsewhere)
    coord.finished("init", home=elsewhere)
    assert coord.finished("tasks", "--json", home=elsewhere)[0] == ""


# ---- replay ----------------------------------------------------------------------------------------------------------


def test_replay_shows_any_moment(coord: Coord) -> None:
    """``--at`` takes a batch number or an instant, and shows the state up to and with it."""
    coord("submit", "--id", "a", "x")
    at = json.loads(coord("log"))["at"]
    coord("submit", "--id", "b", "x")
    assert list(coord.json("replay")["state"]["tasks"]) == ["a", "b"]
    assert list(coord.json("replay", "--at", "1")["state"]["tasks"]) == ["a"]
    assert list(coord.json("replay", "--at", at)["state"]["tasks"]) == ["a"]


def test_verify_finds_what_differs(coord: Coord) -> None:
    """A snapshot or a digest that the log does not bear out exits 1 and is named; nothing is written."""
    coord("submit", "--id", "a", GOOD)
    coord.finished("start", "--once")
    assert [check["matches"] for check in coord.json("replay", "--verify")["checks"]] == [True] * 4
    state = coord.root / ".coordination"
    saved = next((state / "snapshots").glob("core-*.json"))
    saved.write_bytes(saved.read_bytes().replace(b'"new.txt', b'"old.txt'))
    before = saved.read_bytes()
    out = coord("replay", "--verify", code=1)
    assert f"DIFFERS: {saved}" in out
    assert saved.read_bytes() == before
    note = json.loads((state / "supervisor.json").read_text())
    (state / "supervisor.json").write_text(json.dumps(note | {"digest": "0" * 64}))
    found = json.loads(coord("replay", "--verify", "--json", code=1))["differs"]
    assert found == [str(state / "supervisor.json"), str(saved)]
    saved.write_text("{")
    coord("replay", "--verify", code=1)


def test_a_damaged_log_is_five(coord: Coord) -> None:
    """A flipped byte is found by every command that reads, with the place."""
    for name in ("a", "b", "c"):
        coord("submit", "--id", name, "x")
    segment = next((coord.root / ".coordination" / "log").glob("*.jsonl"))
    data = bytearray(segment.read_bytes())
    data[data.index(b'"task":"b"') + 8] ^= 1
    segment.write_bytes(data)
    for name in ("status", "tasks", "log", "replay"):
        coord(name, code=5)
        assert segment.name in coord.told


def test_a_lost_log_is_five(coord: Coord) -> None:
    """Where refs show that there was a log, its absence is damage and never an empty start."""
    coord("submit", GOOD)
    coord.finished("start", "--once")
    for file in (coord.root / ".coordination" / "log").iterdir():
        file.unlink()
    coord("status", code=5)
    coord("init", code=5)


# ---- start and stop --------------------------------------------------------------------------------------------------


def test_once_brings_tasks_to_their_end(coord: Coord) -> None:
    """``start --once`` narrates, ends by itself, and exits 0 when all ended well."""
    coord("submit", "--id", "a", GOOD)
    out, _ = coord.finished("start", "--once")
    assert "a merged as" in out
    assert coord.state("a") == "merged"
    shown = coord("show", "a")
    assert "gate there passed" in shown
    assert "0.2500 USD" in shown
    assert coord("show", "A.1.WORK").startswith("a.1.work")
    coord("cancel", "a", code=4)


def test_once_names_what_did_not_end_well(coord: Coord) -> None:
    """``start --once`` exits 1 and names the task that failed and the one that cannot start."""
    coord("submit", "--id", "bad", BAD)
    coord("submit", "--id", "stuck", "--after", "nobody", GOOD)
    _, told = coord.finished("start", "--once", code=1)
    assert "bad is failed" in told
    assert "stuck is held: waits for 'nobody'" in told


def test_no_wait_does_not_wait_for_another_try(coord: Coord) -> None:
    """With ``--no-wait`` a task that would be tried again in five minutes is left for the next start."""
    coord.configure(
        SETTINGS.replace("attempts_max = 1", "attempts_max = 2").replace(
            "backoff_seconds = 0.1", "backoff_seconds = 300.0"
        )
    )
    coord("submit", "--id", "bad", BAD)
    _, told = coord.finished("start", "--once", "--no-wait", code=1)
    assert "bad is queued: tried again at" in told


def test_without_a_key_or_a_login_nothing_is_wasted(coord: Coord) -> None:
    """Without a key start says in one sentence what to set, and tasks wait with that reason instead of failing."""
    coord.configure(SETTINGS.replace('"scripted"', '""'))
    coord("submit", "--id", "a", GOOD)
    _, told = coord.finished("start", "--once", code=1)
    assert "ANTHROPIC_API_KEY" in told
    assert "claude setup-token" in told
    assert "a is queued: the supervisor was started without a key or login" in told
    shown = coord.json("show", "a")
    assert (shown["attempts"], shown["runs"]) == (0, [])


def test_start_says_why_it_could_not(coord: Coord) -> None:
    """When the supervisor in the background ends at once, its last words and its exit code are passed on."""
    coord.configure(SETTINGS.replace('target = "main"', 'target = "gone"'))
    _, told = coord.finished("start", code=3)
    assert "gone" in told
    assert "Traceback" not in told


def test_a_supervisor_runs_in_the_background_until_it_is_stopped(coord: Coord) -> None:
    """Start returns when it runs, a second one is refused with its number, stop ends it."""
    with supervised(coord) as pid:
        assert coord.json("status")["supervisor"]["pid"] == pid
        log = coord.root / ".coordination" / "supervisor.log"
        assert log.stat().st_mode & 0o777 == 0o600
        assert "supervisor started" in log.read_text()
        for arguments in (["start"], ["start", "--foreground"], ["start", "--once"]):
            coord(*arguments, code=4)
            assert f"pid {pid}" in coord.told
        coord("submit", "--id", "a", GOOD)
        until(lambda: coord.state("a") == "merged")
        coord("replay", "--verify")
        assert "stopped" in coord("stop")
        assert coord("stop").startswith("No supervisor")
    assert coord.json("status")["supervisor"]["running"] is False


def test_waiting_tells_how_it_ended(coord: Coord) -> None:
    """``submit --wait`` narrates the task on stderr and exits 0, 1, or 4 for what waits for a person."""
    coord.configure(SETTINGS.replace("attempts_max = 1", "attempts_max = 1\nrounds_max = 1"))
    with supervised(coord):
        out, told = coord.finished("submit", "--wait", "--id", "a", GOOD)
        assert out == "a\n"
        assert "a merged" in told
        coord.finished("submit", "--wait", "--id", "b", BAD, code=1)
        undecided = script(by_purpose={"review": {"verdict": "reject", "report": "no"}}, do={"write": {"c": "c\n"}})
        coord.finished("submit", "--wait", "--id", "a", GOOD)
        coord.finished("submit", "--wait", "--id", "c", "--review", "always", undecided, code=4)
        row = coord.json("status")["needs_person"][0]
        assert row["task"] == "c"
        assert "coord approve c" in row["choices"]
        assert "coord approve c" in coord("status")
        coord("approve", "c")
        until(lambda: coord.state("c") == "merged")


def test_what_a_stop_interrupts_goes_back_to_the_queue(coord: Coord) -> None:
    """A stop too short for the agent exits 1 and says who still runs; the task then waits for the next start."""
    coord("submit", "--id", "a", LONG)
    with supervised(coord):
        until(lambda: [live for task in coord.json("status")["running"] for live in task["live"] if live["progress"]])
        assert "a.1.work" in coord("status")
        coord("stop", "--timeout", "0", code=1)
        assert "a.1.work" in coord.told
        coord("stop")
    task = coord.json("show", "a")
    assert task["state"] == "queued"
    assert task["attempts"] == 0
    assert task["runs"][0]["ending"] == "stopped"


def test_force_ends_even_a_supervisor_that_hangs(coord: Coord) -> None:
    """A supervisor that does not answer is killed together with what its runs have started, and nothing else is."""
    coord("submit", "--id", "a", LONG)
    with supervised(coord) as pid:
        until(lambda: [live for task in coord.json("status")["running"] for live in task["live"] if live["progress"]])
        worker = coord.json("status")["running"][0]["live"][0]["pid"]
        os.kill(pid, signal.SIGSTOP)
        assert f"pid {pid}" in coord("stop", "--force")
        assert locks.identity(worker) is None
    header = json.loads(next((coord.root / ".coordination" / "log").glob("*.jsonl")).read_text().splitlines()[0])
    assert not marked(f"{header['log']}/a.1.work")
    assert coord.state("a") == "running"
    coord("cancel", "a")
