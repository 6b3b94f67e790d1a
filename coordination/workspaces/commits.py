"""How does what was done in a workspace become a commit on the task's branch?

The run's own process never needs to write to the repository: staging and committing are done here, after it ended. A
run that committed by itself is no worse for it, as long as it did so on its branch and on top of what was there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from coordination.errors import Refused
from coordination.workspaces.git import Git
from coordination.workspaces.merging import conflicts, end_merge, merge_head
from coordination.workspaces.refusals import HeadMoved, NestedRepository, UnresolvedConflict
from coordination.workspaces.repository import shown

STATE = ".coordination"
_TASK = "Coordination-Task"
_LINK = "160000"
_MARKERS = r"^(<{7,} HEAD|>{7,} ([0-9a-f]{40,64}|theirs))"
_OUR_MARKERS = r"^>{7,} [0-9a-f]{40,64}$"  # nobody but a merge of ours names a side by its full hash
_PATHS_MAX = 500


def changes(git: Git) -> tuple[str, ...]:
    """The files that differ from HEAD, untracked ones too."""
    asked = ("status", "--porcelain", "-z", "--untracked-files=all", "--ignore-submodules=all", "--no-renames")
    listed = git.run(*asked, *_without(git), magic=True)
    return shown(entry[3:] for entry in listed.names)


def commit(git: Git, message: str, trailers: Mapping[str, str], *, branch: str, base: str) -> str | None:
    """Commit all that is there. Returns the branch's commit, None when it is still ``base``. May be repeated."""
    head = _head_on(git, branch, base)
    merging = merge_head(git)
    if merging is not None and git.is_ancestor(merging, head):
        end_merge(git)  # killed between the commit and this
        merging = None
    tree = _staged(git)
    _refuse_private(git, tree, base)
    _refuse_markers(git, tree, head, base, merging)
    unchanged = tree == git.text("rev-parse", f"{head}^{{tree}}")
    if unchanged and merging is None and (head == base or not trailers or _ours(git, head)):
        return None if head == base else head
    new = git.make_commit(tree, [head, *([merging] if merging else [])], with_trailers(message, trailers))
    git.set_ref(f"refs/heads/{branch}", new, head, reason="work committed")
    end_merge(git)
    return new


def with_trailers(message: str, trailers: Mapping[str, str]) -> str:
    """A commit message that ends in a block of trailers, one line each whatever the values hold."""
    block = [f"{key}: {' '.join(value.split())}" for key, value in trailers.items() if value.strip()]
    return "\n\n".join(part for part in (message.strip() or "Work", "\n".join(block)) if part) + "\n"


def nested_repositories(git: Git) -> tuple[str, ...]:
    """Directories in the workspace that have a ``.git`` of their own, but for those that git ignores."""
    found = [name for name in _nested(git.tree) if not within(name, git.private)]
    if not found:
        return ()
    # this command knows no literal paths; with "./" in front nothing in a name has a meaning
    asked = b"".join(b"./" + os.fsencode(name) + b"/\0" for name in found)
    ignored = git.run("check-ignore", "-z", "--no-index", "--stdin", stdin=asked, accept=(0, 1), magic=True).names
    links = set(_links(git))
    return tuple(name for name in found if f"./{name}/" not in ignored or name in links)


def within(name: str, names: Sequence[str]) -> bool:
    """Whether a path is one of those, or beneath one."""
    return any(name == other or name.startswith(f"{other}/") for other in names)


def filled_links(git: Git) -> tuple[str, ...]:
    """Directories that git takes for submodules, and in which something is: git itself does not look there."""
    return tuple(path for path in _links(git) if _filled(git.tree / path))


def _filled(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and any(path.iterdir())


def _nested(tree: Path) -> Sequence[str]:
    found = []
    left = [str(tree)]  # a list and no recursion: what was built there may be deeper than our stack
    while left:
        where = left.pop()
        try:
            with os.scandir(where) as entries:
                listed = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError:
            continue  # gone, closed to us, or of too long a name: then git cannot look in either
        if ".git" in listed and where != str(tree):
            found.append(os.path.relpath(where, tree))
        else:
            left += [f"{where}/{name}" for name, below in listed.items() if below and name != ".git"]
    return found


def _head_on(git: Git, branch: str, base: str) -> str:
    wanted = f"refs/heads/{branch}"
    found = git.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1)).text or "a detached HEAD"
    if found != wanted:
        raise HeadMoved(f"{git.tree} is on {found}, expected {wanted}", expected=wanted, found=found)
    head = git.commit_at("HEAD")
    if head is None or not git.is_ancestor(base, head):
        raise HeadMoved(f"{branch} is at {head}, which does not contain {base}", expected=base, found=head or "")
    return head


def _staged(git: Git) -> str:
    """Stage all but the state directory and what git links to, and write the tree."""
    nested = nested_repositories(git)
    if nested:
        raise NestedRepository(
            f"{git.tree} contains repositories: {', '.join(shown(nested))}. Remove their .git, or have git ignore them",
            directories=shown(nested),
        )
    links = _links(git)
    filled = [path for path in links if _filled(git.tree / path)]
    if filled:
        raise NestedRepository(
            f"{git.tree} has files in submodules: {', '.join(shown(filled))}. No commit can hold them: remove them",
            directories=shown(filled),
        )
    git.run("add", "--all", *_without(git, STATE), magic=True)
    _unstage_private(git)
    _restore_links(git, links)
    return git.text("write-tree")


def tracked(git: Git, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the names that git tracks in the workspace, as a file or as a directory of some."""
    return tuple(name for name in names if git.run("ls-files", "-z", "--", name).names)


def private(git: Git) -> tuple[str, ...]:
    """What set-up copies or makes in the workspace; what HEAD has all the same is as public as the rest."""
    return tuple(name for name in git.private if not git.run("ls-tree", "-z", "HEAD", "--", name, accept=(0, 128)).out)


def _without(git: Git, *names: str) -> list[str]:
    """Arguments that mean everything but those names and what is private."""
    return ["--", ":/", *(pattern for name in (*names, *private(git)) for pattern in _patterns(name))]


def _patterns(name: str) -> Iterator[str]:
    """Patterns that mean all but that path and what is below it.

    Escaped from the first sign on: of a path that is written out as it is, git says that it is ignored, and fails.
    """
    escaped = "\\" + re.sub(r"(?<!^)([\\*?\[])", r"\\\1", name)
    yield f":(exclude,top,glob){escaped}"
    yield f":(exclude,top,glob){escaped}/**"


def _unstage_private(git: Git) -> None:
    """Whoever works in the workspace may have staged it."""
    names = private(git)
    staged = git.run("ls-files", "-z", "--", *names).names if names else []
    if staged:
        listed = b"".join(os.fsencode(name) + b"\0" for name in staged)
        git.run("update-index", "--force-remove", "-z", "--stdin", stdin=listed)


def _refuse_private(git: Git, tree: str, base: str) -> None:
    """A run that committed by itself may have committed what was only lent to it."""
    if not git.private:
        return
    listed = [git.run("ls-tree", "-r", "-z", "--name-only", at, "--", *git.private).names for at in (tree, base)]
    told = sorted(set(listed[0]) - set(listed[1]))
    if told:
        raise Refused(
            f"the run committed {', '.join(shown(told[:5]))}, which set-up copies or makes and which must never be "
            "committed. Take it out of [setup], or reject the task"
        )


def _links(git: Git) -> dict[str, str]:
    """The commits that submodules are linked to, by path."""
    entries = [entry.partition("\t") for entry in git.run("ls-files", "--stage", "-z").names]
    return {path: described.split()[1] for described, _, path in entries if described.startswith(_LINK)}


def _restore_links(git: Git, before: Mapping[str, str]) -> None:
    # submodules are not checked out in a workspace: an absent directory says nothing about what is wanted
    now = _links(git)
    lost = {path: link for path, link in before.items() if now.get(path) != link}
    lines = b"".join(f"{_LINK} {link} 0\t".encode() + os.fsencode(path) + b"\0" for path, link in lost.items())
    if lines:
        git.run("update-index", "-z", "--index-info", stdin=lines)


def _refuse_markers(git: Git, tree: str, head: str, base: str, merging: str | None) -> None:
    if merging is not None:
        left = _matching(git, _MARKERS, tree, conflicts(git, head, merging).files)
    elif head != base:  # a merge that the run committed by itself
        changed = git.run("diff", "--name-only", "-z", "--no-renames", "--diff-filter=d", base, tree).names
        left = _matching(git, _OUR_MARKERS, tree, changed)
    else:
        return
    if left:
        raise UnresolvedConflict(
            f"conflict markers are left in {', '.join(shown(left))}: settle them", files=shown(left)
        )


def _matching(git: Git, pattern: str, tree: str, paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    limited = paths if len(paths) <= _PATHS_MAX else []
    found = git.run("grep", "-l", "-z", "-a", "-E", "-e", pattern, tree, "--", *limited, accept=(0, 1)).names
    return [name.partition(":")[2] for name in found if name.partition(":")[2] in set(paths)]


def _ours(git: Git, commit_hash: str) -> bool:
    return bool(git.text("log", "-1", f"--format=%(trailers:key={_TASK},valueonly)", commit_hash).strip())
