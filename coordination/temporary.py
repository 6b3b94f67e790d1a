"""Where are the temporary files of a run whose own directory has too long a path, and how do they go if it is killed?

Their directory is named after the run's, and for the rest by chance. So whoever clears up after a run finds it without
believing anything that the run may have written: by its name, and only if it is a directory, no link, and ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PLACE = Path("/tmp")  # noqa: S108 - the one short path that every system has; nothing is guessed in it, see ``prefix``
_DIGITS = 16


@contextlib.contextmanager
def made(run_directory: str) -> Iterator[str]:
    """A directory of a short path for a run's temporary files, for the time."""
    with tempfile.TemporaryDirectory(prefix=prefix(run_directory), dir=PLACE, ignore_cleanup_errors=True) as short:
        yield short


def prefix(run_directory: str) -> str:
    """How the names of a run's directories begin: of no other run, in whatever repository."""
    return f"coordination-{hashlib.sha256(os.fsencode(run_directory)).hexdigest()[:_DIGITS]}_"


def clear(run_directory: str) -> None:
    """Remove what a run left there. Only when it is over; what cannot be removed stays. Raises OSError."""
    for path in left(run_directory):
        with contextlib.suppress(RecursionError):  # deeper than the interpreter's stack
            try:
                shutil.rmtree(path)
            except PermissionError:
                _open(path)
                shutil.rmtree(path)


def left(run_directory: str) -> list[Path]:
    """What is there of a run."""
    begins = prefix(run_directory)
    with os.scandir(PLACE) as entries:
        named = [entry for entry in entries if entry.name.startswith(begins) and entry.is_dir(follow_symlinks=False)]
        return [Path(entry.path) for entry in named if entry.stat(follow_symlinks=False).st_uid == os.getuid()]


def _open(path: Path) -> None:
    """Make every directory writable again: some tools take that from what they downloaded."""
    path.chmod(0o700)
    for where, directories, _ in os.walk(path):
        for name in directories:
            if not Path(where, name).is_symlink():
                Path(where, name).chmod(0o700)
