"""Where are the workspaces, and which directory of git's belongs to which?

A worktree is a directory of files and, below the common git directory, ``worktrees/<id>`` with its HEAD and index. The
latter is found by the path it names, never by what the former says of itself: whatever runs there may rewrite that.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from coordination.errors import Refused, UsageError
from coordination.files import make_directory, publish
from coordination.locks import exclusive
from coordination.model.runs import Pooling
from coordination.workspaces.git import Git, clear_locks

LANDING = ".landing"  # begins with a dot, as no task id does
LENT = "coordination-lent"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LOCK_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The two directories everything is derived from."""

    common: Path
    state: Path
    private: tuple[str, ...] = ()  # paths that set-up copies or makes: never committed, never kept
    pooling: Pooling | None = None  # None: trees are neither taken from the pool nor given to it

    @property
    def git(self) -> Git:
        """The repository without a tree: objects and refs."""
        return Git(self.common, private=self.private)

    @property
    def workspaces(self) -> Path:
        """Where the worktrees are."""
        return self.state / "agent_workspaces"

    @property
    def pool(self) -> Path:
        """Where the trees of earlier worktrees wait; no run's sandbox lets it in there."""
        return self.state / "pool"

    def path(self, name: str) -> Path:
        """The directory of a workspace. Raises UsageError for a name that could lead elsewhere."""
        if name != LANDING and not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a workspace: expected letters, digits, '_', '-' and '.'")
        return self.workspaces / name

    def locked(self, name: str, timeout_seconds: float = _LOCK_SECONDS) -> AbstractContextManager[None]:
        """Own one kind of work: ``git worktree add`` loses when several run at once."""
        make_directory(self.state / "locks")
        return exclusive(self.state / "locks" / f"{name}.lock", timeout_seconds)

    def record(self, path: Path) -> Path | None:
        """Git's directory for the worktree at ``path``, also when the worktree itself is gone."""
        return next((directory for directory, tree in self._records() if tree == path), None)

    def _records(self) -> Iterator[tuple[Path, Path]]:
        """Git's directories with the worktrees they are of. One that goes just now, with another run's, is none."""
        for entry in sorted((self.common / "worktrees").glob("*/gitdir")):
            try:
                link = os.fsdecode(entry.read_bytes()).strip("\n")
            except FileNotFoundError:
                continue
            yield entry.parent, Path(os.path.normpath(entry.parent / link)).parent

    def names(self) -> tuple[str, ...]:
        """The workspaces whose directories are there."""
        found = self.workspaces.iterdir() if self.workspaces.is_dir() else ()
        return tuple(sorted(path.name for path in found if _NAME.fullmatch(path.name) and path.is_dir()))

    def broken(self) -> tuple[str, ...]:
        """Workspaces that git made only in part, or of which only the directory or git's record of it is there."""
        whole, recorded = set(), set()
        for directory, tree in self._records():
            if tree.parent == self.workspaces and _NAME.fullmatch(tree.name):
                recorded.add(tree.name)
                if tree.is_dir() and not half_made(directory):
                    whole.add(tree.name)
        return tuple(sorted((recorded | set(self.names())) - whole))

    def forget_half_made(self) -> None:
        """Remove git's records of workspaces of ours that were never finished. Only for who owns their making.

        Git was killed while it wrote them. One with an empty file makes git refuse to list worktrees, for the user's
        own ``git branch``, too, and to make any other.
        """
        for directory, tree in self._records():
            if tree.parent == self.workspaces and half_made(directory):
                forget(directory)

    def sweep(self, name: str) -> None:
        """Remove what ``forget`` leaves when it is killed just before its end: an empty directory of that name."""
        for entry in (self.common / "worktrees").glob(f"{name}*"):
            if entry.name.removeprefix(name).strip("0123456789") == "" and not any(entry.iterdir()):
                entry.rmdir()

    def opened(self, path: Path) -> Git:
        """Git in a workspace that exists, freed of locks left behind. Raises Refused for anything else."""
        if path.parent.resolve() != self.workspaces or path.is_symlink() or not path.is_dir():
            raise Refused(f"{path} is not a workspace below {self.workspaces}: expected a directory made by us")
        path = self.workspaces / path.name
        directory = self.record(path)
        if directory is None or half_made(directory):
            raise Refused(f"git no longer knows the workspace {path}. Start the task again: it will be made anew")
        clear_locks(directory)
        # what it was lent once is private for as long as it lasts
        return self.git.at(directory, path, lent(directory, self.private))

    def set_aside(self, path: Path) -> Path:
        """Move something that is in the way and not ours to judge to where nobody trips over it."""
        kept = self.state / "set_aside"
        make_directory(kept)
        return _renamed(path, kept)

    def discard(self, path: Path) -> None:
        """Remove a directory so that a kill leaves it whole or gone from its place, never in part."""
        trash = self.workspaces / ".trash"
        make_directory(trash)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            _renamed(path, trash)
        for left in trash.iterdir():
            # out of its place is gone; what cannot be deleted now (another's, too) must not fail whoever comes next
            with suppress(OSError, RecursionError):
                _deleted(left)


def lent(directory: Path, known: Collection[str] = ()) -> tuple[str, ...]:
    """What a workspace was lent, by settings that may have changed since; without what is ``known`` anyway."""
    try:
        noted = (directory / LENT).read_bytes()
    except FileNotFoundError:
        return ()
    return tuple(name for name in os.fsdecode(noted).split("\0") if name and name not in known)


def note_lent(directory: Path, names: Collection[str]) -> None:
    """Remember, before anything is lent, what this workspace is lent: among git's own files, as no sandbox writes."""
    before = lent(directory)
    if not set(names) <= set(before):
        publish(directory / LENT, os.fsencode("\0".join(dict.fromkeys((*before, *names)))))


def half_made(directory: Path) -> bool:
    """Whether git was killed while it made this worktree."""
    if not all(_written(directory / name) for name in ("HEAD", "commondir", "gitdir")):
        return True
    try:
        return (directory / "locked").read_text().strip() == "initializing"
    except FileNotFoundError:
        return False


def _written(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def forget(directory: Path) -> None:
    """Remove git's directory for a worktree; its name for the worktree last, so that a repeat finds it."""
    for entry in directory.iterdir():
        if entry.name != "gitdir":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    (directory / "gitdir").unlink(missing_ok=True)
    directory.rmdir()


def _renamed(path: Path, into: Path) -> Path:
    number = 1
    while (new := into / f"{path.parent.name}.{path.name}.{number}").exists():
        number += 1
    return path.rename(new)


def _deleted(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except PermissionError:
        _flattened(path)
    except RecursionError:  # deeper than the interpreter's stack
        _flattened(path)


def _flattened(path: Path) -> None:
    """Remove what is too deep, or not even its owner may write, moving directories up first; no link is followed."""
    left = [path]
    numbers = (number for number in itertools.count(1) if not path.with_name(f".{number}").exists())
    while left:
        directory = left.pop()
        directory.chmod(0o700)
        with os.scandir(directory) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    Path(entry.path).chmod(0o700)  # what may not be written cannot be moved
                    left.append(Path(entry.path).rename(path.with_name(f".{next(numbers)}")))
                else:
                    Path(entry.path).unlink()
        directory.rmdir()
