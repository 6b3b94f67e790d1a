"""What every test gets: no settings of the machine it runs on, and a real repository for the asking."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# Several processes share the machine, so how long one example takes says nothing.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

_OWN = ("ANTHROPIC_", "CLAUDE", "COORDINATION_", "GIT_")
_KEPT = {"COORDINATION_CLAUDE"}  # which binary to drive is the caller's to say
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


@pytest.fixture(scope="session", autouse=True)
def neutral_environment() -> Iterator[None]:
    """Tests see neither keys nor git settings nor a coordination home of the one who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OWN) and name not in _KEPT]:
            patch.delenv(name)
        for name, value in _GIT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on the branch main, in a path with a space."""
    root = tmp_path / "the repository"
    root.mkdir()
    (root / "README.md").write_text("A repository.\n")
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True, timeout=30)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in ``e2e/`` is marked so."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)
