"""A published file is the old one or the new one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from coordination import files
from coordination.env import Env


class Failing(Env):
    """Fails one kind of gesture, with the error a full or broken disk gives."""

    def __init__(self, gesture: str) -> None:
        self.gesture = gesture

    def _perhaps(self, gesture: str) -> None:
        if gesture == self.gesture:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        self._perhaps("write")
        return super().write(descriptor, data[: 1 + len(data) // 2], offset)  # and otherwise short

    def sync(self, descriptor: int) -> None:
        self._perhaps("sync")
        super().sync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        self._perhaps("rename")
        super().rename(old, new)

    def make_directory(self, path: Path) -> None:
        super().make_directory(path)
        if self.gesture == "overtaken":
            raise FileExistsError(path)


def test_publish_replaces_everything(tmp_path: Path) -> None:
    """The new bytes stand under the name, private to the owner, and nothing else is left behind."""
    path = tmp_path / "file"
    path.write_bytes(b"a longer old content")
    files.publish(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_publish_syncs_before_it_renames_and_the_directory_after(tmp_path: Path) -> None:
    """The order that a power cut needs: bytes on the disk, then the name, then the directory that holds the name."""
    gestures: list[str] = []

    class Telling(Env):
        def sync(self, descriptor: int) -> None:
            gestures.append("sync" if stat.S_ISREG(os.fstat(descriptor).st_mode) else "sync directory")
            super().sync(descriptor)

        def rename(self, old: Path, new: Path) -> None:
            gestures.append("rename")
            super().rename(old, new)

    files.publish(tmp_path / "file", b"new", env=Telling())
    assert gestures == ["sync", "rename", "sync directory"]


@pytest.mark.parametrize("gesture", ["write", "sync", "rename"])
def test_a_failed_publish_leaves_the_old_file(tmp_path: Path, gesture: str) -> None:
    """Whatever fails before the rename, the old bytes stand and no temporary file is left."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="Input/output error"):
        files.publish(path, b"new", env=Failing(gesture))
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_short_writes_are_continued(tmp_path: Path) -> None:
    """A system that takes only some bytes at a time still gets all of them."""
    files.publish(tmp_path / "file", bytes(range(256)) * 40, env=Failing("nothing"))
    assert (tmp_path / "file").read_bytes() == bytes(range(256)) * 40


def test_json_round_trip(tmp_path: Path) -> None:
    """A value comes back; a missing file is None only where that was asked for; nonsense is an error."""
    path = tmp_path / "value.json"
    assert files.read_json_if_there(path) is None
    with pytest.raises(FileNotFoundError):
        files.read_json(path)
    files.publish_json(path, {"a": [1, None, "é"]})
    assert files.read_json(path) == files.read_json_if_there(path) == {"a": [1, None, "é"]}
    assert path.read_bytes().endswith(b"\n")
    path.write_bytes(b"{")
    with pytest.raises(ValueError, match="unexpected end"):
        files.read_json_if_there(path)


def test_reading_does_not_follow_a_link(tmp_path: Path) -> None:
    """What another one may have put in a file's place is not read through."""
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        files.read(tmp_path / "link")


def test_discard_is_done_once_and_may_be_asked_twice(tmp_path: Path) -> None:
    """Discarding what is not there is fine."""
    (tmp_path / "file").write_bytes(b"")
    files.discard(tmp_path / "file")
    files.discard(tmp_path / "file")
    files.sync_directory(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    """All missing parents appear, private to the owner; being overtaken by another one is fine, a file is not."""
    path = tmp_path / "a" / "b" / "c"
    files.make_directory(path)
    files.make_directory(path)
    assert path.is_dir()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    files.make_directory(tmp_path / "d", env=Failing("overtaken"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        files.make_directory(tmp_path / "file")


@pytest.mark.parametrize("make", [files.make_directory, files.ensure_directory])
def test_two_may_make_a_directory_at_once(tmp_path: Path, make: Callable[..., None]) -> None:
    """Who comes second finds it there and goes on; something else of that name is an error."""

    class Late(Env):
        def __init__(self) -> None:
            self.left = 1

        def is_directory(self, path: Path) -> bool:
            if path.name == "made" and self.left:
                self.left -= 1
                return False
            return super().is_directory(path)

    (tmp_path / "made").mkdir()
    make(tmp_path / "made", env=Late())
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        make(tmp_path / "file")


def test_a_system_that_answers_nothing_is_not_asked_for_ever() -> None:
    """Where no directory can be looked at, not even the root, making one fails."""

    class Blind(Env):
        def is_directory(self, path: Path) -> bool:
            return False

    for make in (files.make_directory, files.ensure_directory):
        with pytest.raises(OSError, match="exists"):
            make(Path("/nowhere/at/all"), env=Blind())
