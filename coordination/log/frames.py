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
_BEYOND = re.compile(rb'\{"seq":[1-9][0-9]{0,17},"durable":(?:0|[1-9][0-9]{0,17}),[^\n]*,"sum":"[0-9a-f]{8}"\}\n')
_SUFFIX = re.compile(rb',"sum":"([0-9a-f]{8})"\}')
_SUFFIX_BYTES = len(b',"sum":"00000000"}')
_SEED = struct.Struct("<QI")


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One batch as it stands in a segment."""

    seq: int
    durable: int  # everything up to here was durable when the line was written
    payload: bytes
    sum: int


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


def looks_like_a_line(data: bytes) -> bool:
    """Whether something that has the form of a whole line stands anywhere in ``data``, believable or not."""
    return _BEYOND.search(data) is not None


def written(checksum: int) -> str:
    """A checksum as it stands in the file."""
    return f"{checksum:08x}"


def _sum_before(header: Header) -> int:
    return 0 if header.previous is None else int(header.previous.sum, 16)


def _closed(body: bytes, segment: int, previous_sum: int) -> tuple[bytes, int]:
    checksum = _checksum(body, segment, previous_sum)
    return b'%b,"sum":"%08x"}\n' % (body, checksum), checksum


def _verified(line: bytes, segment: int, previous_sum: int) -> int | None:
    end = _SUFFIX.fullmatch(line, max(0, len(line) - _SUFFIX_BYTES))
    if end is None:
        return None
    checksum = _checksum(memoryview(line)[:-_SUFFIX_BYTES], segment, previous_sum)
    return checksum if checksum == int(end[1], 16) else None


def _checksum(body: bytes | memoryview, segment: int, previous_sum: int) -> int:
    return zlib.crc32(body, zlib.crc32(_SEED.pack(segment, previous_sum)))
