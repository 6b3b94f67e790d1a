"""How much of the machine may one run take? Memory and processes by control groups, the size of a file by a limit.

A control group counts a run with all its descendants, whatever session they flee to (cgroups(7)): of version 2, or of
version 1 where that has the controllers. Groups are made below our own, or beside it, whichever the system lets us: in
a container, or where systemd has delegated a group to the user. Nothing is guessed: a group counts once we are in it.
Where there is none a run is not limited, and ``coord doctor`` says so.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

_PREFIX = "coordination."
_CONTROLLERS = {"memory": "memory", "processes": "pids"}
_FILES = {"memory": ("memory.max", "memory.limit_in_bytes"), "pids": ("pids.max",)}


def enter(group: str, *, memory_bytes: int = 0, processes: int = 0, file_bytes: int = 0) -> list[str]:
    """Confine this process and all its descendants to come; in what: some of memory, processes. 0 is no limit.

    ``group`` names it, uniquely on this machine; "" is no group. No core is dumped from here on: it would hold keys.
    """
    _lower(resource.RLIMIT_CORE, 0)
    if file_bytes:
        _lower(resource.RLIMIT_FSIZE, file_bytes)
    wanted = {what: most for what, most in (("memory", memory_bytes), ("processes", processes)) if group and most}
    places = {what: list(_places(_CONTROLLERS[what])) for what in wanted}  # before we move
    return [what for what, most in wanted.items() if _entered(places[what], group, _CONTROLLERS[what], most)]


def leave(pattern: str) -> None:
    """Remove the groups whose names match, if their processes are gone; a group with processes stays."""
    for controller in _CONTROLLERS.values():
        for place in _places(controller):
            for group in place.glob(f"{_PREFIX}{pattern}"):
                with contextlib.suppress(OSError):
                    group.rmdir()


def works() -> list[str]:
    """In what a run can be limited here: some of memory, processes. Tried with a process that enters and ends."""
    command = [sys.executable, "-P", "-m", "coordination.confinement"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        said = child.communicate()[0].decode("ascii", "replace").split()
    leave(f"probe.{child.pid}")
    return said


def _lower(which: int, most: int) -> None:
    """A limit that no descendant without privileges can raise again; one that is lower already stays."""
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _entered(places: Collection[Path], name: str, controller: str, most: int) -> bool:
    """Whether there was a place where that could be done."""
    for place in places:
        group = place / f"{_PREFIX}{name}"
        try:
            group.mkdir(exist_ok=True)
            _limit_file(group, controller).write_text(str(most), encoding="ascii")
            (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
        else:
            return True
    return False


def _limit_file(group: Path, controller: str) -> Path:
    """Where the limit is written. Raises FileNotFoundError when the group has no such controller."""
    for _ in range(2):
        for file in _FILES[controller]:
            if (group / file).exists():
                return group / file
        # version 2: a group has the controllers that the one above hands down
        (group.parent / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")
    raise FileNotFoundError(group / _FILES[controller][0])


def _places(controller: str) -> Iterator[Path]:
    """Where a group could be made: below our own, or beside it."""
    for mount, root, path in _hierarchies(controller):
        with contextlib.suppress(ValueError):
            own = mount / PurePosixPath(path).relative_to(root)
            yield own
            if own != mount:
                yield own.parent


def _hierarchies(controller: str) -> Iterator[tuple[Path, str, str]]:
    """Mount, its root, and our own group, of each hierarchy that may have the controller; see cgroups(7)."""
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    own = {kind: path for _, kind, path in (line.split(":", 2) for line in groups)}
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = [*after.split(), "", "", ""][:3]
        controllers = next((names for names in own if controller in names.split(",")), None)
        if kind == "cgroup2" and "" in own:
            yield Path(mount), root, own[""]
        elif kind == "cgroup" and controllers is not None and controller in options.split(","):
            yield Path(mount), root, own[controllers]


if __name__ == "__main__":
    sys.stdout.write(" ".join(enter(f"probe.{os.getpid()}", memory_bytes=1 << 40, processes=1 << 15)))
