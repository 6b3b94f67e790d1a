"""Which snapshots are not what the log says? They only save time, so a wrong one is worse than none.

Nothing is deleted: a suspect is moved into ``.quarantine`` beside the others, where nobody looks for a state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from coordination import files
from coordination.env import Env
from coordination.model.events import decode
from coordination.model.projection import Projection
from coordination.store.snapshot import Snapshot, SnapshotDirectory

S = TypeVar("S")
QUARANTINE = ".quarantine"


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot that must not be used, and why."""

    path: Path
    seq: int
    what: str


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot file; ``snapshot`` is None when it is not whole."""

    path: Path
    seq: int
    snapshot: Snapshot | None


def kept(directory: Path, *, env: Env) -> list[Kept]:
    """All snapshots of all projections and versions, in the order of their names."""
    snapshots = SnapshotDirectory(directory, env=env)
    return [
        Kept(path=directory / name, seq=seq, snapshot=snapshots.read(projection, version, seq))
        for name, projection, version, seq in snapshots.names()
    ]


def covered(found: Iterable[Kept]) -> Mapping[str, int]:
    """By uuid of the log, the highest batch that a whole snapshot includes."""
    highest: dict[str, int] = {}
    for entry in found:
        if entry.snapshot is not None:
            highest[entry.snapshot.log] = max(entry.seq, highest.get(entry.snapshot.log, 0))
    return highest


def check(
    found: Iterable[Kept],
    projection: Projection[S],
    batches: Callable[[int], Iterable[tuple[int, bytes]]],
    *,
    base: int,
    log: str,
) -> list[Suspect]:
    """Those that are not whole, and those of this log and projection whose state is not the fold of the batches.

    ``batches`` gives the log after a number. Where it begins after batch ``base``, the earliest whole snapshot from
    there on is where the fold starts, and is believed.
    """
    broken = [Suspect(path=e.path, seq=e.seq, what="it is not whole") for e in found if e.snapshot is None]
    ours = sorted((e for e in found if _compared(e.snapshot, projection, log)), key=lambda entry: entry.seq)
    start = next((entry for entry in ours if entry.seq >= base > 0), None)
    folded = projection.initial() if start is None else _loaded(projection, start)
    after = 0 if start is None else start.seq
    wanted = {entry.seq: entry for entry in ours if entry.seq > after}
    for seq, payload in batches(after) if wanted else ():
        for record in decode(seq, payload):
            folded = projection.fold(folded, record)
        entry = wanted.pop(seq, None)
        if entry is not None and (entry.snapshot is None or entry.snapshot.state != projection.dump(folded)):
            what = f"its state is not what the log says of batch {seq}"
            broken.append(Suspect(path=entry.path, seq=seq, what=what))
        if not wanted:
            break
    beyond = [Suspect(path=e.path, seq=e.seq, what="the log does not reach it") for e in wanted.values()]
    return sorted([*broken, *beyond], key=lambda suspect: suspect.path)


def move_aside(suspects: Iterable[Suspect], *, env: Env) -> list[Path]:
    """Put them where they are not found; where each is now. Raises OSError."""
    moved = []
    for suspect in suspects:
        directory = suspect.path.parent / QUARANTINE
        files.make_directory(directory, env=env)
        target = directory / f"{suspect.path.stem}.{env.random_hex(4)}.json"  # never over an earlier one
        env.rename(suspect.path, target)
        env.sync_directory(directory)
        env.sync_directory(suspect.path.parent)
        moved.append(target)
    return moved


def _compared(snapshot: Snapshot | None, projection: Projection[Any], log: str) -> bool:
    if snapshot is None:
        return False
    named = (snapshot.projection, snapshot.version, snapshot.log)
    return named == (projection.name, projection.version, log)


def _loaded(projection: Projection[S], entry: Kept) -> S:
    assert entry.snapshot is not None
    return projection.load(entry.snapshot.state)
