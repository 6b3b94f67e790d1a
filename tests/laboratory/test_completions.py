"""G13: what careless workers did is recorded exactly once; the witness that says so can find the opposite."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import Outcome
from coordination.model.state import State
from coordination.testing.completions import play

TASKS_MAX = {1: 5_000, 2: 1_000_000}
SECONDS_MAX = {1: 40.0, 2: 345.0}


@pytest.mark.timeout(420)
def test_whatever_workers_answer_each_task_is_completed_once(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Dead, twice, late, in another one's place: no run ends twice, no task is completed twice, none is lost."""
    until = time.monotonic() + SECONDS_MAX[tier]
    tasks = completed = number = 0
    told: Counter[str] = Counter()
    wrong: list[str] = []
    while tasks < TASKS_MAX[tier] and time.monotonic() < until:
        number += 1
        played = play(seed * 1_000_000 + number)
        tasks, completed = tasks + played.tasks, completed + played.completed
        told += played.told
        wrong += [f"play({seed * 1_000_000 + number}): {complaint}" for complaint in played.wrong]
    note = f"{completed:,} completed; " + ", ".join(f"{what} {count:,}" for what, count in sorted(told.items()))
    figure("G13", "simulated tasks, completion recorded once", tasks, violations=len(wrong), note=note)
    late = told["answered late"] + told["answered when all was over"] + told["answered with another token"]
    figure("G10", "late and superseded outcomes, simulated", late, violations=len(wrong))
    assert wrong[:20] == []
    assert completed > tasks / 3
    assert min(told.values()) > tasks / 50, "every carelessness was tried"


def believing(state: State, run_id: str, outcome: Outcome, *, token: int) -> Sequence[e.AnyEvent]:
    """Asks neither whether the run has ended nor who speaks."""
    del token
    return (e.RunEnded(task=state.run(run_id).task, run=run_id, outcome=outcome),)


def unfenced(state: State, run_id: str, outcome: Outcome, *, token: int) -> Sequence[e.AnyEvent]:
    """Does not ask who speaks."""
    del token
    run = state.run(run_id)
    return (e.RunEnded(task=run.task, run=run_id, outcome=outcome),) if run.live else ()


@pytest.mark.parametrize(("end", "complaint"), [(believing, "ended 2 times"), (unfenced, "was taken")])
def test_the_witness_sees_what_a_careless_record_does(
    end: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the fence, and without asking whether a run lives, it finds something in every few worlds."""
    monkeypatch.setattr(commands, "end", end)
    found = [said for number in range(10) for said in play(number).wrong]
    assert any(complaint in said for said in found), found
