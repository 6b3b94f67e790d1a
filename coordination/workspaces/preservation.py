"""How is everything in a workspace kept before it is reset or removed?

As a commit under ``refs/coordination/preserved/<task>/<n>`` whose tree is what the files were and whose parents are
HEAD and, when something else was staged, the index. It is made with an index of its own: neither the workspace nor its
index changes. Files that git ignores, and files in repositories within the workspace, are kept up to a size; those
that were not are named in the message. Copied secrets (``.env`` and its like, and whatever set-up copies or makes)
are never kept.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from coordination.errors import Conflict
from coordination.files import make_directory
from coordination.workspaces.commits import STATE, filled_links, nested_repositories, private, within
from coordination.workspaces.git import Git, clear_locks
from coordination.workspaces.index import unseen
from coordination.workspaces.place import Place
from coordination.workspaces.repository import shown

_FILE_BYTES_MAX = 1 << 20
_TOTAL_BYTES_MAX = 20 << 20
_NAMED_MAX = 200
_DIGITS = re.compile(r"[1-9][0-9]{0,8}")
NUMBERED = re.compile(rf"refs/coordination/preserved/[^/]+/{_DIGITS.pattern}")
_SECRET = re.compile(r"\.env(\..*)?|\.envrc")
_NO_SECRET = re.compile(r".*\.(example|sample|template|dist)")


def preserve(place: Place, git: Git, task: str, *, ignored: bool = True, commits: bool = True) -> str | None:
    """Keep what is there under a ref and name it; None when the branches of ours have it all already.

    ``ignored``: also files that git ignores; ``commits``: also commits that no branch of ours contains.
    """
    clear_locks(git.directory)
    head = git.commit_at("HEAD")
    if head and _as_committed(git, head, ignored=ignored) and not (commits and _unreachable(git, head, task)):
        return None
    with _scratch(place, git.tree.name) as scratch:
        indexed = _own_index(git, scratch / "index", head)
        _take_out_secrets(indexed, private(git))  # what was staged becomes a commit, too
        staged = indexed.run("write-tree", accept=(0, 128))  # 128: a merge is under way, nothing can be told as staged
        left_out = _add_everything(indexed, ignored=ignored)
        tree = indexed.text("write-tree")
    of_head = git.text("rev-parse", f"{head}^{{tree}}") if head else ""
    others = [] if staged.code or staged.text in (tree, of_head) else [staged.text]
    if tree == of_head and not others and not (commits and _unreachable(git, head, task)):
        return None
    parents = [head] if head else []
    # dated like its parent, so that keeping the same again gives the same commit
    parents += [git.make_commit(index, parents, f"Index of {git.tree.name}\n", dated_like=head) for index in others]
    return _named(git, task, tree, parents, _message(git, left_out))


def is_pristine(git: Git) -> bool:
    """Whether there is nothing but HEAD's files and what is lent; not even what git ignores."""
    head = git.commit_at("HEAD")
    return head is not None and _as_committed(git, head, ignored=True)


def _as_committed(git: Git, head: str, *, ignored: bool) -> bool:
    """Whether there is nothing but HEAD's files, staged or not, by one quick call. False may also mean: ask further."""
    if (git.directory / "MERGE_HEAD").exists() or nested_repositories(git):
        return False
    if _unseen(git, head) and (filled_links(git) or _hidden(git)):
        return False
    asked = ["--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=none", *["--ignored"] * ignored]
    return git.run("status", *asked, "--", ":/", *_around(private(git)), magic=True).names == []


def _unseen(git: Git, head: str | None) -> bool:
    """Whether the index names anything that git itself does not look at."""
    index = git.directory / "index"
    return head is not None and index.exists() and unseen(index.read_bytes(), len(head) // 2)


def _hidden(git: Git) -> list[str]:
    """Files that are there, and that git was told to take for unchanged or to leave out."""
    listed = [entry.partition(" ") for entry in git.run("ls-files", "-v", "-z").names]
    names = [name for tag, _, name in listed if tag.islower() or tag == "S"]
    return [name for name in names if os.path.lexists(git.tree / name)]


def preserved(git: Git, task: str) -> tuple[str, ...]:
    """The refs that keep what was in a task's workspaces, oldest first."""
    found = [name for name, kind in _refs(git, task) if kind == "commit" and NUMBERED.fullmatch(name)]
    return tuple(sorted(found, key=_number))


def _refs(git: Git, task: str) -> list[tuple[str, str]]:
    """Everything below a task's refs with what it leads to: what is not of our form somebody else put there."""
    asked = ("--format=%(refname) %(objecttype)", f"refs/coordination/preserved/{task}/")
    rows = (line.partition(" ") for line in git.text("for-each-ref", *asked).split("\n") if line)
    return [(name, kind) for name, _, kind in rows]


def _number(name: str) -> int:
    """The number in a ref's name, or in what stands where it would be; 0 for none."""
    part = name.split("/")[4]
    return int(part) if _DIGITS.fullmatch(part) else 0


@contextmanager
def _scratch(place: Place, name: str) -> Iterator[Path]:
    """A directory for one workspace, emptied of what a kill left there: a workspace has one live run at a time."""
    path = place.state / "temporary" / name
    shutil.rmtree(path, ignore_errors=True)
    make_directory(path)
    yield path
    shutil.rmtree(path)


def _own_index(git: Git, index: Path, head: str | None) -> Git:
    own = git.with_index(index)
    real = git.directory / "index"
    if real.exists():
        # with its time: git looks again at files as young as the index, and at no others
        shutil.copy2(real, index)
        if _unseen(git, head):
            hidden = _hidden(own)
            for how in ("--no-assume-unchanged", "--no-skip-worktree"):
                _update_index(own, how, hidden)
    elif head:
        own.run("read-tree", head)
    return own


def _add_everything(git: Git, *, ignored: bool) -> list[str]:
    """Put all files into the index; returns those that were left out."""
    # git itself does not look there
    nested, lent = list(dict.fromkeys((*nested_repositories(git), *filled_links(git)))), private(git)
    around = _around([*nested, *lent])
    git.run(
        "add",
        "--all",
        "--ignore-errors",
        "--",
        ":/",
        f":(exclude,top,literal){STATE}",
        *around,
        magic=True,
        accept=(0, 1),
    )
    candidates = [name for directory in nested for name in _files_below(git.tree, directory)]
    if ignored:
        asked = ("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", ":/", *_around(lent))
        candidates += git.run(*asked, magic=True).names
    fitting = _fitting(git.tree, candidates)
    # the files that are in a submodule take the place of the link to it
    _update_index(git, "--force-remove", [place for place in nested if any(_is_below(name, place) for name in fitting)])
    _update_index(git, "--add", fitting)
    secrets = _take_out_secrets(git, lent)
    kept = set(fitting) - set(secrets)
    there = [name for name in lent if os.path.lexists(git.tree / name)]
    repositories = [name for directory in nested if os.path.lexists(git.tree / (name := f"{directory}/.git"))]
    return repositories + sorted({*candidates, *secrets, *there} - kept)


def _take_out_secrets(git: Git, lent: Sequence[str]) -> list[str]:
    """Take out of the index what HEAD has not and nobody may keep; what that was."""
    new = git.run(
        "diff", "--cached", "--name-only", "-z", "--diff-filter=A", "--no-renames", "HEAD", accept=(0, 128)
    ).names
    secrets = [name for name in new if _is_secret(name) or within(name, lent)]
    _update_index(git, "--force-remove", secrets)
    return secrets


def _around(names: Iterable[str]) -> list[str]:
    return [f":(exclude,top,literal){name}" for name in names]


def _update_index(git: Git, how: str, names: Iterable[str]) -> None:
    listed = b"".join(os.fsencode(name) + b"\0" for name in names)
    if listed:
        git.run("update-index", how, "-z", "--stdin", stdin=listed)


def _is_below(name: str, directory: str) -> bool:
    return name.startswith(f"{directory}/")


def _files_below(tree: Path, directory: str) -> Iterator[str]:
    for where, directories, names in os.walk(tree / directory):
        for found in (directories, names):
            found[:] = [name for name in found if name != ".git"]
        links = [name for name in directories if (Path(where) / name).is_symlink()]
        yield from (os.path.relpath(Path(where) / name, tree) for name in [*names, *links])


def _fitting(tree: Path, names: Iterable[str]) -> list[str]:
    """Those that may be kept: files and links, no secrets, each and all together of bounded size."""
    fitting, total = [], 0
    for name in names:
        status = (tree / name).lstat() if os.path.lexists(tree / name) else None
        plain = status is not None and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode))
        if status is None or not plain or _is_secret(name) or PurePosixPath(name).parts[0] == STATE:
            continue
        if status.st_size <= _FILE_BYTES_MAX and total + status.st_size <= _TOTAL_BYTES_MAX:
            fitting.append(name)
            total += status.st_size
    return fitting


def _is_secret(name: str) -> bool:
    base = PurePosixPath(name).name
    return bool(_SECRET.fullmatch(base)) and not _NO_SECRET.fullmatch(base)


def _unreachable(git: Git, head: str | None, task: str) -> bool:
    """Whether no branch of ours has this commit, so that removing the workspace would lose it."""
    if head is None:
        return False
    own = git.text("for-each-ref", "--format=%(refname)", f"--contains={head}", "refs/heads/coordination/")
    return not own and not any(git.is_ancestor(head, name) for name in preserved(git, task))


def _message(git: Git, left_out: list[str]) -> str:
    lines = [f"What was in workspace {git.tree.name}", ""]
    if (git.directory / "MERGE_HEAD").exists():
        lines += [f"A merge of {(git.directory / 'MERGE_HEAD').read_text().strip()} was under way.", ""]
    if left_out:
        lines += ["Not kept, for size or because it may be secret:", *shown(left_out[:_NAMED_MAX])]
    if len(left_out) > _NAMED_MAX:
        lines.append(f"and {len(left_out) - _NAMED_MAX} more")
    return "\n".join(lines).rstrip() + "\n"


def _named(git: Git, task: str, tree: str, parents: list[str], message: str) -> str:
    names = preserved(git, task)
    for name in names:  # the same again, after a kill: one ref is enough
        if git.text("log", "-1", "--format=%T %P", name) == f"{tree} {' '.join(parents)}":
            return name
    return _numbered(git, task, git.make_commit(tree, parents, message), f"kept {git.tree.name}")


def keep_commit(git: Git, task: str, commit: str) -> str:
    """Keep a commit, and all before it, under a ref of its task; which one."""
    names = preserved(git, task)
    known = next((name for name in names if git.is_ancestor(commit, name)), None)
    return known or _numbered(git, task, commit, "kept before its branch was removed")


def _numbered(git: Git, task: str, commit: str, reason: str) -> str:
    number = max((_number(name) for name, _ in _refs(git, task)), default=0) + 1
    while True:
        try:
            git.set_ref(f"refs/coordination/preserved/{task}/{number}", commit, "", reason=reason)
        except Conflict:
            number += 1
        else:
            return f"refs/coordination/preserved/{task}/{number}"
