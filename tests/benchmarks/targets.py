"""What do we want to reach, against whom? Ratios of two figures of one run; nothing here is an absolute number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tests.benchmarks.measuring import Operation

OURS = "ours"
SQLITE = "SQLite WAL FULL"
LOCKED = "fsync under the lock"
REDIS = "Redis Streams, always"

Figure = Literal["per_second", "p50_ns", "p99_ns", "longest_ns", "fairness"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Our figure divided by the peer's (by 1 without a peer), and what that should be."""

    goal: str
    operation: Operation
    processes: int
    figure: Figure
    peer: str
    goal_ratio: float
    stretch: float | None = None
    at_most: bool = False  # small is good

    def met(self, ratio: float, bound: float | None) -> str:
        """In words, for the table."""
        if bound is None:
            return ""
        return "yes" if (ratio <= bound if self.at_most else ratio >= bound) else "no"


def _rate(goal: str, operation: Operation, processes: int, peer: str, goal_ratio: float, stretch: float) -> Target:
    return Target(
        goal=goal,
        operation=operation,
        processes=processes,
        figure="per_second",
        peer=peer,
        goal_ratio=goal_ratio,
        stretch=stretch,
    )


TARGETS = (
    _rate("P1", "append", 1, SQLITE, 1.0, 1.2),
    _rate("P2", "append", 8, SQLITE, 4.0, 5.5),
    _rate("P2", "append", 16, SQLITE, 7.0, 10.0),
    _rate("P2", "append", 8, REDIS, 1.3, 2.0),
    _rate("P2", "append", 16, REDIS, 1.5, 2.3),
    _rate("P3", "claim and complete", 8, SQLITE, 2.0, 4.0),
    _rate("P3", "claim and complete", 16, SQLITE, 3.0, 7.0),
    Target(goal="P4", operation="append", processes=16, figure="p99_ns", peer=LOCKED, goal_ratio=0.1, at_most=True),
    Target(goal="P14", operation="append", processes=8, figure="fairness", peer="", goal_ratio=0.8),
    Target(
        goal="P14", operation="append", processes=8, figure="longest_ns", peer=SQLITE, goal_ratio=0.05, at_most=True
    ),
)
