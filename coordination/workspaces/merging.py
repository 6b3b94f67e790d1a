"""What comes of merging two commits, and how is a merge left in a workspace for a run to settle?

Whether and where two commits conflict is computed from objects alone, without a work tree, so it can be asked again at
any time and always gives the same answer; nothing about a merge is remembered anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from coordination.errors import GitFailed
from coordination.workspaces.git import Git

_STATE = ("MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "MERGE_HEAD")  # the last one says that a merge is under way


@dataclass(frozen=True, kw_only=True, slots=True)
class Merge:
    """What merging gives: a tree, and the files in which both sides disagree."""

    tree: str
    files: tuple[str, ...] = ()
    detail: str = ""


def conflicts(git: Git, ours: str, theirs: str) -> Merge:
    """Merge two commits in objects only."""
    merged = git.run("merge-tree", "--write-tree", "--name-only", "--messages", "-z", ours, theirs, accept=(0, 1))
    fields = iter(merged.text.split("\0"))
    tree = next(fields)
    files = tuple(dict.fromkeys(iter(lambda: next(fields, ""), "")))
    return Merge(tree=tree, files=files if merged.code else (), detail="\n".join(_complaints(list(fields))))


def merge_head(git: Git) -> str | None:
    """The commit whose merge is under way in a workspace."""
    path = git.directory / "MERGE_HEAD"
    return git.commit_at(path.read_text().strip()) if path.exists() else None


def end_merge(git: Git) -> None:
    """Forget the merge that was under way; files and index stay."""
    for name in _STATE:
        (git.directory / name).unlink(missing_ok=True)


def start_merge(git: Git, commit: str) -> None:
    """Merge into a clean workspace without committing; conflict markers stay in the files."""
    git.run("merge", "--no-commit", "--no-ff", "--no-stat", "--quiet", "--strategy=ort", commit, accept=(0, 1))
    if merge_head(git) != commit:
        raise GitFailed(f"git did not merge {commit} in {git.tree}: files stand in its way", code=1, stderr="")


def _complaints(fields: list[str]) -> list[str]:
    """The sentences about conflicts among messages of the form: number of paths, paths, kind, sentence."""
    said, position = [], 0
    while position < len(fields) and fields[position].isdigit():
        position += 1 + int(fields[position])
        kind, sentence = (*fields[position : position + 2], "", "")[:2]
        if kind.startswith("CONFLICT"):
            said.append(sentence.strip())
        position += 2
    return said
