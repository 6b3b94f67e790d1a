"""What became of a task, by the evidence alone? Raw log lines, git objects and run directories, nobody's word.

Shares no code with what it checks. Everything it finds wrong is a sentence; a history in which nothing was lost,
doubled or left behind gives none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from coordination.testing.stage import Stage

JSON = Any
Event = Mapping[str, JSON]

INTEGRATION = "coordination/integration"


def violations(stage: Stage, task: str, content: Mapping[str, str]) -> list[str]:
    """What is wrong with a task that should have landed, once, with this content in these files."""
    events = stage.events(task=task)
    return [
        *_once(events, task),
        *_runs(stage, events),
        *_landed(stage, events, content),
        *_receipts(stage, events),
        *left_behind(stage),
        *replayed(stage),
    ]


def _once(events: Iterable[Event], task: str) -> Iterator[str]:
    kinds = Counter(event["type"] for event in events)
    for kind in ("TaskSubmitted", "TaskApproved", "TaskMerged"):
        if kinds[kind] != 1:
            yield f"{task}: {kind} {kinds[kind]} times"


def _runs(stage: Stage, events: Sequence[Event]) -> Iterator[str]:
    planned = Counter(event["run"] for event in events if event["type"] == "RunPlanned")
    started = Counter(event["run"] for event in events if event["type"] == "RunStarted")
    ended = Counter(event["run"] for event in events if event["type"] == "RunEnded")
    yield from (f"{run} planned {times} times" for run, times in planned.items() if times != 1)
    yield from (f"{run} started {times} times" for run, times in started.items() if times != 1)
    yield from (f"{run} ended {times} times" for run, times in ended.items() if times != 1)
    yield from (f"{run} never ended" for run in planned - ended)
    pids = {event["run"]: event["pid"] for event in events if event["type"] == "RunStarted"}
    for run, pid in pids.items():
        worker = json.loads((stage.state / "runs" / run / "worker.json").read_text())
        if worker["pid"] != pid:
            yield f"{run}: the log has worker {pid}, its directory {worker['pid']}"
    yield from (f"{run} acted {times} times" for run, times in acts(stage, planned).items() if times > 1)


def acts(stage: Stage, runs: Iterable[str]) -> Counter[str]:
    """How often each run's agent or gate has acted: scripts that were played, conversations that were begun."""
    counted: Counter[str] = Counter()
    for run in runs:
        transcript = stage.state / "runs" / run / "transcript.jsonl"
        lines = transcript.read_text().splitlines() if transcript.exists() else []
        told = [json.loads(line) for line in lines]
        played = [line for line in told if line["type"] == "scripted" and line["tool"] == "end"]
        begun = [line for line in told if line["type"] == "system" and line.get("subtype") == "init"]
        counted[run] += len(played) + len(begun)
    gates = stage.directory / "gates.txt"
    counted.update(gates.read_text().split() if gates.exists() else [])
    return counted


def _landed(stage: Stage, events: Sequence[Event], content: Mapping[str, str]) -> Iterator[str]:
    rows = stage.git("rev-list", "--merges", "--parents", f"main..{INTEGRATION}").splitlines()
    merges = {row[0]: row[1:] for row in (line.split() for line in rows)}
    approved = [event["evidence"]["commit"] for event in events if event["type"] == "TaskApproved"]
    merged = [event["merge"] for event in events if event["type"] == "TaskMerged"]
    reviewed = [merge for merge, parents in merges.items() if parents[1:] == approved[:1]]
    if len(reviewed) != 1 or reviewed != merged:
        yield f"merges of the reviewed commit {approved}: {reviewed}; the log has {merged}; all: {merges}"
    if len(merges) != 1:
        yield f"{len(merges)} merges for one task: {merges}"
    for name, text in content.items():
        found = stage.git("show", f"{INTEGRATION}:{name}")
        if found != text:
            yield f"{name} is {found!r}"


def _receipts(stage: Stage, events: Sequence[Event]) -> Iterator[str]:
    inbox = stage.state / "inbox"
    receipts = sorted(path.name for path in (inbox / "accepted").iterdir())
    expected = sorted(f"{e['task']}.{e['ticket']}.json" for e in events if e["type"] == "TaskSubmitted")
    if receipts != expected:
        yield f"receipts {receipts}, not {expected}"
    lost = [*inbox.glob("*.json"), *(inbox / ".taken").iterdir(), *(inbox / "rejected").iterdir()]
    yield from (f"left in the inbox: {path}" for path in lost)


def left_behind(stage: Stage) -> Iterator[str]:
    """Processes, workspaces of what has ended, and half-published files that are still there."""
    yield from (f"process {number} still carries the mark of a run" for number in stage.processes_of_runs())
    told = stage.git("worktree", "list", "--porcelain").splitlines()
    places = [line.partition(" ")[2] for line in told if line.startswith("worktree ")]
    over = {event["task"] for kind in ("TaskMerged", "TaskDone") for event in stage.events(kind)}
    over |= {event["run"] for event in stage.events("RunEnded")}
    yield from (f"worktree {place} is still there" for place in places if place.rpartition("/")[2] in over)


def replayed(stage: Stage) -> Iterator[str]:
    """Whether the log, replayed, gives the state that the last supervisor held; and has no gap."""
    live, again = stage.digests()
    if live != again:
        yield f"the last supervisor held {live}; the log replays to {again}"
    numbers = sorted({event["seq"] for event in stage.events()})
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the log's numbers have gaps: {numbers}"
