"""Does the integration branch have everything that has landed, and what is to be done if it has not?

The branch is ours to move and anybody's to look at, so people do move it. With commits of theirs on top it is as good
as before. One that is gone is made again only where everything stands that was ever seen on it. One that no longer
contains what has landed is left alone: nothing lands until it does, or work would be lost or done twice.

What was seen on the branch is kept under a ref of its own, so that it can be brought back whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from coordination.workspaces.git import Git

SEEN = "refs/coordination/landed"
_NAMED_MAX = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where the branch is, when it has everything; why not, and what to run; or where it may be made again."""

    head: str = ""
    astray: str = ""
    again: str = ""  # it is gone, and this commit has everything that was on it


def look(
    git: Git, branch: str, target: str, merges: Mapping[str, str], *, good: str = "", sure: Collection[str] = ()
) -> Standing:
    """How the branch stands. Writes nothing.

    ``merges`` are the landed merges that the log knows, each with its task, oldest first. ``good``: a commit that is
    known to have those that are ``sure``.
    """
    head = git.commit_at(f"refs/heads/{branch}")
    if head is None:
        return _gone(git, branch, target, merges)
    if good and (good == head or git.is_ancestor(good, head)):
        doubtful = {merge: task for merge, task in merges.items() if merge not in sure}
    else:
        doubtful = dict(merges)
    why = _lost(git, branch, head, doubtful)
    return Standing(head="" if why else head, astray=why)


def remember(git: Git, head: str) -> None:
    """Keep what is on the branch now, together with all that came before it."""
    git.set_ref(SEEN, head, reason="seen on the integration branch")


def missing(git: Git, head: str, commits: Collection[str]) -> set[str]:
    """Those of the commits that ``head`` does not contain, or that are gone altogether."""
    if not commits:
        return set()
    asked = "".join(f"{commit}\n" for commit in commits)
    kinds = git.run("cat-file", "--batch-check=%(objecttype)", stdin=asked.encode()).text.splitlines()
    gone = {commit for commit, kind in zip(commits, kinds, strict=True) if kind != "commit"}
    asked = "".join(f"{commit}\n" for commit in commits if commit not in gone)
    listed = git.run("rev-list", "--stdin", stdin=f"{asked}^{head}\n".encode()).text.split() if asked else []
    return gone | set(commits).intersection(listed)


def proven(git: Git, branch: str, claims: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of pairs of a merge and a commit, those whose merge is on the branch and has the commit as second parent.

    Raises GitFailed when there is no such branch, or one of the merges is no commit.
    """
    if not claims:
        return set()
    merges = sorted({merge for merge, _ in claims})
    rows = [line.split() for line in git.text("rev-list", "--no-walk=unsorted", "--parents", *merges).splitlines()]
    taken_in = {row[0]: row[2:] for row in rows}
    asked = "".join(f"{merge}\n" for merge in merges) + f"^refs/heads/{branch}\n"
    lacking = set(git.run("rev-list", "--stdin", stdin=asked.encode()).text.split())
    return {(merge, commit) for merge, commit in claims if merge not in lacking and taken_in.get(merge) == [commit]}


def _gone(git: Git, branch: str, target: str, merges: Mapping[str, str]) -> Standing:
    seen = git.commit_at(SEEN)
    known = [*merges, *([seen] if seen is not None else [])]
    main = git.commit_at(f"refs/heads/{target}") or git.commit_at(target)
    # the newest is most likely to have them all; the target has when somebody took everything over
    for start in (main, seen, *list(merges)[: -_NAMED_MAX - 1 : -1]):
        if start is not None and git.commit_at(start) is not None and not missing(git, start, known):
            return Standing(again=start)
    why = (
        f"branch {branch} is gone, and no commit is known that has everything that has landed. "
        f"Look for it with `git log --all --grep Coordination-Reviewed`, then run: git branch {branch} <commit>"
    )
    return Standing(astray=why)


def _lost(git: Git, branch: str, head: str, merges: Mapping[str, str]) -> str:
    gone = missing(git, head, list(merges))
    if not gone:
        return ""
    lost = [merge for merge in merges if merge in gone]
    named = ", ".join(f"{merges[merge]} ({merge[:12]})" for merge in lost[:_NAMED_MAX])
    more = f" and {len(lost) - _NAMED_MAX} more" if len(lost) > _NAMED_MAX else ""
    seen = git.commit_at(SEEN)
    back = SEEN if seen is not None and not missing(git, seen, lost) else lost[-1]
    return (
        f"branch {branch} was moved by somebody and no longer contains what has landed: {named}{more}. Nothing lands, "
        f"and nothing starts from it, until it does. Keep what is there now (git branch NAME {branch}), then run: "
        f"git branch --force {branch} {back}; to undo a landed change, revert its merge there"
    )
