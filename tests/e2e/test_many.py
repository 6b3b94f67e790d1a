"""Two supervisors, and many tasks at once; scripted agents, everything else real."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from coordination.testing.stage import Stage

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
