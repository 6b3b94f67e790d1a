"""What does a task wait for, in one word? The first reason that stands in its way, so that tasks can be counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache

from msgspec.structs import replace

from coordination.model.facts import Facts
from coordination.model.state import State, Task
from coordination.model.tasks import Status
from coordination.model.waiting import holders, literal_prefix, unfinished_dependencies, unknown_dependencies
from coordination.policy import budgets, informed, shipped, weather

UNDER_WAY = "under way"
PERSON = "a person"
PAUSED = "paused"
LIMIT = "a limit of the service"
MONEY = "money"
NOBODY = "a role or login"
OTHERS = "other tasks"
PATHS = "paths that others hold"
LATER = "its next try"
SLOT = "a free slot"
LANDING = "its turn to land"

REASONS = (UNDER_WAY, SLOT, LANDING, OTHERS, PATHS, LATER, LIMIT, MONEY, NOBODY, PAUSED, PERSON)
"""In the order in which they are drawn: from what is well to what needs somebody."""


def tally(state: State, facts: Facts, at: float) -> Counter[str]:
    """How many tasks were under way, and how many waited for what, by the state of that moment."""
    counts: Counter[str] = Counter()
    for reason, tasks in grouped(state, facts, at).items():
        counts[reason] = len(tasks)
    return counts


def grouped(state: State, facts: Facts, at: float) -> dict[str, list[Task]]:
    """Every task that has not ended, under what it waits for first; in the order of submission."""
    seen = informed(state, replace(facts, now=at))
    holding, known = Held(holders(state).values()), dict[tuple[object, ...], str]()
    found: dict[str, list[Task]] = {}
    for task in state.tasks_alive():
        if task.status.ended and not task.live:
            continue
        found.setdefault(_reason(state, seen, task, holding, known), []).append(task)
    return found


def _reason(state: State, seen: Facts, task: Task, holding: Held, known: dict[tuple[object, ...], str]) -> str:
    if task.lands_with or (task.runs and task.live):
        return UNDER_WAY
    if task.status in (Status.WAITING_FOR_PERSON, Status.WAITING_FOR_ANSWER):
        return PERSON
    if state.paused or task.paused:
        return PAUSED
    if task.status is Status.APPROVED:
        return LANDING
    if task.status in (Status.RUNNING, Status.REVIEWING):
        return SLOT
    return _hindrance(state, seen, task, holding) or _held(seen, task, known) or SLOT


def _hindrance(state: State, seen: Facts, task: Task, holding: Held) -> str:
    spec = task.spec
    if spec.after and (unknown_dependencies(state, task) or unfinished_dependencies(state, task)):
        return OTHERS
    if seen.now < task.not_before <= seen.now + seen.settings.retry.backoff_max_seconds:
        return LATER
    return PATHS if spec.paths and holding.stops(task) else ""


def _held(seen: Facts, task: Task, known: dict[tuple[object, ...], str]) -> str:
    """What policies say; the same for all that are alike in priority, role and kind."""
    alike = (task.spec.priority, task.spec.role, task.spec.kind)
    if alike not in known:
        known[alike] = _policy(seen, task)
    return known[alike]


def _policy(seen: Facts, task: Task) -> str:
    if weather.policy.admit(seen.memories["weather"], seen, task) is not None:
        return LIMIT
    if budgets.policy.admit(seen.memories["budgets"], seen, task) is not None:
        return MONEY
    return NOBODY if shipped().holds(seen, task) else ""


_prefix = lru_cache(maxsize=32_768)(literal_prefix)  # the same paths are asked for at every moment


class Held:
    """The paths that tasks hold, so that ten thousand others can be asked whether theirs overlap them."""

    def __init__(self, holding: Iterable[Task]) -> None:
        self._by: defaultdict[str, set[str]] = defaultdict(set)
        for task in holding:
            for path in task.spec.paths:
                self._by[_prefix(path)].add(task.id)
        self._lengths = sorted({len(prefix) for prefix in self._by})
        self._sorted = sorted(self._by)

    def stops(self, task: Task) -> bool:
        """Whether another task holds what this one wants: ``waiting.overlap`` with any of them."""
        return any(self._held(_prefix(path), task.id) for path in task.spec.paths)

    def _held(self, wanted: str, by: str) -> bool:
        if any(self._others(wanted[:length], by) for length in self._lengths if length <= len(wanted)):
            return True
        at = bisect_left(self._sorted, wanted)
        while at < len(self._sorted) and self._sorted[at].startswith(wanted):
            if self._others(self._sorted[at], by):
                return True
            at += 1
        return False

    def _others(self, prefix: str, by: str) -> bool:
        names = self._by.get(prefix)
        return names is not None and (len(names) > 1 or by not in names)
