"""What is found in a damaged log, and what a repaired one says."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordination.env import Env
from coordination.errors import LockHeld, LogDamaged, NotFound
from coordination.log import frames
from coordination.log.examination import Examination, Fate, Witness, bytes_of
from coordination.log.file import FileLog, create
from coordination.log.page import open_page
from coordination.log.repair import examine, mend, read
from coordination.log.segments import PAGE

ENV = Env()
FIRST, SECOND, THIRD = (f"{number:020d}.jsonl" for number in (1, 2, 3))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Nine batches in three segments of three epochs: 1 to 3, 3 to 6 (3 was copied), 6 to 9."""
    where = tmp_path / "log"
    create(where)
    for last in (3, 6, 9):
        append(where, last)
        if last < 9:
            (where / "page").unlink()
    for path in where.glob("*.jsonl"):
        path.write_bytes(path.read_bytes().rstrip(b"\n") + b"\n")
    return where


def append(where: Path, last: int) -> None:
    log = FileLog(where)
    log.settle()
    head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
    for seq in range(head + 1, last + 1):
        log.append(payload(seq), after=seq - 1)
    log.close()


def payload(seq: int) -> bytes:
    return b'{"n":%d,"text":"batch %d"}' % (seq, seq)


def placeholder(seq: int, raw: bytes | None, before: bytes) -> bytes:
    return json.dumps({"lost": seq, "raw": raw is not None, "before": before.decode()}).encode()


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1, (old, data)
    path.write_bytes(data.replace(old, new))


def line_of(path: Path, seq: int) -> bytes:
    return next(raw for raw in path.read_bytes().split(b"\n") if raw.startswith(b'{"seq":%d,' % seq))


def numbers(found: Examination, fate: Fate) -> list[int]:
    return [seq for first, last in found.numbers(fate) for seq in range(first, last + 1)]


def batches(where: Path) -> dict[int, bytes]:
    log = FileLog(where)
    try:
        return dict(log.read(0, upto="head"))
    finally:
        log.close()


def repaired(where: Path, witness: Witness | None = None) -> dict[int, bytes]:
    """Repair, see that a second time nothing is left to do, and that the log takes another batch."""
    backups = where.with_name("repair")
    done = mend(where, backups / "1", placeholder=placeholder, env=ENV, witness=witness)
    assert done.backup == backups / "1"
    page = open_page(where / PAGE, done.found.log, ENV)
    reading = None if page is None else page.read()
    assert reading is not None
    assert (reading.dirty, reading.head.segment, reading.durable) == (False, done.found.next_segment, done.found.head)
    again = mend(where, backups / "2", placeholder=placeholder, env=ENV, witness=witness)
    assert again.found.whole
    assert again.backup is None
    found = batches(where)
    append(where, len(found) + 1)
    assert batches(where) == found | {len(found) + 1: payload(len(found) + 1)}
    return found


ALL = {seq: payload(seq) for seq in range(1, 10)}


def test_a_whole_log_is_whole(directory: Path) -> None:
    """Nothing is found, nothing is done, nothing is written."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    found = examine(directory, env=ENV)
    assert (found.whole, found.head, found.damages, found.notes) == (True, 9, (), ())
    assert numbers(found, Fate.INTACT) == [*range(1, 10)]
    assert mend(directory, directory.with_name("backup"), placeholder=placeholder, env=ENV).backup is None
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert not directory.with_name("backup").exists()
    assert dict(read(found, 0, placeholder=placeholder, env=ENV)) == ALL


def test_a_damaged_body_is_lost_and_everything_behind_it_is_kept(directory: Path) -> None:
    """The next line fits the digits that the damaged one states, so it is proven; so is the rest."""
    change(directory / SECOND, b"batch 4", b"bitch 4")
    found = examine(directory, env=ENV)
    assert (numbers(found, Fate.LOST), numbers(found, Fate.DOUBTFUL)) == ([4], [])
    (damage,) = found.damages
    assert (damage.first, damage.last, damage.path.name) == (4, 4, SECOND)
    assert b"bitch 4" in bytes_of(damage, ENV)
    assert found.good is not None
    assert (found.good.segment, found.good.last_seq) == (2, 3)
    log = repaired(directory)
    assert json.loads(log.pop(4)) == {"lost": 4, "raw": True, "before": payload(3).decode()}
    assert log == {seq: data for seq, data in ALL.items() if seq != 4}


def test_damaged_digits_lose_nothing(directory: Path) -> None:
    """The line behind fits the checksum that the bytes give."""
    digits = line_of(directory / SECOND, 4)[-10:-2]
    change(directory / SECOND, digits, b"########")
    found = examine(directory, env=ENV)
    assert numbers(found, Fate.INTACT) == [*range(1, 10)]
    assert not found.whole
    assert repaired(directory) == ALL


@pytest.mark.parametrize("witness", ["header", "page", "nothing"])
def test_damaged_digits_at_an_end_are_proven_by_whoever_knows_the_end(directory: Path, witness: str) -> None:
    """The header of the next segment for a closed one, the page for the newest; without both a number is doubtful."""
    path, seq = (directory / SECOND, 5) if witness == "header" else (directory / THIRD, 9)
    change(path, line_of(path, seq)[-10:-2], b"########")
    if witness == "header":
        data = path.read_bytes()
        path.write_bytes(data[: data.index(b'{"seq":6,')])  # 5 is the last line that counts there
    if witness == "nothing":
        (directory / "page").unlink()
        found = examine(directory, env=ENV)
        assert numbers(found, Fate.DOUBTFUL) == [9]
        assert 9 in repaired(directory)
        return
    assert repaired(directory) == ALL


def test_a_flipped_digit_is_seen_without_any_neighbour(directory: Path) -> None:
    """Seven of eight digits do not fit by chance."""
    (directory / "page").unlink()
    line = line_of(directory / THIRD, 9)
    change(directory / THIRD, line[-10:], (b"0" if line[-10:-9] != b"0" else b"1") + line[-9:])
    assert repaired(directory) == ALL


def test_a_line_whose_predecessor_is_destroyed_is_kept_and_called_doubtful(directory: Path) -> None:
    """Nothing can prove it, so it is named; nothing speaks against it, so it is not thrown away."""
    line = line_of(directory / THIRD, 7)
    change(directory / THIRD, line, b"\0" * len(line))
    found = examine(directory, env=ENV)
    assert (numbers(found, Fate.LOST), numbers(found, Fate.DOUBTFUL)) == ([7], [8])
    log = repaired(directory)
    assert {seq for seq in ALL if log[seq] != ALL[seq]} == {7}


def test_what_is_doubtful_must_make_sense(directory: Path) -> None:
    """A line that nothing proves is kept only if its payload can be one."""
    line = line_of(directory / THIRD, 7)
    change(directory / THIRD, line, b"\0" * len(line))
    found = examine(directory, env=ENV, witness=Witness(believable=lambda _payload: False))
    assert numbers(found, Fate.LOST) == [7, 8]


def test_lines_without_a_trace_leave_their_successor_doubtful(directory: Path) -> None:
    """Line feeds stand where batches 7 stood: batch 8 does not follow 6, but that says nothing against it."""
    line = line_of(directory / THIRD, 7)
    change(directory / THIRD, line, b"\n" * len(line))
    assert numbers(examine(directory, env=ENV), Fate.DOUBTFUL) == [8]
    assert {seq for seq, data in repaired(directory).items() if ALL[seq] != data} == {7}


def test_a_last_line_behind_lines_without_a_trace_is_doubtful(directory: Path) -> None:
    """Nothing stands behind it, either; its number says that it does not follow the last proven one."""
    (directory / "page").unlink()
    line = line_of(directory / THIRD, 8)
    change(directory / THIRD, line, b"\n" * len(line))
    found = examine(directory, env=ENV)
    assert numbers(found, Fate.DOUBTFUL) == [8, 9]
    assert {seq for seq, data in repaired(directory).items() if ALL[seq] != data} == {8}


def test_a_doubtful_line_has_no_number_that_its_segment_cannot_have(directory: Path) -> None:
    """Batch 9 with the damaged number 2, in a segment that begins with 6, is not the lost batch 2."""
    (directory / "page").unlink()
    change(directory / FIRST, b"batch 2", b"botch 2")
    line = line_of(directory / THIRD, 8)
    change(directory / THIRD, line, bytes(len(line)))
    change(directory / THIRD, b'{"seq":9,', b'{"seq":2,')
    assert json.loads(repaired(directory)[2])["lost"] == 2


def test_digits_that_a_damaged_neighbour_leads_to_prove_both(directory: Path) -> None:
    """The header's words are damaged, and of line 6 only what stands round its digits."""
    (directory / "page").unlink()
    change(directory / THIRD, b'"durable":6,"previous"', b'"duvable":6,"previous"')
    line = line_of(directory / THIRD, 6)
    change(directory / THIRD, line, line.replace(b'"sum":', b'"sumb:'))
    found = examine(directory, env=ENV)
    assert numbers(found, Fate.INTACT) == [*range(1, 10)]
    assert repaired(directory) == ALL


def test_a_missing_segment_may_have_held_any_number_of_batches(directory: Path) -> None:
    """So a line of the one behind it is not too far out, although nothing else is left."""
    uuid = examine(directory, env=ENV).log
    for path in (directory / FIRST, directory / SECOND, directory / "page"):
        path.unlink()
    data = (directory / THIRD).read_bytes()
    begin, end = data.index(b'{"seq":9,'), data.index(b"\n", data.index(b'{"seq":9,'))
    (directory / THIRD).write_bytes(bytes(60) + b"\n" + data[begin:end] + b"\n")
    log = repaired(directory, Witness(acknowledged={uuid: 1}))
    assert (len(log), log[9]) == (9, payload(9))


def test_rubble_behind_a_whole_line_leaves_its_successor_doubtful(directory: Path) -> None:
    """The end of batch 7 was overwritten with the end of another line, and batch 8 is whole."""
    line = line_of(directory / THIRD, 7)
    rubble = line_of(directory / THIRD, 6) + line_of(directory / THIRD, 6)[-40:]
    change(directory / THIRD, line_of(directory / THIRD, 6) + b"\n" + line, rubble)
    found = examine(directory, env=ENV)
    assert (numbers(found, Fate.LOST), numbers(found, Fate.DOUBTFUL)) == ([7], [8])


def test_three_wrong_digits_are_no_proof(directory: Path) -> None:
    """Without a neighbour nobody can tell whether the bytes or the digits are damaged."""
    (directory / "page").unlink()
    line = line_of(directory / THIRD, 9)
    wrong = bytes(48 if sign != 48 else 49 for sign in line[-10:-7])
    change(directory / THIRD, line[-10:], wrong + line[-7:])
    assert numbers(examine(directory, env=ENV), Fate.DOUBTFUL) == [9]
    assert json.loads(repaired(directory)[9])["lost"] == 9


def test_a_file_whose_name_another_one_has_is_not_forgotten(directory: Path) -> None:
    """Swapped, and the header of one of them is gone: it is the number that is left."""
    (directory / FIRST).rename(directory / "x")
    (directory / SECOND).rename(directory / FIRST)
    (directory / "x").rename(directory / SECOND)
    change(directory / SECOND, b'"format":"coordination-log-1","log"', b"\0" * 35)
    assert repaired(directory) == ALL


def test_a_lost_line_feed_loses_nothing(directory: Path) -> None:
    """Two lines that became one are taken apart again."""
    line = line_of(directory / SECOND, 4)
    change(directory / SECOND, line + b"\n", line + b"\x0b")
    assert repaired(directory) == ALL


@pytest.mark.parametrize("name", [FIRST, SECOND, THIRD])
def test_a_lost_line_feed_behind_a_header_loses_nothing(directory: Path, name: str) -> None:
    """A header that became one with the first line is taken off it again, whatever stands between them now."""
    header = (directory / name).read_bytes().partition(b"\n")[0]
    change(directory / name, header + b"\n", header + b"\x0b")
    assert repaired(directory) == ALL


def test_a_line_that_quotes_a_line_is_one_line(tmp_path: Path) -> None:
    """What looks like the beginning of a line within a payload cuts nothing, also next to damage."""
    where = tmp_path / "log"
    create(where)
    log = FileLog(where)
    quoting = b'{"of":{"seq":7,"durable":1,"x":1,"sum":"00000000"},"n":2}'
    for after, data in enumerate([payload(1), quoting, payload(3)]):
        log.append(data, after=after)
    log.close()
    line = line_of(where / FIRST, 1)
    change(where / FIRST, line, b"\0" * len(line))
    log_ = repaired(where)
    assert (log_[2], log_[3]) == (quoting, payload(3))


def test_an_older_segment_stands_in_for_what_recovery_copied(directory: Path) -> None:
    """Batch 6 stands in the second segment as well, where it is void."""
    change(directory / THIRD, b"batch 6", b"botch 6")
    found = examine(directory, env=ENV)
    assert (numbers(found, Fate.LOST), found.whole) == ([], False)
    assert "an older segment has the same" in found.damages[-1].what
    assert repaired(directory) == ALL


@pytest.mark.parametrize("name", [FIRST, SECOND, THIRD])
def test_a_damaged_header_loses_no_line(directory: Path, name: str) -> None:
    """The lines prove each other, the first by what the header states or what its words give."""
    change(directory / name, b'"format":"coordination', b'"format":"koordination')
    assert repaired(directory) == ALL


@pytest.mark.parametrize(("name", "lost"), [(FIRST, {1, 2}), (SECOND, {4, 5}), (THIRD, {7, 8, 9})])
def test_a_missing_segment_loses_what_only_it_had(directory: Path, name: str, lost: set[int]) -> None:
    """What the segment before or behind it has as well is kept; the page knows how far the log was."""
    (directory / name).unlink()
    found = examine(directory, env=ENV)
    assert set(numbers(found, Fate.LOST)) == lost
    log = repaired(directory)
    assert log.keys() == ALL.keys()
    assert {seq for seq in ALL if log[seq] != ALL[seq]} == lost


def test_swapped_segments_lose_nothing(directory: Path) -> None:
    """A segment is what its header says, not what its file is called."""
    (directory / FIRST).rename(directory / "x")
    (directory / SECOND).rename(directory / FIRST)
    (directory / "x").rename(directory / SECOND)
    assert repaired(directory) == ALL


def test_a_segment_of_another_log_is_left_out(directory: Path, tmp_path: Path) -> None:
    """Its batches are not ours, however whole they are."""
    other = tmp_path / "other"
    create(other)
    append(other, 2)
    (directory / f"{4:020d}.jsonl").write_bytes((other / FIRST).read_bytes())
    found = examine(directory, env=ENV)
    assert [damage.what for damage in found.damages] == ["this file is of another log"]
    assert repaired(directory) == ALL


def test_a_segment_that_its_successor_does_not_go_on_from_is_doubtful(directory: Path) -> None:
    """It reads well, and its checksum at the end is another one: a copy of something else was put there."""
    header, _ = frames.decode_header((directory / SECOND).read_bytes().split(b"\n")[0]) or (None, 0)
    assert header is not None
    line, checksum = frames.encode_header(header)
    data = [line]
    for seq in range(header.first_seq, 7):
        line, checksum = frames.encode_line(b'{"n":"other"}', seq=seq, durable=0, segment=2, previous_sum=checksum)
        data.append(line)
    (directory / SECOND).write_bytes(b"".join(data))
    found = examine(directory, env=ENV)
    assert numbers(found, Fate.DOUBTFUL) == [4, 5]
    repaired(directory)


def test_a_torn_end_is_harmless(directory: Path) -> None:
    """Ordinary recovery leaves it void; there is nothing to repair."""
    (directory / "page").unlink()
    with (directory / THIRD).open("ab") as file:
        file.write(b'{"seq":10,"durable":9,"n":1')
    found = examine(directory, env=ENV)
    assert (found.whole, found.head) == (True, 9)
    assert ["page" in note for note in found.notes] == [True, False]
    assert "torn end of 27 bytes" in found.notes[1]


@pytest.mark.parametrize("page", [True, False])
def test_a_damaged_last_line_is_lost_if_anybody_knows_of_it(directory: Path, page: bool) -> None:
    """Otherwise nobody can tell whether it was acknowledged: its number is kept, and named as doubtful."""
    if not page:
        (directory / "page").unlink()
    change(directory / THIRD, b"batch 9", b"botch 9")
    found = examine(directory, env=ENV)
    assert (numbers(found, Fate.LOST), numbers(found, Fate.DOUBTFUL)) == (([9], []) if page else ([], [9]))
    assert json.loads(repaired(directory)[9])["lost"] == 9


def test_what_others_saw_acknowledged_is_missed(directory: Path) -> None:
    """A snapshot that includes batch 12 of a log that ends at 9 says that three are lost."""
    uuid = examine(directory, env=ENV).log
    witness = Witness(acknowledged={uuid: 12, "another": 40})
    found = examine(directory, env=ENV, witness=witness)
    assert numbers(found, Fate.LOST) == [10, 11, 12]
    assert repaired(directory, witness).keys() == set(range(1, 13))


def test_segments_that_a_snapshot_covers_may_be_gone(directory: Path) -> None:
    """What was taken away on purpose is not missed; what no snapshot covers is."""
    uuid = examine(directory, env=ENV).log
    (directory / FIRST).unlink()
    found = examine(directory, env=ENV, witness=Witness(covered={uuid: 4}))
    assert (found.whole, found.base, found.head) == (True, 2, 9)
    found = examine(directory, env=ENV, witness=Witness(covered={uuid: 1}))
    assert numbers(found, Fate.LOST) == [1, 2]
    change(directory / SECOND, b'"segment":2', b'"segment":7')  # nothing of the beginning can be read by the kernel
    witness = Witness(covered={uuid: 4})
    mend(directory, directory.with_name("backup"), placeholder=placeholder, env=ENV, witness=witness)
    again = examine(directory, env=ENV, witness=witness)
    assert (again.whole, again.base, again.head) == (True, 2, 9)


def test_a_log_of_nothing_but_a_page_cannot_be_repaired(directory: Path) -> None:
    """Corrupt is never empty: it says what to do instead."""
    for path in directory.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(LogDamaged, match="put the directory back from a copy"):
        examine(directory, env=ENV)
    (directory / FIRST).write_bytes(bytes(500))
    with pytest.raises(LogDamaged, match="can be read"):
        mend(directory, directory.with_name("backup"), placeholder=placeholder, env=ENV)
    assert not directory.with_name("backup").exists()
    for path in directory.iterdir():
        path.unlink()
    with pytest.raises(NotFound):
        examine(directory, env=ENV)


@pytest.mark.parametrize("name", ["append.lock", "sync.lock"])
def test_nobody_is_interrupted(directory: Path, name: str) -> None:
    """While somebody holds a lock of the log it is not repaired."""
    change(directory / SECOND, b"batch 4", b"bitch 4")
    descriptor = ENV.open_write(directory / name)
    ENV.lock(descriptor)
    with pytest.raises(LockHeld, match="nothing was changed"):
        mend(directory, directory.with_name("backup"), placeholder=placeholder, env=ENV)
    ENV.close(descriptor)
    assert mend(directory, directory.with_name("backup"), placeholder=placeholder, env=ENV).backup is not None


def test_the_backup_says_what_it_is(directory: Path) -> None:
    """Every file with its SHA-256, every damaged range by itself and where it was."""
    change(directory / SECOND, b"batch 4", b"bitch 4")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    backup = directory.with_name("repair") / "1"
    mend(directory, backup, placeholder=placeholder, env=ENV)
    manifest = json.loads((backup / "manifest.json").read_bytes())
    for name, data in before.items():
        assert (backup / name).read_bytes() == data
        assert manifest["files"][name] == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (damaged,) = manifest["damaged_ranges"]
    place = slice(damaged["offset"], damaged["offset"] + damaged["length"])
    assert (backup / damaged["copy"]).read_bytes() == before[damaged["file"]][place]
    assert manifest["batches"] == {"intact": [[1, 3], [5, 9]], "lost": [[4, 4]], "doubtful": []}
    assert manifest["goes_on_in"] == {"segment": 4, "epoch": 4}


# ---- cut at every gesture --------------------------------------------------------------------------------------------


class CutError(Exception):
    """Here the process ends."""


GESTURES = (
    "create",
    "open_write",
    "write",
    "sync",
    "rename",
    "make_directory",
    "sync_directory",
    "store",
    "store_many",
)


class Cut(Env):
    """Ends at the k-th gesture that changes anything; a write is torn in the middle first."""

    def __init__(self, left: int) -> None:
        self.left = left

    def gesture(self) -> None:
        if self.left == 0:
            raise CutError
        self.left -= 1


def _counted(name: str) -> Callable[..., object]:
    real = getattr(Env, name)

    def gesture(self: Cut, *arguments: object) -> object:
        if name == "write" and self.left == 0:
            descriptor, data, offset = arguments
            assert isinstance(data, bytes)
            real(self, descriptor, data[: len(data) // 2], offset)
        self.gesture()
        return real(self, *arguments)

    return gesture


for _name in GESTURES:
    setattr(Cut, _name, _counted(_name))


def unfinished(where: Path) -> bool:
    """Whether the next writer looks at the segments before he believes the page."""
    page = open_page(where / PAGE, examine(where, env=ENV).log, ENV)
    reading = None if page is None else page.read()
    return reading is None or reading.dirty


@contextmanager
def cut() -> Iterator[None]:
    with pytest.raises(CutError):
        yield


@pytest.mark.parametrize(("name", "seq"), [(SECOND, 4), (THIRD, 8)])
def test_cut_at_every_gesture_it_is_the_old_log_or_the_new(directory: Path, name: str, seq: int) -> None:
    """And a second try comes to the same end; until then the page says that something is unfinished."""
    change(directory / name, b"batch %d" % seq, b"botch %d" % seq)
    image = {path.name: path.read_bytes() for path in directory.iterdir()}
    expected = ALL | {seq: placeholder(seq, b"", payload(seq - 1))}
    cuts, ended = 0, False
    while not ended:
        where = directory.with_name(f"log {cuts}")
        where.mkdir()
        for file, data in image.items():
            (where / file).write_bytes(data)
        try:
            mend(where, where.with_name(f"backup {cuts}"), placeholder=placeholder, env=Cut(cuts))
            ended = True
        except CutError:
            cuts += 1
        for file, data in image.items():
            assert file == "page" or (where / file).read_bytes() == data
        assert ended or not (where / f"{4:020d}.jsonl").exists() or unfinished(where)
        try:
            append(where, 9)  # recovers; an untouched log refuses
            assert batches(where) == expected
        except LogDamaged:
            assert numbers(examine(where, env=ENV), Fate.LOST) == [seq]
        mend(where, where.with_name(f"backup {cuts} again"), placeholder=placeholder, env=ENV)
        assert batches(where) == expected
    assert cuts > len(GESTURES)


# ---- what rarely happens ---------------------------------------------------------------------------------------------


def test_without_a_directory_there_is_no_log(tmp_path: Path) -> None:
    """Nothing was ever there; that is not damage."""
    with pytest.raises(NotFound, match="coord init"):
        examine(tmp_path / "nowhere", env=ENV)


@pytest.mark.parametrize("data", [b"", bytes(100)], ids=["empty", "short"])
def test_a_page_that_is_too_short_is_none(directory: Path, data: bytes) -> None:
    """It is noted, and set up anew by repair as well."""
    (directory / "page").write_bytes(data)
    change(directory / SECOND, b"batch 4", b"bitch 4")
    found = examine(directory, env=ENV)
    assert any("the page is missing" in note for note in found.notes)
    assert repaired(directory).keys() == ALL.keys()


def test_what_a_log_holds_besides_files_is_not_copied(directory: Path) -> None:
    """A directory that somebody put there stays where it is."""
    change(directory / SECOND, b"batch 4", b"bitch 4")
    (directory / "mine").mkdir()
    repaired(directory)
    assert (directory / "mine").is_dir()
    assert not (directory.with_name("repair") / "1" / "mine").exists()


@pytest.mark.parametrize("change_to", [b"", b'{"seq":7,"durable":0,"n":0,"sum":"00000000"}\n' * 200])
def test_a_file_that_changes_while_it_is_read_is_refused(directory: Path, change_to: bytes) -> None:
    """Somebody who takes no lock writes to it: nothing of that is published."""
    found = examine(directory, env=ENV)
    (directory / FIRST).write_bytes(change_to)
    with pytest.raises(LogDamaged, match="while it was read"):
        dict(read(found, 0, placeholder=placeholder, env=ENV))


def test_a_line_that_stands_elsewhere_is_found_and_the_place_where_it_is_missed_is_named(directory: Path) -> None:
    """Rubble stands between two whole lines: every batch is intact, and yet the kernel cannot read on."""
    line = line_of(directory / THIRD, 8)
    change(directory / THIRD, line, b"rubble\n" + line)
    found = examine(directory, env=ENV)
    assert numbers(found, Fate.INTACT) == [*range(1, 10)]
    (damage,) = found.damages
    assert (damage.path.name, damage.length) == (THIRD, 0)
    data = (directory / THIRD).read_bytes()
    assert data[damage.offset :].startswith(b"rubble")
    assert repaired(directory) == ALL


@pytest.mark.parametrize("number", [10, 900])
def test_a_damaged_number_is_no_other_number(directory: Path, number: int) -> None:
    """What follows a proven line has the next number, whatever stands in it: nobody waits for batch 900."""
    (directory / "page").unlink()
    change(directory / THIRD, b'{"seq":9,', b'{"seq":%d,' % number)
    found = examine(directory, env=ENV)
    assert (found.head, numbers(found, Fate.DOUBTFUL)) == (9, [9])
    assert json.loads(repaired(directory)[9])["lost"] == 9


def test_a_damaged_number_far_out_is_not_believed_where_nothing_is_known(directory: Path) -> None:
    """Without a header a line may have any number, but not one for which the files before it had no room."""
    for path in (directory / SECOND, directory / THIRD, directory / "page"):
        path.unlink()
    header, _, rest = (directory / FIRST).read_bytes().partition(b"\n")
    first = rest.partition(b"\n")[0]
    (directory / FIRST).write_bytes(bytes(len(header)) + b"\n" + first.replace(b'"seq":1', b'"seq":100000') + b"\n")
    assert examine(directory, env=ENV).head < 20


def test_two_damaged_lines_at_the_end_are_two_doubtful_numbers(directory: Path) -> None:
    """They are counted by their ends, because the numbers in them may be damaged too."""
    (directory / "page").unlink()
    change(directory / THIRD, b"batch 8", b"b\0tch 8")
    change(directory / THIRD, b"batch 9", b"b\0tch 9")
    assert numbers(examine(directory, env=ENV), Fate.DOUBTFUL) == [8, 9]


def test_a_line_of_damaged_digits_must_be_json(tmp_path: Path) -> None:
    """What the kernel would never give back as an object is not kept on the word of a neighbour alone."""
    where = tmp_path / "log"
    create(where)
    log = FileLog(where)
    for after, data in enumerate([payload(1), b'{"n":,}', payload(3)]):
        log.append(data, after=after)
    log.close()
    change(where / FIRST, line_of(where / FIRST, 2)[-10:-2], b"########")
    assert numbers(examine(where, env=ENV), Fate.LOST) == [2]


def test_a_segment_filled_with_line_feeds_is_read_in_no_time(directory: Path) -> None:
    """Any number of them is no line."""
    with (directory / THIRD).open("ab") as file:
        file.write(b"\n" * 400_000)
    assert examine(directory, env=ENV).whole


def test_much_is_written_in_pieces(tmp_path: Path) -> None:
    """A segment larger than what is written at once comes out the same."""
    where = tmp_path / "log"
    create(where)
    log = FileLog(where)
    for after in range(12):
        log.append(b'{"n":%d,"text":"%b"}' % (after + 1, b"x" * 150_000), after=after)
    log.close()
    before = batches(where)
    change(where / FIRST, b'"n":1,', b'"m":1,')
    mend(where, tmp_path / "backup", placeholder=placeholder, env=ENV)
    after_ = batches(where)
    assert (len(after_), {seq for seq in before if after_[seq] != before[seq]}) == (12, {1})


class Full(Env):
    """No room for a new page."""

    def open_write(self, path: Path) -> int:
        self.page = super().open_write(path) if path.name == "page" else -1
        return self.page if path.name == "page" else super().open_write(path)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if descriptor == getattr(self, "page", -1):
            raise OSError(errno.ENOSPC, "no room")
        return super().write(descriptor, data, offset)


def test_no_room_for_a_page_leaves_the_repaired_log_to_recovery(directory: Path) -> None:
    """The segment is there, so whoever comes next finds a whole log without a page."""
    change(directory / SECOND, b"batch 4", b"bitch 4")
    (directory / "page").unlink()
    with pytest.raises(OSError, match="no room"):
        mend(directory, directory.with_name("backup"), placeholder=placeholder, env=Full())
    assert examine(directory, env=ENV).whole
    append(directory, 10)
    assert batches(directory).keys() == set(range(1, 11))
