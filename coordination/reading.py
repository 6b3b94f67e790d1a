"""How is a file read that is small by agreement but written by others? Bounded, and never through a link."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class NotPlain(OSError):
    """A link, a directory, a pipe, a device, or larger than agreed."""


def plain_bytes(path: Path, bytes_max: int) -> bytes:
    """All bytes of a regular file of at most ``bytes_max``. Raises NotPlain, and OSError for the rest.

    Opened first and judged after, so that nothing can be swapped in between; without waiting, so that a pipe cannot
    hold us. Hard links are fine: installers make them.
    """
    if path.is_symlink():
        raise NotPlain(f"{path}: expected a regular file, found a symbolic link")
    # O_NOFOLLOW is what must hold; the question above only makes the better message
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotPlain(f"{path}: expected a regular file, found something else")
        data = _read(descriptor, bytes_max + 1)  # not by the size it had: it may grow while we read
    finally:
        os.close(descriptor)
    if len(data) > bytes_max:
        raise NotPlain(f"{path}: expected at most {bytes_max:,} bytes, found more")
    return data


def _read(descriptor: int, bytes_max: int) -> bytes:
    data = b""
    while len(data) < bytes_max and (block := os.read(descriptor, bytes_max - len(data))):
        data += block
    return data
