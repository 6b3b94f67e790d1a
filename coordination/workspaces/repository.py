"""Which repository is this, and can it carry us?"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from coordination.errors import GitFailed, NotFound, Refused, Unsuitable
from coordination.workspaces.git import Git, _program

_VERSION_MIN = (2, 38)  # the first whose ``merge-tree`` merges without a work tree


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A repository and what its main worktree has checked out."""

    root: Path  # the main worktree, also when asked from a linked one
    common: Path  # the common git directory
    branch: str | None  # None: HEAD is detached
    head: str | None  # None: no commits yet
    bare: bool = False

    def target(self) -> str:
        """The branch that work is to end up on. Raises Unsuitable for a detached HEAD and for no commits."""
        if self.head is None:
            raise Unsuitable(f"{self.root} has no commits yet. Run: git commit --allow-empty -m 'Start'")
        if self.branch is None:
            raise Unsuitable(f"HEAD of {self.root} is detached, expected a branch. Run: git switch <branch>")
        return self.branch


def discover(directory: Path) -> Repository:
    """The repository that ``directory`` belongs to. Raises Unsuitable when there is none, or it is bare or too new."""
    asked = _ask(directory, "rev-parse", "--path-format=absolute", "--git-common-dir", "--git-dir")
    common, own = (Path(line).resolve() for line in asked.splitlines())
    _refuse_unspeakable(common)
    version()
    git = Git(common)
    if _setting(git, "extensions.refstorage") not in ("", "files"):
        raise Unsuitable(f"{common} keeps its refs in another form than files, which is not supported")
    if _setting(git, "core.bare") == "true" and not _setting(git, "core.worktree"):
        raise Unsuitable(
            f"{common} is bare: expected a repository with a worktree. Run: git clone {common} <directory>"
        )
    root = _root(git, common, directory if own == common else None)
    branch = git.run("symbolic-ref", "--quiet", "--short", "HEAD", accept=(0, 1))
    return Repository(root=root, common=common, branch=branch.text or None, head=git.commit_at("HEAD"))


def resolve(git: Git, name: str) -> str:
    """The commit a name stands for, as full hex. Raises NotFound."""
    found = git.commit_at(name)
    if found is None:
        raise NotFound(f"{name!r} names no commit in {git.common}. See: git branch --all")
    return found


def tree(git: Git, commit: str) -> str:
    """What names the files of a commit. Raises NotFound."""
    found = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}^{{tree}}", accept=(0, 1, 128))
    if found.code:
        raise NotFound(f"{commit!r} names no commit in {git.common}. See: git branch --all")
    return found.text


def exclude(common: Path, pattern: str = ".coordination/") -> None:
    """Hide the state directory from ``git status``: one line in ``info/exclude``, written once."""
    path = common / "info" / "exclude"
    path.parent.mkdir(exist_ok=True)
    before = path.read_bytes() if path.exists() else b""
    if pattern.encode() in before.splitlines():
        return
    start = b"" if not before or before.endswith(b"\n") else b"\n"
    # appended, not replaced: some people make this file a symbolic link
    with path.open("ab") as stream:
        stream.write(start + pattern.encode() + b"\n")


def ensure_integration(git: Git, branch: str, target: str, *, start: str = "") -> str:
    """Where the branch is; made when it is missing, at ``start`` or else at the target; never moved.

    Raises Refused when the branch cannot be made.
    """
    name = f"refs/heads/{branch}"
    found = git.commit_at(name)
    if found is not None:
        return found
    start = start or git.commit_at(f"refs/heads/{target}") or resolve(git, target)
    try:
        git.set_ref(name, start, "", reason=f"made from {target}")
    except GitFailed as error:
        raise Refused(
            f"cannot make branch {branch}: {error.stderr}. Rename the branch that stands in its way"
        ) from error
    return start


def written_head(common: Path, branch: str) -> str:
    """What the files say of a branch, as git wrote it; "" when only git can tell. Some hundred times as quick.

    Refs are files here (see ``discover``), and one of the branch's own goes before the packed ones.
    """
    name = f"refs/heads/{branch}"
    try:
        return (common / name).read_text(encoding="ascii").strip()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError):
        return ""
    try:
        packed = (common / "packed-refs").read_bytes().splitlines()
    except OSError:
        return ""
    ending = os.fsencode(f" {name}")
    return next((line.removesuffix(ending).decode("ascii", "replace") for line in packed if line.endswith(ending)), "")


def shown(names: Iterable[str]) -> tuple[str, ...]:
    """Names as text that can be printed and written as JSON; bytes that are not UTF-8 become escapes."""
    return tuple(os.fsencode(name).decode(errors="backslashreplace") for name in names)


def _ask(directory: Path, *arguments: str) -> str:
    """A question that only reads, with the user's own configuration: it says which foreign repositories are trusted."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {"LC_ALL": "C"}
    done = subprocess.run(
        [_program(), "-C", str(directory), *arguments],
        capture_output=True,
        env=environment,
        timeout=60,
        check=False,
    )
    if done.returncode != 0:
        why = done.stderr.decode(errors="replace").strip()
        raise Unsuitable(f"{directory} is in no git repository that can be used: {why}. Run: git init")
    return os.fsdecode(done.stdout).strip("\n")


def _root(git: Git, common: Path, inside: Path | None) -> Path:
    configured = _setting(git, "core.worktree")
    if configured:
        return (common / configured).resolve()
    if common.name == ".git":
        return common.parent
    if inside is not None:
        return Path(_ask(inside, "rev-parse", "--show-toplevel")).resolve()
    raise Unsuitable(f"cannot tell the main worktree of {common}. Run this in the main worktree")


def _refuse_unspeakable(common: Path) -> None:
    try:
        str(common).encode()
    except UnicodeEncodeError as error:
        raise Unsuitable(
            f"the path of {os.fsencode(common)!r} is not UTF-8, as it must be to stand in files: rename the directory"
        ) from error


def _setting(git: Git, key: str) -> str:
    return git.run("config", "--get", key, accept=(0, 1)).text


def version() -> str:
    """What git says of itself. Raises Unsuitable when it is too old."""
    said = _ask(Path("/"), "version")
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < _VERSION_MIN:
        raise Unsuitable(f"found {said!r}, expected git 2.38 or newer: install a newer git")
    return said.strip()
