"""Does the state stay right, or say that it is in doubt, when any batches of a history are lost?"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.errors import CoordinationError
from coordination.model import commands
from coordination.model import events as e
from coordination.model.losses import named_in, tasks_of
from coordination.model.state import Core, State
from coordination.model.taskfile import Submission
from coordination.model.tasks import Status
from coordination.planning.plan import plan
from coordination.testing import strategies
from coordination.testing.strategies import Batch, History, World

core = Core()
histories = strategies.histories()
choices = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)


def lost(batch: Batch, *, named: bool) -> list[e.Record]:
    """What repair puts in the place of a batch: with the ids in its bytes, or without any that can be read."""
    tasks = tasks_of([record.event for record in batch.records]) if named else ()
    event = e.BatchLost(tasks=tasks, evidence="repair/1", reason="damaged")
    return [e.Record(seq=batch.records[0].seq, index=0, at=batch.records[0].at, event=event)]


def folded(history: History, places: list[int], *, named: bool = True) -> tuple[State, set[str]]:
    """The state when those batches are lost, and the tasks that they spoke of."""
    numbers = {place % len(history.batches) for place in places}
    state, touched = core.initial(), set()
    for number, batch in enumerate(history.batches):
        records = list(batch.records)
        if number in numbers:
            touched |= set(tasks_of([record.event for record in records]))
            records = lost(batch, named=named)
        for record in records:
            state = core.fold(state, record)
        if number in numbers and named:
            check_asked(state, records[0])
    return state, touched


def check_asked(state: State, record: e.Record) -> None:
    """Right after a loss, whatever it named waits for a person, unless it is at an end that is for ever."""
    assert isinstance(record.event, e.BatchLost)
    for name in record.event.tasks:
        task = state.tasks.get(name)
        asked = task is not None and (task.status, task.doubt) == (Status.WAITING_FOR_PERSON, record.seq)
        assert asked or (task is None and name in state.lost) or (task is not None and task.status.ended_well)
    assert state.paused


@settings(max_examples=150)
@given(histories, choices)
def test_tasks_that_no_lost_batch_spoke_of_are_as_without_the_loss(history: History, places: list[int]) -> None:
    """Exactly, to the last field; any other waits for a person, has ended as the log says, or is shown as lost."""
    state, touched = folded(history, places)
    for name, task in history.state.tasks.items():
        if name not in touched:
            assert state.tasks[name] == task
            continue
        found = state.tasks.get(name)
        if found is None:
            assert name in state.lost
        else:
            decided = found.status == task.status or found.status is Status.WAITING_FOR_PERSON or not found.doubt
            assert decided, (found.status, task.status)
    assert state.paused or any(isinstance(r.event, e.CoordinationResumed) for r in history.records)
    assert len(state.losses) == len({place % len(history.batches) for place in places})


@settings(max_examples=150)
@given(histories, choices, st.booleans())
def test_a_loss_never_stops_the_fold_nor_what_comes_after(history: History, places: list[int], named: bool) -> None:
    """Whether the ids could be read or not: it is folded, saved, loaded, planned on, and comes to rest."""
    state, _ = folded(history, places, named=named)
    loaded = core.load(core.dump(state))
    assert (loaded, core.dump(loaded)) == (state, core.dump(state))
    assert f"t{state.mint}" not in state.keys.keys() | state.lost.keys()
    world = World(facts=history.facts, policies=history.policies, state=state, batches=list(history.batches))
    world.finish()
    plan(world.state, world.facts, world.policies)


@settings(max_examples=100)
@given(histories, choices)
def test_a_person_can_retry_and_cancel_what_is_in_doubt(history: History, places: list[int]) -> None:
    """Each leads out of the doubt, unless a run of it is still to be heard of."""
    for decide in (commands.retry, commands.cancel):
        state, _ = folded(history, places)
        for name in [name for name, task in state.tasks.items() if task.doubt and not task.live]:
            assert state.tasks[name].status is Status.WAITING_FOR_PERSON
            for index, event in enumerate(decide(state, name)):
                state = core.fold(state, e.Record(seq=10_000, index=index, at=history.facts.now, event=event))
            assert not state.tasks[name].doubt
            assert state.tasks[name].status in (Status.QUEUED, Status.HELD, Status.CANCELLED)


@settings(max_examples=60)
@given(histories, choices)
def test_a_lost_task_can_be_submitted_again(history: History, places: list[int]) -> None:
    """Whose submission is lost is not known, so the same id is not taken for done."""
    state, _ = folded(history, places)
    for name in [*state.lost]:
        known = history.state.tasks[name]
        submission = Submission(id=name, spec=known.spec, digest=known.digest)
        try:
            task, events = commands.submit(state, submission)
        except CoordinationError:
            continue  # a cycle, now that others depend on it
        assert (task, len(events)) == (name, 1)
        state = core.fold(state, e.Record(seq=10_000, index=0, at=history.facts.now, event=events[0]))
        assert name not in state.lost


@given(histories, st.integers(0, 10_000))
def test_the_ids_in_whole_bytes_are_those_of_the_events(history: History, place: int) -> None:
    """The tolerant scan misses none of them."""
    batch = history.batches[place % len(history.batches)]
    found = [record.event for record in batch.records]
    raw = e.encode(found, batch.records[0].at)
    assert set(tasks_of(found)) <= set(named_in(raw))


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b'{"type":"RunEnded","task":"T7","run":"T7.2.work"}', ("T7",)),
        (b'\0\0\0k":"T7","run":"T8.2.ga', ()),
        (b'\0\0"run":"T8.2.gate","outcome"', ("T8",)),
        (b'{"prompt":"say \\"task\\":\\"T9\\""}', ()),
        (b"", ()),
    ],
)
def test_only_names_in_their_place_count(raw: bytes, names: tuple[str, ...]) -> None:
    """Text that quotes an event is no event."""
    assert named_in(raw) == names
