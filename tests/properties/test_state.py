"""Does the state follow from the records alone, however they are cut?"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.model import events as e
from coordination.model.state import Core, State, Task, copied
from coordination.model.tasks import Status
from coordination.testing import strategies
from coordination.testing.strategies import Batch, History

core = Core()
histories = strategies.histories()


def folded(state: State, records: list[e.Record]) -> State:
    for record in records:
        state = core.fold(state, record)
    return state


@settings(max_examples=60)
@given(histories)
def test_replay_equals_the_live_state(history: History) -> None:
    """Folding all records once more gives the state that was held while they were made."""
    assert folded(core.initial(), history.records) == history.state


@settings(max_examples=60)
@given(histories)
def test_records_as_the_log_has_them_give_the_same_state(history: History) -> None:
    """Folding what was written and read back equals folding what was meant."""
    state = core.initial()
    for batch in history.batches:
        payload = e.encode([record.event for record in batch.records], batch.records[0].at)
        state = folded(state, e.decode(batch.records[0].seq, payload))
    assert core.dump(state) == core.dump(history.state)


@settings(max_examples=60)
@given(histories, st.integers(0, 10_000))
def test_a_snapshot_anywhere_changes_nothing(history: History, place: int) -> None:
    """Fold a prefix, save it, load it, fold the rest: the same state, and the same dump to the byte."""
    records = history.records
    cut = place % (len(records) + 1)
    loaded = core.load(core.dump(folded(core.initial(), records[:cut])))
    state = folded(loaded, records[cut:])
    assert state == history.state
    assert core.dump(state) == core.dump(history.state)


@settings(max_examples=60)
@given(histories, st.integers(0, 10_000))
def test_what_is_folded_on_a_copy_leaves_the_original_alone(history: History, place: int) -> None:
    """Wherever it is taken, a copy goes the whole way, and what it was taken from stays what it was."""
    records = history.records
    cut = place % (len(records) + 1)
    before = folded(core.initial(), records[:cut])
    dump = core.dump(before)
    assert folded(copied(before), records[cut:]) == history.state
    assert core.dump(before) == dump


def comes_back(_batch: Batch, state: State) -> None:
    """Asked after every batch of a history."""
    assert core.load(core.dump(state)) == state
    assert list(state.open) == [task.id for task in state.tasks_alive()]
    for task in state.tasks.values():
        unended = bool(task.live) or not task.status.ended
        assert (task.id in state.open) is unended
        assert state.find(task.id.upper()) is task
    tickets = {task.ticket: task.id for task in state.tasks.values()}
    assert state.tickets == tickets
    assert f"t{state.mint}" not in state.keys
    looked_at(state)
    money = state.money
    assert set(money.reserved) == {run.id for task in state.tasks.values() for run in task.live if run.account}
    live = {run.id for task in state.tasks.values() for run in task.live if run.account}
    assert {run for account in state.accounts.values() for run in account.live} == live
    spent = sum(run.outcome.usage.cost_usd for task in state.tasks.values() for run in task.runs if run.outcome)
    assert abs(state.money.spent_usd - spent) < 1e-9


def looked_at(state: State) -> None:
    """What planning looks at agrees with the tasks themselves."""
    tasks = list(state.tasks.values())
    moving = {Status.RUNNING, Status.REVIEWING, Status.APPROVED}
    assert set(state.busy) == {task.id for task in tasks if task.live or task.status in moving}
    unended = [task for task in tasks if task.id in state.open]
    assert set(state.holding) == {task.id for task in unended if task.spec.paths and len(task.runs) > task.trial}
    assert set(state.based) == {task.id for task in unended if task.spec.base is not None and not task.base}
    needed = {after.lower() for task in tasks for after in task.spec.after}
    badly = {task.id for task in tasks if task.status.ended and not task.status.ended_well}
    assert set(state.fallen) == {name for name in badly if name.lower() in needed}
    lines: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda each: (each.seq, each.index)):
        if task.status is Status.QUEUED:
            lines.setdefault(f"{task.spec.priority}/{task.spec.role}/{task.spec.kind}", []).append(task)
    assert state.queued == {line: [task.id for task in found] for line, found in lines.items()}


@settings(max_examples=40)
@given(strategies.histories(seen=comes_back))
def test_every_state_on_the_way_can_be_saved_and_agrees_with_itself(history: History) -> None:
    """At every batch: dump and load give the state back, and its indexes agree with its tasks."""
    assert history.batches
