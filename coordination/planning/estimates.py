"""What would a task cost, and when would it start, if it were submitted now? Pure; nothing is planned by asking.

Three answers that rest on different things. What it may cost *at most* follows from budgets and caps. What it will
*likely* cost and take is what tasks like it did, in this log; without any there is no such answer. What it would *wait*
for are the reasons for which it would wait after the next steps of the plan.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

import msgspec
from msgspec.structs import replace

from coordination.model import events as e
from coordination.model.experience import ENOUGH, Alike, Bill, Spread, alike, spread
from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.state import State, Task, copied, fold
from coordination.model.tasks import ReviewMode, Status, TaskSpec
from coordination.model.waiting import hindrances, in_order, live_by_role, order_key, overlap
from coordination.planning.plan import as_review, plan, route
from coordination.policy import Policies, informed
from coordination.policy.budgets import left_for_ever, uncapped

LISTED_MAX = 5
_SOMEWHERE = "0" * 40  # a commit that nobody looks at
_NOBODY = Role(name="", description="", instructions="", model="")
_FEWER = "several small wishes in one task are checked and landed once"


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what an estimate says; every key is written, so that readers find it."""


class Reviewer(Figures, frozen=True, kw_only=True):
    """Who would look at the commit."""

    role: str  # "": no role does; a person decides
    model: str
    spared_lines: int  # a change of at most so many lines whose gates passed is not reviewed; 0: each one is


class Most(Figures, frozen=True, kw_only=True):
    """What it may use, whatever happens."""

    usd: float | None  # all its runs together
    bound: str  # what says so: budget | cap (in total) | never (as things stand it does not start) | nothing
    budget_usd: float | None  # of all its runs together, as the task or the settings say
    answer_usd: float  # the program stops after the answer that used the budget up; an answer costs at most this
    now_usd: float | None  # what its first run would get, under the caps and after what is promised to others
    timeout_seconds: float  # of one run
    turns_max: int | None  # of one run
    attempts_max: int


class Likely(Figures, frozen=True, kw_only=True):
    """What tasks like it that ended did cost and take, each figure for itself: medians do not add up."""

    by: str  # what they have in common: kind | role | all (only that they write, or only read)
    name: str  # of the kind or the role; writing | reading
    tasks: int
    failed: int  # of them
    repeated: int  # of them were worked on more than once
    other_model: int  # of them were worked on by another model than this one would be
    over: int  # of them cost more than this one's budget
    estimated: bool  # whether a price or a dead run's spend had to be assumed
    usd: Spread  # as far as this one may cost
    work_usd: Spread
    review_usd: Spread
    seconds: Spread  # of all runs; what lies between them is not counted
    work_seconds: Spread
    review_seconds: Spread
    gates_seconds: Spread  # gates and landing


class Start(Figures, frozen=True, kw_only=True):
    """When its first run would start: how things would stand after the supervisor's next steps."""

    now: bool  # it would be among those that start at once
    reasons: tuple[str, ...]  # what would be in its way; with none and not ``now`` it is only a slot
    slots_used: int  # of its role
    slots_most: int
    before: int  # tasks for the same role that would stand before it in the queue
    before_ready: int  # of them wait for a slot only


class Advice(Figures, frozen=True, kw_only=True):
    """Why one agent would be cheaper than several."""

    rule: str  # join | review_costs_more | checks_take_longer
    tasks: tuple[str, ...]
    says: str


class Estimate(Figures, frozen=True, kw_only=True):
    """All that can be said of a task before it is submitted."""

    task: str  # the id it would get
    duplicate: bool  # it was submitted before, so that submitting it again changes nothing
    kind: str
    role: str | None
    model: str | None
    review: Reviewer | None
    most: Most
    likely: Likely | None
    start: Start
    advice: tuple[Advice, ...]


def estimate(state: State, facts: Facts, policies: Policies, task: str, spec: TaskSpec) -> Estimate:
    """Estimate a task that would be submitted under this id now. Reads only."""
    facts = informed(state, facts)
    wanted = Task(id=task, spec=spec, digest="", seq=sys.maxsize, index=0, submitted_at=facts.now)
    role, _ = route(facts, policies, wanted)
    after = _stepped(state, facts, policies, wanted)
    most = _most(state, after, facts, policies, wanted, role)
    known = alike(state, spec.kind, role.name if role is not None else "")
    return Estimate(
        task=task,
        duplicate=state.get(task) is not None,
        kind=spec.kind,
        role=role.name if role is not None else None,
        model=facts.model(role) if role is not None else None,
        review=_reviewer(facts, policies, wanted),
        most=most,
        likely=_likely(known, most, facts.model(role) if role is not None else "") if known.bills else None,
        start=_start(state, after, facts, policies, wanted, role),
        advice=(*_join(state, facts, policies, wanted, role, known), *_overhead(wanted, known)),
    )


def _reviewer(facts: Facts, policies: Policies, task: Task) -> Reviewer | None:
    spec = task.spec
    if spec.kind.read_only or spec.review is ReviewMode.NEVER:
        return None
    gates = spec.gates if spec.gates is not None else facts.settings.gates.default
    sparing = gates and spec.review is ReviewMode.AUTO and str(spec.kind) not in facts.settings.review.kinds
    spared = facts.settings.review.small_lines if sparing else 0
    role, _ = route(facts, policies, as_review(task))
    if role is None:
        return Reviewer(role="", model="", spared_lines=spared)
    return Reviewer(role=role.name, model=facts.model(role), spared_lines=spared)


# ---- at most ---------------------------------------------------------------------------------------------------------


def _most(state: State, after: State, facts: Facts, policies: Policies, task: Task, role: Role | None) -> Most:
    settings, spec = facts.settings, task.spec
    own = policies.limits(replace(facts, settings=uncapped(settings)), task, role or _NOBODY)
    bound, usd = _bound(state, facts, own.budget_usd) if role is not None else ("never", None)
    return Most(
        usd=usd,
        bound=bound,
        budget_usd=own.budget_usd,
        answer_usd=settings.money.response_usd,
        now_usd=_first(after, facts, policies, task, role) if role is not None else None,
        timeout_seconds=own.timeout_seconds,
        turns_max=own.turns_max,
        attempts_max=int(spec.attempts_max or settings.limits.attempts_max),
    )


def _bound(state: State, facts: Facts, budget: float | None) -> tuple[str, float | None]:
    """What bounds its cost, and to how much.

    Each run gets what is left of the task's budget, and none starts when nothing is left: so all of them together
    exceed the budget by one answer at most, however many there are.
    """
    caps, left = facts.settings.money, left_for_ever(state.money, facts)
    if left < caps.run_min_usd:
        return "never", None
    if budget is not None and budget <= left:
        return "budget", budget + caps.response_usd
    return ("nothing", None) if left == float("inf") else ("cap", left + caps.response_usd)


def _first(after: State, facts: Facts, policies: Policies, task: Task, role: Role) -> float | None:
    """What its first run would get if it were the next to start: less, if others have reserved theirs by then."""
    begun = after.find(task.id).runs
    return begun[0].limits.budget_usd if begun else policies.limits(informed(after, facts), task, role).budget_usd


# ---- likely ----------------------------------------------------------------------------------------------------------


def _likely(known: Alike, most: Most, model: str) -> Likely:
    bills = known.bills
    budget = float("inf") if most.budget_usd is None else most.budget_usd
    bound = float("inf") if most.usd is None else most.usd

    def among(figure: Callable[[Bill], float], bound: float = float("inf")) -> Spread:
        return spread(min(figure(bill), bound) for bill in bills)

    return Likely(
        by=known.by,
        name=known.name,
        tasks=len(bills),
        failed=sum(not bill.well for bill in bills),
        repeated=sum(bill.works > 1 for bill in bills),
        other_model=sum(bill.model != model for bill in bills) if model else 0,
        over=sum(bill.usd > budget for bill in bills),
        estimated=any(bill.estimated for bill in bills),
        usd=among(lambda bill: bill.usd, bound),
        work_usd=among(lambda bill: bill.work_usd, bound),
        review_usd=among(lambda bill: bill.review_usd, bound),
        seconds=among(lambda bill: bill.seconds),
        work_seconds=among(lambda bill: bill.work_seconds),
        review_seconds=among(lambda bill: bill.review_seconds),
        gates_seconds=among(lambda bill: bill.gates_seconds),
    )


# ---- when ------------------------------------------------------------------------------------------------------------


def _start(state: State, after: State, facts: Facts, policies: Policies, task: Task, role: Role | None) -> Start:
    facts, found = informed(after, facts), after.find(task.id)
    waits = role is not None and found.status in (Status.QUEUED, Status.HELD)
    before = list(_before(after, facts, policies, found, role)) if waits and role is not None else []
    ready = [other for other in before if not _hindered(after, facts, policies, other)]
    return Start(
        now=bool(found.runs) and state.get(task.id) is None,
        reasons=() if found.runs else tuple(_reasons(after, facts, policies, found)),
        slots_used=live_by_role(after)[role.name] if role is not None else 0,
        slots_most=facts.slots(role.name) if role is not None else 0,
        before=len(before),
        before_ready=len(ready),
    )


def _stepped(state: State, facts: Facts, policies: Policies, task: Task) -> State:
    """A copy of the state, the task submitted and the next steps planned in it: nobody knows better than the plan.

    What only git can say is taken for granted: that there is an integration branch, and that bases are acceptable.
    """
    seen = replace(facts, integration=_SOMEWHERE, bases=dict.fromkeys([*state.based, task.id], _SOMEWHERE))
    copy, known = copied(state), state.get(task.id)
    events: Sequence[e.AnyEvent] = () if known else (e.TaskSubmitted(task=task.id, spec=task.spec, digest=""),)
    while True:
        for index, event in enumerate(events):
            copy = fold(copy, e.Record(seq=sys.maxsize, index=index, at=facts.now, event=event))
        events = plan(copy, seen, policies)
        if not events:
            return copy


def _reasons(state: State, facts: Facts, policies: Policies, task: Task) -> list[str]:
    if task.status in (Status.QUEUED, Status.HELD):
        return _hindered(state, facts, policies, task)
    return [f"{task.status}: {task.reason}"]


def _hindered(state: State, facts: Facts, policies: Policies, task: Task) -> list[str]:
    """Why a queued task waits, unless it is for a slot."""
    return [*hindrances(state, facts, task), *policies.holds(facts, task)]


def _before(state: State, facts: Facts, policies: Policies, task: Task, role: Role) -> Iterator[Task]:
    """The queued tasks that want a slot of the same role and stand before it."""
    for other in in_order(state, facts, lambda head: route(facts, policies, head)[0] == role):
        if order_key(facts, other) >= order_key(facts, task):
            return
        yield other


# ---- one instead of several ------------------------------------------------------------------------------------------


def _join(
    state: State, facts: Facts, policies: Policies, task: Task, role: Role | None, known: Alike
) -> Iterator[Advice]:
    """Tasks that nobody has begun, that the same role would do, and that cannot run beside this one anyway."""
    after = {name.lower() for name in task.spec.after}
    unbegun = [other for other in state.tasks_alive() if _unbegun(other) and other.id != task.id]
    apart = [other for other in unbegun if other.id.lower() in after or _meet(task, other)]
    takers = {other.id: route(facts, policies, other)[0] for other in apart}
    found = [other for other in apart if role is not None and takers[other.id] == role]
    if found:
        why = [f"comes after {other.id}" for other in found if other.id.lower() in after]
        why += [f"touches the same paths as {other.id}" for other in found if other.id.lower() not in after]
        says = (
            f"it {_listed(why)}, so they run one after the other in any case, and each reads the repository in a "
            f"session of its own; one agent with all the prompts in one task would read it once{_once(task, known)}"
        )
        yield Advice(rule="join", tasks=tuple(other.id for other in found), says=says)


def _meet(one: Task, other: Task) -> bool:
    return overlap(one.spec.paths, other.spec.paths)


def _unbegun(task: Task) -> bool:
    return task.status in (Status.QUEUED, Status.HELD) and not task.runs


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - LISTED_MAX} more" if len(texts) > LISTED_MAX else ""
    return ", ".join(texts[:LISTED_MAX]) + more


def _once(task: Task, known: Alike) -> str:
    """What else would be done once, with what the log has about it."""
    if task.spec.kind.read_only:
        return ""
    said, told = ", and be checked and landed once", _telling(known)
    if not told:
        return said
    review, checks = spread(bill.review_usd for bill in told), spread(bill.checks_seconds for bill in told)
    figures = f"review {_usd(review, told)}, all checks and the landing {checks.median:.0f} s"
    return f"{said} (median of {len(told)} {_named(known)}: {figures})"


def _overhead(task: Task, known: Alike) -> Iterator[Advice]:
    """Whether what surrounds the work was more than the work, in most of the tasks like it."""
    told = _telling(known)
    if task.spec.kind.read_only or not told:
        return
    dear = sum(bill.review_usd > bill.work_usd for bill in told)
    slow = sum(bill.checks_seconds > bill.work_seconds for bill in told)
    among = f"of {len(told)} {_named(known)}"
    if 2 * dear > len(told):
        says = f"in {dear} {among} the review cost more than the work; {_FEWER}"
        yield Advice(rule="review_costs_more", tasks=(), says=says)
    if 2 * slow > len(told):
        says = f"in {slow} {among} review, gates and landing took longer than the work; {_FEWER}"
        yield Advice(rule="checks_take_longer", tasks=(), says=says)


def _telling(known: Alike) -> Sequence[Bill]:
    """What was learned, if it is from enough tasks that are alike at all."""
    return known.bills if known.by != "all" and len(known.bills) >= ENOUGH else ()


def _named(known: Alike) -> str:
    return f"tasks of {known.by} {known.name}"


def _usd(spent: Spread, bills: Sequence[Bill]) -> str:
    return f"{'about ' if any(bill.estimated for bill in bills) else ''}{spent.median:.4f} USD"
