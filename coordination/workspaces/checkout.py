"""How does what landed come into the user's own checkout, and what stands in its way? By fast-forward, or not at all.

The only code that touches the checkout, and only when a person asks. ``survey`` looks and writes nothing, not even the
index; ``bring`` does what ``git merge --ff-only`` does, after it has made sure that no byte that is not in a commit
would go: a file that was changed, that git does not know or that git ignores is named and stays.

Git may be killed while it writes files, and leaves some new and some old. So a note is published before; whoever comes
next finds it, and takes back what git wrote (``interrupted``). A file that is neither the old one, nor the new one, nor
the beginning of the new one was changed by the user since: it is named and stays.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from coordination.errors import Conflict, GitFailed
from coordination.files import discard, publish_json
from coordination.workspaces.containment import contained
from coordination.workspaces.halfway import Halfway, Note, above, below, note_of, noted
from coordination.workspaces.place import Place
from coordination.workspaces.repository import shown
from coordination.workspaces.user import UserGit

LOCK_SECONDS = 5.0
_NAMED_MAX = 10
_UNDER_WAY = {
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "rebase-apply/applying": "am",
    "rebase-merge": "rebase",
    "rebase-apply": "rebase",
    "BISECT_LOG": "bisect",
}


class Bringing(msgspec.Struct, frozen=True, kw_only=True):
    """What is between the user's branch and what landed, and what came of bringing it."""

    state: Literal["ready", "nothing", "refused", "landed"]
    target: str
    integration: str
    old: str = ""  # where the target is
    new: str = ""  # where it would be, or is
    how: Literal["", "checkout", "branch"] = ""  # with its files, or only the branch, which is checked out nowhere
    reason: str = ""
    remedy: str = ""
    paths: tuple[str, ...] = ()  # that stand in the way
    unfinished: bool = False  # refused in the midst of it: the checkout may be between old and new


def survey(place: Place, root: Path, *, target: str, integration: str) -> Bringing:
    """What bringing would do now; changes nothing."""
    asked = _Survey(place, root, target, integration)
    return asked.to_finish() or asked.made()


def bring(place: Place, root: Path, *, target: str, integration: str) -> Bringing:
    """Do it, if nothing stands in its way. May be repeated. Raises LockHeld when another process does it just now."""
    with place.locked("checkout", LOCK_SECONDS):
        asked, note = _Survey(place, root, target, integration), noted(place)
        stopped = asked.interrupted()
        found = msgspec.structs.replace(stopped, unfinished=True) if stopped else asked.made()
        if note is not None and asked.old == note.new != "":
            return asked.landed(note)  # by the one that was killed, or by finishing it
        if found.state != "ready":
            return found
        if found.how == "branch":
            return _moved(place, found)
        publish_json(note_of(place), msgspec.to_builtins(Note(target=target, old=found.old, new=found.new)))
        try:
            asked.user.fast_forward(target, found.new)
        except GitFailed as error:
            stopped = asked.interrupted()
            failed = stopped or _Survey(place, root, target, integration).refused(
                f"git did not do it: {error.stderr}", f"try what git says: git -C {root} merge --ff-only {integration}"
            )
            return msgspec.structs.replace(failed, unfinished=stopped is not None or not error.code)
        discard(note_of(place))
        return msgspec.structs.replace(found, state="landed")


def _moved(place: Place, found: Bringing) -> Bringing:
    try:
        place.git.set_ref(f"refs/heads/{found.target}", found.new, found.old, reason=f"landed {found.integration}")
    except Conflict as error:
        reason = f"{found.target} moved just now: {error}"
        return msgspec.structs.replace(found, state="refused", reason=reason, remedy="run `coord land` again")
    return msgspec.structs.replace(found, state="landed")


class _Survey:
    """One look at a repository: branches first, then where the target is checked out, then the files."""

    def __init__(self, place: Place, root: Path, target: str, integration: str) -> None:
        self.place, self.git, self.root = place, place.git, root
        self.user = UserGit(place.common, root)
        self.target, self.integration = target, integration
        self.old = self.git.commit_at(f"refs/heads/{target}") or "" if target else ""
        self.new = self.git.commit_at(f"refs/heads/{integration}") or ""

    def made(self) -> Bringing:
        """The first thing that stands in the way, or that nothing does."""
        answer = self._branches() or self._place()
        if answer is not None:
            return answer
        return self._answer("ready", how="checkout" if self._here() else "branch")

    def refused(self, reason: str, remedy: str, paths: Iterable[str] = ()) -> Bringing:
        """Why not, and what to do about it."""
        return self._answer("refused", reason=reason, remedy=remedy, paths=shown(paths))

    def landed(self, note: Note) -> Bringing:
        """What an earlier one was to do, and is done now."""
        return self._answer("landed", how="checkout", old=note.old, new=note.new)

    def _answer(self, state: Literal["ready", "nothing", "refused", "landed"], **more: object) -> Bringing:
        known = {"target": self.target, "integration": self.integration, "old": self.old, "new": self.new}
        return msgspec.convert({"state": state} | known | more, Bringing)

    # -- branches ----------------------------------------------------------------------------------------------------

    def _branches(self) -> Bringing | None:
        target, integration = self.target, self.integration
        if not self.old:
            return self.refused(
                f"there is no branch {target or '(none is named)'}, which [git] target names",
                "name your branch in coordination.toml [git], or make it: git branch NAME <commit>",
            )
        if not self.new:
            return self.refused(f"there is no branch {integration} yet", "run `coord start`, which makes it")
        if self.git.is_ancestor(self.new, self.old):
            return self._answer("nothing", reason=f"{target} has everything that landed")
        if self.git.is_ancestor(self.old, self.new):
            return None
        if contained(self.git, self.new, self.old):
            return self._answer("nothing", reason=f"{target} has everything that landed, in commits of its own")
        own = self.git.text("rev-list", "--count", f"{self.new}..{self.old}")
        return self.refused(
            f"{target} has {own} commit(s) that {integration} has not, so this is no fast-forward",
            f"the next task that lands takes them in, then run `coord land` again; or merge by hand: "
            f"git -C {self.root} switch {target} && git -C {self.root} merge {integration}",
        )

    # -- where the target is checked out -----------------------------------------------------------------------------

    def _here(self) -> bool:
        return _branch_of(self.place.common) == f"refs/heads/{self.target}"

    def _place(self) -> Bringing | None:
        elsewhere = [tree for tree in self._linked() if _branch_of(tree) == f"refs/heads/{self.target}"]
        for directory in (self.place.common, *self._linked()):
            if _works_on(directory, self.target):
                return self._under_way(directory)
        if elsewhere:
            where = _tree(elsewhere[0])
            return self.refused(
                f"{self.target} is checked out in another worktree, {where}",
                f"bring it there yourself: git -C {where} merge --ff-only {self.integration}",
            )
        if self._here():
            return self._files()
        if not _branch_of(self.place.common):
            return self.refused(
                f"HEAD of {self.root} is detached", f"run: git -C {self.root} switch {self.target}, then `coord land`"
            )
        return None

    def _linked(self) -> list[Path]:
        return sorted(path.parent for path in (self.place.common / "worktrees").glob("*/HEAD"))

    def _under_way(self, directory: Path) -> Bringing:
        what = next((verb for name, verb in _UNDER_WAY.items() if (directory / name).exists()), "bisect")
        where = self.root if directory == self.place.common else _tree(directory)
        end = "reset" if what == "bisect" else "--continue (or --abort)"
        return self.refused(f"a {what} is under way in {where}", f"end it first: git -C {where} {what} {end}")

    # -- files -------------------------------------------------------------------------------------------------------

    def _files(self) -> Bringing | None:
        if any((self.place.common / name).exists() for name in _UNDER_WAY):
            return self._under_way(self.place.common)
        if (self.place.common / "index.lock").exists():
            return self._locked()
        unmerged = self.user.run("diff", "--name-only", "-z", "--diff-filter=U").names
        if unmerged:
            return self.refused(
                f"conflicts are not settled in {_listed(unmerged)}",
                f"settle them, then git -C {self.root} add and commit, or git -C {self.root} reset --merge",
                unmerged,
            )
        changed = set(self.git.run(*_DIFF, self.old, self.new).names)
        known = {entry[2:]: entry[0] for entry in self.user.run("ls-files", "-v", "-z").names}
        dirty = [path for path in self._dirty() if _meets(path, changed)] + self._hidden(known, changed)
        if dirty:
            return self.refused(
                f"changes that are in no commit would be overwritten in {_listed(dirty)}",
                f"commit them, or run: git -C {self.root} stash push, then `coord land`, then git stash pop",
                dirty,
            )
        return self._obstacles(known)

    def _dirty(self) -> list[str]:
        """Tracked files that differ from HEAD, staged or not; submodules as what they are linked to."""
        asked = ("--porcelain", "-z", "--untracked-files=no", "--ignore-submodules=all", "--no-renames")
        return [entry[3:] for entry in self.user.run("status", *asked).names]

    def _hidden(self, known: Mapping[str, str], changed: set[str]) -> list[str]:
        """Files that git was told to overlook, and that are not what it keeps; ``known``: what it says of each."""
        asked = [path for path, tag in known.items() if (tag.islower() or tag == "S") and path in changed]
        there = [path for path in asked if (self.root / path).is_file() and not (self.root / path).is_symlink()]
        return [path for path in there if self._object(path) != self.git.text("rev-parse", f"{self.old}:{path}")]

    def _object(self, path: str) -> str:
        return self.user.run("hash-object", f"--path={path}", "--stdin", stdin=(self.root / path).read_bytes()).text

    def _obstacles(self, tracked: Collection[str]) -> Bringing | None:
        directories = {name for path in tracked for name in above(path)}
        wanted = self.git.run(*_DIFF, "--diff-filter=d", self.old, self.new).names
        found = {
            os.path.relpath(name, self.root)
            for path in wanted
            if path not in tracked
            for name in _in_the_way(self.root, path, tracked, directories)
        }
        if not found:
            return None
        names = sorted(found)
        return self.refused(
            f"files that git does not keep would be overwritten: {_listed(names)}",
            "move them aside, or remove them if you do not need them, then `coord land`",
            names,
        )

    def _locked(self) -> Bringing:
        lock = self.place.common / "index.lock"
        working = self.user.calls_alive()
        if working:
            return self.refused(
                f"git of a `coord land` that was killed still works in {self.root} (process {working[0]})",
                "wait until it has ended, then run `coord land` again",
            )
        return self.refused(
            f"git works in {self.root} just now, or was killed there: {lock} exists",
            f"wait; if no git, editor or tool works there, remove it: rm {lock}; then run `coord land` again",
        )

    # -- after a kill ------------------------------------------------------------------------------------------------

    def to_finish(self) -> Bringing | None:
        """What is to be said when a killed one is to be put right first."""
        note = noted(self.place)
        if note is None or not self._cut_short(note):
            return None
        return self._answer("ready", how="checkout", reason="a `coord land` was killed here: it is put right first")

    def _cut_short(self, note: Note) -> bool:
        """Whether the branch is where the killed one found it."""
        return self._here() and note.target == self.target and self.old == note.old

    def interrupted(self) -> Bringing | None:
        """Put right what a killed one left; why that cannot be, or None when there is nothing (more) to put right."""
        note = noted(self.place)
        if note is None:
            return None
        if self._cut_short(note):
            refused = self._locked() if self._busy() else self._taken_back(note)
            if refused is not None:
                return refused
        discard(note_of(self.place))
        self.old = self.git.commit_at(f"refs/heads/{self.target}") or ""
        return None

    def _busy(self) -> bool:
        return (self.place.common / "index.lock").exists() or bool(self.user.calls_alive())

    def _taken_back(self, note: Note) -> Bringing | None:
        halfway = Halfway(self.user, self.git, self.root, note)
        if halfway.staged():
            if not halfway.all_staged():
                return self._changed_since(halfway.staged())
            # all was written, only the branch had not moved yet
            self.git.set_ref(f"refs/heads/{note.target}", note.new, note.old, reason="landed, after a kill")
            return None
        if halfway.untouched():
            return None
        if halfway.theirs():
            return self._changed_since(halfway.theirs())
        halfway.restore()
        return None

    def _changed_since(self, paths: Sequence[str]) -> Bringing:
        return self.refused(
            f"a `coord land` was killed while it wrote files, and these were changed since: {_listed(paths)}",
            "keep elsewhere what you need of them, then (those that HEAD does not have, remove) run: "
            f"git -C {self.root} checkout HEAD -- {_listed(paths)}; then `coord land`",
            paths,
        )


_DIFF = ("diff", "--name-only", "-z", "--no-renames", "--ignore-submodules=none")


def _branch_of(directory: Path) -> str:
    """The full name of the branch that a worktree's HEAD is on; "" when it is on none."""
    try:
        said = (directory / "HEAD").read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
    return said.removeprefix("ref: ") if said.startswith("ref: ") else ""


def checked_out(place: Place, ref: str) -> str:
    """Where a branch (its full name) is checked out; "" when it is nowhere."""
    if _branch_of(place.common) == ref:
        return "the main worktree"
    linked = (path.parent for path in sorted((place.common / "worktrees").glob("*/HEAD")))
    return next((str(_tree(directory)) for directory in linked if _branch_of(directory) == ref), "")


def _tree(directory: Path) -> Path:
    """The worktree that one of git's directories belongs to."""
    said = os.fsdecode((directory / "gitdir").read_bytes()).strip("\n")
    return Path(os.path.normpath(directory / said)).parent


def _works_on(directory: Path, target: str) -> bool:
    """Whether a rebase or a bisect in a worktree, which detaches its HEAD, goes back to the target in the end."""
    for name in ("rebase-merge/head-name", "rebase-apply/head-name", "BISECT_START"):
        try:
            said = (directory / name).read_text(encoding="utf-8", errors="surrogateescape").strip()
        except OSError:
            continue
        if said in (target, f"refs/heads/{target}"):
            return True
    return False


def _listed(paths: Sequence[str]) -> str:
    named = " ".join(shown(paths[:_NAMED_MAX]))
    return named if len(paths) <= _NAMED_MAX else f"{named} and {len(paths) - _NAMED_MAX} more"


def _meets(path: str, changed: set[str]) -> bool:
    """Whether a path is one of those, or lies above or below one."""
    beneath = f"{path}/"
    return path in changed or not changed.isdisjoint(above(path)) or any(name.startswith(beneath) for name in changed)


def _in_the_way(root: Path, path: str, tracked: Collection[str], directories: set[str]) -> list[Path]:
    """What is there, of which git keeps nothing, in the place of a new file or of a directory above it."""
    for name in above(path):
        if name in directories and not (root / name).is_symlink():
            continue
        if name in tracked:
            return []  # a file that becomes a directory: whether it was changed is asked elsewhere
        directory = root / name
        if directory.is_symlink() or (os.path.lexists(directory) and not directory.is_dir()):
            return [directory]
    full = root / path
    if not os.path.lexists(full):
        return []
    if full.is_symlink() or not full.is_dir():
        return [full]
    return [root / name for name in below(full, root) if name not in tracked]
