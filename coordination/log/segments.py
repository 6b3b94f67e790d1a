"""Which files make up the log, and what stands in them? Reading only; nothing here writes.

Names, headers that must follow each other, and a scan that verifies every line from any known position. What a bad
line *means* depends on the watermark, so a scan just ends at the first one in the newest segment; in an older segment,
whose end is written in its successor's header, it is damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import Env
from coordination.errors import LogDamaged, NotFound
from coordination.log import frames, page
from coordination.log.frames import Header, Previous

_NAME = re.compile(r"([0-9]{20})\.jsonl")
_BLOCK = 1 << 17
_HEADER_BYTES_MAX = 4096
PAGE = "page"

Batches = list[tuple[int, bytes]]  # numbers and payloads


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place between two verified lines."""

    segment: int
    offset: int
    seq: int  # of the line before it
    sum: int  # of the line before it, or of the header
    durable: int  # the highest watermark that stands before it in this segment


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose header was verified."""

    path: Path
    header: Header
    start: Position


class Chain:
    """The segments that count, oldest first: the newest, the one that its header goes on from, and so on.

    A segment that none of them goes on from is void, header and all.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._place = {segment.header.segment: place for place, segment in enumerate(segments)}

    @property
    def last(self) -> Segment:
        """The one that is appended to."""
        return self.segments[-1]

    @property
    def epoch(self) -> int:
        """Of the newest segment."""
        return self.last.header.epoch

    @property
    def base(self) -> int:
        """The last batch that is not here any more: 0, unless the oldest segments were taken away."""
        return self.segments[0].header.first_seq - 1

    def get(self, number: int) -> Segment | None:
        """The segment of that number, if it counts."""
        place = self._place.get(number)
        return None if place is None else self.segments[place]

    def after(self, number: int) -> Segment | None:
        """The segment that goes on from segment ``number``; None for the newest."""
        place = self._place[number] + 1
        return self.segments[place] if place < len(self.segments) else None

    def start_before(self, seq: int) -> Position:
        """The start of the segment in which the line after ``seq`` stands, or would."""
        return next(segment.start for segment in reversed(self.segments) if segment.header.first_seq <= seq + 1)


def path_of(directory: Path, number: int) -> Path:
    """Where segment ``number`` stands."""
    return directory / f"{number:020d}.jsonl"


def load(directory: Path, *, env: Env, known: Chain | None = None) -> Chain:
    """The segments of a directory, from the newest backwards; headers in ``known`` are not read again.

    Raises NotFound when there is no log, LogDamaged when there was one and it is not whole.
    """
    numbers = _numbers(directory, env)
    segments: list[Segment] = []
    number: int | None = max(numbers)
    if known is not None and known.last.header.segment not in numbers:
        raise damaged(known.last.path, 0, 0, "this segment is missing")
    while number is not None:
        segment = None if known is None else known.get(number)
        if segment is None:
            segment = _load_segment(path_of(directory, number), number, env)
        if segments:
            _check_follows(segments[-1], segment.header)
        segments.append(segment)
        number = _number_before(directory, segment.header.previous, numbers)
    return Chain(segments[::-1])


def scan(
    chain: Chain, start: Position, *, env: Env, last: int | None = None, end: int | None = None
) -> Iterator[tuple[Position, Batches]]:
    """Every line from ``start`` on, in groups with the position behind each; ends at batch ``last``, at byte ``end``

    of the newest segment, or at the first bad line in it. Raises LogDamaged when an older segment does not reach the
    end that its successor gives it.
    """
    position = start
    while last is None or position.seq < last:
        segment, newer = chain.get(position.segment), chain.after(position.segment)
        assert segment is not None
        reaches = None if newer is None else newer.header.previous
        until = last if reaches is None else min(reaches.last_seq, reaches.last_seq if last is None else last)
        for behind, batches in _scan_segment(segment.path, position, until, end if newer is None else None, env):
            position = behind
            yield behind, batches
        if newer is None or reaches is None or position.seq == last != reaches.last_seq:
            return
        _check_end(segment.path, position, reaches)
        position = newer.start


def taken(data: bytes, start: Position, last: int | None) -> tuple[Position, Batches]:
    """What of the bytes behind ``start`` are good lines, up to batch ``last``: the position behind them, and they."""
    found = frames.take(data, segment=start.segment, seq=start.seq, checksum=start.sum, last=last)
    behind = Position(
        segment=start.segment,
        offset=start.offset + found.bytes,
        seq=found.seq,
        sum=found.sum,
        durable=max(start.durable, found.durable),
    )
    return behind, found.batches


def remainder(chain: Chain, position: Position, *, env: Env) -> bytes:
    """What stands in the newest segment behind its last valid line."""
    descriptor = env.open_read(chain.last.path)
    try:
        return files.read_open(descriptor, position.offset, env=env)
    finally:
        env.close(descriptor)


def damaged(path: Path, offset: int, seq: int, what: str) -> LogDamaged:
    """The error for damage at a place."""
    message = f"{path}, byte {offset}, batch {seq}: {what}. Nothing was changed. Run: coord repair"
    return LogDamaged(message, path=str(path), offset=offset, seq=seq)


def _numbers(directory: Path, env: Env) -> set[int]:
    try:
        names = env.list_directory(directory)
    except FileNotFoundError as error:
        raise NotFound(f"no log in {directory}: the directory is not there. Run: coord init") from error
    numbers = {int(match[1]) for name in names if (match := _NAME.fullmatch(name))}
    if numbers:
        return numbers
    if page.vouches(directory / PAGE, env):
        raise damaged(path_of(directory, 1), 0, 0, "every segment is missing, but there was a log: its page is there")
    raise NotFound(f"no log in {directory}: it holds no segment. Run: coord init")


def _number_before(directory: Path, previous: Previous | None, numbers: set[int]) -> int | None:
    """The segment that is gone on from; None for the first, also where older ones were taken away on purpose."""
    if previous is None:
        return None
    if previous.segment in numbers:
        return previous.segment
    if min(numbers) < previous.segment:
        raise damaged(path_of(directory, previous.segment), 0, 0, "this segment is missing")
    return None


def _load_segment(path: Path, number: int, env: Env) -> Segment:
    try:
        descriptor = env.open_read(path)
    except FileNotFoundError as error:
        raise damaged(path, 0, 0, "this segment is missing") from error
    try:
        line, feed, _ = env.read(descriptor, _HEADER_BYTES_MAX, 0).partition(b"\n")
    finally:
        env.close(descriptor)
    decoded = frames.decode_header(line) if feed else None
    if decoded is None:
        raise damaged(path, 0, 0, "expected a segment header with a valid checksum in line 1")
    header, checksum = decoded
    previous = header.previous
    goes_on = header.first_seq == 1 if previous is None else previous.segment < number
    if header.segment != number or not goes_on or header.first_seq != (previous.last_seq + 1 if previous else 1):
        raise damaged(path, 0, header.first_seq, "the header does not fit its file's name, or itself")
    seq = header.first_seq - 1
    start = Position(segment=number, offset=len(line) + 1, seq=seq, sum=checksum, durable=max(seq, header.durable))
    return Segment(path=path, header=header, start=start)


def _check_follows(newer: Segment, older: Header) -> None:
    header = newer.header
    epochs = header.epoch - older.epoch
    next_but_one = header.segment > older.segment + 1  # what was left behind may have had epochs of its own
    in_order = epochs >= 0 if next_but_one else 0 <= epochs <= 1
    follows = header.log == older.log and in_order and header.first_seq >= older.first_seq
    if not follows:
        raise damaged(newer.path, 0, header.first_seq, "the header does not follow the segment before it")


def _scan_segment(
    path: Path, position: Position, last: int | None, end: int | None, env: Env
) -> Iterator[tuple[Position, Batches]]:
    try:
        descriptor = env.open_read(path)
    except FileNotFoundError as error:  # it was there when the chain was read
        raise damaged(path, 0, 0, "this segment is missing") from error
    try:
        offset, rest = position.offset, b""
        while last is None or position.seq < last:
            size = _BLOCK if end is None else min(_BLOCK, end - offset)
            block = env.read(descriptor, size, offset) if size > 0 else b""
            if not block:
                return
            offset += len(block)
            rest += block
            begin = position.offset
            position, batches = taken(rest, position, last)
            if batches:
                yield position, batches
            rest = rest[position.offset - begin :]
            if b"\n" in rest:  # a bad line
                return
    finally:
        env.close(descriptor)


def _check_end(path: Path, position: Position, end: Previous) -> None:
    if position.seq != end.last_seq:
        what = f"this line is not valid, but the next segment says that this one reaches batch {end.last_seq}"
        raise damaged(path, position.offset, position.seq + 1, what)
    if frames.written(position.sum) != end.sum:
        what = f"its checksum is {frames.written(position.sum)}, but the next segment follows {end.sum}"
        raise damaged(path, position.offset, position.seq, what)
