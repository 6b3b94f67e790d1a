"""How soon is a workspace ready on a large repository, and what does it take of the disk?

A repository of 20,000 files and 2,000 commits is made in the run. Then, in turns: ``git worktree add`` as anybody would
call it; a workspace of ours made from nothing; one whose tree comes from the pool, with the commit that it had, and
with one in which 20 other files stand. All are removed between the rounds, as they are in use, and that is why the
first two are slow: a filesystem without a journal looks at what was deleted lately before it gives an inode away.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coordination.model.runs import Pooling, WorkspaceRequest
from coordination.workspaces import Workspaces

FILES, COMMITS = 20_000, 2_000
_COMMITS_A_STEP = 10  # each commit writes two files
_POOLING = Pooling(trees=2, bytes=1 << 40)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """Seconds until each was there, in one round; and what a tree takes of the disk."""

    plain: float
    fresh: float
    recycled: float
    switched: float
    plain_bytes: int
    bytes: int


def measure(directory: Path, rounds: int, files: int = FILES, commits: int = COMMITS) -> Iterator[Ready]:
    """Make the repository, then measure round by round."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as name:
        place = _Place(Path(name), files, commits)
        place.warm()
        for number in range(rounds):
            yield place.round(number)


class _Place:
    def __init__(self, directory: Path, files: int, commits: int) -> None:
        self._root = directory / "repository"
        self._root.mkdir()
        self._git("init", "--quiet", "--bare", "--initial-branch=main", ".git")
        history = b"".join(_history(files, commits))
        subprocess.run(["git", "fast-import", "--quiet", "--done"], cwd=self._root / ".git", input=history, check=True)
        self._git("config", "core.bare", "false")
        self._git("pack-refs", "--all")
        self._plain = Workspaces(self._root / ".git", self._root / ".coordination")
        self._pooled = Workspaces(self._root / ".git", self._root / ".coordination", pooling=_POOLING)

    def warm(self) -> None:
        """Two trees in the pool."""
        for name in ("A", "B"):
            self._ensure(self._pooled, name, "main")
        for name in ("A", "B"):
            self._pooled.remove(name, name)

    def round(self, number: int) -> Ready:
        beside = self._root.parent / "plain"
        both: dict[str, Callable[[], object]] = {
            "plain": lambda: self._git("worktree", "add", "--quiet", "--detach", str(beside), "main"),
            "fresh": lambda: self._ensure(self._plain, "fresh", "main"),
        }
        # whoever comes first meets more of what was deleted lately
        made = {name: _timed(both[name]) for name in sorted(both, reverse=number % 2 == 0)}
        recycled = _timed(lambda: self._recycled("recycled", "main"))
        switched = _timed(lambda: self._recycled("switched", f"main~{_COMMITS_A_STEP * (number + 1)}"))
        sizes = _size(beside), _size(self._pooled.path("recycled"))
        self._git("worktree", "remove", "--force", str(beside))
        self._plain.remove("fresh", "fresh")
        self._pooled.remove("recycled", "recycled")
        self._pooled.remove("switched", "switched")
        return Ready(
            plain=made["plain"],
            fresh=made["fresh"],
            recycled=recycled,
            switched=switched,
            plain_bytes=sizes[0],
            bytes=sizes[1],
        )

    def _recycled(self, name: str, commit: str) -> None:
        waiting = len(list((self._root / ".coordination/pool").iterdir()))
        self._ensure(self._pooled, name, commit)
        assert len(list((self._root / ".coordination/pool").iterdir())) == waiting - 1, "it came from the pool"

    def _ensure(self, workspaces: Workspaces, name: str, commit: str) -> None:
        workspaces.ensure(WorkspaceRequest(name=name, commit=workspaces.resolve(commit)))

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self._root, check=True, capture_output=True)


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _size(tree: Path) -> int:
    """What ``du`` says: blocks, of directories, too."""
    blocks = tree.lstat().st_blocks
    for where, directories, names in os.walk(tree):
        blocks += sum(os.lstat(f"{where}/{name}").st_blocks for name in (*directories, *names))
    return blocks * 512


def _history(files: int, commits: int) -> Iterator[bytes]:
    """For ``git fast-import``: all files in the first commit, two others of them written by each that follows."""
    yield from _commit(0, [(number, 0) for number in range(files)])
    for number in range(1, commits):
        yield from _commit(number, [(2 * number % files, number), ((2 * number + 1) % files, number)])
    yield b"done\n"


def _commit(number: int, files: list[tuple[int, int]]) -> Iterator[bytes]:
    yield b"commit refs/heads/main\ncommitter Us <us@localhost> %d +0000\ndata 0\n" % (1_700_000_000 + number)
    for file, version in files:
        text = b"".join(b"line %d of file %d in version %d\n" % (line, file, version) for line in range(50))
        yield b"M 100644 inline d%03d/e%02d/file%05d.txt\ndata %d\n%s\n" % (
            file // 200,
            file // 20 % 10,
            file,
            len(text),
            text,
        )
