"""Is what stands in an index read as git wrote it, in each of its versions?"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coordination.workspaces.index import unseen


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, timeout=30)


@pytest.fixture(params=["sha1", "sha256"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", f"--object-format={request.param}")
    for number in range(40):
        # names of all lengths, for all paddings
        (tmp_path / ("n" * (number + 1))).write_text("x")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / ("long" * 60)).write_text("x")
    git(tmp_path, "add", "-A")
    return tmp_path


def length(root: Path) -> int:
    return 32 if "sha256" in (root / ".git/config").read_text() else 20


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_only_what_git_does_not_look_at_is_found(root: Path, version: str) -> None:
    """Each mark of the last file alone, and none of it at first, nor when it was taken back."""
    last, index = "n" * 40, root / ".git/index"

    def found() -> bool:
        git(root, "update-index", "--index-version", version)
        return unseen(index.read_bytes(), length(root))

    assert not found()
    git(root, "update-index", "--split-index")
    assert unseen(index.read_bytes(), length(root))
    git(root, "update-index", "--no-split-index")
    for bit in ("assume-unchanged", "skip-worktree"):
        git(root, "update-index", f"--{bit}", last)
        assert found()
        git(root, "update-index", f"--no-{bit}", last)
        assert not found()
    (root / "intended").write_text("x")
    git(root, "add", "--intent-to-add", "intended")
    assert not found()
    git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * length(root) * 2},sub")
    assert found()


@pytest.mark.parametrize(
    "data", [b"", b"DIRC", b"DIRC\0\0\0\2\0\0\0\1", b"XXXX\0\0\0\2\0\0\0\0", b"DIRC\0\0\0\5\0\0\0\0"]
)
def test_what_is_no_index_is_looked_at(data: bytes) -> None:
    """Unknown and torn ones are not taken for harmless."""
    assert unseen(data, 20)
