"""Without a key or login, what would only fail does not start."""

from __future__ import annotations

import pytest

from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.state import Task
from coordination.model.tasks import TaskSpec
from coordination.policy.login import policy
from coordination.settings import Agents, Settings

GREEN = Role(name="green", description="", instructions="", model="sonnet", writes=True)
OWN = Role(name="own", description="", instructions="", model="", writes=True, backend="scripted")


def task(role: str = "auto") -> Task:
    return Task(id="a", spec=TaskSpec(prompt="do", title="do", role=role), digest="", seq=1, index=0, submitted_at=0.0)


@pytest.mark.parametrize(
    ("signed_in", "backend", "role", "held"),
    [
        (False, "", "auto", True),
        (False, "", "green", True),
        (False, "", "own", False),
        (False, "scripted", "auto", False),
        (False, "claude", "own", True),
        (True, "", "auto", False),
    ],
)
def test_only_what_needs_claude_code_is_held(signed_in: bool, backend: str, role: str, held: bool) -> None:
    """A task is held when its role is driven by Claude Code and the supervisor has neither key nor login."""
    settings = Settings(agents=Agents(backend=backend))
    facts = Facts(now=0.0, settings=settings, roles={"green": GREEN, "own": OWN}, signed_in=signed_in)
    answer = policy.admit(None, facts, task(role))
    assert (answer is not None) is held
    if answer is not None:
        assert "ANTHROPIC_API_KEY" in answer.reason
