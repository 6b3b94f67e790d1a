"""What is in a commit, and how do two differ? Read from git's objects: no file of a workspace is opened."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from coordination.errors import NotFound, Refused
from coordination.model.runs import DiffStat
from coordination.workspaces.git import Git
from coordination.workspaces.repository import shown

_DIFF = ("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")
_PATHS_MAX = 500
_FILES = {"100644", "100755", "100664"}


def diff_stat(git: Git, base: str, commit: str) -> DiffStat:
    """How large a change is; a binary file counts as a file without lines."""
    return measured(git, base, commit)[0]


def measured(git: Git, base: str, commit: str, paths: Sequence[str] = ()) -> tuple[DiffStat, tuple[str, ...]]:
    """The same with the files that differ, whatever it is about them that does; a renamed one under both names."""
    rows = git.run(*_DIFF, "--numstat", "-z", "--no-renames", base, commit, "--", *paths).names
    counts = [row.split("\t", 2) for row in rows]
    stat = DiffStat(
        files=len(counts),
        insertions=sum(int(added) for added, _, _ in counts if added != "-"),
        deletions=sum(int(deleted) for _, deleted, _ in counts if deleted != "-"),
        binaries=sum(added == "-" for added, _, _ in counts),
    )
    return stat, tuple(name for _, _, name in counts)


def landing_change(git: Git, base: str, commit: str, branches: Iterable[str]) -> tuple[DiffStat, tuple[str, ...]]:
    """The change from ``base``, and what of the branches the commit took in by itself and does not carry as it was."""
    stat, names = measured(git, base, commit)
    found = set(names)
    for branch in branches:
        # 128: there is no such branch, so nothing can land there
        for met in git.run("merge-base", "--all", branch, commit, accept=(0, 1, 128)).text.split():
            undone = _undone(git, base, met, commit) - found
            if undone:
                more, _ = measured(git, met, commit, sorted(undone) if len(undone) <= _PATHS_MAX else ())
                stat, found = _sum(stat, more), found | undone
    return stat, shown(sorted(found))


def _undone(git: Git, base: str, met: str, commit: str) -> set[str]:
    """The files that others changed up to where the commit met them, and that are otherwise in the commit."""
    if met == base or git.is_ancestor(met, base):
        return set()
    apart = git.run("merge-base", met, base, accept=(0, 1)).text or base
    return {*_names(git, apart, met)} & {*_names(git, met, commit)}


def _sum(one: DiffStat, other: DiffStat) -> DiffStat:
    return DiffStat(
        files=one.files + other.files,
        insertions=one.insertions + other.insertions,
        deletions=one.deletions + other.deletions,
        binaries=one.binaries + other.binaries,
    )


def diff(git: Git, base: str, commit: str, bytes_max: int, paths: Sequence[str] = ()) -> str:
    """A change (of these paths) as text, cut at ``bytes_max`` with a line that says so."""
    out, more = git.beginning(*_DIFF, base, commit, "--", *paths, bytes_max=bytes_max)
    text = out.decode(errors="replace")
    return f"{text}\n[cut at {bytes_max} bytes]\n" if more else text


def files_changed(git: Git, base: str, commit: str) -> tuple[str, ...]:
    """The files that differ; a renamed one under both names."""
    return shown(_names(git, base, commit))


def _names(git: Git, base: str, commit: str) -> list[str]:
    return git.run(*_DIFF, "--name-only", "-z", "--no-renames", base, commit, "--").names


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
