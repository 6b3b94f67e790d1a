"""How are the figures of one run shown? As markdown, so that they can be kept beside the code they measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from coordination import filesystem
from tests.benchmarks.measuring import Measured, Operation
from tests.benchmarks.targets import OURS, Figure, Target

Cell = tuple[Operation, int, str]  # operation, processes, peer
Figures = Mapping[Cell, Sequence[Measured]]  # one of each round

_SHOWN: dict[Figure, tuple[str, float]] = {
    "per_second": ("a second", 1.0),
    "p50_ns": ("p50, ms", 1e-6),
    "p99_ns": ("p99, ms", 1e-6),
    "longest_ns": ("longest stall, ms", 1e-6),
    "fairness": ("slowest : fastest process", 1.0),
}


def machine(directory: Path) -> str:
    """What the figures depend on."""
    mounts = Path("/proc/self/mountinfo")
    table = mounts.read_text(encoding="utf-8", errors="surrogateescape") if mounts.exists() else ""
    kind = filesystem.kind_of(str(directory.resolve()), table) or "unknown"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{cores} cores, {system}, {kind}, Python {platform.python_version()}"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """One table."""
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def middle(figures: Figures, cell: Cell, figure: Figure) -> float | None:
    """The median of the rounds; None when that was not measured."""
    measured = figures.get(cell)
    return median(getattr(one, figure) for one in measured) if measured else None


def peers_table(figures: Figures, figure: Figure, peers: Sequence[str]) -> str:
    """One figure of every operation and number of processes, a column for each peer."""
    unit, scale = _SHOWN[figure]
    rows = [
        [
            operation,
            str(processes),
            *(_number(middle(figures, (operation, processes, peer), figure), scale) for peer in peers),
        ]
        for operation, processes in dict.fromkeys((operation, processes) for operation, processes, _ in figures)
    ]
    return markdown([f"operation, {unit}", "processes", *peers], rows)


def targets_table(figures: Figures, targets: Iterable[Target]) -> str:
    """Ratios and what they should be."""
    head = ["", "what", "processes", "ours", "against", "theirs", "ratio", "target", "met", "stretch", "met"]
    return markdown(head, [_target_row(figures, target) for target in targets])


def _target_row(figures: Figures, target: Target) -> list[str]:
    unit, scale = _SHOWN[target.figure]
    ours = middle(figures, (target.operation, target.processes, OURS), target.figure)
    theirs = middle(figures, (target.operation, target.processes, target.peer), target.figure) if target.peer else 1.0
    row = [target.goal, f"{target.operation}, {unit}", str(target.processes)]
    row += [_number(ours, scale), target.peer or "1", _number(theirs, scale) if target.peer else ""]
    sign = "≤" if target.at_most else "≥"
    bounds = [f"{sign} {target.goal_ratio:g}", "" if target.stretch is None else f"{sign} {target.stretch:g}"]
    if ours is None or not theirs:
        return [*row, "not measured", bounds[0], "", bounds[1], ""]
    ratio = ours / theirs
    met = [target.met(ratio, target.goal_ratio), target.met(ratio, target.stretch)]
    return [*row, f"{ratio:.2f}", bounds[0], met[0], bounds[1], met[1]]


def _number(value: float | None, scale: float) -> str:
    if value is None:
        return ""
    scaled = value * scale
    return f"{scaled:,.0f}" if scaled >= 100 else f"{scaled:.2f}"
