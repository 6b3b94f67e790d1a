"""What becomes of a decision that a person took at the monitor? The same use case as the command of that name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import msgspec

from coordination import views
from coordination.coordinator import Coordinator
from coordination.errors import Refused
from coordination.model import commands
from coordination.model.events import AnyEvent, name
from coordination.model.state import State
from coordination.monitor.place import Verb, Wish


class Decisions:
    """Records them, one after the other. For one thread, which is not the one that draws: a log may keep us waiting."""

    def __init__(self, writing: Callable[[], Coordinator]) -> None:
        self._writing = writing

    @cached_property
    def _coordinator(self) -> Coordinator:
        return self._writing()

    def record(self, wish: Wish) -> str:
        """Record it; what was recorded, in sentences. Raises Refused, NotFound, and what ``transact`` raises."""
        transaction = self._coordinator.store.transact(lambda state: events_of(state, wish))
        said = [views.narrated(name(event), msgspec.to_builtins(event)) for event in transaction.events]
        return "; ".join(said) or f"Nothing to do: {wish.task or 'everything'} is so already."


def events_of(state: State, wish: Wish) -> Sequence[AnyEvent]:
    """What a wish means in a state. Raises Refused when it is about another commit than the one that was shown."""
    _check_shown(state, wish)
    match wish.verb:
        case Verb.APPROVE:
            return commands.approve(state, wish.task)
        case Verb.REJECT:
            return commands.reject(state, wish.task, wish.text)
        case Verb.CANCEL:
            return commands.cancel(state, wish.task, wish.text)
        case Verb.RETRY:
            return commands.retry(state, wish.task)
        case Verb.PAUSE:
            return commands.pause(state, wish.task or None, wish.text)
        case Verb.RESUME:
            return commands.resume(state, wish.task or None)


def _check_shown(state: State, wish: Wish) -> None:
    if wish.commit is None:
        return
    task = state.find(wish.task)
    if task.commit != wish.commit:
        found = task.commit[:12] or "none"
        raise Refused(f"{task.id} has another commit now ({found}) than when you were asked; look at it again")
