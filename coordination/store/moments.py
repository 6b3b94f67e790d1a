"""What was the state at a moment of the past, by the log alone? Writes nothing and holds on to nothing."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

import msgspec

from coordination.errors import CoordinationError, NotFound
from coordination.log import Log
from coordination.model.events import decode
from coordination.model.projection import Projection
from coordination.store.snapshot import SnapshotDirectory, digest, start, uncovered

S = TypeVar("S")

Progress = Callable[[int, int], None]
"""Told now and then how far a replay is and how far the log goes."""
_STEP = 10_000


class Moment(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A state of the past. ``at`` is when its last batch was appended, None when no batch was folded."""

    state: S
    seq: int
    at: float | None
    started: int  # the snapshot that was folded on from; 0: the beginning of the log
    digests: dict[int, str]  # after the batches for which they were asked


def replay(
    log: Log,
    projection: Projection[S],
    snapshots: SnapshotDirectory,
    *,
    upto_seq: int | None = None,
    upto_time: float | None = None,
    trusting: bool = False,
    digests_at: Collection[int] = (),
    progress: Progress | None = None,
) -> Moment[S]:
    """Fold what is durable, up to and including a batch, or all before the first batch that is later than an instant.

    Folds everything there is, from the first batch on; where the oldest part of the log was taken away, from the oldest
    snapshot that stands for it. With ``trusting`` the newest snapshot that helps is believed; it does not help with an
    instant, because clocks go back. Raises NotFound when the moment lies in what was taken away, LogDamaged.
    """
    last = log.durable if upto_seq is None else min(upto_seq, log.durable)
    trusting = trusting and upto_time is None
    begun = start(log, projection, snapshots if trusting or log.base else None, seq_max=last, oldest=not trusting)
    if begun is None:
        raise _taken_away(log, projection, snapshots, last)
    state, reached, at, fold = begun.state, begun.seq, None, projection.fold
    digests = {reached: digest(projection.dump(state))} if reached in digests_at else {}
    for seq, payload in log.read(reached, upto="durable"):
        records = decode(seq, payload)
        if seq > last or (upto_time is not None and records and records[0].at > upto_time):
            break
        for record in records:
            state = fold(state, record)
        reached, at = seq, records[0].at if records else at
        if seq in digests_at:
            digests[seq] = digest(projection.dump(state))
        if progress is not None and seq % _STEP == 0:
            progress(seq, last)
    return Moment(state=state, seq=reached, at=at, started=begun.seq, digests=digests)


def _taken_away(log: Log, projection: Projection[S], snapshots: SnapshotDirectory, last: int) -> CoordinationError:
    earliest = start(log, projection, snapshots, seq_max=log.durable, oldest=True)
    if earliest is None:
        return uncovered(log, snapshots)
    message = (
        f"batch {last} lies in the part of the log that was taken away (1 to {log.base}); the earliest moment that "
    )
    return NotFound(message + f"can be shown is batch {earliest.seq}, by a snapshot")
