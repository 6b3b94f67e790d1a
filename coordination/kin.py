"""Who descends from this process, and from whom does it? Also those who fled and cleared their environment.

A process of ours may ask to be given the orphans among its descendants (PR_SET_CHILD_SUBREAPER, see prctl(2)): then
whatever was started below it stays below it, whatever it calls itself, and becomes its child when its parent dies. So
killing children, and their children as they arrive, reaches everybody; and a child's number cannot be given away before
we have waited for it, so nobody else is ever hit. Linux only: elsewhere nothing is adopted and nothing is killed here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

_SET_SUBREAPER, _GET_SUBREAPER = 36, 37
_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.005
_LOOKS_MAX = 1000
_PARENT_FIELD = 1  # of /proc/PID/stat, behind the command's name


def adopt_orphans() -> bool:
    """Be given the orphans among our descendants from now on. Only for a process whose children are all its own."""
    return sys.platform.startswith("linux") and _prctl(_SET_SUBREAPER, 1) == 0


def adopting() -> bool:
    """Whether this very process asked for that."""
    import ctypes

    said = ctypes.c_int()
    known = sys.platform.startswith("linux") and _prctl(_GET_SUBREAPER, ctypes.addressof(said)) == 0
    return known and said.value == 1


def end_orphans(spared: Collection[int] = ()) -> int:
    """Kill and collect our children, and those who become ours by it, but for those spared; how many there were."""
    if not adopting():
        return 0
    ended: set[int] = set()
    deadline = time.monotonic() + _SECONDS_MAX
    while (found := [number for number in children() if number not in spared]) and time.monotonic() < deadline:
        for number in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(number, os.WNOHANG)[0]:
                    ended.add(number)
        time.sleep(_LOOK_SECONDS)
    return len(ended)


def children() -> list[int]:
    """Our children, the dead ones that nobody has waited for among them."""
    me, found = str(os.getpid()), []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = entry.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[_PARENT_FIELD] == me:
                found.append(int(entry.parts[2]))
    return found


def carried_above(name: str) -> str:
    """What our nearest ancestor with that variable in its environment carries there; "" when none has it.

    The environment is the one a process was started with: whoever was started by it may have cleared its own. An
    ancestor that ends while it is looked at gives us another parent, so then all of it is looked at again.
    """
    for _ in range(_LOOKS_MAX):
        with contextlib.suppress(ProcessLookupError):
            return _carried_above(name)
    return "?"  # nobody's ancestors die so often by chance


def _carried_above(name: str) -> str:
    number = os.getppid()
    while number > 0:
        with contextlib.suppress(PermissionError):  # of another user: neither ours nor a run's
            for entry in _of_process(number, "environ").split(b"\0"):
                if entry.startswith(os.fsencode(name) + b"="):
                    return os.fsdecode(entry.partition(b"=")[2])
        stat = _of_process(number, "stat").decode(errors="replace")
        number = int(stat.rpartition(")")[2].split()[_PARENT_FIELD]) if stat else 0
    return ""


def _of_process(number: int, file: str) -> bytes:
    """What the system tells of a process, if anything. Raises ProcessLookupError, PermissionError."""
    try:
        return Path(f"/proc/{number}/{file}").read_bytes()
    except FileNotFoundError:
        with contextlib.suppress(PermissionError):
            os.kill(number, 0)  # there, and hidden from us, or on a system without such files; or gone
        return b""


def _prctl(option: int, argument: int) -> int:
    import ctypes  # takes a while, and most processes never need it

    call = ctypes.CDLL(None).prctl
    call.argtypes, call.restype = (ctypes.c_int, *(ctypes.c_ulong,) * 4), ctypes.c_int
    answer: int = call(option, argument, 0, 0, 0)
    return answer
