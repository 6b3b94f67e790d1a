"""How a batch looks, to the byte, and what is refused."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from coordination.errors import LogDamaged
from coordination.model import events as e
from coordination.model.runs import Purpose

AT = 1_769_860_800.25


def test_a_batch_is_written_like_this() -> None:
    """The form that other programs read: time in UTC to the microsecond, type first, defaults left out."""
    payload = e.encode([e.TaskCancelled(task="A"), e.CoordinationPaused(reason="night")], AT)
    assert payload == (
        b'{"at":"2026-01-31T12:00:00.250000Z","events":['
        b'{"type":"TaskCancelled","task":"A"},{"type":"CoordinationPaused","reason":"night"}]}'
    )


def test_the_names_of_events_are_what_the_contract_lists() -> None:
    """A renamed class would make old logs unreadable."""
    assert {kind.__name__ for kind in get_args(e.AnyEvent)} == {
        *("TaskSubmitted", "RunPlanned", "RunStarted", "RunEnded", "RunRefused", "TaskRequeued", "TaskApproved"),
        *("TaskMerged", "TaskDone", "TaskFailed", "TaskCancelled", "DependencyFailed", "TaskEscalated", "TaskHeld"),
        *("TaskReleased", "CoordinationPaused", "CoordinationResumed", "SupervisorStarted", "SupervisorStopped"),
        *("StopRequested", "IntegrationCreated", "IntegrationRestored", "BatchLost"),
    }


@pytest.mark.parametrize(
    "events",
    [
        '[{"type":"TaskVanished","task":"A"}]',
        '[{"task":"A"}]',
        '[{"type":"TaskCancelled"}]',
        '[{"type":"TaskCancelled","task":7}]',
        '[{"type":"RunPlanned","task":"A","run":"A.1.x","purpose":"x"}]',
        '{"type":"TaskCancelled","task":"A"}',
    ],
)
def test_a_fact_that_cannot_be_read_is_not_skipped(events: str) -> None:
    """Unknown types, missing fields and wrong types are damage, with the batch's number."""
    with pytest.raises(LogDamaged, match="batch 12"):
        e.decode(12, f'{{"at":"2026-01-31T12:00:00Z","events":{events}}}'.encode())


def test_bytes_that_are_no_text_are_damage() -> None:
    """Whatever is wrong with a batch, it is one error that says which batch."""
    with pytest.raises(LogDamaged, match="batch 12"):
        e.decode(12, b'{"at":"2026-01-31T12:00:00Z","events":[{"type":"TaskCancelled","task":"\xff"}]}')


def test_a_record_is_described_flat_with_the_task_after_the_type() -> None:
    """Keys and their order are what people see in ``coord log``."""
    event = e.RunPlanned(task="A", run="A.1.work", purpose=Purpose.WORK, role="green")
    row = e.described(e.Record(seq=3, index=1, at=AT, event=event))
    assert list(row)[:5] == ["seq", "index", "at", "type", "task"]
    assert (row["at"], row["purpose"], row["role"]) == ("2026-01-31T12:00:00.250000Z", "work", "green")
    assert json.loads(json.dumps(row)) == row


def test_equal_values_have_equal_bytes() -> None:
    """Digests do not depend on the order of keys."""
    assert e.canonical({"b": 1, "a": {"d": 2, "c": 3}}) == e.canonical({"a": {"c": 3, "d": 2}, "b": 1})


@pytest.mark.parametrize(("message", "headline"), [("", ""), ("\n", ""), ("one", "one"), ("one\ntwo", "one")])
def test_a_reason_always_has_a_headline(message: str, headline: str) -> None:
    """The first line, and nothing when there is nothing."""
    assert e.RequeueReason(kind="failure", message=message).headline == headline
