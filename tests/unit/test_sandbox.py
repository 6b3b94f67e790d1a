"""Of two places the inner one decides; what a command names is seen. What holds in there is tried elsewhere."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coordination import sandbox
from coordination.errors import Unsuitable
from coordination.sandbox import Ended, Walls

PATH = os.environ["PATH"]
needs_sandbox = pytest.mark.skipif(not sandbox.find(PATH), reason="bubblewrap does not work here")


@pytest.fixture
def walls(tmp_path: Path) -> Walls:
    """A state directory in a repository, with a checkout in it; secrets in a home."""
    for name in ("repository/.git", "repository/.coordination/agent_workspaces/A", "home/.ssh", "own/tmp"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/.netrc").write_text("secret")
    state = tmp_path / "repository/.coordination"
    return Walls(
        program=sandbox.find(PATH) or "bwrap",
        hidden=(str(state), str(tmp_path / "home/.ssh"), str(tmp_path / "home/.netrc"), str(tmp_path / "nowhere")),
        shown=(str(tmp_path / "repository"), str(tmp_path / "home")),
        writable=(str(state / "agent_workspaces/A"),),
    )


def mounts(tmp_path: Path, walls: Walls, *argv: str, path: str = PATH) -> list[tuple[str, ...]]:
    """The mounts in their order, without those that are the same for everybody."""
    where = tmp_path / "repository/.coordination/agent_workspaces/A"
    line = sandbox.arguments(argv or ("true",), walls, directory=where, temporary=tmp_path / "own/tmp", path=path)
    found: list[tuple[str, ...]] = []
    for word in line[1 : line.index("--chdir")]:
        found = [*found, (word,)] if word.startswith("--") else [*found[:-1], (*found[-1], word)]
    return [mount for mount in found if str(tmp_path) in " ".join(mount)]


def run(tmp_path: Path, walls: Walls, *argv: str, path: str = PATH) -> Ended:
    return sandbox.run(
        argv,
        name="command",
        directory=tmp_path / "repository/.coordination/agent_workspaces/A",
        log=tmp_path / "log",
        environment={"PATH": path},
        timeout_seconds=20.0,
        walls=walls,
        temporary=tmp_path / "own/tmp",
    )


def test_the_inner_place_decides(tmp_path: Path, walls: Walls, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown within hidden, hidden within shown, writable within that; what is not there is not named."""
    state = tmp_path / "repository/.coordination"
    monkeypatch.setattr(sandbox, "_TEMPORARY", (str(tmp_path),))
    assert mounts(tmp_path, walls) == [
        ("--bind", f"{tmp_path}/own/tmp", str(tmp_path)),
        ("--ro-bind", f"{tmp_path}/home", f"{tmp_path}/home"),
        ("--ro-bind", f"{tmp_path}/repository", f"{tmp_path}/repository"),
        ("--ro-bind", "/dev/null", f"{tmp_path}/home/.netrc"),
        ("--tmpfs", f"{tmp_path}/home/.ssh"),
        ("--tmpfs", str(state)),
        ("--bind", f"{state}/agent_workspaces/A", f"{state}/agent_workspaces/A"),
        ("--remount-ro", f"{tmp_path}/home/.ssh"),
        ("--remount-ro", str(state)),
    ]


def test_what_is_hidden_is_hidden_under_its_real_name(tmp_path: Path, walls: Walls) -> None:
    """A link to a secret is no way round."""
    (tmp_path / "home/keys").symlink_to(tmp_path / "home/.ssh")
    told = mounts(tmp_path, replace(walls, hidden=(str(tmp_path / "home/keys"),)))
    assert ("--tmpfs", f"{tmp_path}/home/.ssh") in told


def test_programs_in_a_hidden_place_are_seen_and_nothing_beside_them(tmp_path: Path, walls: Walls) -> None:
    """A directory of PATH below a secret place, and what the command itself names."""
    bin_ = tmp_path / "home/.ssh/bin"
    bin_.mkdir()
    told = mounts(tmp_path, walls, path=f"{bin_}:{PATH}")
    assert ("--ro-bind", str(bin_), str(bin_)) in told
    assert ("--tmpfs", f"{tmp_path}/home/.ssh") in told
    assert ("--ro-bind", str(bin_), str(bin_)) in mounts(tmp_path, walls, "ls", str(bin_))


def test_what_is_not_written_in_full_opens_nothing(
    tmp_path: Path, walls: Walls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of the checkout may be a link to a secret, and an empty word of PATH means wherever we are."""
    checkout = tmp_path / "repository/.coordination/agent_workspaces/A"
    (tmp_path / "home/.ssh/id").write_text("secret")
    (tmp_path / "home/.ssh/id").chmod(0o700)
    (checkout / "run").symlink_to(tmp_path / "home/.ssh/id")
    monkeypatch.chdir(tmp_path / "home/.ssh")
    for argv, path in ((["./run"], PATH), (["run"], f"{PATH}:"), (["cat", "id"], f":{PATH}:."), (["id"], ".")):
        told = mounts(tmp_path, walls, *argv, path=path)
        assert [mount for mount in told if mount[0] == "--ro-bind" and ".ssh" in mount[1]] == []


def test_without_the_network_unless_it_is_asked_for(tmp_path: Path, walls: Walls) -> None:
    """One namespace more."""
    lines = [
        sandbox.arguments(["true"], replace(walls, network=network), directory=tmp_path, temporary=None)
        for network in (False, True)
    ]
    assert ["--unshare-net" in line for line in lines] == [True, False]


@pytest.mark.parametrize("program", ["", "/bin/true", "no-bwrap"])
def test_a_sandbox_is_found_only_where_it_works(tmp_path: Path, program: str) -> None:
    """None on PATH, or one that fails: asked by trying."""
    if program:
        (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "bwrap").chmod(0o755)
        (tmp_path / "true").symlink_to("/bin/true")
    assert sandbox.find(str(tmp_path)) == ""


@needs_sandbox
def test_how_a_command_ends_is_the_same_within_walls_and_without(tmp_path: Path, walls: Walls) -> None:
    """Exit codes, signals, what is not there, what cannot be executed."""
    checkout = tmp_path / "repository/.coordination/agent_workspaces/A"
    (checkout / "broken").write_text("#!/nonexistent\n")
    (checkout / "broken").chmod(0o755)
    commands = (["true"], ["sh", "-c", "exit 3"], ["sh", "-c", "kill -9 $$"], ["no-such-program"], ["./broken"])
    codes = [[run(tmp_path, each, *argv).code for argv in commands] for each in (walls, sandbox.PLAIN)]
    assert codes == [[0, 3, 137, 127, 127]] * 2


@needs_sandbox
def test_a_command_in_the_sandbox_is_ended_at_its_time(tmp_path: Path, walls: Walls) -> None:
    """With all that it started, in whatever session."""
    told = sandbox.run(
        ["sh", "-c", "setsid sleep 600 & echo began; sleep 600"],
        name="command",
        directory=tmp_path / "repository/.coordination/agent_workspaces/A",
        log=tmp_path / "log",
        environment={"PATH": PATH, "MARK": str(tmp_path)},
        timeout_seconds=1.0,
        walls=walls,
    )
    assert (told.code, told.output) == (124, "began\n\n(killed after 1 s)\n")
    left = [path for path in Path("/proc").glob("[0-9]*/environ") if f"MARK={tmp_path}".encode() in content(path)]
    assert left == []


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_a_sandbox_that_cannot_be_made_is_nobodys_failure(tmp_path: Path, walls: Walls) -> None:
    """It says what it said, and no exit code is taken for the command's."""
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: no namespaces today'; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    with pytest.raises(Unsuitable, match="no namespaces today"):
        run(tmp_path, replace(walls, program=str(tmp_path / "bwrap")), "true")
    with pytest.raises(Unsuitable, match="cannot be started"):
        run(tmp_path, replace(walls, program=str(tmp_path / "gone")), "true")


@needs_sandbox
def test_a_resolver_is_there_for_who_may_use_the_network(tmp_path: Path, walls: Walls) -> None:
    """Names can be looked up: the file is read, wherever it really is."""
    if not Path("/etc/resolv.conf").exists():
        pytest.skip("no resolver is configured here")
    program = "import pathlib; pathlib.Path('/etc/resolv.conf').read_text()"
    assert run(tmp_path, replace(walls, network=True), sys.executable, "-c", program).code == 0
