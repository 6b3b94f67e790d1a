"""What does a supervisor cost that has nothing to do, with a thousand finished tasks behind it?

The tasks have landed, each with a run of work, a gate and a landing. Counted are all threads of the supervisor and
every process that it starts meanwhile (git, say), over so many seconds of rest; and the memory that it holds then.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from coordination.coordinator import Coordinator
from coordination.log.file import FileLog
from coordination.testing.histories import write_history
from coordination.testing.stage import Stage
from tests.benchmarks.latency import SETTINGS, rested

TASKS = 1_000
SECONDS_EACH = 5  # of rest, for every second that a measurement is to take
_EVENTS_EACH = 12  # submitted, three runs of three events, approved, merged
_EVENTS_BEFORE = 2
_CHILDREN_USER, _CHILDREN_SYSTEM = 13, 14  # fields of /proc/PID/stat behind the command's name, in ticks


def missing() -> str:
    """Why it cannot be measured here; "" when it can."""
    return "" if sys.platform.startswith("linux") else "processes are looked at through Linux's /proc"


def measure(directory: Path, seconds: float, tasks: int = TASKS) -> tuple[float, float]:
    """The part of a core that it takes, and the megabytes (a million bytes) it holds."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name:
        stage = Stage(Path(name), settings=SETTINGS).build()
        _give_past(stage, tasks)
        supervisor = stage.start()
        try:
            stage.wait_for_event("SupervisorStarted", pid=supervisor.pid)
            rested(stage, Coordinator(stage.home).store)
            return _watched(supervisor.pid, seconds)
        finally:
            stage.close()


def _give_past(stage: Stage, tasks: int) -> None:
    """A log in the place of the empty one, and the branch it speaks of."""
    log = stage.state / "log"
    shutil.rmtree(log)
    write_history(log, _EVENTS_BEFORE + _EVENTS_EACH * tasks, tasks)
    FileLog(log).settle()
    stage.git("branch", "coordination/integration")
    state = Coordinator(stage.home).state()
    if len(state.tasks) != tasks or not all(task.status.ended_well for task in state.tasks.values()):
        raise RuntimeError(f"expected {tasks} tasks that ended well, found {state.tasks.values()}")


def _watched(process: int, seconds: float) -> tuple[float, float]:
    begun, before = time.monotonic(), seconds_of(process)
    time.sleep(seconds)
    used, taken = seconds_of(process) - before, time.monotonic() - begun
    return used / taken, megabytes(process)


def seconds_of(process: int) -> float:
    """Processor time of its living threads, exactly, and of the children it waited for, in ticks."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    own = sum(int(thread.read_text(encoding="utf-8").split()[0]) for thread in threads) / 1e9
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return own + (int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def megabytes(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
