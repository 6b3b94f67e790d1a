"""Observe, decide, act, rest: the process that turns tasks into runs."""

from __future__ import annotations

from coordination.supervisor.loop import Supervisor

__all__ = ["Supervisor"]
