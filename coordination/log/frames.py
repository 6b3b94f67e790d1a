r"""What are the bytes of one line? Pure: no files here. The whole drawing is in docs/log-format.md.

::

    {"seq":12,"durable":11,<members of the payload>,"sum":"1c291ca3"}\n
    `------- checksummed: segment number, previous sum, this -'

A line counts only by its checksum, which chains it to the line before, so that a flipped, dropped, doubled or moved
line is found. The payload comes back byte for byte.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Literal

import msgspec

from coordination.errors import UsageError

_PREFIX = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"durable":(0|[1-9][0-9]{0,17}),')
# looked for at every place, also within a line: two lines are one when the line feed between them is damaged
_BEYOND = re.compile(rb'(?=\{"seq":([1-9][0-9]{0,17}),"durable":(0|[1-9][0-9]{0,17}),[^\n]*,"sum":"[0-9a-f]{8}"\}\n)')
_SUFFIX = re.compile(rb',"sum":"([0-9a-f]{8})"\}')
_SUFFIX_BYTES = len(b',"sum":"00000000"}')
SUFFIX_BYTES = _SUFFIX_BYTES + 1  # with the line feed
_SEED = struct.Struct("<QI")
_SEGMENT = struct.Struct("<Q")  # the first part of a seed


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One batch as it stands in a segment."""

    seq: int
    durable: int  # everything up to here was durable when the line was written
    payload: bytes
    sum: int


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """The good lines at the beginning of some bytes."""

    batches: list[tuple[int, bytes]]  # number and payload
    bytes: int  # how many bytes they are
    seq: int  # of the last one, or of the line before them
    sum: int  # same
    durable: int  # the highest watermark in them, 0 when there is none


class Previous(msgspec.Struct, frozen=True, kw_only=True):
    """Where the older segment ends; what follows there is void."""

    segment: int
    last_seq: int
    sum: str


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """A segment's first line, without its checksum."""

    format: Literal["coordination-log-1"] = "coordination-log-1"
    log: str
    segment: int
    epoch: int
    first_seq: int
    durable: int  # covers the lines the segment was published with
    previous: Previous | None


def check_payload(payload: bytes) -> None:
    """Raise UsageError unless the payload has the form that can be spliced into a line."""
    if not (payload.startswith(b'{"') and payload.endswith(b"}")) or b"\n" in payload:
        message = f"a payload is one JSON object on one line with at least one member, found {payload[:40]!r}"
        raise UsageError(message)


def encode_line(payload: bytes, *, seq: int, durable: int, segment: int, previous_sum: int) -> tuple[bytes, int]:
    """The line with its line feed, and its checksum."""
    body = b'{"seq":%d,"durable":%d,%b' % (seq, durable, payload[1:-1])
    return _closed(body, segment, previous_sum)


def decode_line(line: bytes, *, segment: int, previous_sum: int) -> Line | None:
    """Read a line (without its line feed); None when it is not one that follows ``previous_sum`` in ``segment``."""
    start = _PREFIX.match(line)
    checksum = _verified(line, segment, previous_sum)
    if start is None or checksum is None:
        return None
    payload = b"{" + line[start.end() : -_SUFFIX_BYTES] + b"}"
    return Line(seq=int(start[1]), durable=int(start[2]), payload=payload, sum=checksum)


def take(data: bytes, *, segment: int, seq: int, checksum: int, last: int | None) -> Taken:
    """The lines that follow batch ``seq`` and ``checksum``, up to batch ``last``, to the first bad or unfinished one.

    The same as ``decode_line`` for each of them; written out, because every read of the log goes through here.
    """
    batches: list[tuple[int, bytes]] = []
    seed, crc, view = zlib.crc32(_SEGMENT.pack(segment)), zlib.crc32, memoryview(data)
    begin = digits = comma = 0
    while last is None or seq < last:
        end = data.find(b"\n", begin)
        prefix = b'{"seq":%d,"durable":' % (seq + 1)
        body = end + 1 - SUFFIX_BYTES
        if end < 0 or not data.startswith(prefix, begin):
            break
        found = crc(view[begin:body], crc(checksum.to_bytes(4, "little"), seed)) if body > begin else -1
        if data[body : end + 1] != b',"sum":"%08x"}\n' % found:
            break
        digits = begin + len(prefix)
        comma = data.index(b",", digits)
        batches.append((seq + 1, b"{%b}" % data[comma + 1 : body]))
        seq, checksum, begin = seq + 1, found, end + 1
    # watermarks never fall, so the last one is the highest
    durable = int(data[digits:comma]) if batches else 0
    return Taken(batches=batches, bytes=begin, seq=seq, sum=checksum, durable=durable)


def encode_header(header: Header) -> tuple[bytes, int]:
    """The header's line with its line feed, and its checksum."""
    return _closed(msgspec.json.encode(header)[:-1], header.segment, _sum_before(header))


def decode_header(line: bytes) -> tuple[Header, int] | None:
    """Read a header (without its line feed) and its checksum; None when it is not one."""
    try:
        header = msgspec.json.decode(line, type=Header)
        checksum = _verified(line, header.segment, _sum_before(header))
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, struct.error):
        return None
    return None if checksum is None else (header, checksum)


def promised(data: bytes) -> int:
    """The highest watermark on anything in ``data`` that has the form of a whole line, believable or not; 0: none."""
    return max((int(found[2]) for found in _BEYOND.finditer(data) if int(found[2]) < int(found[1])), default=0)


def suffix(checksum: int) -> bytes:
    """How a line with that checksum ends, without its line feed."""
    return b',"sum":"%08x"}' % checksum


def written(checksum: int) -> str:
    """A checksum as it stands in the file."""
    return f"{checksum:08x}"


def _sum_before(header: Header) -> int:
    return 0 if header.previous is None else int(header.previous.sum, 16)


def _closed(body: bytes, segment: int, previous_sum: int) -> tuple[bytes, int]:
    checksum = _checksum(body, segment, previous_sum)
    return b"%b%b\n" % (body, suffix(checksum)), checksum


def _verified(line: bytes, segment: int, previous_sum: int) -> int | None:
    end = _SUFFIX.fullmatch(line, max(0, len(line) - _SUFFIX_BYTES))
    if end is None:
        return None
    checksum = _checksum(memoryview(line)[:-_SUFFIX_BYTES], segment, previous_sum)
    return checksum if checksum == int(end[1], 16) else None


def _checksum(body: bytes | memoryview, segment: int, previous_sum: int) -> int:
    return zlib.crc32(body, zlib.crc32(_SEED.pack(segment, previous_sum)))
