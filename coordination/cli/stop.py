"""How does the supervisor end: after the turn, after the tasks, or at once?"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import note, tell
from coordination.errors import CoordinationError

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator

FORCE_SECONDS = 5.0
_LOOK_SECONDS = 0.1


@verb("coord stop", "coord stop --drain --timeout 3600", "coord stop --force")
@click.option("--drain", is_flag=True, help="Let tasks that are under way come to their end; start nothing new.")
@click.option("--force", is_flag=True, help="Kill the runs and, if it does not end, the supervisor; nothing else.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=click.FloatRange(min=0),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for its end.",
)
@click.pass_obj
def command(session: Session, drain: bool, force: bool, timeout_seconds: float) -> int:
    """Stop the supervisor. Agents that run are asked to finish their turn; their tasks go back to the queue.

    Without a supervisor it says so and exits 0. If it does not end in time the exit code is 1; it was asked, and ends
    when it can.
    """
    if drain and force:
        raise click.UsageError("--drain and --force exclude each other")
    coordinator = session.writing()
    running = coordinator.supervisor()["running"]
    if running:
        mode = "force" if force else "drain" if drain else "finish"
        ended = _ask(coordinator, mode, min(timeout_seconds, FORCE_SECONDS) if force else timeout_seconds)
        if not ended and force:
            _kill(coordinator)
        elif not ended:
            raise CoordinationError(_still(coordinator, timeout_seconds))
    left = _reap(coordinator) if force else 0
    if left:
        tell(f"Killed {left} processes that runs had left.")
    tell("The supervisor has stopped." if running else "No supervisor runs here.")
    return 0


def _ask(coordinator: Coordinator, mode: str, timeout_seconds: float) -> bool:
    """Ask, and wait until its lock is free. Asked again each time, as one that just starts cannot hear it yet."""
    from coordination import locks

    deadline = time.monotonic() + timeout_seconds
    told = ""
    while locks.held(coordinator.supervisor_lock):
        coordinator.stop(mode)
        if time.monotonic() >= deadline:
            return False
        waits = ", ".join(run.id for run in coordinator.state().live_runs())
        if waits and waits != told:
            note(f"waiting for {waits}")
            told = waits
        time.sleep(_LOOK_SECONDS)
    return True


def _still(coordinator: Coordinator, timeout_seconds: float) -> str:
    runs = ", ".join(run.id for run in coordinator.state().live_runs()) or "no run"
    pid = coordinator.supervisor()["pid"]
    return (
        f"the supervisor (pid {pid}) still runs after {timeout_seconds:g} s, with {runs}; "
        "it was asked to stop and will; `coord stop --force` does not wait"
    )


def _kill(coordinator: Coordinator) -> None:
    """End that very process: the one that signed the lock and still holds it."""
    from coordination import locks
    from coordination.supervisor.children import send

    who = locks.holder(coordinator.supervisor_lock)
    if who is None or not send(who, signal.SIGKILL):
        return
    deadline = time.monotonic() + FORCE_SECONDS
    while locks.held(coordinator.supervisor_lock):
        if time.monotonic() >= deadline:
            raise CoordinationError(f"pid {who.pid} was killed but its lock is still held; try again in a moment")
        time.sleep(_LOOK_SECONDS)
    tell(f"Killed the supervisor, pid {who.pid}.")


def _reap(coordinator: Coordinator) -> int:
    """Kill what the runs of a dead supervisor left; under its lock, so that no new one is just taking them over."""
    from coordination import locks
    from coordination.supervisor.children import reap

    held = locks.hold(coordinator.supervisor_lock)
    if held is None:
        return 0
    with held:
        uuid = coordinator.store.log.uuid
        return sum(reap(f"{uuid}/{run.id}") for run in coordinator.state().live_runs())
