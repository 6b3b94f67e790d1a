"""What is said of a task before it starts: bounds that hold, figures that the log has, reasons that come true."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coordination import views
from coordination.cli import _estimate
from coordination.model import commands
from coordination.model.experience import NEWEST_MAX, alike, bill, lasted, shares, spread
from coordination.model.runs import DiffStat, Ending, Outcome, Purpose, Usage
from coordination.model.state import Core, Run, State, Task
from coordination.model.tasks import Kind, ReviewMode, Status, TaskSpec
from coordination.planning.estimates import Estimate, estimate
from coordination.policy import shipped
from coordination.settings import Gate, Gates, LimitSettings, MoneySettings, RoleSettings, Settings
from coordination.testing import strategies
from coordination.testing.strategies import EPOCH, ROLES, History, World, facts

UNGATED = Settings()
Part = tuple[float, float]
"""What a run cost and how long it took."""


def spec(kind: Kind = Kind.IMPLEMENT, **fields: Any) -> TaskSpec:
    return TaskSpec(prompt="do it", title="It", kind=kind, **fields)


def asked(made: World, task: str = "new", **fields: Any) -> Estimate:
    """The estimate of a task in a world."""
    return estimate(made.state, made.facts, shipped(), task, spec(**fields))


def world(known: Settings = UNGATED, **tasks: TaskSpec) -> World:
    made = World(facts=facts(known))
    for name, wanted in tasks.items():
        made.submit(name, wanted)
    return made


def run(task: str, number: int, purpose: Purpose, part: Part, *, role: str, model: str = "sonnet", **usage: Any) -> Run:
    outcome = Outcome(
        ending=Ending.SUCCEEDED,
        usage=Usage(cost_usd=part[0], **usage),
        started_at=EPOCH,
        ended_at=EPOCH + part[1],
    )
    return Run(
        id=f"{task}.{number}.{purpose}",
        task=task,
        purpose=purpose,
        token=1,
        planned_at=EPOCH,
        role=role,
        model=model,
        outcome=outcome,
    )


def past(
    task: str,
    *,
    kind: Kind = Kind.IMPLEMENT,
    role: str = "green",
    model: str = "sonnet",
    status: Status = Status.MERGED,
    work: Sequence[Part] = ((0.3, 180.0),),
    review: Sequence[Part] = ((0.1, 40.0),),
    gates: float = 20.0,
    at: float = EPOCH,
    **usage: Any,
) -> Task:
    """A task that ended, with its runs."""
    parts = [(Purpose.WORK, part, role, model) for part in work]
    parts += [(Purpose.REVIEW, part, "red", "opus") for part in review]
    parts += [(Purpose.LANDING, (0.0, gates), "", "")] if gates else []
    runs = [
        run(task, number, purpose, part, role=who, model=what, **usage)
        for number, (purpose, part, who, what) in enumerate(parts, start=1)
    ]
    return Task(
        id=task,
        spec=spec(kind),
        digest="",
        seq=1,
        index=0,
        submitted_at=EPOCH,
        status=status,
        changed_at=at,
        runs=tuple(runs),
    )


def after(*tasks: Task, settings: Settings = UNGATED) -> World:
    """A world in which these tasks have ended."""
    made = World(facts=facts(settings))
    made.state = State(tasks={task.id: task for task in tasks}, keys={task.id.lower(): task.id for task in tasks})
    return made


def several(count: int, **fields: Any) -> list[Task]:
    return [past(f"{fields.get('kind', 'task')}{number}", **fields) for number in range(count)]


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([7.0], (7.0, 7.0, 7.0)),
        ([2.0, 1.0], (1.0, 1.0, 2.0)),
        ([3.0, 1.0, 2.0], (1.0, 2.0, 3.0)),
        ([1.0, 2.0, 3.0, 4.0], (1.0, 2.0, 4.0)),
        ([5.0, 1.0, 4.0, 2.0, 3.0], (2.0, 3.0, 4.0)),
        ([float(n) for n in range(1, 10)], (3.0, 5.0, 7.0)),
        ([0.0, 0.0, 0.0, 0.0, 100.0], (0.0, 0.0, 0.0)),
    ],
)
def test_a_spread_is_three_of_the_numbers(numbers: list[float], expected: tuple[float, float, float]) -> None:
    """Median and quartiles, of as few numbers as one."""
    found = spread(numbers)
    assert (found.low, found.median, found.high) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_half_of_all_lie_within_a_spread_and_half_on_each_side_of_the_median(numbers: list[float]) -> None:
    """Whatever the numbers, and none is made up."""
    found = spread(numbers)
    assert {found.low, found.median, found.high} <= set(numbers)
    assert found.low <= found.median <= found.high
    assert 2 * sum(found.low <= number <= found.high for number in numbers) >= len(numbers)
    assert 2 * sum(number <= found.median for number in numbers) >= len(numbers)
    assert 2 * sum(number >= found.median for number in numbers) >= len(numbers)


@pytest.mark.parametrize(
    ("worker", "record", "expected"),
    [
        ((100.0, 130.0), (101.0, 132.0), 30.0),
        ((130.0, 100.0), (101.0, 132.0), 0.0),
        ((0.0, 0.0), (101.0, 132.0), 31.0),
        ((0.0, 0.0), (132.0, 101.0), 0.0),
        ((0.0, 0.0), (0.0, 132.0), 0.0),
        ((100.0, 0.0), (101.0, 132.0), 31.0),
    ],
)
def test_a_run_lasts_by_the_clock_of_its_worker(worker: Part, record: Part, expected: float) -> None:
    """Else by when we heard of it; a clock that went back makes it no shorter than nothing."""
    made = run("A", 1, Purpose.WORK, (0.0, 0.0), role="green")
    assert made.outcome is not None
    outcome = replace(made.outcome, started_at=worker[0], ended_at=worker[1])
    assert lasted(replace(made, outcome=outcome, started_at=record[0], ended_at=record[1])) == expected


def test_a_bill_has_all_runs_that_ended() -> None:
    """Work, review and the rest apart; a run that goes on costs nothing yet."""
    task = past("A", work=[(0.3, 100.0), (0.2, 50.0)], review=[(0.1, 30.0), (0.1, 30.0)], gates=5.0)
    live = replace(run("A", 9, Purpose.WORK, (9.0, 9.0), role="green"), outcome=None)
    found = bill(replace(task, runs=(*task.runs, live)))
    assert (found.works, found.well, found.model) == (2, True, "sonnet")
    assert (found.usd, found.work_usd, found.review_usd) == pytest.approx((0.7, 0.5, 0.2))
    assert (found.work_seconds, found.review_seconds, found.gates_seconds) == (150.0, 60.0, 5.0)
    assert (found.seconds, found.checks_seconds) == (215.0, 65.0)


# ---- tasks like it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ([], ("all", "writing", 0)),
        (several(1, kind=Kind.FIX), ("all", "writing", 1)),
        (several(3, kind=Kind.FIX), ("kind", "fix", 3)),
        ([*several(2, kind=Kind.FIX), *several(1, kind=Kind.TEST)], ("role", "green", 3)),
        ([*several(2, kind=Kind.FIX), *several(3, kind=Kind.TEST, role="violet")], ("all", "writing", 5)),
        ([*several(2, kind=Kind.FIX), *several(5, kind=Kind.SEARCH)], ("all", "writing", 2)),
        ([*several(3, kind=Kind.FIX), *several(5, kind=Kind.TEST)], ("kind", "fix", 3)),
        (several(3, kind=Kind.FIX, role="violet"), ("kind", "fix", 3)),
    ],
)
def test_likeness_is_kind_then_role_then_nothing(tasks: list[Task], expected: tuple[str, str, int]) -> None:
    """The narrowest group of at least three is asked; else all there are, but never one that only reads."""
    found = alike(after(*tasks).state, Kind.FIX, "green")
    assert (found.by, found.name, len(found.bills)) == expected


@pytest.mark.parametrize("status", list(Status))
def test_only_a_task_that_came_to_an_end_by_itself_tells_what_one_costs(status: Status) -> None:
    """One that a person cancelled was cut short, one that is under way may cost more, and a failure costs too."""
    known = alike(after(past("A", status=status)).state, Kind.IMPLEMENT, "green").bills
    assert len(known) == (status in (Status.MERGED, Status.DONE, Status.FAILED))
    assert all(each.well == (status is not Status.FAILED) for each in known)


def test_a_task_that_nobody_worked_on_tells_nothing() -> None:
    """One whose base was not acceptable failed without a run."""
    failed = past("A", status=Status.FAILED, work=(), review=(), gates=0.0)
    assert alike(after(failed).state, Kind.IMPLEMENT, "green").bills == ()


def test_the_newest_are_asked() -> None:
    """Old ones were done by other models at other prices."""
    tasks = [past(f"T{n}", work=[(float(n), 1.0)], review=(), at=EPOCH + n) for n in range(NEWEST_MAX + 5)]
    found = alike(after(*reversed(tasks)).state, Kind.IMPLEMENT, "green").bills
    assert [each.usd for each in found] == [float(n) for n in range(NEWEST_MAX + 4, 4, -1)]


def test_without_experience_there_is_a_bound_and_no_figure() -> None:
    """Nothing is invented."""
    found = asked(world())
    assert found.likely is None
    assert found.advice == ()
    assert found.most.usd == 5.5


def test_what_tasks_like_it_cost_and_took() -> None:
    """Each figure for itself, with the number of tasks that it rests on and what sets some of them apart."""
    tasks = [
        past("A", work=[(0.1, 60.0)], review=[(0.3, 10.0)]),
        past("B", work=[(0.4, 200.0)], review=()),
        past("C", work=[(0.2, 100.0), (0.7, 50.0)], review=[(0.05, 20.0)], model="opus"),
        past("D", work=[(6.0, 900.0)], review=(), gates=0.0, status=Status.FAILED),
        past("E", work=[(5.2, 900.0)], review=(), status=Status.FAILED),
        past("F", work=[(0.4, 200.0)], review=()),
    ]
    found = asked(after(*tasks)).likely
    assert found is not None
    assert (found.by, found.name, found.tasks) == ("kind", "implement", 6)
    assert (found.failed, found.repeated, found.other_model, found.over) == (2, 1, 1, 2)
    assert msgspec.to_builtins(found.usd) == {"low": 0.4, "median": 0.4, "high": 5.2}
    assert msgspec.to_builtins(found.review_usd) == {"low": 0.0, "median": 0.0, "high": 0.05}
    assert msgspec.to_builtins(found.work_seconds) == {"low": 150.0, "median": 200.0, "high": 900.0}
    assert msgspec.to_builtins(found.gates_seconds) == {"low": 20.0, "median": 20.0, "high": 20.0}
    assert found.estimated is False


def test_what_is_likely_ends_at_what_it_may_cost() -> None:
    """And how many cost more than its budget is told."""
    found = asked(after(*several(3), past("D", work=[(9.0, 1.0)])), budget_usd=1.0).likely
    assert found is not None
    assert (found.usd.high, found.work_usd.high, found.over) == (1.5, 1.5, 1)


@pytest.mark.parametrize("estimated", [True, False])
def test_what_had_to_be_assumed_is_labelled(estimated: bool) -> None:
    """One run of unknown price among all, and every figure is said to be about."""
    made = after(past("A"), past("B"), past("C", estimated=estimated))
    found = asked(made)
    assert found.likely is not None
    assert found.likely.estimated is estimated
    assert all(share.estimated is estimated for share in shares([made.state.tasks["C"]]))


# ---- at most ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("money", "spent", "fields", "expected"),
    [
        ({}, 0.0, {}, ("budget", 5.5, 5.0)),
        ({}, 90.0, {"budget_usd": 2.0}, ("budget", 2.5, 2.0)),
        ({"response_usd": 0.0}, 0.0, {"budget_usd": 2.0}, ("budget", 2.0, 2.0)),
        ({"total_usd": 100.0}, 0.0, {}, ("budget", 5.5, 5.0)),
        ({"total_usd": 100.0}, 97.0, {}, ("cap", 3.5, 3.0)),
        ({"total_usd": 100.0}, 95.0, {}, ("budget", 5.5, 5.0)),
        ({"total_usd": 100.0}, 99.99, {}, ("never", None, 0.01)),
        ({"total_usd": 100.0}, 101.0, {}, ("never", None, 0.0)),
        ({"day_usd": 2.0}, 0.5, {}, ("budget", 5.5, 1.5)),  # tomorrow it may go on
        ({}, 0.0, {"role": "nobody"}, ("never", None, None)),
    ],
)
def test_what_it_may_cost_at_most(
    money: dict[str, float], spent: float, fields: dict[str, Any], expected: tuple[str, float | None, float | None]
) -> None:
    """Its budget or what the cap in total leaves, and one answer; and what its first run would get now."""
    made = world(Settings(money=MoneySettings(**money)), A=spec())
    made.decide()
    made.end("A", Outcome(ending=Ending.FAILED, code="no_change", usage=Usage(cost_usd=spent, turns=1)))
    made.ask(lambda state: commands.cancel(state, "A"))
    found = asked(made, **fields).most
    assert found.bound == expected[0]
    assert found.usd == pytest.approx(expected[1])
    assert found.now_usd == pytest.approx(expected[2])


def test_what_others_will_have_reserved_by_then_is_not_for_it() -> None:
    """A task before it in the queue gets its budget first, with an answer beyond; the bound is what it was."""
    most = asked(world(Settings(money=MoneySettings(total_usd=7.0)), A=spec())).most
    assert (most.now_usd, most.usd, most.bound) == (1.5, 5.5, "budget")


def test_what_a_run_may_use_is_what_the_task_or_the_settings_say() -> None:
    """Time, turns and tries."""
    known = Settings(limits=LimitSettings(timeout_seconds=90.0, turns_max=7, attempts_max=2))
    found = asked(world(known)).most
    assert (found.timeout_seconds, found.turns_max, found.attempts_max) == (90.0, 7, 2)
    found = asked(world(known), timeout_seconds=10.0, turns_max=3, attempts_max=1).most
    assert (found.timeout_seconds, found.turns_max, found.attempts_max) == (10.0, 3, 1)


FATES = ["good", "bad", "person"]


@given(
    total=st.sampled_from([None, 3.0, 6.0, 100.0]),
    budget=st.sampled_from([None, 0.3, 2.0]),
    other=st.floats(0.0, 3.0),
    dice=st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans(), st.sampled_from(FATES)), max_size=25),
)
def test_no_way_of_going_costs_more_than_the_most(
    total: float | None, budget: float | None, other: float, dice: list[tuple[float, bool, str]]
) -> None:
    """Runs spend all they may and one answer more, fail, are rejected, conflict, and a person tries again and again."""
    made = world(Settings(money=MoneySettings(total_usd=total, response_usd=0.5)), other=spec())
    made.decide()
    made.end("other", Outcome(ending=Ending.FAILED, code="no_change", usage=Usage(cost_usd=other, turns=1)))
    made.ask(lambda state: commands.cancel(state, "other"))
    most = asked(made, "T", budget_usd=budget).most.usd
    made.submit("T", spec(budget_usd=budget))
    made.decide()
    for share, beyond, fate in dice:
        made.wait(400.0)
        if fate == "person":
            made.ask(lambda state: commands.retry(state, "T"))
            made.decide()
        if not made.state.find("T").live:
            continue
        live = made.live("T")
        cost = ((live.limits.budget_usd or 0.0) * share + 0.5 * beyond) if live.account else 0.0
        made.end("T", _ended(live, cost, well=fate == "good"))
    task = made.state.find("T")
    assert most is not None or not task.runs
    assert task.usage.cost_usd <= (most or 0.0) + 1e-9


def _ended(live: Run, cost: float, *, well: bool) -> Outcome:
    usage = Usage(cost_usd=cost, turns=1)
    match live.purpose:
        case Purpose.WORK if well:
            return Outcome(
                ending=Ending.SUCCEEDED, base="b", commit="c", diff=DiffStat(files=1, insertions=100), usage=usage
            )
        case Purpose.REVIEW:
            return Outcome(ending=Ending.SUCCEEDED, verdict="approve" if well else "reject", usage=usage)
        case Purpose.LANDING if well:
            return Outcome(ending=Ending.CONFLICT, reason="conflict", usage=usage)
    return Outcome(ending=Ending.FAILED, code="no_change", usage=usage)


# ---- who -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "gates", "expected"),
    [
        ({}, (), ("red", "opus", 0)),
        ({}, ("unit",), ("red", "opus", 20)),
        ({"gates": ()}, ("unit",), ("red", "opus", 0)),
        ({"gates": ("unit",)}, (), ("red", "opus", 20)),
        ({"review": ReviewMode.ALWAYS}, ("unit",), ("red", "opus", 0)),
        ({"review": ReviewMode.NEVER}, (), None),
        ({"kind": Kind.SEARCH}, ("unit",), None),
    ],
)
def test_who_would_review_it(
    fields: dict[str, Any], gates: tuple[str, ...], expected: tuple[str, str, int] | None
) -> None:
    """And which changes would be spared: small ones whose gates passed, if there are gates."""
    known = Settings(gates=Gates(default=gates, named={"unit": Gate(argv=("true",))}))
    found = asked(world(known), **fields).review
    assert (found and (found.role, found.model, found.spared_lines)) == expected


def test_who_would_work_on_it_and_with_which_model() -> None:
    """The role by kind, with the model that the settings put in place of its own."""
    made = world(Settings(roles={"green": RoleSettings(model="haiku")}))
    assert (asked(made).role, asked(made).model) == ("green", "haiku")
    assert (asked(made, kind=Kind.SEARCH).role, asked(made, kind=Kind.SEARCH).model) == ("blue", "haiku")
    assert (asked(made, role="nobody").role, asked(made, role="nobody").model) == (None, None)
    made.facts = replace(made.facts, roles={"green": ROLES["green"]})
    review = asked(made).review
    assert review is not None
    assert review.role == ""


# ---- when ------------------------------------------------------------------------------------------------------------


def test_a_free_slot_is_taken_at_once() -> None:
    """Two slots of Green, and one of them is in use."""
    made = world(A=spec())
    made.decide()
    start = asked(made).start
    assert (start.now, start.reasons, start.slots_used, start.slots_most) == (True, (), 2, 2)


def test_a_base_that_only_git_can_judge_is_taken_for_good() -> None:
    """Of the task itself and of those before it; nothing is said that git would have to say."""
    assert asked(world(), base="v1").start.now is True
    start = asked(world(A=spec(base="v1"), B=spec(base="v2"))).start
    assert (start.now, start.slots_used, start.before) == (False, 2, 0)


def test_who_stands_before_it_is_counted() -> None:
    """By the order of the queue and for the same role only; who waits for something else is told apart."""
    made = world(
        A=spec(), B=spec(), C=spec(), D=spec(after=("nobody",)), E=spec(priority=-50), F=spec(Kind.SEARCH, priority=9)
    )
    for decided in (False, True):  # whether a supervisor has taken its steps already makes no difference
        if decided:
            made.decide()
        start = asked(made).start
        assert (start.now, start.reasons, start.slots_used) == (False, (), 2)
        assert (start.before, start.before_ready) == (2, 1)
        assert asked(made, priority=50).start.before == 0


def test_what_is_in_its_way_is_said_as_for_a_task_in_the_queue() -> None:
    """Paths, dependencies and pauses by the same sentences, and the caps."""
    made = world(Settings(money=MoneySettings(total_usd=1.0)), A=spec(paths=("src",)))
    said = asked(made, paths=("src/a.py",), after=("A", "B")).start
    assert said.now is False
    assert said.reasons[:3] == (
        "waits for 'B', which nobody has submitted",
        "waits for A (running)",
        "its paths overlap those of A, which holds them",
    )
    assert said.reasons[3].startswith("the cap of 1.00 USD in total leaves")
    made.ask(lambda state: commands.pause(state, None))
    assert asked(made).start.reasons[0].startswith("everything is paused")


def test_what_ended_badly_is_waited_for_in_vain() -> None:
    """The task would end at once."""
    made = world(A=spec())
    made.ask(lambda state: commands.cancel(state, "A"))
    (reason,) = asked(made, after=("A",)).start.reasons
    assert reason.startswith("dependency_failed: A: A is cancelled")


def test_what_was_submitted_before_is_not_in_its_own_way() -> None:
    """The same id is the same task, and asking starts nothing."""
    found = asked(world(A=spec(paths=("src",))), "A", paths=("src",))
    assert (found.duplicate, found.start.now, found.start.reasons) == (True, False, ())
    assert (found.start.before, found.advice) == (0, ())


@given(
    others=st.lists(st.tuples(strategies.specs(after=("k1", "k2")), st.booleans()), max_size=6),
    wanted=strategies.specs(after=("k1", "k2")),
    total=st.sampled_from([None, 6.0]),
)
def test_what_is_said_of_the_start_comes_true(
    others: list[tuple[TaskSpec, bool]], wanted: TaskSpec, total: float | None
) -> None:
    """A task that would start now does, and one that would not waits for the reasons that were told."""
    made = world(Settings(money=MoneySettings(total_usd=total)))
    for number, (each, decided) in enumerate(others):
        made.submit(f"k{number + 1}", replace(each, base=None, after=()))
        if decided:
            made.decide()
    wanted = replace(wanted, base=None)
    start = estimate(made.state, made.facts, shipped(), "new", wanted).start
    made.submit("new", wanted)
    made.decide()
    task = made.state.find("new")
    assert start.now == bool(task.runs)
    assert list(start.reasons or ["waits for a free slot"]) == (
        views.waiting(made.state, made.facts, shipped(), task) or ["waits for a free slot"]
    )
    ahead = [each for each in made.state.tasks.values() if not each.runs and each.id != "new"]
    assert start.before <= len(ahead)


# ---- one instead of several ------------------------------------------------------------------------------------------

SRC: dict[str, Any] = {"paths": ("src",)}


@pytest.mark.parametrize(
    ("other", "fields", "joined"),
    [
        (SRC, {"paths": ("src/a.py",)}, True),
        (SRC, {"paths": ("docs",)}, False),
        (SRC, {}, False),
        ({}, {"after": ("a",)}, True),
        ({}, {}, False),
        (SRC | {"kind": Kind.SEARCH}, SRC, False),  # Blue's work is not Green's
        (SRC | {"kind": Kind.SEARCH}, SRC | {"after": ("A",)}, False),
        (SRC | {"kind": Kind.TEST}, SRC | {"kind": Kind.FIX}, True),
        (SRC | {"kind": Kind.SEARCH}, SRC | {"kind": Kind.PLAN}, True),
    ],
)
def test_tasks_that_cannot_run_at_once_are_better_one(
    other: dict[str, Any], fields: dict[str, Any], joined: bool
) -> None:
    """Same role, same paths or one after the other, and nobody has begun."""
    found = asked(world(A=spec(**other)), **fields).advice
    assert [(advice.rule, advice.tasks) for advice in found] == ([("join", ("A",))] if joined else [])


@pytest.mark.parametrize("begun", ["not", "running", "queued again"])
def test_what_was_begun_cannot_be_joined_any_more(begun: str) -> None:
    """Its session has read the repository already."""
    made = world(A=spec(**SRC))
    if begun != "not":
        made.decide()
    if begun == "queued again":
        made.end("A", Outcome(ending=Ending.FAILED, code="no_change"))
        assert made.state.find("A").status is Status.QUEUED
    assert bool(asked(made, **SRC).advice) is (begun == "not")


def test_many_that_could_be_joined_are_named_in_a_sentence_of_bounded_length() -> None:
    """All of them as data, the first of them in words; what the log has not is not said."""
    made = world(UNGATED, **{f"A{n}": spec(**SRC) for n in range(9)})
    (advice,) = asked(made, after=("A8",), **SRC).advice
    assert advice.tasks == tuple(f"A{n}" for n in range(9))
    assert advice.says.startswith("it comes after A8, touches the same paths as A0, touches the same paths as A1")
    assert "and 4 more" in advice.says
    assert "USD" not in advice.says


def test_what_joining_saves_is_said_in_figures_of_the_log_only() -> None:
    """From three tasks alike on; nothing is said about reading, of which the log knows nothing."""
    for count, told in ((2, False), (3, True)):
        made = after(*several(count))
        made.submit("A", spec(**SRC))
        (advice,) = [each for each in asked(made, **SRC).advice if each.rule == "join"]
        assert ("review 0.1000 USD, all checks and the landing 60 s" in advice.says) is told
        assert "checked and landed once" in advice.says


@pytest.mark.parametrize(
    ("work", "review", "gates", "expected"),
    [
        ((0.1, 300.0), (0.2, 30.0), 20.0, ["review_costs_more"]),
        ((0.3, 30.0), (0.2, 20.0), 20.0, ["checks_take_longer"]),
        ((0.1, 30.0), (0.2, 20.0), 20.0, ["review_costs_more", "checks_take_longer"]),
        ((0.3, 300.0), (0.2, 30.0), 20.0, []),
        ((0.2, 50.0), (0.2, 30.0), 20.0, []),
    ],
)
def test_what_was_mostly_overhead_is_said(work: Part, review: Part, gates: float, expected: list[str]) -> None:
    """Where the review cost more than the work, or the checks took longer, in most of the tasks like it."""
    much = [past(f"A{n}", work=[work], review=[review], gates=gates) for n in range(2)]
    none = past("B", work=[(9.0, 9000.0)])
    assert [advice.rule for advice in asked(after(*much, none)).advice] == expected
    other = past("C", work=[(9.0, 9000.0)])
    assert asked(after(*much, none, other)).advice == ()  # half of them is not most
    assert asked(after(*much)).advice == ()  # too few
    others = several(3, kind=Kind.TEST, role="violet", work=[work], review=[review], gates=gates)
    assert asked(after(*much, *others)).advice == ()  # enough, but alike in nothing
    reading = [replace(task, spec=spec(Kind.SEARCH)) for task in (*much, none)]
    assert asked(after(*reading), kind=Kind.SEARCH).advice == ()  # what only reads is not reviewed


# ---- anything --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.histories(turns_max=30), strategies.specs(after=("k1", "nobody")), st.sampled_from([None, 1.0, 50.0]))
def test_any_history_and_any_task(history: History, wanted: TaskSpec, total: float | None) -> None:
    """Nothing is negative, nothing likely exceeds the most, all of it is plain JSON, and the state is only read."""
    known = replace(history.facts, settings=replace(history.facts.settings, money=MoneySettings(total_usd=total)))
    before = Core().dump(history.state)
    found = estimate(history.state, known, history.policies, "new", wanted)
    assert Core().dump(history.state) == before
    row = _estimate.row(found, supervised=False)
    assert json.loads(json.dumps(row, allow_nan=False)) == row
    with contextlib.redirect_stdout(io.StringIO()) as told:
        _estimate.tell_estimate(row)
    assert "None" not in told.getvalue()
    assert found.start.before >= found.start.before_ready >= 0
    ended = {Status.MERGED, Status.DONE, Status.FAILED}
    same = (task for task in history.state.tasks.values() if task.spec.kind.read_only == wanted.kind.read_only)
    tasks = [task for task in same if task.status in ended]
    worked = [task for task in tasks if any(run.purpose is Purpose.WORK for run in task.runs)]
    assert (found.likely is None) == (not worked)
    if found.likely is None:
        return
    assert 0 < found.likely.tasks <= len(worked)
    for name in ("usd", "work_usd", "review_usd", "seconds", "work_seconds", "review_seconds", "gates_seconds"):
        figure = getattr(found.likely, name)
        assert 0.0 <= figure.low <= figure.median <= figure.high
        if found.most.usd is not None and name.endswith("usd"):
            assert figure.high <= found.most.usd
    for count in (found.likely.failed, found.likely.repeated, found.likely.other_model, found.likely.over):
        assert 0 <= count <= found.likely.tasks
