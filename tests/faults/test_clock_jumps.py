"""A wall clock that jumps by a day or a year, there and back, in the midst of real runs: nobody fails, nobody waits."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.supervisor import Supervisor
from coordination.testing.account import Demand, doubled, left_behind, lost
from coordination.testing.stage import PASSES, Stage

JSON = Any

DAY, YEAR = 86_400.0, 365 * 86_400.0
JUMPS = (DAY, 0.0, YEAR, 0.0, -DAY, 0.0, -YEAR, YEAR, 0.0)
TASKS = {1: 12, 2: 70}  # three runs each and more

# What the tasks do: so many of their tries fail before one is good; each try takes a moment.
FAILURES = (0, 1, 0, 2)
WORKS = {"sleep_seconds": 0.25, "report": "done"}
FAILS = {"sleep_seconds": 0.1, "ending": "failed", "code": "no_change"}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A stage whose supervisor is a thread of ours, with a clock of ours."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "made-up")
    settings = {
        "gates": {"default": ["unit"], "unit": list(PASSES)},
        "agents": {"backend": "scripted"},
        "supervisor": {"poll_seconds": 0.05},
        "retry": {"backoff_seconds": 0.2, "backoff_max_seconds": 1.0},
        "roles.green": {"slots": 4},
    }
    made = Stage(tmp_path, settings=settings).build()
    yield made
    made.close()


def drop(stage: Stage, number: int) -> Demand:
    """One of those tasks; every third depends on the one before, so that there is always somebody who waits."""
    name, fails = f"C{number:02}", FAILURES[number % len(FAILURES)]
    works = {**WORKS, "write": {f"{name}.txt": name}}
    second = works if fails < 2 else FAILS
    cases = [{"contains": ["Earlier:"], "do": works}, {"contains": ["What happened before"], "do": second}]
    script = json.dumps({"match": cases, "do": FAILS if fails else works})
    after = [f"C{number - 1:02}"] if number % 3 == 2 else []
    stage.drop(id=name, review="never", after=after, prompt=f"Do it.\n```script\n{script}\n```")
    return Demand(task=name, content={f"{name}.txt": name})


@pytest.mark.timeout(420)
def test_a_clock_that_jumps_while_runs_are_under_way_harms_none_of_them(
    stage: Stage, tier: int, figure: Callable[..., None]
) -> None:
    """No run times out, no task fails or loses a try, and whoever waits does not wait for a year."""
    demands = [drop(stage, number) for number in range(TASKS[tier])]
    ahead_seconds = [0.0]
    coordinator = Coordinator(stage.home, now=lambda: time.time() + ahead_seconds[0])
    supervisor = threading.Thread(target=Supervisor(coordinator, once=True).run)
    supervisor.start()
    jumps = 0
    while supervisor.is_alive():
        seen = len(stage.events())
        stage.wait_for(lambda: len(stage.events()) >= seen + 3 or not supervisor.is_alive(), "progress after a jump")  # noqa: B023
        ahead_seconds[0] = JUMPS[jumps % len(JUMPS)]
        jumps += 1
    supervisor.join()

    wrong = [*lost(stage, demands), *doubled(stage), *left_behind(stage)]
    ended = Counter(event["outcome"]["ending"] for event in stage.events("RunEnded"))
    requeued = Counter(event["task"] for event in stage.events("TaskRequeued") if event["reason"]["kind"] == "failure")
    for number, demand in enumerate(demands):
        if requeued[demand.task] != FAILURES[number % len(FAILURES)]:
            wrong.append(f"{demand.task} was put back after {requeued[demand.task]} failures")
    wrong += [f"{count} runs ended {how}" for how, count in ended.items() if how not in ("succeeded", "failed")]
    note = f"{ended.total()} runs"
    figure("G9", "clock jumps of a day or a year under real runs", jumps, violations=len(wrong), note=note)
    assert wrong == []
    assert jumps >= len(JUMPS)
