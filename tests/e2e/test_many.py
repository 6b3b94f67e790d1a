"""Two supervisors, and many tasks at once; scripted agents, everything else real."""

from __future__ import annotations

import json
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
