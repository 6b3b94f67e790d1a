"""How much time, money and how many turns a run may use."""

from __future__ import annotations

from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import Limits
from coordination.model.state import Task
from coordination.policy import Policy


class Allowances(Policy[None]):
    """What the task says, else what the settings say. A task's budget is for all its runs together."""

    name = "allowances"

    def limit(self, memory: None, facts: Facts, task: Task, role: Role) -> Limits:
        """Limits of the next run; the budget is what the task has left."""
        del memory, role
        settings, spec = facts.settings.limits, task.spec
        budget = spec.budget_usd if spec.budget_usd is not None else settings.budget_usd
        return Limits(
            timeout_seconds=spec.timeout_seconds if spec.timeout_seconds is not None else settings.timeout_seconds,
            turns_max=int(spec.turns_max) if spec.turns_max is not None else settings.turns_max,
            budget_usd=max(0.0, budget - task.usage.cost_usd),
        )


policy = Allowances()
