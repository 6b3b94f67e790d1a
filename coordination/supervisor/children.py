"""Which processes are ours? Spawning workers, signalling them, reaping what they leave.

Liveness is the lock that a worker holds for life, or our own child handle; a process number alone proves nothing.
Signals go only to a process that is proven ours: an identity (number, start, boot) from the run's ``worker.json``,
or our marker in its environment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from coordination import confinement, kin, locks
from coordination.env import REAL, private
from coordination.environment import MARKER

REAP_SECONDS = 5.0
_LOOK_SECONDS = 0.005
_CAN_WAIT = hasattr(os, "waitid")  # not on macOS before Python 3.13


class Children:
    """The workers this supervisor started. ``ended`` is called when one of them ends, in a thread of its own."""

    def __init__(self, ended: Callable[[], None] = lambda: None) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ended = ended
        self._awaited: set[str] = set()  # runs whose end is told
        self._spared: set[int] = set()  # children of ours that belong to no run

    def spawn(self, run: str, directory: Path, environment: Mapping[str, str]) -> None:
        """Start the worker of a run in its own session."""
        with open(directory / "worker.log", "ab", opener=private) as log:
            self._processes[run] = subprocess.Popen(
                [sys.executable, "-P", "-m", "coordination.worker", str(directory)],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if _CAN_WAIT:
            with contextlib.suppress(RuntimeError):  # no room for a thread: then somebody has to look
                threading.Thread(target=self._tell_end, args=(self._processes[run].pid,), daemon=True).start()
                self._awaited.add(run)

    def _tell_end(self, number: int) -> None:
        """Sleep until it ends, without collecting it: that is left to who asks for its exit code."""
        with contextlib.suppress(ChildProcessError):  # collected already
            os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
        self._ended()

    def told(self, run: str) -> bool:
        """Whether ``ended`` is called at the end of the run's worker, so that nobody needs to look."""
        return run in self._awaited

    def mine(self, run: str) -> bool:
        """Whether this supervisor started the run's worker."""
        return run in self._processes

    def exit_code(self, run: str) -> int | None:
        """How our own worker of that run exited; None while it lives, or when it is not ours."""
        process = self._processes.get(run)
        return None if process is None else process.poll()

    def end_orphans(self) -> int:
        """Kill what became ours because its worker died, whatever it calls itself; how many there were."""
        return kin.end_orphans([*self._spared, *(process.pid for process in self._processes.values())])

    def spare(self, number: int) -> None:
        """A child that is no orphan, though no run's worker."""
        self._spared.add(number)

    def spare_no_longer(self, number: int) -> None:
        """It was waited for."""
        self._spared.discard(number)

    def forget(self, run: str, group: str) -> None:
        """Its outcome is known: wait for the process, which has nothing left to do; nobody is in its groups then."""
        self._awaited.discard(run)
        process = self._processes.pop(run, None)
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=REAP_SECONDS)
        confinement.leave(group)


def send(who: locks.Identity, number: signal.Signals) -> bool:
    """Signal exactly that process; False when it is gone. Its number cannot be recycled under a descriptor of it."""
    if not sys.platform.startswith("linux"):
        return _send_elsewhere(who, number)
    try:
        process = REAL.open_process(who.pid)
    except ProcessLookupError:
        return False
    try:
        if not locks.alive(who):
            return False
        REAL.signal_process(process, number)
    except ProcessLookupError:
        return False
    finally:
        REAL.close(process)
    return True


def _send_elsewhere(who: locks.Identity, number: signal.Signals) -> bool:
    """Without such descriptors a process may still end, and its number be given away, between look and signal."""
    try:
        process = psutil.Process(who.pid)
        if not locks.alive(who):
            return False
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def reap(marker: str) -> int:
    """Kill every process that carries the run's marker, whatever session it fled to; how many there were.

    Repeated until none is left, because a process may fork while we look. One that is dead but not yet collected by
    its parent is none of ours to wait for.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + REAP_SECONDS
    while (found := marked(marker)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                killed.add(process.pid)
        time.sleep(_LOOK_SECONDS)
    return len(killed)


def marked(marker: str) -> list[psutil.Process]:
    """Living processes of ours with the marker in their environment."""
    return [process for process, carried in _carriers(marker) if carried == marker]


def strays(prefix: str) -> dict[int, str]:
    """Living processes that carry a marker which begins so, with the rest of it: whose run they are of."""
    return {process.pid: carried.removeprefix(prefix) for process, carried in _carriers(prefix)}


def _carriers(prefix: str) -> Iterator[tuple[psutil.Process, str]]:
    for number in psutil.pids():
        if number == os.getpid() or not _may_carry(number, prefix):
            continue
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(number)  # one process, whoever has its number later: asked after this
            carried = process.environ().get(MARKER, "")
            if process.status() != psutil.STATUS_ZOMBIE and carried.startswith(prefix):
                yield process, carried


def _may_carry(number: int, marker: str) -> bool:
    """A quick look, six times as fast as the careful one: of a machine's processes hardly any is ours."""
    if not sys.platform.startswith("linux"):
        return True
    try:
        return f"{MARKER}={marker}".encode() in Path(f"/proc/{number}/environ").read_bytes()
    except OSError:  # ended, or somebody else's
        return False
