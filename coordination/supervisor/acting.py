"""How does a run begin and end? Spawns what is planned, stops what is no longer wanted; looks only at state.

Everything here may be repeated: a request that is there is not written again, and a worker that comes second leaves.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from coordination import environment, files, locks
from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome, Purpose
from coordination.model.state import Run, State, Task
from coordination.supervisor import requests
from coordination.supervisor.children import Children, reap, send
from coordination.supervisor.papers import identity, told

START_SECONDS = 60.0  # a worker that has not begun by then will not


class Actor:
    """Starts and stops workers, and remembers for how long it has been waiting for each."""

    def __init__(self, coordinator: Coordinator, children: Children, mark: Callable[[str], None]) -> None:
        self._coordinator, self._children, self._mark = coordinator, children, mark
        self._first_seen: dict[str, float] = {}  # run -> when we first saw that it has not begun, or runs; monotonic
        self._killing: dict[str, float] = {}  # run -> when SIGKILL follows, monotonic

    def act(self, state: State, mode: str) -> None:
        """Spawn what is planned and not begun; stop what is no longer wanted. ``mode``: how the supervisor stops."""
        for run in state.live_runs():
            task = state.tasks[run.task]
            why = self._unwanted(task, run, mode)
            begun = (self._coordinator.run_directory(run.id) / "worker.json").exists()
            if why:
                self._stop(run, why, at_once=mode == "force", begun=begun)
            elif begun:
                self._take_back(run)
            elif not run.started_at and not self._children.mine(run.id):
                self._spawn(task, run)
            elif self._waited(run) > START_SECONDS:
                self._kill(run)  # whoever holds the lock, or should: it hangs before it did anything

    def stopping(self, run: Run) -> bool:
        """Whether it was asked to stop, and must be when its grace is over."""
        return run.id in self._killing

    def _take_back(self, run: Run) -> None:
        """What an earlier supervisor wished and did not live to do: a later crash must not be taken for a stop."""
        files.discard(self._coordinator.run_directory(run.id) / "stop.json")

    def _unwanted(self, task: Task, run: Run, mode: str) -> str:
        if task.status.ended:
            return f"the task is {task.status}"
        if mode in ("finish", "force"):
            return "the supervisor stops"
        settings = self._coordinator.settings
        limit = run.limits.timeout_seconds + settings.setup.most_seconds + 3 * settings.supervisor.stop_grace_seconds
        # Not by the wall clock: one that jumps (a laptop that slept) must not end every run.
        return "timeout" if run.started_at and self._waited(run) > limit else ""

    def _waited(self, run: Run) -> float:
        """For how long we have seen the run as it is: not begun, or running. In seconds."""
        stage = f"{run.id} {'runs' if run.started_at else 'begins'}"
        return time.monotonic() - self._first_seen.setdefault(stage, time.monotonic())

    def _kill(self, run: Run) -> None:
        """End whatever is of that run: who holds its lock, by name; the rest by the marker."""
        lock = self._coordinator.run_directory(run.id) / "worker.lock"
        who = locks.holder(lock) if locks.held(lock) else None
        if who is not None:
            send(who, signal.SIGKILL)
        reap(self._coordinator.run_marker(run.id))

    def _spawn(self, task: Task, run: Run) -> None:
        directory = self._coordinator.run_directory(run.id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = self._coordinator.home.state / "scratch" / run.id
        for name in ("home", "tmp"):
            (scratch / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mark("request:before")
        if not (directory / "request.json").exists():
            try:
                request = requests.build(self._coordinator, task, run)
            except CoordinationError as error:
                self._unbuildable(run, error)
                return
            files.publish_json(directory / "request.json", msgspec.to_builtins(request))
        self._mark("request:after")
        built = environment.build(
            os.environ,
            self._coordinator.settings.environment.passed,
            home=str(scratch / "home"),
            scratch=str(scratch / "tmp"),
            marker=self._coordinator.run_marker(run.id),
        )
        self._mark("spawn:before")
        self._children.spawn(run.id, directory, built)
        self._mark("spawn:after")

    def _unbuildable(self, run: Run, error: CoordinationError) -> None:
        # a landing that was never begun says nothing about the work, and must not send it back
        ending = Ending.CRASHED if run.purpose is Purpose.LANDING else Ending.FAILED
        outcome = Outcome(ending=ending, code="request", reason=f"the run cannot be prepared: {error}")
        ended = e.RunEnded(task=run.task, run=run.id, outcome=outcome)
        self._coordinator.transact(lambda state: [ended] if state.run(run.id).live else [])

    def _stop(self, run: Run, why: str, *, at_once: bool, begun: bool) -> None:
        """Ask, wait, insist: SIGTERM to the worker, SIGKILL to everything of the run when its grace is over."""
        directory = self._coordinator.run_directory(run.id)
        first = run.id not in self._killing
        if first:
            grace = 0.0 if at_once else self._coordinator.settings.supervisor.stop_grace_seconds * 2
            self._killing[run.id] = time.monotonic() + grace
        overdue = at_once or time.monotonic() >= self._killing[run.id]
        if not begun and not run.started_at:
            self._revoke(run, directory, why, overdue=overdue)
            return
        files.make_directory(directory)
        who = identity(told(directory / "worker.json"))
        if first:
            files.publish_json(directory / "stop.json", {"why": why})
            self._mark("stop:before")
            if who is not None:
                send(who, signal.SIGTERM)
            self._mark("stop:after")
        if overdue:
            self._kill(run)

    def _revoke(self, run: Run, directory: Path, why: str, *, overdue: bool) -> None:
        """A run that has not begun is given up on disk first; whoever begins after that leaves at once."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.publish(directory / "revoked", b"")
        self._mark("revoked")
        if locks.held(directory / "worker.lock") or (directory / "worker.json").exists():
            if overdue:
                self._kill(run)  # it hangs between its lock and its beginning
            return
        reap(self._coordinator.run_marker(run.id))  # one that hangs before its lock
        outcome = Outcome(ending=Ending.STOPPED, code="revoked", reason=f"never began: {why}")
        ended = e.RunEnded(task=run.task, run=run.id, outcome=outcome)
        self._coordinator.transact(lambda state: [ended] if state.run(run.id).live else [])
        self.forget(run)

    def forget(self, run: Run) -> None:
        """The log knows its end: nothing about it needs to be remembered here."""
        self._children.forget(run.id, self._coordinator.run_group(run.id))
        self._killing.pop(run.id, None)
        for stage in ("begins", "runs"):
            self._first_seen.pop(f"{run.id} {stage}", None)
