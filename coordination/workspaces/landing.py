"""How do approved commits get onto the integration branch, each once, whatever dies in between?

Merges are computed in objects, one on top of the other, checked out in a workspace of their own for the gates, and put
on the branch by one compare-and-swap to a merge that passed. Until that nothing has happened; after it a repeat finds
each merge by its second parent and says so. Which of several are merged and tested together is said in ``bisecting``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from coordination.errors import Conflict, GitFailed, Refused
from coordination.model.runs import (
    ConflictReport,
    GateResult,
    LandingRequest,
    MemberRequest,
    Value,
    WorkspaceRequest,
)
from coordination.workspaces.bisecting import Chain, Fate, settle
from coordination.workspaces.commits import with_trailers
from coordination.workspaces.git import Git
from coordination.workspaces.merging import Merge, conflicts
from coordination.workspaces.place import LANDING, Place
from coordination.workspaces.preservation import preserve
from coordination.workspaces.refusals import BranchAstray
from coordination.workspaces.repository import resolve, shown
from coordination.workspaces.trees import check_out, ensure_linked

Gates = Callable[[Path, str, Sequence[str] | None], tuple[GateResult, ...]]
"""Given the directory, the merge commit checked out there and names of gates (None: all), runs those gates on it."""

LOCK_SECONDS = 60.0  # another landing's gates may run for longer: then this one is refused and tried again
_TASK = "Coordination-Task"
_REVIEWED = "Coordination-Reviewed"


class LandingResult(Value):
    """What came of one commit. ``merge`` is on the integration branch only when ``kind`` is merged."""

    kind: Literal["merged", "conflict", "gate_failed", "moved", "left"]
    integration: str  # the branch's commit before; after, when merged
    merge: str = ""
    conflict: ConflictReport | None = None
    gates: tuple[GateResult, ...] = ()
    on_top_of: tuple[str, ...] = ()  # tasks of the same batch that were merged before it


def land(
    place: Place, request: LandingRequest, *, task: str, gates: Gates, stopping: Callable[[], bool]
) -> dict[str, LandingResult]:
    """Merge the commits, run the gates on merges, move the branch: what came of each, by task. May be repeated."""
    own = MemberRequest(
        task=task, commit=request.commit, message=request.message, trailers=request.trailers, gates=request.gates
    )
    with place.locked("landing", LOCK_SECONDS):
        old = _integration(place, request)
        # another one's commit that is gone is another one's trouble
        commits = {task: resolve(place.git, request.commit)}
        commits |= {member.task: commit for member in request.batch if (commit := place.git.commit_at(member.commit))}
        merges = {name: landed(place.git, commit, old) for name, commit in commits.items()}
        results = {
            name: LandingResult(kind="merged", integration=old, merge=merge) for name, merge in merges.items() if merge
        }
        if len(results) == len(commits):
            return results
        tree, fresh = ensure_linked(place, WorkspaceRequest(name=LANDING, commit=old))
        if not fresh:
            # a merge that did not get further than here is on no branch, and nobody's work
            preserve(place, tree, task, ignored=False, commits=False)
            check_out(tree, old)
        members = {member.task: member for member in (own, *request.batch)}
        steps = _Steps(place, tree, request, members, commits, old=old, gates=gates, stopping=stopping)
        fates = settle([name for name in commits if name not in results], steps)
        return results | {name: steps.result(name, fate) for name, fate in fates.items()}


def landed(git: Git, commit: str, integration: str) -> str | None:
    """The merge on the integration branch that took this commit in."""
    if not git.is_ancestor(commit, integration):
        return None
    merges = git.text("rev-list", "--first-parent", "--merges", "--parents", f"{commit}..{integration}")
    rows = [line.split() for line in merges.splitlines()]
    return next((row[0] for row in rows if row[2:] == [commit]), None)


class _Steps:
    """One landing: merges, tests and moves as ``settle`` asks for, and keeps what is to be said of each task."""

    def __init__(
        self,
        place: Place,
        tree: Git,
        request: LandingRequest,
        members: dict[str, MemberRequest],
        commits: dict[str, str],
        *,
        old: str,
        gates: Gates,
        stopping: Callable[[], bool],
    ) -> None:
        self._place, self._tree, self._request = place, tree, request
        self._members, self._commits = members, commits
        self._old, self._gates, self.stopping = old, gates, stopping
        self._target = ""  # of the present chain: what the branch lacked of it
        self._tops: list[str] = []  # of the present chain: what it stands on, then its merges
        self._tested: dict[str, tuple[GateResult, ...]] = {}  # by commit
        self._results: dict[str, LandingResult] = {}

    def result(self, task: str, fate: Fate) -> LandingResult:
        """What came of a task that met this fate."""
        known = self._results.get(task)
        if known is None or known.kind != str(fate):
            return LandingResult(kind="left", integration=self._old)
        return known

    def chain(self, tasks: Sequence[str]) -> Chain:
        """Merge commits that are on no branch yet; what conflicts with the branch is known for good."""
        self._tops, self._target = [self._old], ""
        if not self._target_taken_in(tasks[0]):
            return Chain(tasks=(), conflicting=tasks[:1])
        chained: list[str] = []
        conflicting, postponed = [], []
        for task in tasks:
            commit = self._commits[task]
            merge = conflicts(self._tree, self._tops[-1], commit)
            if not merge.files:
                chained.append(task)
                self._tops.append(self._tree.make_commit(merge.tree, [self._tops[-1], commit], self._message(task)))
                continue
            with_branch = conflicts(self._tree, self._tops[0], commit) if chained else merge
            if with_branch.files:
                conflicting.append(task)
                self._conflict(task, self._report(with_branch, commit))
            else:
                postponed.append(task)
        return Chain(tasks=chained, conflicting=conflicting, postponed=postponed)

    def passes(self, chain: Chain, count: int) -> bool:
        """Run the gates of all who are merged there; of what they stand on, those of the first."""
        commit, tasks = self._tops[count], chain.tasks[: max(count, 1)]
        names = _all_named(self._members[task] for task in tasks)
        known = {result.gate for result in self._tested.get(commit, ()) if result.passed}
        if count == 0 and names and known.issuperset(names):
            return True  # it was tested when it landed
        check_out(self._tree, commit)
        results = self._tested[commit] = self._gates(self._tree.tree, commit, names)
        passed = all(result.passed for result in results)
        if count and not passed:
            self._failed(chain, count, results)
        return passed

    def moves(self, chain: Chain, count: int) -> bool:
        """Put the branch on a merge that passed, by compare-and-swap."""
        new, tasks = self._tops[count], chain.tasks[:count]
        moved = _moved(self._place, self._request.branch, tasks=tasks, old=self._old, new=new)
        for task, merge in zip(tasks, self._tops[1:], strict=False):
            names = self._members[task].gates
            own = [result for result in self._tested[new] if names is None or result.gate in names]
            self._results[task] = LandingResult(
                kind="merged" if moved else "moved",
                integration=new if moved else self._old,
                merge=merge,
                gates=tuple(own),
            )
        self._old = new if moved else self._old
        return moved

    def _target_taken_in(self, first: str) -> bool:
        """Begin the chain with what the target gained; False when that is a conflict, for the first to settle."""
        target = _target(self._tree, self._request.target)
        # a target that the commit already contains comes in with it, together with how its conflicts were settled
        lacking = target and not self._tree.is_ancestor(target, self._old)
        if not lacking or self._tree.is_ancestor(target, self._commits[first]):
            return True
        taken = conflicts(self._tree, self._old, target)
        if taken.files:
            names = f"{self._request.target} and {self._request.branch}"
            self._conflict(first, _with_target(taken, target, f"{names} changed the same lines. {taken.detail}"))
            return False
        self._target = target
        message = f"Take in {self._request.target}\n"
        self._tops = [self._tree.make_commit(taken.tree, [self._old, target], message)]
        return True

    def _message(self, task: str) -> str:
        member = self._members[task]
        trailers = {_TASK: task, _REVIEWED: self._commits[task]} | member.trailers
        return with_trailers(member.message or f"Land {task}", trailers)

    def _report(self, merge: Merge, commit: str) -> ConflictReport:
        """Who is on the other side: the target's new commits, or tasks that have landed."""
        if self._target and not conflicts(self._tree, self._old, commit).files:
            return _with_target(merge, self._target, merge.detail)
        return _report(self._tree, merge, old=self._old, commit=commit)

    def _conflict(self, task: str, report: ConflictReport) -> None:
        self._results[task] = LandingResult(kind="conflict", integration=self._old, conflict=report)

    def _failed(self, chain: Chain, count: int, results: tuple[GateResult, ...]) -> None:
        # nobody but the first meets what the target gained: when another one fails, it has landed with those before
        side = _with_target(Merge(tree=""), self._target, "") if self._target and count == 1 else None
        task, before = chain.tasks[count - 1], chain.tasks[: count - 1]
        self._results[task] = LandingResult(
            kind="gate_failed",
            integration=self._old,
            merge=self._tops[count],
            conflict=side,
            gates=results,
            on_top_of=tuple(before),
        )


def _all_named(members: Iterable[MemberRequest]) -> tuple[str, ...] | None:
    names: dict[str, None] = {}
    for member in members:
        if member.gates is None:
            return None
        names |= dict.fromkeys(member.gates)
    return tuple(names)


def _with_target(merge: Merge, target: str, detail: str) -> ConflictReport:
    return ConflictReport(files=shown(merge.files), others=("target",), integration=target, detail=detail)


def _report(git: Git, merge: Merge, *, old: str, commit: str) -> ConflictReport:
    """Who is on the other side: the tasks whose landings touched these files since the branches parted."""
    base = git.run("merge-base", old, commit, accept=(0, 1)).text
    since = f"{base}..{old}" if base else old
    wanted = f"--format=%(trailers:key={_TASK},valueonly)"
    names = git.text("log", "--first-parent", "--merges", wanted, since, "--", *merge.files).split()
    return ConflictReport(
        files=shown(merge.files), others=tuple(dict.fromkeys(names)), integration=old, detail=merge.detail
    )


def _moved(place: Place, branch: str, *, tasks: Sequence[str], old: str, new: str) -> bool:
    _refuse_elsewhere(place, branch)  # again: the gates may have taken long
    try:
        place.git.set_ref(f"refs/heads/{branch}", new, old, reason=f"landed {', '.join(tasks)}")
    except Conflict:
        return False
    return True


def _integration(place: Place, request: LandingRequest) -> str:
    branch = request.branch
    found = place.git.commit_at(f"refs/heads/{branch}")
    if found is None:
        raise BranchAstray(
            f"branch {branch} is gone, expected it to hold what has landed. Find its last commit with "
            f"'git log --all --grep {_REVIEWED}' and run: git branch {branch} <commit>"
        )
    _refuse_elsewhere(place, branch)
    if request.onto and found != request.onto and not place.git.is_ancestor(request.onto, found):
        raise BranchAstray(f"branch {branch} is at {found}, which does not contain {request.onto}, where it was before")
    return found


def elsewhere(place: Place, branch: str) -> str:
    """Why the branch cannot be moved without touching what is the user's, and what to run; "" when it can."""
    symbolic, _, where = _standing(place, branch).partition("\0")
    if symbolic:
        return (
            f"{branch} is only another name for {symbolic}, which is not ours to move. "
            f"Run: git symbolic-ref --delete refs/heads/{branch}"
        )
    if where:
        return f"{branch} is checked out in {where}: nothing can land there. Run: git -C {where} switch --detach"
    return ""


def _refuse_elsewhere(place: Place, branch: str) -> None:
    why = elsewhere(place, branch)
    if why:
        raise BranchAstray(why)


def _standing(place: Place, branch: str) -> str:
    """What the branch is another name for, NUL, and where it is checked out."""
    asked = ("for-each-ref", "--format=%(symref)%00%(worktreepath)", f"refs/heads/{branch}")
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
