"""What a decision may depend on besides the state: time, settings, roles and what git said."""

from __future__ import annotations

from typing import Any

from coordination.model.roles import Role
from coordination.model.runs import Value
from coordination.model.tasks import TaskSpec
from coordination.settings import Settings


class Facts(Value, frozen=True, kw_only=True):
    """Observed once a turn of the loop, before deciding."""

    now: float  # seconds since the epoch
    settings: Settings = Settings()
    roles: dict[str, Role] = {}
    integration: str = ""  # head of the integration branch; "" when it does not exist
    astray: str = ""  # why nothing may land on the integration branch, and what to run; "": it may
    bases: dict[str, str] = {}  # task -> the SHA its ``base`` names, "" when it is not acceptable
    starting: bool = True  # False while draining: what runs may finish, nothing new starts
    stopping: bool = False  # no run of any kind starts; only what ended is settled
    signed_in: bool = True  # the supervisor has a key or login that its runs could use
    memories: dict[str, Any] = {}  # policy name -> its folded memory

    def account(self, role: Role) -> str:
        """Whose limits a run of that role shares: those of the backend's login."""
        return self.settings.agents.backend or role.backend

    def model(self, role: Role) -> str:
        """What runs of a role use at first: what the settings say, else the role."""
        override = self.settings.roles.get(role.name)
        return override.model if override is not None and override.model else role.model

    def fallback_model(self, role: str) -> str:
        """What runs of a role use when their model will not do; "" when nobody named one."""
        override, known = self.settings.roles.get(role), self.roles.get(role)
        return (override.fallback_model if override else "") or (known.fallback_model if known else "")

    def takers(self, spec: TaskSpec) -> list[Role]:
        """The roles that a task asks for, or that its kind is routed to."""
        roles = [self.roles[spec.role]] if spec.role in self.roles else list(self.roles.values())
        return [role for role in roles if spec.role != "auto" or spec.kind in role.kinds]

    def slots(self, role: str) -> int:
        """How many runs of a role may live at once."""
        override = self.settings.roles.get(role)
        if override is not None and override.slots is not None:
            return override.slots
        known = self.roles.get(role)
        return known.slots if known is not None else 0
