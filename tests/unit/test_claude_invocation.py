"""With what the Claude program is started: its path, tools, settings and environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordination.agents.claude import find_binary
from coordination.agents.claude.invocation import (
    Options,
    arguments,
    environment,
    options_from,
    prepare,
    settings,
    temporary,
)
from coordination.errors import Unsuitable, UsageError
from coordination.model.runs import AgentRequest, Limits


def program(path: Path, mode: int = 0o755) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def request(tmp_path: Path, **fields: Any) -> AgentRequest:
    program(tmp_path / "claude")
    blank: dict[str, Any] = {
        "environment": {"PATH": str(tmp_path), "HOME": "/home/x"},
        "directory": "/state/workspaces/T",
        "run_directory": str(tmp_path),
        "config_directory": str(tmp_path / "config"),
    }
    return AgentRequest(
        run="T.1.work",
        task="T",
        role="green",
        backend="claude",
        prompt="secret prompt",
        instructions="",
        model="sonnet",
        **{**blank, **fields},
    )


def command(request: AgentRequest) -> list[str]:
    return arguments(request, prepare(request, Options()), Path("/role.md"), {})


def after(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_configured_program_is_taken_or_its_absence_said(tmp_path: Path) -> None:
    """A configured path wins and is never silently replaced by another program."""
    mine, on_path = program(tmp_path / "mine"), program(tmp_path / "claude")
    assert find_binary(str(mine), str(tmp_path)) == str(mine)
    assert find_binary("", str(tmp_path)) == str(on_path)
    for missing in (tmp_path / "nowhere", program(tmp_path / "plain", 0o644)):
        with pytest.raises(Unsuitable, match="not there or not executable"):
            find_binary(str(missing), str(tmp_path))


def test_the_bundled_program_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a program on PATH the SDK's is found, without importing the SDK; without both, a person is told."""
    assert find_binary("", str(tmp_path)).endswith("_bundled/claude")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Unsuitable, match="COORDINATION_CLAUDE"):
        find_binary("", str(tmp_path))


@pytest.mark.parametrize(
    ("fields", "tools"),
    [
        ({}, ("Read", "Grep", "Glob")),
        ({"writes": True}, ("Read", "Grep", "Glob", "Write", "Edit", "NotebookEdit")),
        ({"tools": ("Read", "Write", "Edit", "Bash")}, ("Read",)),
        ({"tools": ("Read", "Task", "Edit(src/**)", "Read"), "writes": True}, ("Read", "Edit")),
        ({"tools": ("Read", "Bash(git log:*)"), "shell": True, "writes": True}, ("Read",)),
    ],
)
def test_tools_are_what_the_role_may_have(tmp_path: Path, fields: dict[str, Any], tools: tuple[str, ...]) -> None:
    """Writing, commands and reaching out are taken away where the request does not allow them, whatever is named."""
    assert prepare(request(tmp_path, **fields), Options()).tools == tools  # nothing on this PATH makes a sandbox


def test_the_prompt_and_the_surroundings_stay_out_of_the_command_line(tmp_path: Path) -> None:
    """Nobody reads a prompt in the process table; nothing of the user's or the repository's is loaded."""
    line = command(request(tmp_path))
    assert "secret prompt" not in " ".join(line)
    assert after(line, "--setting-sources") == ""
    assert "--strict-mcp-config" in line
    assert after(line, "--permission-prompts") == "none"
    assert after(line, "--permission-mode") == "default"
    assert after(command(request(tmp_path, writes=True)), "--permission-mode") == "acceptEdits"


def test_limits_models_and_schema_are_handed_over(tmp_path: Path) -> None:
    """What the program itself can keep, it is told."""
    limits = Limits(turns_max=7, budget_usd=1.5)
    line = command(request(tmp_path, limits=limits, fallback_model="haiku", schema={"type": "object"}))
    assert after(line, "--max-turns") == "7"
    assert after(line, "--max-budget-usd") == "1.5"
    assert (after(line, "--model"), after(line, "--fallback-model")) == ("sonnet", "haiku")
    assert json.loads(after(line, "--json-schema")) == {"type": "object"}
    bare = command(request(tmp_path))
    assert not {"--max-turns", "--max-budget-usd", "--fallback-model", "--json-schema", "--allowedTools"} & set(bare)


def test_a_session_is_resumed_exactly_when_it_has_begun(tmp_path: Path) -> None:
    """What is on disk decides: a run may have died before or after its session began."""
    asked = request(tmp_path, session="s", resume=True)
    assert after(command(asked), "--session-id") == "s"
    conversation = tmp_path / "config/projects/-state-T/s.jsonl"
    conversation.parent.mkdir(parents=True)
    conversation.touch()
    assert after(command(asked), "--resume") == "s"


def test_the_environment_is_the_requests_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is inherited, and what makes the program behave cannot be overridden by a request."""
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    asked = request(tmp_path, environment={"PATH": "/p", "CLAUDE_CODE_MAX_RETRIES": "99"})
    built = environment(asked, Options(retries_max=2), "/short")
    assert "SECRET_OF_OURS" not in built
    assert (built["PATH"], built["TMPDIR"], built["CLAUDE_CODE_MAX_RETRIES"]) == ("/p", "/short", "2")
    assert built["CLAUDE_CONFIG_DIR"] == str(tmp_path / "config")


def test_the_sandbox_opens_the_workspace_within_what_is_denied(tmp_path: Path) -> None:
    """A denied directory round the workspace must not close it; a denied one beside it stays denied."""
    asked = request(tmp_path, writes=True, deny_write=("/state", "/repository/.git"), deny_read=("/state",))
    sandbox = settings(asked, "canary", "/tmp/t", sandboxed=True)["sandbox"]
    assert sandbox["filesystem"]["denyWrite"] == ["/repository/.git"]
    assert sandbox["filesystem"]["denyRead"] == ["/state"]
    assert sandbox["filesystem"]["allowRead"] == ["/state/workspaces/T", "/tmp/t", str(tmp_path / "config/projects")]
    assert (sandbox["failIfUnavailable"], sandbox["allowUnsandboxedCommands"]) == (True, False)
    assert "sandbox" not in settings(asked, "canary", "/tmp/t", sandboxed=False)


def test_a_temporary_directory_is_short_enough_for_sockets(tmp_path: Path) -> None:
    """A long one is replaced for the time of the run, and the replacement is removed."""
    short = tmp_path / "t"
    with temporary(request(tmp_path, environment={"TMPDIR": "/tmp/x"})) as given:
        assert given == "/tmp/x"
    with temporary(request(tmp_path, environment={"TMPDIR": str(short / ("x" * 100))})) as given:
        assert len(given) < 64
        assert Path(given).stat().st_mode & 0o777 == 0o700
    assert not Path(given).exists()


def test_options_of_the_wrong_type_are_a_usage_error() -> None:
    """Keys meant for others pass; a wrong value is named."""
    assert options_from({"retries_max": 1, "backend": "claude"}).retries_max == 1
    with pytest.raises(UsageError, match="retries_max"):
        options_from({"retries_max": "many"})
