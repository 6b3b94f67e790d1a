"""Which tasks did a batch speak of whose bytes are damaged? A tolerant scan; what it misses, the fold meets later.

A task that is named wrongly waits for a person without need; one that is not named was in doubt without a word. So
everything counts that looks like a name in its place: the task of an event, and the task in the id of a run.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from coordination.model import events as e

_NAMED = re.compile(rb'"(?:task|run)":"([A-Za-z0-9][A-Za-z0-9_-]{0,63})(?:\.[0-9]+\.[a-z]+)?"')


def named_in(raw: bytes) -> tuple[str, ...]:
    """The ids of tasks that can be read in damaged bytes, in the order of the alphabet."""
    return tuple(sorted({found[1].decode() for found in _NAMED.finditer(raw)}))


def tasks_of(events: Sequence[e.AnyEvent]) -> tuple[str, ...]:
    """The ids of the tasks that events speak of."""
    found = {event.task for event in events if not isinstance(event, _OF_NO_TASK)}
    for event in events:
        match event:
            case e.RunPlanned(batch=batch):
                found.update(member.task for member in batch)
            case e.RunEnded(outcome=outcome):
                found.update(landed.task for landed in outcome.batch)
            case _:
                pass
    return tuple(sorted(found))


_OF_NO_TASK = (
    e.CoordinationPaused,
    e.CoordinationResumed,
    e.SupervisorStarted,
    e.SupervisorStopped,
    e.StopRequested,
    e.IntegrationCreated,
    e.IntegrationRestored,
    e.BatchLost,
)
