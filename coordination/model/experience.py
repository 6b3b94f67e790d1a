"""What did tasks cost, and how long did their runs take? Read from the runs that the log has, never assumed.

The log knows of a run what it cost, how many tokens and turns it used and when it began and ended. It does not know
what a run had spent before its first change, so nothing here says so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from coordination.model.runs import Purpose, Value
from coordination.model.state import Run, State, Task, total
from coordination.model.tasks import Kind, Status

ENOUGH = 3
"""Fewer tasks of a kind or a role than that say too little: then more of them are asked, even if less alike."""

NEWEST_MAX = 100
"""How many tasks are asked, the newest first: models, prices and the repository change."""

_TELLING = frozenset({Status.MERGED, Status.DONE, Status.FAILED})  # what a person cancelled was cut short


class Spread(Value, frozen=True, kw_only=True):
    """Where most of some numbers lie. Each of the three is one of the numbers."""

    low: float
    median: float
    high: float


def spread(numbers: Iterable[float]) -> Spread:
    """The median, and between which two of them the middle half lies. Raises IndexError when there are none."""
    found = sorted(numbers)
    edge = (len(found) - 1) // 4
    return Spread(low=found[edge], median=found[(len(found) - 1) // 2], high=found[-1 - edge])


class Bill(Value, frozen=True, kw_only=True):
    """What one task cost and how long its runs took, in US dollars and seconds."""

    well: bool = False  # whether it ended well
    estimated: bool = False
    model: str = ""  # that was asked to work on it last
    works: int = 0  # how often it was worked on
    usd: float = 0.0
    work_usd: float = 0.0
    review_usd: float = 0.0
    work_seconds: float = 0.0
    review_seconds: float = 0.0
    gates_seconds: float = 0.0  # gates and landing; they ask no model

    @property
    def checks_seconds(self) -> float:
        """Everything but the work."""
        return self.review_seconds + self.gates_seconds

    @property
    def seconds(self) -> float:
        """All its runs. How long the task waited in between is not in it."""
        return self.work_seconds + self.checks_seconds


def bill(task: Task) -> Bill:
    """What its runs that ended cost and took."""
    usd: defaultdict[Purpose, float] = defaultdict(float)
    seconds: defaultdict[Purpose, float] = defaultdict(float)
    works = [run for run in task.runs if run.purpose is Purpose.WORK and run.outcome is not None]
    for run in task.runs:
        if run.outcome is not None:
            usd[run.purpose] += run.outcome.usage.cost_usd
            seconds[run.purpose] += lasted(run)
    return Bill(
        well=task.status.ended_well,
        estimated=task.usage.estimated,
        model=works[-1].model if works else "",
        works=len(works),
        usd=task.usage.cost_usd,
        work_usd=usd[Purpose.WORK],
        review_usd=usd[Purpose.REVIEW],
        work_seconds=seconds[Purpose.WORK],
        review_seconds=seconds[Purpose.REVIEW],
        gates_seconds=seconds[Purpose.GATE] + seconds[Purpose.LANDING],
    )


def lasted(run: Run) -> float:
    """How long a run took that ended: by its worker's clock, else by when we heard of its begin and end."""
    told = run.outcome
    if told is not None and told.started_at and told.ended_at:
        return max(0.0, told.ended_at - told.started_at)
    return max(0.0, run.ended_at - run.started_at) if run.started_at else 0.0


class Alike(Value, frozen=True, kw_only=True):
    """Tasks that ended, and what they have in common."""

    by: str  # kind | role | all
    name: str  # of the kind or the role; writing | reading
    bills: tuple[Bill, ...] = ()  # the newest first


def alike(state: State, kind: Kind, role: str) -> Alike:
    """What is known of tasks like it: of its kind; if those are too few, of its role; else of all there are.

    What only reads is never like what writes: it is neither reviewed nor landed.
    """
    ended = (task for task in state.tasks.values() if task.status in _TELLING)
    telling = [task for task in ended if task.spec.kind.read_only == kind.read_only and _worked_on_by(task)]
    of_kind = [task for task in telling if task.spec.kind is kind]
    of_role = [task for task in telling if _worked_on_by(task) == role]
    if len(of_kind) >= ENOUGH:
        return Alike(by="kind", name=kind, bills=_bills(of_kind))
    if len(of_role) >= ENOUGH:
        return Alike(by="role", name=role, bills=_bills(of_role))
    return Alike(by="all", name="reading" if kind.read_only else "writing", bills=_bills(telling))


def _bills(tasks: Sequence[Task]) -> tuple[Bill, ...]:
    newest = sorted(tasks, key=lambda task: (-task.changed_at, -task.seq, -task.index))
    return tuple(bill(task) for task in newest[:NEWEST_MAX])


def _worked_on_by(task: Task) -> str:
    """The role that worked on it last; "" when no work on it ever ended."""
    works = (run for run in reversed(task.runs) if run.purpose is Purpose.WORK and run.outcome is not None)
    return next((run.role for run in works), "")


class Share(Value, frozen=True, kw_only=True):
    """What one role spent with one model."""

    role: str
    model: str
    runs: int
    usd: float
    estimated: bool


def shares(tasks: Iterable[Task]) -> list[Share]:
    """What these tasks cost, by role and model, the dearest first. Runs that cost nothing are left out."""
    found: defaultdict[tuple[str, str], list[Run]] = defaultdict(list)
    for task in tasks:
        for run in task.runs:
            if run.outcome is not None and run.outcome.usage.cost_usd:
                found[run.role or run.purpose, run.outcome.model or run.model].append(run)
    summed = [_share(role, model, runs) for (role, model), runs in found.items()]
    return sorted(summed, key=lambda share: (-share.usd, share.role, share.model))


def _share(role: str, model: str, runs: Sequence[Run]) -> Share:
    usage = total(run.outcome.usage for run in runs if run.outcome is not None)
    return Share(role=role, model=model, runs=len(runs), usd=usage.cost_usd, estimated=usage.estimated)
