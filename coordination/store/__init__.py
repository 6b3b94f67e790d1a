"""How do facts become state, and decisions facts? One write path, and snapshots that only save time."""

from __future__ import annotations

from coordination.store.moments import Moment, Progress, replay
from coordination.store.snapshot import Snapshot, SnapshotDirectory, digest
from coordination.store.snapshot import read as read_snapshot
from coordination.store.transact import Store, Transaction

__all__ = [
    "Moment",
    "Progress",
    "Snapshot",
    "SnapshotDirectory",
    "Store",
    "Transaction",
    "digest",
    "read_snapshot",
    "replay",
]
