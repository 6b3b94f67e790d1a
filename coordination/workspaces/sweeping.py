"""Which refs of ours are there, has everything in them landed, and how does one go without losing anything?

A ref goes only at the commit that was judged, and under the lock under which workspaces are made: ``needed`` is asked
there, so that a run which begins just now finds either the ref, or nothing and makes it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from coordination.errors import Refused
from coordination.workspaces.checkout import checked_out
from coordination.workspaces.containment import Contained, Containment
from coordination.workspaces.git import Git
from coordination.workspaces.place import Place
from coordination.workspaces.preservation import NUMBERED, keep_commit

COMMITS_MAX = 50  # of a ref, on no branch, that are looked at one by one
_TASKS, _PRESERVED = "refs/heads/coordination/task/", "refs/coordination/preserved/"


class Ref(msgspec.Struct, frozen=True, kw_only=True):
    """One of our refs that belong to a task."""

    name: str  # in full
    task: str
    commit: str
    at: float  # when its commit was made


def task_branches(git: Git) -> tuple[Ref, ...]:
    """The branches that tasks work on."""
    return tuple(Ref(name=name, task=name.removeprefix(_TASKS), commit=c, at=at) for name, c, at in _refs(git, _TASKS))


def preserved_refs(git: Git) -> tuple[Ref, ...]:
    """What was kept of all workspaces."""
    named = _refs(git, _PRESERVED)
    return tuple(Ref(name=n, task=n.split("/")[3], commit=c, at=at) for n, c, at in named if NUMBERED.fullmatch(n))


def landed_content(containment: Containment, git: Git, commit: str, branches: Sequence[str]) -> Contained:
    """How one of the branches (commits) has what this commit and all before it brought; "" when any of it is missing.

    Not only the last one counts: what was written and taken back again is in the commits between.
    """
    commits = git.text("rev-list", f"--max-count={COMMITS_MAX + 1}", commit, "--not", *branches).split()
    if len(commits) > COMMITS_MAX:
        return ""
    last: Contained = "merged"
    for each in reversed(commits):  # the one asked for comes last
        last = next((how for branch in branches if (how := containment.asked(each, branch))), "")
        if not last:
            break
    return last


def drop_branch(place: Place, ref: Ref, content: str, *, needed: Callable[[], str]) -> str | None:
    """Remove a task's branch; where its own commits are nowhere else, keep them under a ref first, and name that.

    Raises Refused when it is needed after all, or checked out; Conflict when it has moved.
    """
    with place.locked("workspaces"):
        _refuse(ref, needed() or _worktree(place, ref))
        kept = None if content == "merged" else keep_commit(place.git, ref.task, ref.commit)
        place.git.drop_ref(ref.name, ref.commit)
        return kept


def drop_preserved(place: Place, ref: Ref, *, needed: Callable[[], str]) -> None:
    """Remove a ref that keeps what was in a workspace. Raises Refused, Conflict."""
    with place.locked("workspaces"):
        _refuse(ref, needed())
        place.git.drop_ref(ref.name, ref.commit)


def _worktree(place: Place, ref: Ref) -> str:
    where = checked_out(place, ref.name)
    return f"it is checked out in {where}" if where else ""


def _refuse(ref: Ref, why: str) -> None:
    if why:
        raise Refused(f"{ref.name} stays: {why}")


def _refs(git: Git, prefix: str) -> list[tuple[str, str, float]]:
    """Those that lead to a commit: any other somebody else put there."""
    asked = ("--format=%(objecttype) %(refname) %(objectname) %(committerdate:unix)", prefix)
    rows = (line.split(" ") for line in git.text("for-each-ref", *asked).split("\n") if line)
    return [(name, commit, float(at)) for kind, name, commit, at in rows if kind == "commit"]
