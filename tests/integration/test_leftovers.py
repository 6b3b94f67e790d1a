"""Does ``coord repair`` find what dead runs left, put it right without losing anything, and leave the living alone?"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordination.coordinator import Coordinator
from coordination.model.runs import WorkspaceRequest
from coordination.testing.stage import Stage
from coordination.workspaces import Workspaces

SETTINGS = {"agents": {"backend": "scripted"}, "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.5}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A coordination with scripted agents; its processes end with the test."""
    made = Stage(tmp_path, settings=SETTINGS).build()
    yield made
    made.close()


def script(**actions: Any) -> str:
    return f"Do it.\n```script\n{json.dumps(actions)}\n```"


def repair(stage: Stage, *options: str, code: int = 0) -> list[dict[str, Any]]:
    said = stage.coord("repair", "--json", *options, code=code)
    return list(json.loads(said.splitlines()[0])["leftovers"])


def died(stage: Stage) -> None:
    """A task is worked on, and its worker and supervisor are killed."""
    stage.drop(id="T", review="never", prompt=script(write={"new.txt": "new"}, sleep_seconds=60))
    supervisor = stage.start()
    stage.wait_for_event("RunStarted", run="T.1.work")
    stage.wait_for((stage.state / "agent_workspaces/T/new.txt").exists, "written file")
    supervisor.kill()
    supervisor.wait()
    assert stage.kill_worker("T.1.work")
    stage.wait_for(lambda: stage.worker("T.1.work") is None, "end of the worker")


def test_a_run_that_died_unseen_is_named_and_then_recorded(stage: Stage) -> None:
    """First only told; then recorded as the next supervisor would, once; and the task goes on from there."""
    assert repair(stage) == []
    died(stage)
    before = stage.events()
    (found,) = repair(stage, code=1)
    assert (found["kind"], found["name"]) == ("run", "T.1.work")
    assert stage.events() == before, "nothing is written without --apply"

    assert [left["name"] for left in repair(stage, "--apply")] == ["T.1.work"]
    (ended,) = stage.events("RunEnded")
    assert ended["outcome"]["code"] == "worker_died"
    assert repair(stage) == []
    assert repair(stage, "--apply") == []
    assert len(stage.events("RunEnded")) == 1
    assert (stage.state / "agent_workspaces/T/new.txt").read_text() == "new", "the work of a task that goes on stays"


def test_beside_a_supervisor_nothing_is_touched(stage: Stage) -> None:
    """It cares for its runs itself, and repair says who it is."""
    stage.drop(id="T", review="never", prompt=script(sleep_seconds=60))
    supervisor = stage.start()
    stage.wait_for_event("RunStarted", run="T.1.work")
    assert repair(stage) == []
    assert str(supervisor.pid) in stage.coord("repair", "--apply", code=4)
    assert stage.worker("T.1.work") is not None


def test_a_worker_that_lives_on_alone_is_left_alone(stage: Stage) -> None:
    """Its supervisor is dead, it is not: the next one adopts it."""
    stage.drop(id="T", review="never", prompt=script(sleep_seconds=60))
    supervisor = stage.start()
    stage.wait_for_event("RunStarted", run="T.1.work")
    supervisor.kill()
    supervisor.wait()
    assert repair(stage) == []
    assert repair(stage, "--apply") == []
    assert stage.worker("T.1.work") is not None
    assert stage.events("RunEnded") == []


def test_workspaces_that_are_no_longer_needed_go_and_what_was_in_them_is_kept(stage: Stage) -> None:
    """That of a merged task under a ref; one that git knows only in part is moved aside, with its files."""
    stage.drop(id="T", review="never", prompt=script(write={"new.txt": "new"}, report="done"))
    stage.drop(id="U", review="never", prompt=script(write={"other.txt": "other"}, report="done"))
    stage.run()
    workspaces = Workspaces(stage.repository / ".git", stage.state)
    base = stage.git("rev-parse", "main").strip()
    for task in ("T", "U"):
        made = workspaces.ensure(WorkspaceRequest(name=task, base=base, commit=base))
        (made / "late.txt").write_text(f"late work of {task}")
    (record,) = (path for path in (stage.repository / ".git/worktrees").glob("*/gitdir") if "/U/" in path.read_text())
    (record.parent / "HEAD").unlink()

    found = {left["name"]: left for left in repair(stage, code=1)}
    assert set(found) == {"T", "U"}
    assert "merged" in found["T"]["found"]
    assert "half made" in found["U"]["found"]
    assert (stage.state / "agent_workspaces/T").is_dir()
    assert (stage.state / "agent_workspaces/U").is_dir()

    assert {left["name"] for left in repair(stage, "--apply")} == {"T", "U"}
    (kept,) = workspaces.preserved("T")
    assert stage.git("show", f"{kept}:late.txt") == "late work of T"
    (aside,) = (stage.state / "set_aside").iterdir()
    assert (aside / "late.txt").read_text() == "late work of U"
    assert workspaces.names() == ()
    assert workspaces.broken() == ()
    assert repair(stage) == []


def test_a_workspace_whose_directory_is_gone_is_forgotten_by_git(stage: Stage) -> None:
    """Somebody removed it with ``rm -r``: git's record of it goes too, so that the task can begin again."""
    stage.drop(id="T", review="never", prompt=script(report="I did nothing"), attempts_max=1)
    stage.run(code=1)
    shutil.rmtree(stage.state / "agent_workspaces/T")
    (found,) = repair(stage, code=1)
    assert found["kind"] == "workspace"
    repair(stage, "--apply")
    assert "agent_workspaces" not in stage.git("worktree", "list")


def test_what_a_failed_task_left_stays_for_the_person(stage: Stage) -> None:
    """Only what ended well needs no second look."""
    stage.drop(id="T", review="never", prompt=script(write={"new.txt": "new"}, ending="failed"), attempts_max=1)
    stage.run(code=1)
    assert (stage.state / "agent_workspaces/T").is_dir()
    assert repair(stage) == []


def test_processes_of_ended_runs_are_killed_by_name(stage: Stage) -> None:
    """They carry the mark of a run that has ended; nobody else is touched."""
    stage.drop(id="T", review="never", prompt=script(write={"new.txt": "new"}, report="done"))
    stage.run()
    coordinator = Coordinator(stage.home)
    marked = {"COORDINATION_RUN": coordinator.run_marker("T.1.work")}
    ours, other = (psutil.Popen(["sleep", "86311"], env=env) for env in (marked, {"COORDINATION_RUN": "else/T.1.work"}))
    try:
        (found,) = repair(stage, code=1)
        assert (found["kind"], found["name"]) == ("processes", "T.1.work")
        assert str(ours.pid) in found["found"]
        repair(stage, "--apply")
        assert ours.wait(10) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (ours, other):
            if process.poll() is None:
                process.kill()
            process.wait()


def test_it_says_so_in_words(stage: Stage) -> None:
    """What is left over, what would be done, and how."""
    died(stage)
    said = stage.coord("repair", code=1)
    assert "run T.1.work: its worker is gone without an outcome" in said
    assert "`coord repair --apply` does this" in said
    assert "its end is recorded" in stage.coord("repair", "--apply")
    assert "Nothing to do" in stage.coord("repair")
