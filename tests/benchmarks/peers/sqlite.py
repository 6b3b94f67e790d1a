"""How fast is SQLite, the peer that everybody has? WAL, synchronous=FULL, one statement a transaction."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from tests.benchmarks.peers import BUSY_SECONDS, Peer, payload

_TABLES = """
CREATE TABLE log (seq INTEGER PRIMARY KEY, payload BLOB NOT NULL);
CREATE TABLE task (number INTEGER PRIMARY KEY, payload BLOB NOT NULL, status INTEGER NOT NULL, holder INTEGER);
CREATE INDEX free ON task (number) WHERE status = 0;
"""
_CLAIM = """
UPDATE task SET status = 1, holder = ?
WHERE number = (SELECT number FROM task WHERE status = 0 ORDER BY number LIMIT 1) RETURNING number, payload
"""
_COMPLETE = "UPDATE task SET status = 2 WHERE number = ? AND holder = ? AND status = 1"


class SQLite(Peer):
    """The standard library's ``sqlite3``."""

    name = "SQLite WAL FULL"

    def create(self, directory: Path) -> None:
        """Make the tables."""
        with closing(_connect(directory)) as connection:
            connection.executescript(_TABLES)

    def submit(self, directory: Path, tasks: int) -> None:
        """All in one transaction."""
        with closing(_connect(directory)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            rows = ((number, payload(number)) for number in range(1, tasks + 1))
            connection.executemany("INSERT INTO task (number, payload, status) VALUES (?, ?, 0)", rows)
            connection.execute("COMMIT")

    def connect(self, directory: Path, process: int) -> SQLiteConnection:
        """One connection a process."""
        return SQLiteConnection(directory, process)

    def appended(self, directory: Path) -> int:
        """Rows of the log."""
        return _count(directory, "SELECT count(*) FROM log")

    def completed(self, directory: Path) -> int:
        """Tasks in their last status."""
        return _count(directory, "SELECT count(*) FROM task WHERE status = 2")


class SQLiteConnection:
    """Statements are prepared once: ``sqlite3`` keeps them by their text."""

    def __init__(self, directory: Path, process: int) -> None:
        self._connection = _connect(directory)
        self._process = process

    def append(self, payload: bytes) -> None:
        """One row, one transaction."""
        self._connection.execute("INSERT INTO log (payload) VALUES (?)", (payload,))

    def claim_and_complete(self) -> int | None:
        """Two transactions; each takes the write lock before it reads, as BEGIN IMMEDIATE does."""
        rows = self._connection.execute(_CLAIM, (self._process,)).fetchall()
        if not rows:
            return None
        number: int = rows[0][0]
        completed = self._connection.execute(_COMPLETE, (number, self._process)).rowcount
        assert completed == 1, f"task {number} was taken from process {self._process}"
        return number

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _connect(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(directory / "log.db", timeout=BUSY_SECONDS, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _count(directory: Path, query: str) -> int:
    with closing(_connect(directory)) as connection:
        count: int = connection.execute(query).fetchone()[0]
    return count
