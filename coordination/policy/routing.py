"""Which role takes which kind of task."""

from __future__ import annotations

from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.state import Task
from coordination.policy import VETO, Hold, Policy


class Routing(Policy[None]):
    """By kind, unless the task names a role; a role that cannot write never gets work that must write."""

    name = "routing"

    def admit(self, memory: None, facts: Facts, task: Task) -> Hold | None:
        """Hold a task that no loaded role may take."""
        if any(self.score(memory, facts, task, role) > VETO for role in facts.roles.values()):
            return None
        wanted = f"role {task.spec.role!r}" if task.spec.role != "auto" else f"any role for kind {task.spec.kind!r}"
        return Hold(reason=f"{wanted} is not loaded or may not write; `coord roles` lists what is")

    def score(self, memory: None, facts: Facts, task: Task, role: Role) -> float:
        """1 for the role that is asked for or whose kinds name this one; a veto for all others."""
        del memory, facts
        if not task.spec.kind.read_only and not role.writes:
            return VETO
        if task.spec.role != "auto":
            return 1.0 if role.name == task.spec.role else VETO
        return 1.0 if task.spec.kind in role.kinds else VETO


policy = Routing()
