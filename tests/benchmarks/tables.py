"""How are the figures of one run shown? As markdown, so that they can be kept beside the code they measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from coordination import filesystem
from tests.benchmarks.measuring import OPERATIONS
from tests.benchmarks.targets import OURS, Target

Cell = tuple[str, int, str]  # operation, processes, peer
Figures = Mapping[Cell, Sequence[Mapping[str, float]]]  # of each cell and round, by name

_SHOWN = {
    "per_second": ("a second", 1.0),
    "p50_ns": ("p50, ms", 1e-6),
    "p99_ns": ("p99, ms", 1e-6),
    "longest_ns": ("longest stall, ms", 1e-6),
    "fairness": ("slowest : fastest process", 1.0),
    "twice": ("tasks that two processes got", 1.0),
    "seconds": ("ms", 1e3),
    "cores": ("% of a core", 1e2),
    "megabytes": ("MB", 1.0),
    "syncs": ("syncs for each", 1.0),
}
PEERS_FIGURES = ("per_second", "p50_ns", "p99_ns", "longest_ns", "fairness", "twice")


def filesystem_of(directory: Path) -> str:
    """Its type; "" where the system does not say."""
    mounts = Path("/proc/self/mountinfo")
    table = mounts.read_text(encoding="utf-8", errors="surrogateescape") if mounts.exists() else ""
    return filesystem.kind_of(str(directory.resolve()), table)


def machine(directory: Path) -> str:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    kind = filesystem_of(directory) or "unknown filesystem"
    return f"{cores} cores, {system}, {kind}, Python {platform.python_version()}"


def others(figures: Figures) -> str:
    """How quiet the machine was."""
    taken = sorted(one["others"] for rounds in figures.values() for one in rounds if "others" in one)
    if not taken:
        return ""
    return f"Other processes took {median(taken):.0%} of the processors (median; at most {taken[-1]:.0%})."


def peers_table(figures: Figures, figure: str, peers: Sequence[str]) -> str:
    """One figure of every operation and number of processes, a column for each peer; "" when all have none."""
    unit, scale = _SHOWN[figure]
    having = [
        cell for cell, rounds in figures.items() if cell[0] in OPERATIONS and any(figure in one for one in rounds)
    ]
    if not any(one.get(figure) for cell in having for one in figures[cell]):
        return ""
    rows = [
        [operation, str(processes), *(_shown(figures, (operation, processes, peer), figure, scale) for peer in peers)]
        for operation, processes in dict.fromkeys((operation, processes) for operation, processes, _ in having)
    ]
    return markdown([f"operation, {unit}", "processes", *peers], rows)


def targets_table(figures: Figures, targets: Iterable[Target]) -> str:
    """Ratios and what they should be. A ratio is the median of the rounds' ratios, not a ratio of medians."""
    head = ["", "what", "processes", "ours", "against", "theirs", "ratio", "target", "met", "stretch", "met"]
    return markdown(head, [_target_row(figures, target) for target in targets])


def lengths_table(figures: Figures, sizes: Mapping[int, tuple[int, int]]) -> str:
    """How cost grows with a log's length: events to their batches and bytes."""
    head = ["events", "batches", "MB", "append a second", "open and append, ms", "recover, ms"]
    rows = [
        [
            f"{events:,}",
            f"{batches:,}",
            f"{size / 1e6:,.1f}",
            _shown(figures, (f"append behind {events}", 1, OURS), "per_second", 1.0),
            _shown(figures, (f"open behind {events}", 1, OURS), "seconds", 1e3),
            _shown(figures, (f"recover {events}", 1, OURS), "seconds", 1e3),
        ]
        for events, (batches, size) in sizes.items()
    ]
    return markdown(head, rows)


def ratio(figures: Figures, target: Target) -> float | None:
    """Ours divided by theirs, of each round, and the median of that; None when one was not measured."""
    ours = _values(figures, (target.operation, target.processes, OURS), target.figure)
    theirs = _values(figures, (target.operation, target.processes, target.peer), target.figure)
    if not target.peer:
        theirs = [1.0] * len(ours)
    ratios = [one / other for one, other in zip(ours, theirs, strict=False) if other]
    return median(ratios) if ratios else None


def _target_row(figures: Figures, target: Target) -> list[str]:
    unit, scale = _SHOWN[target.figure]
    ours = _shown(figures, (target.operation, target.processes, OURS), target.figure, scale)
    theirs = _shown(figures, (target.operation, target.processes, target.peer), target.figure, scale)
    sign = "≤" if target.at_most else "≥"
    bound, stretch = f"{sign} {target.bound:g}", "" if target.stretch is None else f"{sign} {target.stretch:g}"
    row = [target.goal, f"{target.operation}, {unit}", str(target.processes), ours, target.peer, theirs]
    found = ratio(figures, target)
    if found is None:
        return [*row, "not measured", bound, "", stretch, ""]
    met = [target.met(found, target.bound), target.met(found, target.stretch)]
    return [*row, f"{found:.3g}", bound, met[0], stretch, met[1]]


def _values(figures: Figures, cell: Cell, figure: str) -> list[float]:
    return [one[figure] for one in figures.get(cell, ()) if figure in one]


def _shown(figures: Figures, cell: Cell, figure: str, scale: float) -> str:
    values = _values(figures, cell, figure)
    if not values:
        return ""
    scaled = median(values) * scale
    return f"{scaled:,.0f}" if scaled >= 100 or scaled == int(scaled) else f"{scaled:.2f}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One table."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"
