"""How does an approved commit get onto the integration branch, once, whatever dies in between?

The merge is computed in objects, checked out in a workspace of its own for the gates, and put on the branch by one
compare-and-swap. Until that nothing has happened; after it a repeat finds the merge by its second parent and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from coordination.errors import Conflict, GitFailed, Refused
from coordination.model.runs import ConflictReport, GateResult, LandingRequest, Value, WorkspaceRequest
from coordination.workspaces.commits import with_trailers
from coordination.workspaces.git import Git
from coordination.workspaces.merging import Merge, conflicts
from coordination.workspaces.place import LANDING, Place
from coordination.workspaces.preservation import preserve
from coordination.workspaces.repository import resolve, shown
from coordination.workspaces.trees import check_out, ensure_linked

Gates = Callable[[Path, str], tuple[GateResult, ...]]
"""Given the directory and the merge commit checked out there, runs the gates on it."""

LOCK_SECONDS = 60.0  # another landing's gates may run for longer: then this one is refused and tried again
_TASK = "Coordination-Task"
_REVIEWED = "Coordination-Reviewed"


class LandingResult(Value):
    """What came of it. ``merge`` is on the integration branch only when ``kind`` is merged."""

    kind: Literal["merged", "conflict", "gate_failed", "moved"]
    integration: str  # the branch's commit before; after, when merged
    merge: str = ""
    conflict: ConflictReport | None = None
    gates: tuple[GateResult, ...] = ()


def land(place: Place, request: LandingRequest, *, task: str, gates: Gates) -> LandingResult:
    """Merge the commit, run the gates on the merge, move the branch. May be repeated."""
    with place.locked("landing", LOCK_SECONDS):
        old = _integration(place, request.branch)
        commit = resolve(place.git, request.commit)
        done = landed(place.git, commit, old)
        if done is not None:
            return LandingResult(kind="merged", integration=old, merge=done)
        tree, fresh = ensure_linked(place, WorkspaceRequest(name=LANDING, commit=old))
        if not fresh:
            # a merge that did not get further than here is on no branch, and nobody's work
            preserve(place, tree, task, ignored=False, commits=False)
            check_out(tree, old)
        made = _merged(tree, request, task=task, old=old, commit=commit)
        if isinstance(made, LandingResult):
            return made
        check_out(tree, made)
        results = gates(tree.tree, made)
        if not all(result.passed for result in results):
            return LandingResult(kind="gate_failed", integration=old, merge=made, gates=results)
        return _moved(place, request.branch, task=task, old=old, new=made, results=results)


def landed(git: Git, commit: str, integration: str) -> str | None:
    """The merge on the integration branch that took this commit in."""
    if not git.is_ancestor(commit, integration):
        return None
    merges = git.text("rev-list", "--first-parent", "--merges", "--parents", f"{commit}..{integration}")
    rows = [line.split() for line in merges.splitlines()]
    return next((row[0] for row in rows if row[2:] == [commit]), None)


def _merged(tree: Git, request: LandingRequest, *, task: str, old: str, commit: str) -> str | LandingResult:
    """A merge commit that is on no branch yet, or the conflict."""
    start = old
    target = _target(tree, request.target)
    # a target that the commit already contains comes in with it, together with how its conflicts were settled
    if target and not tree.is_ancestor(target, old) and not tree.is_ancestor(target, commit):
        taken = conflicts(tree, old, target)
        if taken.files:
            detail = f"{request.target} and {request.branch} changed the same lines. {taken.detail}"
            report = ConflictReport(files=shown(taken.files), others=("target",), integration=target, detail=detail)
            return LandingResult(kind="conflict", integration=old, conflict=report)
        start = tree.make_commit(taken.tree, [old, target], f"Take in {request.target}\n")
    merge = conflicts(tree, start, commit)
    if merge.files:
        report = _report(tree, merge, old=old, commit=commit)
        return LandingResult(kind="conflict", integration=old, conflict=report)
    trailers = {_TASK: task, _REVIEWED: commit} | request.trailers
    message = with_trailers(request.message or f"Land {task}", trailers)
    return tree.make_commit(merge.tree, [start, commit], message)


def _report(git: Git, merge: Merge, *, old: str, commit: str) -> ConflictReport:
    """Who is on the other side: the tasks whose landings touched these files since the branches parted."""
    base = git.run("merge-base", old, commit, accept=(0, 1)).text
    since = f"{base}..{old}" if base else old
    wanted = f"--format=%(trailers:key={_TASK},valueonly)"
    names = git.text("log", "--first-parent", "--merges", wanted, since, "--", *merge.files).split()
    return ConflictReport(
        files=shown(merge.files), others=tuple(dict.fromkeys(names)), integration=old, detail=merge.detail
    )


def _moved(
    place: Place, branch: str, *, task: str, old: str, new: str, results: tuple[GateResult, ...]
) -> LandingResult:
    _refuse_checked_out(place, branch)  # again: the gates may have taken long
    try:
        place.git.set_ref(f"refs/heads/{branch}", new, old, reason=f"landed {task}")
    except Conflict:
        return LandingResult(kind="moved", integration=old, merge=new, gates=results)
    return LandingResult(kind="merged", integration=new, merge=new, gates=results)


def _integration(place: Place, branch: str) -> str:
    found = place.git.commit_at(f"refs/heads/{branch}")
    if found is None:
        raise Refused(
            f"branch {branch} is gone, expected it to hold what has landed. Find its last commit with "
            f"'git log --all --grep {_REVIEWED}' and run: git branch {branch} <commit>"
        )
    _refuse_checked_out(place, branch)
    return found


def _refuse_checked_out(place: Place, branch: str) -> None:
    where = _checked_out(place, branch)
    if where:
        raise Refused(
            f"{branch} is checked out in {where}: nothing can land there. Run: git -C {where} switch --detach"
        )


def _checked_out(place: Place, branch: str) -> str:
    """Where a branch is checked out; "" when it is nowhere."""
    asked = ("for-each-ref", "--format=%(worktreepath)", f"refs/heads/{branch}")
    try:
        return place.git.text(*asked)
    except GitFailed:
        # it fails over a worktree that is being made just now, or whose making was killed: then it is neither
        with place.locked("workspaces"):
            place.forget_half_made()
            return place.git.text(*asked)


def _target(git: Git, name: str) -> str:
    if not name:
        return ""
    found = git.commit_at(f"refs/heads/{name}") or git.commit_at(name)
    if found is None:
        raise Refused(
            f"the target branch {name} is gone: make it again, or name another one in coordination.toml [git]"
        )
    return found
