"""The backend without a model: which actions a prompt asks for, and what they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordination.agents import create
from coordination.agents.scripted import chosen
from coordination.errors import UsageError
from coordination.model.runs import AgentRequest, Ending, Outcome


def prompt(script: Any, before: str = "") -> str:
    return f"{before}\n```script\n{json.dumps(script)}\n```\nafter\n"


def played(tmp_path: Path, script: Any, **fields: Any) -> Outcome:
    request = AgentRequest(
        run="T.1.work",
        task="T",
        role="green",
        backend="scripted",
        prompt=script if isinstance(script, str) else prompt(script),
        instructions="",
        model="",
        directory=str(tmp_path),
        run_directory=str(tmp_path),
        **({"writes": True} | fields),
    )
    return create("scripted", {}).run(request, progress=lambda _: None, stopping=lambda: "")


def test_actions_are_chosen_by_purpose_then_by_text() -> None:
    """One task's script can tell its work, its second round and its review apart."""
    cases = [{"contains": ["What happened before", "conflict"], "do": {"report": "again"}}]
    script = {"by_purpose": {"review": {"verdict": "approve"}}, "match": cases, "do": {"report": "first"}}
    assert chosen(prompt(script), "review") == {"verdict": "approve"}
    assert chosen(prompt(script), "work") == {"report": "first"}
    assert chosen(prompt(script, "## What happened before\na conflict"), "work") == {"report": "again"}
    assert chosen(prompt({"report": "plain"}), "work") == {"report": "plain"}


def test_a_quoted_prompt_still_carries_its_script() -> None:
    """A review's prompt quotes the task's prompt in a longer fence; the script is found inside."""
    assert chosen(f"# Review\n````\n{prompt({'report': 'x'})}\n````\n", "review") == {"report": "x"}


@pytest.mark.parametrize("text", ["no script", "```script\n{\n```", "```script\n[1]\n```", prompt({"match": []})])
def test_a_prompt_without_a_playable_script_is_a_failed_run(tmp_path: Path, text: str) -> None:
    """Nothing is invented when the script is missing or broken."""
    outcome = played(tmp_path, text)
    assert (outcome.ending, outcome.code) == (Ending.FAILED, "no_script")


def test_files_are_deleted_and_costs_reported(tmp_path: Path) -> None:
    """Everything a run can do to a workspace and to a bill can be rehearsed."""
    (tmp_path / "old.txt").touch()
    outcome = played(tmp_path, {"delete": ["old.txt", "../x"], "cost_usd": 1.5})
    assert not (tmp_path / "old.txt").exists()
    assert outcome.usage.cost_usd == 1.5
    assert len(outcome.denials) == 1


def test_any_ending_can_be_rehearsed(tmp_path: Path) -> None:
    """Limits with their reset, failures with their code."""
    outcome = played(tmp_path, {"ending": "limited", "code": "usage_limit_reached", "resets_at": 7.0})
    assert (outcome.ending, outcome.code, outcome.resets_at) == (Ending.LIMITED, "usage_limit_reached", 7.0)


def test_a_backend_that_is_not_there_is_named() -> None:
    """A wrong setting is a usage error that says which module was looked for."""
    with pytest.raises(UsageError, match=r"coordination/agents/nobody\.py"):
        create("nobody", {})
