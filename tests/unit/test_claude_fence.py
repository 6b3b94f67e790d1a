"""The fence of the Claude backend: which tool calls may be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordination.agents.claude.fence import Fence
from coordination.model.runs import AgentRequest

TOOLS = ("Read", "Grep", "Glob", "Write", "Edit", "NotebookEdit", "Bash")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    workspace = tmp_path / "state" / "T"
    workspace.mkdir(parents=True)
    (workspace / "sub").mkdir()
    (workspace / "out").symlink_to(tmp_path)
    (workspace / "in").symlink_to(workspace / "sub")
    (workspace / "dangling").symlink_to(tmp_path / "nothing")
    return workspace


def fence(workspace: Path, tools: tuple[str, ...] = TOOLS, **fields: Any) -> Fence:
    request = AgentRequest(
        run="T.1.work",
        task="T",
        role="green",
        backend="claude",
        prompt="",
        instructions="",
        model="",
        directory=str(workspace),
        **{"writes": True, **fields},
    )
    return Fence(request, tools)


@pytest.mark.parametrize("path", ["a.txt", "sub/new/a.txt", "in/a.txt", "{}/a.txt", "sub/../a.txt", ".gitignore", "a~"])
def test_writes_inside_pass(workspace: Path, path: str) -> None:
    """Every spelling of a place below the workspace is allowed."""
    assert fence(workspace).objection("Write", {"file_path": path.format(workspace)}) == ""


@pytest.mark.parametrize(
    "path",
    ["/etc/x", "../x", "out/x", "dangling", "{}", ".", "{}/../T2/x", "~/x", "", "a\0b", "{}x", "in/../../x"],
)
def test_writes_elsewhere_do_not(workspace: Path, path: str) -> None:
    """Neither dots, links, look-alike names nor spellings only a shell knows lead out."""
    assert fence(workspace).objection("Write", {"file_path": path.format(workspace)})


@pytest.mark.parametrize("path", [".git", ".git/config", "sub/.git/hooks/x", ".GIT/config", "sub/.git"])
def test_nothing_of_gits_is_written(workspace: Path, path: str) -> None:
    """Names of git's own are out of bounds in any case of letters."""
    assert "belongs to git" in fence(workspace).objection("Edit", {"file_path": path})


def test_a_link_to_git_is_not_written_through(workspace: Path) -> None:
    """The name under which git's files are reached does not matter."""
    (workspace / ".git").mkdir()
    (workspace / "harmless").symlink_to(workspace / ".git")
    assert "belongs to git" in fence(workspace).objection("Write", {"file_path": "harmless/config"})


@pytest.mark.parametrize("arguments", [{}, {"file_path": 7}, {"path": "a"}, {"file_path": None}])
def test_a_write_without_a_path_fails_closed(workspace: Path, arguments: dict[str, Any]) -> None:
    """What cannot be judged may not be done."""
    assert fence(workspace).objection("Write", arguments)


def test_notebooks_name_their_path_differently(workspace: Path) -> None:
    """The fence knows each tool's own word for the path."""
    assert fence(workspace).objection("NotebookEdit", {"notebook_path": "a.ipynb"}) == ""
    assert fence(workspace).objection("NotebookEdit", {"notebook_path": "/a.ipynb"})


def test_who_does_not_write_does_not(workspace: Path) -> None:
    """A reading role is refused even where the tool slipped in."""
    assert "does not write" in fence(workspace, writes=False).objection("Write", {"file_path": "a"})


def test_a_tool_that_was_not_given_is_refused(workspace: Path) -> None:
    """Subagents, servers and whatever a later version adds need to be allowed first."""
    reading = fence(workspace, ("Read",))
    for tool in ("Bash", "Task", "mcp__x__y", "SendMessage", "StructuredOutput"):
        assert "not a tool of this role" in reading.objection(tool, {})
    assert fence(workspace, ("Read",), schema={}).objection("StructuredOutput", {}) == ""


def test_the_innermost_place_decides_about_reading(workspace: Path) -> None:
    """A workspace within a denied directory is open; a denied directory within the workspace is closed."""
    private = workspace / "sub"
    judge = fence(workspace, deny_read=(str(workspace.parent), str(private)))
    assert judge.objection("Read", {"file_path": str(workspace / "a")}) == ""
    for path in (workspace.parent / "a", private / "a", private, "in/a", "out/state/a", "../a"):
        assert "not to be read" in judge.objection("Read", {"file_path": str(path)}), path
    assert judge.objection("Read", {}), "a read without a path"


def test_searching_round_a_denied_place_is_refused(workspace: Path) -> None:
    """A search reaches everything below where it begins, so it may not begin above what is denied."""
    judge = fence(workspace, deny_read=(str(workspace.parent / "secret"),))
    assert judge.objection("Grep", {"pattern": "x"}) == ""
    assert judge.objection("Glob", {"pattern": "**/*.py"}) == ""
    assert judge.objection("Grep", {"pattern": "x", "path": str(workspace.parent)})
    assert judge.objection("Glob", {"pattern": f"{workspace.parent}/*/x"})
    assert judge.objection("Glob", {"pattern": "../secret/?"})


def test_denied_writes_inside_the_workspace(workspace: Path) -> None:
    """A denied place below the workspace wins over the workspace."""
    judge = fence(workspace, deny_write=(str(workspace / "sub"), str(workspace.parent)))
    assert judge.objection("Write", {"file_path": "a"}) == ""
    assert "not to be written" in judge.objection("Write", {"file_path": "in/a"})
