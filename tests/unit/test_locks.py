"""Ownership ends with its owner, and asking about it takes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from coordination import locks
from coordination.env import REAL, Env
from coordination.errors import LockHeld, Unsuitable


@contextmanager
def another(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs ``program`` up to its line of output and then waits."""
    source = (
        f"import sys; from pathlib import Path; from coordination import locks; path = Path(sys.argv[1])\n{program}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", source, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        yield child
    finally:
        child.kill()
        child.communicate()


HOLD = "held = locks.hold(path); print('ready', flush=True); input()"


def test_a_lock_for_life_is_seen_by_all_and_ends_with_release(tmp_path: Path) -> None:
    """Held means held for us too; a second holder gets None; after release it is free."""
    path = tmp_path / "lock"
    assert not locks.held(path)
    with locks.hold(path) or pytest.fail("nobody else is here"):
        assert locks.held(path)
        assert locks.hold(path, wait_seconds=0.03) is None
        assert locks.holder(path) == locks.identity()
    assert not locks.held(path)
    again = locks.hold(path)
    assert again is not None
    again.release()
    again.release()
    assert not locks.held(path)


def test_a_lock_for_life_ends_with_a_killed_holder(tmp_path: Path) -> None:
    """Killing the holder frees the lock, and who was waiting gets it."""
    path = tmp_path / "lock"
    with another(HOLD, path) as child:
        assert locks.held(path)
        who = locks.holder(path)
        assert who is not None
        assert who.pid == child.pid
        assert locks.alive(who)
        threading.Timer(0.05, child.kill).start()
        mine = locks.hold(path, wait_seconds=30)
    assert mine is not None
    assert not locks.alive(who)
    assert locks.holder(path) == locks.identity()
    mine.release()


def test_asking_does_not_disturb_a_starting_holder(tmp_path: Path) -> None:
    """A thread that asks all the time never makes taking the free lock fail."""
    path, stop = tmp_path / "lock", threading.Event()

    def ask() -> None:
        while not stop.is_set():
            locks.held(path)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(200):
            taken = locks.hold(path)
            assert taken is not None
            taken.release()
    finally:
        stop.set()
        asking.join()


class Replacing(Env):
    """Somebody removes the lock file between our opening and our locking it, once."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path

    def _replace(self) -> None:
        if self.path is not None:
            self.path.unlink()
            self.path = None

    def try_lock(self, descriptor: int) -> bool:
        self._replace()
        return super().try_lock(descriptor)

    def lock(self, descriptor: int) -> None:
        self._replace()
        super().lock(descriptor)


def test_a_removed_lock_file_is_not_ours(tmp_path: Path) -> None:
    """Locking a file that has lost its name excludes nobody, so it does not count."""
    path = tmp_path / "lock"
    path.write_bytes(b"")
    assert locks.hold(path, env=Replacing(path)) is None


def test_a_failure_while_signing_frees_the_lock(tmp_path: Path) -> None:
    """When the holder's name cannot be written, the lock is given back with the error."""

    class Full(Env):
        def write(self, descriptor: int, data: bytes, offset: int) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        locks.hold(tmp_path / "lock", env=Full())
    assert not locks.held(tmp_path / "lock")


def test_links_are_refused(tmp_path: Path) -> None:
    """A symbolic link where a lock file should be is refused by every kind of lock, and not followed."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unsuitable, match="symbolic link"):
        locks.hold(tmp_path / "lock")
    with pytest.raises(Unsuitable, match="symbolic link"):
        locks.held(tmp_path / "lock")
    with pytest.raises(Unsuitable, match="symbolic link"), locks.exclusive(tmp_path / "lock", 0.0):
        pytest.fail("was locked")
    assert not (tmp_path / "elsewhere").exists()


def test_other_errors_of_opening_come_through(tmp_path: Path) -> None:
    """A missing directory is no symbolic link."""
    with pytest.raises(FileNotFoundError):
        locks.hold(tmp_path / "missing" / "lock")
    assert not locks.held(tmp_path / "missing" / "lock")


def test_exclusive_excludes_and_ends(tmp_path: Path) -> None:
    """While another process works, LockHeld names the file; afterwards it is free, also after an error."""
    path = tmp_path / "work"
    program = "with locks.exclusive(path, 1.0): print('ready', flush=True); input()"
    with (
        another(program, path),
        pytest.raises(LockHeld, match=str(path)),
        locks.exclusive(path, 0.05),
    ):
        pytest.fail("was locked")
    with pytest.raises(ZeroDivisionError), locks.exclusive(path, 1.0):
        raise ZeroDivisionError
    with locks.exclusive(path, 1.0):
        assert path.exists()


def test_an_identity_is_one_process_only() -> None:
    """Another start or another boot is not that process; nobody has the number of a gone one."""
    me = locks.identity()
    assert me is not None
    assert me == locks.identity(os.getpid())
    assert locks.alive(me)
    assert not locks.alive(msgspec.structs.replace(me, start=me.start + 1))
    assert not locks.alive(msgspec.structs.replace(me, boot="another"))
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert locks.identity(child.pid) is None


def test_a_holder_that_did_not_sign_is_nobody(tmp_path: Path) -> None:
    """No file, and one with something else in it, name nobody."""
    assert locks.holder(tmp_path / "lock") is None
    (tmp_path / "lock").write_bytes(b"{}")
    assert locks.holder(tmp_path / "lock") is None
    assert REAL.is_file(tmp_path / "lock")
