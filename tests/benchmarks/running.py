"""What is measured in one run, and in which order? Rounds over everything, so that all peers share the bad moments."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks import idleness, latency, lengths, makespan, overhead, planning, starts, syncs, tables, workspaces
from tests.benchmarks.measuring import OPERATIONS, OPERATIONS_MAX, Operation, Plan, measure, percentile
from tests.benchmarks.peers import Peer
from tests.benchmarks.peers.all import PEERS
from tests.benchmarks.targets import (
    ALL_TOGETHER,
    BEGUN,
    FEW,
    IDLE,
    MAKESPAN,
    OPEN,
    ORJSON,
    OURS,
    OVERHEAD,
    PLAIN,
    PLAN,
    PLANNED,
    PROCESSORS,
    PROGRAM,
    PUBLISHES,
    PYTHON,
    RECYCLED,
    REPLAY,
    SCHEDULE,
    STARTS,
    SWITCHED,
    TARGETS,
    WORKSPACE,
    Target,
)

NAMES = (*dict.fromkeys(target.goal for target in TARGETS), "growth", "syncs")

_PROCESSES = (1, 2, 4, 8, 16)
_EVENTS = (1_000, 10_000, 100_000, 1_000_000)
_TASKS_A_SECOND = 8_000

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is asked for."""

    only: tuple[str, ...]
    peers: tuple[str, ...]
    rounds: int
    seconds: float
    processes: tuple[int, ...]
    tasks: int
    operations: int  # at most so many of each process
    events: tuple[int, ...]
    directory: Path

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> Options:
        """With what the command line leaves open."""
        quick: bool = parsed.quick
        seconds = parsed.seconds or (0.7 if quick else 2.0)
        return cls(
            only=parsed.only,
            peers=parsed.peers,
            rounds=parsed.rounds or (1 if quick else 3),
            seconds=seconds,
            processes=parsed.processes or (),
            tasks=parsed.tasks or int(_TASKS_A_SECOND * seconds),
            operations=parsed.operations or OPERATIONS_MAX,
            events=parsed.events or (_EVENTS[:-1] if quick else _EVENTS),
            directory=parsed.directory,
        )

    @property
    def targets(self) -> tuple[Target, ...]:
        """Those that are asked for."""
        return tuple(target for target in TARGETS if not self.only or target.goal in self.only)

    def wants(self, name: str) -> bool:
        """Whether that is asked for."""
        return not self.only or name in self.only

    def cells(self) -> list[tuple[Operation, int]]:
        """Which operations are measured, with how many processes at once."""
        if not self.only:
            return [(operation, processes) for operation in OPERATIONS for processes in self.processes or _PROCESSES]
        named = [
            (operation, processes)
            for target in self.targets
            for operation in OPERATIONS
            for processes in self.processes or (target.processes,)
            if operation == target.operation
        ]
        return list(dict.fromkeys(named))

    def measured(self, operation: str) -> list[Peer]:
        """Which peers do it: all, or those that are named, by option or by the targets."""
        named = {target.peer for target in self.targets if target.operation == operation} | {OURS}
        chosen = self.peers or (named if self.only else {peer.name for peer in PEERS})
        able = [peer for peer in PEERS if peer.name in chosen and not peer.missing()]
        return [peer for peer in able if operation == "append" or peer.has_tasks]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The figures of one run."""

    options: Options
    machine: str
    missing: dict[str, str] = field(default_factory=dict)  # what was left out, and why
    figures: dict[tables.Cell, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # events of a log to its batches and bytes

    def add(self, operation: str, processes: int, peer: str, **figures: float) -> None:
        """Take the figures of one round."""
        self.figures[operation, processes, peer].append(figures)

    def markdown(self) -> str:
        """All of it, to be read."""
        shown = [peer for peer in PEERS if any(peer.name == name for _, _, name in self.figures)]
        names = [peer.name for peer in shown]
        parts = [f"{self.machine}. {tables.others(self.figures)}\n"]
        parts += [f"Left out: {name}: {why}.\n" for name, why in self.missing.items()]
        parts += [f"{peer.name}: {peer.note}.\n" for peer in shown if peer.note]
        if self.options.targets:
            parts.append(tables.targets_table(self.figures, self.options.targets))
        parts += [tables.peers_table(self.figures, figure, names) for figure in ("syncs", *tables.PEERS_FIGURES)]
        if self.options.wants("growth"):
            parts.append(tables.lengths_table(self.figures, self.sizes))
        return "\n".join(part for part in parts if part)

    def json(self) -> str:
        """All of it, to be compared."""
        cells = [
            {"operation": operation, "processes": processes, "peer": peer, "rounds": rounds}
            for (operation, processes, peer), rounds in self.figures.items()
        ]
        report = {"machine": self.machine, "missing": self.missing, "sizes": self.sizes, "figures": cells}
        return json.dumps(report, indent=1) + "\n"


def run(options: Options, say: Say) -> Report:
    """Measure all that is asked for."""
    report = Report(options=options, machine=tables.machine(options.directory))
    report.missing.update({peer.name: why for peer in PEERS if (why := _left_out(peer, options))})
    if options.wants("syncs"):
        _count_syncs(report, say)
    for number in range(options.rounds):
        for operation, processes in options.cells():
            for peer in options.measured(operation):
                say(f"round {number + 1} of {options.rounds}: {operation}, {processes}, {peer.name}")
                _measure(report, peer, operation, processes)
    if any(options.wants(name) for name in ("P5", "P6", "growth")):
        with tempfile.TemporaryDirectory(dir=options.directory, prefix="benchmark-") as name:
            _measure_lengths(report, Path(name), say)
    for goal, measure_rounds in _OF_THE_WHOLE.items():
        if options.wants(goal):
            measure_rounds(report, say)
    return report


def _rounds(report: Report, say: Say, what: str) -> Iterator[None]:
    for number in range(report.options.rounds):
        say(f"round {number + 1} of {report.options.rounds}: {what}")
        yield


def _measure_latency(report: Report, say: Say) -> None:
    options = report.options
    for _ in _rounds(report, say, PLANNED):
        found = latency.measure(options.directory, min(options.operations, latency.DROPS))
        planned, publishes = sorted(found.planned), median(found.publishes)
        report.add(PLANNED, 1, OURS, p50_ns=median(planned), p99_ns=percentile(planned, 0.99))
        report.add(PLANNED, 1, PUBLISHES, p50_ns=publishes, p99_ns=publishes)  # one measure for both
        report.add(BEGUN, 1, OURS, p50_ns=median(found.begun))
        report.add(BEGUN, 1, PYTHON, p50_ns=median(found.starts))


def _measure_overhead(report: Report, say: Say) -> None:
    if why := overhead.missing():
        report.missing["P8"] = why
        return
    for _ in _rounds(report, say, OVERHEAD):
        spent = overhead.measure(report.options.directory, min(report.options.operations, overhead.RUNS))
        supervisor, worker = median(one.supervisor for one in spent), median(one.worker for one in spent)
        report.add(OVERHEAD, 1, OURS, seconds=supervisor + worker, supervisor=supervisor, worker=worker)
        report.add(OVERHEAD, 1, PROGRAM, seconds=median(one.program for one in spent))


def _measure_idleness(report: Report, say: Say) -> None:
    if why := idleness.missing():
        report.missing["P11"] = why
        return
    for _ in _rounds(report, say, IDLE):
        cores, megabytes = idleness.measure(report.options.directory, report.options.seconds * idleness.SECONDS_EACH)
        report.add(IDLE, 1, OURS, cores=cores, megabytes=megabytes)


def _measure_makespan(report: Report, say: Say) -> None:
    options = report.options
    for _ in _rounds(report, say, MAKESPAN):
        mean, number = options.seconds * makespan.LENGTH_MEAN, min(options.operations, makespan.TASKS)
        spans = makespan.measure(options.directory, mean, number)
        theirs = spans.schedule + spans.start_up
        report.add(MAKESPAN, makespan.SLOTS, OURS, seconds=spans.taken)
        report.add(MAKESPAN, makespan.SLOTS, SCHEDULE, seconds=theirs, schedule=spans.schedule, start_up=spans.start_up)


def _measure_planning(report: Report, say: Say) -> None:
    for _ in _rounds(report, say, PLAN):
        for name, queued in ((OURS, 10_000), (FEW, 100)):
            report.add(PLAN, 1, name, seconds=planning.step_seconds(queued))


def _measure_workspaces(report: Report, say: Say) -> None:
    options = report.options
    files = min(workspaces.FILES, 100 * options.operations)
    commits = min(workspaces.COMMITS, 100 * options.operations)
    ready = workspaces.measure(options.directory, options.rounds, files, commits)
    for _, one in zip(_rounds(report, say, f"{WORKSPACE}; {files:,} of them"), ready, strict=True):
        report.add(WORKSPACE, 1, OURS, seconds=one.fresh, megabytes=one.bytes / 1e6)
        report.add(RECYCLED, 1, OURS, seconds=one.recycled)
        report.add(SWITCHED, 1, OURS, seconds=one.switched)
        for operation in (WORKSPACE, RECYCLED, SWITCHED):
            report.add(operation, 1, PLAIN, seconds=one.plain, megabytes=one.plain_bytes / 1e6)


def _measure_starts(report: Report, say: Say) -> None:
    if why := starts.missing():
        report.missing["P13"] = why
        return
    for _ in _rounds(report, say, f"{STARTS}, {starts.RUNS}"):
        for peer, gate in ((OURS, True), (ALL_TOGETHER, False)):
            report.add(STARTS, starts.RUNS, peer, per_second=starts.per_second(report.options.directory, gate=gate))
        report.add(STARTS, starts.RUNS, PROCESSORS, per_second=starts.limit_per_second(report.options.directory))


def _left_out(peer: Peer, options: Options) -> str:
    named = {target.peer for target in options.targets}
    asked = peer.name in options.peers or (not options.peers and (not options.only or peer.name in named))
    return peer.missing() if asked else ""


def _measure(report: Report, peer: Peer, operation: Operation, processes: int) -> None:
    options = report.options
    plan = Plan(
        operation=operation,
        processes=processes,
        seconds=options.seconds,
        operations_max=options.operations,
        tasks=options.tasks if operation == "claim and complete" else 0,
    )
    report.add(operation, processes, peer.name, **asdict(measure(peer, plan, options.directory)))


def _count_syncs(report: Report, say: Say) -> None:
    if why := syncs.missing():
        report.missing["syncs"] = why
        return
    for operation in OPERATIONS:
        for peer in report.options.measured(operation):
            say(f"syncs: {operation}, {peer.name}")
            operations = min(report.options.operations, syncs.OPERATIONS)
            counted = syncs.counted(peer, operation, report.options.directory, operations)
            report.add(operation, 1, peer.name, syncs=counted)


def _measure_lengths(report: Report, directory: Path, say: Say) -> None:
    options = report.options
    longest = max(options.events)
    growth = options.wants("growth")
    histories = {}
    for events in sorted(options.events) if growth else [longest]:
        say(f"writing a log of {events:,} events")
        histories[events] = lengths.build(directory, events)
        report.sizes[events] = histories[events].batches, histories[events].bytes
    # first what only reads: what follows makes the logs longer
    for number in range(options.rounds):
        say(f"round {number + 1} of {options.rounds}: replay and open, {longest:,} events")
        _measure_reading(report, histories[longest])
    for number in range(options.rounds if growth else 0):
        for history in histories.values():
            say(f"round {number + 1} of {options.rounds}: recover, open and append, {history.events:,} events")
            _measure_growth(report, history)


def _measure_reading(report: Report, history: lengths.History) -> None:
    if report.options.wants("P5"):
        report.add(REPLAY, 1, OURS, per_second=lengths.replay(history))
        report.add(REPLAY, 1, ORJSON, per_second=lengths.bare_loop(history))
    if report.options.wants("P6"):
        report.add(OPEN, 1, OURS, seconds=lengths.open_with_snapshot(history))
        report.add(OPEN, 1, ORJSON, seconds=lengths.bare_snapshot(history))


def _measure_growth(report: Report, history: lengths.History) -> None:
    report.add(f"recover {history.events}", 1, OURS, seconds=lengths.recover(history))
    report.add(f"open behind {history.events}", 1, OURS, seconds=lengths.open_and_append(history))
    per_second = lengths.append(history, report.options.seconds, report.options.operations)
    report.add(f"append behind {history.events}", 1, OURS, per_second=per_second)


_OF_THE_WHOLE: Mapping[str, Callable[[Report, Say], None]] = {
    "P7": _measure_latency,
    "P8": _measure_overhead,
    "P9": _measure_planning,
    "P10": _measure_workspaces,
    "P11": _measure_idleness,
    "P12": _measure_makespan,
    "P13": _measure_starts,
}
