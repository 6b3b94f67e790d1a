"""What people and outcomes ask for, asked once, twice and at the wrong time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from coordination.errors import NotFound, Refused, Rejected
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, GateResult, Landed, Outcome, Purpose, Rule
from coordination.model.state import State
from coordination.model.taskfile import Submission
from coordination.model.tasks import Kind, ReviewMode, Status, TaskSpec
from coordination.settings import Gates, LimitSettings, RoleSettings, Settings
from coordination.testing.strategies import GATES, World, facts

Command = Callable[[State], Sequence[e.AnyEvent]]
WORKED = Outcome(ending=Ending.SUCCEEDED, base="b1", commit="c1", diff=DiffStat(files=1, insertions=100))
FAILED = Outcome(ending=Ending.FAILED, reason="no")
REPORT = Outcome(ending=Ending.SUCCEEDED, report="It is there.")


def spec(kind: Kind = Kind.IMPLEMENT, **fields: Any) -> TaskSpec:
    return TaskSpec(prompt="do it", title="It", kind=kind, **fields)


def submission(task: str | None, digest: str = "d", **fields: Any) -> Submission:
    return Submission(id=task, spec=spec(**fields), digest=digest)


def world(settings: Settings | None = None, /, **tasks: TaskSpec) -> World:
    made = World(facts=facts(settings or Settings()))
    for name, wanted in tasks.items():
        made.submit(name, wanted)
    return made


def running(settings: Settings | None = None, **fields: Any) -> World:
    made = world(settings, A=spec(**fields))
    made.decide()
    return made


def waiting_for_person(**fields: Any) -> World:
    """A with a commit that was rejected in its last round."""
    made = running(Settings(limits=LimitSettings(rounds_max=1)), **fields)
    made.end("A", WORKED)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="reject"))
    assert made.state.find("A").status is Status.WAITING_FOR_PERSON
    return made


def landing() -> World:
    made = running(review=ReviewMode.NEVER)
    made.end("A", WORKED)
    assert made.live("A").purpose is Purpose.LANDING
    return made


# ---- submit ----------------------------------------------------------------------------------------------------------


def test_minted_ids_count_and_skip_used_ones() -> None:
    """t1, then t3, when somebody called a task T2 in between."""
    made = world(T2=spec())
    for expected in ("t1", "t3"):
        task, events = commands.submit(made.state, submission(None))
        assert task == expected
        made.transact(events)


def test_the_same_id_and_content_is_a_no_op_whatever_the_case() -> None:
    """The id answered is the one it was submitted with."""
    made = World(facts=facts())
    made.transact(commands.submit(made.state, submission("Task"))[1])
    assert commands.submit(made.state, submission("TASK")) == ("Task", ())


def test_the_same_id_with_other_content_is_refused() -> None:
    """The refusal names the field and both digests."""
    made = World(facts=facts())
    made.transact(commands.submit(made.state, submission("A", "one"))[1])
    with pytest.raises(Rejected) as caught:
        commands.submit(made.state, submission("a", "two"))
    assert (caught.value.field, caught.value.found) == ("id", "two")


def test_the_same_ticket_is_a_no_op() -> None:
    """A file that was taken before a crash is not a second task, though it has no id."""
    made = World(facts=facts())
    made.transact(commands.submit(made.state, submission(None), ticket="x")[1])
    assert commands.submit(made.state, submission(None, "other"), ticket="x") == ("t1", ())


@pytest.mark.parametrize(
    ("known", "after", "loop"),
    [
        ({}, ("a",), "A -> a"),
        ({"B": ("A",)}, ("B",), "A -> B -> A"),
        ({"B": ("C",), "C": ("D", "a")}, ("X", "B"), "A -> B -> C -> a"),
    ],
)
def test_cycles_are_refused_with_the_way_round(
    known: dict[str, tuple[str, ...]], after: tuple[str, ...], loop: str
) -> None:
    """Through any number of tasks, whatever the case, past unknown ids."""
    made = world(**{name: spec(after=others) for name, others in known.items()})
    with pytest.raises(Rejected) as caught:
        commands.submit(made.state, submission("A", after=after))
    assert (caught.value.field, caught.value.found) == ("after", loop)


def test_two_ways_to_the_same_task_are_no_cycle() -> None:
    """A diamond is fine."""
    made = world(A=spec(), B=spec(after=("A",)), C=spec(after=("A",)))
    assert commands.submit(made.state, submission("D", after=("B", "C")))[0] == "D"


def test_a_long_chain_is_followed_without_recursion() -> None:
    """Five thousand tasks in a row, closed to a ring, are refused, not a stack overflow."""
    made = World(facts=facts())
    chain = [e.TaskSubmitted(task=f"k{n}", spec=spec(after=(f"k{n + 1}",)), digest="") for n in range(5_000)]
    made.transact(chain)
    with pytest.raises(Rejected):
        commands.submit(made.state, submission("k5000", after=("k0",)))


# ---- the end of a run ------------------------------------------------------------------------------------------------


def test_an_outcome_of_a_superseded_worker_is_refused_and_recorded() -> None:
    """Another token: no end, but a fact that names both tokens; the run lives on."""
    made = running()
    run = made.live("A")
    made.transact(commands.end(made.state, run.id, WORKED, token=run.token - 1))
    assert made.live("A").id == run.id
    assert f"fencing token {run.token - 1} is not the run's {run.token}" in made.state.find("A").refused[0]


def test_a_run_ends_once() -> None:
    """The second outcome of the same run is no event."""
    made = running()
    run = made.live("A")
    made.transact(commands.end(made.state, run.id, FAILED, token=run.token))
    assert commands.end(made.state, run.id, WORKED, token=run.token) == ()


def test_a_run_starts_once() -> None:
    """Neither a second start nor one after the end is an event."""
    made = running()
    made.transact(commands.start(made.live("A"), pid=7))
    assert commands.start(made.live("A"), pid=8) == ()
    made.end("A", FAILED)
    assert commands.start(made.state.find("A").runs[0], pid=9) == ()


def test_an_unknown_run_is_not_found() -> None:
    """Neither of a task that is not there, nor a number that was never planned."""
    made = running()
    for run in ("B.1.work", "A.2.work", "A.1.gate"):
        with pytest.raises(NotFound):
            commands.end(made.state, run, WORKED, token=1)


@pytest.mark.parametrize(
    ("outcome", "lacking"),
    [
        (Outcome(ending=Ending.SUCCEEDED), "gate 'unit' on c1"),
        (
            Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="unit", commit="c1", exit_code=1),)),
            "passing result",
        ),
        (
            Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="unit", commit="c0", exit_code=0),)),
            "passing result",
        ),
        (
            Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="lint", commit="c1", exit_code=0),)),
            "passing result",
        ),
    ],
)
def test_a_gate_that_says_it_passed_must_show_it(outcome: Outcome, lacking: str) -> None:
    """Of that gate, on that commit, with exit code 0; anything else is recorded as a failure."""
    made = running(Settings(gates=Gates(default=("unit",), named=GATES)))
    made.end("A", WORKED)
    run = made.live("A")
    (event,) = commands.end(made.state, run.id, outcome, token=run.token)
    assert isinstance(event, e.RunEnded)
    assert (event.outcome.ending, event.outcome.code) == (Ending.FAILED, "unproven")
    assert lacking in event.outcome.reason


def test_a_gate_speaks_for_itself_alone() -> None:
    """What it claims of other gates and of other commits is not recorded, so it spares nobody anything."""
    made = running(Settings(gates=Gates(default=("unit", "types"), named=GATES)))
    made.end("A", WORKED)
    claims = [("unit", "c1"), ("types", "c1"), ("unit", "c2")]
    results = tuple(GateResult(gate=gate, commit=commit, exit_code=0) for gate, commit in claims)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=results))
    ended = made.state.find("A").runs[1].outcome
    assert ended is not None
    assert [(result.gate, result.commit) for result in ended.gates] == [("unit", "c1")]
    assert made.live("A").gate == "types"


# ---- cancel and retry ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [world(A=spec()), running(), waiting_for_person(), world(A=spec(after=("nobody",)))],
    ids=["queued", "running", "waiting_for_person", "held"],
)
def test_what_has_not_ended_can_be_cancelled_once(made: World) -> None:
    """Cancelled, and cancelled again is no event."""
    assert made.ask(lambda state: commands.cancel(state, "a", "no need"))
    assert (made.state.find("A").status, made.state.find("A").reason) == (Status.CANCELLED, "no need")
    assert commands.cancel(made.state, "A") == ()


def test_what_lands_cannot_be_cancelled() -> None:
    """The merge may be made already."""
    with pytest.raises(Refused, match="landing just now"):
        commands.cancel(landing().state, "A")


def test_what_lands_with_another_is_bound_like_what_lands_alone() -> None:
    """Not cancelled while it lands, nor between the end of the landing and TaskMerged; paused it may be."""
    made = World(facts=facts(Settings(roles={"green": RoleSettings(slots=3)})))
    for name in ("A", "B", "C"):
        made.submit(name, TaskSpec(prompt="p", title="t", review=ReviewMode.NEVER, gates=()))
    made.decide()
    made.transact(commands.pause(made.state, None))
    for name in ("A", "B", "C"):
        made.end(name, Outcome(ending=Ending.SUCCEEDED, commit=f"c{name}", diff=DiffStat(files=1, insertions=1)))
    made.transact(commands.resume(made.state, None))
    made.decide()
    with pytest.raises(Refused, match="landing just now"):
        commands.cancel(made.state, "B")
    with pytest.raises(Refused, match="approved"):
        commands.retry(made.state, "B")
    assert commands.approve(made.state, "B") == ()
    made.transact(commands.pause(made.state, "B"))
    run = made.live("A")
    others = (Landed(task="B", kind="merged", merge="m2"), Landed(task="C", kind="left"))
    outcome = Outcome(ending=Ending.SUCCEEDED, commit="m1", batch=others)
    made.transact(commands.end(made.state, run.id, outcome, token=run.token))
    with pytest.raises(Refused, match="has just landed"):
        commands.cancel(made.state, "B")
    assert commands.cancel(made.state, "C")
    made.decide()
    assert str(made.state.find("B").status) == "merged"


def test_what_has_landed_but_is_not_recorded_as_merged_cannot_be_cancelled() -> None:
    """Between the end of the landing and TaskMerged the branch has it: cancelled would be a lie."""
    made = landing()
    run = made.live("A")
    landed = Outcome(ending=Ending.SUCCEEDED, commit="m1")
    made.transact(commands.end(made.state, run.id, landed, token=run.token))
    with pytest.raises(Refused, match="has just landed"):
        commands.cancel(made.state, "A")
    made.decide()
    assert made.state.find("A").status is Status.MERGED


def test_what_has_ended_cannot_be_cancelled() -> None:
    """A failed task and one that ended well say so."""
    made = world(A=spec(Kind.SEARCH), B=spec(Kind.SEARCH, attempts_max=1))
    made.decide()
    made.end("A", REPORT)
    made.end("B", FAILED)
    for task in "AB":
        with pytest.raises(Refused, match="has ended"):
            commands.cancel(made.state, task)


def test_retry_starts_with_fresh_counters() -> None:
    """Attempts, rounds and returns are 0 again; what was said before is kept."""
    made = waiting_for_person()
    assert made.state.find("A").rounds == 1
    made.ask(lambda state: commands.retry(state, "A"))
    task = made.state.find("A")
    assert (task.status, task.attempts, task.rounds, task.returns) == (Status.QUEUED, 0, 0, 0)
    assert commands.retry(made.state, "A") == ()


def test_retry_waits_for_a_run_that_is_being_stopped() -> None:
    """A cancelled task whose worker still lives is not started beside it."""
    made = running()
    made.ask(lambda state: commands.cancel(state, "A"))
    with pytest.raises(Refused, match=r"A\.1\.work"):
        commands.retry(made.state, "A")
    made.end("A", Outcome(ending=Ending.STOPPED))
    assert made.ask(lambda state: commands.retry(state, "A"))


def test_retry_frees_only_those_who_failed_because_of_it() -> None:
    """C needs A through B and comes along, though submitted first; D needs another task and stays."""
    made = world(
        C=spec(Kind.SEARCH, after=("B",)),
        B=spec(Kind.SEARCH, after=("A",)),
        A=spec(Kind.SEARCH, attempts_max=1),
        X=spec(Kind.SEARCH, attempts_max=1),
        D=spec(Kind.SEARCH, after=("X",)),
    )
    made.decide()
    for task in "AX":
        made.end(task, FAILED)
    events = commands.retry(made.state, "A")
    assert {event.task for event in events if isinstance(event, e.TaskRequeued)} == {"A", "B", "C"}


@pytest.mark.parametrize("command", [commands.retry, commands.approve, lambda s, t: commands.reject(s, t, "no")])
def test_a_running_task_is_nobodys_to_retry_approve_or_reject(
    command: Callable[[State, str], Sequence[e.AnyEvent]],
) -> None:
    """Each refuses and names the state it found."""
    with pytest.raises(Refused, match="A is running"):
        command(running().state, "A")


def test_commands_on_an_unknown_task_find_nothing() -> None:
    """Every command says that there is no such task."""
    everything: list[Command] = [
        lambda state: commands.cancel(state, "B"),
        lambda state: commands.retry(state, "B"),
        lambda state: commands.pause(state, "B"),
        lambda state: commands.resume(state, "B"),
        lambda state: commands.approve(state, "B"),
        lambda state: commands.reject(state, "B", "no"),
    ]
    for command in everything:
        with pytest.raises(NotFound):
            command(running().state)


# ---- pause, approve, reject, stop ------------------------------------------------------------------------------------


def test_pause_and_resume_twice_are_once() -> None:
    """Of one task and of everything."""
    made = world(A=spec())
    for task in (None, "A"):
        assert made.ask(lambda state, task=task: commands.pause(state, task))  # type: ignore[misc]
        assert commands.pause(made.state, task) == ()
    assert (made.state.paused, made.state.find("A").status) == (True, Status.HELD)
    for task in (None, "A"):
        assert made.ask(lambda state, task=task: commands.resume(state, task))  # type: ignore[misc]
        assert commands.resume(made.state, task) == ()
    assert (made.state.paused, made.state.find("A").status) == (False, Status.QUEUED)


def test_an_approval_names_the_person_the_commit_and_the_newest_gates() -> None:
    """A gate that failed first and passed later is in the evidence once, passed."""
    made = running(Settings(gates=Gates(default=("unit",), named=GATES), limits=LimitSettings(rounds_max=1)))
    made.end("A", WORKED)
    made.end("A", Outcome(ending=Ending.STOPPED, gates=(GateResult(gate="unit", commit="c1", exit_code=9),)))
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="unit", commit="c1", exit_code=0),)))
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="reject"))
    (event,) = commands.approve(made.state, "A")
    assert isinstance(event, e.TaskApproved)
    assert (event.evidence.reviewer, event.evidence.commit, event.evidence.insertions) == ("person", "c1", 100)
    assert [(gate.gate, gate.exit_code) for gate in event.evidence.gates] == [("unit", 0)]


def test_an_approval_without_gates_does_not_claim_any() -> None:
    """The evidence says that no gates were configured."""
    (event,) = commands.approve(waiting_for_person().state, "A")
    assert isinstance(event, e.TaskApproved)
    assert (event.evidence.gates, event.evidence.gates_configured) == ((), False)


def test_an_approval_says_against_what_it_was_given() -> None:
    """Who, when, and which gates failed or never ran, and which reviewer had rejected it; bound to the one commit."""
    gates = Settings(gates=Gates(default=("unit", "types"), named=GATES))
    made = running(gates, attempts_max=1)
    failed = Outcome(ending=Ending.FAILED, gates=(GateResult(gate="unit", commit="c1", exit_code=3),))
    rejected = Outcome(ending=Ending.SUCCEEDED, verdict="reject", judged="c1")
    made.transact([e.RunEnded(task="A", run="A.1.work", outcome=WORKED)])
    for planned, outcome in (
        (e.RunPlanned(task="A", run="A.2.gate", purpose=Purpose.GATE, gate="unit", commit="c1"), failed),
        (e.RunPlanned(task="A", run="A.3.review", purpose=Purpose.REVIEW, commit="c1"), rejected),
    ):
        made.transact([planned, e.RunEnded(task="A", run=planned.run, outcome=outcome)])
    made.transact([e.TaskEscalated(task="A", reason="look", rules=(Rule(rule="protected", asks="person"),))])
    (event,) = commands.approve(made.state, "A", person="ada", at=9.0, gates=("unit", "types"))
    assert isinstance(event, e.TaskApproved)
    assert (event.evidence.person, event.evidence.decided_at, event.evidence.commit) == ("ada", 9.0, "c1")
    assert event.evidence.reason == (
        "approved by a person (ada), although gate unit exited 3, gate types has not run on it, A.3.review rejected it"
    )
    assert [rule.rule for rule in event.evidence.rules] == ["protected"]
    assert event.evidence.gates_configured


@pytest.mark.parametrize("named", ["c2" * 20, "c1", "c1" * 21])
def test_an_approval_names_what_it_approves(named: str) -> None:
    """Another commit than the newest is refused with the newest one's name, also when that is approved already."""
    made, newest = running(Settings(limits=LimitSettings(rounds_max=1))), "c1" * 20
    made.end("A", replace(WORKED, commit=newest))
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="reject"))
    for _ in ("waits", "is approved"):
        with pytest.raises(Refused, match=f"the newest commit of A is {newest}"):
            commands.approve(made.state, "A", commit=named)
        made.ask(lambda state: commands.approve(state, "A", commit=newest[:7].upper()))
        assert made.state.find("A").status is Status.APPROVED


def test_there_must_be_a_commit_to_approve() -> None:
    """A search that waits for a person has none; the refusal says what to do instead."""
    made = world(A=spec(Kind.SEARCH))
    made.transact([e.TaskEscalated(task="A", reason="odd")])
    with pytest.raises(Refused, match="coord retry A"):
        commands.approve(made.state, "A")


def test_a_persons_rejection_raises_no_counter() -> None:
    """It goes back with the reason, as an answer."""
    made = waiting_for_person()
    rounds = made.state.find("A").rounds
    made.ask(lambda state: commands.reject(state, "A", "name it better"))
    task = made.state.find("A")
    assert (task.status, task.rounds, task.attempts) == (Status.QUEUED, rounds, 0)
    assert (task.feedback[-1].kind, task.feedback[-1].message) == ("answered", "name it better")


def test_a_milder_stop_never_replaces_a_harder_one() -> None:
    """Drain < finish < force; without a supervisor there is nothing to stop."""
    made = World(facts=facts())
    assert commands.stop(made.state, "force") == ()
    made.transact([e.SupervisorStarted(supervisor="s1", pid=2)])
    wishes = ("drain", "finish", "drain", "finish", "force", "finish")
    told = [mode for mode in wishes if made.ask(lambda state, mode=mode: commands.stop(state, mode))]  # type: ignore[misc]
    assert told == ["drain", "finish", "force"]


def test_a_stop_is_for_one_supervisor() -> None:
    """The next one is not stopped by what was asked of the last, not even when the request comes late."""
    made = World(facts=facts())
    made.transact([e.SupervisorStarted(supervisor="s1", pid=2)])
    late = commands.stop(made.state, "force")
    made.transact([e.SupervisorStarted(supervisor="s2", pid=3)])
    made.transact(late)
    assert (made.state.supervisor, made.state.stop) == ("s2", "")
