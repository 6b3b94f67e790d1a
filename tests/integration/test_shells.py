"""Do shells complete what we offer, and does systemd take the unit that we print?"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coordination.cli import run
from coordination.cli.service import unit
from coordination.coordinator import Coordinator, locate
from coordination.errors import Unsuitable

SYSTEMD = shutil.which("systemd-analyze")

# What each shell does when the key is pressed, and a line of it for each thing that it offers.
_PRESSED = {
    "bash": r"""
        source "$SCRIPT"
        COMP_WORDS=($TYPED)
        COMP_CWORD=$((WORDS - 1))
        _coord_completion coord
        printf '%s\n' "${COMPREPLY[@]}"
    """,
    "zsh": r"""
        compdef() { : }
        _describe() { print -l -- "${(@P)${@[3]}}" }
        compadd() { print -l -- "${(@P)${@[-1]}}" }
        source "$SCRIPT"
        words=(${=TYPED})
        CURRENT=$WORDS
        _coord_completion
        true
    """,
    "fish": 'source "$SCRIPT"; complete -C "$TYPED"; true',
}


@pytest.fixture
def tasks(repository: Path) -> Path:
    """A repository in which two tasks wait and one was cancelled."""
    assert run(["-C", str(repository), "init"]) == 0
    coordinator = Coordinator(locate(repository))
    for name in ("alpha-1", "alpha-2", "beta"):
        coordinator.submit({"id": name, "prompt": "Do it", "title": "$(touch owned) `touch owned` ; touch owned"})
    assert run(["-C", str(repository), "cancel", "alpha-1"]) == 0
    return repository


def offered(shell: str, typed: str, directory: Path, scratch: Path) -> list[str]:
    """What the shell would offer after these words."""
    script = scratch / f"coord.{shell}"
    coord = [sys.executable, "-P", "-m", "coordination"]
    program = scratch / "coord"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(coord)} "$@"\n')
    program.chmod(0o700)
    script.write_bytes(
        subprocess.run([*coord, "completion", shell], capture_output=True, check=True, timeout=30).stdout
    )
    environment = {
        **os.environ,
        "PATH": f"{scratch}:{os.environ['PATH']}",
        "HOME": str(scratch),
        "SCRIPT": str(script),
        "TYPED": typed,
        "WORDS": str(len(typed.split(" "))),
    }
    bare = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [shell, *bare, "-c", _PRESSED[shell]],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    assert "error" not in done.stderr.lower(), done.stderr
    return [line.partition("\t")[0].partition(":")[0] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_tasks(shell: str, tasks: Path, tmp_path: Path) -> None:
    """Commands that begin so; ids of tasks, what has not ended first; and no title is ever run."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert offered(shell, "coord st", tasks, scratch) == ["start", "status", "stop"]
    found = offered(shell, "coord show al", tasks, scratch)
    assert found == ["alpha-2", "alpha-1"] if shell != "fish" else sorted(found) == ["alpha-1", "alpha-2"]
    assert offered(shell, "coord cancel BE", tasks, scratch) in (["beta"], [])  # fish offers only what begins so itself
    assert offered(shell, "coord show al", tmp_path, scratch) == []
    assert not [path for directory in (tasks, tmp_path, scratch) for path in directory.glob("owned")]


def test_a_shell_that_is_not_known_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """The three are named."""
    assert run(["completion", "tcsh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


def words(line: str) -> list[str]:
    """A line of a unit as systemd.syntax(7) reads it, for the escapes that we use."""
    for written, meant in (("%%", "%"), ("$$", "$")):
        line = line.replace(written, meant)
    return shlex.split(line)


@pytest.mark.parametrize("name", ["shop", "50% of $HOME", 'say "hello" \\n', "ein Weg 漢字 'x'"])
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    """Whatever the repository is called, the words are those that start and stop its supervisor."""
    root = tmp_path / name
    root.mkdir()
    text = unit(root, {"PATH": f"/usr/bin:{root}"})
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    coord = [sys.executable, "-P", "-m", "coordination", "-C", str(root)]
    assert words(lines["ExecStart"]) == [*coord, "start", "--foreground"]
    assert words(lines["ExecStop"])[:-2] == [*coord, "stop"]
    assert "SECRET" not in text
    if SYSTEMD is None:
        pytest.skip("no systemd-analyze here to verify it with")
    file = tmp_path / "coord-shop.service"
    file.write_text(text)
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    done = subprocess.run(
        [SYSTEMD, "verify", "--user", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    file.write_text(text.replace("Type=exec", "Type=nonsense"))
    done = subprocess.run(
        [SYSTEMD, "verify", "--user", str(file)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert "nonsense" in done.stderr


def test_a_path_that_cannot_stand_in_a_unit_is_refused(tmp_path: Path) -> None:
    """A line end in a path would be a line of the unit."""
    with pytest.raises(Unsuitable, match="control characters"):
        unit(tmp_path / "a\nExecStart=evil", {})


def test_the_unit_holds_no_key(
    repository: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the environment only what finds programs and the state directory."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret")
    monkeypatch.setenv("COORDINATION_CLAUDE", "/opt/claude")
    assert run(["-C", str(repository), "service"]) == 4
    assert run(["-C", str(repository), "init"]) == 0
    capsys.readouterr()
    assert run(["-C", str(repository), "service"]) == 0
    told = capsys.readouterr().out
    assert "sk-ant-secret" not in told
    assert 'Environment="COORDINATION_CLAUDE=/opt/claude"' in told
