"""A simulated world does what the real one does, and forgets what a power cut may take."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordination.env import Env
from coordination.testing.disk import chance_content
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld, Stuck

ROOM = Path("/room")
COMPOSED = {"same_file", "_lock_elsewhere", "_open_at"}  # of other methods, or never reached here

Steps = Callable[[Env, Path], Iterator[object]]


@pytest.fixture
def world() -> SimulatedWorld:
    world = SimulatedWorld(seed=1)
    env = world.process()
    env.make_directory(ROOM)
    env.sync_directory(Path("/"))
    return world


def test_no_method_of_the_gate_leads_to_the_real_world() -> None:
    """Every method of Env is overridden, but those that only call others."""
    methods = {name for name, value in vars(Env).items() if inspect.isfunction(value)}

    assert methods - set(vars(SimulatedEnv)) == COMPOSED


def write_and_read(env: Env, room: Path) -> Iterator[object]:
    file = env.create(room / "a")
    yield env.write(file, b"hello", 0)
    yield env.write(file, b"!", 8)
    yield env.read(file, 100, 0)
    yield env.read(file, 2, 4)
    yield env.size(file)
    env.resize(file, 3)
    env.resize(file, 6)
    env.sync(file)
    env.sync_data(file)
    yield env.read(file, 100, 1)
    env.close(file)
    yield env.list_directory(room)


def open_what_is_not_there(env: Env, room: Path) -> Iterator[object]:
    for opened in (env.open_read, env.open_existing, env.unlink):
        yield failure(opened, room / "none")
        yield failure(opened, room / "none" / "deeper")
    yield failure(env.open_write, room / "none" / "deeper")
    yield failure(env.list_directory, room / "none")
    yield failure(env.sync_directory, room / "none")
    yield failure(env.rename, room / "none", room / "other")
    yield failure(env.close, 99)
    yield failure(env.make_directory, room)
    yield [env.is_file(room / "none"), env.is_directory(room / "none"), env.is_directory(room), env.is_file(room)]
    yield env.file_id_at(room / "none")


def open_what_cannot_be(env: Env, room: Path) -> Iterator[object]:
    env.close(env.create(room / "a"))
    yield failure(env.create, room / "a")
    yield failure(env.open_write, room / "a" / "below")
    yield failure(env.open_write, room)
    reading = env.open_read(room / "a")
    yield failure(env.write, reading, b"x", 0)
    yield failure(env.try_lock, reading)
    yield failure(env.read, env.open_read(room), 1, 0)


def unlink_an_open_file(env: Env, room: Path) -> Iterator[object]:
    file = env.open_write(room / "a")
    env.write(file, b"kept", 0)
    first = env.file_id(file)
    env.unlink(room / "a")
    yield [env.read(file, 9, 0), env.list_directory(room), env.same_file(file, room / "a")]
    other = env.open_write(room / "a")
    yield [env.file_id(other) == first, env.same_file(other, room / "a"), env.size(other)]


def rename_over_an_open_file(env: Env, room: Path) -> Iterator[object]:
    old, new = env.create(room / "old"), env.create(room / "new")
    env.write(old, b"old", 0)
    env.write(new, b"new", 0)
    env.rename(room / "new", room / "old")
    yield env.list_directory(room)
    yield [env.read(old, 9, 0), env.same_file(old, room / "old"), env.same_file(new, room / "old")]
    yield env.read(env.open_read(room / "old"), 9, 0)


def lock_by_open_description(env: Env, room: Path) -> Iterator[object]:
    one, two, asking = (env.open_write(room / "lock") for _ in range(3))
    yield [env.try_lock(one), env.try_lock(one), env.try_lock(two), env.locked(one), env.locked(two)]
    env.close(asking)  # of the same file: must not let the lock go
    yield [env.try_lock(two), env.lock_holder(room / "lock") == env.pid()]
    env.unlock(two)  # has none
    yield env.try_lock(two)
    env.close(one)
    yield [env.locked(two), env.lock_holder(room / "lock")]
    env.lock(two)
    yield env.locked(env.open_read(room / "lock"))


def share_words(env: Env, room: Path) -> Iterator[object]:
    file = env.create(room / "page")
    yield failure(env.map_shared, file, 4096)
    env.write(file, bytes(4096), 0)
    words, others = env.map_shared(file, 4096), env.map_shared(file, 4096)
    env.store(words, 2, 7)
    env.store_many(words, 3, (8, 1 << 63))
    yield [len(words), others[2], others[2:6].tolist(), len(others.tolist()), others.tobytes()[16]]
    yield env.read(file, 8, 16)[0]
    env.write(file, b"\x09", 16)
    yield words[2]
    env.wait_word(words, 2, 7, 60.0)  # it is 9: returns at once
    env.wait_word(words, 2, 9, 0.001)
    env.wake(words, 2, 1)
    env.unmap(words)
    yield failure(lambda: words[2])
    yield others[2]


def know_processes(env: Env, room: Path) -> Iterator[object]:
    pid = env.pid()
    yield [env.process_start(pid) == env.process_start(pid), env.process_start(pid) is None, env.process_stopped(pid)]
    yield env.process_start(4_000_000)
    yield failure(env.open_process, 4_000_000)
    env.signal_process(env.open_process(pid), 0)
    yield [len(env.random_hex(6)), len(env.uuid()), env.boot_id() == env.boot_id() != ""]
    before = env.monotonic()
    env.sleep(0.001)
    yield env.monotonic() - before >= 0.001


FIDELITY: list[Steps] = [
    write_and_read,
    open_what_is_not_there,
    open_what_cannot_be,
    unlink_an_open_file,
    rename_over_an_open_file,
    lock_by_open_description,
    share_words,
    know_processes,
]


def failure(act: Callable[..., object], *arguments: object) -> str:
    """What an act fails with: the kind of error and its number."""
    try:
        return f"no failure: {act(*arguments)}"
    except (OSError, ValueError) as error:
        return f"{type(error).__name__} {getattr(error, 'errno', None)}"


@pytest.mark.parametrize("steps", FIDELITY, ids=lambda steps: steps.__name__)
@pytest.mark.skipif(not Env.description_locks, reason="the world has description locks, and this system has none")
def test_the_same_gestures_give_the_same_answers(steps: Steps, world: SimulatedWorld, tmp_path: Path) -> None:
    """A sequence of gestures answers alike in the simulated world and in the real one."""
    assert list(steps(world.process(), ROOM)) == list(steps(Env(), tmp_path))


def test_what_was_not_synced_may_be_lost_and_what_was_is_not(world: SimulatedWorld) -> None:
    """Over many power cuts every part of an unsynced write is there or missing, and synced bytes always stand."""
    seen = set()
    for _ in range(300):
        twin = with_file(world)
        env = twin.process()
        file = env.open_existing(ROOM / "a")
        env.write(file, b"1234", 6)
        twin.power_cut()
        after = twin.process()
        seen.add(after.read(after.open_read(ROOM / "a"), 100, 0))

    assert all(content.startswith(b"synced") for content in seen)
    assert {b"synced", b"synced1234", b"synced1", b"synced12\0\0", b"synced\0\x0034", b"synced\n\n34"} <= seen


def test_names_are_lost_until_the_directory_is_synced(world: SimulatedWorld) -> None:
    """A rename whose directory was not synced is there, or not, or is the only one of two that arrived."""
    seen = set()
    for _ in range(100):
        twin = with_file(world)
        env = twin.process()
        env.rename(ROOM / "a", ROOM / "b")
        env.create(ROOM / "c")
        twin.power_cut()
        seen.add(tuple(twin.process().list_directory(ROOM)))

    assert seen == {("a",), ("b",), ("a", "c"), ("b", "c")}


@pytest.mark.parametrize("dropped", [False, True])
def test_a_second_sync_succeeds_without_the_bytes(world: SimulatedWorld, dropped: bool) -> None:
    """After a failed sync the bytes are not on the disk, whatever the cache shows and the next sync says."""
    twin = with_file(world)
    env = twin.process()
    file = env.open_existing(ROOM / "a")
    env.write(file, b"-lost", 6)
    twin.dice.seed(1)  # nothing of it arrives
    twin.fate = Failing("sync", Fault("error", errno.EIO, dropped=dropped))
    with pytest.raises(OSError, match="Input/output"):
        env.sync(file)
    shown = env.read(file, 100, 0)
    env.sync(file)
    twin.power_cut()

    assert shown == (b"synced" if dropped else b"synced-lost")
    assert twin.files()[0].cache == b"synced"


def test_words_of_a_page_reach_the_disk_each_for_itself(world: SimulatedWorld) -> None:
    """After a power cut a page may hold any earlier state, also one that nobody ever stored."""
    env = world.process()
    file = env.create(ROOM / "page")
    env.write(file, bytes(16), 0)
    env.sync(file)
    words = env.map_shared(file, 16)
    for value in (1, 2):
        env.store_many(words, 0, (value, value))
    states = [bytes(chance_content(world.files()[0], world.dice)) for _ in range(400)]

    assert {(state[0], state[8]) for state in states} == {(one, two) for one in range(3) for two in range(3)}


def test_death_frees_locks_and_nothing_is_done_after_it(world: SimulatedWorld) -> None:
    """A killed process holds no lock, and whatever it tries has no effect."""
    dying, other = world.process(), world.process()
    file, theirs = dying.open_write(ROOM / "lock"), other.open_write(ROOM / "lock")
    dying.lock(file)
    assert not other.try_lock(theirs)
    with pytest.raises(Stuck):
        other.lock(theirs)
    other.signal_process(other.open_process(dying.pid()), 9)

    assert other.try_lock(theirs)
    assert other.process_start(dying.pid()) is None
    with pytest.raises(Killed):
        dying.write(file, b"x", 0)
    dying.close(file)
    assert other.size(theirs) == 0


def test_a_killed_write_stops_anywhere(world: SimulatedWorld) -> None:
    """A write that is killed leaves a beginning of its bytes in the cache."""
    env = world.process()
    file = env.create(ROOM / "a")
    world.fate = Failing("write", Fault("kill", share=0.5))
    with pytest.raises(Killed):
        env.write(file, b"12345678", 0)

    assert world.files()[0].cache == b"1234"


def test_a_number_is_given_again(world: SimulatedWorld) -> None:
    """The number of a removed file goes to the next one as soon as nobody has it open, and not before."""
    env = world.process()
    first = env.create(ROOM / "a")
    number = env.file_id(first)
    env.unlink(ROOM / "a")
    second = env.create(ROOM / "b")
    env.close(first)
    third = env.create(ROOM / "c")

    assert env.file_id(second) != number == env.file_id(third)


class Failing(Fate):
    """One gesture of a kind has this fault, the first one."""

    def __init__(self, gesture: str, fault: Fault) -> None:
        self.gesture = gesture
        self.fault: Fault | None = fault

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        if gesture != self.gesture:
            return None
        fault, self.fault = self.fault, None
        return fault


def with_file(world: SimulatedWorld) -> SimulatedWorld:
    """A copy in which a file was written and synced, name and all."""
    twin = world.copy(world.dice.getrandbits(32))
    env = twin.process()
    file = env.create(ROOM / "a")
    env.write(file, b"synced", 0)
    env.sync(file)
    env.sync_directory(ROOM)
    return twin
