"""How far did a `coord land` get that was killed while git wrote files, and how is that taken back?

Every file that it was to write had been the old one when it began, or had not been there. So what is there now is the
old file, the new one, the beginning of one of them, or nothing; else the user changed it since, and it is left alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from coordination.files import read_json_if_there
from coordination.workspaces.git import Git
from coordination.workspaces.place import Place
from coordination.workspaces.user import UserGit

_FILES, _SUBMODULE = {"100644", "100755"}, "160000"
_PLAIN, _DIRECTORY, _OTHER = "plain", "directory", "other"  # no object has such a name


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What is being done to the checkout: written before, removed after."""

    target: str
    old: str
    new: str


def note_of(place: Place) -> Path:
    """Where the note is."""
    return place.state / "land.json"


def noted(place: Place) -> Note | None:
    """What is being done, or was when it was killed; None when nothing is."""
    try:
        value = read_json_if_there(note_of(place))
        return None if value is None else msgspec.convert(value, Note)
    except (ValueError, msgspec.ValidationError):
        return None


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A path before and after: modes and objects; "" where there is none."""

    old_mode: str
    new_mode: str
    old: str
    new: str

    @property
    def modes(self) -> tuple[str, str]:
        """Both."""
        return self.old_mode, self.new_mode


class Halfway:
    """The files that a killed merge was to change, as they are now."""

    def __init__(self, user: UserGit, git: Git, root: Path, note: Note) -> None:
        self._user, self._root, self._note = user, root, note
        raw = git.run("diff", "--raw", "-z", "--no-renames", "--no-abbrev", note.old, note.new, "--").names
        self._changed = _entries(raw)
        self._entries = {path: entry for path, entry in self._changed.items() if _SUBMODULE not in entry.modes}
        self._now = self._states()

    def staged(self) -> list[str]:
        """Those whose index is not what it was before."""
        return self._unlike(self._note.old)

    def all_staged(self) -> bool:
        """Whether the index has all that is new."""
        return not self._unlike(self._note.new)

    def _unlike(self, commit: str) -> list[str]:
        asked = ("--cached", "--name-only", "-z", "--no-renames", "--ignore-submodules=none", commit, "--")
        return [path for path in self._user.run("diff-index", *asked).names if path in self._changed]

    def untouched(self) -> bool:
        """Whether nothing was written: what differs from before is the user's own."""
        return all(now == self._entries[path].old or not self._ours(path, now) for path, now in self._now.items())

    def theirs(self) -> list[str]:
        """Those that the merge did not write."""
        return [path for path, now in self._now.items() if not self._ours(path, now)] + self._foreign()

    def restore(self) -> None:
        """Make them what they were before."""
        for path, now in self._now.items():
            if now not in ("", _DIRECTORY) and not self._entries[path].old:
                (self._root / path).unlink()
                _remove_empty(self._root, path)
        back = [path for path, now in self._now.items() if self._entries[path].old not in ("", now)]
        if back:
            listed = b"".join(os.fsencode(path) + b"\0" for path in back)
            self._user.run("checkout-index", "--force", "-z", "--stdin", stdin=listed)

    def _states(self) -> dict[str, str]:
        """The object that each is, as git would keep it; "" where there is none."""
        now = {path: self._kind(path) for path in self._entries}
        plain = [path for path, kind in now.items() if kind == _PLAIN and "\n" not in path]
        listed = b"".join(os.fsencode(path) + b"\n" for path in plain)
        objects = self._user.run("hash-object", "--stdin-paths", stdin=listed).text.split() if plain else []
        return now | dict(zip(plain, objects, strict=True))

    def _kind(self, path: str) -> str:
        full = self._root / path
        if _reached(self._root, path) is None:
            return ""
        if full.is_symlink():
            leads = os.fsencode(full.readlink())
            return self._user.run("hash-object", "--no-filters", "--stdin", stdin=leads).text
        if full.is_dir():
            return _DIRECTORY
        return _PLAIN if full.is_file() else _OTHER

    def _ours(self, path: str, now: str) -> bool:
        entry = self._entries[path]
        return now in ("", _DIRECTORY, entry.old, entry.new) or self._torn(path, entry)

    def _torn(self, path: str, entry: _Entry) -> bool:
        """Whether it is the beginning of the new file, or of the old one that was being put back."""
        full = self._root / path
        if full.is_symlink() or not full.is_file():
            return False
        found = full.read_bytes()
        wanted = [name for name, mode in ((entry.new, entry.new_mode), (entry.old, entry.old_mode)) if mode in _FILES]
        asked = (self._user.run("cat-file", "--filters", f"--path={path}", name).out for name in wanted)
        return any(whole.startswith(found) for whole in asked)

    def _foreign(self) -> list[str]:
        """What is in a directory in the place of a file, and not of the merge."""
        places = [self._root / path for path, now in self._now.items() if now == _DIRECTORY]
        return [path for place in places for path in below(place, self._root) if path not in self._entries]


def _entries(raw: Sequence[str]) -> dict[str, _Entry]:
    """What ``diff --raw -z`` says: ":<mode> <mode> <object> <object> <kind>", then the path."""
    found = {}
    for described, path in zip(raw[::2], raw[1::2], strict=True):
        old_mode, new_mode, old, new, _ = described.removeprefix(":").split()
        found[path] = _Entry(old_mode=old_mode, new_mode=new_mode, old=_object(old), new=_object(new))
    return found


def _object(name: str) -> str:
    return "" if set(name) == {"0"} else name


def above(path: str) -> list[str]:
    """The directories above a path, outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def below(directory: Path, root: Path) -> Iterator[str]:
    """All that is in a directory but directories, relative to the root."""
    for where, directories, names in os.walk(directory):
        links = [name for name in directories if Path(where, name).is_symlink()]
        yield from (os.path.relpath(Path(where, name), root) for name in (*names, *links))


def _reached(root: Path, path: str) -> Path | None:
    """The file of that name, if every directory above it is one and no link; None when there is none."""
    for name in above(path):
        directory = root / name
        if directory.is_symlink() or not directory.is_dir():
            return None
    return root / path if os.path.lexists(root / path) else None


def _remove_empty(root: Path, path: str) -> None:
    for name in reversed(above(path)):
        try:
            (root / name).rmdir()
        except OSError:
            return
