"""One at a time, in any order that starves nobody, and never behind the dead."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coordination import locks
from coordination.env import REAL, Env
from coordination.errors import Unsuitable
from coordination.log.turns import Turns


class Replacing(Env):
    """A world in which somebody removes the lock file once, between opening and locking."""

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path

    def try_lock(self, descriptor: int) -> bool:
        if self.path is not None:
            self.path.unlink()
            self.path = None
        return super().try_lock(descriptor)


def test_a_removed_lock_file_is_made_again(tmp_path: Path) -> None:
    """Locking a file that has lost its name excludes nobody, so another one is locked."""
    turns = Turns(tmp_path / "lock", env=Replacing(tmp_path / "lock"))
    with turns:
        assert locks.held(tmp_path / "lock")
    turns.close()


def test_links_are_refused(tmp_path: Path) -> None:
    """A symbolic link where the lock file should be is not followed."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unsuitable, match="symbolic link"), Turns(tmp_path / "lock", env=REAL):
        pytest.fail("was locked")
    assert not (tmp_path / "elsewhere").exists()


def test_a_turn_is_tried_without_waiting(tmp_path: Path) -> None:
    """Trying answers at once, for threads of one connection and for other connections, and can be tried again."""
    first, second = Turns(tmp_path / "lock", env=REAL), Turns(tmp_path / "lock", env=REAL)
    assert first.try_enter()
    assert not first.try_enter()
    assert not second.try_enter()
    first.leave()
    assert second.try_enter()
    second.leave()
    for turns in (first, second):
        turns.close()


def test_a_try_that_fails_leaves_the_next_one_free(tmp_path: Path) -> None:
    """An error while trying comes through and keeps nobody out."""
    turns = Turns(tmp_path / "missing" / "lock", env=REAL)
    with pytest.raises(FileNotFoundError):
        turns.try_enter()
    (tmp_path / "missing").mkdir()
    assert turns.try_enter()
    turns.leave()
    turns.close()


def test_turns_are_taken_by_one_at_a_time(tmp_path: Path) -> None:
    """Threads sharing one ``Turns`` and others with their own never overlap."""
    shared = Turns(tmp_path / "turns", env=REAL)
    everybody = [shared, shared, Turns(tmp_path / "turns", env=REAL)]
    inside: list[int] = []
    overlaps: list[int] = []

    def take(turns: Turns) -> None:
        for _ in range(200):
            with turns:
                inside.append(1)
                overlaps.extend([1] * (len(inside) - 1))
                inside.pop()

    threads = [threading.Thread(target=take, args=(turns,)) for turns in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert overlaps == []
    for turns in everybody:
        turns.close()
        turns.close()


def test_turns_survive_being_closed_inside(tmp_path: Path) -> None:
    """A turn whose wait fails leaves the next one free to try."""

    class Broken(Env):
        broken = True

        def try_lock(self, descriptor: int) -> bool:
            if self.broken:
                raise OSError(37, "No locks available")
            return super().try_lock(descriptor)

    world = Broken()
    turns = Turns(tmp_path / "turns", env=world)
    with pytest.raises(OSError, match="No locks"), turns:
        pytest.fail("was locked")
    world.broken = False
    with turns:
        assert locks.held(tmp_path / "turns")
    turns.close()
