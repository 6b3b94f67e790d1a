"""What do we want to reach, against whom? Ratios of two figures of one run; nothing here is an absolute number."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.makespan import SLOTS, TASKS
from tests.benchmarks.peers.fsync_under_lock import FsyncUnderLock
from tests.benchmarks.peers.ours import Ours
from tests.benchmarks.peers.servers import Redis
from tests.benchmarks.peers.sqlite import SQLite
from tests.benchmarks.starts import RUNS

OURS = Ours.name
REPLAY = "replay to typed state"
OPEN = "open with snapshot"
ORJSON = "bare orjson"
PLAN = "planning step with 10,000 queued"
FEW = "the same with 100 queued"
PLANNED = "dropped file to RunPlanned durable"
PUBLISHES = "median of two publishes"
BEGUN = "from there to the worker's first word"
PYTHON = "python -c pass"
OVERHEAD = "processor time of a run but for git"
PROGRAM = "Claude Code's own"
WORKSPACE = "workspace ready, 20,000 files, made from nothing"
RECYCLED = "the same from the pool"
SWITCHED = "the same from the pool, 20 files changed"
PLAIN = "git worktree add"
IDLE = "idle supervisor, 1,000 finished tasks"
MAKESPAN = f"{TASKS} tasks of known length"
SCHEDULE = "list schedule and start-up"
STARTS = "one-shot runs asked for at once"
ALL_TOGETHER = "all started together"
PROCESSORS = "what the processors can do"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Our figure divided by the peer's (by 1 without a peer), and what that should be."""

    goal: str
    operation: str
    processes: int
    figure: str
    peer: str
    bound: float
    stretch: float | None = None
    at_most: bool = False  # small is good

    def met(self, ratio: float, bound: float | None) -> str:
        """In words, for the table."""
        if bound is None:
            return ""
        return "yes" if (ratio <= bound if self.at_most else ratio >= bound) else "no"


def _rate(goal: str, operation: str, processes: int, peer: str, bound: float, stretch: float | None = None) -> Target:
    return Target(
        goal=goal,
        operation=operation,
        processes=processes,
        figure="per_second",
        peer=peer,
        bound=bound,
        stretch=stretch,
    )


def _small(
    goal: str, operation: str, processes: int, figure: str, peer: str, bound: float, stretch: float | None = None
) -> Target:
    return Target(
        goal=goal,
        operation=operation,
        processes=processes,
        figure=figure,
        peer=peer,
        bound=bound,
        stretch=stretch,
        at_most=True,
    )


TARGETS = (
    _rate("P1", "append", 1, SQLite.name, 1.0, 1.2),
    _rate("P2", "append", 8, SQLite.name, 4.0, 5.5),
    _rate("P2", "append", 16, SQLite.name, 7.0, 10.0),
    _rate("P2", "append", 8, Redis.name, 1.3, 2.0),
    _rate("P2", "append", 16, Redis.name, 1.5, 2.3),
    _rate("P3", "claim and complete", 8, SQLite.name, 2.0, 4.0),
    _rate("P3", "claim and complete", 16, SQLite.name, 3.0, 7.0),
    _small("P4", "append", 16, "p99_ns", FsyncUnderLock.name, 0.1),
    _rate("P5", REPLAY, 1, ORJSON, 0.15, 0.3),
    _small("P6", OPEN, 1, "seconds", ORJSON, 2.0),
    _small("P7", PLANNED, 1, "p50_ns", PUBLISHES, 4.0),
    _small("P7", PLANNED, 1, "p99_ns", PUBLISHES, 10.0),
    _small("P7", BEGUN, 1, "p50_ns", PYTHON, 3.0),
    _small("P8", OVERHEAD, 1, "seconds", PROGRAM, 0.35, 0.15),
    _small("P9", PLAN, 1, "seconds", FEW, 1.5),
    _small("P10", WORKSPACE, 1, "seconds", PLAIN, 0.35),
    _small("P10", RECYCLED, 1, "seconds", PLAIN, 0.05),
    _small("P10", SWITCHED, 1, "seconds", PLAIN, 0.05),
    _small("P11", IDLE, 1, "cores", "", 0.005),
    _small("P11", IDLE, 1, "megabytes", "", 60.0),
    _small("P12", MAKESPAN, SLOTS, "seconds", SCHEDULE, 1.05),
    _rate("P13", STARTS, RUNS, ALL_TOGETHER, 1.6, 1.8),
    _rate("P13", STARTS, RUNS, PROCESSORS, 0.95),
    Target(goal="P14", operation="append", processes=8, figure="fairness", peer="", bound=0.8),
    _small("P14", "append", 8, "longest_ns", SQLite.name, 0.05),
)
