"""From which verified position can a read start, so that it need not verify the whole segment again?"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from coordination.log.segments import Chain, Position

_STEP_BYTES = 1 << 16


class Places:
    """Positions: one every 64 KiB read, and the newest. Not shared between threads without a lock.

    A position that became void by a recovery does no harm: whatever it could be chosen for lies in the segment that
    voided it, and that segment's start is chosen before it.
    """

    def __init__(self) -> None:
        self._sparse: list[Position] = []
        self._newest: Position | None = None
        self._read: Position | None = None  # where a read ended last: the next one mostly goes on there

    def before(self, seq: int, chain: Chain) -> Position:
        """The best known position at or before ``seq``."""
        candidates = [chain.start_before(seq)]
        if at := bisect_right(self._sparse, seq, key=attrgetter("seq")):
            candidates.append(self._sparse[at - 1])
        candidates += [place for place in (self._newest, self._read) if place is not None and place.seq <= seq]
        return max(candidates, key=_order)

    def newest(self, chain: Chain) -> Position:
        """The furthest position known."""
        start = chain.last.start
        return start if self._newest is None else max(start, self._newest, key=_order)

    def passed(self, position: Position) -> None:
        """A read went by here."""
        last = self._sparse[-1] if self._sparse else None
        if (
            last is None
            or position.segment > last.segment
            or (position.segment == last.segment and position.offset >= last.offset + _STEP_BYTES)
        ):
            self._sparse.append(position)
        if self._newest is None or _order(position) > _order(self._newest):
            self._newest = position

    def ended(self, position: Position) -> None:
        """A read ended here."""
        self._read = position


def _order(position: Position) -> tuple[int, int]:
    return position.segment, position.offset
