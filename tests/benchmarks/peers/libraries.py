"""How fast are the queue libraries that keep their data in SQLite? Each set to synchronous=FULL, by its own means.

A library that is not installed is left out, visibly. What none of them was asked for is switched off: nobody polls,
nobody retries in our loop; each waits for its turn inside SQLite for as long as it takes.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import BUSY_SECONDS, Peer, number_of, payload

_FULL = "PRAGMA synchronous = FULL"
_OFF = "PRAGMA synchronous = OFF"  # only while tasks are submitted, which nobody measures


class Library(Peer):
    """A library from the package index."""

    module: str

    def missing(self) -> str:
        """Whether it is installed."""
        there = importlib.util.find_spec(self.module) is not None
        return "" if there else f"{self.module} is not installed: pip install 'claude-coordination[benchmarks]'"


class PersistQueue(Library):
    """persist-queue's ``SQLiteAckQueue``: put, get and ack are a transaction each."""

    name = "persist-queue"
    module = "persistqueue"
    note = "selects and updates in two transactions, so that two processes can get one task"

    def create(self, directory: Path) -> None:
        """Its constructor makes the table."""
        _persist_queue(directory).close()

    def submit(self, directory: Path, tasks: int) -> None:
        """By its own put."""
        queue = _persist_queue(directory)
        queue._putter.execute(_OFF)
        for number in range(1, tasks + 1):
            queue.put(payload(number))
        queue.close()

    def connect(self, directory: Path, process: int) -> PersistQueueConnection:
        """One queue a process."""
        return PersistQueueConnection(directory)

    def appended(self, directory: Path) -> int:
        """Rows."""
        return _count(directory / "data.db", "SELECT count(*) FROM ack_queue_default")

    def completed(self, directory: Path) -> int:
        """Rows with the status ``acked``."""
        return _count(directory / "data.db", "SELECT count(*) FROM ack_queue_default WHERE status = 5")


class PersistQueueConnection:
    """``auto_resume`` is off: it would give tasks that others work on to us."""

    def __init__(self, directory: Path) -> None:
        self._queue = _persist_queue(directory)

    def append(self, payload: bytes) -> None:
        """One row."""
        self._queue.put(payload)

    def claim_and_complete(self) -> int | None:
        """Get and ack."""
        from persistqueue import Empty

        try:
            item = self._queue.get(block=False, raw=True)
        except Empty:
            return None
        self._queue.ack(id=item["pqid"])
        return number_of(item["data"])

    def close(self) -> None:
        """Close its connections."""
        self._queue.close()


class Huey(Library):
    """huey's ``SqliteStorage`` with ``fsync=True``. A worker dequeues (and so deletes) a task and stores its result."""

    name = "huey SQLite"
    module = "huey"
    note = "dequeuing deletes the task, so that it is lost when its worker dies"

    def create(self, directory: Path) -> None:
        """Its constructor makes the tables."""
        _huey(directory).close()

    def submit(self, directory: Path, tasks: int) -> None:
        """By its own enqueue."""
        storage = _huey(directory)
        storage.conn.execute(_OFF)
        for number in range(1, tasks + 1):
            storage.enqueue(payload(number))
        storage.close()

    def connect(self, directory: Path, process: int) -> HueyConnection:
        """One storage a process."""
        return HueyConnection(directory)

    def appended(self, directory: Path) -> int:
        """Queued tasks."""
        return _count(directory / "huey.db", "SELECT count(*) FROM task")

    def completed(self, directory: Path) -> int:
        """Results."""
        return _count(directory / "huey.db", "SELECT count(*) FROM kv")


class HueyConnection:
    """The storage, without the consumer's own polling around it."""

    def __init__(self, directory: Path) -> None:
        self._storage = _huey(directory, create_tables=False)

    def append(self, payload: bytes) -> None:
        """One row."""
        self._storage.enqueue(payload)

    def claim_and_complete(self) -> int | None:
        """Dequeue and store a result, as its worker does."""
        data = self._storage.dequeue()
        if data is None:
            return None
        number = number_of(data)
        self._storage.put_data(f"t{number}", b"done")
        return number

    def close(self) -> None:
        """Close its connection."""
        self._storage.close()


class LiteQueue(Library):
    """litequeue, whose own synchronous=NORMAL is set to FULL."""

    name = "litequeue"
    module = "litequeue"
    note = "sorts all free tasks at each claim, so that its rate depends on how many there are"

    def create(self, directory: Path) -> None:
        """Its constructor makes the table."""
        _litequeue(directory).close()

    def submit(self, directory: Path, tasks: int) -> None:
        """By its own put."""
        queue = _litequeue(directory)
        queue.conn.execute(_OFF)
        for number in range(1, tasks + 1):
            queue.put(payload(number).decode())
        queue.close()

    def connect(self, directory: Path, process: int) -> LiteQueueConnection:
        """One queue a process."""
        return LiteQueueConnection(directory)

    def appended(self, directory: Path) -> int:
        """Messages."""
        return _count(directory / "queue.db", "SELECT count(*) FROM Queue")

    def completed(self, directory: Path) -> int:
        """Messages with the status ``DONE``."""
        return _count(directory / "queue.db", "SELECT count(*) FROM Queue WHERE status = 2")


class LiteQueueConnection:
    """It keeps text."""

    def __init__(self, directory: Path) -> None:
        self._queue = _litequeue(directory)

    def append(self, payload: bytes) -> None:
        """One row."""
        self._queue.put(payload.decode())

    def claim_and_complete(self) -> int | None:
        """Pop and done."""
        message = self._queue.pop()
        if message is None:
            return None
        self._queue.done(message.message_id)
        return number_of(message.data)

    def close(self) -> None:
        """Close its connection."""
        self._queue.close()


class DiskCache(Library):
    """diskcache's ``Deque`` over a ``Cache`` with ``sqlite_synchronous=2``."""

    name = "diskcache Deque"
    module = "diskcache"
    note = "has no acknowledgement: a task is popped, and its completion appended to a second queue"

    def create(self, directory: Path) -> None:
        """Its constructor makes the tables and keeps the settings."""
        _diskcache(directory).close()

    def submit(self, directory: Path, tasks: int) -> None:
        """By its own push, which is what ``Deque.append`` calls."""
        with _diskcache(directory) as cache, cache.transact():
            for number in range(1, tasks + 1):
                cache.push(payload(number))

    def connect(self, directory: Path, process: int) -> DiskCacheConnection:
        """One cache a process."""
        return DiskCacheConnection(directory)

    def appended(self, directory: Path) -> int:
        """Everything in the cache."""
        return _count(directory / "cache.db", "SELECT count(*) FROM Cache")

    def completed(self, directory: Path) -> int:
        """What is in the second queue."""
        return _count(directory / "cache.db", "SELECT count(*) FROM Cache WHERE key LIKE 'completed-%'")


class DiskCacheConnection:
    """Without eviction, as ``Deque`` makes it."""

    def __init__(self, directory: Path) -> None:
        from diskcache import Deque

        self._cache = _diskcache(directory)
        self._deque = Deque.fromcache(self._cache)

    def append(self, payload: bytes) -> None:
        """At the back."""
        self._deque.append(payload)

    def claim_and_complete(self) -> int | None:
        """From the front, into another queue of the same cache."""
        try:
            data = self._deque.popleft()
        except IndexError:
            return None
        self._cache.push(data, prefix="completed", retry=True)
        return number_of(data)

    def close(self) -> None:
        """Close its connection."""
        self._cache.close()


LIBRARIES = (PersistQueue(), Huey(), LiteQueue(), DiskCache())


def _persist_queue(directory: Path) -> Any:
    from persistqueue import SQLiteAckQueue

    queue = SQLiteAckQueue(str(directory), auto_resume=False, timeout=BUSY_SECONDS)
    queue._putter.execute(_FULL)
    return queue


def _huey(directory: Path, *, create_tables: bool = True) -> Any:
    from huey.storage import SqliteStorage

    file = str(directory / "huey.db")
    return SqliteStorage("measured", file, fsync=True, timeout=BUSY_SECONDS, create_tables=create_tables)


def _litequeue(directory: Path) -> Any:
    from litequeue import LiteQueue as Queue

    queue = Queue(directory / "queue.db", timeout=BUSY_SECONDS)
    queue.conn.execute(_FULL)
    return queue


def _diskcache(directory: Path) -> Any:
    from diskcache import Cache

    return Cache(directory, timeout=BUSY_SECONDS, eviction_policy="none", cull_limit=0, sqlite_synchronous=2)


def _count(file: Path, query: str) -> int:
    with closing(sqlite3.connect(file)) as connection:
        count: int = connection.execute(query).fetchone()[0]
    return count
