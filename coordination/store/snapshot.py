"""Which saved states can a fold start from? Snapshots only save time: any of them may vanish or rot.

One file each, ``<projection>-<version>-<seq>.json``. What is not whole, of another log, of another version or newer
than what is durable is passed over, and the log is folded from an earlier snapshot or from the beginning.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.model.events import canonical

_NAME = re.compile(r"([a-z_]+)-([0-9]+)-([0-9]+)\.json")
_KEPT = 2


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A projection's dumped state after batch ``seq`` of one log."""

    projection: str
    version: int
    seq: int
    log: str
    state: Any


class _Written(Snapshot, frozen=True, kw_only=True):
    digest: str  # of the state, to compare with what others hold
    sum: str  # of everything above


class SnapshotDirectory:
    """The snapshots of all projections of one log."""

    def __init__(self, directory: Path, *, env: Env = REAL) -> None:
        self._directory = directory
        self._env = env

    def save(self, snapshot: Snapshot) -> None:
        """Publish it, then keep only the two newest of its projection and version. Raises OSError."""
        files.make_directory(self._directory, env=self._env)
        value = msgspec.structs.asdict(snapshot) | {"digest": digest(snapshot.state)}
        path = self._path(snapshot.projection, snapshot.version, snapshot.seq)
        files.publish_json(path, value | {"sum": digest(value)}, env=self._env)
        for seq in self._saved(snapshot.projection, snapshot.version)[_KEPT:]:
            files.discard(self._path(snapshot.projection, snapshot.version, seq), env=self._env)

    def newest(self, projection: str, version: int, *, log: str, seq_max: int) -> Snapshot | None:
        """The newest whole snapshot of this log at or below ``seq_max``."""
        for seq in self._saved(projection, version):
            found = self.read(projection, version, seq) if seq <= seq_max else None
            if found is not None and found.log == log:
                return found
        return None

    def names(self) -> list[tuple[str, str, int, int]]:
        """All files that are named like a snapshot, with what the name says: projection, version, sequence number."""
        try:
            names = self._env.list_directory(self._directory)
        except FileNotFoundError:
            return []
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        return [(match[0], match[1], int(match[2]), int(match[3])) for match in matches]

    def _saved(self, projection: str, version: int) -> list[int]:
        """Sequence numbers, newest first."""
        return sorted((seq for _, name, of, seq in self.names() if (name, of) == (projection, version)), reverse=True)

    def read(self, projection: str, version: int, seq: int) -> Snapshot | None:
        """The snapshot with that name; None when it is not there or not whole."""
        try:
            value = files.read_json(self._path(projection, version, seq), env=self._env)
            written = msgspec.convert(value, _Written)
        except (OSError, ValueError, msgspec.ValidationError):
            return None
        del value["sum"]
        named = (written.projection, written.version, written.seq) == (projection, version, seq)
        return written if named and written.sum == digest(value) else None

    def _path(self, projection: str, version: int, seq: int) -> Path:
        return self._directory / f"{projection}-{version}-{seq}.json"


def digest(dump: Any) -> str:
    """SHA-256 of the canonical JSON: equal dumps, and only those, give equal digests."""
    return hashlib.sha256(canonical(dump)).hexdigest()
