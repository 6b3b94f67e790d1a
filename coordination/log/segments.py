"""Which files make up the log, and what stands in them? Reading only; nothing here writes.

Names, headers that must follow each other, and a scan that verifies every line from any known position. What a bad
line *means* depends on the watermark, so a scan just ends at the first one in the newest segment; in an older segment,
whose end is written in its successor's header, it is damage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import Env
from coordination.errors import LogDamaged, NotFound
from coordination.log import frames
from coordination.log.frames import Header, Line, Previous

_NAME = re.compile(r"([0-9]{20})\.jsonl")
_BLOCK = 1 << 17
_HEADER_BYTES_MAX = 4096
PAGE = "page"


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


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """All segments of a log, oldest first; their headers follow each other."""

    segments: tuple[Segment, ...]

    @property
    def last(self) -> Segment:
        """The one that is appended to."""
        return self.segments[-1]

    @property
    def epoch(self) -> int:
        """Of the newest segment."""
        return self.last.header.epoch

    def end_of(self, number: int) -> Previous | None:
        """Where segment ``number`` ends by its successor's header; None for the newest."""
        return None if number == len(self.segments) else self.segments[number].header.previous

    def start_before(self, seq: int) -> Position:
        """The start of the segment in which the line after ``seq`` stands, or would."""
        return next(segment.start for segment in reversed(self.segments) if segment.header.first_seq <= seq + 1)


def path_of(directory: Path, number: int) -> Path:
    """Where segment ``number`` stands."""
    return directory / f"{number:020d}.jsonl"


def load(directory: Path, *, env: Env, known: Chain | None = None) -> Chain:
    """All segments of a directory; headers in ``known`` are not read again.

    Raises NotFound when there is no log, LogDamaged when there was one and it is not whole.
    """
    numbers = _numbers(directory, env)
    segments = list(known.segments) if known is not None else []
    for number in range(len(segments) + 1, max(numbers[-1], len(segments)) + 1):
        segments.append(_load_segment(path_of(directory, number), number, segments[-1] if segments else None, env))
    if len(segments) != len(numbers):
        missing = min(set(range(1, len(segments) + 1)) - set(numbers))
        raise damaged(path_of(directory, missing), 0, 0, "this segment is missing")
    return Chain(segments=tuple(segments))


def scan(chain: Chain, start: Position, *, env: Env) -> Iterator[tuple[Position, Line]]:
    """Every line from ``start`` on with the position behind it; ends at the first bad one of the newest segment.

    Raises LogDamaged when an older segment does not reach the end that its successor gives it.
    """
    position = start
    while True:
        end = chain.end_of(position.segment)
        for behind, line in _scan_segment(chain, position, end, env):
            position = behind
            yield behind, line
        if end is None:
            return
        _check_end(chain.segments[position.segment - 1].path, position, end)
        position = chain.segments[position.segment].start


def remainder(chain: Chain, position: Position, *, env: Env) -> bytes:
    """What stands in the newest segment behind its last valid line."""
    descriptor = env.open_read(chain.last.path)
    try:
        return files.read_open(descriptor, position.offset, env=env)
    finally:
        env.close(descriptor)


def damaged(path: Path, offset: int, seq: int, what: str) -> LogDamaged:
    """The error for damage at a place."""
    message = f"{path}, byte {offset}, batch {seq}: {what}. Nothing was changed, and this release mends nothing: "
    message += "copy the log's directory before anything else. Run: coord replay --verify"
    return LogDamaged(message, path=str(path), offset=offset, seq=seq)


def _numbers(directory: Path, env: Env) -> list[int]:
    try:
        names = env.list_directory(directory)
    except FileNotFoundError as error:
        raise NotFound(f"no log in {directory}: the directory is not there. Run: coord init") from error
    numbers = [int(match[1]) for name in names if (match := _NAME.fullmatch(name))]
    if numbers:
        return numbers
    if PAGE in names:
        raise damaged(path_of(directory, 1), 0, 0, "every segment is missing, but there was a log: its page is there")
    raise NotFound(f"no log in {directory}: it holds no segment. Run: coord init")


def _load_segment(path: Path, number: int, before: Segment | None, env: Env) -> Segment:
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
    _check_header(path, header, number, before)
    seq = header.first_seq - 1
    start = Position(segment=number, offset=len(line) + 1, seq=seq, sum=checksum, durable=max(seq, header.durable))
    return Segment(path=path, header=header, start=start)


def _check_header(path: Path, header: Header, number: int, before: Segment | None) -> None:
    previous = header.previous
    if before is None or previous is None:
        follows = before is None and previous is None and header.first_seq == 1
    else:
        follows = (
            previous.segment == number - 1
            and header.first_seq == previous.last_seq + 1 >= before.header.first_seq
            and header.log == before.header.log
            and 0 <= header.epoch - before.header.epoch <= 1
        )
    if header.segment != number or not follows:
        raise damaged(path, 0, header.first_seq, "the header does not follow the segment before it")


def _scan_segment(chain: Chain, start: Position, end: Previous | None, env: Env) -> Iterator[tuple[Position, Line]]:
    position = start
    lines = _lines(chain.segments[start.segment - 1].path, start.offset, env)
    while end is None or position.seq < end.last_seq:
        raw = next(lines, None)
        if raw is None:
            return
        line = frames.decode_line(raw, segment=start.segment, previous_sum=position.sum)
        if line is None or line.seq != position.seq + 1:
            return
        position = Position(
            segment=start.segment,
            offset=position.offset + len(raw) + 1,
            seq=line.seq,
            sum=line.sum,
            durable=max(position.durable, line.durable),
        )
        yield position, line


def _lines(path: Path, offset: int, env: Env) -> Iterator[bytes]:
    """Whole lines without their line feeds; what follows the last line feed is left out."""
    try:
        descriptor = env.open_read(path)
    except FileNotFoundError as error:  # it was there when the chain was read
        raise damaged(path, 0, 0, "this segment is missing") from error
    try:
        rest = b""
        while block := env.read(descriptor, _BLOCK, offset):
            offset += len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            yield from lines
    finally:
        env.close(descriptor)


def _check_end(path: Path, position: Position, end: Previous) -> None:
    if position.seq != end.last_seq:
        what = f"this line is not valid, but the next segment says that this one reaches batch {end.last_seq}"
        raise damaged(path, position.offset, position.seq + 1, what)
    if frames.written(position.sum) != end.sum:
        what = f"its checksum is {frames.written(position.sum)}, but the next segment follows {end.sum}"
        raise damaged(path, position.offset, position.seq, what)
