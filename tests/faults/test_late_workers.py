"""Workers that were stopped in their tracks and go on when everybody has given them up: heard once, or refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.environment import MARKER
from coordination.testing.account import Demand, doubled, left_behind, lost
from coordination.testing.stage import Stage, supervise_forked
from coordination.testing.strikes import send

JSON = Any

COUNT = {1: 6, 2: 40}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """A stage with room for so many workers at once."""
    made: list[Stage] = []

    def one(slots: int, **limits: JSON) -> Stage:
        settings = {
            "agents": {"backend": "scripted"},
            "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.1},
            "retry": {"backoff_seconds": 0.05},
            "roles.green": {"slots": slots},
            "limits": limits,
        }
        stage = Stage(tmp_path, settings=settings).build()
        made.append(stage)
        return stage

    yield one
    for stage in made:
        stage.close()


def drop(stage: Stage, number: int, seconds: float, **fields: JSON) -> Demand:
    """A task that writes a file of its own and then takes a while; what must come of it."""
    name = f"L{number}"
    script = json.dumps({"write": {f"{name}.txt": name}, "report": "done", "sleep_seconds": seconds})
    stage.drop(id=name, review="never", prompt=f"Do it.\n```script\n{script}\n```", **fields)
    return Demand(task=name, content={f"{name}.txt": name})


def stopped(stage: Stage, demands: list[Demand]) -> dict[str, int]:
    """The workers of all first runs, each stopped in its tracks as soon as it has begun."""
    found: dict[str, int] = {}

    def all_stopped() -> bool:
        for demand in demands:
            run = f"{demand.task}.1.work"
            begun = stage.state / "runs" / run / "worker.json"
            if run not in found and begun.exists():
                pid = json.loads(begun.read_text())["pid"]
                assert send(pid, f"{stage.uuid}/{run}", signal.SIGSTOP), "it went before it could be stopped"
                found[run] = pid
        return len(found) == len(demands)

    stage.wait_for(all_stopped, "beginning of all workers")
    return found


def signal_all(stage: Stage, found: dict[str, int], number: signal.Signals) -> int:
    """Send it to exactly those workers; how many were still there."""
    return sum(send(pid, f"{stage.uuid}/{run}", number) for run, pid in found.items())


def checked(stage: Stage, demands: list[Demand]) -> list[str]:
    """What is wrong in the end."""
    return [*lost(stage, demands), *doubled(stage), *left_behind(stage)]


@pytest.mark.timeout(300)
def test_a_worker_that_stood_still_while_supervisors_changed_is_heard_once(
    make: Callable[..., Stage], tier: int, figure: Callable[..., None]
) -> None:
    """Nobody takes the place of one who holds its lock: it goes on, and its outcome counts, once."""
    count = COUNT[tier]
    stage = make(count)
    demands = [drop(stage, number, 2.0) for number in range(count)]
    first = stage.start()
    found = stopped(stage, demands)
    first.kill()
    first.wait()
    second = stage.start("--once")
    stage.wait_for(lambda: len(stage.events("RunStarted")) == count, "look at all workers")
    stage.wait_for(lambda: len(stage.events("SupervisorStarted")) == 2, "second supervisor")
    assert stage.events("RunEnded") == []
    assert signal_all(stage, found, signal.SIGCONT) == count
    assert second.wait(60) == 0, stage.said()
    wrong = checked(stage, demands)
    figure("G10", "stopped workers that went on under another supervisor", count, violations=len(wrong))
    assert wrong == []
    works = [event["run"] for event in stage.events("RunPlanned", purpose="work")]
    assert sorted(works) == sorted(found), "no second worker for any"


@pytest.mark.timeout(300)
def test_a_worker_that_stood_still_past_its_time_is_not_heard_at_all(
    make: Callable[..., Stage], tier: int, figure: Callable[..., None]
) -> None:
    """Its run was given up: it is killed as it stands, before another one begins, and has no last word."""
    count = COUNT[tier]
    stage = make(count, timeout_seconds=6.0)
    demands = [drop(stage, number, 0.6) for number in range(count)]
    supervisor = stage.start("--once")
    found = stopped(stage, demands)
    stage.wait_for(lambda: len(stage.events("RunEnded", task="L0")) >= 1, "end of the first run")
    again = stage.wait_for_event("RunPlanned", run="L0.2.work")
    (ended,) = stage.events("RunEnded", run="L0.1.work")
    assert ended["outcome"]["ending"] == "timed_out"
    assert ended["seq"] < again["seq"]
    assert supervisor.wait(90) == 0, stage.said()
    assert signal_all(stage, found, signal.SIGCONT) == 0
    wrong = checked(stage, demands)
    figure("G10", "stopped workers whose run was given up", count, violations=len(wrong))
    assert wrong == []
    endings = Counter(event["outcome"]["ending"] for event in stage.events("RunEnded") if event["run"] in found)
    assert endings == {"timed_out": count}


def test_a_worker_with_the_token_of_an_earlier_plan_is_refused_and_recorded(
    make: Callable[..., Stage], figure: Callable[..., None]
) -> None:
    """It stood still in the middle of its work while the run was planned anew: what it brings is another one's."""
    stage = make(1)
    demand = drop(stage, 0, 1.0)
    assert supervise_forked(stage, "request:after@RunPlanned:L0.1.work") == -9
    directory = stage.state / "runs/L0.1.work"
    asked = json.loads((directory / "request.json").read_text())
    (directory / "request.json").write_text(json.dumps({**asked, "token": asked["token"] - 1}))
    marker = f"{stage.uuid}/L0.1.work"
    argv = [sys.executable, "-P", "-m", "coordination.worker", str(directory)]
    with subprocess.Popen(argv, env={**stage.environment, MARKER: marker}, start_new_session=True) as worker:
        stage.wait_for((directory / "worker.json").exists, "beginning of the worker")
        os.kill(worker.pid, signal.SIGSTOP)
        supervisor = stage.start("--once")
        stage.wait_for_event("RunStarted", run="L0.1.work")
        assert stage.events("RunEnded") == []
        os.kill(worker.pid, signal.SIGCONT)
        assert worker.wait(20) in (0, -signal.SIGKILL)  # its outcome is there, and it was reaped while it left
    assert supervisor.wait(60) == 0, stage.said()
    (refused,) = stage.events("RunRefused")
    assert "superseded" in refused["reason"]
    assert [event["outcome"]["code"] for event in stage.events("RunEnded", run="L0.1.work")] == ["superseded"]
    assert [event["run"] for event in stage.events("RunPlanned", purpose="work")] == ["L0.1.work", "L0.2.work"]
    wrong = checked(stage, [demand])
    figure("G10", "outcomes with a superseded token, refused and recorded", 1, violations=len(wrong))
    assert wrong == []
