"""What becomes of a decision that a person took at the monitor? The same use case as the command of that name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import msgspec

from coordination import views
from coordination.coordinator import Coordinator
from coordination.model.events import name
from coordination.monitor.wishes import Wish, events_of


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
