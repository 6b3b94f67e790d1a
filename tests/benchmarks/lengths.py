"""What does a long log cost? Replaying it, opening it, recovering it, appending behind it.

Histories have the shape that a supervisor writes. Every measurement is made in a fresh process, from a warm page cache.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from coordination.log.file import FileLog
from coordination.model.events import CoordinationPaused, encode
from coordination.model.state import Core, State
from coordination.store import SnapshotDirectory, Store
from coordination.testing.histories import EPOCH, write_history
from tests.benchmarks.measuring import in_child

EVENTS_A_TASK = 10
_BATCH = encode([CoordinationPaused(reason="x" * 170)], EPOCH)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """A log of so many events, with its page and a snapshot of its end."""

    directory: Path
    events: int
    tasks: int
    batches: int
    bytes: int

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.directory / "log"

    @property
    def snapshots(self) -> Path:
        """The snapshots' directory."""
        return self.directory / "snapshots"


def build(directory: Path, events: int) -> History:
    """Write one below ``directory``."""
    place = directory / f"history-{events}"
    tasks = events // EVENTS_A_TASK
    write_history(place / "log", events, tasks)
    batches = in_child(lambda: _settled(place))
    size = sum(file.stat().st_size for file in (place / "log").glob("*.jsonl"))
    return History(directory=place, events=events, tasks=tasks, batches=batches, bytes=size)


def replay(history: History) -> float:
    """Events a second, from the bytes to typed state, every checksum verified."""
    seconds, tasks, batches = in_child(lambda: _replayed(history, None))
    assert (tasks, batches) == (history.tasks, history.batches)
    return history.events / seconds


def bare_loop(history: History) -> float:
    """Events a second of ``orjson.loads`` on the same lines, which are in memory already."""
    seconds, lines = in_child(lambda: _loaded_lines(history))
    assert lines >= history.batches
    return history.events / seconds


def open_with_snapshot(history: History) -> float:
    """Seconds until the state is there, when a snapshot has all of it."""
    seconds, tasks, batches = in_child(lambda: _replayed(history, SnapshotDirectory(history.snapshots)))
    assert (tasks, batches) == (history.tasks, history.batches)
    return seconds


def bare_snapshot(history: History) -> float:
    """Seconds of ``orjson.loads`` on the snapshot's bytes, which are in memory already."""
    return in_child(lambda: _loaded_snapshot(history))


def recover(history: History) -> float:
    """Seconds until a log whose page is gone can be appended to again."""
    (history.log / "page").unlink()
    return in_child(lambda: _recovered(history))


def open_and_append(history: History) -> float:
    """Seconds from nothing to the first durable batch of our own."""
    return in_child(lambda: _opened(history))


def append(history: History, seconds: float, operations_max: int) -> float:
    """Durable appends a second of one process."""
    return in_child(lambda: _appended(history, seconds, operations_max))


def _settled(place: Path) -> int:
    log = FileLog(place / "log")
    log.settle()
    return _store(log, SnapshotDirectory(place / "snapshots")).snapshot()


def _store(log: FileLog, snapshots: SnapshotDirectory | None) -> Store[State]:
    return Store(log, Core(), snapshots, time.time)


def _replayed(history: History, snapshots: SnapshotDirectory | None) -> tuple[float, int, int]:
    begun = time.perf_counter()
    store = _store(FileLog(history.log), snapshots)
    state = store.refresh()
    return time.perf_counter() - begun, len(state.tasks), store.seq


def _loaded_lines(history: History) -> tuple[float, int]:
    data = b"".join(file.read_bytes().rstrip(b"\n") + b"\n" for file in sorted(history.log.glob("*.jsonl")))
    loads, lines = orjson.loads, 0
    begun = time.perf_counter()
    for line in data.splitlines():
        loads(line)
        lines += 1
    return time.perf_counter() - begun, lines


def _loaded_snapshot(history: History) -> float:
    data = max(history.snapshots.glob("*.json")).read_bytes()
    begun = time.perf_counter()
    orjson.loads(data)
    return time.perf_counter() - begun


def _recovered(history: History) -> float:
    log = FileLog(history.log)
    begun = time.perf_counter()
    log.settle()
    return time.perf_counter() - begun


def _opened(history: History) -> float:
    begun = time.perf_counter()
    log = FileLog(history.log)
    log.append(_BATCH, after=0, again=lambda: _BATCH)
    return time.perf_counter() - begun


def _appended(history: History, seconds: float, operations_max: int) -> float:
    log = FileLog(history.log)
    head = log.append(_BATCH, after=0, again=lambda: _BATCH)
    begun = time.perf_counter()
    count = 0
    while count < operations_max and time.perf_counter() - begun < seconds:
        head = log.append(_BATCH, after=head, again=lambda: _BATCH)
        count += 1
    return count / (time.perf_counter() - begun)
