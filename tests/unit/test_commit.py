"""One sync serves all who wait, and nobody is told that something is durable which is not."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from coordination import env as gate
from coordination.env import REAL, Env
from coordination.errors import Conflict, LogDamaged, OutcomeUnknown, Refused
from coordination.log import commit, turns
from coordination.log.file import FileLog, create
from coordination.log.page import open_page

PATIENCE_SECONDS = 20.0


def payload(number: int) -> bytes:
    return b'{"n":%d}' % number


class Hooked(Env):
    """The real world; ``before`` is called before each sync of data, and before each try for the sync turn."""

    def __init__(self) -> None:
        self.syncs = 0
        self.before_sync: Callable[[], None] = lambda: None
        self.before_try: Callable[[], None] = lambda: None
        self.failing_directories = False

    def sync_data(self, descriptor: int) -> None:
        self.syncs += 1
        self.before_sync()
        super().sync_data(descriptor)

    def try_lock(self, descriptor: int) -> bool:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "sync.lock":
            self.before_try()
        return super().try_lock(descriptor)

    def sync_directory(self, path: Path) -> None:
        if self.failing_directories:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_directory(path)


@pytest.fixture
def env() -> Hooked:
    return Hooked()


@pytest.fixture
def directory(tmp_path: Path, env: Hooked) -> Path:
    create(tmp_path / "log", env=env)
    return tmp_path / "log"


def head(log: FileLog) -> int:
    """How far the page says that lines were written."""
    reading = log._pages[-1].read()
    assert reading is not None
    return reading.head.seq


def wiped(directory: Path) -> None:
    """The newest line is gone, as after a failed sync whose bytes the system dropped."""
    path = max(directory.glob("*.jsonl"))
    data = path.read_bytes().rstrip(b"\n")
    begin = data.rindex(b"\n") + 1
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(b"\n" * (len(data) - begin))


def test_what_is_written_during_a_sync_shares_the_next_one(directory: Path, env: Hooked) -> None:
    """Three writers who come while a fourth one syncs need one further sync together, and all get their numbers."""
    entered, proceed = threading.Event(), threading.Event()

    def hold() -> None:
        if env.syncs == 1:
            entered.set()
            assert proceed.wait(PATIENCE_SECONDS)

    env.before_sync = hold
    logs = [FileLog(directory, env=env) for _ in range(4)]
    acknowledged: list[int] = []

    def write(log: FileLog) -> None:
        acknowledged.append(log.append(payload(1), after=0, again=lambda: payload(2)))

    threads = [threading.Thread(target=write, args=(log,)) for log in logs]
    threads[0].start()
    assert entered.wait(PATIENCE_SECONDS)
    for thread in threads[1:]:
        thread.start()
    watcher = FileLog(directory, env=env)
    assert watcher.durable == 0
    while head(watcher) < 4:
        threading.Event().wait(0.001)
    assert acknowledged == []
    assert watcher.durable == 0
    proceed.set()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    assert sorted(acknowledged) == [1, 2, 3, 4]
    assert env.syncs == 2
    assert [seq for seq, _ in watcher.read(0, upto="durable")] == [1, 2, 3, 4]
    for log in (*logs, watcher):
        log.close()


def test_who_waits_is_woken_by_the_sync(directory: Path, env: Hooked) -> None:
    """A follower sleeps on the bell and not on a clock; nothing durable is missed."""
    reader, writer = FileLog(directory, env=env), FileLog(directory, env=env)
    answers: list[bool] = []
    follower = threading.Thread(target=lambda: answers.append(reader.wait(0, PATIENCE_SECONDS)))
    follower.start()
    writer.append(payload(1), after=0)
    follower.join(PATIENCE_SECONDS)
    assert answers == [True]
    assert not reader.wait(1, 0.01)
    for log in (reader, writer):
        log.close()


def test_a_mark_left_by_a_killed_syncer_is_poison(directory: Path, env: Hooked) -> None:
    """The sync that nobody spoke of may have failed: a recovery writes the batches to another file, and they count."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    log._pages[-1].mark("syncing")
    assert log.append(payload(2), after=1) == 2
    assert env.syncs == 1
    assert [seq for seq, _ in log.read(0, upto="durable")] == [1, 2]
    assert log.epoch == 2
    log.close()


def test_a_batch_that_a_recovery_left_out_is_a_conflict(directory: Path, env: Hooked) -> None:
    """Who waited for a sync that never came, and whose line is gone, is told to decide again; it never comes back."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)

    def lose() -> None:
        env.before_try = lambda: None
        wiped(directory)
        log._pages[-1].mark("poison")

    env.before_try = lose
    with pytest.raises(Conflict, match="cut off") as caught:
        log.append(payload(2), after=1)
    assert caught.value.head == 1
    list(log.read(0, upto="head"))
    assert log.append(payload(3), after=1) == 2
    assert [data for _, data in log.read(0, upto="durable")] == [payload(1), payload(3)]
    log.close()


def test_a_batch_that_the_first_of_two_recoveries_left_out_is_a_conflict(directory: Path, env: Hooked) -> None:
    """The second one takes another's batch of that number over: ours is void all the same."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)

    def lose() -> None:
        env.before_try = lambda: None
        wiped(directory)
        log._pages[-1].mark("poison")
        with closing(FileLog(directory)) as other:
            assert other.append(payload(9), after=1, again=lambda: payload(9)) == 2
            other._pages[-1].mark("poison")
            other.settle()

    env.before_try = lose
    with pytest.raises(Conflict, match="cut off"):
        log.append(payload(2), after=1)
    assert [data for _, data in log.read(0, upto="durable")] == [payload(1), payload(9)]
    log.close()


class Killed(BaseException):
    """The process ends here."""


class Mortal(Env):
    """A process that is killed before one of its stores into the shared page."""

    def __init__(self, stores: int) -> None:
        self.left = stores

    def store(self, words: memoryview, index: int, value: int) -> None:
        self._count()
        super().store(words, index, value)

    def store_many(self, words: memoryview, index: int, values: Sequence[int]) -> None:
        self._count()
        super().store_many(words, index, values)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Killed


def test_a_recovery_that_is_killed_anywhere_lets_nobody_acknowledge_what_was_lost(tmp_path: Path) -> None:
    """A sync failed and lost a line; whoever waits for it asks again after each store of the recovery that died."""
    stores, killed = 0, True
    while killed:
        directory = tmp_path / str(stores)
        create(directory)
        env = Hooked()
        log = FileLog(directory, env=env)
        log.append(payload(1), after=0)
        killed = False

        def lose(env: Hooked = env, directory: Path = directory, log: FileLog = log, stores: int = stores) -> None:
            nonlocal killed
            env.before_try = lambda: None
            wiped(directory)
            log._pages[-1].mark("poison")
            with closing(FileLog(directory, env=Mortal(stores))) as other:
                try:
                    other.settle()
                except Killed:
                    killed = True

        env.before_try = lose
        with pytest.raises(Conflict, match="cut off"):
            log.append(payload(2), after=1)
        assert [data for _, data in log.read(0, upto="durable")] == [payload(1)]
        log.close()
        stores += 1
    assert stores > 10, "a recovery stores more than that"


def test_a_recovery_that_fails_leaves_its_mark(directory: Path) -> None:
    """Who comes next recovers again, whatever the first one had already set right."""

    class Full(Env):
        def create(self, path: Path) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    log = FileLog(directory, env=Full())
    watched = open_page(directory / "page", log.uuid, REAL)
    assert watched is not None
    watched.mark("poison")
    with pytest.raises(Refused, match="needs recovery"):
        log.append(payload(1), after=0)
    reading = watched.read()
    assert reading is not None
    assert reading.dirty
    watched.close()
    log.close()


def test_a_recovery_reads_the_older_segments_too(directory: Path) -> None:
    """A flipped byte in one that was closed long ago is found before anything is built on it."""
    with closing(FileLog(directory, segment_bytes=1)) as log:
        for number in range(4):
            log.append(payload(number), after=number)
    oldest = next(path for path in sorted(directory.glob("*.jsonl")) if b'"n":0' in path.read_bytes())
    assert oldest != max(directory.glob("*.jsonl"))
    oldest.write_bytes(oldest.read_bytes().replace(b'"n":0', b'"n":7'))
    (directory / "page").unlink()
    with closing(FileLog(directory)) as log, pytest.raises(LogDamaged):
        log.settle()


def test_nobody_syncs_by_a_page_of_another_boot(directory: Path) -> None:
    """What its marks say of a process, and what is in the memory of the system, no longer belong together."""

    class Rebooted(Env):
        def boot_id(self) -> str:
            return "another boot"

    page = open_page(directory / "page", FileLog(directory).uuid, Rebooted())
    assert page is not None
    attempts = commit.Commit(directory, bell=lambda: None, env=Rebooted())
    assert attempts.try_sync(page, 1) == "refused"
    attempts.close()
    page.close()


def test_settling_after_a_loss_settles_what_is_left(directory: Path, env: Hooked) -> None:
    """Settling is about what there is: a batch that went lost before it was durable is nobody's concern."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    env.before_sync = lambda: (_ for _ in ()).throw(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        log.append(payload(2), after=1)

    def lose() -> None:
        env.before_try = lambda: None
        wiped(directory)

    env.before_try = lose
    log.settle()
    assert [data for _, data in log.read(0, upto="durable")] == [payload(1)]
    assert log.durable == 1
    log.close()


def test_what_was_only_written_is_settled_by_a_sync(directory: Path, env: Hooked) -> None:
    """A batch whose writer was interrupted before its sync is not durable, until somebody settles; no epoch passes."""
    log, other = FileLog(directory, env=env), FileLog(directory, env=env)

    def interrupt() -> None:
        env.before_try = lambda: None
        raise KeyboardInterrupt

    env.before_try = interrupt
    with pytest.raises(KeyboardInterrupt):
        log.append(payload(1), after=0)
    assert [seq for seq, _ in other.read(0, upto="head")] == [1]
    assert other.durable == 0
    other.settle()
    assert (other.durable, other.epoch) == (1, 1)
    for each in (log, other):
        each.close()


def test_without_a_recovery_the_outcome_is_unknown(directory: Path, env: Hooked) -> None:
    """Who waits on a poisoned page, and cannot recover either, is told that nobody knows."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    log._pages[-1].mark("syncing")
    env.failing_directories = True
    with pytest.raises(OutcomeUnknown, match="recovery, which failed"):
        log.append(payload(2), after=1)
    assert log.durable == 1
    env.failing_directories = False
    log.settle()
    assert [seq for seq, _ in log.read(0, upto="durable")] == [1, 2]
    log.close()


def test_a_segment_whose_name_may_be_lost_is_left_behind(directory: Path, env: Hooked) -> None:
    """When the directory could not be synced, the next recovery goes on from the segment that is known to be there."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    log._pages[-1].mark("dirty")
    env.failing_directories = True
    with pytest.raises(Exception, match="recovery, which failed"):
        log.append(payload(2), after=1)
    assert (directory / f"{2:020d}.jsonl").exists()
    env.failing_directories = False
    log.settle()
    (directory / f"{2:020d}.jsonl").unlink()
    assert [seq for seq, _ in log.read(0, upto="durable")] == [1]
    assert log.append(payload(2), after=1) == 2
    log.close()


@pytest.mark.parametrize("newer", [1, 2])
def test_a_page_that_was_put_back_does_not_hide_what_came_after(directory: Path, env: Hooked, newer: int) -> None:
    """An old copy of the page names an older segment; what was written to the newer ones stays."""
    log = FileLog(directory, env=env, segment_bytes=1)
    log.append(payload(1), after=0)
    old = (directory / "page").read_bytes()
    for after in range(1, 1 + newer):
        log.append(payload(after + 1), after=after)
    log.close()
    (directory / "page").write_bytes(old)
    log = FileLog(directory, env=env)
    log.settle()
    assert [seq for seq, _ in log.read(0, upto="durable")] == list(range(1, 2 + newer))
    log.close()


def test_a_log_cannot_grow_over_an_unfinished_sync(directory: Path, env: Hooked) -> None:
    """Before a segment is closed its lines must be durable; if they may not be, the caller decides again."""
    log = FileLog(directory, env=env, segment_bytes=1)
    log.append(payload(1), after=0)
    log._pages[-1].mark("syncing")
    log._pages[-1].reach(0)
    with pytest.raises(Conflict, match="recovered before it can grow"):
        log.append(payload(2), after=1)
    list(log.read(0, upto="head"))
    with pytest.raises(Conflict):
        log.append(payload(2), after=1)
    list(log.read(0, upto="head"))
    assert log.append(payload(2), after=1) == 2
    assert [seq for seq, _ in log.read(0, upto="durable")] == [1, 2]
    log.close()


def test_a_page_that_was_copied_in_place_goes_on(directory: Path, env: Hooked) -> None:
    """Another file with the same words has the page's name: it is mapped instead, and says the same."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)

    def replace() -> None:
        env.before_try = lambda: None
        (directory / "copy").write_bytes((directory / "page").read_bytes())
        (directory / "copy").rename(directory / "page")

    env.before_try = replace
    assert log.append(payload(2), after=1) == 2
    assert (log.durable, log.epoch) == (2, 1)
    log.close()


def test_one_of_ours_is_known_by_the_file_it_has_open(directory: Path, env: Hooked) -> None:
    """A connection that is ours can be told from any other for as long as it lives, from its first write on."""
    other, ours = FileLog(directory, env=env), FileLog(directory, env=env, ours=True)
    other.append(payload(1), after=0)
    list(ours.read(0, upto="head"))
    assert not env.has_open(env.pid(), directory / "ours")
    ours.settle()
    assert env.has_open(env.pid(), directory / "ours")
    for log in (ours, other):
        log.close()
    assert not env.has_open(env.pid(), directory / "ours")


def test_without_room_for_that_file_the_log_goes_on(directory: Path) -> None:
    """That one cannot be freed when one is stopped is no reason not to write."""

    class Full(Env):
        def open_write(self, path: Path) -> int:
            if path.name == "ours":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().open_write(path)

    log = FileLog(directory, env=Full(), ours=True)
    assert log.append(payload(1), after=0) == 1
    log.close()


def test_a_log_that_was_only_half_made_is_made_again(tmp_path: Path, env: Hooked) -> None:
    """Killed after its first segment and before its page: the segment is published again, under the same name."""
    create(tmp_path / "log", env=env)
    (tmp_path / "log" / "page").unlink()
    (path,) = (tmp_path / "log").glob("*.jsonl")
    before = path.stat().st_ino, path.read_bytes()
    create(tmp_path / "log", env=env)
    assert (path.stat().st_ino, path.read_bytes()) != before
    assert path.read_bytes() == before[1]
    log = FileLog(tmp_path / "log", env=env)
    assert log.append(payload(1), after=0) == 1
    assert log.epoch == 1
    log.close()


@pytest.mark.parametrize("rest", [b"torn", b'{"seq":1,"durable":0,"n":1,"sum":"00000000"}\n'])
def test_what_is_damaged_is_never_made_again(directory: Path, env: Hooked, rest: bytes) -> None:
    """Without a page, a segment in which anything stands behind its header is left as it is, byte for byte."""
    (directory / "page").unlink()
    (path,) = directory.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + rest)
    before = path.read_bytes()
    create(directory, env=env)
    assert path.read_bytes() == before


def test_who_cannot_wait_any_longer_does_not_deny_what_it_wrote(
    directory: Path, env: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is written, and whoever keeps the sync turn may still make it durable: the outcome is unknown."""
    log, other = FileLog(directory, env=env), FileLog(directory, env=env)
    monkeypatch.setattr(turns, "_PATIENCE_SECONDS", 0.0)
    with other._commit.turns, pytest.raises(OutcomeUnknown, match=r"sync\.lock"):
        log.append(payload(1), after=0)
    log.settle()
    assert [data for _, data in log.read(0, upto="durable")] == [payload(1)]
    for each in (log, other):
        each.close()


def test_a_page_that_never_rests_is_not_read_for_ever(directory: Path, env: Hooked) -> None:
    """When every look finds other words, and none of them whole, the page says nothing."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    (page,) = log._pages
    looks = 0

    def unwhole(*_: object) -> None:
        nonlocal looks
        looks += 1
        page.begin_round(looks)
        page._words[0] = looks

    page._reading = unwhole  # type: ignore[method-assign,assignment]
    assert page.read() is None
    assert looks == 100
    log.close()


def test_a_bell_that_rang_before_is_not_slept_on(directory: Path, env: Hooked) -> None:
    """Who heard it before it rang, and lies down after, gets up at once."""
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    bell = log._pages[-1].bells["append"]
    heard = bell.heard()
    bell.ring(1)
    before = env.monotonic()
    bell.sleep(heard, 300)
    assert env.monotonic() - before < 200
    log.close()


def test_a_segment_that_vanishes_under_a_connection_is_damage(directory: Path, env: Hooked) -> None:
    """Gone between connecting and reading, or between two reads, it is said to be missing."""
    for reads in (0, 1):
        log = FileLog(directory, env=env)
        log.append(payload(1), after=0, again=lambda: payload(1))
        fresh = FileLog(directory, env=env)
        for _ in range(reads):
            list(fresh.read(0, upto="head"))
        (path,) = directory.glob("*.jsonl")
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(LogDamaged, match="missing"):
            list(fresh.read(0, upto="head"))
        path.write_bytes(data)
        for each in (log, fresh):
            each.close()


def test_who_ends_a_sync_rings_for_those_it_covered(directory: Path) -> None:
    """Or whoever sleeps until that round is over would wait for the end of his bounded sleep."""
    log = FileLog(directory)
    watched = open_page(directory / "page", log.uuid, REAL)
    assert watched is not None
    before = watched.heard()
    log.append(payload(1), after=0)
    assert all(now != then for now, then in zip(watched.heard(), before, strict=True))
    watched.close()
    log.close()


def test_a_page_that_cannot_be_made_is_refused(directory: Path) -> None:
    """On a full disk no page can be made, so nothing is appended, and later everything goes on."""

    class Full(Env):
        full = True

        def write(self, descriptor: int, data: bytes, offset: int) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data, offset)

    env = Full()
    (directory / "page").unlink()
    log = FileLog(directory, env=env)
    with pytest.raises(Refused, match="No space"):
        log.append(payload(1), after=0)
    env.full = False
    list(log.read(0, upto="head"))
    with pytest.raises(Conflict):
        log.append(payload(1), after=0)
    list(log.read(0, upto="head"))
    assert log.append(payload(1), after=0) == 1
    log.close()


def test_names_are_asked_only_when_the_directory_moved(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a directory that rests a turn asks for no name, and still sees at once when a file was replaced."""
    asked: list[str] = []

    class Asked(Env):
        def file_id_at(self, path: Path | str) -> tuple[int, int] | None:
            asked.append(Path(path).name)
            return super().file_id_at(path)

    monkeypatch.setattr(gate, "_RACY_NANOSECONDS", 0)
    env = Asked()
    log = FileLog(directory, env=env)
    log.append(payload(1), after=0)
    log.append(payload(2), after=1)
    assert {"append.lock", "sync.lock", "page"} <= set(asked)
    asked.clear()
    log.append(payload(3), after=2)
    assert asked == []
    stamp = env.names_stamp(directory)
    (path,) = directory.glob("*.jsonl")
    whole = path.read_bytes()
    path.rename(directory / "old")
    path.write_bytes(whole)
    number = 0
    while env.names_stamp(directory) == stamp:  # within one tick of its clock there is no telling, hence the real limit
        (directory / f"other-{number}").touch()
        number += 1
    log.append(payload(4), after=3)
    assert [data for _, data in log.read(0, upto="durable")] == [payload(n) for n in range(1, 5)]
    assert (directory / "old").read_bytes() == whole
    log.close()
