"""Where does the time of one operation of ours go? By gesture of the Env, and by function.

The gestures are timed by an ``Env`` that looks at the clock round each of its calls, which costs little; what is left
is Python. The functions are counted by cProfile in a second pass, which makes all of them slower, the small ones most.
Other processes may do the same meanwhile, unprofiled, so that waiting shows.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from coordination.env import REAL, Env
from tests.benchmarks import tables
from tests.benchmarks.measuring import beside
from tests.benchmarks.peers import payload
from tests.benchmarks.peers.ours import OurConnection, Ours

SUBJECTS = ("append", "transact")

_WARMING = 50
_FUNCTIONS = 30
_NAMES = tuple(name for name, value in vars(Env).items() if callable(value) and not name.startswith("_"))


class _Timed(Env):
    """The real world, with a clock at its gate."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.nanoseconds: Counter[str] = Counter()
        self.held: Counter[str] = Counter()  # nanoseconds from lock to unlock, by the lock file's name
        self.inside = False
        self._names: dict[int, str] = {}  # of lock files that are open
        self._since: dict[int, int] = {}  # when which of them was locked

    def note(self, name: str, arguments: tuple[Any, ...], answer: Any, now: int) -> None:
        """Look after locks: whoever holds one too long makes everybody wait."""
        if name == "open_write":
            self._names[answer] = Path(arguments[0]).name
        elif name == "lock" or (name == "try_lock" and answer):
            self._since[arguments[0]] = now
        elif name == "unlock":
            self.held[self._names[arguments[0]]] += now - self._since.pop(arguments[0])


def _timed(name: str) -> Callable[..., Any]:
    real = getattr(Env, name)

    @wraps(real)
    def gesture(self: _Timed, *arguments: Any) -> Any:
        if self.inside:  # one gesture made by another
            return real(self, *arguments)
        self.inside = True
        begun = time.perf_counter_ns()
        try:
            answer = real(self, *arguments)
        finally:
            now = time.perf_counter_ns()
            self.nanoseconds[name] += now - begun
            self.calls[name] += 1
            self.inside = False
        self.note(name, arguments, answer, now)
        return answer

    return gesture


for _name in _NAMES:
    setattr(_Timed, _name, _timed(_name))


def profile(subject: str, directory: Path, operations: int, others: int = 0) -> str:
    """Three passes over fresh logs: plain, by gesture, by function."""
    plain = _pass(subject, directory, operations, others, REAL, None)
    env = _Timed()
    by_gesture = _pass(subject, directory, operations, others, env, None)
    profiler = cProfile.Profile()
    _pass(subject, directory, operations, others, REAL, profiler)
    what = "append" if subject == "append" else "claim with its completion (two transactions)"
    head = f"{tables.machine(directory)}\n\nOne {what} beside {others} other processes: {plain:.1f} µs\n"
    return "\n".join((head, _gestures(env, by_gesture, operations), _functions(profiler, operations)))


def _pass(
    subject: str, directory: Path, operations: int, others: int, env: Env, profiler: cProfile.Profile | None
) -> float:
    """Microseconds of one operation."""
    peer, tasks = Ours(), 0 if subject == "append" else (operations + _WARMING) * (others + 2)
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as name:
        place = Path(name)
        peer.create(place)
        peer.submit(place, tasks)
        with beside(peer, place, others, tasks):
            connection = OurConnection(place, others, env=env)
            once = _once(connection, subject)
            for _ in range(_WARMING):
                once()
            if isinstance(env, _Timed):
                env.calls.clear()
                env.nanoseconds.clear()
                env.held.clear()
            if profiler:
                profiler.enable()
            begun = time.perf_counter()
            for _ in range(operations):
                once()
            elapsed = time.perf_counter() - begun
            if profiler:
                profiler.disable()
            connection.close()
    return elapsed / operations * 1e6


def _once(connection: OurConnection, subject: str) -> Callable[[], object]:
    line = payload(1)
    return (lambda: connection.append(line)) if subject == "append" else connection.claim_and_complete


def _gestures(env: _Timed, microseconds: float, operations: int) -> str:
    rows = [
        (name, env.calls[name] / operations, spent / operations / 1e3) for name, spent in env.nanoseconds.most_common()
    ]
    rows.append(("Python between them", 1.0, microseconds - sum(row[2] for row in rows)))
    rows += [(f"(while {name} is held)", 1.0, held / operations / 1e3) for name, held in env.held.most_common()]
    shown = [[name, f"{calls:.2f}", f"{spent:.2f}", f"{spent / microseconds:.1%}"] for name, calls, spent in rows]
    return tables.markdown(["gesture", "calls", "µs", "part"], shown)


def _functions(profiler: cProfile.Profile, operations: int) -> str:
    stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined] # what its own report is made of
    rows = sorted(stats.items(), key=lambda entry: -entry[1][2])[:_FUNCTIONS]
    shown = [
        [
            f"{Path(file).name}:{line} {function}",
            f"{calls / operations:.2f}",
            f"{own / operations * 1e6:.2f}",
            f"{whole / operations * 1e6:.2f}",
        ]
        for (file, line, function), (_, calls, own, whole, _) in rows
    ]
    return tables.markdown(["function, slowed by the profiler", "calls", "own µs", "with what it calls, µs"], shown)
