"""Backends that do the work: one module each, found by name, unaware of each other.

A backend module exports ``create(options) -> Runner``. A runner is synchronous: the worker is one process for one
run. It is checked by ``coordination.testing.runner_conformance``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from coordination.errors import UsageError
from coordination.model.runs import AgentRequest, Outcome, Usage

Progress = Callable[[Mapping[str, Any]], None]
"""Called with what the agent does now (``tool``, ``file``, ``tokens``, ``turns``, …); cheap, may be called often."""

Stopping = Callable[[], str]
"""Asked often: "" = go on; "ask" = end the turn politely; "kill" = end now."""


class Runner(Protocol):
    """Does one request and says how it ended. Raises only for bugs: what the world does becomes an Outcome."""

    def run(self, request: AgentRequest, *, progress: Progress, stopping: Stopping) -> Outcome:
        """Run to the end of the agent's process. Never raises for what an agent, a limit or a network did."""
        ...


def create(backend: str, options: Mapping[str, Any]) -> Runner:
    """Make the runner of ``coordination.agents.<backend>``. Raises UsageError for a name that is not there."""
    return cast(Runner, _module(backend).create(options))


def spent(backend: str, run_directory: Path) -> Usage | None:
    """What a run that died had spent, as far as what it left in its directory tells; None when nothing does.

    For that a backend module may export ``spent(run_directory) -> Usage | None``. Raises UsageError, OSError.
    """
    tell = getattr(_module(backend), "spent", None)
    return None if tell is None else cast("Usage | None", tell(run_directory))


def sandbox_works(backend: str, path: str) -> bool | None:
    """Whether the backend's sandbox for commands works here; None for one that has none or needs none.

    For that a backend module may export ``sandbox_works(path) -> bool``. Raises UsageError.
    """
    tell = getattr(_module(backend), "sandbox_works", None)
    return None if tell is None else bool(tell(path))


def _module(backend: str) -> Any:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", backend):
        raise UsageError(f"agent backend {backend!r} is not a module name")
    try:
        return importlib.import_module(f"{__name__}.{backend}")
    except ModuleNotFoundError as error:
        raise UsageError(f"no agent backend {backend!r}: expected a module coordination/agents/{backend}.py") from error
