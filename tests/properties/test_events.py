"""Does every fact survive being written down?"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.errors import LogDamaged
from coordination.model import events as e
from coordination.testing import strategies

moments = st.integers(0, 4_000_000_000_000_000).map(lambda microseconds: microseconds / 1_000_000)
batches = st.lists(strategies.events(), max_size=4)


@given(batches, moments)
def test_a_batch_comes_back_as_it_was_written(events: list[e.AnyEvent], at: float) -> None:
    """Events, their order and their places are the same after encoding and decoding."""
    records = e.decode(7, e.encode(events, at))
    assert [record.event for record in records] == events
    assert [(record.seq, record.index) for record in records] == [(7, index) for index in range(len(events))]


@given(batches.filter(bool), moments)
def test_time_keeps_its_microseconds(events: list[e.AnyEvent], at: float) -> None:
    """The time read back is within half a microsecond of the one written, and stays itself when written again."""
    read = e.decode(1, e.encode(events, at))[0].at
    assert abs(read - at) < 1e-6
    assert e.decode(1, e.encode(events, read))[0].at == read


@given(batches, moments)
def test_a_batch_is_one_line_of_plain_json(events: list[e.AnyEvent], at: float) -> None:
    """Any JSON reader understands a batch, and nothing in it breaks a line."""
    payload = e.encode(events, at)
    assert b"\n" not in payload
    assert b"\r" not in payload
    assert [event["type"] for event in json.loads(payload)["events"]] == [e.name(event) for event in events]


@given(strategies.events(), st.dictionaries(st.just("added_later"), strategies.texts, min_size=1))
def test_a_field_of_a_newer_version_is_ignored(event: e.AnyEvent, added: dict[str, Any]) -> None:
    """An event with a field that we do not know reads like the same event without it."""
    batch = {"at": "2026-01-31T12:00:00Z", "events": [msgspec.to_builtins(event) | added]}
    assert [record.event for record in e.decode(1, msgspec.json.encode(batch))] == [event]


@given(st.binary(max_size=60))
def test_what_is_no_batch_is_damage(payload: bytes) -> None:
    """Bytes that are not a batch raise LogDamaged with the batch's number, and nothing else."""
    with pytest.raises(LogDamaged) as caught:
        e.decode(3, payload)
    assert caught.value.seq == 3


@given(strategies.events(), moments)
def test_the_described_form_says_type_and_place_and_is_json(event: e.AnyEvent, at: float) -> None:
    """What ``coord log`` prints carries seq, index and type, and nothing of the event is lost in it."""
    row = e.described(e.Record(seq=4, index=2, at=at, event=event))
    assert (row["seq"], row["index"], row["type"]) == (4, 2, e.name(event))
    body = {key: value for key, value in row.items() if key not in ("seq", "index", "at")}
    assert msgspec.convert(json.loads(json.dumps(body)), type(event)) == event
