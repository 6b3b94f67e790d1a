"""What does the live view cost, with ten thousand tasks and a thousand agents, whether or not a supervisor runs?

Three things, each with `coord monitor` as a process of its own in a terminal (a pseudo-terminal of 160 by 50) where
that matters:

* its start: from before the process is made until the first whole frame has come out of it. Beside it: the start and
  end of a Python that imports what every Textual program imports, which is the least that it could take.
* its rest: the part of a core that it takes and the memory that it holds while nothing happens. There is a supervisor,
  at rest too because everything is paused; then the same again after `kill -9` to it; then with a thousand runs, of
  which a screenful is looked up each second.
* a refresh: one more event is in the log; the processor time from there until every line of the new frame is made.
  With ten thousand tasks and a thousand live runs, and beside it with a hundredth of both.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from coordination.coordinator import Coordinator
from coordination.model import events as e
from coordination.model.runs import Limits, Purpose
from coordination.model.state import State
from coordination.model.tasks import TaskSpec
from coordination.monitor import frames
from coordination.monitor.place import Place, Screen
from coordination.monitor.watching import Watch
from coordination.testing.stage import Stage
from tests.benchmarks.idleness import megabytes, missing, seconds_of

__all__ = [
    "AGENTS",
    "TASKS",
    "At",
    "Start",
    "Terminal",
    "measure_refresh",
    "measure_rest",
    "measure_starts",
    "missing",
    "populated",
]

TASKS, AGENTS = 10_000, 1_000
STARTS, REFRESHES = 5, 40
WIDTH, HEIGHT = 160, 50
_BATCH = 500
_PATIENCE_SECONDS = 60.0
_SETTLING_SECONDS = 1.5  # after the first frame
_ROLES = ("blue", "green", "red")
_LAST = b"? help"  # stands in the last line of a frame


@dataclass(frozen=True, kw_only=True, slots=True)
class At:
    """What a monitor takes while nothing happens."""

    cores: float
    megabytes: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """How long a start takes, and how much of a processor."""

    seconds: float
    processor: float


@contextmanager
def populated(directory: Path, tasks: int, agents: int) -> Iterator[Stage]:
    """A repository whose log has that many tasks, of which so many have a live run (of no process), and a snapshot."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name:
        stage = Stage(Path(name), settings={"agents": {"backend": "scripted"}}).build()
        try:
            _fill(stage, tasks, agents)
            yield stage
        finally:
            stage.close()


def _fill(stage: Stage, tasks: int, agents: int) -> None:
    coordinator = Coordinator(stage.home)
    wanted: list[e.AnyEvent] = [e.CoordinationPaused(reason="benchmark")]
    for number in range(tasks):
        spec = TaskSpec(prompt="Do it.", title=f"Change number {number} of many", priority=number % 7)
        wanted.append(e.TaskSubmitted(task=f"k{number}", spec=spec, digest=""))
    for number in range(agents):
        run, role = f"k{number}.1.work", _ROLES[number % len(_ROLES)]
        planned = e.RunPlanned(
            task=f"k{number}", run=run, purpose=Purpose.WORK, role=role, model="scripted", limits=Limits(budget_usd=1.0)
        )
        wanted += [planned, e.RunStarted(task=f"k{number}", run=run, pid=1)]
        home = coordinator.run_directory(run)
        home.mkdir()
        (home / "worker.lock").touch()
        said = {"phase": "agent", "tool": "Edit", "file": f"src/part{number}.py", "turns": 3, "at": time.time()}
        (home / "progress.json").write_bytes(msgspec.json.encode(said | {"tokens_output": number, "cost_usd": 0.01}))
    for at in range(0, len(wanted), _BATCH):
        coordinator.store.transact(lambda _, at=at: wanted[at : at + _BATCH])  # type: ignore[misc]
    coordinator.store.snapshot()
    coordinator.store.log.close()


# ---- a monitor in a terminal of its own ------------------------------------------------------------------------------


class Terminal:
    """`coord monitor` in a pseudo-terminal, and what came out of it."""

    def __init__(self, stage: Stage, *options: str, width: int = WIDTH, height: int = HEIGHT) -> None:
        self.output = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        command = [sys.executable, "-P", "-m", "coordination", "-C", str(stage.repository), "monitor", *options]
        environment = stage.environment | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)

    def until(self, wanted: bytes) -> None:
        """Read until that has come. Raises TimeoutError."""
        self.for_seconds(_PATIENCE_SECONDS, wanted)
        if wanted not in self.output:
            raise TimeoutError(f"no {wanted!r} came out of the monitor: {self.output[-500:]!r}")

    def for_seconds(self, seconds: float, wanted: bytes = b"\0never") -> None:
        """Take what comes for that long, or until what is wanted is among it: a writer waits for who reads."""
        deadline = time.monotonic() + seconds
        while wanted not in self.output and (left := deadline - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                try:
                    self.output += os.read(self._master, 1 << 16)
                except OSError:  # it has ended
                    return

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.for_seconds(0.2)
        self.process.kill()
        self.process.wait(timeout=10)
        os.close(self._master)


def measure_starts(stage: Stage, starts: int = STARTS) -> tuple[Start, Start]:
    """Its first frame, and a Python that has imported what any Textual program does: medians."""
    ours, theirs = [], []
    for _ in range(starts):
        begun = time.perf_counter()
        terminal = Terminal(stage)
        try:
            terminal.until(_LAST)
            ours.append(Start(seconds=time.perf_counter() - begun, processor=seconds_of(terminal.process.pid)))
        finally:
            terminal.close()
        theirs.append(_imported(stage))
    return _medians(ours), _medians(theirs)


def _imported(stage: Stage) -> Start:
    begun, before = time.perf_counter(), os.times()
    imports = [sys.executable, "-P", "-c", "import textual.app, textual.widget, textual.drivers.linux_driver"]
    subprocess.run(imports, env=stage.environment, check=True, timeout=60)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Start(seconds=time.perf_counter() - begun, processor=used)


def _medians(starts: Sequence[Start]) -> Start:
    return Start(seconds=median(one.seconds for one in starts), processor=median(one.processor for one in starts))


def measure_rest(stage: Stage, seconds: float) -> tuple[At, At]:
    """What it takes beside a supervisor at rest, and after that one was killed."""
    supervisor = stage.start()
    stage.wait_for_event("SupervisorStarted", pid=supervisor.pid)
    terminal = Terminal(stage)
    try:
        terminal.until(_LAST)
        beside = _rested(terminal, seconds)
        supervisor.kill()
        supervisor.wait(timeout=10)
        terminal.until(b"NO SUPERVISOR")
        return beside, _rested(terminal, seconds)
    finally:
        terminal.close()


def measure_crowd(stage: Stage, seconds: float) -> At:
    """What it takes where a screenful of runs is looked at each second, and there is no supervisor."""
    terminal = Terminal(stage, "--agents")
    try:
        terminal.until(_LAST)
        return _rested(terminal, seconds)
    finally:
        terminal.close()


def _rested(terminal: Terminal, seconds: float) -> At:
    terminal.for_seconds(_SETTLING_SECONDS)
    process = terminal.process.pid
    begun, before = time.monotonic(), seconds_of(process)
    terminal.for_seconds(seconds)
    used, taken = seconds_of(process) - before, time.monotonic() - begun
    return At(cores=used / taken, megabytes=megabytes(process))


# ---- a refresh -------------------------------------------------------------------------------------------------------


def measure_refresh(stage: Stage, refreshes: int = REFRESHES) -> float:
    """Processor time from an event in the log to all lines of the frame that shows it, in seconds: the median."""
    watch, writer = Watch(Coordinator(stage.home)), Coordinator(stage.home).store
    place = Place(screen=Screen.OVERVIEW)
    frames.frame(watch.look(), place, WIDTH, HEIGHT)
    taken = []
    for number in range(refreshes):
        writer.transact(lambda state, number=number: _something(state, number))  # type: ignore[misc]
        begun = time.thread_time()
        frames.frame(watch.look(), place, WIDTH, HEIGHT)
        taken.append(time.thread_time() - begun)
    return median(taken)


def _something(state: State, number: int) -> Sequence[e.AnyEvent]:
    task = list(state.open)[-1 - number % 3]
    return [e.TaskReleased(task=task) if state.tasks[task].paused else e.TaskHeld(task=task)]
