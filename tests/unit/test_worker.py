"""A worker begins a run at most once, and everything that happens in it becomes an outcome."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordination import locks, worker
from coordination.model.runs import Ending, GateCommand, Limits, Outcome, Purpose, RunRequest, WorkspaceRequest


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """``main`` installs signal handlers; the test process gets its own back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def head(repository: Path) -> str:
    said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, timeout=30)
    return said.stdout.decode().strip()


@pytest.fixture
def directory(tmp_path: Path, repository: Path) -> Path:
    """A run directory with the request of a gate that passes on the repository's head."""
    commit = head(repository)
    request = RunRequest(
        run="A.1.gate",
        task="A",
        purpose=Purpose.GATE,
        token=7,
        repository=str(repository / ".git"),
        state_directory=str(tmp_path / "state"),
        workspace=WorkspaceRequest(name="A.1.gate", base=commit, commit=commit),
        limits=Limits(timeout_seconds=30.0),
        gates=(GateCommand(name="unit", argv=("test", "-e", "README.md")),),
    )
    made = tmp_path / "state" / "runs" / "A.1.gate"
    made.mkdir(parents=True)
    publish(made, request)
    return made


def publish(directory: Path, request: RunRequest) -> None:
    (directory / "request.json").write_bytes(msgspec.json.encode(request))


def read(directory: Path) -> RunRequest:
    return msgspec.json.decode((directory / "request.json").read_bytes(), type=RunRequest)


def changed(directory: Path, **fields: Any) -> None:
    publish(directory, msgspec.structs.replace(read(directory), **fields))


def files(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def outcome(directory: Path) -> Outcome:
    return msgspec.convert(json.loads((directory / "outcome.json").read_text())["outcome"], Outcome)


def test_a_run_leaves_who_did_it_and_how_it_ended(directory: Path) -> None:
    """worker.json names the process, outcome.json run, token and outcome; the lock is free again."""
    assert worker.main([str(directory)]) == 0
    me = json.loads((directory / "worker.json").read_text())
    assert (me["pid"], me["token"]) == (os.getpid(), 7)
    claim = json.loads((directory / "outcome.json").read_text())
    assert (claim["run"], claim["token"], claim["outcome"]["ending"]) == ("A.1.gate", 7, "succeeded")
    (gate,) = outcome(directory).gates
    assert (gate.gate, gate.commit, gate.exit_code) == ("unit", read(directory).workspace.commit, 0)
    assert not locks.held(directory / "worker.lock")


@pytest.mark.parametrize("name", ["outcome.json", "revoked", "worker.json"])
def test_a_run_that_began_ended_or_was_given_up_is_not_begun(directory: Path, name: str) -> None:
    """Exit 0 without any effect: a second worker is no error, and no second run."""
    (directory / name).write_bytes(b"")
    before = files(directory)
    assert worker.main([str(directory)]) == 0
    assert files(directory) == before | {"worker.lock"}
    assert (directory / name).read_bytes() == b""
    assert not (directory.parent.parent / "agent_workspaces").exists()


def test_a_run_whose_lock_is_held_is_not_begun(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker lives: exit 0 after the wait, and nothing was done."""
    monkeypatch.setattr(worker, "LOCK_WAIT_SECONDS", 0.0)
    program = (
        "import sys; from pathlib import Path; from coordination import locks;"
        "lock = locks.hold(Path(sys.argv[1])); print(lock is not None, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(directory / "worker.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"True\n"
        before = files(directory)
        assert worker.main([str(directory)]) == 0
        assert files(directory) == before
        other.stdin.close()


def test_two_workers_of_one_run_are_one(directory: Path) -> None:
    """Both real processes exit 0; one of them did the run, once."""
    changed(directory, gates=(GateCommand(name="unit", argv=("sh", "-c", "echo ran >> ../../count")),))
    command = [sys.executable, "-m", "coordination.worker", str(directory)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (0, b"")
    assert (directory.parent.parent / "count").read_text() == "ran\n"
    assert outcome(directory).ending is Ending.SUCCEEDED


def test_a_gate_that_fails_is_a_failed_outcome_with_its_output(directory: Path) -> None:
    """The first one that fails ends it: later ones are not run."""
    fails = GateCommand(name="unit", argv=("sh", "-c", "echo two failed; exit 3"))
    changed(directory, gates=(fails, GateCommand(name="types", argv=("true",))))
    worker.main([str(directory)])
    said = outcome(directory)
    assert (said.ending, said.code, [gate.gate for gate in said.gates]) == (Ending.FAILED, "exit:3", ["unit"])
    assert "gate 'unit' exited 3:\ntwo failed" in said.reason


def test_a_gates_checkout_is_taken_down(directory: Path, repository: Path) -> None:
    """Neither files nor git's own record of the worktree are left."""
    worker.main([str(directory)])
    listed = subprocess.run(["git", "worktree", "list"], cwd=repository, check=True, capture_output=True, timeout=30)
    assert listed.stdout.count(b"\n") == 1
    assert not list((directory.parent.parent / "agent_workspaces").rglob("README.md"))


def test_what_cannot_be_done_is_an_outcome_with_the_reason(directory: Path) -> None:
    """A commit that is not there fails the run; the worker itself exits 0."""
    changed(directory, workspace=WorkspaceRequest(name="A.1.gate", base="0" * 40, commit="0" * 40))
    assert worker.main([str(directory)]) == 0
    assert outcome(directory).ending is Ending.FAILED
    assert outcome(directory).reason


def test_a_bug_is_a_crash_with_its_traceback_kept(directory: Path) -> None:
    """A landing request without a landing is impossible: the outcome says so, stderr.log has where."""
    changed(directory, purpose=Purpose.LANDING)
    assert worker.main([str(directory)]) == 0
    said = outcome(directory)
    assert (said.ending, said.code) == (Ending.CRASHED, "worker_error")
    assert "AssertionError" in (directory / "stderr.log").read_text()


def test_a_failure_after_we_asked_it_to_stop_is_a_stop(directory: Path) -> None:
    """Nobody is blamed for what happens while stopping; a success stays one."""
    stop = worker.Stop(directory / "stop.json")
    stop.level, stop.wished = 1, True
    assert worker.work(read(directory), directory, stop).ending is Ending.SUCCEEDED
    changed(directory, gates=(GateCommand(name="unit", argv=("false",)),))
    assert worker.work(read(directory), directory, stop).ending is Ending.STOPPED


def test_a_failure_after_a_signal_of_somebody_else_is_a_crash(directory: Path) -> None:
    """The supervisor says in a file that it wishes a stop before it sends the signal; whoever does not is to blame."""
    changed(directory, gates=(GateCommand(name="unit", argv=("false",)),))
    for wished, ending, code in ((False, Ending.CRASHED, "signal:15"), (True, Ending.STOPPED, "exit:1")):
        stop = worker.Stop(directory / "stop.json")
        stop.install()
        if wished:
            (directory / "stop.json").touch()
        signal.raise_signal(signal.SIGTERM)
        (directory / "stop.json").unlink(missing_ok=True)  # taken back by the next supervisor
        said = worker.work(read(directory), directory, stop)
        assert (said.ending, said.code) == (ending, code)


def test_the_first_signal_asks_and_the_second_insists(tmp_path: Path) -> None:
    """A real SIGTERM to ourselves, twice; a third changes nothing, and an interrupt is not for us."""
    stop = worker.Stop(tmp_path / "stop.json")
    stop.install()
    said = [stop()]
    for _ in range(3):
        signal.raise_signal(signal.SIGTERM)
        said.append(stop())
    assert said == ["", "ask", "kill", "kill"]
    signal.raise_signal(signal.SIGINT)
    assert stop() == "kill"


def test_words_that_could_be_paths_are_found_in_a_report() -> None:
    """With line numbers, in code marks, at the end of a sentence; plain words are none."""
    report = "See `src/a.py:12`, docs/x.md. Also Makefile and (./b/c.txt)."
    found = worker._cited(report)
    assert {"src/a.py", "docs/x.md"} <= found
    assert "Makefile" not in found
    assert "See" not in found


KILLED_ONCE = """#!/bin/sh
if [ -e {gated} ] && [ ! -e {killed} ]; then touch {killed}; kill -9 $$; fi
exec {git} "$@"
"""


def test_a_workspace_goes_even_if_git_is_killed_while_it_is_looked_at(
    directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The end of its only run is the last time that anybody comes to take it down."""
    gated, killed, real = tmp_path / "gated", tmp_path / "killed", shutil.which("git")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "git"
    program.write_text(KILLED_ONCE.format(gated=gated, killed=killed, git=real))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    changed(directory, gates=(GateCommand(name="unit", argv=("touch", str(gated))),))
    assert worker.main([str(directory)]) == 0
    assert killed.exists(), "nothing was tried"
    assert (outcome(directory).ending, outcome(directory).reason) == (Ending.SUCCEEDED, "")
    assert not (tmp_path / "state" / "agent_workspaces" / "A.1.gate").exists()
