"""Do the scripts prepare what they need, once, from anywhere, and say what is wrong?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(program: str, checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Source the scripts' common part as they do, then run ``program``."""
    command = ["bash", "-c", f'set -euo pipefail; . "$1/scripts/environment.sh"; {program}', "-", str(checkout)]
    everything = os.environ | environment
    return subprocess.run(command, cwd="/", env=everything, capture_output=True, text=True, check=False, timeout=50)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts of a checkout in a path with a space, without an environment."""
    root = tmp_path / "a check out"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture
def prepared(checkout: Path) -> Path:
    """A checkout whose environment is marked as installed. There is no pip in it: whoever installs, fails."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(checkout / ".venv")], check=True, timeout=50)
    coord = checkout / ".venv/bin/coord"
    coord.write_text('#!/bin/sh\nfor argument; do printf "<%s>" "$argument"; done\n')
    coord.chmod(0o755)
    marked = run('wanted >"$venv/.installed-plain"', checkout)
    assert marked.returncode == 0, marked.stderr
    return checkout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say() -> None:
    """The scripts are free of the usual mistakes."""
    scripts = [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"]
    command = ["shellcheck", "--external-sources", *map(str, scripts)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("start.sh", ["--demo", "--keep"], "<demo><--keep>"),
        ("start.sh", ["--repo", ".", "--once"], "<-C><.><start><--once>"),
        ("start.sh", ["--foreground"], "<-C><.><start><--foreground>"),
        ("stop.sh", ["--force"], "<-C><.><stop><--force>"),
        ("stop.sh", ["--timeout", "3 4", "--repo=/"], "<-C></><stop><--timeout><3 4>"),
        ("monitor.sh", [], "<-C><.><status>"),
        ("monitor.sh", ["--status", "--json"], "<-C><.><status><--json>"),
        ("monitor.sh", ["--agents"], "<-C><.><monitor><--agents>"),
        ("monitor.sh", ["--agents", "--once"], "<-C><.><monitor><--agents><--once>"),
        ("monitor.sh", ["--live", "--repo", "/"], "<-C></><monitor>"),
        ("repair.sh", [], "<-C><.><repair>"),
        ("repair.sh", ["--repair-all"], "<-C><.><repair><--apply>"),
        ("repair.sh", ["--apply", "--json"], "<-C><.><repair><--apply><--json>"),
    ],
)
def test_a_script_runs_the_command_with_its_arguments(
    prepared: Path, tmp_path: Path, script: str, arguments: list[str], told: str
) -> None:
    """From any directory, and without installing again, each script ends in one command of coord."""
    result = subprocess.run(
        [str(prepared / "scripts" / script), *arguments],
        cwd=tmp_path,
        env=os.environ | {"COORDINATION_CLAUDE": "/bin/true"},
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == told


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("start.sh", ["--interactive"], "comes with a later version"),
        ("start.sh", ["--create-examples"], "comes with a later version"),
        ("stop.sh", ["--repo"], "expected a directory after it"),
        ("stop.sh", ["--repo", "/nothing/there"], "found none at /nothing/there"),
    ],
)
def test_what_a_script_cannot_do_it_says_and_exits_2(
    checkout: Path, script: str, arguments: list[str], told: str
) -> None:
    """A refused call is told from a failed one, and installs nothing first."""
    command = [str(checkout / "scripts" / script), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert result.returncode == 2
    assert told in result.stderr
    assert not (checkout / ".venv").exists()


def test_an_environment_is_remade_when_what_it_was_made_from_changed(prepared: Path) -> None:
    """A changed pyproject.toml or a moved checkout is noticed; nothing else is."""
    program = 'if up_to_date ""; then printf current; else printf stale; fi'
    assert run(program, prepared).stdout == "current"
    moved = prepared.rename(prepared.with_name("moved"))
    assert run(program, moved).stdout == "stale"
    moved.rename(prepared)
    (prepared / "pyproject.toml").write_text("# changed\n")
    assert run(program, prepared).stdout == "stale"


def test_without_a_new_enough_python_the_script_says_what_it_needs(checkout: Path, tmp_path: Path) -> None:
    """An interpreter that is too old, or a shim with nothing behind it, is not taken for one."""
    shims = tmp_path / "shims"
    shims.mkdir()
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13", "python3.14"):
        (shims / name).write_text("#!/bin/sh\nexit 1\n")
        (shims / name).chmod(0o755)
    result = run("find_python", checkout, PATH=f"{shims}:/usr/bin:/bin")
    assert result.returncode == 1
    assert "Python 3.11 or newer is needed" in result.stderr


def test_a_python_without_ensurepip_is_told_from_a_broken_one(checkout: Path, tmp_path: Path) -> None:
    """On Debian the module is a package of its own: the message names it, and nothing half-made stays behind."""
    (tmp_path / "ensurepip.py").write_text("raise ImportError\n")
    result = run("make_venv", checkout, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "apt install python3-venv" in result.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("how", ["alone", "alone_by_directory"])
def test_two_scripts_at_once_prepare_one_after_the_other(checkout: Path, how: str) -> None:
    """Only one is inside at a time, with and without flock, and all get their turn."""
    inside = 'inside() { mkdir "$root/inside"; "$1" -c ""; rmdir "$root/inside"; printf x >>"$root/turns"; }'
    program = f'{inside}; mkdir -p "$venv"; {how} inside "{sys.executable}"'
    command = ["bash", "-c", f'set -euo pipefail; . "$1/scripts/environment.sh"; {program}', "-", str(checkout)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    told = [process.communicate(timeout=50)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0, 0], told
    assert (checkout / "turns").read_text() == "xxxx"
