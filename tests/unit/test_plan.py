"""Each rule of the plan in the smallest world that shows it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import (
    ConflictReport,
    DiffStat,
    Ending,
    Finding,
    GateResult,
    GateTry,
    Landed,
    Outcome,
    Purpose,
    Usage,
)
from coordination.model.state import Task
from coordination.model.tasks import Kind, ReviewMode, Status, TaskSpec
from coordination.planning.plan import plan, route
from coordination.policy import Policies, Policy, shipped
from coordination.settings import Gate, Gates, Landing, LimitSettings, Retry, Review, RoleSettings, Settings, Setup
from coordination.testing.strategies import GATES, ROLES, World, facts

GATED = Settings(gates=Gates(default=("unit",), named=GATES))
UNGATED = Settings()


def spec(kind: Kind = Kind.IMPLEMENT, **fields: Any) -> TaskSpec:
    return TaskSpec(prompt="do it", title="It", kind=kind, **fields)


def world(settings: Settings = UNGATED, **observed: Any) -> World:
    return World(facts=facts(settings, **observed))


def started(settings: Settings = UNGATED, /, **tasks: TaskSpec) -> World:
    """A world in which these tasks were submitted, one second after another, and planned once."""
    made = world(settings)
    for task, wanted in tasks.items():
        made.submit(task, wanted)
        made.facts = replace(made.facts, now=made.facts.now + 1.0)
    made.decide()
    return made


def committed(commit: str = "c1", lines: int = 100, **fields: Any) -> Outcome:
    diff = DiffStat(files=1, insertions=lines)
    return Outcome(ending=Ending.SUCCEEDED, base="b1", commit=commit, diff=diff, **fields)


def gated(gate: str = "unit", commit: str = "c1", code: int = 0) -> Outcome:
    result = GateResult(gate=gate, commit=commit, exit_code=code, output="2 failed")
    return Outcome(ending=Ending.FAILED if code else Ending.SUCCEEDED, gates=(result,))


def said(verdict: str) -> Outcome:
    findings = (Finding(message="off by one", file="src/a.py", line=3),) if verdict == "reject" else ()
    return Outcome(ending=Ending.SUCCEEDED, verdict=verdict, findings=findings)


def ended(ending: Ending, reason: str = "", **fields: Any) -> Outcome:
    return Outcome(ending=ending, reason=reason, **fields)


REPORT = Outcome(ending=Ending.SUCCEEDED, base="b1", report="It is in src/a.py:3.", cited=("src/a.py",))
LANDED = Outcome(ending=Ending.SUCCEEDED, commit="m1")
CONFLICT = Outcome(
    ending=Ending.CONFLICT,
    reason="conflict with what B landed in src/a.py",
    conflict=ConflictReport(files=("src/a.py",), others=("B",), integration="m0"),
)


def running(made: World) -> dict[str, str]:
    """Which tasks have a live run, and of which purpose."""
    return {run.task: str(run.purpose) for run in made.state.live_runs()}


def status(made: World, task: str) -> Status:
    return made.state.find(task).status


def task(made: World, name: str = "A") -> Task:
    return made.state.find(name)


# ---- routing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        *((kind, "blue") for kind in (Kind.SEARCH, Kind.PLAN)),
        *((kind, "green") for kind in (Kind.IMPLEMENT, Kind.FIX, Kind.REFACTOR, Kind.TEST, Kind.DOCUMENT)),
        *((kind, "red") for kind in (Kind.REVIEW, Kind.AUDIT)),
    ],
)
def test_each_kind_goes_to_its_role_and_the_reason_is_recorded(kind: Kind, role: str) -> None:
    """The planned run names the role, its model and why it was chosen."""
    run = started(A=spec(kind)).live("A")
    assert (run.id, run.role, run.model) == ("A.1.work", role, ROLES[role].model)
    assert run.reason == f"kind {kind} is routed to {role}"


def test_a_task_may_ask_for_a_role() -> None:
    """A search that asks for Red gets Red, and the reason says who asked."""
    run = started(A=spec(Kind.SEARCH, role="red")).live("A")
    assert (run.role, run.reason) == ("red", "the task asks for red")


def test_a_role_that_cannot_write_never_gets_what_must_write() -> None:
    """Asking for Blue to implement something is no way round its permissions."""
    made = started(A=spec(role="blue"))
    assert route(made.facts, shipped(), task(made))[0] is None
    assert running(made) == {}
    assert "role 'blue' is not loaded or may not write" in shipped().holds(made.facts, task(made))[0]


def test_settings_choose_the_model_and_the_slots_of_a_role() -> None:
    """An override in coordination.toml counts more than the role's own file."""
    one = Settings(roles={"green": RoleSettings(model="opus", slots=1)})
    made = started(one, A=spec(), B=spec())
    assert running(made) == {"A": "work"}
    assert made.live("A").model == "opus"


# ---- order and slots -------------------------------------------------------------------------------------------------


def test_slots_are_never_exceeded_and_refill() -> None:
    """Two green slots: the third task starts when one of the first two is over."""
    made = started(A=spec(), B=spec(), C=spec())
    assert running(made) == {"A": "work", "B": "work"}
    made.end("A", ended(Ending.FAILED))
    assert running(made) == {"B": "work", "C": "work"}


def test_the_slot_that_a_task_frees_goes_to_the_one_that_waited_for_it() -> None:
    """B was there before C and waited only for A: that A is done comes first, who gets its slot after it."""
    one = Settings(roles={"blue": RoleSettings(slots=1)})
    made = started(one, A=spec(Kind.SEARCH), B=spec(Kind.SEARCH, after=("A",)), C=spec(Kind.SEARCH))
    made.end("A", REPORT)
    assert running(made) == {"B": "work"}


def test_a_full_role_does_not_stand_in_the_way_of_another() -> None:
    """Green is full, and the search behind its queue starts all the same."""
    assert running(started(A=spec(), B=spec(), C=spec(), D=spec(Kind.SEARCH))) == {
        "A": "work",
        "B": "work",
        "D": "work",
    }


def test_higher_priority_first_and_first_come_first_served_inside() -> None:
    """With the same waiting time, priority decides, then the order of submission."""
    made = world()
    for name, priority in (("A", 0), ("B", 5), ("C", 5), ("D", 9)):
        made.submit(name, spec(priority=priority))
    made.decide()
    assert running(made) == {"D": "work", "B": "work"}


def test_an_old_task_starts_within_its_bound() -> None:
    """At one point a minute, 10 points less are made up by 10 minutes and one second of waiting, not by less."""
    for waited, first in ((599.0, "new"), (601.0, "old")):
        made = world(Settings(roles={"green": RoleSettings(slots=1)}))
        made.submit("old", spec(priority=0))
        made.facts = replace(made.facts, now=made.facts.now + waited)
        made.submit("new", spec(priority=10))
        made.decide()
        assert running(made) == {first: "work"}


# ---- dependencies ----------------------------------------------------------------------------------------------------


def test_a_task_starts_when_all_it_needs_ended_well() -> None:
    """One of two dependencies done is not enough; a done search and a done plan are."""
    made = started(A=spec(Kind.SEARCH), B=spec(Kind.PLAN), C=spec(Kind.AUDIT, after=("A", "B")))
    made.end("A", REPORT)
    assert status(made, "C") is Status.QUEUED
    made.end("B", REPORT)
    assert running(made) == {"C": "work"}


def test_an_unknown_dependency_never_counts_as_satisfied() -> None:
    """The task waits, and starts after somebody submitted the missing one and it ended well."""
    made = started(A=spec(Kind.SEARCH, after=("Later",)))
    assert running(made) == {}
    made.submit("later", spec(Kind.SEARCH))
    made.decide()
    assert running(made) == {"later": "work"}
    made.end("later", REPORT)
    assert running(made) == {"A": "work"}


def test_failure_propagates_with_its_chain_and_retry_undoes_it() -> None:
    """C after B after A: A fails, both name the way to A; A retried, both wait again and in the end run."""
    made = started(
        A=spec(Kind.SEARCH, attempts_max=1), B=spec(Kind.SEARCH, after=("A",)), C=spec(Kind.SEARCH, after=("B",))
    )
    made.end("A", ended(Ending.FAILED, "no such thing"))
    assert (status(made, "B"), status(made, "C")) == (Status.DEPENDENCY_FAILED, Status.DEPENDENCY_FAILED)
    assert task(made, "C").chain == ("B", "A")
    assert task(made, "C").reason.startswith("B <- A: A is failed: A.1.work failed: no such thing")
    made.ask(lambda state: commands.retry(state, "A"))
    made.decide()
    assert (status(made, "B"), status(made, "C"), task(made, "C").chain) == (Status.QUEUED, Status.QUEUED, ())
    for name in "ABC":
        made.end(name, REPORT)
    assert status(made, "C") is Status.DONE


def test_cancelling_the_middle_of_a_chain_makes_it_the_cause() -> None:
    """Once B was cancelled, a later task that needs B is told of B, not of what once made B fail."""
    made = started(A=spec(Kind.SEARCH, attempts_max=1), B=spec(Kind.SEARCH, after=("A",)))
    made.end("A", ended(Ending.FAILED))
    made.ask(lambda state: commands.cancel(state, "B"))
    made.submit("C", spec(Kind.SEARCH, after=("B",)))
    made.decide()
    assert task(made, "C").chain == ("B",)


# ---- paths -----------------------------------------------------------------------------------------------------------


def test_overlapping_paths_wait_until_the_first_is_merged() -> None:
    """B touches what A touches: it waits through A's work, review and landing."""
    made = started(A=spec(paths=("src/*.py",), review=ReviewMode.NEVER), B=spec(paths=("src/a.py",)))
    assert running(made) == {"A": "work"}
    made.end("A", committed())
    assert running(made) == {"A": "landing"}
    made.end("A", LANDED)
    assert running(made) == {"B": "work"}


def test_paths_stay_held_between_two_tries() -> None:
    """A failed and waits for its next try; B does not slip in."""
    made = started(A=spec(paths=("src",)), B=spec(paths=("src",)))
    made.end("A", ended(Ending.FAILED))
    assert (status(made, "A"), running(made)) == (Status.QUEUED, {})


def test_a_cancelled_task_holds_its_paths_until_its_worker_is_gone() -> None:
    """Cancelled is not yet stopped: B starts when the run of A has ended."""
    made = started(A=spec(paths=("src",)), B=spec(paths=("src",)))
    made.ask(lambda state: commands.cancel(state, "A"))
    made.decide()
    assert running(made) == {"A": "work"}
    made.end("A", ended(Ending.STOPPED))
    assert running(made) == {"B": "work"}


def test_a_retried_task_and_the_one_that_took_its_paths_do_not_wait_for_each_other() -> None:
    """A failed, B took the paths, A is retried, B is sent back: one of them goes on, the other after it."""
    made = started(A=spec(paths=("src",), attempts_max=1), B=spec(paths=("src",)))
    made.end("A", ended(Ending.FAILED))
    made.ask(lambda state: commands.retry(state, "A"))
    made.end("B", ended(Ending.FAILED))
    made.wait(1000.0)
    assert running(made) == {"B": "work"}
    made.ask(lambda state: commands.cancel(state, "B"))
    made.end("B", ended(Ending.STOPPED))
    assert running(made) == {"A": "work"}


# ---- gates and review ------------------------------------------------------------------------------------------------


def test_gates_run_by_name_one_after_another_on_the_commit_and_before_review() -> None:
    """Both named gates run on the exact commit, then Red is asked."""
    made = started(GATED, A=spec(gates=("types", "unit")))
    made.end("A", committed())
    gate = made.live("A")
    assert (gate.gate, gate.commit, gate.limits.timeout_seconds) == ("types", "c1", 2 * 5.0), "it may be run again"
    made.end("A", gated("types"))
    assert made.live("A").gate == "unit"
    made.end("A", gated("unit"))
    review = made.live("A")
    assert (review.purpose, review.role, review.commit) == (Purpose.REVIEW, "red", "c1")


def test_a_flaky_gate_and_one_that_was_not_run_are_named_in_the_evidence() -> None:
    """They passed, and how stands in the reason that everybody reads."""
    made = started(GATED, A=spec(gates=("types", "unit"), review=ReviewMode.NEVER))
    made.end("A", committed())
    flaky = GateResult(gate="types", commit="c1", exit_code=0, flaky=True, failures=(GateTry(exit_code=1),))
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=(flaky,)))
    known = GateResult(gate="unit", commit="c1", exit_code=0, cached="B.2.gate")
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=(known,)))
    evidence = task(made).evidence
    assert evidence is not None
    assert "gates passed: types (flaky: passed at try 2), unit (as in B.2.gate)" in evidence.reason
    assert evidence.gates == (flaky, known)


def test_a_run_that_could_not_be_set_up_is_tried_once_more_and_then_a_persons() -> None:
    """Of a landing, too: it is no conflict, and the agent is not asked to settle one."""
    made = started(GATED, A=spec(review=ReviewMode.NEVER))
    made.end("A", committed())
    made.end("A", gated())
    for _ in range(2):
        assert made.live("A").purpose is Purpose.LANDING
        made.end("A", ended(Ending.CRASHED, "npm is not there", code="setup_failed"))
        made.wait(1000.0)
    assert (status(made, "A"), task(made).returns) == (Status.WAITING_FOR_PERSON, 0)
    assert "npm is not there" in task(made).reason


def test_a_failing_gate_sends_the_work_back_with_what_it_printed() -> None:
    """The next try is told the gate, the exit code and the output, and an attempt is used up."""
    made = started(GATED, A=spec())
    made.end("A", committed())
    made.end("A", gated(code=1))
    assert made.live("A").purpose is Purpose.WORK
    assert task(made).attempts == 1
    assert "gate 'unit' exited 1" in task(made).feedback[-1].message
    assert "2 failed" in task(made).feedback[-1].message


def test_gates_that_keep_failing_end_the_task() -> None:
    """The last attempt whose gate fails makes the task fail, with the count in the reason."""
    made = started(GATED, A=spec(attempts_max=2))
    for commit in ("c1", "c2"):
        made.end("A", committed(commit))
        made.end("A", gated(commit=commit, code=1))
    assert (status(made, "A"), task(made).attempts) == (Status.FAILED, 2)
    assert "(attempt 2 of 2)" in task(made).reason


def test_a_gate_that_is_not_configured_waits_for_a_person() -> None:
    """The name may have left the settings after the task came in; nobody guesses."""
    made = started(A=spec(gates=("gone",)))
    made.end("A", committed())
    assert status(made, "A") is Status.WAITING_FOR_PERSON
    assert "gate 'gone' is not configured" in task(made).reason


@pytest.mark.parametrize(
    ("lines", "mode", "gates", "reviewed"),
    [
        (20, ReviewMode.AUTO, None, False),
        (21, ReviewMode.AUTO, None, True),
        (1, ReviewMode.AUTO, (), True),
        (1, ReviewMode.ALWAYS, None, True),
        (500, ReviewMode.NEVER, None, False),
        (0, ReviewMode.AUTO, None, True),
    ],
)
def test_who_is_reviewed(lines: int, mode: ReviewMode, gates: tuple[str, ...] | None, *, reviewed: bool) -> None:
    """Auto spares at most 20 changed lines, and only if there are gates; what has no lines to count is not small."""
    made = started(GATED, A=spec(review=mode, gates=gates))
    made.end("A", committed(lines=lines))
    if gates is None:
        made.end("A", gated())
    assert made.live("A").purpose is (Purpose.REVIEW if reviewed else Purpose.LANDING)


def test_a_small_text_beside_a_binary_file_is_reviewed() -> None:
    """A megabyte of binary is no small change because a line of text came with it."""
    made = started(GATED, A=spec())
    made.end("A", replace(committed(), diff=DiffStat(files=2, insertions=1, binaries=1)))
    made.end("A", gated())
    assert made.live("A").purpose is Purpose.REVIEW


def test_why_no_review_was_needed_is_recorded() -> None:
    """The evidence says skipped, names lines and gates, and is bound to the commit."""
    made = started(GATED, A=spec())
    made.end("A", committed(lines=7))
    made.end("A", gated())
    evidence = task(made).evidence
    assert evidence is not None
    assert (evidence.commit, evidence.verdict, evidence.reviewer) == ("c1", "skipped", "")
    assert "review skipped: 7 changed lines (at most 20) and gates passed: unit" in evidence.reason
    assert [gate.gate for gate in evidence.gates] == ["unit"]


def test_an_approval_is_bound_to_the_commit_that_was_reviewed() -> None:
    """The evidence names commit, review run and diff; the landing is of that commit."""
    made = started(A=spec())
    made.end("A", committed())
    made.end("A", said("approve"))
    evidence, landing = task(made).evidence, made.live("A")
    assert evidence is not None
    assert (evidence.commit, evidence.reviewer, evidence.verdict) == ("c1", "A.2.review", "approve")
    assert (evidence.insertions, evidence.gates_configured) == (100, False)
    assert (landing.purpose, landing.commit) == (Purpose.LANDING, "c1")
    made.end("A", LANDED)
    assert (status(made, "A"), task(made).merge) == (Status.MERGED, "m1")


def test_a_rejection_sends_the_findings_back() -> None:
    """The next work run starts with the findings, file and line; rounds, not attempts, are counted."""
    made = started(A=spec())
    made.end("A", committed())
    made.end("A", said("reject"))
    assert made.live("A").purpose is Purpose.WORK
    assert "src/a.py:3: off by one" in task(made).feedback[-1].message
    assert (task(made).rounds, task(made).attempts) == (1, 0)


def test_the_third_rejection_waits_for_a_person() -> None:
    """Two rounds go back to work; after the third a person decides, and what they decide happens."""
    made = started(A=spec())
    for commit in ("c1", "c2", "c3"):
        made.end("A", committed(commit))
        made.end("A", said("reject"))
    assert (status(made, "A"), task(made).rounds) == (Status.WAITING_FOR_PERSON, 3)
    made.ask(lambda state: commands.approve(state, "A"))
    made.decide()
    evidence = task(made).evidence
    assert evidence is not None
    assert (evidence.commit, evidence.reviewer) == ("c3", "person")
    assert made.live("A").purpose is Purpose.LANDING


def test_a_fourth_rejection_does_not_count_beyond_the_limit() -> None:
    """A person sent it back after the last round: the next rejection asks the person again, the counter stays."""
    made = started(A=spec())
    for commit in ("c1", "c2", "c3"):
        made.end("A", committed(commit))
        made.end("A", said("reject"))
    made.ask(lambda state: commands.reject(state, "A", "try harder"))
    made.decide()
    made.end("A", committed("c4"))
    made.end("A", said("reject"))
    assert (status(made, "A"), task(made).rounds) == (Status.WAITING_FOR_PERSON, 3)


def test_a_malformed_verdict_is_no_approval() -> None:
    """A review without a verdict is made again, and after the last attempt a person decides."""
    made = started(A=spec())
    made.end("A", committed())
    for _ in range(3):
        made.end("A", said("maybe"))
        made.wait(1000.0)
    assert status(made, "A") is Status.WAITING_FOR_PERSON
    assert len([run for run in task(made).runs if run.purpose is Purpose.REVIEW]) == 3


def test_a_review_of_another_commit_does_not_count() -> None:
    """After a rejection the approval of the old commit is worth nothing for the new one."""
    made = started(A=spec())
    made.end("A", committed("c1"))
    made.end("A", said("reject"))
    made.end("A", committed("c2"))
    assert made.live("A").commit == "c2"


@pytest.mark.parametrize("named", ["c0", "c" * 40, "HEAD"])
def test_an_approval_of_another_commit_lands_nothing(named: str) -> None:
    """It is refused and recorded with both names; Red is asked once more, then a person decides."""
    made = started(A=spec())
    made.end("A", committed())
    for tries in (1, 2):
        made.end("A", replace(said("approve"), judged=named))
        refused = task(made).runs[-1].outcome
        assert refused is not None
        assert (refused.ending, refused.code, refused.judged) == (Ending.FAILED, "other_commit", named)
        assert f"names commit '{named}', expected c1" in refused.reason
        made.wait(1000.0)
        assert [run.purpose for run in task(made).runs].count(Purpose.REVIEW) == min(tries + 1, 2)
    assert (status(made, "A"), task(made).evidence, task(made).rounds) == (Status.WAITING_FOR_PERSON, None, 0)
    assert "another commit" in task(made).reason


def test_a_verdict_that_names_no_commit_counts_for_nothing() -> None:
    """Whoever does not say what was judged has judged nothing."""
    made = started(A=spec())
    made.end("A", committed())
    run = made.live("A")
    (event,) = commands.end(made.state, run.id, said("reject"), token=run.token)
    assert isinstance(event, e.RunEnded)
    assert (event.outcome.code, event.outcome.ending) == ("other_commit", Ending.FAILED)
    assert "names no commit" in event.outcome.reason


def test_a_verdict_of_a_log_that_named_no_commits_still_counts() -> None:
    """It was believed when it was recorded, for the commit that the run was asked about."""
    made = started(A=spec())
    made.end("A", committed())
    made.transact([e.RunEnded(task="A", run=made.live("A").id, outcome=said("approve"))])
    made.decide()
    assert made.live("A").purpose is Purpose.LANDING


# ---- rules -----------------------------------------------------------------------------------------------------------


def rules(made: World) -> dict[str, tuple[str, str]]:
    """The rules that spoke last about A: what each asks for, and its words."""
    return {rule.rule: (rule.asks, rule.found) for rule in task(made).rules}


def test_every_rule_that_spoke_is_recorded_with_its_numbers() -> None:
    """With the review that it led to, and with the approval."""
    made = started(GATED, A=spec())
    made.end("A", committed(lines=21))
    made.end("A", gated())
    asked = {
        "task": ("", "the task says auto"),
        "size": ("review", "21 changed lines (at most 20)"),
        "gates": ("", "gates passed: unit"),
        "kind": ("", "kind implement (always: none)"),
        "history": ("", "nothing sent it back"),
        "protected": ("", "none of 1 changed files is protected"),
    }
    assert rules(made) == asked
    assert made.live("A").reason == (
        "review of c1: kind review is routed to red; review: 21 changed lines (at most 20)"
    )
    made.end("A", said("approve"))
    evidence = task(made).evidence
    assert evidence is not None
    assert {rule.rule: (rule.asks, rule.found) for rule in evidence.rules} == asked
    assert evidence.decided_at == made.facts.now


class Unsteady(GateResult, frozen=True, kw_only=True):
    """As it is recorded once a gate both failed and passed."""

    flaky: bool = True


def test_a_gate_that_failed_and_passed_is_no_reason_to_spare_a_review() -> None:
    """One line, all gates passed; and Red looks."""
    made = started(GATED, A=spec())
    made.end("A", committed(lines=1))
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=(Unsteady(gate="unit", commit="c1", exit_code=0),)))
    assert made.live("A").purpose is Purpose.REVIEW
    assert rules(made)["flaky"] == ("review", "gates that both failed and passed on it: unit")


def test_kinds_can_be_reviewed_always() -> None:
    """By a setting; others are spared as before."""
    settings = Settings(gates=Gates(default=("unit",), named=GATES), review=Review(kinds=("fix", "refactor")))
    for kind, purpose in ((Kind.FIX, Purpose.REVIEW), (Kind.IMPLEMENT, Purpose.LANDING)):
        made = started(settings, A=spec(kind))
        made.end("A", committed(lines=1))
        made.end("A", gated())
        assert made.live("A").purpose is purpose
    assert rules(made)["kind"] == ("", "kind implement (always: fix, refactor)")


def test_what_came_back_once_is_not_spared_again() -> None:
    """After a gate that failed, a landing that met a conflict, and a person's word, the small change is reviewed."""
    made = started(GATED, A=spec())
    made.end("A", committed("c1", lines=1))
    made.end("A", gated(code=1))
    made.end("A", committed("c2", lines=1))
    made.end("A", gated(commit="c2"))
    assert made.live("A").purpose is Purpose.REVIEW
    assert rules(made)["history"] == ("review", "sent back by a gate 1 time")
    made = started(GATED, A=spec())
    made.end("A", committed("c1", lines=1))
    made.end("A", gated())
    made.end("A", CONFLICT)
    made.end("A", committed("c2", lines=1))
    made.end("A", gated(commit="c2"))
    assert rules(made)["history"] == ("review", "sent back by the landing 1 time")


def test_what_was_stopped_did_not_come_back() -> None:
    """A stop, bad weather and a crash say nothing about the work."""
    made = started(GATED, A=spec())
    made.end("A", ended(Ending.CRASHED, code="worker_died"))
    made.wait(1000.0)
    made.end("A", ended(Ending.STOPPED))
    made.end("A", committed(lines=1))
    made.end("A", ended(Ending.STOPPED, gates=gated(code=1).gates))
    made.end("A", gated())
    assert made.live("A").purpose is Purpose.LANDING


def test_never_is_honoured_without_gates_and_says_so() -> None:
    """Whoever hands in the task takes that upon themselves: nobody and nothing looked at it, and that is recorded."""
    made = started(A=spec(review=ReviewMode.NEVER))
    made.end("A", committed())
    evidence = task(made).evidence
    assert evidence is not None
    assert (evidence.verdict, evidence.reviewer, evidence.gates, evidence.gates_configured) == (
        "skipped",
        "",
        (),
        False,
    )
    assert evidence.reason == "no gates configured; review skipped: the task says never"
    assert rules(made)["gates"] == ("", "no gates are configured for it")


# ---- protected files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(ReviewMode))
def test_a_protected_file_waits_for_a_person_whatever_the_task_says(mode: ReviewMode) -> None:
    """After its gates, and after Red has looked unless the task wants none; the person's word lands it."""
    made = started(GATED, A=spec(review=mode))
    made.end("A", committed(lines=1, changed=(".github/workflows/ci.yml",)))
    made.end("A", gated())
    if mode is not ReviewMode.NEVER:
        made.end("A", said("approve"))
    assert status(made, "A") is Status.WAITING_FOR_PERSON
    assert task(made).reason == "changes protected files: .github/workflows/ci.yml: a person decides"
    assert rules(made)["protected"] == ("person", "changes protected files: .github/workflows/ci.yml")
    assert made.ask(lambda state: commands.approve(state, "A", person="ada"))
    made.decide()
    assert made.live("A").purpose is Purpose.LANDING
    evidence = task(made).evidence
    assert evidence is not None
    assert (evidence.reviewer, evidence.person) == ("person", "ada")
    seen = " after A.3.review approved it" if mode is not ReviewMode.NEVER else ""
    assert evidence.reason == f"approved by a person (ada){seen}"
    assert evidence.rules == task(made).rules != ()


def test_settings_may_leave_protected_files_to_red() -> None:
    """Then no commit with one lands unseen, and a review is enough; even if the task wants none."""
    settings = Settings(gates=Gates(default=("unit",), named=GATES), review=Review(protected_by="review"))
    made = started(settings, A=spec(review=ReviewMode.NEVER))
    made.end("A", committed(lines=1, changed=("web/yarn.lock",)))
    made.end("A", gated())
    assert made.live("A").purpose is Purpose.REVIEW
    made.end("A", said("approve"))
    assert made.live("A").purpose is Purpose.LANDING


def test_a_rejection_counts_before_a_person_is_asked() -> None:
    """What Red rejects goes back to work; nobody's time is wasted."""
    made = started(A=spec())
    made.end("A", committed(changed=("CODEOWNERS",)))
    made.end("A", said("reject"))
    assert (made.live("A").purpose, task(made).rounds) == (Purpose.WORK, 1)


def test_a_change_whose_files_nobody_can_list_waits_for_a_person() -> None:
    """Too many to be written down, or of a log that has no names: any of them may be protected."""
    for outcome in (committed(changed=("a",), unlisted=7), replace(committed(), diff=DiffStat(files=3, insertions=1))):
        made = started(A=spec(review=ReviewMode.NEVER))
        run = made.live("A")
        made.transact(commands.end(made.state, run.id, outcome, token=run.token))
        made.decide()
        assert status(made, "A") is Status.WAITING_FOR_PERSON
        assert "any may be protected" in task(made).reason


def test_nobody_to_review_waits_for_a_person() -> None:
    """Without a role for reviews, no commit is approved by itself."""
    made = world(roles={"green": ROLES["green"]})
    made.submit("A", spec())
    made.decide()
    made.end("A", committed())
    assert status(made, "A") is Status.WAITING_FOR_PERSON


def test_what_moved_outside_the_workspace_waits_for_a_person() -> None:
    """The commit may be fine; the moved branch is a person's to judge, before gates or reviews."""
    made = started(GATED, A=spec())
    made.end("A", committed(outside=("refs/heads/main",)))
    assert status(made, "A") is Status.WAITING_FOR_PERSON
    assert "refs/heads/main" in task(made).reason


def test_silent_policies_leave_everything_to_a_person() -> None:
    """With no policy at all nothing is approved."""
    made = started(A=spec())
    made.policies = Policies([])
    made.end("A", committed())
    assert status(made, "A") is Status.WAITING_FOR_PERSON


def test_without_the_policy_of_gates_a_small_commit_is_still_reviewed() -> None:
    """Review is skipped for gates that passed, not for gates that nobody asked for."""
    made = started(GATED, A=spec())
    made.policies = Policies(policy for policy in _members() if policy.name != "gating")
    made.end("A", committed(lines=1))
    assert made.live("A").purpose is Purpose.REVIEW


def _members() -> list[Policy[Any]]:
    return shipped()._members


# ---- read-only kinds -------------------------------------------------------------------------------------------------


def test_a_read_only_task_ends_done_with_its_report() -> None:
    """No gate, no review, no landing: base, report and cited paths are the evidence."""
    made = started(GATED, A=spec(Kind.AUDIT))
    made.end("A", REPORT)
    evidence = task(made).evidence
    assert (status(made, "A"), task(made).report) == (Status.DONE, REPORT.report)
    assert evidence is not None
    assert (evidence.commit, evidence.cited, evidence.verdict) == ("b1", ("src/a.py",), "report")


@pytest.mark.parametrize(("kind", "missing"), [(Kind.SEARCH, "report"), (Kind.IMPLEMENT, "commit")])
def test_a_success_that_shows_nothing_is_a_failure(kind: Kind, missing: str) -> None:
    """Exit code 0 alone is nothing: without report or commit an attempt is used up, and nothing old is judged."""
    made = started(A=spec(kind))
    made.end("A", ended(Ending.SUCCEEDED))
    assert (status(made, "A"), task(made).attempts) == (Status.QUEUED, 1)
    assert f"shows no {missing}" in task(made).feedback[-1].message


# ---- failures, stops and weather -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.CRASHED, Ending.TIMED_OUT])
def test_failures_are_tried_again_with_a_growing_delay_until_attempts_max(ending: Ending) -> None:
    """5 s, then 10 s, then the task has failed after the third attempt."""
    made = started(A=spec())
    for delay in (5.0, 10.0):
        made.end("A", ended(ending, "broken"))
        assert status(made, "A") is Status.QUEUED
        made.wait(delay - 0.5)
        assert running(made) == {}
        made.wait(1.0)
        assert running(made) == {"A": "work"}
    made.end("A", ended(ending, "broken"))
    assert (status(made, "A"), task(made).attempts) == (Status.FAILED, 3)
    assert task(made).reason.endswith("broken (attempt 3 of 3)")


def test_the_delay_has_a_most_and_no_overflow() -> None:
    """Failure number 5,000 waits backoff_max_seconds, like failure number 50."""
    made = started(Settings(retry=Retry(backoff_seconds=1.0, backoff_max_seconds=7.0)), A=spec(attempts_max=10_000))
    made.state.tasks["A"] = replace(task(made), attempts=5_000)
    made.end("A", ended(Ending.FAILED))
    assert task(made).not_before == made.facts.now + 7.0


@pytest.mark.parametrize(("ending", "kind"), [(Ending.STOPPED, "stopped"), (Ending.LIMITED, "weather")])
def test_stops_and_weather_raise_no_counter(ending: Ending, kind: str) -> None:
    """Ten of them leave attempts, rounds and returns at 0, and the task goes on."""
    made = started(A=spec(attempts_max=1))
    for _ in range(10):
        made.end("A", ended(ending))
        assert task(made).feedback[-1].kind == kind
        made.wait(1000.0)
    assert (task(made).attempts, task(made).rounds, task(made).returns) == (0, 0, 0)
    assert running(made) == {"A": "work"}


@pytest.mark.parametrize("ending", [Ending.LIMITED, Ending.CRASHED])
def test_a_review_that_met_a_limit_is_not_repeated_at_once(ending: Ending) -> None:
    """The commit stays as it is; the review is made again after the delay, not in a tight loop."""
    made = started(A=spec())
    made.end("A", committed())
    made.end("A", ended(ending))
    assert running(made) == {}
    made.wait(4.0)
    assert running(made) == {}
    made.wait(2.0)
    assert running(made) == {"A": "review"}
    assert made.live("A").commit == "c1"


def test_a_clock_that_went_back_does_not_prolong_the_delay() -> None:
    """One hour back: the review is repeated now, not in an hour."""
    made = started(A=spec())
    made.end("A", committed())
    made.end("A", ended(Ending.LIMITED))
    made.wait(-3600.0)
    assert running(made) == {"A": "review"}


def test_a_task_that_failed_in_the_future_does_not_wait_for_it() -> None:
    """The clock was a year ahead when it failed, and is right again: it is tried again now, not in a year."""
    made = started(A=spec())
    made.end("A", ended(Ending.FAILED))
    made.wait(-365 * 86400.0)
    assert running(made) == {"A": "work"}


def test_a_stopped_gate_says_nothing_about_the_commit() -> None:
    """A gate that failed because it was being stopped is run again and costs no attempt."""
    made = started(GATED, A=spec())
    made.end("A", committed())
    made.end("A", replace(gated(code=143), ending=Ending.STOPPED))
    assert (running(made), task(made).attempts) == ({"A": "gate"}, 0)


def test_a_gate_that_cannot_run_waits_for_a_person_after_its_attempts() -> None:
    """Nobody's work is to blame for a gate that crashes three times."""
    made = started(GATED, A=spec())
    made.end("A", committed())
    for _ in range(3):
        made.end("A", ended(Ending.CRASHED))
        made.wait(1000.0)
    assert (status(made, "A"), task(made).attempts) == (Status.WAITING_FOR_PERSON, 0)


def test_a_gate_that_passed_another_commit_proves_nothing() -> None:
    """A result bound to another SHA is no evidence for this one."""
    made = started(GATED, A=spec())
    made.end("A", committed())
    made.end("A", gated(commit="c0"))
    made.wait(1000.0)
    assert made.live("A").purpose is Purpose.GATE


# ---- money -----------------------------------------------------------------------------------------------------------


def test_a_run_may_use_what_the_task_has_left() -> None:
    """A budget is for all runs of a task together."""
    made = started(A=spec(budget_usd=1.0))
    assert made.live("A").limits.budget_usd == 1.0
    made.end("A", committed(usage=Usage(cost_usd=0.75)))
    assert (made.live("A").purpose, made.live("A").limits.budget_usd) == (Purpose.REVIEW, 0.25)


@pytest.mark.parametrize("outcome", [committed(), ended(Ending.FAILED)], ids=["review", "work"])
def test_no_run_that_costs_is_planned_without_budget(outcome: Outcome) -> None:
    """When the budget is used up, neither another try nor a review starts: a person decides."""
    made = started(A=spec(budget_usd=1.0))
    made.end("A", replace(outcome, usage=Usage(cost_usd=1.0)))
    made.wait(1000.0)
    assert (status(made, "A"), running(made)) == (Status.WAITING_FOR_PERSON, {})
    assert "budget is used up: 1.0000 USD" in task(made).reason


# ---- landing ---------------------------------------------------------------------------------------------------------


def approved(*names: str, settings: Settings = UNGATED) -> World:
    """These tasks, approved without review; the first one is landing."""
    made = started(settings, **{name: spec(review=ReviewMode.NEVER) for name in names})
    for name in names:
        made.end(name, committed(f"c{name}"))
    return made


def test_never_two_landings_at_once() -> None:
    """B is approved and waits while A lands, then lands."""
    made = approved("A", "B")
    assert (running(made), status(made, "B")) == ({"A": "landing"}, Status.APPROVED)
    made.end("A", LANDED)
    assert running(made) == {"B": "landing"}


def test_of_two_that_may_land_in_the_same_step_one_does() -> None:
    """Both were approved during a pause; when it ends, only the first lands."""
    made = started(A=spec(review=ReviewMode.NEVER), B=spec(review=ReviewMode.NEVER))
    made.ask(lambda state: commands.pause(state, None))
    made.end("A", committed("c1"))
    made.end("B", committed("c2"))
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    assert running(made) == {"A": "landing"}


def test_two_that_overlap_and_may_start_in_the_same_step_do_not() -> None:
    """Both were submitted before the first plan; the first takes the paths."""
    made = started(A=spec(paths=("src",)), B=spec(paths=("src/a.py",)), C=spec(paths=("docs",)))
    assert running(made) == {"A": "work", "C": "work"}


def test_a_conflict_goes_back_with_both_sides_named() -> None:
    """The next try takes in the integration branch and is told the files and the other task."""
    made = approved("A")
    made.facts = replace(made.facts, integration="m7")
    made.end("A", CONFLICT)
    run = made.live("A")
    assert (run.purpose, run.bring_in) == (Purpose.WORK, "m7")
    assert task(made).feedback[-1].message == CONFLICT.reason
    assert (task(made).returns, task(made).attempts) == (1, 0)


def test_after_a_conflict_every_try_takes_in_the_other_side() -> None:
    """A try that fails between leaves the merge undone: the next one brings the integration branch in again."""
    made = approved("A")
    made.end("A", CONFLICT)
    made.end("A", ended(Ending.FAILED))
    made.wait(1000.0)
    assert made.live("A").bring_in == made.facts.integration


def test_the_third_return_waits_for_a_person_and_stays_counted_as_three() -> None:
    """Two conflicts go back to work; the third waits, and so does one after a person's approval."""
    made = approved("A")
    for commit in ("c2", "c3"):
        made.end("A", CONFLICT)
        made.end("A", committed(commit))
    made.end("A", CONFLICT)
    assert (status(made, "A"), task(made).returns) == (Status.WAITING_FOR_PERSON, 3)
    made.ask(lambda state: commands.approve(state, "A"))
    made.decide()
    made.end("A", CONFLICT)
    assert (status(made, "A"), task(made).returns) == (Status.WAITING_FOR_PERSON, 3)


def test_gates_that_fail_on_the_merge_result_send_it_back() -> None:
    """What landed meanwhile broke it: back to work with the other side, as a return."""
    made = approved("A")
    made.end("A", replace(gated(commit="m1", code=1), reason="after merging: gate 'unit' exited 1"))
    assert (running(made), task(made).returns) == ({"A": "work"}, 1)
    assert made.live("A").bring_in


@pytest.mark.parametrize("ending", [Ending.CRASHED, Ending.TIMED_OUT, Ending.STOPPED])
def test_an_inconclusive_landing_is_made_again(ending: Ending) -> None:
    """A landing that died says nothing about the commit: it is repeated, with no counter raised."""
    made = approved("A")
    made.end("A", ended(ending))
    made.wait(1000.0)
    assert (made.live("A").purpose, made.live("A").commit) == (Purpose.LANDING, "cA")
    assert (task(made).attempts, task(made).returns) == (0, 0)


def test_a_landing_that_waits_for_its_repetition_lets_others_land() -> None:
    """A's landing crashed and is repeated in five seconds; B lands meanwhile."""
    made = approved("A", "B")
    made.end("A", ended(Ending.CRASHED))
    assert running(made) == {"B": "landing"}


def test_a_landing_that_keeps_crashing_waits_for_a_person() -> None:
    """Three attempts, then somebody has to look."""
    made = approved("A")
    for _ in range(3):
        made.end("A", ended(Ending.CRASHED, "no space left"))
        made.wait(1000.0)
    assert status(made, "A") is Status.WAITING_FOR_PERSON
    assert "no space left" in task(made).reason


def test_a_refused_landing_waits_for_a_person() -> None:
    """What the repository refuses no agent can mend."""
    made = approved("A")
    made.end("A", ended(Ending.FAILED, "the branch was moved by somebody", code="refused"))
    assert status(made, "A") is Status.WAITING_FOR_PERSON


def test_a_landing_that_names_no_merge_commit_is_made_again() -> None:
    """Success without a commit is no merge, and no return either."""
    made = approved("A")
    made.end("A", ended(Ending.SUCCEEDED))
    made.wait(1000.0)
    assert (running(made), task(made).returns) == ({"A": "landing"}, 0)


# ---- landing together ------------------------------------------------------------------------------------------------


def together(*names: str, settings: Settings = UNGATED, **specs: TaskSpec) -> World:
    """These tasks, approved while everything was paused; then the first in order lands with those behind it."""
    made = started(settings, **{name: specs.get(name, spec(review=ReviewMode.NEVER)) for name in names})
    made.ask(lambda state: commands.pause(state, None))
    for name in names:
        made.end(name, committed(f"c{name}"))
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    return made


def taken(made: World, task: str = "A") -> list[str]:
    return [member.task for member in made.live(task).batch]


def landing(*others: Landed, **fields: Any) -> Outcome:
    return replace(replace(LANDED, **fields), batch=others)


def test_those_behind_land_with_the_first_in_their_order() -> None:
    """One run, with the commits that were approved; nobody else lands meanwhile."""
    made = together("A", "B", settings=UNGATED)
    run = made.live("A")
    assert [(member.task, member.commit) for member in run.batch] == [("B", "cB")]
    assert run.onto == made.facts.integration
    assert task(made, "B").lands_with == "A.2.landing"
    assert running(made) == {"A": "landing"}


def test_each_of_them_goes_where_what_became_of_it_leads() -> None:
    """Merged, in conflict, failed or left: each follows from its own fate, in one batch of events with the first's."""
    greens = Settings(roles={"green": RoleSettings(slots=5)})
    made = together("A", "B", "C", "D", "E", settings=greens)
    report = ConflictReport(files=("x",), others=("A",), integration="m1")
    passed = (GateResult(gate="unit", commit="m9", exit_code=0),)
    fates = (
        Landed(task="B", kind="merged", merge="m2", gates=passed),
        Landed(task="C", kind="conflict", conflict=report, reason="conflict with what A landed in x"),
        Landed(task="D", kind="gate_failed", reason="after merging: gate 'unit' exited 1"),
        Landed(task="E", kind="left"),
    )
    made.end("A", landing(*fates))
    stand = [str(status(made, name)) for name in "ABCDE"]
    assert stand == ["merged", "merged", "running", "running", "approved"]
    assert (task(made, "B").merge, task(made, "B").commit) == ("m2", "cB")
    assert running(made) == {"C": "work", "D": "work", "E": "landing"}
    for name in "CD":
        assert (task(made, name).returns, task(made, name).attempts) == (1, 0)
        assert made.live(name).bring_in == made.facts.integration
    assert task(made, "E").returns == 0
    merged = [batch for batch in made.batches for r in batch.records if isinstance(r.event, e.TaskMerged)]
    assert merged[0] is merged[1]


def test_one_sent_back_by_what_the_target_gained_takes_in_the_target() -> None:
    """Also in later tries, until a landing of its own says otherwise."""
    made = together("A", "B")
    report = ConflictReport(files=("x",), others=("target",), integration="t9")
    made.end("A", landing(Landed(task="B", kind="conflict", conflict=report, reason="conflict")))
    assert made.live("B").bring_in == "t9"
    made.end("B", ended(Ending.FAILED))
    made.wait(1000.0)
    assert made.live("B").bring_in == "t9"
    made.end("B", committed("cB2"))
    made.end("B", CONFLICT)
    assert made.live("B").bring_in == made.facts.integration


def test_the_third_return_from_the_landings_of_others_waits_for_a_person() -> None:
    """A conflict in company counts like one alone."""
    made = together("A", "B", settings=Settings(limits=LimitSettings(returns_max=1)))
    made.end("A", landing(Landed(task="B", kind="gate_failed", reason="it fails")))
    assert (status(made, "B"), task(made, "B").returns) == (Status.WAITING_FOR_PERSON, 1)
    made.ask(lambda state: commands.approve(state, "B"))
    made.decide()
    assert running(made) == {"B": "landing"}


def test_what_came_back_from_the_landing_of_another_is_not_spared_either() -> None:
    """It has no landing of its own, and was sent back by one all the same."""
    settings = replace(GATED, roles={"green": RoleSettings(slots=5)})
    made = started(
        settings, C=spec(gates=(), review=ReviewMode.NEVER), B=spec(gates=(), review=ReviewMode.NEVER), A=spec()
    )
    made.end("C", committed("cC"))
    made.end("B", committed("cB"))
    made.end("A", committed("cA", lines=1))
    made.end("A", gated(commit="cA"))
    made.end("C", replace(LANDED, commit="m0"))
    assert taken(made, "B") == ["A"]
    made.end("B", landing(Landed(task="A", kind="gate_failed", reason="it fails")))
    made.end("A", committed("cA2", lines=1))
    made.end("A", gated(commit="cA2"))
    assert rules(made)["history"] == ("review", "sent back by the landing 1 time")
    assert made.live("A").purpose is Purpose.REVIEW


def test_what_is_paused_waits_to_be_repeated_or_is_too_many_is_not_taken_along() -> None:
    """Each for its reason; the rest is."""
    settings = Settings(landing=Landing(batch_max=2), roles={"green": RoleSettings(slots=5)})
    made = together("A", "B", "C", settings=settings)
    assert taken(made) == ["B"]
    made.ask(lambda state: commands.pause(state, "B"))
    made.end("A", ended(Ending.CRASHED))
    assert running(made) == {"C": "landing"}
    assert taken(made, "C") == []


def test_after_a_landing_without_a_word_its_first_goes_alone() -> None:
    """Whatever of the batch ended it, the first is tried by itself, and is no part of anybody else's."""
    made = together("A", "B", "C", settings=Settings(roles={"green": RoleSettings(slots=5)}))
    made.end("A", ended(Ending.CRASHED))
    assert (running(made), taken(made, "B")) == ({"B": "landing"}, ["C"])
    made.wait(1000.0)
    made.end("B", replace(LANDED, commit="m2", batch=(Landed(task="C", kind="merged", merge="m3"),)))
    assert (running(made), taken(made)) == ({"A": "landing"}, [])
    assert (task(made, "A").attempts, task(made, "A").returns) == (0, 0)


def test_a_landing_is_given_the_time_that_its_gates_are_given() -> None:
    """With every try, set-up before each, and only gates that somebody in it names: or it could never land."""
    slow = {"slow": Gate(argv=("true",), timeout_seconds=5000.0), "other": Gate(argv=("true",), timeout_seconds=9000.0)}
    settings = Settings(
        gates=Gates(default=("other",), named=slow, reruns=2), setup=Setup(commands=(("make",),), timeout_seconds=100.0)
    )
    made = started(settings, A=spec(gates=("slow",), review=ReviewMode.NEVER))
    made.end("A", committed("cA"))
    made.end("A", gated("slow", commit="cA"))
    assert made.live("A").purpose is Purpose.LANDING
    assert made.live("A").limits.timeout_seconds == 3 * (5000.0 + 100.0)


def test_a_longer_landing_is_given_more_time() -> None:
    """As many searches as it may take; one alone has what it always had."""
    alone, four = together("A"), together("A", "B", "C", "D", settings=Settings(roles={"green": RoleSettings(slots=5)}))
    assert alone.live("A").limits.timeout_seconds == 3600.0
    assert four.live("A").limits.timeout_seconds == 3 * 3600.0


def test_nothing_lands_on_a_branch_that_is_astray_and_nothing_starts_from_it() -> None:
    """What has begun goes on; when the branch is right again, everything does."""
    made = together("A", "B")
    made.facts = replace(made.facts, astray="the branch was moved; run: git branch", integration="")
    made.submit("C", spec())
    made.wait(1000.0)
    assert running(made) == {"A": "landing"}
    made.end("A", ended(Ending.CRASHED, code="astray"))
    made.wait(1000.0)
    assert running(made) == {}
    made.facts = replace(made.facts, astray="", integration="m5")
    made.decide()
    assert running(made) == {"A": "landing", "C": "work"}


def test_a_landing_that_met_the_branch_astray_costs_nothing_and_is_made_again() -> None:
    """It says nothing about the commit, and nobody is asked before the branch is right again."""
    made = approved("A")
    for _ in range(10):
        made.end("A", ended(Ending.CRASHED, "checked out", code="astray"))
    assert running(made) == {"A": "landing"}
    assert (task(made).attempts, task(made).returns) == (0, 0)


def test_an_old_task_of_low_priority_lands_within_the_bound() -> None:
    """One lands while two more come: after the difference in priority, in minutes, nobody passes it any more."""
    settings = Settings(landing=Landing(batch_max=1), roles={"green": RoleSettings(slots=50)})
    made = world(settings)
    made.submit("low", spec(review=ReviewMode.NEVER))
    begin, landed, number = made.facts.now, [], 0
    while status(made, "low") is not Status.MERGED:
        for _ in range(2):
            number += 1
            made.submit(f"h{number}", spec(review=ReviewMode.NEVER, priority=10))
            made.wait(30.0)
            for run in [run for run in made.state.live_runs() if run.purpose is Purpose.WORK]:
                made.end(run.task, committed(f"c-{run.task}"))
        (now,) = [run for run in made.state.live_runs() if run.purpose is Purpose.LANDING]
        landed.append(now.task)
        made.end(now.task, replace(LANDED, commit=f"m-{now.task}"))
        assert len(landed) < 50, "it is passed over for ever"
    before = [made.state.find(name).submitted_at - begin for name in landed[1:-1]]
    assert landed[-1] == "low"
    assert max(before) <= 10 * 60.0
    assert any(task.status is Status.APPROVED for task in made.state.tasks.values()), "nobody had to be passed over"


# ---- pause, drain, stop ----------------------------------------------------------------------------------------------


def test_a_pause_of_everything_starts_no_run_of_any_kind() -> None:
    """Work, gate, review and landing all wait; resumed, all go on."""
    one = Settings(gates=GATED.gates)
    made = started(one, A=spec(), B=spec(review=ReviewMode.NEVER, gates=()))
    made.ask(lambda state: commands.pause(state, None))
    made.submit("C", spec(Kind.SEARCH))
    made.end("A", committed())
    made.end("B", committed("c2"))
    assert (running(made), status(made, "B")) == ({}, Status.APPROVED)
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    assert running(made) == {"A": "gate", "B": "landing", "C": "work"}


def test_a_paused_task_finishes_its_run_and_starts_no_other() -> None:
    """Its present run ends and is settled; its review waits; other tasks go on."""
    made = started(A=spec(), B=spec())
    made.ask(lambda state: commands.pause(state, "A"))
    made.end("A", committed())
    made.end("B", committed("c2"))
    assert (running(made), status(made, "A")) == ({"B": "review"}, Status.RUNNING)


def test_a_paused_task_that_goes_back_is_held() -> None:
    """Back in the queue while paused means held, until resumed."""
    made = started(A=spec())
    made.ask(lambda state: commands.pause(state, "A"))
    made.end("A", ended(Ending.STOPPED))
    assert status(made, "A") is Status.HELD
    made.ask(lambda state: commands.resume(state, "A"))
    made.decide()
    assert running(made) == {"A": "work"}


def test_draining_starts_no_work_but_finishes_what_began() -> None:
    """B never starts; A is reviewed and lands."""
    made = started(A=spec())
    made.facts = replace(made.facts, starting=False)
    made.submit("B", spec())
    made.end("A", committed())
    made.end("A", said("approve"))
    made.end("A", LANDED)
    assert (status(made, "A"), status(made, "B")) == (Status.MERGED, Status.QUEUED)


def test_stopping_starts_nothing_and_settles_what_ended() -> None:
    """A landing that ended is recorded as merged; B's review does not start."""
    made = approved("A")
    made.submit("B", spec())
    made.decide()
    made.facts = replace(made.facts, starting=False, stopping=True)
    made.end("B", committed("c2"))
    made.end("A", LANDED)
    assert (status(made, "A"), running(made)) == (Status.MERGED, {})


# ---- bases -----------------------------------------------------------------------------------------------------------


def test_a_base_that_is_no_ancestor_fails_the_task_before_it_runs() -> None:
    """The reason names the base; no attempt was used up."""
    made = started(A=spec(base="gone"))
    assert (status(made, "A"), task(made).attempts, task(made).runs) == (Status.FAILED, 0, ())
    assert "'gone' is not an ancestor" in task(made).reason


def test_a_task_keeps_the_base_it_first_started_from() -> None:
    """The integration branch moves on; the second try starts from the same commit as the first."""
    made = started(A=spec())
    first = made.live("A").base
    made.facts = replace(made.facts, integration="m9")
    made.end("A", ended(Ending.STOPPED))
    assert (made.live("A").base, first) == (first, "0" * 40)


# ---- the plan itself -------------------------------------------------------------------------------------------------


def test_an_empty_reason_does_not_stop_the_plan() -> None:
    """A person who sends work back without a word gets another try, not a crash."""
    made = started(A=spec())
    made.policies = Policies([])
    made.end("A", committed())
    made.ask(lambda state: commands.reject(state, "A", ""))
    made.policies = shipped()
    made.decide()
    assert running(made) == {"A": "work"}


def test_settings_that_changed_between_two_plans_count() -> None:
    """Limits are read when they are needed, not remembered from the start."""
    made = started(A=spec())
    made.facts = replace(made.facts, settings=Settings(limits=LimitSettings(attempts_max=1)))
    made.end("A", ended(Ending.FAILED))
    assert status(made, "A") is Status.FAILED


def test_nothing_to_do_is_no_event() -> None:
    """A state in which all is under way gives an empty plan."""
    made = started(A=spec())
    events: list[e.AnyEvent] = plan(made.state, made.facts, shipped())
    assert events == []
