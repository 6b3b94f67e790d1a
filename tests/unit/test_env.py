"""The gate to the world does what the system does, and says nothing more."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination import env as gate
from coordination.env import REAL, Env


class Elsewhere(Env):
    """A system without description locks."""

    description_locks = False


@pytest.fixture(params=[REAL, Elsewhere()], ids=["linux", "elsewhere"])
def env(request: pytest.FixtureRequest) -> Env:
    world: Env = request.param
    return world


@pytest.fixture
def pair(env: Env, tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Two descriptors of one file, opened one after the other."""
    both = env.open_write(tmp_path / "lock"), env.open_write(tmp_path / "lock")
    yield both
    for descriptor in both:
        env.close(descriptor)


def test_a_lock_excludes_a_second_descriptor_of_the_same_process(env: Env, pair: tuple[int, int]) -> None:
    """Two connections in one process exclude each other like two processes do."""
    first, second = pair
    assert env.try_lock(first)
    assert not env.try_lock(second)
    env.unlock(first)
    env.lock(second)
    assert not env.try_lock(first)


def test_asking_does_not_take(env: Env, tmp_path: Path, pair: tuple[int, int]) -> None:
    """Another process sees whether a lock is held, any number of times, and can still take it afterwards."""
    kind = "Elsewhere" if not env.description_locks else "Env"
    ask = (
        "import sys; from pathlib import Path; from coordination.env import Env\n"
        "class Elsewhere(Env): description_locks = False\n"
        f"env = {kind}(); fd = env.open_write(Path(sys.argv[1]))\n"
        "print(env.locked(fd), env.locked(fd), env.try_lock(fd))"
    )
    command = [sys.executable, "-c", ask, str(tmp_path / "lock")]
    env.lock(pair[0])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True True False\n"
    env.unlock(pair[0])
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False False True\n"


def test_a_lock_that_cannot_be_taken_at_all_is_an_error(env: Env, tmp_path: Path) -> None:
    """Only "somebody has it" is False; a descriptor that cannot carry a lock raises."""
    (tmp_path / "file").write_bytes(b"")
    descriptor = env.open_read(tmp_path / "file")
    env.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        env.try_lock(descriptor)


def test_the_visible_half_failing_gives_the_other_half_back(tmp_path: Path) -> None:
    """Where two locks stand for one, a failure of the second leaves the first free."""
    env = Elsewhere()
    (tmp_path / "lock").write_bytes(b"")
    reading, writing = env.open_read(tmp_path / "lock"), env.open_write(tmp_path / "lock")
    with pytest.raises(OSError, match="Bad file descriptor"):
        env.lock(reading)  # a record lock for writing needs a descriptor for writing
    assert env.try_lock(writing)
    env.close(reading)
    env.close(writing)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the last place of a path is refused by every way of opening."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for opener in (REAL.open_read, REAL.open_write, REAL.open_existing, REAL.create):
        with pytest.raises(OSError, match=r"link|exists"):
            opener(tmp_path / "link")
    assert not REAL.is_file(tmp_path / "link")
    assert not REAL.is_file(tmp_path / "nothing")
    assert REAL.is_file(tmp_path / "file")


def test_descriptors_do_not_cross_exec(tmp_path: Path) -> None:
    """A started program gets none of our descriptors, so it cannot keep our locks."""
    descriptor = REAL.open_write(tmp_path / "file")
    assert not os.get_inheritable(descriptor)
    REAL.close(descriptor)


def test_a_removed_or_replaced_file_is_noticed(tmp_path: Path) -> None:
    """``same_file`` is true only while the name means the open file."""
    path = tmp_path / "file"
    descriptor = REAL.open_write(path)
    assert REAL.same_file(descriptor, path)
    path.unlink()
    assert not REAL.same_file(descriptor, path)
    path.write_bytes(b"")
    assert not REAL.same_file(descriptor, path)
    REAL.close(descriptor)


def test_a_process_is_known_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A living process has a start, a zombie and a gone one have none; without /proc a number is all there is."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert REAL.process_start(child.pid) is not None
    assert REAL.process_start(os.getpid()) != REAL.process_start(child.pid)
    assert child.stdin is not None
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert REAL.process_start(child.pid) is None, "a zombie is not alive"
    child.wait()
    assert REAL.process_start(child.pid) is None
    monkeypatch.setattr(gate, "_BOOT_ID", Path("/nowhere"))
    assert REAL.process_start(os.getpid()) == 0
    assert REAL.process_start(child.pid) is None


def test_a_process_can_be_killed_through_its_descriptor() -> None:
    """The descriptor means the very process it was opened for."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = REAL.open_process(child.pid)
    REAL.signal_process(process, signal.SIGKILL)
    assert child.wait() == -9
    REAL.close(process)
    assert child.stdin is not None
    child.stdin.close()


def test_the_boot_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same boot has the same name; macOS is asked by its own command; nobody to ask gives no name."""
    assert REAL.boot_id() == REAL.boot_id() != ""
    asked = tmp_path / "sysctl"
    asked.write_text("#!/bin/sh\necho session-1\n")
    asked.chmod(0o700)
    monkeypatch.setattr(gate, "_BOOT_ID", Path("/nowhere"))
    monkeypatch.setattr(gate, "_SYSCTL", str(asked))
    assert REAL.boot_id() == "session-1"
    monkeypatch.setattr(gate, "_SYSCTL", "/nowhere")
    assert REAL.boot_id() == ""


def test_clocks_and_dice_move() -> None:
    """Time does not run backwards, and two draws differ."""
    before = REAL.monotonic()
    REAL.sleep(0.0)
    assert REAL.monotonic() >= before
    assert REAL.random_hex(8) != REAL.random_hex(8)
    assert REAL.uuid() != REAL.uuid()


def test_what_a_system_lacks_is_replaced_by_something_stronger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data sync the full one is called, and where a full sync has its own name that one is called."""
    asked: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, "fsync", asked.append)
    descriptor = REAL.create(tmp_path / "file")
    REAL.sync_data(descriptor)
    assert asked == [descriptor]
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", fcntl.F_GETFD, raising=False)
    REAL.sync_data(descriptor)
    assert asked == [descriptor], "fsync is not asked where something stronger is there"
    REAL.close(descriptor)


@pytest.fixture
def words(tmp_path: Path) -> Iterator[memoryview]:
    """A shared page of words."""
    descriptor = REAL.open_write(tmp_path / "page")
    REAL.resize(descriptor, 4096)
    mapped = REAL.map_shared(descriptor, 4096)
    yield mapped
    REAL.unmap(mapped)
    REAL.close(descriptor)


def test_a_sleeper_is_woken_by_another_process(tmp_path: Path, words: memoryview) -> None:
    """Who sleeps on a word is woken by whoever changed it, also from another process."""
    program = (
        "import sys; from pathlib import Path; from coordination.env import REAL\n"
        "words = REAL.map_shared(REAL.open_existing(Path(sys.argv[1])), 4096)\n"
        "REAL.store(words, 1, 5)\n"
        "while words[0] == 0: REAL.wait_word(words, 0, 0, 30)\n"
        "print(words[0])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "page")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while words[1] != 5:
            REAL.wait_word(words, 1, 0, 0.01)
        REAL.store_many(words, 0, (7, 8, 9))
        REAL.wake(words, 0, 1)
        assert child.communicate(timeout=30)[0] == "7\n"
    assert words[:3].tolist() == [7, 8, 9]


def test_a_word_that_changed_before_is_not_slept_on(words: memoryview) -> None:
    """Looking first and sleeping after misses nothing: a changed word ends the sleep before it begins."""
    REAL.store(words, 0, 1)
    before = REAL.monotonic()
    REAL.wait_word(words, 0, 0, 300)
    assert REAL.monotonic() - before < 200


def test_without_a_futex_sleeps_are_short(words: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that has none is asked again soon; waking is then nothing."""
    gate._futex.cache_clear()
    monkeypatch.setattr(gate, "_FUTEX_CALL", {})
    before = REAL.monotonic()
    REAL.wait_word(words, 0, 0, 300)
    REAL.wake(words, 0, 1)
    assert REAL.monotonic() - before < 200
    gate._futex.cache_clear()


def test_the_holder_of_a_lock_is_found(tmp_path: Path) -> None:
    """The process that holds it, not one that merely has the file open; nobody when nobody does."""
    path = tmp_path / "lock"
    mine = REAL.open_write(path)
    assert REAL.lock_holder(path) is None
    program = "import sys; from pathlib import Path; from coordination.env import REAL\n"
    program += "fd = REAL.open_write(Path(sys.argv[1])); REAL.lock(fd); print('ready', flush=True); input()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        assert REAL.lock_holder(path) == child.pid
        assert REAL.has_open(child.pid, path)
        assert not REAL.has_open(child.pid, tmp_path)
        assert not REAL.process_stopped(child.pid)
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert REAL.process_stopped(child.pid)
        child.kill()
    assert REAL.lock_holder(path) is None
    assert not REAL.process_stopped(child.pid)
    assert not REAL.has_open(child.pid, path)
    REAL.close(mine)


def test_a_directory_is_stamped_by_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stamp changes with every name that comes, goes or changes; what changed just now has none yet."""
    (tmp_path / "names").mkdir()
    assert REAL.names_stamp(tmp_path / "names") is None
    assert REAL.names_stamp(tmp_path / "missing") is None
    monkeypatch.setattr(gate, "_RACY_NANOSECONDS", 0)
    before = REAL.names_stamp(tmp_path / "names")
    number = 0
    while REAL.names_stamp(tmp_path / "names") == before:  # within one tick of its clock there is no telling
        (tmp_path / "names" / str(number)).touch()
        number += 1
    stamp = REAL.names_stamp(tmp_path / "names")
    assert stamp is not None
    (tmp_path / "names" / "0").write_bytes(b"what stands in a file is no name")
    assert REAL.names_stamp(tmp_path / "names") == stamp
