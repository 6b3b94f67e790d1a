"""Who of a run is killed? Its worker or its agent, by the marker they carry; never who has their number later."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from coordination.environment import MARKER
from coordination.testing.remains import processes
from coordination.testing.stage import Stage, environments


def everybody(stage: Stage) -> dict[str, dict[str, int]]:
    """Of each run that lives, its ``worker`` and its ``agent``, as far as they do."""
    program = Path(stage.environment.get("COORDINATION_CLAUDE", "claude")).name
    begin = f"{MARKER}={stage.uuid}/"
    alike: dict[tuple[str, str], list[int]] = {}
    for number, environment in environments():
        run = next((entry[len(begin) :] for entry in environment.split("\0") if entry.startswith(begin)), "")
        argv = _words(number) if run else []
        if "coordination.worker" in argv:
            alike.setdefault((run, "worker"), []).append(number)
        elif argv and Path(argv[0]).name == program:
            alike.setdefault((run, "agent"), []).append(number)
    everyone = processes()
    found: dict[str, dict[str, int]] = {}
    for (run, part), numbers in alike.items():
        # a child that has not become its program yet looks like its parent: meant is who has no such parent
        first = [pid for pid in numbers if pid in everyone and everyone[pid].parent not in numbers]
        if first:
            found.setdefault(run, {})[part] = first[0]
    return found


def strike(stage: Stage, run: str, part: str, number: signal.Signals = signal.SIGKILL) -> bool:
    """Signal a part of a run; False when there is none."""
    pid = everybody(stage).get(run, {}).get(part)
    return pid is not None and send(pid, f"{stage.uuid}/{run}", number)


def send(pid: int, marker: str, number: signal.Signals) -> bool:
    """Signal a process that carries exactly that marker; False when there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # asked of the one we hold: until it is closed, the number is nobody else's
        carried = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"{MARKER}={marker}".encode() not in carried:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []
