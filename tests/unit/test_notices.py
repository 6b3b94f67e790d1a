"""Of what people are told who do not look, and of what not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from coordination.model import events as e
from coordination.model.runs import Ending, Outcome
from coordination.model.state import Core, State
from coordination.model.tasks import Kind, Status, TaskSpec
from coordination.notices import Notice, notices, seen
from coordination.printable import redacted
from coordination.settings import Settings
from coordination.testing import strategies
from coordination.testing.strategies import History, World, facts


def told(records: list[e.Record]) -> list[Notice]:
    state, found = State(), list[Notice]()
    for record in records:
        before = seen(state)
        state = Core().fold(state, record)
        found += notices(record.event, before, state)
    return found


def emptied(records: list[e.Record]) -> int:
    """How often the last task that had not ended, or still had a run, ended."""
    state, times, busy = State(), 0, False
    for record in records:
        state = Core().fold(state, record)
        before, busy = busy, any(task.live or not task.status.ended for task in state.tasks.values())
        times += before and not busy
    return times


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories())
def test_whatever_ends_or_needs_somebody_is_told_once(history: History) -> None:
    """As often as it happened, and nothing else."""
    kinds = [notice.kind for notice in told(history.records)]
    happened = [type(record.event) for record in history.records]
    assert kinds.count("merged") == happened.count(e.TaskMerged)
    assert kinds.count("done") == happened.count(e.TaskDone)
    assert kinds.count("failed") == happened.count(e.TaskFailed) + happened.count(e.DependencyFailed)
    assert kinds.count("needs_person") >= happened.count(e.TaskEscalated)
    assert kinds.count("all_done") == emptied(history.records)


@pytest.mark.parametrize(
    ("code", "kind"), [("usage_limit_reached", "parked"), ("authentication_error", "needs_person"), ("refusal", "")]
)
def test_weather_is_told_when_it_comes_and_not_again(code: str, kind: str) -> None:
    """A limit parks, a rejected key needs a person, and a second run that meets the same tells nothing new."""
    made = World(facts=facts(Settings()))
    for name in "AB":
        made.submit(name, TaskSpec(prompt="p", title="It", kind=Kind.SEARCH))
    made.decide()
    for name in "AB":
        made.end(name, Outcome(ending=Ending.LIMITED, code=code, reason="said so"))
    records = [record for batch in made.batches for record in batch.records]
    found = [notice for notice in told(records) if not notice.task]
    assert [(notice.kind, "said so" in notice.text) for notice in found] == ([(kind, True)] if kind else [])


def test_a_notice_names_the_task_and_its_title() -> None:
    """So that it says something without a look at anything else."""
    made = World(facts=facts(Settings()))
    made.submit("A", TaskSpec(prompt="p", title="Find it", kind=Kind.SEARCH))
    made.decide()
    made.end("A", Outcome(ending=Ending.SUCCEEDED, report="There."))
    assert made.state.tasks["A"].status is Status.DONE
    found = told([record for batch in made.batches for record in batch.records])
    assert [(notice.kind, notice.task, notice.title) for notice in found] == [
        ("done", "A", "Find it"),
        ("all_done", "", ""),
    ]
    assert found[1].text == "nothing is left to do: 1 done"


def test_secrets_are_taken_out_whole() -> None:
    """The longer one first, so that no rest of it stays; what is short is no secret."""
    assert redacted("key sk-ant-123456, sk-ant-1234567!", ["sk-ant-123456", "sk-ant-1234567"]) == (
        "key [redacted], [redacted]!"
    )
    assert redacted("a 1 b", ["1", ""]) == "a 1 b"
