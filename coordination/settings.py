"""``coordination.toml`` as one frozen value. ``parse(text)`` is pure; reading the file is the coordinator's."""

from __future__ import annotations

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the settings values."""


class Git(Section):
    """Branches."""

    target: str = ""  # the user's branch; written by ``coord init``
    integration: str = "coordination/integration"


class Gate(Section):
    """A command that must exit 0 on the commit."""

    argv: tuple[str, ...]
    timeout_seconds: float = 600.0
    network: bool = False


class Gates(Section):
    """Gates by name, and which of them run when a task names none."""

    default: tuple[str, ...] = ()
    named: dict[str, Gate] = {}


class LimitSettings(Section):
    """What a task may use unless its file says otherwise."""

    timeout_seconds: float = 3600.0
    turns_max: int = 200
    budget_usd: float = 5.0
    attempts_max: int = 3
    rounds_max: int = 3
    returns_max: int = 3


class Review(Section):
    """When Red looks."""

    small_lines: int = 20  # auto: a commit of at most this many changed lines whose gates passed is not reviewed


class Priority(Section):
    """Order of the queue."""

    ageing_per_minute: float = 1.0


class Retry(Section):
    """Delay before a failed task is tried again: doubles from first to most."""

    backoff_seconds: float = 5.0
    backoff_max_seconds: float = 300.0


class Supervisor(Section):
    """The loop."""

    poll_seconds: float = 1.0
    stop_grace_seconds: float = 10.0
    snapshot_batches: int = 500


class Agents(Section):
    """Driving the agent backends."""

    backend: str = ""  # overrides the roles' backend; tests and rehearsals set "scripted"
    sandbox: str = "auto"  # auto | require | off
    shell_without_sandbox: bool = False
    no_output_seconds: float = 600.0
    result_grace_seconds: float = 10.0


class RoleSettings(Section):
    """Overrides for one role."""

    model: str = ""
    fallback_model: str = ""
    slots: int | None = None


class Environment(Section):
    """Variables that runs get by name from the supervisor's own environment."""

    passed: tuple[str, ...] = ()  # key ``pass``


class Settings(Section):
    """The whole file. Every key has a default, so an empty file is valid."""

    git: Git = Git()
    gates: Gates = Gates()
    limits: LimitSettings = LimitSettings()
    review: Review = Review()
    priority: Priority = Priority()
    retry: Retry = Retry()
    supervisor: Supervisor = Supervisor()
    agents: Agents = Agents()
    roles: dict[str, RoleSettings] = {}
    environment: Environment = Environment()
    gate_slots: int = 2
