"""What is in a commit, and how do two differ? Read from git's objects: no file of a workspace is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from coordination.errors import NotFound, Refused
from coordination.model.runs import DiffStat
from coordination.workspaces.git import Git
from coordination.workspaces.repository import shown

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
_FILES = {"100644", "100755", "100664"}


def diff_stat(git: Git, base: str, commit: str) -> DiffStat:
    """How large a change is; a binary file counts as a file without lines."""
    return measured(git, base, commit)[0]


def measured(git: Git, base: str, commit: str) -> tuple[DiffStat, tuple[str, ...]]:
    """The same with the files that differ, whatever it is about them that does; a renamed one under both names."""
    rows = git.run(*_DIFF, "--numstat", "-z", "--no-renames", base, commit, "--").names
    counts = [row.split("\t", 2) for row in rows]
    stat = DiffStat(
        files=len(counts),
        insertions=sum(int(added) for added, _, _ in counts if added != "-"),
        deletions=sum(int(deleted) for _, deleted, _ in counts if deleted != "-"),
        binaries=sum(added == "-" for added, _, _ in counts),
    )
    return stat, shown(name for _, _, name in counts)


def landing_change(git: Git, base: str, commit: str, branches: Iterable[str]) -> tuple[DiffStat, tuple[str, ...]]:
    """The largest of the changes from ``base`` and from where the commit met each branch; the files of all of them."""
    # 128: there is no such branch, so nothing can land there
    met = [git.run("merge-base", "--all", branch, commit, accept=(0, 1, 128)).text.split() for branch in branches]
    since = dict.fromkeys([base, *(one for found in met for one in found)])
    changes = [measured(git, one, commit) for one in since]
    largest = max((stat for stat, _ in changes), key=lambda stat: (stat.lines, stat.files))
    return largest, tuple(sorted({name for _, names in changes for name in names}))


def diff(git: Git, base: str, commit: str, bytes_max: int, paths: Sequence[str] = ()) -> str:
    """A change (of these paths) as text, cut at ``bytes_max`` with a line that says so."""
    out, more = git.beginning(*_DIFF, base, commit, "--", *paths, bytes_max=bytes_max)
    text = out.decode(errors="replace")
    return f"{text}\n[cut at {bytes_max} bytes]\n" if more else text


def files_changed(git: Git, base: str, commit: str) -> tuple[str, ...]:
    """The files that differ; a renamed one under both names."""
    return shown(git.run(*_DIFF, "--name-only", "-z", "--no-renames", base, commit, "--").names)


def read_at(git: Git, commit: str, path: str, bytes_max: int) -> bytes:
    """The first ``bytes_max`` bytes of a file. Raises NotFound, and Refused for what is not a plain file."""
    if not _plain(path):
        raise Refused(f"{path!r} is not a path within the repository: expected no '..', no '.git', not absolute")
    entry = git.run("ls-tree", "-z", commit, "--", path).names
    if len(entry) != 1 or entry[0].partition("\t")[2] != path:  # a directory's name with "/" lists what is in it
        raise NotFound(f"{path!r} is not in commit {commit}")
    mode, _, name = entry[0].partition("\t")[0].split()
    if mode not in _FILES:
        raise Refused(f"{path!r} in commit {commit} is not a plain file (mode {mode})")
    return git.beginning("cat-file", "blob", name, bytes_max=bytes_max)[0]


def exists_at(git: Git, commit: str, paths: Iterable[str]) -> set[str]:
    """Those of the paths that are in a commit, as files, links or directories."""
    asked = [path for path in paths if _plain(path) and "\n" not in path]
    lines = "".join(f"{commit}:{path.rstrip('/')}\n" for path in asked).encode(errors="surrogateescape")
    answers = git.run("cat-file", "--batch-check=%(objecttype)", stdin=lines).out.splitlines() if asked else []
    return {path for path, answer in zip(asked, answers, strict=True) if not answer.endswith(b" missing")}


def _plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    absolute = path.startswith("/") or "\0" in path
    return bool(parts) and not absolute and not any(part == ".." or part.lower() == ".git" for part in parts)
