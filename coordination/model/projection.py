"""What is a fold of the facts that can be saved and taken up again?"""

from __future__ import annotations

from typing import Protocol, TypeVar

from coordination.model.events import Record

S = TypeVar("S")


class Projection(Protocol[S]):
    """Folds records, in their order, into a state. Pure: the same records give the same state, everywhere."""

    @property
    def name(self) -> str:
        """Of the form ``[a-z_]+``; snapshots are named after it."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same records would give another state or dump; older snapshots are then ignored."""
        ...

    def initial(self) -> S:
        """The state before the first record."""
        ...

    def fold(self, state: S, record: Record) -> S:
        """The state after ``record``. Consumes ``state``: may change and return it; nobody uses the old one again."""
        ...

    def dump(self, state: S) -> bytes:
        """All of the state as JSON on one line. The same records give the same bytes, however they were folded."""
        ...

    def load(self, dump: bytes) -> S:
        """The state that was dumped: folding on from it gives what folding on from the original gives."""
        ...
