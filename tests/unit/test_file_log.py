"""Whatever breaks, nothing acknowledged is lost, and what is damaged is said and never served."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordination.env import Env
from coordination.errors import Conflict, LogDamaged, NotFound, OutcomeUnknown, Refused, Unsuitable
from coordination.log.file import FileLog, create

BATCHES = 4


class Faulty(Env):
    """The real world, until one gesture fails."""

    def __init__(self) -> None:
        self.fault = ""
        self.boot = "this"
        self.process = os.getpid()

    def boot_id(self) -> str:
        return self.boot

    def pid(self) -> int:
        return self.process

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self.fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.fault == "short":
            return super().write(descriptor, data[: len(data) // 2], offset)
        return super().write(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        if self.fault == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync_data(descriptor)

    def sync(self, descriptor: int) -> None:
        if self.fault == "publish":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(descriptor)


def payload(number: int) -> bytes:
    return b'{"n":%d}' % number


def numbers(log: FileLog, upto: str = "head") -> list[int]:
    return [json.loads(data)["n"] for _, data in log.read(0, upto="durable" if upto == "durable" else "head")]


@pytest.fixture
def env() -> Faulty:
    return Faulty()


@pytest.fixture
def directory(tmp_path: Path, env: Faulty) -> Path:
    """A log of four batches in good order."""
    create(tmp_path / "log", env=env)
    with connected(tmp_path / "log", env) as log:
        for number in range(1, BATCHES + 1):
            log.append(payload(number), after=number - 1)
    return tmp_path / "log"


@contextmanager
def connected(directory: Path, env: Env, segment_bytes: int = 1 << 20) -> Iterator[FileLog]:
    log = FileLog(directory, env=env, segment_bytes=segment_bytes)
    try:
        yield log
    finally:
        log.close()


def appended(log: FileLog, number: int) -> int:
    """Append at the head, reading again after a conflict, as every caller must."""
    while True:
        head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
        try:
            return log.append(payload(number), after=head)
        except Conflict:
            continue


def tail(directory: Path) -> Path:
    return max(directory.glob("*.jsonl"))


def lines_of(path: Path) -> bytes:
    """A segment without the fill behind its last line."""
    return path.read_bytes().rstrip(b"\n") + b"\n"


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.jsonl")}


def test_a_log_must_be_made_before_it_is_used(tmp_path: Path) -> None:
    """Connecting where nothing is raises NotFound, making it twice is fine and keeps it."""
    with pytest.raises(NotFound):
        FileLog(tmp_path / "log")
    create(tmp_path / "log")
    with connected(tmp_path / "log", Env()) as log:
        log.append(payload(1), after=0)
    create(tmp_path / "log")
    with connected(tmp_path / "log", Env()) as log:
        assert numbers(log) == [1]


def test_good_order_is_kept_without_recovery(directory: Path, env: Faulty) -> None:
    """Connections of one boot go on in the same segment and epoch."""
    with connected(directory, env) as first, connected(directory, env) as second:
        assert first.append(payload(5), after=4) == 5
        assert numbers(second) == [1, 2, 3, 4, 5]
        assert second.append(payload(6), after=5) == 6
        assert first.epoch == second.epoch == 1
    assert list(files(directory)) == ["00000000000000000001.jsonl"]


def test_after_a_reboot_the_last_batch_is_unproven_until_a_writer_copies_it(directory: Path, env: Faulty) -> None:
    """Readers of a new boot believe the lines only, write nothing, and call the rest not durable."""
    before = files(directory)
    env.boot = "next"
    with connected(directory, env) as log:
        assert numbers(log) == [1, 2, 3, 4]
        assert numbers(log, "durable") == [1, 2, 3]
        assert log.durable == 3
        assert not log.wait(3, 0.01)
        assert files(directory) == before
        log.settle()
        assert log.durable == 4
        assert log.epoch == 1
        assert numbers(log, "durable") == [1, 2, 3, 4]
        assert log.epoch == 2
    after = files(directory)
    assert after["00000000000000000001.jsonl"] == before["00000000000000000001.jsonl"]
    assert json.loads(after["00000000000000000002.jsonl"].splitlines()[1])["n"] == 4


def test_what_recovery_wrote_is_proven_by_itself(directory: Path, env: Faulty) -> None:
    """A second reboot right after a recovery finds everything durable: a segment appears synced or not at all."""
    env.boot = "next"
    with connected(directory, env) as log:
        log.settle()
    env.boot = "after that"
    with connected(directory, env) as log:
        assert log.durable == BATCHES


def test_appending_across_a_recovery_conflicts(directory: Path, env: Faulty) -> None:
    """Who decided in one epoch may not append in another, though the number fits: it may be another batch."""
    with connected(directory, env) as early, connected(directory, env) as late:
        (directory / "page").unlink()
        late.settle()
        with pytest.raises(Conflict) as caught:
            early.append(payload(5), after=4)
        assert caught.value.head == 4
        assert numbers(early) == [1, 2, 3, 4]
        assert early.append(payload(5), after=4) == 5


def test_a_torn_end_is_void_and_stays(directory: Path, env: Faulty) -> None:
    """Cut anywhere in an unacknowledged line, the log goes on after the line before; old bytes stay as they are."""
    page = (directory / "page").read_bytes()
    path = tail(directory)
    whole = lines_of(path)
    with connected(directory, env) as log:
        log.append(payload(5), after=4)
    line = lines_of(path)[len(whole) :]
    spare = directory.with_name("spare")
    for length in range(len(line)):
        shutil.rmtree(spare, ignore_errors=True)
        shutil.copytree(directory, spare)
        (spare / "page").write_bytes(page)
        tail(spare).write_bytes(whole + line[:length])
        torn = files(spare)
        with connected(spare, env) as log:
            assert numbers(log, "durable") == [1, 2, 3, 4], length
            assert appended(log, 6) == 5, length
            assert numbers(log) == [1, 2, 3, 4, 6], length
        if length:
            assert files(spare).items() >= torn.items(), length
    assert length == len(line) - 1


def test_a_line_that_was_written_but_not_acknowledged_may_stay(directory: Path, env: Faulty) -> None:
    """A whole line behind the page's head is taken over by recovery, not lost and not doubled."""
    page = (directory / "page").read_bytes()
    with connected(directory, env) as log:
        log.append(payload(5), after=4)
    (directory / "page").write_bytes(page)
    with connected(directory, env) as log:
        assert appended(log, 6) == 6
        assert numbers(log) == [1, 2, 3, 4, 5, 6]


def test_cutting_what_was_acknowledged_is_damage(directory: Path, env: Faulty) -> None:
    """However much of acknowledged lines is missing, everybody is told where, in this boot and the next."""
    whole = lines_of(tail(directory))
    header = whole.index(b"\n") + 1
    for boot in ("this", "next"):
        env.boot = boot
        for length in range(header, len(whole)):
            tail(directory).write_bytes(whole[:length])
            with connected(directory, env) as log:
                for upto in ("head", "durable"):
                    with pytest.raises(LogDamaged, match=r"acknowledged|reaches") as caught:
                        numbers(log, upto)
                assert caught.value.path == str(tail(directory))
                with pytest.raises(LogDamaged, match="coord repair"):
                    log.append(payload(5), after=4)
    assert files(directory) == {tail(directory).name: whole[: len(whole) - 1]}


def test_any_flipped_byte_is_found_or_harmless(directory: Path, env: Faulty) -> None:
    """One changed byte in any line, with or without the page, gives LogDamaged or the same batches, never others."""
    whole = lines_of(tail(directory))
    page = (directory / "page").read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        tail(directory).write_bytes(flipped)
        (directory / "page").write_bytes(page)
        with pytest.raises(LogDamaged), connected(directory, env) as log:
            numbers(log)
        env.boot = "next"  # so that a writer reads it all
        with pytest.raises(LogDamaged), connected(directory, env) as log:
            log.settle()
        env.boot = "this"


@pytest.mark.parametrize("appended", [0, 1])
def test_a_page_alone_means_a_lost_log_only_if_anything_was_acknowledged(tmp_path: Path, appended: int) -> None:
    """A power cut may leave the page of a log that was being made, and never the page alone of one that was used."""
    create(tmp_path / "log")
    with closing(FileLog(tmp_path / "log")) as log:
        for number in range(appended):
            log.append(b'{"n":1}', after=number)
    tail(tmp_path / "log").unlink()
    with pytest.raises(LogDamaged if appended else NotFound):
        FileLog(tmp_path / "log")
    if not appended:
        (tmp_path / "log" / "page").write_bytes(b"short")
        create(tmp_path / "log")
        with closing(FileLog(tmp_path / "log")) as log:
            assert log.append(b'{"n":1}', after=0) == 1


def test_without_the_page_only_the_last_line_can_pass_for_torn(directory: Path, env: Faulty) -> None:
    """The one declared weakness: page lost and last line damaged; anything earlier is still found."""
    whole = lines_of(tail(directory))
    last = whole.index(b'{"seq":4')
    for place in range(last):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        tail(directory).write_bytes(flipped)
        (directory / "page").unlink(missing_ok=True)
        try:
            with connected(directory, env) as log:
                log.settle()
        except LogDamaged:
            continue
        # the line feed before the last line: only what follows is in doubt
        assert place == last - 1, place
        pytest.fail("a flipped line feed hid an acknowledged batch")
    assert tail(directory).name == "00000000000000000001.jsonl"


def test_any_flipped_byte_of_the_page_is_harmless_or_found(directory: Path, env: Faulty) -> None:
    """The page only saves time: with any byte of it changed the batches are the same, or the log is refused."""
    page = (directory / "page").read_bytes()
    original = files(directory)
    for place in range(16 * 8):
        for path in directory.glob("*.jsonl"):
            path.unlink()
        for name, data in original.items():
            (directory / name).write_bytes(data)
        flipped = bytearray(page)
        flipped[place] ^= 1 << place % 8
        (directory / "page").write_bytes(flipped)
        with connected(directory, env) as log:
            assert appended(log, 5) == 5, place
            assert numbers(log) == [1, 2, 3, 4, 5], place


@pytest.mark.parametrize("size", [0, 7, 4095])
def test_a_page_that_is_too_short_is_made_anew(directory: Path, env: Faulty, size: int) -> None:
    """A cut page is never mapped; the next writer replaces it."""
    (directory / "page").write_bytes(bytes(size))
    with connected(directory, env) as log:
        assert numbers(log) == [1, 2, 3, 4]
        assert appended(log, 5) == 5
    assert (directory / "page").stat().st_size == 4096


@pytest.mark.parametrize("fault", ["full", "short", "sync"])
def test_a_failed_append_is_outcome_unknown_and_heals(directory: Path, env: Faulty, fault: str) -> None:
    """A full disk, a short write and a failed sync acknowledge nothing; once the cause is gone the log goes on."""
    with connected(directory, env) as log, connected(directory, env) as other:
        env.fault = fault
        with pytest.raises(OutcomeUnknown, match="may or may not"):
            log.append(payload(5), after=4)
        assert log.durable == 4
        assert numbers(log, "durable") == [1, 2, 3, 4]
        env.fault = ""
        head = appended(other, 6)
        assert numbers(log) == numbers(other) == ([1, 2, 3, 4, 5, 6] if fault == "sync" else [1, 2, 3, 4, 6])
        assert log.durable == head


def test_a_file_whose_sync_failed_is_never_synced_again(directory: Path, env: Faulty) -> None:
    """After a failed sync the batches that are not proven go into another file, by another sync."""
    with connected(directory, env) as log:
        env.fault = "sync"
        with pytest.raises(OutcomeUnknown):
            log.append(payload(5), after=4)
        # data syncs still fail, so recovery can only succeed by publishing
        log.settle()
        assert numbers(log, "durable") == [1, 2, 3, 4, 5]
        assert log.epoch == 2


def test_after_a_failed_sync_the_page_proves_nothing(directory: Path, env: Faulty) -> None:
    """A disk that failed once may have lost more: the newest acknowledged batch, too, is written to a new file."""
    whole = lines_of(tail(directory))
    with connected(directory, env) as log:
        env.fault = "sync"
        with pytest.raises(OutcomeUnknown):
            log.append(payload(5), after=4)
        tail(directory).write_bytes(whole)  # the system dropped what it could not write
        log.settle()
        assert numbers(log, "durable") == [1, 2, 3, 4]
    assert json.loads(tail(directory).read_bytes().splitlines()[1])["n"] == 4


def test_recovery_that_fails_is_refused_and_tried_again(directory: Path, env: Faulty) -> None:
    """While the disk cannot take the new segment nothing is acknowledged; afterwards nothing is missing."""
    (directory / "page").unlink()
    with connected(directory, env) as log:
        env.fault = "publish"
        with pytest.raises(Refused, match="recovery"):
            log.append(payload(5), after=4)
        env.fault = ""
        assert appended(log, 5) == 5
        assert numbers(log) == [1, 2, 3, 4, 5]
    assert not list(directory.glob(".*.tmp"))


@pytest.mark.parametrize("fault", ["sync", "publish"])
def test_a_failed_roll_is_outcome_unknown_and_heals(directory: Path, env: Faulty, fault: str) -> None:
    """A new segment that cannot be made acknowledges nothing and loses nothing."""
    with connected(directory, env, segment_bytes=100) as log:
        env.fault = fault
        with pytest.raises(OutcomeUnknown):
            log.append(payload(5), after=4)
        env.fault = ""
        # what fails is the sync of the batch itself where the old segment was synced before
        known = [1, 2, 3, 4, 5] if fault == "sync" else [1, 2, 3, 4]
        assert appended(log, 5) == len(known) + 1
        assert numbers(log) == [*known, 5]


def test_readers_follow_over_a_roll(directory: Path, env: Faulty) -> None:
    """A connection that was reading the old segment goes on in the new one, in the same epoch."""
    with connected(directory, env, segment_bytes=100) as writer, connected(directory, env) as reader:
        assert numbers(reader) == [1, 2, 3, 4]
        for number in (5, 6, 7):
            writer.append(payload(number), after=number - 1)
            assert [seq for seq, _ in reader.read(number - 1, upto="head")] == [number]
        assert reader.epoch == 1
        assert [seq for seq, _ in reader.read(2, upto="durable")] == [3, 4, 5, 6, 7]
    assert len(files(directory)) == 4


def test_one_long_segment_can_be_entered_anywhere(directory: Path, env: Faulty) -> None:
    """Reading after any number gives the same batches, whichever verified position it starts from."""
    with connected(directory, env) as log:
        for number in range(5, 41):
            log.append(b'{"n":%d,"text":"%b"}' % (number, b"x" * 9000), after=number - 1)
    with connected(directory, env) as log:
        assert numbers(log) == list(range(1, 41))
        for after in (17, 3, 38, 0, 29):
            assert [seq for seq, _ in log.read(after, upto="head")] == list(range(after + 1, 41))


def test_a_system_without_boot_names_can_only_read(directory: Path, env: Faulty) -> None:
    """Where nobody says which boot this is the page is never believed, and writing is refused with the reason."""
    env.boot = ""
    with connected(directory, env) as log:
        assert numbers(log) == [1, 2, 3, 4]
        with pytest.raises(Unsuitable, match="which boot"):
            log.append(payload(5), after=4)


def test_a_connection_does_not_cross_a_fork(directory: Path, env: Faulty) -> None:
    """A forked child would share its parent's lock, so it is refused and told what to do."""
    with connected(directory, env) as log:
        env.process += 1
        with pytest.raises(Refused, match="connect again"):
            log.append(payload(5), after=4)
        with pytest.raises(Refused, match="connect again"):
            log.settle()


def test_a_vanished_tail_is_damage(directory: Path, env: Faulty) -> None:
    """A segment that is removed while it is written to is noticed before the next line, and not made anew."""
    with connected(directory, env) as log:
        assert numbers(log) == [1, 2, 3, 4]
        tail(directory).unlink()
        with pytest.raises(LogDamaged):
            log.append(payload(5), after=4)
    assert files(directory) == {}


def test_a_replaced_tail_is_not_written_to_blindly(directory: Path, env: Faulty) -> None:
    """When another file has the segment's name, the old one gets no acknowledged line."""
    with connected(directory, env) as log:
        assert log.append(payload(5), after=4) == 5
        path = tail(directory)
        whole = path.read_bytes()
        path.rename(directory / "old")
        path.write_bytes(whole)
        assert log.append(payload(6), after=5) == 6
        assert numbers(log) == [1, 2, 3, 4, 5, 6]
    assert (directory / "old").read_bytes() == whole


def test_bytes_behind_the_head_start_a_recovery(directory: Path, env: Faulty) -> None:
    """What somebody else wrote at the end is never overwritten: it is left, void, in the old segment."""
    with tail(directory).open("ab") as file:
        file.write(b"not ours")
    with connected(directory, env) as log:
        assert appended(log, 5) == 5
        assert numbers(log) == [1, 2, 3, 4, 5]
    assert files(directory)["00000000000000000001.jsonl"].endswith(b"not ours")


def test_lines_beyond_a_bad_one_are_damage(directory: Path, env: Faulty) -> None:
    """Without any witness, a valid-looking line behind a bad one still tells a hole from a torn end."""
    whole = tail(directory).read_bytes()
    tail(directory).write_bytes(whole.replace(b'"n":3', b'"n":9'))
    (directory / "page").unlink()
    with connected(directory, env) as log, pytest.raises(LogDamaged, match="acknowledged") as caught:
        log.settle()
    assert caught.value.seq == 3
    assert caught.value.offset == whole.index(b'{"seq":3')


def test_a_linked_lock_is_refused(directory: Path, env: Faulty) -> None:
    """A symbolic link in the append lock's place is not followed."""
    (directory / "append.lock").unlink()
    (directory / "append.lock").symlink_to(directory / "elsewhere")
    with connected(directory, env) as log, pytest.raises(Unsuitable, match="symbolic link"):
        log.append(payload(5), after=4)


def test_an_interrupted_store_of_the_page_is_not_believed(directory: Path) -> None:
    """Stopped between any two stores of the page, the batch is there once or not at all, and the log goes on."""

    class Interrupted(Env):
        left = 1 << 30

        def store(self, words: memoryview, index: int, value: int) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            super().store(words, index, value)

        def store_many(self, words: memoryview, index: int, values: Sequence[int]) -> None:
            for place, value in enumerate(values, index):
                self.store(words, place, value)

    env = Interrupted()
    with connected(directory, env) as log:
        log.settle()
        head, tries = log.durable, 0
        while True:
            list(log.read(0, upto="head"))
            env.left, tries = tries, tries + 1
            try:
                log.append(payload(tries), after=head)
            except KeyboardInterrupt:
                env.left = 1 << 30
                log.settle()
                seen = [seq for seq, _ in log.read(0, upto="durable")]
                assert seen in (list(range(1, head + 1)), list(range(1, head + 2)))
                head = len(seen)
            else:
                break
    assert tries > 10


def test_a_mark_stands_while_a_line_is_written_and_none_afterwards(directory: Path) -> None:
    """Whoever looks at the page during the write sees unfinished work, and after the append none."""
    seen: list[bool] = []

    class Looking(Env):
        log: FileLog | None = None

        def write(self, descriptor: int, data: bytes, offset: int) -> int:
            seen.append(marked(self.log))
            return super().write(descriptor, data, offset)

    def marked(log: FileLog | None) -> bool:
        reading = log._pages[-1].read() if log is not None else None
        assert reading is not None
        return reading.dirty

    world = Looking()
    create(directory.with_name("other"), env=Env())
    with connected(directory.with_name("other"), world) as log:
        world.log = log
        log.append(payload(1), after=0)
        assert seen
        assert all(seen)
        assert not marked(log)
