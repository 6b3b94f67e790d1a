"""Where one part meets another: settings that changed under approved work, and what one part left for another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Member, Outcome, Purpose
from coordination.model.tasks import TaskSpec
from coordination.supervisor import requests
from coordination.testing.stage import FILES, PASSES, Stage, settings_text

JSON = Any
Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    stages = []

    def one(files: dict[str, str] | None = None, **settings: JSON) -> Stage:
        stages.append(Stage(tmp_path / "stage", settings=tables(settings), files=files or FILES).build())
        return stages[-1]

    yield one
    for stage in stages:
        stage.close()


def tables(settings: dict[str, JSON]) -> dict[str, JSON]:
    return {
        "agents": {"backend": "scripted"},
        "supervisor": {"poll_seconds": 0.05},
        "retry": {"backoff_seconds": 0.05},
        **settings,
    }


def change(stage: Stage, **settings: JSON) -> None:
    """The user's settings from the next supervisor on."""
    stage.home.settings_file.write_text(settings_text({"git": {"target": "main"}, **tables(settings)}))


def drop(stage: Stage, task: str, write: dict[str, str], *, script: JSON = None, **fields: JSON) -> None:
    script = script or {"write": write, "report": "done"}
    fields = {"review": "never", "attempts_max": 1, **fields}
    stage.drop(id=task, prompt=f"Do it.\n```script\n{json.dumps(script)}\n```", **fields)


def test_a_gate_that_is_gone_when_its_task_lands_sends_no_work_back(make: Make) -> None:
    """Nobody works again on what is right: a person is told which gate it is, and it lands when that is back."""
    gates = {"default": ["unit"], "unit": list(PASSES)}
    stage = make(gates=gates)
    drop(stage, "T", {".env": "protected\n"}, gates=["unit"])
    stage.run(code=1)
    stage.coord("approve", "T")
    change(stage, gates={"default": ["other"], "other": list(PASSES)})
    drop(stage, "U", {"u.txt": "u\n"}, gates=["other"])
    stage.run(code=1)
    shown = stage.show("T")
    assert (shown["state"], shown["returns"], shown["attempts"]) == ("waiting_for_person", 0, 0)
    assert "gate 'unit' is no longer configured in coordination.toml" in shown["reason"]
    assert [run["purpose"] for run in shown["runs"]] == ["work", "gate", "landing"]
    assert stage.show("U")["state"] == "merged"
    change(stage, gates=gates)
    stage.coord("approve", "T")
    stage.run()
    assert stage.show("T")["state"] == "merged"


def test_what_was_lent_is_not_committed_after_settings_lend_it_no_more(make: Make) -> None:
    """A workspace outlives the settings that it was made with: what it was lent stays lent, and is kept nowhere."""
    stage = make(setup={"copy": ["dev.secret", "other.secret"]}, gates={"default": ["unit"], "unit": list(PASSES)})
    (stage.repository / "dev.secret").write_text("a secret of the user's\n")
    again = {"contains": ["once more"], "do": {"write": {"new.txt": "new\n"}, "report": "done"}}
    drop(stage, "T", {}, script={"match": [again], "do": {"write": {".env": "x\n"}, "report": "done"}})
    stage.run(code=1)
    change(stage, setup={"copy": ["other.secret"]}, gates={"default": ["unit"], "unit": list(PASSES)})
    (stage.repository / "other.secret").write_text("another\n")
    stage.coord("reject", "T", "--reason", "once more")
    stage.run(code=1)
    assert sorted(stage.show("T")["changed"]["files"]) == [".env", "new.txt"]
    stage.coord("cancel", "T")
    stage.coord("gc", "--apply")
    assert ".secret" not in stage.git("rev-list", "--all", "--objects", "--reflog")


def test_an_agent_is_kept_out_of_what_others_make_while_it_works(make: Make) -> None:
    """Trees that wait and what gates remember come to be beside it; what it is kept out of was listed before."""
    stage = make(gates={"default": ["unit"], "unit": list(PASSES)})
    for name in ("pool", "cache", "set_aside"):
        shutil.rmtree(stage.state / name, ignore_errors=True)  # as an earlier version left it
    drop(stage, "T", {"t.txt": "t\n"})
    stage.run()
    asked = json.loads((stage.state / "runs" / "T.1.work" / "request.json").read_text())["agent"]
    for name in ("pool", "cache", "set_aside"):
        assert str(stage.state / name) in asked["deny_read"]
        assert str(stage.state / name) in asked["deny_write"]


def test_a_landing_goes_without_one_whose_submission_is_lost(make: Make) -> None:
    """The log was damaged and repaired between: the plan names a task that nobody knows any more."""
    coordinator = Coordinator(make().home)
    commit = "c" * 40
    worked = Outcome(ending=Ending.SUCCEEDED, commit=commit, diff=DiffStat(files=1, insertions=1))
    history: list[e.AnyEvent] = [
        e.TaskSubmitted(task="A", spec=TaskSpec(prompt="do it", title="It"), digest="d"),
        e.RunPlanned(task="A", run="A.1.work", purpose=Purpose.WORK, base="b" * 40),
        e.RunEnded(task="A", run="A.1.work", outcome=worked),
        e.TaskApproved(task="A", evidence=e.Evidence(commit=commit)),
        e.RunPlanned(
            task="A",
            run="A.2.landing",
            purpose=Purpose.LANDING,
            commit=commit,
            batch=(Member(task="B", commit="d" * 40),),
        ),
    ]
    coordinator.transact(lambda _state: history)
    (run,) = coordinator.state().live_runs()
    landing = requests.build(coordinator, coordinator.state().find("A"), run).landing
    assert landing is not None
    assert (landing.commit, landing.batch) == (commit, ())
