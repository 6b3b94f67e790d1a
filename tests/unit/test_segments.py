"""A directory is one whole log, or an error that says where it is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from coordination.env import REAL, Env
from coordination.errors import LogDamaged, NotFound
from coordination.log import frames, segments
from coordination.log.file import FileLog, create
from coordination.log.frames import Header, Previous

Rewrite = Callable[[Header], Header]


def three_segments(directory: Path) -> list[Path]:
    """A log of six batches in three segments or more."""
    create(directory)
    log = FileLog(directory, segment_bytes=280)
    for after in range(6):
        log.append(b'{"n":%d,"text":"%b"}' % (after, b"x" * 60), after=after)
    log.close()
    return sorted(directory.glob("*.jsonl"))


def all_of(directory: Path) -> list[int]:
    chain = segments.load(directory, env=REAL)
    return [seq for _, batches in segments.scan(chain, chain.segments[0].start, env=REAL) for seq, _ in batches]


def test_batches_go_on_across_segments(tmp_path: Path) -> None:
    """Rolling loses and doubles nothing, and every segment is named by its number."""
    paths = three_segments(tmp_path)
    assert len(paths) >= 3
    assert [path.name for path in paths] == [f"{n:020d}.jsonl" for n in range(1, len(paths) + 1)]
    assert all_of(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_no_directory_and_no_segment_are_not_found(tmp_path: Path) -> None:
    """Where there never was a log the answer is NotFound with what to run, not an empty log."""
    for place in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotFound, match="coord init"):
            segments.load(place, env=REAL)


def test_a_missing_segment_is_damage(tmp_path: Path) -> None:
    """A gap in the numbers is refused with the name of what is missing."""
    path = three_segments(tmp_path)[1]
    path.unlink()
    with pytest.raises(LogDamaged, match="missing") as caught:
        segments.load(tmp_path, env=REAL)
    assert caught.value.path == str(path)


def test_the_oldest_segments_may_be_taken_away(tmp_path: Path) -> None:
    """The log then begins later and says so; asking for what is gone is an error, never an empty answer."""
    paths = three_segments(tmp_path)
    paths[0].unlink()
    chain = segments.load(tmp_path, env=REAL)
    assert chain.base == chain.segments[0].header.first_seq - 1 > 0
    log = FileLog(tmp_path)
    assert log.base == chain.base
    assert [seq for seq, _ in log.read(chain.base, upto="durable")] == list(range(chain.base + 1, 7))
    with pytest.raises(LogDamaged, match="the log begins here") as caught:
        log.read(0, upto="head")
    assert caught.value.path == str(paths[1])
    assert log.append(b'{"n":7}', after=6) == 7
    log.close()


def test_a_newer_segment_may_leave_others_behind(tmp_path: Path) -> None:
    """What a header does not go on from is void, whatever stands in it; so a repair is one new file."""
    paths = three_segments(tmp_path)
    chain = segments.load(tmp_path, env=REAL)
    first = chain.segments[0]
    position = [where for where, _ in segments.scan(chain, first.start, env=REAL, last=1)][-1]
    previous = Previous(segment=1, last_seq=1, sum=frames.written(position.sum))
    number = len(paths) + 1
    header = Header(log=first.header.log, segment=number, epoch=2, first_seq=2, durable=1, previous=previous)
    paths[1].write_bytes(b"rubbish")
    segments.path_of(tmp_path, number).write_bytes(frames.encode_header(header)[0])
    assert [segment.header.segment for segment in segments.load(tmp_path, env=REAL).segments] == [1, number]
    assert all_of(tmp_path) == [1]
    paths[1].unlink()
    assert all_of(tmp_path) == [1]


def test_all_segments_missing_is_damage(tmp_path: Path) -> None:
    """A log whose files were removed is damaged, because its page says that there was one."""
    for path in three_segments(tmp_path):
        path.unlink()
    with pytest.raises(LogDamaged, match="there was a log"):
        segments.load(tmp_path, env=REAL)
    with pytest.raises(LogDamaged):
        create(tmp_path)


def test_a_segment_that_vanishes_under_a_reader_is_damage(tmp_path: Path) -> None:
    """A chain known from before does not hide that a file is gone now."""
    paths = three_segments(tmp_path)
    known = segments.load(tmp_path, env=REAL)
    paths[-1].unlink()
    with pytest.raises(LogDamaged, match="missing"):
        segments.load(tmp_path, env=REAL, known=known)
    paths[1].unlink()
    with pytest.raises(LogDamaged, match="missing"):
        segments.load(tmp_path, env=REAL)


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda header: msgspec.structs.replace(header, segment=7),
        lambda header: msgspec.structs.replace(header, log="another"),
        lambda header: msgspec.structs.replace(header, epoch=header.epoch + 2),
        lambda header: msgspec.structs.replace(header, first_seq=header.first_seq + 1),
        lambda header: msgspec.structs.replace(header, previous=None),
        lambda header: msgspec.structs.replace(
            header, previous=msgspec.structs.replace(header.previous, segment=9) if header.previous else None
        ),
    ],
)
def test_a_header_that_does_not_follow_is_damage(tmp_path: Path, rewrite: Rewrite) -> None:
    """A header with a valid checksum but the wrong place, log, epoch or first number is refused."""
    path = three_segments(tmp_path)[1]
    line, _, rest = path.read_bytes().partition(b"\n")
    decoded = frames.decode_header(line)
    assert decoded is not None
    path.write_bytes(frames.encode_header(rewrite(decoded[0]))[0] + rest)
    with pytest.raises(LogDamaged, match=r"does not (follow|fit)"):
        segments.load(tmp_path, env=REAL)


@pytest.mark.parametrize("content", [b"", b"{", b"\n", b'{"seq":1}\n', b"\xff" * 5000])
def test_a_file_without_a_header_is_damage(tmp_path: Path, content: bytes) -> None:
    """A segment that does not begin with a header is refused, never taken for an empty one."""
    three_segments(tmp_path)[0].write_bytes(content)
    with pytest.raises(LogDamaged, match="header") as caught:
        segments.load(tmp_path, env=REAL)
    assert "coord repair" in str(caught.value)


def test_an_older_segment_must_reach_its_end(tmp_path: Path) -> None:
    """A bad line in an older segment is damage with its byte and number, as its successor knows better."""
    path = three_segments(tmp_path)[0]
    whole = path.read_bytes()
    start = whole.index(b'{"seq":2')
    path.write_bytes(whole[:start] + whole[start:].replace(b"xx", b"xy", 1))
    with pytest.raises(LogDamaged, match="reaches batch") as caught:
        all_of(tmp_path)
    assert (caught.value.path, caught.value.offset, caught.value.seq) == (str(path), start, 2)


def test_an_exchanged_segment_is_found(tmp_path: Path) -> None:
    """An older segment whose lines are valid but are not those its successor follows is damage."""
    three_segments(tmp_path / "one")
    path = min((tmp_path / "one").glob("*.jsonl"))
    header, _, _ = path.read_bytes().partition(b"\n")
    decoded = frames.decode_header(header)
    assert decoded is not None
    data, checksum = frames.encode_header(decoded[0])
    last = frames.decode_header(sorted((tmp_path / "one").glob("*.jsonl"))[1].read_bytes().partition(b"\n")[0])
    assert last is not None
    for seq in range(1, last[0].first_seq):
        line, checksum = frames.encode_line(b'{"n":0}', seq=seq, durable=0, segment=1, previous_sum=checksum)
        data += line
    path.write_bytes(data)
    with pytest.raises(LogDamaged, match="follows"):
        all_of(tmp_path / "one")


def test_a_segment_that_vanishes_before_its_header_is_read_is_damage(tmp_path: Path) -> None:
    """A name that is listed and then gone is a missing segment."""
    three_segments(tmp_path)

    class Late(Env):
        def list_directory(self, path: Path) -> list[str]:
            return [*super().list_directory(path), f"{99:020d}.jsonl"]

    with pytest.raises(LogDamaged, match="missing"):
        segments.load(tmp_path, env=Late())


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Temporary files and what people put there are not segments."""
    three_segments(tmp_path)
    for name in (".00000000000000000009.jsonl.1.ab.tmp", "9.jsonl", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert all_of(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_segment_that_vanishes_before_its_lines_are_read_is_damage(tmp_path: Path) -> None:
    """What was there when the chain was read and is gone when its lines are read is missing, not empty."""
    paths = three_segments(tmp_path)
    chain = segments.load(tmp_path, env=REAL)
    paths[1].unlink()
    with pytest.raises(LogDamaged, match="missing") as caught:
        list(segments.scan(chain, chain.segments[0].start, env=REAL))
    assert caught.value.path == str(paths[1])
