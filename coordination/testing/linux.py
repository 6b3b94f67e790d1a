"""Which calls of Linux does the laboratory need that Python has not? Mounts, loop devices, to die with the parent.

Everything here cleans up after itself even when its process is killed: mounts are made in a mount namespace of the
process's own (``live_apart``), which ends with the last process in it, and a loop device is given back by the kernel
when its mount goes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FUSE_DEVICE = Path("/dev/fuse")
_LOOP_CONTROL = Path("/dev/loop-control")

# linux/loop.h
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
# struct loop_config: fd, block_size, struct loop_info64 (of which only lo_flags is set), 8 reserved words
_LOOP_CONFIG = struct.Struct("=II 52x I 176x 64x")

# linux/sched.h, linux/mount.h, linux/prctl.h
_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 1 << 14, 1 << 18
_MNT_DETACH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9


def missing() -> str:
    """Why block devices cannot be mounted here, or "" when they can. Tries it in a child process."""
    if os.uname().sysname != "Linux":
        return "only Linux has FUSE and loop devices"
    if os.geteuid() != 0:
        return "mounting needs root"
    absent = [str(path) for path in (FUSE_DEVICE, _LOOP_CONTROL) if not os.access(path, os.R_OK | os.W_OK)]
    if absent:
        return f"no access to {', '.join(absent)}"
    tried = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, timeout=60, check=False)
    return "" if tried.returncode == 0 else f"no mounts or loop devices for us: {tried.stderr.strip()[-200:]}"


def end_with_parent(parent: int) -> None:
    """Be killed when the parent (whose process number this is) ends, however that ends."""
    _call("prctl", _PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def adopt_orphans(*, adopting: bool) -> None:
    """Whether this process is to be given the orphans among its descendants. Raises OSError."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, int(adopting), 0, 0, 0)


def live_apart() -> None:
    """Move this process (of one thread) to a mount namespace of its own, from which no mount gets out."""
    _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def mount(source: str, target: Path, kind: str, options: str = "") -> None:
    """Mount, without devices, programs and set-user-id. Raises OSError."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), flags, options.encode())


def unmount(target: Path, *, lazily: bool = False) -> None:
    """Unmount. Raises OSError, EBUSY when something beneath is open, unless ``lazily``."""
    _call("umount2", os.fsencode(target), _MNT_DETACH if lazily else 0)


@contextmanager
def loop_device(backing: int, *, direct: bool = False) -> Iterator[Path]:
    """A block device over an open file. It goes when the block ends and its last mount is gone. Raises OSError.

    ``direct``: past the page cache of the file underneath.
    """
    device, path = _attached(backing, _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_DIRECT_IO if direct else 0))
    try:
        yield path
    finally:
        os.close(device)


@contextmanager
def mounted(backing: int, target: Path, *, kind: str = "ext4", direct: bool = False) -> Iterator[Path]:
    """The filesystem in an open file, mounted. Raises OSError."""
    with loop_device(backing, direct=direct) as device:
        mount(str(device), target, kind)
    try:
        yield target
    except BaseException:
        unmount(target, lazily=True)  # whoever raised may still hold something open
        raise
    unmount(target)


def _attached(backing: int, flags: int) -> tuple[int, Path]:
    control = os.open(_LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing, 0, flags))
                return device, path
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took it in between
                    raise
    finally:
        os.close(control)


def _call(name: str, *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(argument) if isinstance(argument, int) else argument for argument in arguments]
    if getattr(libc, name)(*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


if __name__ == "__main__":  # what ``missing`` tries
    live_apart()
    with tempfile.TemporaryFile() as _file:
        _file.truncate(1 << 20)
        with loop_device(_file.fileno()):
            pass
