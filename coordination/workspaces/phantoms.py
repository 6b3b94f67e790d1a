"""What does the agent's sandbox leave in the repository?

Claude Code's sandbox protects paths that do not exist by making them, empty, so that it can mount over them: in the
git directory, and beside it in the user's checkout. They are seen here after a run (2.1.330 to 2.1.332) and mean
nothing to git. They are removed when no agent runs, but only while empty and only if they were not there when
coordination was set up: the user's own are never touched.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

_NAMES = (
    "config.worktree",
    "NOTES_MERGE_WORKTREE",
    "glab-cli",
    "remotes",
    "branches",
    "objects/info/alternates",
    "objects/info/http-alternates",
)
_MARKER = ".claude-sandbox-noreplace"
_MARKED = ("info", "objects/info", "objects/info/commit-graphs", "hooks")


def present(common: Path) -> list[str]:
    """Empty things of those names that are there, relative to the common git directory; innermost first."""
    return [_name(path, common) for path in _candidates(common) if _empty(path)]


def clear(common: Path, keep: Collection[str]) -> None:
    """Remove what is there and not in ``keep``. What is no longer empty, or gone already, stays as it is."""
    # one by one: what held only phantoms is empty once they are gone
    for path in _candidates(common):
        if _empty(path) and _name(path, common) not in keep:
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError:
                continue  # filled or removed since we looked: not a phantom any more


def _candidates(common: Path) -> Iterator[Path]:
    directories = [common, *sorted((common / "worktrees").glob("*"))]
    for directory in directories:
        for marked in _MARKED:
            yield directory / marked / _MARKER
        for name in _NAMES:
            yield directory / name
    yield common / "objects" / "info" / "commit-graphs"
    if common.name == ".git":  # then the checkout lies round it
        yield from (common.parent / ".claude" / ".cc-writes", common.parent / ".claude")


def _name(path: Path, common: Path) -> str:
    return os.path.relpath(path, common)


def _empty(path: Path) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return not any(path.iterdir())
    return path.is_file() and path.stat().st_size == 0
