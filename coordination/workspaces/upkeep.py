"""What else may be asked of a repository than what a run needs: what goes, what comes back, what reaches the user?

A module of its own because a worker starts for every run, and needs none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from coordination.workspaces import Workspaces, checkout, objects, restoring, sweeping
from coordination.workspaces.checkout import Bringing
from coordination.workspaces.containment import Containment
from coordination.workspaces.restoring import Kept
from coordination.workspaces.sweeping import Ref
from coordination.workspaces.user import UserGit

__all__ = ["Bringing", "Kept", "Ref", "Upkeep"]


class Upkeep(Workspaces):
    """Workspaces, and what people and a supervisor at rest ask beside."""

    def __init__(self, common: Path, state: Path, *, private: Collection[str] = ()) -> None:
        """As of Workspaces; trees that are kept for new ones are left alone."""
        super().__init__(common, state, private=private)
        self._containment = Containment(self._git)

    # --- what was kept, and comes back

    def kept(self, task: str) -> tuple[Kept, ...]:
        """What these refs hold, and since when."""
        return restoring.kept(self._git, task)

    def restore(self, commit: str, root: Path, *, directory: Path | None, branch: str) -> None:
        """Bring back what is kept: as plain files, as a branch, or with both as a worktree. Raises Refused."""
        if directory is None:
            restoring.to_branch(self._git, commit, branch)
        elif branch:
            restoring.to_worktree(self._place, root, commit, directory, branch)
        else:
            restoring.to_directory(self._place, commit, directory)

    # --- what may go

    def task_branches(self) -> tuple[Ref, ...]:
        """The branches that tasks work on."""
        return sweeping.task_branches(self._git)

    def preserved_refs(self) -> tuple[Ref, ...]:
        """What was kept of all workspaces."""
        return sweeping.preserved_refs(self._git)

    def landed_content(self, commit: str, branches: Sequence[str]) -> str:
        """How one of the branches (commits) has what this commit and those before it brought; "" when none has."""
        return sweeping.landed_content(self._containment, self._git, commit, branches)

    def drop_branch(self, ref: Ref, content: str, *, needed: Callable[[], str]) -> str | None:
        """Remove a task's branch, keeping first what is nowhere else. Raises Refused while it is needed, Conflict."""
        return sweeping.drop_branch(self._place, ref, content, needed=needed)

    def drop_preserved(self, ref: Ref, *, needed: Callable[[], str]) -> None:
        """Let go of what was kept under a ref. Raises Refused while it is needed, Conflict."""
        sweeping.drop_preserved(self._place, ref, needed=needed)

    def sweeping(self) -> AbstractContextManager[None]:
        """Be the only one who lets go of things. Raises LockHeld at once."""
        return self._place.locked("sweeping", 0.0)

    # --- the user's checkout

    def survey_checkout(self, root: Path, *, target: str, integration: str) -> Bringing:
        """What bringing the integration branch to the user's would do now; changes nothing."""
        return checkout.survey(self._place, root, target=target, integration=integration)

    def bring(self, root: Path, *, target: str, integration: str) -> Bringing:
        """Fast-forward the user's branch, in the checkout too if it is there. Only when a person asks."""
        return checkout.bring(self._place, root, target=target, integration=integration)

    def push(self, root: Path, remote: str, branch: str) -> None:
        """Push a branch as the user would. Only when a person asks. Raises GitFailed."""
        UserGit(self._place.common, root).push(remote, f"refs/heads/{branch}:refs/heads/{branch}")

    def remote_of(self, root: Path, branch: str) -> str:
        """The remote that a branch of the user's is kept at; "" when there is none."""
        return UserGit(self._place.common, root).remote_of(branch)

    # --- reading

    def first_parents(self, old: str, new: str) -> tuple[tuple[str, str], ...]:
        """What one branch gained, oldest first: commits along the first parents, with their subjects."""
        return objects.first_parents(self._git, old, new)

    def contained(self, commit: str, branch: str) -> str:
        """How a branch (a commit) has what a commit brought: merged, same, squashed, rebased; "" when it has not."""
        return self._containment.asked(commit, branch)
