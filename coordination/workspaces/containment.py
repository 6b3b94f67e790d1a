"""Is a change in a branch already, under whatever commits? Then nothing is lost when its own commits go.

Asked of objects alone, in the order of what it costs:

1. the commit is an ancestor;
2. merging it would change nothing: every line of it is there, squashed or not, as long as nobody changed them since;
3. the change as a whole is one commit of the branch (a squash), or each of its commits is (a rebase, a cherry-pick):
   compared by patch. That holds also when later commits changed the same lines.

What cannot be told counts as not contained.
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

from coordination.workspaces.git import Git
from coordination.workspaces.merging import conflicts

Contained = Literal["", "merged", "same", "squashed", "rebased"]

COMMITS_MAX = 500  # of the branch since both parted, that are looked at one by one
_PATCH = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--full-index", "--binary",
          "--ignore-submodules=none")  # fmt: skip
_COMMIT = re.compile(rb"[0-9a-f]{40}|[0-9a-f]{64}")  # no line of a patch looks so: not even of a binary one


def contained(git: Git, commit: str, branch: str) -> Contained:
    """How ``branch`` (a commit) has what ``commit`` brought; "" when it has not, or nobody can tell."""
    if git.is_ancestor(commit, branch):
        return "merged"
    bases = git.run("merge-base", "--all", commit, branch, accept=(0, 1)).text.split()
    if not bases:
        return ""
    if _adds_nothing(git, commit, branch):
        return "same"
    return _by_patch(git, bases[0], commit, branch) if len(bases) == 1 else ""


def _adds_nothing(git: Git, commit: str, branch: str) -> bool:
    merge = conflicts(git, branch, commit)
    return not merge.files and merge.tree == git.text("rev-parse", f"{branch}^{{tree}}")


def _by_patch(git: Git, base: str, commit: str, branch: str) -> Contained:
    if int(git.text("rev-list", "--count", "--no-merges", f"{base}..{branch}")) > COMMITS_MAX:
        return ""
    theirs = _patches(git, f"{base}..{branch}")
    if identity(git.run("diff", *_PATCH, base, commit, "--").out) in theirs:
        return "squashed"
    merges = git.text("rev-list", "--count", "--merges", f"{base}..{commit}")
    return "rebased" if merges == "0" and _patches(git, f"{base}..{commit}") <= theirs else ""


def _patches(git: Git, commits: str) -> set[str]:
    """The identity of what each commit changed; merges change nothing of their own here."""
    asked = ("--no-show-signature", "-p", "--no-merges", "--format=%H", commits, "--")
    found: list[list[bytes]] = []
    for line in git.run("log", *_PATCH, *asked).out.split(b"\n"):
        if _COMMIT.fullmatch(line):
            found.append([])
        elif found:
            found[-1].append(line)
    return {identity(b"\n".join(lines)) for lines in found}


def identity(patch: bytes) -> str:
    """What a patch does, whatever line numbers and objects it names; blanks count, unlike in ``git patch-id``."""
    lines = (line for line in patch.strip(b"\n").split(b"\n") if not line.startswith(b"index "))
    return hashlib.sha256(b"\n".join(b"@@" if line.startswith(b"@@") else line for line in lines)).hexdigest()
