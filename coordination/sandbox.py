"""Where may a command of a run look and write? Nowhere but in its own places, where bubblewrap works.

The whole file system is seen read-only, but for what is hidden (the state directory, secrets, and the directories in
which other programs keep their sockets) and what is writable (the checkout, a temporary directory, an empty home).
Processes are in a namespace of their own: whatever a command leaves running is gone with it, and nobody else's can be
seen, signalled or looked into. Without ``network`` there is none but a loopback of its own. No capability is left: as
root, bubblewrap would keep them all, and one that may mount makes a read-only place writable again.

Where bubblewrap does not work a command runs plainly, and whoever asks for it decides whether that is acceptable.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coordination.env import private
from coordination.errors import Unsuitable

OUTPUT_MAX = 16 * 1024
TIMED_OUT = 124  # as timeout(1) has it
NOT_RUNNABLE = 127  # as the shell has it

_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - hidden behind a directory of the command's own
_SOCKETS = ("/run", "/var/run")  # a socket may be spoken to on a file system that is read-only
_RESOLVER = "/etc/resolv.conf"
# Root needs no capability to write there, and what is written holds for the machine: a program named in
# /proc/sys/kernel/core_pattern is run outside by the next process that crashes.
_KERNEL = tuple(f"/proc/{name}" for name in ("acpi", "bus", "driver", "fs", "irq", "scsi", "sys", "sysrq-trigger"))
_BASE = (
    *("--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
    *("--unshare-cgroup-try", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
)
_NO_NETWORK = "--unshare-net"
_HIDES = ("--tmpfs", "/tmp", "--remount-ro", "/tmp")  # noqa: S108 - tried there, used everywhere
_PROBE_SECONDS = 10.0
_END_SECONDS = 10.0
_STATUS_BYTES_MAX = 64 * 1024
_FIRST_PROCESS = re.compile(rb'"child-pid": *([0-9]+)')
_SIGNALLED = 128  # and the signal's number, as the shell has it
_HIDDEN, _SHOWN, _WRITABLE = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Walls:
    """What a command is kept within. ``program`` "" is nothing: it runs plainly."""

    program: str = ""
    hidden: tuple[str, ...] = ()  # files and directories whose content is not seen
    shown: tuple[str, ...] = ()  # seen although they lie in a hidden place, or not writable although in a writable one
    writable: tuple[str, ...] = ()
    network: bool = False


PLAIN = Walls()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended: its exit code, how long it took, and the tail of what it printed."""

    code: int
    seconds: float
    output: str


@functools.cache
def find(path: str) -> str:
    """The program that makes a sandbox here; "" where none works. Tried once in a process: it takes 50 ms."""
    program = shutil.which("bwrap", path=path)
    true = shutil.which("true", path=path)
    if not sys.platform.startswith("linux") or program is None or true is None:
        return ""
    try:
        tried = subprocess.run(
            [program, "--json-status-fd", "2", *_BASE, _NO_NETWORK, *_HIDES, "--", true],
            env={},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return program if tried.returncode == 0 else ""


def run(
    argv: Sequence[str],
    *,
    name: str,
    directory: Path,
    log: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    walls: Walls = PLAIN,
    temporary: Path | None = None,
) -> Ended:
    """Run a command within walls, never through a shell; its output goes to the end of the file ``log``.

    A command that cannot be started counts as exit code 127, one that outlives its timeout as 124. ``temporary`` is
    what it sees as ``/tmp``. Raises Unsuitable when the sandbox itself cannot be made.
    """
    began = time.monotonic()
    with open(log, "ab", opener=private) as output:
        start = output.tell()
        # told here, not by the sandbox: that only says that it failed
        if not _runnable(argv[0], directory, environment):
            output.write(f"{name} cannot be started: {argv[0]!r} is not there or not executable\n".encode())
            output.flush()
            return _ended(NOT_RUNNABLE, began, log, start)
        if walls.program:
            code = _run_within(argv, walls, directory, temporary, environment, timeout_seconds, log)
        else:
            code = _run_plainly(name, argv, directory, environment, timeout_seconds, log)
    return _ended(code, began, log, start)


def arguments(
    argv: Sequence[str], walls: Walls, *, directory: Path, temporary: Path | None, path: str = ""
) -> list[str]:
    """The command line that runs ``argv`` within the walls. ``path``: where programs are looked for."""
    line = [walls.program, *_BASE]
    for place in _KERNEL:
        if Path(place).exists():
            line += ["--ro-bind", place, place]
    if not walls.network:
        line.append(_NO_NETWORK)
    line += _mounts(walls, temporary, _needed(argv, path))
    return [*line, "--chdir", os.path.realpath(directory), "--", *argv]


def _mounts(walls: Walls, temporary: Path | None, needed: Collection[str]) -> list[str]:
    """One after the other from the outside in: of two places the inner one decides what is so in it."""
    own = _existing(_TEMPORARY) if temporary is not None else set()
    places = dict.fromkeys(_existing([*walls.hidden, *_SOCKETS]) | own, _HIDDEN)
    closed = tuple(places)
    resolver = {os.path.realpath(_RESOLVER)} if walls.network else set()
    shown = _existing([*walls.shown, *resolver, *_shown_for(needed, own, closed)])
    writable = _existing(walls.writable)
    # what is neither hidden nor writable can be read as it is
    places |= {place: _SHOWN for place in shown if _inside(place, (*closed, *writable))}
    places |= dict.fromkeys(writable, _WRITABLE)
    line: list[str] = []
    frozen = []
    for place, kind in sorted(places.items(), key=lambda item: (item[0].count("/"), item[0])):
        if kind == _WRITABLE:
            line += ["--bind", place, place]
        elif kind == _SHOWN:
            line += ["--ro-bind", place, place]
        elif place in own:
            line += ["--bind", os.path.realpath(str(temporary)), place]
        elif Path(place).is_dir():
            line += ["--tmpfs", place]
            frozen.append(place)
        else:
            line += ["--ro-bind", os.devnull, place]
    for place in frozen:  # only now: what lies within had to be made first
        line += ["--remount-ro", place]
    return line


def _needed(argv: Sequence[str], path: str) -> list[str]:
    """What the command names, and where programs are: some of that may lie in a hidden place.

    Only what is written in full: what is named from the checkout may be a link of an agent's to anywhere.
    """
    program = "" if os.sep in argv[0] else shutil.which(argv[0], path=path) or ""
    return [place for place in (*path.split(os.pathsep), program, *argv) if place.startswith("/")]


def _shown_for(needed: Collection[str], temporary: Collection[str], closed: Collection[str]) -> Iterator[str]:
    for found in needed:
        for place in {os.path.abspath(found), os.path.realpath(found)}:  # noqa: PTH100 - the link as well as its end
            for root in temporary:
                if _inside(place, [root]):
                    # a directory of programs is of no use without what lies beside it
                    yield f"{root}/{Path(place).relative_to(root).parts[0]}"
            if _inside(place, [root for root in closed if root not in temporary]):
                yield place


def _existing(places: Collection[str]) -> set[str]:
    """As they are after links: what is hidden under one name must not be seen under another."""
    return {os.path.realpath(place) for place in places if place and os.path.lexists(os.path.realpath(place))}


def _inside(place: str, roots: Collection[str]) -> bool:
    return any(place.startswith(root.rstrip("/") + "/") for root in roots)


def _runnable(program: str, directory: Path, environment: Mapping[str, str]) -> bool:
    if os.sep in program:
        return shutil.which(str(directory / program)) is not None
    return shutil.which(program, path=environment.get("PATH", os.defpath)) is not None


def _run_within(
    argv: Sequence[str],
    walls: Walls,
    directory: Path,
    temporary: Path | None,
    environment: Mapping[str, str],
    timeout_seconds: float,
    log: Path,
) -> int:
    path = environment.get("PATH", os.defpath)
    line = arguments(argv, walls, directory=directory, temporary=temporary, path=path)
    ours, theirs = os.pipe()
    try:
        line[1:1] = ["--json-status-fd", str(theirs)]
        inside = dict(environment) | ({"TMPDIR": _TEMPORARY[0]} if temporary is not None else {})
        before = log.stat().st_size
        process = _spawned(line, directory, inside, log, keep=(theirs,))
    except OSError as error:
        os.close(ours)
        raise Unsuitable(f"the sandbox {walls.program} cannot be started: {error}. Run: coord doctor") from error
    finally:
        os.close(theirs)
    try:
        code = _wait(process, timeout_seconds, log)
        os.set_blocking(ours, False)
        status = b""
        with contextlib.suppress(BlockingIOError):
            status = os.read(ours, _STATUS_BYTES_MAX)
    finally:
        os.close(ours)
    _wait_for_the_rest(status)
    # it tells an exit code only of a command that was begun
    if code in (0, TIMED_OUT) or code > _SIGNALLED or b'"exit-code"' in status:
        return code
    said = _tail(log, before)
    if "execvp" in said:
        return NOT_RUNNABLE
    raise Unsuitable(f"the sandbox cannot be made: {said.strip()[-500:]}. Run: coord doctor")


def _wait_for_the_rest(status: bytes) -> None:
    """Until the first process of the namespace is gone: the system ends all the others before that."""
    first = _FIRST_PROCESS.search(status)
    if first is None:
        return
    try:
        descriptor = os.pidfd_open(int(first[1]))
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], _END_SECONDS)
    finally:
        os.close(descriptor)


def _run_plainly(
    name: str,
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    timeout_seconds: float,
    log: Path,
) -> int:
    try:
        process = _spawned(argv, directory, environment, log)
    except OSError as error:
        with log.open("ab") as output:
            output.write(f"{name} cannot be started: {error}\n".encode())
        return NOT_RUNNABLE
    return _wait(process, timeout_seconds, log)


def _spawned(
    argv: Sequence[str], directory: Path, environment: Mapping[str, str], log: Path, *, keep: Collection[int] = ()
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            list(argv),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=tuple(keep),
        )


def _wait(process: subprocess.Popen[bytes], timeout_seconds: float, log: Path) -> int:
    try:
        code = process.wait(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        process.wait()
        with log.open("ab") as output:
            output.write(f"\n(killed after {timeout_seconds:g} s)\n".encode())
        return TIMED_OUT
    # What it left running in its group would hold the checkout open.
    _kill_group(process.pid)
    return _SIGNALLED - code if code < 0 else code


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _ended(code: int, began: float, log: Path, start: int) -> Ended:
    return Ended(code=code, seconds=round(time.monotonic() - began, 3), output=_tail(log, start))


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as written:
        size = written.seek(0, os.SEEK_END)
        written.seek(max(start, size - OUTPUT_MAX))
        return written.read(OUTPUT_MAX).decode("utf-8", "replace")
