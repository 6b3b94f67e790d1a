"""What a decision may depend on besides the state: time, settings, roles and what git said."""

from __future__ import annotations

from typing import Any

from coordination.model.roles import Role
from coordination.model.runs import Value
from coordination.settings import Settings


class Facts(Value, frozen=True, kw_only=True):
    """Observed once a turn of the loop, before deciding."""

    now: float  # seconds since the epoch
    settings: Settings = Settings()
    roles: dict[str, Role] = {}
    integration: str = ""  # head of the integration branch; "" when it does not exist
    bases: dict[str, str] = {}  # task -> the SHA its ``base`` names, "" when it is not acceptable
    starting: bool = True  # False while draining: what runs may finish, nothing new starts
    stopping: bool = False  # no run of any kind starts; only what ended is settled
    signed_in: bool = True  # the supervisor has a key or login that its runs could use
    memories: dict[str, Any] = {}  # policy name -> its folded memory

    def slots(self, role: str) -> int:
        """How many runs of a role may live at once."""
        override = self.settings.roles.get(role)
        if override is not None and override.slots is not None:
            return override.slots
        known = self.roles.get(role)
        return known.slots if known is not None else 0
