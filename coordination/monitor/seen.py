"""What was found when the monitor looked last? One value, from which every frame is drawn. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coordination import views
from coordination.model.events import Record
from coordination.model.facts import Facts
from coordination.model.runs import Purpose
from coordination.model.state import Run, State, Task
from coordination.model.tasks import Status
from coordination.model.waiting import looks_held, order_key
from coordination.policy import Policies
from coordination.views import Row

ASKING = frozenset({Status.WAITING_FOR_PERSON, Status.WAITING_FOR_ANSWER})
_WITH_AN_AGENT = (Purpose.WORK, Purpose.REVIEW)
_COLOURS = ("blue", "green", "red")
_NUMBER_MAX = 10**15


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What a run does now, as its worker says; ``alive`` is None where nobody looked."""

    phase: str = ""
    tool: str = ""
    file: str = ""
    tokens: int = 0
    cost_usd: float = 0.0
    at: float = 0.0
    alive: bool | None = None
    finished: bool = False  # it left an outcome, which a supervisor has to take in


NOTHING = Live()


def live_of(progress: Any, *, alive: bool | None = None) -> Live:
    """What stands in a ``progress.json``; what is not of the form that we write says nothing."""
    said: Mapping[str, Any] = progress if isinstance(progress, dict) else {}
    return Live(
        phase=_text(said.get("phase")),
        tool=_text(said.get("tool")),
        file=_text(said.get("file")),
        tokens=int(_number(said.get("tokens_output"))),
        cost_usd=_number(said.get("cost_usd")),
        at=_number(said.get("at")),
        alive=alive,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float:
    bounded = min(max(value, 0), _NUMBER_MAX) if isinstance(value, int | float) else 0
    return 0.0 if math.isnan(bounded) else float(bounded)


class Lists:
    """Who stands where, at one state; each list is made when it is first asked for."""

    def __init__(self, state: State, facts: Facts, before: Lists | None = None) -> None:
        """``before`` is of an earlier state: what it knows of tasks that does not change is not found out again."""
        self._state, self._facts = state, facts
        self._keys: dict[str, tuple[float, int, int]] = {} if before is None else before._keys  # noqa: SLF001 - of its own kind

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many tasks stand in each state, as they are shown."""
        counts = Counter(task.status.value for task in self._state.tasks.values())
        held = sum(1 for task in self._open if task.spec.after and looks_held(self._state, task))
        return counts + Counter({Status.HELD.value: held}) - Counter({Status.QUEUED.value: held}) if held else counts

    @cached_property
    def needs(self) -> Sequence[Task]:
        """Tasks that wait for a person, the longest wait first."""
        return sorted((task for task in self._open if task.status in ASKING), key=lambda task: task.changed_at)

    @cached_property
    def runs(self) -> Sequence[Run]:
        """Live runs but landings: Blue, Green and Red, other roles, gates."""
        found = [run for run in self._state.live_runs() if run.purpose is not Purpose.LANDING]
        return sorted(found, key=_rank)

    @cached_property
    def queue(self) -> Sequence[Task]:
        """What waits: to be judged, then in the order in which it starts, then what a person holds."""
        idle = [task for task in self._open if task.status in (Status.RUNNING, Status.REVIEWING) and not task.live]
        held = [task for task in self._open if task.status is Status.HELD]
        return [*idle, *self._in_order(), *held]

    def _in_order(self) -> Sequence[Task]:
        """As ``waiting.in_order`` gives them one by one; all of them are wanted, and their keys never change."""
        tasks, keys = self._state.tasks, self._keys
        names = [name for line in self._state.queued.values() for name in line]
        for name in names:
            if name not in keys:
                keys[name] = order_key(self._facts, tasks[name])
        return [tasks[name] for name in sorted(names, key=keys.__getitem__)]

    @cached_property
    def landing(self) -> Sequence[Task]:
        """Approved tasks: the one that lands, then those that wait for their turn."""
        found = [task for task in self._open if task.status is Status.APPROVED]
        return sorted(found, key=lambda task: (not task.live, task.changed_at))

    @cached_property
    def everything(self) -> Sequence[Task]:
        """All tasks, as ``coord tasks`` lists them."""
        return views.ordered(self._state, self._facts)

    @cached_property
    def _open(self) -> Sequence[Task]:
        return [self._state.tasks[name] for name in self._state.open]


def _rank(run: Run) -> tuple[int, str, int]:
    with_agent = run.purpose in _WITH_AN_AGENT
    place = _COLOURS.index(run.role) if run.role in _COLOURS else len(_COLOURS)
    return (place if with_agent else len(_COLOURS) + 1, run.role or run.gate, run.token)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """All of it. What ``lives`` has of a run is looked up when the run is drawn, so what is not drawn costs nothing."""

    repository: str
    now: float  # seconds since the epoch
    seq: int  # the last batch that is in it; only what is durable is shown
    state: State
    facts: Facts
    policies: Policies
    lists: Lists
    supervisor: Row
    lives: Mapping[str, Live]
    recent: Sequence[Record]  # the newest events, oldest first
    pending: int = 0  # task files that are not judged yet
    rejected: int = 0
    warnings: Sequence[str] = ()  # that only files can tell
    unproven: int = 0  # newer batches that are not known to be on the disk
    trouble: str = ""  # why nothing newer can be shown, and what to run
