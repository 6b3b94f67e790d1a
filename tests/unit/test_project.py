"""Does the project's description agree with the project?"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import coordination
from coordination import shipped
from coordination.errors import Unsuitable

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
CORE_MAY_NOT = {
    "asyncio",
    "os",
    "pathlib",
    "random",
    "secrets",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}


def test_the_version_has_one_source() -> None:
    """The package says which release it is, and the build reads it there."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", coordination.__version__)
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "coordination/__init__.py"


def test_every_dependency_says_why_it_is_there() -> None:
    """A line without a reason cannot be judged later."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("[project.optional-dependencies]")]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) == len(PROJECT["project"]["dependencies"])
    assert all("  # " in line for line in lines)


def test_every_ignored_rule_says_why() -> None:
    """The list of rules we do not follow is a list of reasons."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\nignore = [") : text.index("[tool.ruff.lint.per-file-ignores]")]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) == len(PROJECT["tool"]["ruff"]["lint"]["ignore"])
    assert all(" # " in line for line in lines)


def test_the_core_is_kept_from_the_world() -> None:
    """The contract about the core names every part of it and every door it must not use."""
    (core,) = [one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["id"] == "core"]
    assert {name.removeprefix("coordination.") for name in core["source_modules"]} == {
        "model",
        "policy",
        "planning",
        "views",
        "notices",
        "report",
    }
    assert set(core["forbidden_modules"]) >= CORE_MAY_NOT


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_strict_and_executable(script: Path) -> None:
    """What is run stops at its first error; what is only sourced cannot be run by accident."""
    sourced = script.name == "environment.sh"
    assert os.access(script, os.X_OK) is not sourced
    assert ("\nset -euo pipefail\n" in script.read_text()) is not sourced


def test_shipped_folders_are_found_in_the_checkout() -> None:
    """From a checkout the folders beside the package are used."""
    assert shipped.roles() == ROOT / "agent_workspaces"
    assert shipped.shared_context() == ROOT / "shared_context"


def test_an_incomplete_package_says_so() -> None:
    """A folder that is not there is named, with what to do."""
    with pytest.raises(Unsuitable, match=r"'nothing_like_it'.*Install it again"):
        shipped.folder("nothing_like_it")
