"""Why a task is not running: computed from state and facts, shown everywhere, never logged."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from coordination.model.facts import Facts
from coordination.model.runs import Purpose
from coordination.model.state import State, Task
from coordination.model.tasks import Status


def unknown_dependencies(state: State, task: Task) -> list[str]:
    """Ids in ``after`` that nobody has submitted yet."""
    return [after for after in task.spec.after if state.get(after) is None]


def unfinished_dependencies(state: State, task: Task) -> list[Task]:
    """Tasks it waits for that have not ended well."""
    found = (state.get(after) for after in task.spec.after)
    return [dependency for dependency in found if dependency is not None and not dependency.status.ended_well]


def literal_prefix(glob: str) -> str:
    """The part of a glob before its first wildcard; of a glob without one, all of it and a closing slash."""
    ends = [at for at in (glob.find(sign) for sign in "*?[") if at >= 0]
    parts = (glob[: min(ends)] if ends else f"{glob}/").split("/")
    # "./src//a" is "src/a"; what stands after the last slash is kept, because a wildcard may continue it.
    return "".join(f"{part}/" for part in parts[:-1] if part not in ("", ".")) + parts[-1]


def overlap(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether literal prefixes nest. An empty list overlaps nothing."""
    return any(_nested(literal_prefix(a), literal_prefix(b)) for a in left for b in right)


def _nested(a: str, b: str) -> bool:
    # "src/a/" holds "src/a/x/" but not "src/ab/"; a prefix cut by a wildcard ("src/a") may continue anywhere.
    return a.startswith(b) or b.startswith(a)


def holders(state: State) -> dict[str, Task]:
    """Tasks that hold their paths: from the first run until merged or ended, and no run of them lives.

    One that a person brings back from its end holds nothing before it runs again: others took the paths meanwhile, and
    two that hold the same would wait for each other for ever.
    """
    return {task: state.tasks[task] for task in state.holding}


def order_key(facts: Facts, task: Task) -> tuple[float, int, int]:
    """Static key: smaller starts first. Ageing is linear, so the order of two tasks never changes.

    With rate r points a minute, priority p at time s equals priority 0 submitted 60·p/r seconds earlier.
    """
    rate = facts.settings.priority.ageing_per_minute
    if rate <= 0:
        return (-float(task.spec.priority), task.seq, task.index)
    return (task.submitted_at - 60.0 * task.spec.priority / rate, task.seq, task.index)


def in_order(state: State, facts: Facts, wanted: Callable[[Task], bool]) -> Iterator[Task]:
    """The queue, one after the other as they are asked for.

    It stands in lines of tasks that are alike in priority, role and kind, and each line is in order: so only the heads
    are compared, and whether a line is ``wanted`` at all is asked for its head.
    """
    heads = [(line, state.tasks[line[0]]) for line in state.queued.values()]
    lines = [(order_key(facts, task), 0, line) for line, task in heads if wanted(task)]
    heapq.heapify(lines)
    while lines:
        _, at, line = lines[0]
        yield state.tasks[line[at]]
        if at + 1 < len(line):
            heapq.heapreplace(lines, (order_key(facts, state.tasks[line[at + 1]]), at + 1, line))
        else:
            heapq.heappop(lines)


def live_by_role(state: State) -> Counter[str]:
    """Runs without an outcome, by role; gates count under ``gate``, landings under ``landing``."""
    lives: Counter[str] = Counter()
    for task in state.busy:
        for run in state.tasks[task].live:
            lives[run.role or str(run.purpose)] += 1
    return lives


def hindrances(state: State, facts: Facts, task: Task, holding: Iterable[Task] | None = None) -> list[str]:
    """Why a queued task may not start now, one plain sentence each; empty when only a slot is missing or nothing."""
    reasons = []
    if state.paused:
        reasons.append("everything is paused; `coord resume` goes on")
    if task.status is Status.HELD:
        reasons.append(f"paused by a person; `coord resume {task.id}` releases it")
    if facts.astray and not facts.integration and (not task.base or task.other_side or _tried_to_land(task)):
        reasons.append(facts.astray)  # it would start from that branch, or take it in
    reasons += [f"waits for {unknown!r}, which nobody has submitted" for unknown in unknown_dependencies(state, task)]
    reasons += [f"waits for {other.id} ({other.status})" for other in unfinished_dependencies(state, task)]
    # Nobody is told to wait for longer than the longest delay: what lies beyond was said by a clock that went back.
    if facts.now < task.not_before <= facts.now + facts.settings.retry.backoff_max_seconds:
        moment = datetime.fromtimestamp(task.not_before, UTC).strftime("%H:%M:%SZ")
        reasons.append(f"tried again at {moment}")
    if task.spec.paths:
        others = holders(state).values() if holding is None else holding
        for other in others:
            if other.id != task.id and overlap(task.spec.paths, other.spec.paths):
                reasons.append(f"its paths overlap those of {other.id}, which holds them")
    return reasons


def _tried_to_land(task: Task) -> bool:
    return any(run.purpose is Purpose.LANDING for run in task.runs)


def looks_held(state: State, task: Task) -> bool:
    """Whether a queued task is to be shown as held: an unknown dependency never counts as satisfied."""
    return task.status is Status.QUEUED and bool(unknown_dependencies(state, task))


def live_landing(state: State) -> bool:
    """Whether a landing is under way: there is never more than one."""
    return any(run.purpose is Purpose.LANDING for task in state.busy for run in state.tasks[task].live)
