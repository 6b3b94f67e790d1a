"""How long do tasks of known length take altogether, that wait for one another and share a few slots?

Forty searches on the scripted backend, which sleeps for as long as the task is; half of them wait for one or two of
those before them (``after``); one role with five slots. All files are dropped at once into an idle supervisor. A search
is the least a task can be (one run in a worktree of its own, no gate, no landing), so what is measured is how well
slots are kept full, and what a run costs beside its agent.

Against it: the *list schedule*, which knows no costs. Whenever a slot is free it gives it to the first task, in the
order in which they were dropped, whose dependencies are over. It is computed by code that shares nothing with planning,
and is never below the larger of two bounds that no schedule beats: the longest chain, and all work divided by the
slots. These tasks are chosen so that it is hardly above that either, for list schedules have their anomalies: where
much is left idle, later starts can happen upon a better order.

To it is added the *start-up*, once: what a task of length 0 takes from its drop until it is done, the median of three
in the same run. Forty runs pay that, eight in each slot: for the other seven the target leaves a twentieth.
"""

from __future__ import annotations

import heapq
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median

from coordination.coordinator import Coordinator
from coordination.model import events as e
from coordination.model.state import State
from coordination.store import Store
from coordination.testing.stage import Late, Stage
from tests.benchmarks.latency import SETTINGS, rested

TASKS = 40
SLOTS = 5
LENGTH_MEAN = 5  # for every second that a measurement is to take
SEED = 2268  # its list schedule idles for little more than a hundredth: who starts late cannot end earlier by luck
_FIRST = 3  # tasks of length 0
_NEAR = 8  # how far back a dependency may lie
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One task: how long it is, and which of the earlier ones (by number) it waits for."""

    seconds: float
    after: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Spans:
    """Seconds."""

    taken: float
    schedule: float
    start_up: float


def jobs(seconds_mean: float, number: int = TASKS) -> list[Job]:
    """The same ones every time: lengths from a fifth of the mean to nine fifths."""
    dice, made = Random(SEED), list[Job]()
    for mine in range(number):
        near = range(max(0, mine - _NEAR), max(0, mine - SLOTS + 1))
        after = tuple(sorted(dice.sample(near, min(len(near), dice.choice((0, 1, 1, 2))))))
        made.append(Job(seconds=round(seconds_mean * dice.uniform(0.2, 1.8), 3), after=after))
    return made


def list_schedule(wanted: Sequence[Job], slots: int = SLOTS) -> float:
    """When the last one ends if every free slot goes to the first that is ready, and nothing else takes time."""
    waiting, ended = dict(enumerate(wanted)), set[int]()
    running: list[tuple[float, int]] = []
    now = 0.0
    while waiting or running:
        ready = [number for number, job in waiting.items() if ended.issuperset(job.after)]
        for number in ready[: slots - len(running)]:
            heapq.heappush(running, (now + waiting.pop(number).seconds, number))
        now, number = heapq.heappop(running)
        ended.add(number)
    return now


def measure(directory: Path, seconds_mean: float, number: int = TASKS) -> Spans:
    """So many tasks, on one supervisor."""
    wanted = jobs(seconds_mean, number)
    with tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name:
        stage = Stage(Path(name), settings={**SETTINGS, "roles.blue": {"slots": SLOTS}})
        stage.build().start()
        try:
            stage.wait_for_event("IntegrationCreated")
            store = Coordinator(stage.home).store
            first = [_span(stage, store, {f"first-{mine}": Job(seconds=0.0)}) for mine in range(_FIRST)]
            taken = _span(stage, store, {f"T{mine:02}": job for mine, job in enumerate(wanted)})
        finally:
            stage.close()
    return Spans(taken=taken, schedule=list_schedule(wanted), start_up=median(first))


def _span(stage: Stage, store: Store[State], wanted: Mapping[str, Job]) -> float:
    """From before the first drop until the last of them is done and durable, as a follower of the log sees it."""
    rested(stage, store)
    after, left, names = store.refresh_seq(), set(wanted), list(wanted)
    begun = time.monotonic()
    for task, job in wanted.items():
        script = json.dumps({"sleep_seconds": job.seconds, "report": "It took its time."})
        prompt = f"Take your time.\n\n```script\n{script}\n```\n"
        stage.drop(id=task, kind="search", prompt=prompt, after=[names[number] for number in job.after])
    patience = _PATIENCE_SECONDS + max(job.seconds for job in wanted.values())
    for record in store.follow(after, patience_seconds=patience):
        if isinstance(record.event, e.TaskDone):
            left.discard(record.event.task)
        if not left:
            return time.monotonic() - begun
    raise Late(f"{sorted(left)} were not done:\n{stage.said()}")
