"""What is left of runs that are over, and which runs are over without the log knowing? Found, and put right.

The loop settles dead runs by itself, when it next runs. The rest is what a kill at the worst moment leaves for good,
and ``coord repair`` finds. Nothing is destroyed: what a workspace holds is kept under a ref or moved aside, a run's
directory stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from coordination import locks
from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.model.state import Run, State
from coordination.model.tasks import Status
from coordination.supervisor.children import Children, reap, strays
from coordination.supervisor.observing import Observer

_OVER = (Status.MERGED, Status.DONE)  # of others that ended the workspace stays, for the person who looks


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that should not be there, and what is done about it."""

    kind: Literal["processes", "run", "workspace"]
    name: str  # of the run or the workspace
    found: str
    remedy: str


def examine(coordinator: Coordinator) -> list[Leftover]:
    """Look, and change nothing. Beside a supervisor only processes of ended runs: the rest is its own to care for."""
    if locks.held(coordinator.supervisor_lock):
        return list(_processes(coordinator))
    return _all(coordinator)


def mend(coordinator: Coordinator) -> list[Leftover]:
    """Put right what ``examine`` finds, and say what that was. Raises LockHeld beside a supervisor."""
    with coordinator.alone():
        found = _all(coordinator)
        observer = Observer(coordinator, Children(), lambda _step: None)
        for left in found:
            if left.kind == "processes":
                reap(coordinator.run_marker(left.name))
            elif left.kind == "run":
                _settle(coordinator, observer, left.name)
        # after the runs: one that has ended just now leaves its workspace like any other
        workspaces = [_removed(coordinator, left) for left in unneeded_workspaces(coordinator, coordinator.state())]
    return [*(left for left in found if left.kind != "workspace"), *workspaces]


def _all(coordinator: Coordinator) -> list[Leftover]:
    state = coordinator.state()
    return [*_processes(coordinator), *_runs(coordinator, state), *unneeded_workspaces(coordinator, state)]


def ended_processes(coordinator: Coordinator) -> dict[int, str]:
    """Processes of this repository's runs that have ended, with the run they are of."""
    # processes first: a run stands in the log before it has any, so one that begins just now is known to be alive
    found = strays(coordinator.run_marker(""))
    live = {run.id for run in coordinator.state().live_runs()}
    return {number: run for number, run in found.items() if run not in live}


def _processes(coordinator: Coordinator) -> Iterator[Leftover]:
    found = ended_processes(coordinator)
    for run in sorted(set(found.values())):
        numbers = sorted(number for number, its in found.items() if its == run)
        yield Leftover(
            kind="processes",
            name=run,
            found=f"process {', '.join(map(str, numbers))} of a run that has ended",
            remedy="killed",
        )


def _runs(coordinator: Coordinator, state: State) -> Iterator[Leftover]:
    for run in state.live_runs():
        directory = coordinator.run_directory(run.id)
        if locks.held(directory / "worker.lock") or not _begun(coordinator, run):
            continue  # it works on, and the next supervisor adopts it; or it only waits to be begun
        claimed = (directory / "outcome.json").exists()
        yield Leftover(
            kind="run",
            name=run.id,
            found="it has ended, and the log does not know how" if claimed else "its worker is gone without an outcome",
            remedy="what it left running is killed, and its end is recorded",
        )


def _begun(coordinator: Coordinator, run: Run) -> bool:
    return bool(run.started_at) or (coordinator.run_directory(run.id) / "worker.json").exists()


def _settle(coordinator: Coordinator, observer: Observer, name: str) -> None:
    state = coordinator.state()
    events = observer.events(state, state.run(name))
    coordinator.transact(lambda now: events if now.run(name).live else [])


def unneeded_workspaces(coordinator: Coordinator, state: State) -> Iterator[Leftover]:
    """Those that no run is in and no person wants to look into, and those that are half made."""
    live = {run.task for run in state.live_runs()}
    broken = set(coordinator.workspaces.broken())
    for name in sorted(broken | set(coordinator.workspaces.names())):
        task = state.get(name.partition(".")[0])
        if task is None or task.id in live:
            continue
        if name in broken:
            yield Leftover(
                kind="workspace",
                name=name,
                found="it is half made, or git and the directory do not know each other",
                remedy="its files are moved to set_aside, and it is made anew when it is needed",
            )
        elif task.status in _OVER or name != task.id:
            yield Leftover(
                kind="workspace",
                name=name,
                found=f"{task.id} is {task.status}" if name == task.id else "its run has ended",
                remedy="what is in it is kept under a ref, and it is removed",
            )


def _removed(coordinator: Coordinator, left: Leftover) -> Leftover:
    try:
        kept = coordinator.workspaces.remove(left.name, left.name.partition(".")[0])
    except (CoordinationError, OSError, RecursionError) as error:
        return msgspec.structs.replace(left, remedy=f"it was kept: {error}")
    return msgspec.structs.replace(left, remedy=f"{left.remedy}: {kept}") if kept else left
