"""What is in a commit, and how do two differ? Read from git's objects: no file of a workspace is opened."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from coordination.errors import NotFound, Refused
from coordination.model.runs import DiffStat
from coordination.workspaces.git import Git
from coordination.workspaces.repository import shown

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
_FILES = {"100644", "100755", "100664"}


def diff_stat(git: Git, base: str, commit: str) -> DiffStat:
    """How large a change is; a binary file counts as a file without lines."""
    rows = git.run(*_DIFF, "--numstat", "-z", "--no-renames", base, commit, "--").names
    counts = [row.split("\t", 2) for row in rows]
    return DiffStat(
        files=len(counts),
        insertions=sum(int(added) for added, _, _ in counts if added != "-"),
        deletions=sum(int(deleted) for _, deleted, _ in counts if deleted != "-"),
        binaries=sum(added == "-" for added, _, _ in counts),
    )


def diff(git: Git, base: str, commit: str, bytes_max: int) -> str:
    """A change as text, cut at ``bytes_max`` with a line that says so."""
    out, more = git.beginning(*_DIFF, base, commit, "--", bytes_max=bytes_max)
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


def first_parents(git: Git, old: str, new: str) -> tuple[tuple[str, str], ...]:
    """What one branch gained, oldest first: commits along the first parents, with their subjects."""
    how = ("--no-show-signature", "--first-parent", "--reverse", "--format=%H %s")
    listed = git.text("log", *how, f"{old}..{new}", "--")
    rows = (line.partition(" ") for line in listed.split("\n") if line)
    return tuple((commit, shown([subject])[0]) for commit, _, subject in rows)


def _plain(path: str) -> bool:
    parts = PurePosixPath(path).parts
    absolute = path.startswith("/") or "\0" in path
    return bool(parts) and not absolute and not any(part == ".." or part.lower() == ".git" for part in parts)
