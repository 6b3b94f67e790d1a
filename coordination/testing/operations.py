"""What does the kernel do, one operation at a time, ready to be killed, failed or traced?

An operation is made ready first: what it needs is done and does not count. What it gives back is the operation itself,
which answers the number of the batch it had acknowledged, or None when it acknowledges none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

from coordination import files
from coordination.env import Env
from coordination.errors import Conflict
from coordination.log.file import FileLog, create
from coordination.log.page import Mark, Page
from coordination.log.segments import PAGE
from coordination.log.turns import Turns
from coordination.store import Snapshot, SnapshotDirectory

Ready = Callable[[], int | None]
Operation = Callable[[Path, Env, bytes], Ready]

SNAPSHOTS = "snapshots"
PROJECTION = "counted"
_TINY_BYTES = 1  # every append finds its segment full
_WAIT_SECONDS = 0.001
_numbers = itertools.count(100)


def log_of(place: Path) -> Path:
    """Where an operation's log is."""
    return place / "log"


def appended(log: FileLog, payload: bytes) -> int:
    """Append at the head, wherever that is; the batch's number. Raises what ``append`` raises, but Conflict."""
    while True:
        try:
            return log.append(payload, after=0, again=lambda: payload)
        except Conflict:
            continue  # cut off by a recovery: it is void for ever


def mark_unfinished(place: Path, env: Env, mark: Mark = "dirty") -> None:
    """Leave the page as one who was killed in the middle of an append does, or one whose sync failed."""
    directory = log_of(place)
    log = FileLog(directory, env=env)
    turns = Turns(directory / "append.lock", env=env)
    try:
        with turns:
            page = Page(directory / PAGE, env.open_existing(directory / PAGE), log.uuid, env)
            page.mark(mark)
            page.close()
    finally:
        turns.close()
        log.close()


def saved(number: int) -> Snapshot:
    """A snapshot whose state can be told to be that of its number."""
    state = b'{"seq":%d,"more":"%b"}' % (number, b"x" * number)
    return Snapshot(projection=PROJECTION, version=1, seq=number, log="any", state=state)


def _create(place: Path, env: Env, _payload: bytes) -> Ready:
    return lambda: create(log_of(place), env=env)


def _connect(place: Path, env: Env, _payload: bytes) -> Ready:
    return lambda: FileLog(log_of(place), env=env).close()


def _append_first(place: Path, env: Env, payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)
    return lambda: appended(log, payload)


def _append(place: Path, env: Env, payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)
    log.settle()
    head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
    return lambda: log.append(payload, after=head)


def _roll(place: Path, env: Env, payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env, segment_bytes=_TINY_BYTES)
    log.settle()
    return lambda: appended(log, payload)


def _recover(place: Path, env: Env, _payload: bytes) -> Ready:
    mark_unfinished(place, env)
    return FileLog(log_of(place), env=env).settle


def _recover_without_page(place: Path, env: Env, _payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)
    files.discard(log_of(place) / PAGE, env=env)
    return log.settle


def _append_to_unfinished(place: Path, env: Env, payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)
    log.settle()
    mark_unfinished(place, env)
    return lambda: appended(log, payload)


def _append_to_poisoned(place: Path, env: Env, payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)
    log.settle()
    mark_unfinished(place, env, "poison")
    return lambda: appended(log, payload)


def _read(place: Path, env: Env, _payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)

    def read() -> None:
        for _ in (*log.read(0, upto="head"), *log.read(0, upto="durable")):
            pass

    return read


def _wait(place: Path, env: Env, _payload: bytes) -> Ready:
    log = FileLog(log_of(place), env=env)

    def wait() -> None:
        log.wait(log.durable, _WAIT_SECONDS)

    return wait


def _snapshot(place: Path, env: Env, _payload: bytes) -> Ready:
    directory = SnapshotDirectory(place / SNAPSHOTS, env=env)
    return lambda: directory.save(saved(next(_numbers)))


def _snapshot_first(place: Path, env: Env, _payload: bytes) -> Ready:
    directory = SnapshotDirectory(place / "more" / SNAPSHOTS, env=env)
    return lambda: directory.save(saved(next(_numbers)))


def _publish(place: Path, env: Env, payload: bytes) -> Ready:
    return lambda: files.publish(place / "published", payload, env=env)


OPERATIONS: Mapping[str, Operation] = {
    "create": _create,
    "connect": _connect,
    "append first": _append_first,
    "append": _append,
    "roll": _roll,
    "append to unfinished": _append_to_unfinished,
    "append to poisoned": _append_to_poisoned,
    "recover": _recover,
    "recover without page": _recover_without_page,
    "read": _read,
    "wait": _wait,
    "snapshot first": _snapshot_first,
    "snapshot": _snapshot,
    "publish": _publish,
}
