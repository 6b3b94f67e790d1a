"""What moved in the repository that is not ours to move?

A run that is not boxed in can move branches, plant hooks and change the configuration. That is found by comparing
before with after, and only reported: it may be the user's own doing, so it is never undone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from coordination.model.runs import Value
from coordination.workspaces.git import Git
from coordination.workspaces.phantoms import present

_OURS = ("refs/coordination/", "refs/heads/coordination/")
_WATCHED = ("config", "config.worktree", "hooks", "info", "objects/info/alternates")
_ABSENT = "nothing"


class Outside(Value):
    """All refs but ours with where they point, and all files that steer git with their digests."""

    refs: dict[str, str]
    files: dict[str, str]


def snapshot_outside(git: Git) -> Outside:
    """What is there now."""
    listed = git.run("for-each-ref", "--format=%(refname)%00%(objectname) %(symref)%00").out.replace(b"\n", b"")
    names = [os.fsencode(name).decode(errors="backslashreplace") for name in os.fsdecode(listed).split("\0")[:-1]]
    phantoms = present(git.common)
    refs = dict(zip(names[::2], names[1::2], strict=True))
    return Outside(
        refs={name: at for name, at in refs.items() if not name.startswith(_OURS)},
        files={
            name: _digest(git.common / name)
            for path in _watched(git.common)
            if (name := str(path.relative_to(git.common))) not in phantoms
        },
    )


def audit(git: Git, before: Outside) -> list[str]:
    """A sentence for everything that moved since.

    A new ref, and one that only grew, are left out: a user who goes on committing must not stop the work.
    """
    after = snapshot_outside(git)
    moved = [
        f"{name} moved from {was.strip()} to {now.strip()}"
        for name, was, now in _differences(before.refs, after.refs)
        if was != _ABSENT and (now == _ABSENT or not _grew(git, was, now))
    ]
    changed = [
        f"{git.common / name} was {'made' if was == _ABSENT else 'removed' if now == _ABSENT else 'changed'}"
        for name, was, now in _differences(before.files, after.files)
    ]
    return moved + changed


def _grew(git: Git, was: str, now: str) -> bool:
    """Whether a ref that leads to the same ref as before, if any, has all it had. What is no commit never grows."""
    (before, leads_before), (after, leads_after) = was.split(" "), now.split(" ")
    asked = git.run("merge-base", "--is-ancestor", before, after, accept=(0, 1, 128))
    return leads_before == leads_after and asked.code == 0


def _differences(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for name in sorted({*before, *after}):
        was, now = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if was != now:
            yield name, was, now


def _watched(common: Path) -> Iterator[Path]:
    for name in _WATCHED:
        path = common / name
        if path.is_symlink() or path.is_file():
            yield path
        elif path.is_dir():
            yield from (entry for entry in sorted(path.rglob("*")) if entry.is_symlink() or entry.is_file())


def _digest(path: Path) -> str:
    """The content and whether it may be executed; of a link also where it leads."""
    import hashlib  # OpenSSL comes with it, and a run that writes nothing never comes here

    content = path.read_bytes() if path.is_file() else b""
    leads = os.fsencode(path.readlink()) if path.is_symlink() else b""
    mode = b"x" if os.access(path, os.X_OK) else b"-"
    return hashlib.sha256(b"\0".join((leads, mode, content))).hexdigest()
