"""What do processes leave: descriptors that nobody closes, dead children, children of nobody? Read from /proc alone.

Shares no code with what it checks. Linux only (see proc(5)).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from coordination.testing.linux import adopt_orphans

_PROC = Path("/proc")
_LOOK_SECONDS = 0.02
_SETTLE_SECONDS = 5.0
_CALM_LOOKS = 10  # that agree, before what is open counts as what stays open
_SIGKILL_WAIT_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process at one moment. ``start`` tells it from another that has its number later."""

    pid: int
    parent: int
    state: str
    start: int

    @property
    def dead(self) -> bool:
        """Whether it only waits to be collected."""
        return self.state in "ZX"


def processes() -> dict[int, Process]:
    """All there are."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                pid = int(entry.name)
                found[pid] = Process(pid=pid, parent=int(fields[1]), state=fields[0], start=int(fields[19]))
    return found


def descendants(pid: int) -> list[Process]:
    """Children of a process, their children, and so on; the dead ones too."""
    everybody, found, line = processes(), [], {pid}
    while line:
        children = [process for process in everybody.values() if process.parent in line]
        found += children
        line = {child.pid for child in children}
    return found


def zombies(pid: int) -> list[str]:
    """Dead children that a process does not collect, though it has had time to."""
    dead = _lasting(lambda: Counter(f"{each.pid}" for each in processes().values() if each.parent == pid and each.dead))
    return [f"process {number}, a child of {pid}, is dead and nobody collects it" for number in dead]


def descriptors(pid: int) -> Counter[str]:
    """What a process holds open once it is at rest: what several looks agree on. Numbers in names do not count."""
    return _lasting(lambda: _open(pid))


def leaked(before: Counter[str], after: Counter[str]) -> list[str]:
    """What is held open more often than before."""
    return [f"{name} is open {count} times more" for name, count in (after - before).items()]


def _open(pid: int) -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):
            found[re.sub(r"\d+", "N", str(entry.readlink()))] += 1
    return found


def _lasting(look: Callable[[], Counter[str]]) -> Counter[str]:
    """What is there at every one of many looks in a row: what comes and goes is none of it."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    common, calm = look(), 0
    while calm < _CALM_LOOKS and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
        less = common & look()
        common, calm = less, calm + 1 if less == common else 0
    return common


class Family:
    """Whoever descends from this process while the block lasts, however it hides: orphans become its own children.

    ``spared`` says which children are known and waited for by others.
    """

    def __init__(self, spared: Callable[[], Sequence[int]] = tuple) -> None:
        self._spared = spared
        self._before: set[tuple[int, int]] = set()
        self._collected = 0

    def left(self) -> list[str]:
        """Who lives though everything should be over; nobody else can be meant, whatever it calls itself."""
        self._collect()
        there = [process for process in descendants(os.getpid()) if not process.dead and not self._known(process)]
        return [f"process {process.pid} is still there: {_named(process.pid)}" for process in there]

    def _known(self, process: Process) -> bool:
        return (process.pid, process.start) in self._before or process.pid in self._spared()

    def _collect(self) -> None:
        """Bury the dead that were given to us."""
        for process in descendants(os.getpid()):
            if process.dead and process.parent == os.getpid() and not self._known(process):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)

    def __enter__(self) -> Self:
        self._before = {(process.pid, process.start) for process in descendants(os.getpid())}
        adopt_orphans(adopting=True)
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nobody behind, not even after a failure."""
        deadline = time.monotonic() + _SIGKILL_WAIT_SECONDS
        while (alive := list(self._alive())) and time.monotonic() < deadline:
            for process in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
            self._collect()
            time.sleep(_LOOK_SECONDS)
        self._collect()
        adopt_orphans(adopting=False)

    def _alive(self) -> Iterator[Process]:
        return (process for process in descendants(os.getpid()) if not process.dead and not self._known(process))


def _named(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return "it has just ended"
