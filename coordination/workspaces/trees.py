"""How does a workspace come to be what a run needs, whatever a killed run left there, and how does it go?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from coordination.errors import GitFailed, Refused
from coordination.files import make_directory
from coordination.model.runs import WorkspaceRequest
from coordination.workspaces import pool
from coordination.workspaces.git import Git, clear_locks, folds_case
from coordination.workspaces.merging import conflicts, merge_head, start_merge
from coordination.workspaces.place import LENT, Place, forget, half_made, lent
from coordination.workspaces.preservation import preserve
from coordination.workspaces.repository import resolve, shown

_SET_UP = "coordination-set-up"
_SPECIAL, _ESCAPED = r"([\\*?\[\] !#])", r"\\\1"  # in a pattern of names to ignore
_REASON = "kept by coordination"  # locked: the user's own ``git worktree prune`` leaves it alone
_FILLING = "being made by coordination"  # until its files are all there


def ensure(place: Place, request: WorkspaceRequest, *, task: str, fresh: bool) -> Path:
    """The workspace as asked for. What a killed run left is kept under a ref, and stays unless ``fresh``."""
    git, made = ensure_linked(place, request)
    if not made:  # else it is exactly what was asked for, and holds nothing of anybody's
        _put_in_order(place, git, request, task, fresh=fresh)
    if request.bring_in:
        bring_in(place, git, request.bring_in, task)
    return git.tree


def _put_in_order(place: Place, git: Git, request: WorkspaceRequest, task: str, *, fresh: bool) -> None:
    if request.branch:
        _restore_branch(git, request)
        _settle_on_branch(place, git, request.branch, task, fresh=fresh)
    else:
        # ignored files are what gates and builds made: they go, so that nothing old can make a gate pass
        preserve(place, git, task, ignored=False)
        check_out(git, resolve(git, request.commit))


def ensure_linked(place: Place, request: WorkspaceRequest) -> tuple[Git, bool]:
    """A worktree that git knows and that has its files, and whether it was made just now.

    On which commit is said only of one that was made.
    """
    path, git = place.path(request.name), place.git
    with place.locked("workspaces"):
        directory, made = _recorded(place, git, request, path)
        git = git.at(directory, path, lent(directory, place.private))
        if made:
            pool.take(place, git)
    _link(place, path, directory)
    clear_locks(directory)
    _fill(git)
    return git, made


def check_out(git: Git, commit: str) -> None:
    """Exactly this commit and nothing else in the tree, HEAD detached. The caller has kept what was there."""
    if git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).code == 0:
        # detached first: a reset through a branch name would move that branch
        git.run("update-ref", "--no-deref", "HEAD", resolve(git, "HEAD"))
    _reset(git, commit)
    (git.directory / _SET_UP).unlink(missing_ok=True)  # what set-up made goes, too
    git.run("clean", "-ffdx", "--quiet")
    (git.directory / LENT).unlink(missing_ok=True)  # and nothing that was lent is left


def make_exact(git: Git, commit: str) -> None:
    """Exactly this commit, whatever a gate did to the tree. Only where nobody works: nothing of it is kept."""
    if any(not entry.startswith("H ") for entry in git.run("ls-files", "-v", "-z").names):
        (git.directory / "index").unlink()  # files that git was told not to look at are looked at again
    try:
        check_out(git, commit)
    except GitFailed:
        _open_up(git.tree)  # what may not be written cannot be removed
        check_out(git, commit)


def is_set_up(git: Git) -> bool:
    """Whether set-up was done in this workspace, and what it made was not cleaned away since."""
    return (git.directory / _SET_UP).exists()


def note_set_up(git: Git) -> None:
    """Remember that it was, for as long as the workspace lasts: among git's own files, where no sandbox may write."""
    (git.directory / _SET_UP).touch()


def bring_in(place: Place, git: Git, commit: str, task: str) -> tuple[str, ...]:
    """Merge a commit in without committing, for the run to settle. Returns the files in conflict. May be repeated."""
    head = resolve(git, "HEAD")
    if git.is_ancestor(commit, head):
        return ()
    if merge_head(git) != commit:
        preserve(place, git, task)
        _reset(git)
        _clean(git)
        start_merge(git, commit)
    return shown(conflicts(git, head, commit).files)


def remove(place: Place, name: str, task: str, needed: Callable[[], str] = str) -> str | None:
    """Keep what is in the workspace, then remove it. Returns the ref that keeps it, None when there was nothing.

    ``needed`` is asked under the lock that every run makes its workspace under: why it must stay, or "".
    """
    path = place.path(name)
    kept = None
    with place.locked("workspaces"):
        why = needed()
        if why:
            raise Refused(f"workspace {name} stays: {why}")
        directory = place.record(path)
        if path.is_dir() and not path.is_symlink():
            if directory is None or half_made(directory):
                _vacate(place, path)
            else:
                git = place.opened(path)
                # what git ignores in the tree of a gate or a review was built there, and is nobody's work
                kept = preserve(place, git, task, ignored=name == task)
                pool.give(place, git)
        place.discard(path)
        if directory is not None:
            forget(directory)
        place.sweep(name)
    return kept


def _recorded(place: Place, git: Git, request: WorkspaceRequest, path: Path) -> tuple[Path, bool]:
    """Git's directory for the workspace, and whether it was made: when missing, half-made, or when its tree is gone."""
    directory = place.record(path)
    if directory is not None and not half_made(directory) and path.is_dir() and not path.is_symlink():
        return directory, False
    _vacate(place, path)
    if directory is not None:
        forget(directory)
    place.forget_half_made()
    place.sweep(request.name)
    make_directory(place.workspaces)
    start = [_branch(git, request)] if request.branch else ["--detach", f"{request.commit}^{{commit}}"]
    try:
        git.run("worktree", "add", "--no-checkout", "--lock", "--reason", _FILLING, str(path), *start)
    except GitFailed as error:
        if not request.branch:
            resolve(git, request.commit)
        raise Refused(f"git cannot make the workspace {path}: {error.stderr}") from error
    made = place.record(path)
    if made is None:
        raise Refused(f"git made the workspace {path} but does not name it: is {place.state} another path now?")
    return made, True


def _fill(git: Git) -> None:
    """Check out the files of a workspace that is new, or was killed before they were all there."""
    locked, filled = git.directory / "locked", (git.directory / "index").exists()
    if not locked.exists() or locked.read_text().strip() != _FILLING:
        if not filled:
            _complete(git)
        return
    if not filled:
        if folds_case(git.common):
            _refuse_clashes(git)
        # git copies what the user set for the own worktree alone, for one: which part of it is checked out
        (git.directory / "config.worktree").unlink(missing_ok=True)
        git.run("read-tree", "--reset", "-u", "HEAD")
    locked.write_text(_REASON)


def _complete(git: Git) -> None:
    """Somebody removed the index: what is missing is written, what is there stays as it is, for the caller to keep."""
    git.run("read-tree", "HEAD")
    missing = git.run("ls-files", "--deleted", "-z").out
    if missing:
        git.run("checkout-index", "-z", "--stdin", stdin=missing)


def _refuse_clashes(git: Git) -> None:
    """One of two such files would be checked out, and the other one seem to be changed."""
    seen: dict[str, str] = {}
    for path in git.run("ls-tree", "-r", "-z", "--name-only", "HEAD").names:
        other = seen.setdefault(path.casefold(), path)
        if other != path:
            raise Refused(
                f"{', '.join(shown((other, path)))} differ in case only, and the filesystem of {git.tree} takes them "
                "for one. Rename one of them, or work where case matters (on macOS: a case-sensitive volume)"
            )


def _branch(git: Git, request: WorkspaceRequest) -> str:
    """The branch, made at the base when it is missing; without ``worktree add -b``, which writes to the config."""
    name = f"refs/heads/{request.branch}"
    if git.commit_at(name) is None:
        try:
            git.set_ref(name, f"{request.base}^{{commit}}", "", reason="task started")
        except GitFailed:
            resolve(git, request.base)
            raise
    return request.branch


def _vacate(place: Place, path: Path) -> None:
    """Make room for a worktree. Files that git does not know as one are moved away, never removed."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.unlink()
    elif path.is_dir() and any(entry.name != ".git" for entry in path.iterdir()):
        place.set_aside(path)
    else:
        place.discard(path)


def _link(place: Place, path: Path, directory: Path) -> None:
    """The workspace's ``.git`` names our directory, whatever was put there since."""
    link = path / ".git"
    wanted = f"gitdir: {directory}\n".encode()
    if link.is_symlink():
        link.unlink()
    elif link.is_dir():
        place.set_aside(link)  # a repository somebody made here: its history may be all there is of it
    if not link.exists() or link.read_bytes() != wanted:
        link.unlink(missing_ok=True)
        link.write_bytes(wanted)


def _restore_branch(git: Git, request: WorkspaceRequest) -> None:
    """Somebody removed the branch under its workspace: it begins again where the task was, and the files stay."""
    name = f"refs/heads/{request.branch}"
    if git.commit_at(name) is None:
        known = git.commit_at(request.commit) if request.commit else None
        git.set_ref(name, known or resolve(git, request.base), "", reason="task's branch made again")


def _settle_on_branch(place: Place, git: Git, branch: str, task: str, *, fresh: bool) -> None:
    preserve(place, git, task)
    name = f"refs/heads/{branch}"
    found = git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).text
    if found != name:
        git.run("symbolic-ref", "-m", "coordination: back to the task's branch", "HEAD", name)
    if found != name or fresh:
        _reset(git)
        _clean(git)


def _clean(git: Git) -> None:
    """Remove what is neither tracked nor ignored, but for what set-up made: it is made once."""
    kept = [f"--exclude=/{re.sub(_SPECIAL, _ESCAPED, name)}" for name in git.private]
    git.run("clean", "-ffd", "--quiet", *kept)


def _open_up(tree: Path) -> None:
    for where, directories, _ in os.walk(tree):
        for name in directories:
            path = Path(where, name)
            if not path.is_symlink():
                path.chmod(0o700)


def _reset(git: Git, commit: str = "HEAD") -> None:
    git.run("reset", "--hard", "--quiet", commit)  # also ends a merge that was under way
