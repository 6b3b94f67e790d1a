"""How fast are we? The log as it is shipped, and tasks claimed through ``Store.transact``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordination.env import REAL, Env
from coordination.log.file import FileLog, create
from coordination.model import events as e
from coordination.model.runs import Purpose
from coordination.model.tasks import TaskSpec
from coordination.store import Store
from tests.benchmarks.peers import Peer

_LOG = "log"
_SUBMITTED_AT_ONCE = 1_000


class Queue(msgspec.Struct):
    """Who holds which task. Tasks are claimed in the order they were submitted in."""

    submitted: list[str] = []
    next: int = 0  # index of the first task that nobody claimed
    holder: dict[str, str] = {}
    completed: dict[str, str] = {}


class Claims:
    """The queue as a projection. Refuses what no honest history can hold."""

    name, version = "claims", 1

    def initial(self) -> Queue:
        """Nothing was submitted."""
        return Queue()

    def fold(self, state: Queue, record: e.Record) -> Queue:
        """The queue after one record."""
        match record.event:
            case e.RunPlanned(task=task, role=role):
                assert task == state.submitted[state.next], f"{task} claimed twice or out of turn"
                state.next += 1
                state.holder[task] = role
            case e.TaskDone(task=task, report=role):
                assert state.holder.pop(task) == role, f"{task} completed by another than its holder"
                state.completed[task] = role
            case e.TaskSubmitted(task=task):
                state.submitted.append(task)
            case _:
                pass
        return state

    def dump(self, state: Queue) -> bytes:
        """All of it."""
        return msgspec.json.encode(state)

    def load(self, dump: bytes) -> Queue:
        """What was dumped."""
        return msgspec.json.decode(dump, type=Queue)


class Ours(Peer):
    """``coordination.log.file`` and ``coordination.store``."""

    name = "ours"

    def create(self, directory: Path) -> None:
        """Make an empty log."""
        create(directory / _LOG)

    def submit(self, directory: Path, tasks: int) -> None:
        """A thousand tasks a batch."""
        store = _store(FileLog(directory / _LOG))
        spec = TaskSpec(prompt="measure", title="measure")
        for first in range(1, tasks + 1, _SUBMITTED_AT_ONCE):
            numbers = range(first, min(first + _SUBMITTED_AT_ONCE, tasks + 1))
            batch = [e.TaskSubmitted(task=f"t{number}", spec=spec, digest="") for number in numbers]
            store.transact(lambda _, batch=batch: batch)  # type: ignore[misc] # a default argument binds it now
        store.log.close()

    def connect(self, directory: Path, process: int) -> OurConnection:
        """One log and one store a process."""
        return OurConnection(directory, process)

    def appended(self, directory: Path) -> int:
        """Batches that are durable; reading verifies every one."""
        log = FileLog(directory / _LOG)
        try:
            return sum(1 for _ in log.read(0, upto="durable"))
        finally:
            log.close()

    def completed(self, directory: Path) -> int:
        """Replayed from the bytes: the fold refuses a task with two winners or two completions."""
        store = _store(FileLog(directory / _LOG))
        try:
            return len(store.refresh().completed)
        finally:
            store.log.close()


class OurConnection:
    """A log for blind appends and a store for decisions."""

    def __init__(self, directory: Path, process: int, *, env: Env = REAL) -> None:
        self._log = FileLog(directory / _LOG, env=env)
        self._store = _store(self._log)  # folds what is there when it is asked first
        self._role = f"process-{process:02d}"
        self._head = 0

    def append(self, payload: bytes) -> None:
        """Behind whatever is the head."""
        self._head = self._log.append(payload, after=self._head, again=lambda: payload)

    def claim_and_complete(self) -> int | None:
        """Two transactions, each decided on the state at the head."""
        claimed = self._store.transact(self._claim)
        if claimed.seq is None:
            return None
        event = claimed.events[0]
        assert isinstance(event, e.RunPlanned)
        task = event.task
        self._store.transact(lambda state: self._complete(state, task))
        return int(task[1:])

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def _claim(self, state: Queue) -> Sequence[e.AnyEvent]:
        if state.next == len(state.submitted):
            return []
        task = state.submitted[state.next]
        run, reason = f"{task}.1.work", "the oldest task that waits for nobody, on the one slot that is free"
        return [e.RunPlanned(task=task, run=run, purpose=Purpose.WORK, role=self._role, reason=reason)]

    def _complete(self, state: Queue, task: str) -> Sequence[e.AnyEvent]:
        assert state.holder[task] == self._role, f"{task} was taken from {self._role}"
        return [e.TaskDone(task=task, evidence=e.Evidence(commit="", reason="measured"), report=self._role)]


def _store(log: FileLog) -> Store[Queue]:
    return Store(log, Claims(), None, time.time)
