"""What do the files of a run say? Read without trust: a worker died half-way, or somebody else wrote them."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec

from coordination import files, locks


def told(path: Path) -> dict[str, Any] | None:
    """What a run wrote; None when there is no such file. One that is not what it should be tells nothing: empty."""
    try:
        value = files.read_json_if_there(path)
    except ValueError:
        value = {}
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        value = {}  # something else has the name of the file
    return value if value is None or isinstance(value, dict) else {}


def worker_pid(worker: dict[str, Any]) -> int:
    """The process that says it works; 0 when the file does not say."""
    pid = worker.get("pid")
    return pid if isinstance(pid, int) else 0


def identity(worker: dict[str, Any] | None) -> locks.Identity | None:
    """Exactly which process works; None when the file does not say."""
    try:
        return msgspec.convert(worker, locks.Identity)
    except msgspec.ValidationError:
        return None
