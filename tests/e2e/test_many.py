"""Two supervisors, and many tasks at once; scripted agents but for one test, everything else real."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from coordination.testing.stage import Stage
from tests.e2e.lines import case, say, write

pytestmark = pytest.mark.timeout(90)

SCRIPTED = {"agents": {"backend": "scripted"}}


def scripted(**actions: Any) -> str:
    """A prompt for the scripted backend."""
    return f"Do it.\n```script\n{json.dumps(actions)}\n```"


def test_a_second_supervisor_is_refused_and_told_who_the_first_is(make: Any) -> None:
    """Exit code 4 and the first one's process number; the first goes on undisturbed."""
    stage: Stage = make(settings=SCRIPTED)
    first = stage.start()
    stage.wait_for_event("SupervisorStarted")
    said = stage.coord("start", "--foreground", code=4)
    assert str(first.pid) in said
    assert len(stage.events("SupervisorStarted")) == 1
    assert first.poll() is None
    stage.coord("stop")
    assert first.wait(10) == 0


def test_of_two_supervisors_that_start_together_one_runs(make: Any) -> None:
    """Whoever is second, by however little, ends with exit code 4; never none and never both."""
    stage: Stage = make(settings=SCRIPTED)
    both = [stage.start(), stage.start()]
    stage.wait_for(lambda: [one for one in both if one.poll() is not None], "end of the second")
    stage.wait_for_event("SupervisorStarted")
    assert [one.poll() for one in both if one.poll() is not None] == [4]
    stage.coord("stop")
    assert sorted(one.wait(10) for one in both) == [0, 4]
    assert len(stage.events("SupervisorStarted")) == 1


def test_what_the_user_commits_meanwhile_is_landed_upon(make: Any) -> None:
    """A landing takes in what the target gained; the gate runs on the result; the user's branch is theirs."""
    gate = [sys.executable, "-B", "-c", "import os, sys; print(sorted(os.listdir())); import greeter"]
    stage = make(settings={**SCRIPTED, "gates": {"default": ["unit"], "unit": gate}})
    script = scripted(write={"new.txt": "new"}, report="done", sleep_seconds=1.5)
    stage.drop(id="T", review="never", prompt=script)
    supervisor = stage.start("--once")
    stage.wait_for_event("RunStarted", run="T.1.work")
    users = stage.commit("mine.txt", "mine")
    stage.before = stage.users()
    assert supervisor.wait(30) == 0
    assert stage.git("show", "coordination/integration:mine.txt") == "mine"
    assert stage.git("show", "coordination/integration:new.txt") == "new"
    assert stage.git("rev-parse", "main").strip() == users
    on_work, on_merge = (
        event["outcome"]["gates"][0]["output"] for event in stage.events("RunEnded") if "gates" in event["outcome"]
    )
    assert "mine.txt" not in on_work
    assert "mine.txt" in on_merge
    assert "new.txt" in on_merge


def test_sixteen_tasks_at_once_all_land(make: Any) -> None:
    """Sixteen workers make workspaces and commits at the same time; each lands once, none loses its file."""
    settings = {**SCRIPTED, "gates": {}, "roles.green": {"slots": 16}}
    stage: Stage = make(settings=settings)
    names = [f"n{number}" for number in range(16)]
    for name in names:
        stage.drop(id=name, review="never", prompt=scripted(write={f"{name}.txt": name}, report="done"))
    stage.run()
    assert sorted(event["task"] for event in stage.events("TaskMerged")) == sorted(names)
    merges = stage.git("rev-list", "--first-parent", "--merges", "main..coordination/integration").splitlines()
    assert len(merges) == 16
    landed = {name: stage.git("show", f"coordination/integration:{name}.txt") for name in names}
    assert landed == {name: name for name in names}
    assert {event["reason"]["kind"] for event in stage.events("TaskRequeued")} == set()
    assert most_at_once(stage) == 16


def most_at_once(stage: Stage) -> int:
    """How many work runs were planned and had not ended, at most."""
    alive = most = 0
    for event in stage.events():
        if event.get("run", "").endswith(".work"):
            alive += {"RunPlanned": 1, "RunEnded": -1}.get(event["type"], 0)
            most = max(most, alive)
    return most


AT_ONCE = {1: 10, 2: 50}


@pytest.mark.timeout(300)
def test_workers_that_start_at_once_all_get_a_workspace_and_a_session(
    make: Any, tier: int, figure: Callable[..., None]
) -> None:
    """The model answers nobody before all have asked: then each has its worktree and its configuration, and lands."""
    count = AT_ONCE[tier]
    names = [f"w{number}" for number in range(count)]
    first = {name: [{"gather": count}, *write(f"{name}.txt", name)] for name in names}
    scene = make(
        [case(f"# Task {name}:", steps=[first[name], say("Done.")]) for name in names],
        settings={
            "gates": {},
            "roles.green": {"slots": count},
            "agents": {"start_slots": count, "api_timeout_seconds": 240.0},
        },
    )
    for name in names:
        scene.drop(id=name, review="never", prompt="Write it.")
    supervisor = scene.start("--once")
    scene.wait_for(lambda: len(scene.asked("# Task w")) >= count, "question of the last", 240.0)
    places = scene.git("worktree", "list", "--porcelain").count("worktree ") - 1
    begun = [path for path in (scene.state / "sessions").iterdir() if path.is_dir() and any(path.iterdir())]
    assert supervisor.wait(240) == 0, scene.said()
    ended = {event["run"]: event["outcome"]["ending"] for event in scene.events("RunEnded")}
    failed = [f"{run} {ending}" for run, ending in ended.items() if ending != "succeeded"]
    failed += [
        f"{name} was tried again" for name in names if f"{name}.1.work" not in ended or f"{name}.3.work" in ended
    ]
    sessions = [path for path in begun if list(path.glob("projects/*/*.jsonl"))]
    note = f"{places} worktrees and {len(begun)} configurations while all waited for the model"
    figure("G21", "workers that started at once, Claude Code", count, violations=len(failed), note=note)
    assert failed == []
    assert (places, len(sessions)) == (count, count)
    assert {name: scene.git("show", f"coordination/integration:{name}.txt") for name in names} == {n: n for n in names}
    assert len(scene.events("TaskMerged")) == count
