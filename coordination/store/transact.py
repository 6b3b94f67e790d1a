"""How is something decided on fresh facts and written down before the facts change? The one write path for everybody.

``transact`` brings the state to the log's head, asks a pure function, and appends what it answers if the head is still
there; if not, it asks again. Any number of processes may do so at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from coordination.errors import Conflict
from coordination.log import Log
from coordination.model.events import AnyEvent, Record, decode, encode
from coordination.model.projection import Projection
from coordination.store.snapshot import Snapshot, SnapshotDirectory, digest, start, uncovered

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction(Generic[S]):
    """What was decided and is durable now; ``seq`` is None when nothing had to be appended."""

    state: S
    seq: int | None
    events: tuple[AnyEvent, ...]


class _Folded(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    state: S
    seq: int
    epoch: int  # of the log when it was read; in another one the batches above the watermark may be others


class Store(Generic[S]):
    """A projection that keeps up with a log. For one thread; any number of stores may share a log."""

    def __init__(
        self, log: Log, projection: Projection[S], snapshots: SnapshotDirectory | None, now: Callable[[], float]
    ) -> None:
        self._log = log
        self._projection = projection
        self._snapshots = snapshots
        self._now = now
        self._folded: _Folded[S] | None = None
        self._snapshot_seq = 0

    @property
    def log(self) -> Log:
        """The log underneath, for reading."""
        return self._log

    @property
    def state(self) -> S:
        """The state as last brought up to date; it may be ahead of ``durable``."""
        return self._current().state

    @property
    def seq(self) -> int:
        """The batch that ``state`` includes last."""
        return self._current().seq

    @property
    def durable(self) -> int:
        """The highest batch known to survive a power cut. Effects must not run ahead of it."""
        return self._log.durable

    def refresh(self) -> S:
        """Bring the state to the log's head. Raises LogDamaged."""
        return self._refreshed().state

    def refresh_seq(self) -> int:
        """Bring the state to the log's head; the batch that it includes last then."""
        return self._refreshed().seq

    def transact(self, decide: Callable[[S], Sequence[AnyEvent]]) -> Transaction[S]:
        """Append what ``decide`` answers to the state at the head, and return when that is durable.

        ``decide`` is pure and quick, and may be asked several times; what it raises comes through. It is asked first
        while others may write; if one did, it is asked again in our turn, so nobody is overtaken twice. With no
        events, returns when the facts it decided on are durable. Raises OutcomeUnknown (refresh to learn what became
        of it), LogDamaged.
        """
        while True:
            folded = self._refreshed()
            events = tuple(decide(folded.state))
            if events:
                transaction = self._append(folded, events, decide)
                if transaction is not None:
                    return transaction
            elif self._is_durable(folded):
                return Transaction(state=folded.state, seq=None, events=())

    def follow(self, after: int, *, patience_seconds: float = 0.0) -> Iterator[Record]:
        """The durable records after batch ``after``, and those that come; ends when none came for that long."""
        more = True
        while more:
            for seq, payload in self._log.read(after, upto="durable"):
                yield from decode(seq, payload)
                after = seq
            more = self._log.wait(after, patience_seconds)

    def digest(self) -> str:
        """Of the state as it is held now: a fold of the same batches anywhere else must give the same."""
        return digest(self._projection.dump(self._current().state))

    @property
    def snapshot_seq(self) -> int:
        """The batch that the snapshot we started from or saved last includes last; 0 when there is none."""
        self._current()
        return self._snapshot_seq

    def snapshot(self) -> int:
        """Save the state, once everything in it is durable; the batch it includes last. Raises OSError, LogDamaged."""
        folded = self._refreshed()
        while not self._is_durable(folded):
            folded = self._refreshed()
        if self._snapshots is not None:
            self._snapshots.save(
                Snapshot(
                    projection=self._projection.name,
                    version=self._projection.version,
                    seq=folded.seq,
                    log=self._log.uuid,
                    state=self._projection.dump(folded.state),
                )
            )
            self._snapshot_seq = folded.seq
        return folded.seq

    def _current(self) -> _Folded[S]:
        return self._refreshed() if self._folded is None else self._folded

    def _refreshed(self) -> _Folded[S]:
        while True:
            base = self._folded or self._base()
            batches = self._log.read(base.seq, upto="head")
            if base.epoch == self._log.epoch:
                return self._fold(base, batches)
            self._folded = None  # the log was recovered: what we folded above the watermark may be void

    def _base(self) -> _Folded[S]:
        """Where folding starts: a snapshot of durable facts, or nothing. Raises LogDamaged."""
        epoch = self._log.epoch
        found = start(self._log, self._projection, self._snapshots, seq_max=self._log.durable)
        if found is None:
            raise uncovered(self._log, self._snapshots)
        self._snapshot_seq = found.seq
        return _Folded(state=found.state, seq=found.seq, epoch=epoch)

    def _fold(self, base: _Folded[S], batches: Iterable[tuple[int, bytes]]) -> _Folded[S]:
        self._folded = None  # folding consumes the state: whoever breaks off in the middle leaves none behind
        state, last, fold = base.state, base.seq, self._projection.fold
        for seq, payload in batches:
            for record in decode(seq, payload):
                state = fold(state, record)
            last = seq
        self._folded = _Folded(state=state, seq=last, epoch=base.epoch)
        return self._folded

    def _append(
        self, folded: _Folded[S], events: tuple[AnyEvent, ...], decide: Callable[[S], Sequence[AnyEvent]]
    ) -> Transaction[S] | None:
        """Append and fold; None when all must be decided anew. Our own batch is folded as everybody will read it."""
        epoch, payload = folded.epoch, encode(events, self._now())

        def again() -> bytes:
            nonlocal folded, events, payload
            folded = self._refreshed()
            events = tuple(decide(folded.state))
            if not events or folded.epoch != epoch:  # what was recovered is folded, from the start, in nobody's turn
                raise Conflict("nothing to append", head=folded.seq)
            payload = encode(events, self._now())
            return payload

        try:
            seq = self._log.append(payload, after=folded.seq, again=again)
        except Conflict:
            return None
        return Transaction(state=self._fold(folded, [(seq, payload)]).state, seq=seq, events=events)

    def _is_durable(self, folded: _Folded[S]) -> bool:
        """Whether what was decided on survives a power cut; when unknown, make it so and let it be decided again."""
        if self._log.durable < folded.seq:
            self._log.settle()
            return False
        self._log.read(folded.seq, upto="head")
        return self._log.epoch == folded.epoch
