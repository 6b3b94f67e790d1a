"""A line counts only by its checksum, and gives its payload back byte for byte."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from coordination.errors import UsageError
from coordination.log import frames
from coordination.log.frames import Header, Previous

PAYLOAD = b'{"at":"2026-11-21T12:00:00.000000Z","events":[{"type":"CoordinationPaused"}]}'
HEADER = Header(
    log="6a4e", segment=2, epoch=3, first_seq=8, durable=9, previous=Previous(segment=1, last_seq=7, sum="0000abcd")
)


def line_of(payload: bytes = PAYLOAD) -> bytes:
    return frames.encode_line(payload, seq=12, durable=11, segment=3, previous_sum=77)[0]


def test_a_line_is_drawn_as_documented() -> None:
    """Sequence number and watermark first, the payload's members in the middle, the checksum last; jq can read it."""
    line = line_of()
    assert line.startswith(b'{"seq":12,"durable":11,"at":"2026-')
    value = json.loads(line)
    body = line[: line.index(b',"sum"')]
    seed = zlib.crc32((3).to_bytes(8, "little") + (77).to_bytes(4, "little"))
    assert value["sum"] == f"{zlib.crc32(body, seed):08x}"
    assert value["events"] == [{"type": "CoordinationPaused"}]


def test_a_line_comes_back() -> None:
    """Decoding gives the numbers and the identical payload."""
    line, checksum = frames.encode_line(PAYLOAD, seq=12, durable=11, segment=3, previous_sum=77)
    assert frames.decode_line(line[:-1], segment=3, previous_sum=77) == frames.Line(
        seq=12, durable=11, payload=PAYLOAD, sum=checksum
    )


def test_a_line_counts_only_in_its_place() -> None:
    """The same bytes in another segment or after another line are not a line."""
    assert frames.decode_line(line_of()[:-1], segment=4, previous_sum=77) is None
    assert frames.decode_line(line_of()[:-1], segment=3, previous_sum=78) is None


def test_every_flipped_bit_is_found() -> None:
    """No single-bit change of a line leaves it valid."""
    line = line_of()[:-1]
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        assert frames.decode_line(bytes(flipped), segment=3, previous_sum=77) is None, bit


def test_every_shortened_line_is_found() -> None:
    """No beginning of a line is a line."""
    line = line_of()[:-1]
    for length in range(len(line)):
        assert frames.decode_line(line[:length], segment=3, previous_sum=77) is None, length


def test_a_valid_checksum_over_something_else_is_not_a_line() -> None:
    """A header, though its checksum fits, does not pass for a batch, nor a batch for a header."""
    line, _ = frames.encode_header(HEADER)
    assert frames.decode_header(line[:-1]) is not None
    assert frames.decode_line(line[:-1], segment=2, previous_sum=0xABCD) is None
    assert frames.decode_header(line_of()[:-1]) is None


def test_a_header_comes_back_and_any_flip_is_found() -> None:
    """The header survives the round trip, and no single-bit change of it does."""
    line, checksum = frames.encode_header(HEADER)
    assert frames.decode_header(line[:-1]) == (HEADER, checksum)
    for bit in range(8 * (len(line) - 1)):
        flipped = bytearray(line[:-1])
        flipped[bit // 8] ^= 1 << bit % 8
        assert frames.decode_header(bytes(flipped)) is None, bit


def test_a_header_with_impossible_numbers_is_no_header() -> None:
    """Numbers that do not fit a checksum's seed are refused, not a crash."""
    for text in (b'"segment":-1', b'"segment":99999999999999999999999'):
        line = frames.encode_header(HEADER)[0][:-1].replace(b'"segment":2', text)
        assert frames.decode_header(line) is None


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"a":1', b'"a":1}', b'{"a":\n1}', b'{ "a":1}'])
def test_what_cannot_be_spliced_is_refused(payload: bytes) -> None:
    """A payload that would not come back identical, or break the line, is refused with what was found."""
    with pytest.raises(UsageError, match="one JSON object on one line"):
        frames.check_payload(payload)


def test_what_a_line_promises_is_seen_anywhere() -> None:
    """The watermark of a whole line counts behind garbage, whatever its checksum; a torn one and plain text do not."""
    line = line_of()
    promised = frames.decode_line(line[:-1], segment=2, previous_sum=7)
    watermark = int(line.split(b'"durable":')[1].split(b",")[0])
    assert promised is None or promised.durable == watermark
    assert frames.promised(b"garbage" + line) == watermark > 0
    assert frames.promised(b"garbage" + line[:-1]) == 0
    assert frames.promised(b'{"type":"Text"}\n') == 0
    assert frames.promised(line.replace(b'"durable":%d' % watermark, b'"durable":99999')) == 0


def test_the_documented_example_is_a_log() -> None:
    """The lines that docs/log-format.md shows are valid, one after the other."""
    text = (Path(__file__).parents[2] / "docs" / "log-format.md").read_bytes()
    header, *lines = [line.strip() for line in text.splitlines() if line.startswith((b'    {"format"', b'    {"seq"'))][
        -3:
    ]
    decoded = frames.decode_header(header)
    assert decoded is not None
    checksum = decoded[1]
    for seq, raw in enumerate(lines, 1):
        line = frames.decode_line(raw, segment=1, previous_sum=checksum)
        assert line is not None
        assert (line.seq, line.durable) == (seq, seq - 1)
        checksum = line.sum
