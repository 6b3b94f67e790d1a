"""Where does a run work, and how does its work land? Git worktrees, and the only caller of git.

Every verb may be repeated after a kill at any point: it looks at what is there and does what is missing. The user's
checkout, index, branches, configuration and hooks are never touched, but for one line in ``info/exclude`` and by what
only a person asks for, which is a module of its own (``upkeep``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from coordination.model.runs import DiffStat, GateResult, LandingRequest, Pooling, WorkspaceRequest
from coordination.workspaces import audit as auditing
from coordination.workspaces import (
    commits,
    landing,
    objects,
    phantoms,
    place,
    preservation,
    repository,
    traces,
    trees,
)
from coordination.workspaces import standing as standings
from coordination.workspaces.audit import Outside
from coordination.workspaces.landing import Gates, LandingResult
from coordination.workspaces.place import Place
from coordination.workspaces.refusals import BranchAstray, HeadMoved, NestedRepository, UnresolvedConflict
from coordination.workspaces.repository import Repository, discover, version
from coordination.workspaces.standing import Standing
from coordination.workspaces.traces import LogTrace

__all__ = [
    "BranchAstray",
    "Gates",
    "HeadMoved",
    "LandingResult",
    "LogTrace",
    "NestedRepository",
    "Outside",
    "Repository",
    "Standing",
    "UnresolvedConflict",
    "Workspaces",
    "discover",
    "version",
]


class Workspaces:
    """The workspaces of one repository. Commits are full hex; paths returned are printable text.

    ``pooling`` says how many trees of removed ones are kept for new ones; None leaves those that are kept alone.
    Beside what each verb names, all raise GitFailed for a git call that fails, and LockHeld when another process of
    ours keeps a lock too long.
    """

    def __init__(
        self, common: Path, state: Path, *, private: Collection[str] = (), pooling: Pooling | None = None
    ) -> None:
        """``private`` are the paths that set-up copies or makes in a workspace."""
        self._place = Place(common=common.resolve(), state=state.resolve(), private=tuple(private), pooling=pooling)
        self._git = self._place.git

    def exclude(self, pattern: str = ".coordination/") -> None:
        """Hide the state directory from ``git status``. The one line of the user's that is ever written."""
        repository.exclude(self._place.common, pattern)

    # --- names and branches

    def resolve(self, name: str) -> str:
        """The commit a name stands for. Raises NotFound."""
        return repository.resolve(self._git, name)

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether the one is contained in the other; a commit contains itself."""
        return self._git.is_ancestor(ancestor, descendant)

    def ensure_integration(self, branch: str, target: str, *, start: str = "") -> str:
        """Where the branch is; made when missing, never moved: at ``start``, or where the target is."""
        return repository.ensure_integration(self._git, branch, target, start=start)

    def standing(
        self, branch: str, target: str, merges: Mapping[str, str], *, good: str = "", sure: Collection[str] = ()
    ) -> Standing:
        """Whether the branch has all that landed, what to run if not, and where it can be made again. Writes nothing.

        ``merges`` are those known to have landed, each with its task, oldest first. ``good`` is known to have those
        that are ``sure``.
        """
        return standings.look(self._git, branch, target, merges, good=good, sure=sure)

    def remember(self, head: str) -> None:
        """Keep what was seen on the integration branch, whatever happens to the branch."""
        standings.remember(self._git, head)

    def elsewhere(self, branch: str) -> str:
        """Why the branch cannot be moved without touching what is the user's; "" when it can."""
        return landing.elsewhere(self._place, branch)

    def written_head(self, branch: str) -> str:
        """What the files say of a branch, quickly: to be believed only while it is what git once said."""
        return repository.written_head(self._place.common, branch)

    # --- workspaces

    def path(self, name: str) -> Path:
        """The directory of a workspace, whether it is there or not."""
        return self._place.path(name)

    def ensure(self, request: WorkspaceRequest, *, task: str = "", fresh: bool = False) -> Path:
        """The workspace as asked for.

        What a killed run left in it is kept under a ref of ``task`` (default: the request's name up to its first dot).
        On a branch it also stays in place unless ``fresh``; a detached workspace becomes exactly its commit.
        """
        return trees.ensure(self._place, request, task=task or request.name.partition(".")[0], fresh=fresh)

    def make_exact(self, path: Path, commit: str) -> None:
        """The workspace is exactly that commit again, whatever a gate did there; nothing of that is kept."""
        trees.make_exact(self._place.opened(path), commit)

    def is_pristine(self, path: Path) -> bool:
        """Whether there is nothing but the commit's files and what set-up is known to copy or make."""
        return preservation.is_pristine(self._place.opened(path))

    def is_set_up(self, path: Path) -> bool:
        """Whether set-up was done there, and what it made was not cleaned away since."""
        return trees.is_set_up(self._place.opened(path))

    def note_set_up(self, path: Path) -> None:
        """Remember that it was, for as long as the workspace lasts."""
        trees.note_set_up(self._place.opened(path))

    def note_lent(self, path: Path) -> None:
        """Remember what is lent to a workspace, before it is: settings may change while it lasts."""
        place.note_lent(self._place.opened(path).directory, self._place.private)

    def head(self, path: Path) -> str:
        """The commit that is checked out in a workspace."""
        return repository.resolve(self._place.opened(path), "HEAD")

    def tracked(self, path: Path, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the names that git tracks there, as a file or as a directory of some."""
        return commits.tracked(self._place.opened(path), names)

    def bring_in(self, path: Path, commit: str, task: str) -> tuple[str, ...]:
        """Merge a commit in without committing: markers stay in the files. Returns the files in conflict."""
        return trees.bring_in(self._place, self._place.opened(path), commit, task)

    def changes(self, path: Path) -> tuple[str, ...]:
        """The files that differ from the workspace's HEAD."""
        return commits.changes(self._place.opened(path))

    def commit(self, path: Path, message: str, trailers: Mapping[str, str], *, branch: str, base: str) -> str | None:
        """Commit all that is there but what git ignores; None when the branch is still at ``base``.

        Ends a merge that was brought in. Raises HeadMoved, NestedRepository or UnresolvedConflict.
        """
        return commits.commit(self._place.opened(path), message, trailers, branch=branch, base=base)

    def preserve(self, path: Path, task: str) -> str | None:
        """Keep everything in the workspace under a ref, changing nothing there; None when a branch of ours has it."""
        return preservation.preserve(self._place, self._place.opened(path), task)

    def preserved(self, task: str) -> tuple[str, ...]:
        """The refs that keep what was in a task's workspaces, oldest first."""
        return preservation.preserved(self._git, task)

    def remove(self, name: str, task: str, needed: Callable[[], str] = str) -> str | None:
        """Preserve, then remove, unless it is ``needed``. Returns the ref, None when there was nothing to keep."""
        return trees.remove(self._place, name, task, needed)

    def names(self) -> tuple[str, ...]:
        """The workspaces whose directories are there."""
        return self._place.names()

    def broken(self) -> tuple[str, ...]:
        """Workspaces that git made only in part, or of which only the directory or git's record of it is there."""
        return self._place.broken()

    def discard(self, path: Path) -> None:
        """Remove a directory of the state directory, whatever its modes and its depth; never in part in its place."""
        self._place.discard(path)

    # --- landing

    def land(
        self, request: LandingRequest, *, task: str, gates: Callable[[Path, str], tuple[GateResult, ...]]
    ) -> LandingResult:
        """Merge an approved commit onto the integration branch if the gates pass on the merge. Raises Refused."""
        one = replace(request, batch=())
        return self.land_batch(one, task=task, gates=lambda path, commit, _names: gates(path, commit))[task]

    def land_batch(
        self, request: LandingRequest, *, task: str, gates: Gates, stopping: Callable[[], bool] = lambda: False
    ) -> dict[str, LandingResult]:
        """The same for several at once, each with the gates that it names: what came of each, by task.

        The branch goes only to merges on which the gates of all who are merged there have passed. Once ``stopping``
        says so, no other gate is begun. Raises BranchAstray, a Refused, for a branch that must not be moved.
        """
        return landing.land(self._place, request, task=task, gates=gates, stopping=stopping)

    def proven(self, branch: str, claims: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Of merges that are said to have taken in a commit, each with it, those that have and are on the branch.

        Raises GitFailed when there is no such branch, or one of them is no commit.
        """
        return standings.proven(self._git, branch, claims)

    def landed(self, commit: str, branch: str) -> str | None:
        """The merge on the branch that took this commit in."""
        return landing.landed(self._git, commit, self.resolve(f"refs/heads/{branch}"))

    # --- reading

    def tree(self, commit: str) -> str:
        """What names the files of a commit: two commits with the same files have the same tree."""
        return repository.tree(self._git, commit)

    def diff_stat(self, base: str, commit: str) -> DiffStat:
        """How large a change is."""
        return objects.diff_stat(self._git, base, commit)

    def landing_change(self, base: str, commit: str, branches: Iterable[str]) -> tuple[DiffStat, tuple[str, ...]]:
        """How large the change from ``base`` is, and every file that landing it on those branches may change.

        A commit that took a branch in by itself may undo what others did there and still be like its base: what it
        does not carry as it was counts, too.
        """
        return objects.landing_change(self._git, base, commit, branches)

    def diff(self, base: str, commit: str, bytes_max: int, paths: Sequence[str] = ()) -> str:
        """A change (of these paths) as text, cut at ``bytes_max`` with a line that says so."""
        return objects.diff(self._git, base, commit, bytes_max, paths)

    def files_changed(self, base: str, commit: str) -> tuple[str, ...]:
        """The files that differ; a renamed one under both names."""
        return objects.files_changed(self._git, base, commit)

    def read_at(self, commit: str, path: str, bytes_max: int) -> bytes:
        """The beginning of a file in a commit. Raises NotFound, and Refused for what is not a plain file."""
        return objects.read_at(self._git, commit, path, bytes_max)

    def exists_at(self, commit: str, paths: Iterable[str]) -> set[str]:
        """Those of the paths that are in a commit."""
        return objects.exists_at(self._git, commit, paths)

    # --- what else is in the repository

    def snapshot_outside(self) -> Outside:
        """All that steers git and is not ours, for ``audit``."""
        return auditing.snapshot_outside(self._git)

    def audit(self, before: Outside) -> list[str]:
        """A sentence for everything outside that moved since."""
        return auditing.audit(self._git, before)

    def phantoms(self) -> list[str]:
        """Empty things that an agent's sandbox leaves in the git directory, or that were there before."""
        return phantoms.present(self._place.common)

    def clear_phantoms(self, keep: Collection[str]) -> None:
        """Remove those that are not in ``keep``. Only while no agent runs: a sandbox may have mounted over them."""
        phantoms.clear(self._place.common, keep)

    def keep_log_ref(self, uuid: str, seq: int) -> None:
        """Remember the log in the repository itself."""
        traces.keep_log_ref(self._git, uuid, seq)

    def read_log_ref(self) -> LogTrace | None:
        """What was remembered last."""
        return traces.read_log_ref(self._git)

    def traces(self) -> bool:
        """Whether refs or branches of ours exist."""
        return traces.traces(self._git)
