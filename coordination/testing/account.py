"""What became of tasks, by the evidence alone? Raw log lines, git objects and run directories, nobody's word.

Shares no code with what it checks. Everything it finds wrong is a sentence; a history in which nothing was lost,
doubled or left behind gives none. ``violations`` asks everything of one task that landed; of many tasks, each with an
end of its own, ``lost``, ``doubled``, ``overspent`` and ``left_behind`` ask one question each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        told = _lines(stage.state / "runs" / run / "transcript.jsonl")
        played = [line for line in told if line["type"] == "scripted" and line["tool"] == "end"]
        begun = [line for line in told if line["type"] == "system" and line.get("subtype") == "init"]
        counted[run] += len(played) + len(begun)
    gates = stage.directory / "gates.txt"
    counted.update(gates.read_text().split() if gates.exists() else [])
    return counted


def _lines(transcript: Path) -> list[Event]:
    """What was written of a conversation; whoever writes it may be killed in the middle of a line."""
    whole = transcript.read_bytes().split(b"\n")[:-1] if transcript.exists() else []
    return [json.loads(line) for line in whole]


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


# -- many tasks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Demand:
    """How a task that was dropped may have ended and, if it landed, what must stand in which files."""

    task: str
    ends: frozenset[str] = frozenset({"merged"})
    content: Mapping[str, str] = field(default_factory=dict)


_STANDS = {
    "TaskSubmitted": "queued",
    "TaskRequeued": "queued",
    "RunPlanned": "under way",
    "TaskEscalated": "waiting_for_person",
    "TaskMerged": "merged",
    "TaskDone": "done",
    "TaskFailed": "failed",
    "TaskCancelled": "cancelled",
    "DependencyFailed": "dependency_failed",
}


def stands(events: Iterable[Event]) -> dict[str, str]:
    """Where each task stands, by the last event that moved it."""
    return {event["task"]: _STANDS[event["type"]] for event in events if event["type"] in _STANDS}


def lost(stage: Stage, demands: Sequence[Demand]) -> Iterator[str]:
    """Tasks that were dropped and did not come to an end that was wished, or landed without what they wrote."""
    events = stage.events()
    where = stands(events)
    submitted = Counter(event["task"] for event in events if event["type"] == "TaskSubmitted")
    for demand in demands:
        if submitted[demand.task] != 1:
            yield f"{demand.task}: TaskSubmitted {submitted[demand.task]} times"
        if where.get(demand.task) not in demand.ends:
            yield f"{demand.task} is {where.get(demand.task)}, not {' or '.join(sorted(demand.ends))}"
        elif where[demand.task] == "merged":
            yield from (complaint for name, text in demand.content.items() for complaint in _holds(stage, name, text))
    yield from (f"{task} was never dropped" for task in submitted - Counter(demand.task for demand in demands))
    yield from _receipts(stage, [event for event in events if event["type"] == "TaskSubmitted"])


def _holds(stage: Stage, name: str, text: str) -> Iterator[str]:
    found = stage.git("ls-tree", "--format=%(objectname)", INTEGRATION, "--", name).strip()
    if not found:
        yield f"{name} is not on {INTEGRATION}"
    elif (there := stage.git("cat-file", "blob", found)) != text:
        yield f"{name} is {there!r}, not {text!r}"


def doubled(stage: Stage) -> Iterator[str]:
    """Tasks that were completed twice, and runs that were planned, begun, done or ended twice, or never ended."""
    events = stage.events()
    for kind in ("TaskMerged", "TaskDone"):
        times = Counter(event["task"] for event in events if event["type"] == kind)
        yield from (f"{task}: {kind} {count} times" for task, count in times.items() if count != 1)
    yield from _runs(stage, events)
    yield from _merges(stage, events)


def _merges(stage: Stage, events: Sequence[Event]) -> Iterator[str]:
    """By their own words: each merge commit says of which task it is."""
    shown = "--format=%H %P %(trailers:key=Coordination-Task,valueonly,separator=%x20)"
    asked = ("log", "--first-parent", "--merges", shown, f"main..{INTEGRATION}")
    rows = [line.split() for line in stage.git(*asked).splitlines()]
    yield from (f"the merge commit {row[0]} says of no task that it is its own" for row in rows if len(row) != 4)
    rows = [row for row in rows if len(row) == 4]
    found = Counter(row[3] for row in rows)
    told = {event["task"]: (event["merge"], event["commit"]) for event in events if event["type"] == "TaskMerged"}
    yield from (f"{task}: {count} merge commits" for task, count in found.items() if count != 1)
    yield from (f"{task}: a merge commit, and no TaskMerged" for task in found if task not in told)
    merges = {row[3]: (row[0], row[2]) for row in rows}
    for task, pair in told.items():
        if merges.get(task) != pair:
            yield f"{task}: the log has merge and commit {pair}, git has {merges.get(task)}"


def overspent(stage: Stage, cap_usd: float, response_usd: float) -> Iterator[str]:
    """Whenever what was spent, or all that was spent and promised, was above the cap by more than one answer.

    Each run under way may cost its budget and one answer; of the newest one the answer is what may be too much.
    """
    promised: dict[str, float] = {}
    spent = 0.0
    for event in stage.events():
        if event["type"] == "RunPlanned" and event.get("account"):
            promised[event["run"]] = event["limits"]["budget_usd"]
        elif event["type"] == "RunEnded":
            promised.pop(event["run"], None)
            spent += event["outcome"].get("usage", {}).get("cost_usd", 0.0)
        if spent > cap_usd + response_usd:
            yield f"{event['seq']}: {spent:.4f} USD are spent, above {cap_usd:g} by more than {response_usd:g}"
        owed = sum(promised.values()) + response_usd * max(0, len(promised) - 1)
        if promised and spent + owed > cap_usd + _CENT:
            yield f"{event['seq']}: {spent:.4f} USD are spent and {owed:.4f} promised, above {cap_usd:g}"


_CENT = 0.01  # below it sums of fractions are not compared


# -- what is left -----------------------------------------------------------------------------------------------------


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
