"""How long from a dropped file to the run it becomes, when the supervisor has nothing else to do?

A real supervisor, a real inbox; each task is a search on the scripted backend. Two stretches are measured, one file
after the other, each dropped into an idle supervisor at a moment of its own within the rest:

* from before the file is written until ``RunPlanned`` is durable. The moment is when a follower of the log, here in
  the measuring process, holds the record in his hands: the event's own ``at`` is read before its batch is written, so
  it would leave out the very sync that is asked for. The follower sleeps on the log's bell; what he adds is a waking.
* from there to the worker's first word: the clock it reads (its outcome's ``started_at``) once it holds its lock, has
  read its request and has published that it begins. Its workspace comes after that, so whether that is warm plays no
  part.

Beside each drop, and with the supervisor at rest again: two publishes (``files.publish``) of the same bytes in the same
place, and ``python -c pass`` from its start to its end, by the interpreter and in the environment of the supervisor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from coordination import files
from coordination.coordinator import Coordinator
from coordination.model import events as e
from coordination.model.state import State
from coordination.store import Store
from coordination.testing.stage import Late, Stage

DROPS = 40
SETTINGS = {"agents": {"backend": "scripted"}, "limits": {"attempts_max": 1}}
_PROMPT = 'Say something.\n\n```script\n{"report": "Something."}\n```\n'
_WARMING = 2
_PATIENCE_SECONDS = 30.0
_REST_SECONDS = 0.3  # at most, before a drop


@dataclass(frozen=True, kw_only=True, slots=True)
class Latencies:
    """Durations in nanoseconds, one a drop."""

    planned: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    publishes: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)


def measure(directory: Path, drops: int = DROPS) -> Latencies:
    """Drop so many files, one after the other, each into an idle supervisor."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name:
        stage = Stage(Path(name), settings=SETTINGS).build()
        stage.start()
        try:
            stage.wait_for_event("IntegrationCreated")
            return _measured(stage, drops)
        finally:
            stage.close()


def rested(stage: Stage, store: Store[State]) -> None:
    """Wait until the supervisor has written down how far it is, which it does before it rests."""
    note = stage.state / "supervisor.json"
    stage.wait_for(lambda: (files.read_json_if_there(note) or {}).get("seq") == store.refresh_seq(), "rest")


def _measured(stage: Stage, drops: int) -> Latencies:
    store, dice, found = Coordinator(stage.home).store, Random(0), Latencies()
    for number in range(_WARMING + drops):
        rested(stage, store)
        time.sleep(dice.uniform(0.0, _REST_SECONDS))
        publishes, start = _publishes(stage), _start(stage)
        planned, begun = _dropped(stage, store, f"T{number}")
        if number >= _WARMING:
            found.planned.append(planned)
            found.begun.append(begun)
            found.publishes.append(publishes)
            found.starts.append(start)
    return found


def _dropped(stage: Stage, store: Store[State], task: str) -> tuple[int, int]:
    """From the drop to ``RunPlanned``, and from there to the worker's first word."""
    after, planned, begun = store.refresh_seq(), 0, 0
    dropped = time.time_ns()
    stage.drop(**_task(task))
    for record in store.follow(after, patience_seconds=_PATIENCE_SECONDS):
        seen = time.time_ns()
        match record.event:
            case e.RunPlanned():
                planned = seen
            case e.RunEnded(outcome=outcome):
                begun = int(outcome.started_at * 1e9)
            case e.TaskDone():
                return planned - dropped, begun - planned
    raise Late(f"{task} was not done within {_PATIENCE_SECONDS:g} s:\n{stage.said()}")


def _publishes(stage: Stage) -> int:
    data, path = json.dumps(_task("T0")).encode(), stage.directory / "published.json"
    begun = time.perf_counter_ns()
    files.publish(path, data)
    files.publish(path, data)
    return time.perf_counter_ns() - begun


def _start(stage: Stage) -> int:
    begun = time.perf_counter_ns()
    subprocess.run([sys.executable, "-c", "pass"], env=stage.environment, stdin=subprocess.DEVNULL, check=True)
    return time.perf_counter_ns() - begun


def _task(task: str) -> dict[str, str]:
    return {"id": task, "kind": "search", "prompt": _PROMPT}
