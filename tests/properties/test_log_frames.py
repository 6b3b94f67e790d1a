"""Whatever JSON object is appended comes back, and no change of its line goes unnoticed."""

from __future__ import annotations

import json

import hypothesis.strategies as st
from hypothesis import given

from coordination.log import frames
from coordination.log.frames import Header, Previous

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)
PAYLOADS = st.builds(
    lambda value, plain: json.dumps(value, ensure_ascii=plain).encode("utf-8", "surrogatepass"),
    st.dictionaries(st.text(), JSON, min_size=1, max_size=5),
    st.booleans(),
)
NUMBERS = st.integers(1, 10**17)
SUMS = st.integers(0, 2**32 - 1)


@given(payload=PAYLOADS, seq=NUMBERS, durable=NUMBERS, segment=NUMBERS, before=SUMS)
def test_line_round_trip(payload: bytes, seq: int, durable: int, segment: int, before: int) -> None:
    """Encoding and decoding give the same numbers and the identical payload, on one line that is JSON."""
    frames.check_payload(payload)
    line, checksum = frames.encode_line(payload, seq=seq, durable=durable, segment=segment, previous_sum=before)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    expected = frames.Line(seq=seq, durable=durable, payload=payload, sum=checksum)
    assert frames.decode_line(line[:-1], segment=segment, previous_sum=before) == expected
    assert json.loads(line.decode("utf-8", "surrogatepass"))["sum"] == frames.written(checksum)


@given(
    header=st.builds(
        Header,
        log=st.uuids().map(str),
        segment=NUMBERS,
        epoch=NUMBERS,
        first_seq=NUMBERS,
        durable=NUMBERS,
        previous=st.none() | st.builds(Previous, segment=NUMBERS, last_seq=NUMBERS, sum=SUMS.map(frames.written)),
    )
)
def test_header_round_trip(header: Header) -> None:
    """A header comes back whatever its numbers are."""
    line, checksum = frames.encode_header(header)
    assert frames.decode_header(line[:-1]) == (header, checksum)


@given(payload=PAYLOADS, before=SUMS, data=st.data())
def test_a_burst_of_damage_is_found(payload: bytes, before: int, data: st.DataObject) -> None:
    """Changing up to four neighbouring bytes of a line always makes it invalid."""
    line = frames.encode_line(payload, seq=5, durable=4, segment=1, previous_sum=before)[0][:-1]
    start = data.draw(st.integers(0, len(line) - 1))
    damage = data.draw(st.binary(min_size=1, max_size=4).filter(any))
    changed = bytearray(line)
    for place, value in enumerate(damage[: len(line) - start], start):
        changed[place] ^= value
    if bytes(changed) != line:
        assert frames.decode_line(bytes(changed), segment=1, previous_sum=before) is None


@given(junk=st.binary(max_size=200))
def test_junk_is_never_a_line(junk: bytes) -> None:
    """Arbitrary bytes are neither a line nor a header, and reading them never breaks."""
    assert frames.decode_line(junk, segment=1, previous_sum=0) is None
    assert frames.decode_header(junk) is None
