"""What is kept of a task's workspaces, and how does somebody get it back? Somewhere new, never over anything.

What ``preservation`` keeps is a commit: its tree is what the files were, its first parent where the workspace's HEAD
was. It comes back as a branch, as plain files, or as a worktree of the user's on a new branch.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coordination.errors import Conflict, GitFailed, Refused
from coordination.files import discard, make_directory, publish_json, read_json_if_there
from coordination.workspaces.git import Git
from coordination.workspaces.place import Place
from coordination.workspaces.preservation import preserved
from coordination.workspaces.repository import shown
from coordination.workspaces.user import UserGit

NAMES_MAX = 5
_LOCK_SECONDS = 30.0
_TITLE = "What was in workspace "
_LEFT_OUT = "Not kept, for size or because it may be secret:"


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One ref that keeps what was in a workspace."""

    ref: str
    number: int
    commit: str
    at: float  # when it was kept
    workspace: str  # "": the commits of a branch that was removed
    base: str  # where the workspace's HEAD was; "" when it had none
    files: int  # that differ from it
    bytes: int  # in these
    names: tuple[str, ...]  # the first of them
    commits: int  # on no branch
    left_out: tuple[str, ...] = ()  # what was too large, or may be secret


def kept(git: Git, task: str) -> tuple[Kept, ...]:
    """All that is kept of a task, oldest first."""
    return tuple(_kept(git, ref) for ref in preserved(git, task))


def to_branch(git: Git, commit: str, name: str) -> None:
    """As a new branch of the user's. Raises Refused when there is one of that name, or none can be made."""
    try:
        git.set_ref(f"refs/heads/{name}", commit, "", reason="restored")
    except Conflict as error:
        raise Refused(f"there is a branch {name} already: name another one") from error
    except GitFailed as error:
        raise Refused(f"git cannot make the branch {name}: {error.stderr}. Name another one") from error


def to_directory(place: Place, commit: str, directory: Path) -> None:
    """As plain files in a new directory: all of them or none. Raises Refused when something is there already."""
    _refuse_taken(place, directory)
    with place.locked("restoring", _LOCK_SECONDS), _staged(place) as stage:
        tree = stage / "files"
        tree.mkdir()
        git = Git(place.common, tree=tree).with_index(stage / "index")
        git.run("read-tree", commit)
        git.run("checkout-index", "--all", "--force")
        _moved(place, tree, directory)


def to_worktree(place: Place, root: Path, commit: str, directory: Path, branch: str) -> None:
    """As a worktree of the user's on a new branch. Raises Refused when one of them is there already."""
    _refuse_taken(place, directory)
    to_branch(place.git, commit, branch)
    try:
        with place.locked("workspaces"):
            UserGit(place.common, root).run("worktree", "add", str(directory), branch)
    except GitFailed as error:
        raise Refused(f"branch {branch} is made, but no worktree of it in {directory}: {error.stderr}") from error


def _kept(git: Git, ref: str) -> Kept:
    said = git.run("log", "-1", "--no-show-signature", "--format=%H%x00%ct%x00%P%x00%B", ref, "--").text
    commit, at, parents, message = said.split("\0")
    base = parents.partition(" ")[0]
    names, objects = _changed(git, base, commit)
    lines = message.strip().split("\n")
    workspace = lines[0].removeprefix(_TITLE) if lines[0].startswith(_TITLE) else ""
    last = base if workspace else commit  # what was made to keep a workspace is nobody's commit
    before = git.text("rev-list", "--count", last, "--not", "--branches") if last else "0"
    left_out = lines[lines.index(_LEFT_OUT) + 1 :] if _LEFT_OUT in lines else []
    return Kept(
        ref=ref,
        number=int(ref.rpartition("/")[2]),
        commit=commit,
        at=float(at),
        workspace=workspace,
        base=base,
        files=len(names),
        bytes=_size(git, objects),
        names=shown(names[:NAMES_MAX]),
        commits=int(before),
        left_out=tuple(left_out),
    )


def _changed(git: Git, base: str, commit: str) -> tuple[list[str], list[str]]:
    """Names of the files that differ, and the objects that those that are there are now."""
    if not base:
        rows = [entry.partition("\t") for entry in git.run("ls-tree", "-r", "-z", commit).names]
        return [name for _, _, name in rows], [described.split()[2] for described, _, _ in rows]
    raw = git.run("diff", "--raw", "-z", "--no-renames", "--no-abbrev", base, commit, "--").names
    objects = [described.split()[3] for described in raw[::2]]
    return raw[1::2], [name for name in objects if name.strip("0")]


def _size(git: Git, objects: list[str]) -> int:
    asked = "".join(f"{name}\n" for name in objects).encode()
    said = git.run("cat-file", "--batch-check=%(objectsize)", stdin=asked).text.split("\n") if objects else []
    return sum(int(size) for size in said if size.isdigit())  # a submodule's commit is not here


def _refuse_taken(place: Place, directory: Path) -> None:
    if os.path.lexists(directory):
        raise Refused(f"{directory} is there already, and nothing is ever put over it: name another directory")
    parent = directory.parent
    if not parent.is_dir():
        raise Refused(f"{parent} is no directory: expected one in which {directory.name} can be made")
    for taken in (place.common, place.state):
        if parent.resolve().is_relative_to(taken.resolve()):
            raise Refused(f"{directory} lies in {taken}, which is not for files of yours: name another directory")


@contextmanager
def _staged(place: Place) -> Iterator[Path]:
    """A directory of ours, emptied of what a kill left there."""
    path = place.state / "temporary" / "restoring"
    shutil.rmtree(path, ignore_errors=True)
    make_directory(path)
    beside = read_json_if_there(_note(place))
    if isinstance(beside, str):
        shutil.rmtree(beside, ignore_errors=True)
        discard(_note(place))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _note(place: Place) -> Path:
    """Where it is written down what is copied onto another filesystem just now."""
    return place.state / "restoring.json"


def _moved(place: Place, tree: Path, directory: Path) -> None:
    """Put it in its place whole; onto another filesystem by way of a name that is nobody's, and that is noted."""
    try:
        try:
            tree.rename(directory)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            beside = directory.with_name(f".{directory.name}.{secrets.token_hex(8)}.tmp")
            publish_json(_note(place), str(beside))  # first: whoever comes after a kill removes it
            shutil.copytree(tree, beside, symlinks=True)
            beside.rename(directory)
            discard(_note(place))
    except OSError as error:
        raise Refused(f"{directory} could not be made: {error}") from error
