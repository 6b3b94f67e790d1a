"""Whether there is a key or a login that an agent could use."""

from __future__ import annotations

from coordination.model.facts import Facts
from coordination.model.state import Task
from coordination.policy import Hold, Policy

CLAUDE = "claude"


class Login(Policy[None]):
    """Without one nothing that needs Claude Code starts: it would only fail, and use up attempts."""

    name = "login"

    def admit(self, memory: None, facts: Facts, task: Task) -> Hold | None:
        """Hold a task whose role is driven by Claude Code, unless the supervisor has credentials."""
        del memory
        roles = [role for role in facts.roles.values() if task.spec.role in (role.name, "auto")]
        backends = {facts.settings.agents.backend or role.backend for role in roles}
        if facts.signed_in or CLAUDE not in backends:
            return None
        return Hold(
            reason="the supervisor was started without a key or login: set ANTHROPIC_API_KEY, or "
            "CLAUDE_CODE_OAUTH_TOKEN from `claude setup-token`, then `coord stop` and `coord start`"
        )


policy = Login()
