"""What each fact does to the state."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from coordination.errors import NotFound
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome, Purpose, Usage
from coordination.model.state import FEEDBACK_MAX, Core, State, Task, fold, total
from coordination.model.tasks import ENDED, TRANSITIONS, Kind, Status, TaskSpec


def folded(*events: e.AnyEvent, state: State | None = None) -> State:
    """Each event as a batch of its own, a second apart."""
    state = state if state is not None else State()
    for seq, event in enumerate(events, 1):
        state = fold(state, e.Record(seq=seq, index=0, at=1000.0 + seq, event=event))
    return state


def submitted(task: str = "A", **fields: Any) -> e.TaskSubmitted:
    return e.TaskSubmitted(task=task, spec=TaskSpec(prompt="do it", title="It", **fields), digest="d")


def planned(number: int = 1, purpose: Purpose = Purpose.WORK, task: str = "A", **fields: Any) -> e.RunPlanned:
    return e.RunPlanned(task=task, run=f"{task}.{number}.{purpose}", purpose=purpose, **fields)


def over(number: int = 1, purpose: Purpose = Purpose.WORK, **fields: Any) -> e.RunEnded:
    outcome = Outcome(**({"ending": Ending.SUCCEEDED} | fields))
    return e.RunEnded(task="A", run=f"A.{number}.{purpose}", outcome=outcome)


def requeued(kind: str, message: str = "why", **fields: Any) -> e.TaskRequeued:
    return e.TaskRequeued(task="A", reason=e.RequeueReason(kind=kind, message=message), **fields)


def approved(commit: str = "c1") -> e.TaskApproved:
    return e.TaskApproved(task="A", evidence=e.Evidence(commit=commit, reason="fine"))


def the(state: State) -> Task:
    return state.tasks["A"]


def test_every_fact_has_its_place_in_the_fold() -> None:
    """No event falls through: each known type changes something when it may stand where it stands."""
    story: list[e.AnyEvent] = [
        e.SupervisorStarted(supervisor="s", pid=1),
        e.IntegrationCreated(branch="b", commit="i1", target="main"),
        e.IntegrationRestored(branch="b", commit="i2", reason="it was gone"),
        e.StopRequested(supervisor="s", mode="drain"),
        e.SupervisorStopped(supervisor="s"),
        e.CoordinationPaused(),
        e.CoordinationResumed(),
        submitted(),
        e.TaskHeld(task="A"),
        e.TaskReleased(task="A"),
        planned(),
        e.RunStarted(task="A", run="A.1.work", pid=5),
        e.RunRefused(task="A", run="A.1.work", reason="late"),
        over(commit="c1"),
        requeued("failure"),
        planned(2),
        over(2, commit="c2"),
        e.TaskEscalated(task="A", reason="odd"),
        approved("c2"),
        planned(3, Purpose.LANDING),
        over(3, Purpose.LANDING, commit="m1"),
        e.TaskMerged(task="A", commit="c2", merge="m1"),
        submitted("B"),
        e.TaskFailed(task="B", reason="bad base"),
        submitted("C"),
        e.DependencyFailed(task="C", chain=("B",), reason="B"),
        submitted("D"),
        e.TaskCancelled(task="D"),
        submitted("E", kind=Kind.SEARCH),
        planned(task="E"),
        e.TaskDone(task="E", evidence=e.Evidence(commit="b"), report="there"),
        e.BatchLost(tasks=("E",), evidence="there", reason="a bit"),
    ]
    assert {type(event) for event in story} == set(get_args(e.AnyEvent))
    state, core = State(), Core()
    for event in story:
        before = core.dump(state)
        state = folded(event, state=state)
        assert core.dump(state) != before, e.name(event)
    found = {task.id: str(task.status) for task in state.tasks.values()}
    assert found == {"A": "merged", "B": "failed", "C": "dependency_failed", "D": "cancelled", "E": "done"}


def test_a_submitted_task_is_queued_and_found_whatever_the_case() -> None:
    """With its place in the log and its time."""
    state = folded(submitted("Task"))
    task = state.find("tASK")
    assert (task.id, task.status, task.seq, task.submitted_at) == ("Task", Status.QUEUED, 1, 1001.0)
    assert state.get("other") is None
    with pytest.raises(NotFound):
        state.find("other")


def test_a_run_goes_from_planned_to_started_to_ended() -> None:
    """Token and times come from the records, never from what a worker says."""
    state = folded(submitted(), planned(base="b1"), e.RunStarted(task="A", run="A.1.work", pid=5))
    run = state.run("A.1.work")
    assert (run.token, run.planned_at, run.started_at, run.pid, run.live) == (2, 1002.0, 1003.0, 5, True)
    assert state.live_runs() == [run]
    state = folded(over(ending=Ending.FAILED, started_at=9.0, ended_at=9.0), state=state)
    run = state.run("A.1.work")
    assert (run.live, run.succeeded, run.ended_at) == (False, False, 1001.0)
    assert (the(state).base, state.live_runs()) == ("b1", [])


@pytest.mark.parametrize(
    ("purpose", "status"),
    [
        (Purpose.WORK, Status.RUNNING),
        (Purpose.GATE, Status.REVIEWING),
        (Purpose.REVIEW, Status.REVIEWING),
    ],
)
def test_the_purpose_of_a_run_says_where_the_task_stands(purpose: Purpose, status: Status) -> None:
    """Work is running; gates and reviews are reviewing."""
    before: list[e.AnyEvent] = [] if purpose is Purpose.WORK else [planned(), over(commit="c1")]
    state = folded(submitted(), *before, planned(1 + len(before) // 2, purpose))
    assert the(state).status is status


@pytest.mark.parametrize(
    ("kind", "counters"),
    [
        ("failure", (1, 0, 0)),
        ("rejected", (0, 1, 0)),
        ("conflict", (0, 0, 1)),
        ("stopped", (0, 0, 0)),
        ("weather", (0, 0, 0)),
        ("answered", (0, 0, 0)),
    ],
)
def test_each_reason_raises_its_own_counter(kind: str, counters: tuple[int, int, int]) -> None:
    """Failures are attempts, rejections rounds, conflicts returns; the rest is nobody's fault."""
    task = the(folded(submitted(), planned(), over(), requeued(kind, not_before=5.0)))
    assert (task.attempts, task.rounds, task.returns) == counters
    assert (task.status, task.not_before, task.present, task.reason) == (Status.QUEUED, 5.0, (), "why")


def test_a_retry_forgets_counters_chain_and_evidence_but_not_what_was_said() -> None:
    """The history of feedback goes on."""
    first = folded(submitted(), planned(), over(), requeued("failure", "one"), planned(2), over(2))
    task = the(folded(e.TaskFailed(task="A", reason="two"), requeued("retried", "again"), state=first))
    assert (task.attempts, task.rounds, task.returns, task.chain, task.evidence) == (0, 0, 0, (), None)
    assert [entry.message for entry in task.feedback] == ["one", "again"]


def test_feedback_keeps_only_the_newest() -> None:
    """Thirteen returns to the queue leave the last twelve reasons."""
    state = folded(submitted())
    for number in range(1, FEEDBACK_MAX + 2):
        state = folded(planned(number), over(number), requeued("stopped", f"no {number}"), state=state)
    assert [entry.message for entry in the(state).feedback] == [f"no {n}" for n in range(2, FEEDBACK_MAX + 2)]


def test_a_failure_before_any_run_uses_up_no_attempt() -> None:
    """A base that is not acceptable is no attempt."""
    assert the(folded(submitted(), e.TaskFailed(task="A", reason="bad base"))).attempts == 0
    assert the(folded(submitted(), planned(), over(), e.TaskFailed(task="A", reason="x"))).attempts == 1


def test_a_cancelled_task_stays_open_until_its_run_has_ended() -> None:
    """Its live run is still counted and stopped."""
    state = folded(submitted(), planned(), e.TaskCancelled(task="A"))
    assert [run.id for run in state.live_runs()] == ["A.1.work"]
    state = folded(over(ending=Ending.STOPPED), state=state)
    assert (state.live_runs(), list(state.open), the(state).status) == ([], [], Status.CANCELLED)


def test_a_pause_while_running_holds_the_task_when_it_comes_back() -> None:
    """Running stays running; back in the queue means held, until released."""
    state = folded(submitted(), planned(), e.TaskHeld(task="A", reason="lunch"))
    assert (the(state).status, the(state).paused) == (Status.RUNNING, True)
    state = folded(over(ending=Ending.STOPPED), requeued("stopped"), state=state)
    assert the(state).status is Status.HELD
    assert the(folded(e.TaskReleased(task="A"), state=state)).status is Status.QUEUED


def test_a_pause_does_not_hide_what_a_person_is_waited_for() -> None:
    """The question is still there while the task is paused and after it was resumed."""
    state = folded(submitted(), planned(), over(), e.TaskEscalated(task="A", reason="Which of the two?"))
    state = folded(e.TaskHeld(task="A", reason="later"), state=state)
    assert the(state).reason == "Which of the two?"
    assert the(folded(e.TaskReleased(task="A"), state=state)).reason == "Which of the two?"


def test_only_work_moves_the_commit() -> None:
    """A landing's merge commit is not the commit of the work."""
    story: list[e.AnyEvent] = [submitted(), planned(), over(commit="c1"), approved(), planned(2, Purpose.LANDING)]
    state = folded(*story, over(2, Purpose.LANDING, commit="m1"))
    assert (the(state).commit, the(state).merge) == ("c1", "")
    state = folded(e.TaskMerged(task="A", commit="c1", merge="m1"), state=state)
    assert (the(state).commit, the(state).merge, state.merged) == ("c1", "m1", 1)


def test_money_is_summed_over_runs_and_tasks() -> None:
    """An estimate anywhere makes the sum an estimate."""
    spent = Usage(cost_usd=0.5, input_tokens=3, turns=1)
    guessed = Usage(cost_usd=0.25, estimated=True)
    state = folded(submitted(), planned(), over(usage=spent), requeued("failure"), planned(2), over(2, usage=guessed))
    assert the(state).usage == Usage(cost_usd=0.75, estimated=True, input_tokens=3, turns=1)
    assert state.money.spent_usd == 0.75
    assert total([]) == Usage()


@pytest.mark.parametrize(
    "story",
    [
        [submitted(), submitted("a")],
        [submitted(), planned(2)],
        [submitted(), e.TaskMerged(task="A", commit="c", merge="m")],
        [submitted(), planned(), over(), e.TaskFailed(task="A", reason="x"), approved()],
        [submitted(), e.TaskCancelled(task="A"), e.TaskFailed(task="A", reason="x")],
    ],
    ids=["twice", "out of turn", "merged unapproved", "approved after failing", "failed after cancelled"],
)
def test_what_only_a_bug_can_write_is_not_folded(story: list[e.AnyEvent]) -> None:
    """An illegal step stops the fold instead of making a state that cannot be."""
    folded(*story[:-1])
    with pytest.raises(AssertionError):
        folded(*story)


def test_a_good_end_is_for_ever_and_every_state_can_be_reached() -> None:
    """Merged and done lead nowhere; every state but the first follows from another; bad ends can be brought back."""
    assert TRANSITIONS[Status.MERGED] == TRANSITIONS[Status.DONE] == frozenset()
    reached = frozenset().union(*TRANSITIONS.values())
    assert reached == set(Status)
    assert set(TRANSITIONS) == set(Status)
    for status in ENDED - {Status.MERGED, Status.DONE}:
        assert Status.QUEUED in TRANSITIONS[status]
