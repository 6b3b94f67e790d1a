"""Do the import contracts hold, and would they notice?"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def linted(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    config = ["--config", str(ROOT / "pyproject.toml"), "--no-cache", "--no-logo"]
    # `-c` puts the working directory first on the path: the tree given is what is linted
    return subprocess.run(
        [*command, *config, *arguments], cwd=tree, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the package, free to be spoilt."""
    shutil.copytree(ROOT / "coordination", tmp_path / "coordination", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_every_contract_is_kept() -> None:
    """The package as it stands imports downwards only."""
    result = linted(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("layers", "errors.py", "import coordination.settings"),
        ("layers", "roles.py", "import coordination.context"),
        ("layers", "surprise.py", "import coordination.errors"),
        ("core", "model/tasks.py", "import time"),
        ("core", "views.py", "import coordination.files"),
        ("run", "worker.py", "import coordination.store"),
        ("log-and-model", "log/frames.py", "import coordination.model.events"),
        ("policies", "policy/routing.py", "import coordination.policy.retries"),
        ("backends", "agents/scripted.py", "import coordination.agents.claude"),
        ("acyclic", "errors.py", "import coordination.agents"),
        ("home-of-click", "views.py", "import click"),
        ("home-of-filelock", "inbox.py", "import filelock"),
        ("home-of-orjson", "context.py", "import orjson"),
        ("home-of-psutil", "worker.py", "import psutil"),
        ("home-of-textual", "monitor/frames.py", "import rich.text"),
        ("home-of-textual", "views.py", "import textual.app"),
        ("home-of-watchdog", "inbox.py", "import watchdog.events"),
        ("home-of-yaml", "settings.py", "import yaml"),
    ],
)
def test_a_planted_import_breaks_its_contract(tree: Path, contract: str, module: str, line: str) -> None:
    """Each contract can fail: one wrong line is found."""
    path = tree / "coordination" / module
    path.write_text((path.read_text() if path.exists() else '"""New."""\n') + f"\n{line}\n")
    result = linted(tree, "--contract", contract)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout or "not listed as layers" in result.stdout
