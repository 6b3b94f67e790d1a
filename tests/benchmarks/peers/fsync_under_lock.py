"""What would our own log cost without group commit? The reference of P4: lock, write, fdatasync, unlock."""

from __future__ import annotations

import zlib
from pathlib import Path

from coordination.env import REAL
from tests.benchmarks.peers import Peer


class FsyncUnderLock(Peer):
    """The shortest honest log: who writes holds the lock until the disk has the line."""

    name = "fsync under the lock"
    has_tasks = False

    def create(self, directory: Path) -> None:
        """One empty file."""
        REAL.close(REAL.create(directory / "lines"))

    def connect(self, directory: Path, process: int) -> FsyncUnderLockConnection:
        """One descriptor a process."""
        return FsyncUnderLockConnection(directory)

    def appended(self, directory: Path) -> int:
        """Lines."""
        return (directory / "lines").read_bytes().count(b"\n")


class FsyncUnderLockConnection:
    """A file that is appended to."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = REAL.open_existing(directory / "lines")

    def append(self, payload: bytes) -> None:
        """One line with its checksum."""
        line = b'%b,"sum":"%08x"}\n' % (payload[:-1], zlib.crc32(payload))
        REAL.lock(self._descriptor)
        try:
            taken = REAL.write(self._descriptor, line, REAL.size(self._descriptor))
            assert taken == len(line)
            REAL.sync_data(self._descriptor)
        finally:
            REAL.unlock(self._descriptor)

    def claim_and_complete(self) -> int | None:
        """It has no tasks."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""
        REAL.close(self._descriptor)
