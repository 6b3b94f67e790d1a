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
from collections.abc import Iterator, Sequence
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
    return Containment(git).asked(commit, branch)


class Containment:
    """The same for many commits of a repository: what each commit of a branch did is read once."""

    def __init__(self, git: Git) -> None:
        self._git = git
        self._identities: dict[str, str] = {}  # by commit

    def asked(self, commit: str, branch: str) -> Contained:
        """See ``contained``."""
        git = self._git
        if git.is_ancestor(commit, branch):
            return "merged"
        bases = git.run("merge-base", "--all", commit, branch, accept=(0, 1)).text.split()
        if not bases:
            return ""
        if self._adds_nothing(commit, branch):
            return "same"
        return self._by_patch(bases[0], commit, branch) if len(bases) == 1 else ""

    def _adds_nothing(self, commit: str, branch: str) -> bool:
        merge = conflicts(self._git, branch, commit)
        return not merge.files and merge.tree == self._git.text("rev-parse", f"{branch}^{{tree}}")

    def _by_patch(self, base: str, commit: str, branch: str) -> Contained:
        git = self._git
        theirs = git.text("rev-list", f"--max-count={COMMITS_MAX + 1}", "--no-merges", f"{base}..{branch}").split()
        if len(theirs) > COMMITS_MAX:
            return ""
        there = self._patches(theirs)
        if identity(git.run("diff", *_PATCH, base, commit, "--").out) in there:
            return "squashed"
        own = git.text("rev-list", f"{base}..{commit}").split()
        straight = not git.text("rev-list", "--merges", "--max-count=1", f"{base}..{commit}")
        return "rebased" if straight and len(own) <= COMMITS_MAX and self._patches(own) <= there else ""

    def _patches(self, commits: Sequence[str]) -> set[str]:
        """The identity of what each of these commits changed; none of them is a merge."""
        new = [commit for commit in commits if commit not in self._identities]
        if new:
            asked = ("--no-show-signature", "--no-walk=unsorted", "--stdin", "-p", "--format=%H")
            listed = "".join(f"{commit}\n" for commit in new).encode()
            said = self._git.run("log", *_PATCH, *asked, stdin=listed).out
            self._identities |= {commit: identity(patch) for commit, patch in _divided(said)}
        return {self._identities[commit] for commit in commits}


def _divided(said: bytes) -> Iterator[tuple[str, bytes]]:
    """Each commit of a log with its patch."""
    commit, lines = "", list[bytes]()
    for line in said.split(b"\n"):
        if _COMMIT.fullmatch(line):
            if commit:
                yield commit, b"\n".join(lines)
            commit, lines = line.decode(), []
        else:
            lines.append(line)
    if commit:
        yield commit, b"\n".join(lines)


def identity(patch: bytes) -> str:
    """What a patch does, whatever line numbers and objects it names; blanks count, unlike in ``git patch-id``."""
    lines = (line for line in patch.strip(b"\n").split(b"\n") if not line.startswith(b"index "))
    return hashlib.sha256(b"\n".join(b"@@" if line.startswith(b"@@") else line for line in lines)).hexdigest()
