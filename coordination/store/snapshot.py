r"""Which saved states can a fold start from? Snapshots only save time: any of them may vanish or rot.

One file each, ``<projection>-<version>-<seq>.json``, one JSON object on one line::

    {"format":"coordination-snapshot-1","projection":…,"version":…,"seq":…,"log":…,"digest":…,"sum":…,"state":…}\n
    `------------------------------------- checksummed by "sum" -------------------------------'

``digest`` is the SHA-256 of the state's bytes as they stand there, so reading them once both verifies the state and
says what it is. What is not whole, of another log, of another version or newer than what is durable is passed over,
and the log is folded from an earlier snapshot or from the beginning.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import LogDamaged
from coordination.log import Log
from coordination.model.projection import Projection

S = TypeVar("S")

_NAME = re.compile(r"([a-z_]+)-([0-9]+)-([0-9]+)\.json")
_HEADER = re.compile(rb'(\{[^{}]*?),"sum":"([0-9a-f]{8})","state":')
_END = b"}\n"
_KEPT = 2


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A projection's dumped state after batch ``seq`` of one log."""

    projection: str
    version: int
    seq: int
    log: str
    state: bytes


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    format: Literal["coordination-snapshot-1"] = "coordination-snapshot-1"
    projection: str
    version: int
    seq: int
    log: str
    digest: str


class Start(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A state to fold on from, and the batch that it includes last."""

    state: S
    seq: int


def start(
    log: Log, projection: Projection[S], snapshots: SnapshotDirectory | None, *, seq_max: int, oldest: bool = False
) -> Start[S] | None:
    """Where a fold may start: the newest (or oldest) snapshot at or below ``seq_max`` that loads, else batch 1.

    None when the oldest part of the log was taken away and no such snapshot stands for it.
    """
    name, version, seqs = projection.name, projection.version, range(log.base, seq_max + 1)
    found = () if snapshots is None else snapshots.whole(name, version, log=log.uuid, seqs=seqs, oldest=oldest)
    for saved in found:
        try:
            return Start(state=projection.load(saved.state), seq=saved.seq)
        except (LookupError, TypeError, ValueError, msgspec.MsgspecError):
            continue  # disposable: whatever is wrong with it, the log has it all
    return Start(state=projection.initial(), seq=0) if log.base == 0 else None


def uncovered(log: Log, snapshots: SnapshotDirectory | None) -> LogDamaged:
    """The error for a log whose oldest part was taken away without a snapshot that stands for it."""
    where = "" if snapshots is None else str(snapshots.path)
    message = (
        f"batches 1 to {log.base} were taken away from the log, and no whole snapshot {'in ' * bool(where)}{where} "
    )
    message += "stands for them: put the older segments, or the snapshot, back from where they were moved to"
    return LogDamaged(message, path=where, seq=log.base)


class SnapshotDirectory:
    """The snapshots of all projections of one log."""

    def __init__(self, directory: Path, *, env: Env = REAL) -> None:
        self._directory = directory
        self._env = env

    @property
    def path(self) -> Path:
        """Where they are; the directory need not exist."""
        return self._directory

    def save(self, snapshot: Snapshot) -> None:
        """Publish it, durable on return; of the older ones of its projection and version keep one. Raises OSError."""
        files.ensure_directory(self._directory, env=self._env)
        name, version = snapshot.projection, snapshot.version
        files.publish(self._path(name, version, snapshot.seq), encode(snapshot), env=self._env)
        # one with a higher number is somebody's later state, or of another log: neither says that this one is old
        for seq in [seq for seq in self._saved(name, version) if seq <= snapshot.seq][_KEPT:]:
            files.discard(self._path(name, version, seq), env=self._env)

    def newest(self, projection: str, version: int, *, log: str, seq_max: int) -> Snapshot | None:
        """The newest whole snapshot of this log at or below ``seq_max``."""
        return next(self.whole(projection, version, log=log, seqs=range(seq_max + 1)), None)

    def whole(
        self, projection: str, version: int, *, log: str, seqs: range, oldest: bool = False
    ) -> Iterator[Snapshot]:
        """The whole snapshots of this log at these batches, newest (or oldest) first; each is read when asked for."""
        for seq in sorted(self._saved(projection, version), reverse=not oldest):
            found = self.read(projection, version, seq) if seq in seqs else None
            if found is not None and found.log == log:
                yield found

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
            found = read(self._path(projection, version, seq), env=self._env)
        except (OSError, ValueError):
            return None
        named = (found.projection, found.version, found.seq) == (projection, version, seq)
        return found if named else None

    def _path(self, projection: str, version: int, seq: int) -> Path:
        return self._directory / f"{projection}-{version}-{seq}.json"


def read(path: Path, *, env: Env = REAL) -> Snapshot:
    """The snapshot in a file. Raises OSError, and ValueError when it is not one of this format, or not whole."""
    return decode(files.read(path, env=env))


def encode(snapshot: Snapshot) -> bytes:
    """The bytes of a snapshot's file."""
    header = _Header(
        projection=snapshot.projection,
        version=snapshot.version,
        seq=snapshot.seq,
        log=snapshot.log,
        digest=digest(snapshot.state),
    )
    head = msgspec.json.encode(header)[:-1]
    return b'%b,"sum":"%08x","state":%b%b' % (head, zlib.crc32(head), snapshot.state, _END)


def decode(data: bytes) -> Snapshot:
    """The snapshot that was encoded so. Raises ValueError, saying what is wrong."""
    match = _HEADER.match(data)
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        raise ValueError("expected the header of a snapshot with a valid checksum")
    try:
        header = msgspec.json.decode(match[1] + b"}", type=_Header)
    except msgspec.DecodeError as error:
        raise ValueError(f"the header is of another format: {error}") from error
    state = data[match.end() : -len(_END)]
    if not data.endswith(_END) or digest(state) != header.digest:
        raise ValueError("its state is not the one it was saved with")
    return Snapshot(projection=header.projection, version=header.version, seq=header.seq, log=header.log, state=state)


def digest(dump: bytes) -> str:
    """SHA-256 of a dumped state: equal dumps, and only those, give equal digests."""
    return hashlib.sha256(dump).hexdigest()
