"""A workspace is made ready: real files, links where nobody wants them, and copies that share nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from coordination import preparation
from coordination.errors import SetUpFailed
from coordination.model.runs import SetUp
from coordination.sandbox import Ended


class Site:
    """A main worktree, the workspaces made from it, and what is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root, self.cache = directory / "root", directory / "cache"
        self.root.mkdir()
        self.performed: list[str] = []
        self.workspace = self.another("A")

    def another(self, name: str, lock: str = "1") -> Path:
        self.workspace = self.directory / name
        self.workspace.mkdir()
        (self.workspace / "lock").write_text(lock)
        return self.workspace

    def perform(self, argv: Sequence[str]) -> Ended:
        """A command that makes ``made``, with a file that names where it stands and a link."""
        self.performed.append(argv[0])
        if argv[0] == "fails":
            return Ended(code=3, seconds=0.0, output="said why")
        made = self.workspace / "made"
        (made / "deep").mkdir(parents=True)
        (made / "tool").write_text(f"#!{made}/python")
        (made / "tool").chmod(0o555)
        (made / "deep" / "data").write_bytes(f"\0{made}".encode())
        (made / "link").symlink_to("deep/data")
        return Ended(code=0, seconds=0.0, output="")

    def prepare(self, *, keep: bool = True, tracked: Sequence[str] = (), **setup: Any) -> None:
        known: dict[str, Any] = {"commands": (("make",),), "root": str(self.root), "keep": ("made",), "key": ("lock",)}
        preparation.prepare(
            SetUp(**{**known, **setup}),
            self.workspace,
            tracked=tracked,
            perform=self.perform,
            cache=self.cache,
            keep=lambda: keep,
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def entries(site: Site) -> list[Path]:
    return [path for path in site.cache.iterdir() if not path.name.startswith(".")] if site.cache.exists() else []


# -- copied files ------------------------------------------------------------------------------------------------------


def test_files_are_copied_for_us_alone(site: Site) -> None:
    """Also deep ones; a file that is not there is not missed; one that a killed set-up left is written again."""
    (site.root / "config").mkdir()
    (site.root / "config" / "local").write_text("one")
    (site.root / ".env").write_text("two")
    (site.workspace / ".env").write_text("left")
    site.prepare(copy=("config/local", ".env", "nowhere/none"))
    assert (site.workspace / "config" / "local").read_text() == "one"
    assert (site.workspace / ".env").read_text() == "two"
    assert (site.workspace / ".env").stat().st_mode & 0o077 == 0
    assert not (site.workspace / "nowhere").exists()


def linked(site: Site, where: str) -> None:
    """Put a link in the way."""
    secret = site.directory / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    match where:
        case "the file is a link":
            (site.root / "sub").mkdir()
            (site.root / "sub" / "file").symlink_to(secret / "file")
        case "a directory is a link":
            (site.root / "sub").symlink_to(secret)
        case "the file is a pipe":
            (site.root / "sub").mkdir()
            os.mkfifo(site.root / "sub" / "file")
        case "the file is a directory":
            (site.root / "sub" / "file").mkdir(parents=True)
        case "the workspace's directory is a link":
            (site.root / "sub").mkdir()
            (site.root / "sub" / "file").write_text("mine")
            (site.workspace / "sub").symlink_to(secret)


@pytest.mark.parametrize(
    "where",
    [
        *("the file is a link", "a directory is a link", "the file is a pipe", "the file is a directory"),
        "the workspace's directory is a link",
    ],
)
def test_no_link_is_followed_and_nothing_but_a_file_is_copied(site: Site, where: str) -> None:
    """Neither where it comes from nor where it goes: a commit may hold links, and an agent writes commits."""
    linked(site, where)
    with pytest.raises(SetUpFailed, match="sub/file"):
        site.prepare(copy=("sub/file",))
    assert (site.directory / "secret" / "file").read_text() == "secret"
    assert site.performed == []


def test_a_link_in_the_workspace_is_replaced_not_written_through(site: Site) -> None:
    """The last part, too."""
    (site.directory / "precious").write_text("precious")
    (site.workspace / ".env").symlink_to(site.directory / "precious")
    (site.root / ".env").write_text("new")
    site.prepare(copy=(".env",))
    assert (site.directory / "precious").read_text() == "precious"
    assert (site.workspace / ".env").read_text() == "new"


def test_a_file_that_git_tracks_is_not_overwritten(site: Site) -> None:
    """The copy would be a change of the commit."""
    (site.root / ".env").write_text("mine")
    with pytest.raises(SetUpFailed, match="which git tracks"):
        site.prepare(copy=(".env",), tracked=(".env",))


def test_a_file_that_is_too_large_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for secrets and settings, not for data."""
    monkeypatch.setattr(preparation, "COPY_BYTES_MAX", 3)
    (site.root / ".env").write_text("four")
    with pytest.raises(SetUpFailed, match=r"\.env"):
        site.prepare(copy=(".env",))


# -- commands and what is kept -----------------------------------------------------------------------------------------


def test_the_first_command_that_fails_ends_it(site: Site) -> None:
    """With what it printed; nothing is kept."""
    with pytest.raises(SetUpFailed, match="'fails' exited 3:\nsaid why"):
        site.prepare(commands=(("fails",), ("make",)))
    assert site.performed == ["fails"]
    assert entries(site) == []


def test_what_was_made_is_given_to_the_next_workspace(site: Site) -> None:
    """No command runs there; files of text name the new place, others are as they were, links are links."""
    site.prepare()
    other = site.another("B")
    site.prepare()
    assert site.performed == ["make"]
    assert (other / "made" / "tool").read_text() == f"#!{other}/made/python"
    assert (other / "made" / "tool").stat().st_mode & 0o777 == 0o555
    assert (other / "made" / "deep" / "data").read_bytes() == f"\0{site.directory}/A/made".encode()
    assert os.readlink(other / "made" / "link") == "deep/data"  # noqa: PTH115 - as it is written


def test_who_changes_its_copy_changes_nobody_elses(site: Site) -> None:
    """No file of what is kept is shared with a workspace."""
    site.prepare()
    (entry,) = entries(site)
    site.another("B")
    site.prepare()
    kept = {path.stat().st_ino for path in entry.rglob("*") if path.is_file()}
    for name in ("A", "B"):
        used = {path.stat().st_ino for path in (site.directory / name).rglob("*") if path.is_file()}
        assert not kept & used
    data = site.directory / "B" / "made" / "deep" / "data"
    data.write_text("poison")
    third = site.another("C")
    site.prepare()
    assert b"poison" not in (third / "made" / "deep" / "data").read_bytes()


@pytest.mark.parametrize("change", ["key", "commands", "network", "copy"])
def test_what_tells_what_is_made_makes_it_anew(site: Site, change: str) -> None:
    """Another lock file, command, network or copied file."""
    (site.root / ".env").write_text("1")
    site.prepare(copy=(".env",))
    site.another("B", lock="2" if change == "key" else "1")
    (site.root / ".env").write_text("2" if change == "copy" else "1")
    others: dict[str, dict[str, Any]] = {"commands": {"commands": (("make", "x"),)}, "network": {"network": True}}
    site.prepare(copy=(".env",), **others.get(change, {}))
    assert site.performed == ["make", "make"]


def test_what_is_not_to_be_trusted_is_used_and_not_kept(site: Site) -> None:
    """What an agent's commit makes is its own."""
    site.prepare(keep=False)
    assert entries(site) == []
    site.another("B")
    site.prepare()
    site.another("C")
    site.prepare(keep=False)
    assert site.performed == ["make", "make"]


def test_what_changes_its_own_key_is_not_kept(site: Site) -> None:
    """It would be found under a name that says something else."""
    perform = site.perform

    def changes(argv: Sequence[str]) -> Ended:
        (site.workspace / "lock").write_text("changed")
        return perform(argv)

    site.perform = changes  # type: ignore[method-assign]
    site.prepare()
    assert entries(site) == []


def damage(entry: Path, how: str) -> None:
    match how:
        case "no manifest":
            (entry / "kept.json").unlink()
        case "half a manifest":
            (entry / "kept.json").write_bytes((entry / "kept.json").read_bytes()[:20])
        case "another key":
            text = (entry / "kept.json").read_text()
            (entry / "kept.json").write_text(text.replace(entry.name, "0" * 64))
        case "no files":
            shutil.rmtree(entry / "0")
        case "a file":
            shutil.rmtree(entry)
            entry.write_text("x")


@pytest.mark.parametrize("how", ["no manifest", "half a manifest", "another key", "no files", "a file"])
def test_what_is_damaged_is_made_anew_and_kept_again(site: Site, how: str) -> None:
    """And nothing of it is left in the workspace."""
    site.prepare()
    (entry,) = entries(site)
    damage(entry, how)
    site.another("B")
    site.prepare()
    assert site.performed == ["make", "make"]
    if how != "a file":
        site.another("C")
        site.prepare()
        assert site.performed == ["make", "make"]


@pytest.mark.parametrize("way", ["a link", "a directory of its own"])
def test_nothing_is_restored_over_what_a_commit_has_there(site: Site, way: str) -> None:
    """Nor through a link of it: the commands run, and see to it themselves."""
    site.prepare(keep=True)
    other = site.another("B")
    if way == "a link":
        (site.directory / "elsewhere").mkdir()
        (other / "made").symlink_to(site.directory / "elsewhere")
    else:
        (other / "made").mkdir()
        (other / "made" / "mine").write_text("mine")

    def does_nothing(argv: Sequence[str]) -> Ended:
        site.performed.append(argv[0])
        return Ended(code=0, seconds=0.0, output="")

    site.perform = does_nothing  # type: ignore[method-assign]
    site.prepare()
    assert site.performed == ["make", "make"]
    assert list((site.directory / "elsewhere").iterdir() if way == "a link" else []) == []


def test_what_was_of_use_longest_ago_goes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what killed workers left half made."""
    monkeypatch.setattr(preparation, "KEPT_MAX", 2)
    for number in range(4):
        site.another(f"B{number}", lock=str(number))
        site.prepare()
        for entry in entries(site):
            stamp = entry.stat().st_mtime - 100
            os.utime(entry, (stamp, stamp))
        (site.cache / f".{'0' * 64}.{number + (1 << 30)}.tmp").mkdir()
    assert len(entries(site)) == 2
    assert len(list(site.cache.glob(".*"))) == 1, "the last one was left after the last look"


def test_what_a_gate_is_told_by(site: Site) -> None:
    """Commands and the content of copied files; nothing where nothing is done."""
    assert preparation.described(SetUp(root=str(site.root))) == ""
    setup = SetUp(root=str(site.root), copy=(".env",))
    before = preparation.described(setup)
    (site.root / ".env").write_text("1")
    assert len({before, preparation.described(setup), preparation.described(SetUp(commands=(("a",),)))}) == 3
    kept = [replace(setup, keep=("made",)), replace(setup, keep=("made",), key=("lock",))]
    assert len({preparation.described(each) for each in (setup, *kept)}) == 3
