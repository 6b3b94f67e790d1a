"""One at a time, in any order that starves nobody, and never behind the dead."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from coordination import locks
from coordination.env import REAL, Env
from coordination.errors import LockHeld, Unsuitable
from coordination.log.turns import Bell, Turns


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


def test_who_ends_a_turn_rings(tmp_path: Path) -> None:
    """Or whoever sleeps would wait for the end of his bounded sleep, although the turn is free."""
    words = memoryview(bytearray(16)).cast("Q")
    bell = Bell(words, 0, REAL)
    turns = Turns(tmp_path / "turns", env=REAL, bell=lambda: bell)
    heard = bell.heard()
    with turns:
        assert bell.heard() == heard
    assert bell.heard() != heard
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


class Stopped(Env):
    """A world in which some process holds the lock, and time passes when somebody waits."""

    def __init__(self, holder: int | None, *, stopped: bool = True) -> None:
        self.holder = holder
        self.stopped = stopped
        self.now = 0.0
        self.signalled: list[int] = []
        self.vanishes = 0
        self.ours = True

    def try_lock(self, descriptor: int) -> bool:
        return bool(self.signalled) and super().try_lock(descriptor)

    def lock_holder(self, path: Path) -> int | None:
        return self.holder

    def process_stopped(self, pid: int) -> bool:
        return self.stopped

    def has_open(self, pid: int, path: Path) -> bool:
        assert path.name == "ours"
        return self.ours and pid == self.holder

    def process_start(self, pid: int) -> int | None:
        return 7 if pid == self.holder else None

    def open_process(self, pid: int) -> int:
        if self.vanishes == 1:
            self.signalled.append(0)
            raise ProcessLookupError
        return self.open_read(Path("/dev/null"))

    def signal_process(self, process: int, number: int) -> None:
        self.signalled.append(number)
        if self.vanishes == 2:
            raise ProcessLookupError

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 0.2


def test_a_stopped_holder_of_ours_is_killed(tmp_path: Path) -> None:
    """It signed as ours, it was stopped, and everybody waits: it is killed through a descriptor, and we go on."""
    world = Stopped(4242)
    turns = Turns(tmp_path / "lock", env=world)
    with turns:
        assert world.signalled == [9]
    turns.close()


@pytest.mark.parametrize("vanishes", [1, 2])
def test_a_stopped_holder_that_ends_by_itself_is_fine(tmp_path: Path, vanishes: int) -> None:
    """Gone before it could be opened or signalled, its lock is free."""
    world = Stopped(4242)
    world.vanishes = vanishes
    turns = Turns(tmp_path / "lock", env=world)
    with turns:
        assert world.signalled
    turns.close()


def test_a_stopped_holder_that_is_not_ours_is_named(tmp_path: Path) -> None:
    """Who does not have our file open is not touched; the message says who it is and what to do."""
    world = Stopped(4242)
    world.ours = False
    turns = Turns(tmp_path / "lock", env=world)
    with pytest.raises(LockHeld, match="kill -CONT 4242") as caught, turns:
        pytest.fail("was locked")
    assert caught.value.holder == "4242"
    assert not world.signalled


def test_an_unlock_that_fails_ends_the_turn_all_the_same(tmp_path: Path) -> None:
    """What was done in a turn must not seem to have failed because of its end; the next one can begin."""

    class Stuck(Env):
        def unlock(self, descriptor: int) -> None:
            raise OSError(37, "No locks available")

    turns, other = Turns(tmp_path / "lock", env=Stuck()), Turns(tmp_path / "lock", env=REAL)
    with turns:
        assert not other.try_enter()
    assert other.try_enter()
    other.leave()
    for each in (turns, other):
        each.close()


@pytest.mark.parametrize(("holder", "named"), [(4242, "process 4242"), (None, "another container")])
def test_waiting_has_an_end(tmp_path: Path, holder: int | None, named: str) -> None:
    """A holder that runs and never lets go is waited for, but not for ever, and named if it can be seen."""
    world = Stopped(holder, stopped=False)
    turns = Turns(tmp_path / "lock", env=world)
    with pytest.raises(LockHeld, match=named), turns:
        pytest.fail("was locked")
    assert world.now > 30


def test_a_number_that_was_given_to_another_process_is_not_signalled(tmp_path: Path) -> None:
    """Between looking and opening the holder may end and its number be used again: then nobody is killed."""

    class Recycled(Stopped):
        start = 7

        def open_process(self, pid: int) -> int:
            self.start += 1
            return super().open_process(pid)

        def process_start(self, pid: int) -> int:
            return self.start

    world = Recycled(4242)
    turns = Turns(tmp_path / "lock", env=world)
    with pytest.raises(LockHeld), turns:
        pytest.fail("was locked")
    assert not world.signalled
