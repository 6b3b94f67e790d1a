"""A long history is as long as was asked for, legal, and always the same."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from coordination.log.file import FileLog
from coordination.model import events as e
from coordination.model.state import Core, State
from coordination.model.tasks import Status
from coordination.store import SnapshotDirectory, replay
from coordination.testing.histories import batches, write_history


def folded(events: int, tasks: int, seed: int = 0) -> tuple[State, Counter[str]]:
    state, kinds, core = State(), Counter[str](), Core()
    for seq, (at, batch) in enumerate(batches(events, tasks, seed=seed), 1):
        for index, event in enumerate(batch):
            state = core.fold(state, e.Record(seq=seq, index=index, at=at, event=event))
            kinds[e.name(event)] += 1
    return state, kinds


@pytest.mark.parametrize(("events", "tasks"), [(1, 1), (10, 1), (50, 100), (100, 7), (1000, 100), (5000, 20)])
def test_it_has_as_many_events_as_were_asked_for(events: int, tasks: int) -> None:
    """To the event, about at most that many tasks, and every one of them folds."""
    state, kinds = folded(events, tasks)
    assert kinds.total() == events
    assert len(state.tasks) <= tasks


def test_it_looks_like_work() -> None:
    """Ten events a task: reports, landings and now and then a review; several runs at once, decisions together."""
    state, kinds = folded(20_000, 2000)
    ends = Counter(task.status for task in state.tasks.values())
    assert len(state.tasks) == 2000
    assert min(ends[Status.DONE], ends[Status.MERGED]) > 500
    assert kinds["RunPlanned"] > 4000
    assert max(len(batch) for _, batch in batches(20_000, 2000)) > 1
    many, rejected = folded(20_000, 200)
    assert rejected["TaskRequeued"] > 200
    assert max(len(task.runs) for task in many.tasks.values()) > 20


def test_the_same_numbers_give_the_same_history() -> None:
    """And another seed another one."""
    first, again, other = (list(batches(300, 30, seed=seed)) for seed in (7, 7, 8))
    assert first == again != other


def test_it_is_a_log_like_any_other(tmp_path: Path) -> None:
    """Segments follow each other, every line verifies, all of it is durable, and a writer goes on behind it."""
    write_history(tmp_path / "log", 2000, 200, segment_bytes=100_000)
    assert len(list((tmp_path / "log").glob("*.jsonl"))) > 3
    log = FileLog(tmp_path / "log")
    written = [e.encode(batch, at) for at, batch in batches(2000, 200)]
    assert [payload for _, payload in log.read(0, upto="head")] == written
    log.settle()
    assert log.durable == len(written)
    paused = b'{"at":"2030-01-01T00:00:00Z","events":[{"type":"CoordinationPaused"}]}'
    assert log.append(paused, after=len(written), again=lambda: paused) == len(written) + 1
    told: list[tuple[int, int]] = []
    moment = replay(log, Core(), SnapshotDirectory(tmp_path / "none"), progress=lambda *far: told.append(far))
    assert (moment.seq, moment.started, moment.state.paused) == (len(written) + 1, 0, True)
    assert told == [], "it is too short to tell how far it is"
    log.close()
