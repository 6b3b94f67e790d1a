"""What people see: stable keys, and reasons that are true."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from coordination import views
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, GateResult, Landed, Outcome, Purpose
from coordination.model.tasks import Kind, ReviewMode, TaskSpec
from coordination.policy import shipped
from coordination.settings import Settings
from coordination.testing import strategies
from coordination.testing.strategies import History, World, facts

WORKED = Outcome(ending=Ending.SUCCEEDED, base="b1", commit="c1", diff=DiffStat(files=1, insertions=100))
REJECTED = Outcome(ending=Ending.SUCCEEDED, verdict="reject", report="No.")
STOPPED = {"running": True, "pid": 7}


def spec(kind: Kind = Kind.IMPLEMENT, **fields: Any) -> TaskSpec:
    return TaskSpec(prompt="do it", title="It", kind=kind, **fields)


def started(**tasks: TaskSpec) -> World:
    made = World(facts=facts(Settings()))
    for name, wanted in tasks.items():
        made.submit(name, wanted)
    made.decide()
    return made


def waiting(made: World, task: str) -> list[str]:
    return views.waiting(made.state, made.facts, shipped(), made.state.find(task))


def status(made: World) -> views.Row:
    return views.status(made.state, made.facts, shipped(), seq=9, supervisor=STOPPED)


def test_what_runs_or_has_ended_waits_for_nothing() -> None:
    """A running task, and the same task done."""
    made = started(A=spec(Kind.SEARCH))
    assert waiting(made, "A") == []
    made.end("A", Outcome(ending=Ending.SUCCEEDED, report="There."))
    assert waiting(made, "A") == []


def test_a_task_that_lacks_only_a_slot_says_so() -> None:
    """Two green slots, three tasks."""
    assert waiting(started(A=spec(), B=spec(), C=spec()), "C") == ["waits for a free slot"]


def test_a_task_for_nobody_says_what_is_missing() -> None:
    """The policies' holds are reasons too."""
    assert "role 'violet' is not loaded" in waiting(started(A=spec(role="violet")), "A")[0]


def test_an_unknown_dependency_is_shown_as_held() -> None:
    """Shown, not logged: the task itself is queued."""
    made = started(A=spec(after=("nobody",)))
    row = views.task_row(made.state, made.facts, shipped(), made.state.find("A"))
    assert row["state"] == "held"
    assert row["waiting"] == ["waits for 'nobody', which nobody has submitted"]
    assert status(made)["counts"] == {"held": 1}


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("review", [ReviewMode.ALWAYS, ReviewMode.NEVER])
def test_a_pause_under_way_is_the_reason_and_not_a_slot(review: ReviewMode, *, everything: bool) -> None:
    """A commit that waits for its review or its landing because a person paused says so."""
    made = started(A=spec(review=review))
    made.ask(lambda state: commands.pause(state, None if everything else "A"))
    made.end("A", WORKED)
    (said,) = waiting(made, "A")
    assert said.startswith("everything is paused" if everything else "paused by a person")


def test_approved_tasks_wait_for_their_turn() -> None:
    """B is approved while A lands."""
    made = started(A=spec(review=ReviewMode.NEVER), B=spec(review=ReviewMode.NEVER))
    made.end("A", WORKED)
    made.end("B", WORKED)
    assert waiting(made, "B") == ["waits for its turn to land"]


def test_who_needs_a_person_stands_apart_with_the_reason() -> None:
    """The third rejection is in needs_person, not in waiting."""
    made = started(A=spec())
    for _ in range(3):
        made.end("A", WORKED)
        made.end("A", REJECTED)
    shown = status(made)
    assert [row["task"] for row in shown["needs_person"]] == ["A"]
    assert shown["needs_person"][0]["waiting"][0].startswith("rejected 3 times")
    assert shown["waiting"] == shown["running"] == []


def test_a_cancelled_task_whose_worker_lives_is_still_shown_as_running() -> None:
    """It uses a slot, so it cannot be missing where the slots are counted."""
    made = started(A=spec())
    made.ask(lambda state: commands.cancel(state, "A"))
    shown = status(made)
    assert [(row["task"], row["state"], row["run"]) for row in shown["running"]] == [("A", "cancelled", "A.1.work")]
    assert shown["slots"]["green"] == {"used": 1, "most": 2}
    made.end("A", Outcome(ending=Ending.STOPPED))
    assert status(made)["running"] == []


def test_what_runs_comes_first_and_what_ended_last_comes_first_of_those() -> None:
    """Running, queue by priority, then the newest end."""
    made = started(E=spec(Kind.SEARCH), F=spec(Kind.SEARCH))
    for name in "EF":
        made.wait(1.0)
        made.end(name, Outcome(ending=Ending.SUCCEEDED, report="There."))
    for name, priority in (("A", 0), ("B", 0), ("C", 1), ("D", 2)):
        made.submit(name, spec(priority=priority))
    made.decide()
    assert [task.id for task in views.ordered(made.state, made.facts)] == ["D", "C", "A", "B", "F", "E"]


def test_no_gates_is_worth_a_warning() -> None:
    """Without gates every change is reviewed, and status says where to change that."""
    assert "[gates]" in status(started())["warnings"][0]
    gated = World(facts=facts())
    assert status(gated)["warnings"] == []


def test_a_task_is_shown_with_everything_about_it() -> None:
    """Runs with outcome, evidence, commit, cost and reasons, as plain JSON."""
    made = started(A=spec())
    made.end("A", WORKED)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="approve"))
    detail = views.task_detail(made.state, made.facts, shipped(), made.state.find("A"))
    assert [(run["run"], run["ending"]) for run in detail["runs"]] == [
        ("A.1.work", "succeeded"),
        ("A.2.review", "succeeded"),
        ("A.3.landing", None),
    ]
    assert (detail["commit"], detail["merge"], detail["evidence"]["reviewer"]) == ("c1", None, "A.2.review")
    assert list(json.loads(json.dumps(detail))) == list(detail)


def test_who_landed_with_another_is_shown_with_that_landing_and_what_it_says_of_it() -> None:
    """While it lasts it is what the task waits for; afterwards it is a run of both, with an ending for each."""
    made = started(A=spec(review=ReviewMode.NEVER), B=spec(review=ReviewMode.NEVER))
    made.ask(lambda state: commands.pause(state, None))
    made.end("A", WORKED)
    made.end("B", replace(WORKED, commit="c2"))
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    row = views.task_detail(made.state, made.facts, shipped(), made.state.find("B"))
    assert (row["lands_with"], row["run"], row["waiting"]) == ("A.2.landing", None, ["lands with A.2.landing"])
    assert [run["run"] for run in row["runs"]] == ["B.1.work", "A.2.landing"]
    fate = Landed(task="B", kind="gate_failed", reason="gate 'unit' exited 1")
    made.end("A", Outcome(ending=Ending.SUCCEEDED, commit="m1", batch=(fate,)))
    endings = {
        name: [
            (run["run"], run["commit"], run["ending"])
            for run in views.task_detail(made.state, made.facts, shipped(), made.state.find(name))["runs"]
            if run["purpose"] == "landing"
        ]
        for name in ("A", "B")
    }
    assert endings == {"A": [("A.2.landing", "c1", "succeeded")], "B": [("A.2.landing", "c2", "failed")]}


def test_instants_are_told_in_utc_and_never_is_none() -> None:
    """RFC 3339 with milliseconds."""
    assert views.moment(1_769_860_800.25) == "2026-01-31T12:00:00.250Z"
    assert views.moment(0.0) is None


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.histories())
def test_every_surface_can_show_every_history(history: History) -> None:
    """Status, tasks and sentences are plain JSON and text; whoever stands still has a reason, even an empty one."""
    state, known = history.state, history.facts
    shown = views.status(state, known, shipped(), seq=1, supervisor=STOPPED)
    rows = [views.task_detail(state, known, shipped(), task) for task in views.ordered(state, known)]
    assert list(json.loads(json.dumps(shown))) == list(shown)
    assert [list(row) for row in json.loads(json.dumps(rows))] == [list(row) for row in rows]
    assert len(rows) == len(state.tasks)
    assert sum(shown["counts"].values()) == len(rows)
    for task in state.tasks.values():
        assert task.status.ended or views.waiting(state, known, shipped(), task)
    for record in history.records:
        row = e.described(record)
        sentence = views.narrated(row["type"], row)
        assert sentence
        assert "\n" not in sentence


def test_every_event_has_a_sentence_that_names_its_task() -> None:
    """Also those that only a few see."""
    for kind in get_args(e.AnyEvent):
        row = e.described(e.Record(seq=1, index=0, at=0.0, event=_smallest(kind)))
        sentence = views.narrated(row["type"], row)
        assert ("task" not in row) or ("A" in sentence), sentence
        assert "_" not in sentence.replace("dependency_failed", "")


def _smallest(kind: type[e.AnyEvent]) -> e.AnyEvent:
    found: e.AnyEvent = next(event for event in _EXAMPLES if type(event) is kind)
    return found


_EVIDENCE = e.Evidence(commit="c1")
_EXAMPLES: tuple[e.AnyEvent, ...] = (
    e.TaskSubmitted(task="A", spec=spec(), digest=""),
    e.RunPlanned(task="A", run="A.1.work", purpose=Purpose.WORK),
    e.RunStarted(task="A", run="A.1.work"),
    e.RunEnded(task="A", run="A.1.work", outcome=Outcome(ending=Ending.FAILED)),
    e.RunRefused(task="A", run="A.1.work", reason=""),
    e.TaskRequeued(task="A", reason=e.RequeueReason(kind="failure", message="")),
    e.TaskApproved(task="A", evidence=_EVIDENCE),
    e.TaskMerged(task="A", commit="c1", merge="m1"),
    e.TaskDone(task="A", evidence=_EVIDENCE, report=""),
    e.TaskFailed(task="A", reason=""),
    e.TaskCancelled(task="A"),
    e.DependencyFailed(task="A", chain=("B",), reason=""),
    e.TaskEscalated(task="A", reason=""),
    e.TaskHeld(task="A"),
    e.TaskReleased(task="A"),
    e.CoordinationPaused(),
    e.CoordinationResumed(),
    e.SupervisorStarted(supervisor="s", pid=1),
    e.SupervisorStopped(supervisor="s"),
    e.StopRequested(supervisor="s", mode="drain"),
    e.IntegrationCreated(branch="b", commit="c", target="main"),
    e.IntegrationRestored(branch="b", commit="c", reason="it was gone"),
    e.BatchLost(tasks=("A",), evidence="repair/1", reason="a bit"),
)


@pytest.mark.parametrize("ending", [Ending.CONFLICT, Ending.SUCCEEDED])
def test_what_gates_said_of_others_in_a_landing_counts_once(ending: Ending) -> None:
    """Also when the one whose landing it is did not land; and never twice, though it is told of each."""
    made = started(A=spec(review=ReviewMode.NEVER), B=spec(review=ReviewMode.NEVER))
    made.ask(lambda state: commands.pause(state, None))
    made.end("A", WORKED)
    made.end("B", replace(WORKED, commit="c2"))
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    passed = (GateResult(gate="unit", commit="m2", exit_code=0, flaky=True),)
    landed: dict[str, Any] = {"commit": "m1", "gates": passed} if ending is Ending.SUCCEEDED else {}
    made.end("A", Outcome(ending=ending, batch=(Landed(task="B", kind="merged", merge="m2", gates=passed),), **landed))
    shown = status(made)
    assert shown["gate_results"] == {"run": 1, "cached": 0, "flaky": 1}
    assert [(row["gate"], row["times"], row["run"]) for row in shown["flaky"]] == [("unit", 1, "A.2.landing")]
