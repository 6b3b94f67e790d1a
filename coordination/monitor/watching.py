"""What stands in the files now? Looks as often as it is asked to, takes no lock, and reads only what moved.

The state is folded from what is durable; what is not drawn is not read. Nothing here needs a supervisor, and nothing
here is in its way. A log that cannot be read leaves what was read before in place, and says what to run.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from coordination import files, locks
from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError, LogDamaged, NotFound
from coordination.log import Log
from coordination.model.events import Record, decode
from coordination.model.state import Core, State, Task
from coordination.monitor import transcripts
from coordination.monitor.cells import Part
from coordination.monitor.papers import Paper
from coordination.monitor.seen import Lists, Live, Seen, live_of
from coordination.policy import shipped
from coordination.store.snapshot import start, uncovered

EVENTS_MAX = 500
DIFF_BYTES_MAX = 200_000
_ASK_SECONDS = 1.0  # between two looks at what changes without the log: processes, the inbox
_PATIENCE_SECONDS = 5.0  # before a log that could not be read is tried again
_REMEMBERED_MAX = 4_096


class Watch:
    """The repository as it was when ``look`` was called last. For one thread."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._core = Core()
        self._facts = coordinator.facts(signed_in=True)
        self._state: State = self._core.initial()
        self._seq = -1  # nothing was read yet
        self._epoch = 0
        self._recent: deque[Record] = deque(maxlen=EVENTS_MAX)
        self._lists = Lists(self._state, self._facts)
        self._stale = False  # whether they are of an earlier state
        self._lives = Lives(coordinator)
        self._outside: dict[str, Any] = {"supervisor": {"running": False, "pid": None}}
        self._asked = self._refused = float("-inf")
        self.trouble: CoordinationError | OSError | None = None

    def look(self) -> Seen:
        """All that is there now. Never raises for what is damaged: it says so in ``trouble``."""
        now = self._coordinator.now()
        self._follow(now)
        if not 0 <= now - self._asked < _ASK_SECONDS:
            self._asked = now
            self._ask()
        self._lives.now = now
        if self._stale:
            self._lists, self._stale = Lists(self._state, self._facts, self._lists), False
        return Seen(
            repository=self._coordinator.home.repository.root.name,
            now=now,
            seq=max(self._seq, 0),
            state=self._state,
            facts=msgspec.structs.replace(
                self._facts, now=now, signed_in=self._outside["supervisor"].get("signed_in", True)
            ),
            policies=shipped(),
            lists=self._lists,
            lives=self._lives,
            recent=self._recent,
            trouble=_told(self.trouble),
            **self._outside,
        )

    def stirred(self) -> bool:
        """Whether the log has more than was seen; costs next to nothing."""
        if self.trouble is not None:
            return False  # it is tried again in its own time
        try:
            return self._log.durable != self._seq
        except (CoordinationError, OSError):
            return True

    @property
    def _log(self) -> Log:
        return self._coordinator.store.log

    def _follow(self, now: float) -> None:
        if self.trouble is not None and 0 <= now - self._refused < _PATIENCE_SECONDS:
            return
        try:
            self._read()
            self.trouble = None
        except (CoordinationError, OSError) as error:
            self.trouble, self._refused = error, now

    def _read(self) -> None:
        log = self._log
        batches = log.read(max(self._seq, log.base), upto="durable") if self._seq >= 0 else ()
        if self._seq < 0 or log.epoch != self._epoch:
            # what is durable stays so, but after a repair the numbers may mean other batches
            batches = self._begin(log)
        for seq, payload in batches:
            records = decode(seq, payload)
            self._recent.extend(records)
            for record in records if seq > self._seq else ():
                self._state = self._core.fold(self._state, record)
            self._seq, self._stale = max(seq, self._seq), True

    def _begin(self, log: Log) -> Iterator[tuple[int, bytes]]:
        """From a snapshot, and a little before it: the newest events are shown too."""
        durable, epoch = log.durable, log.epoch
        found = start(log, self._core, self._coordinator.snapshots, seq_max=durable)
        if found is None:
            raise uncovered(log, self._coordinator.snapshots)
        self._state, self._seq, self._epoch = found.state, found.seq, epoch
        self._lists, self._stale = Lists(found.state, self._facts), False
        self._recent.clear()
        return iter(log.read(max(min(found.seq, durable - EVENTS_MAX), log.base), upto="durable"))

    def _ask(self) -> None:
        """What the log does not say. What cannot be read just now stays as it was."""
        with contextlib.suppress(OSError, ValueError, CoordinationError):
            self._outside["supervisor"] = supervisor = self._coordinator.supervisor()
            self._outside["warnings"] = self._coordinator.outdated(supervisor)
        inbox = self._coordinator.inbox
        with contextlib.suppress(OSError):
            self._outside["pending"] = len(inbox.pending())
            self._outside["rejected"] = sum(1 for _ in inbox.rejected_directory.glob("*.error.json"))
        self._outside["unproven"] = 0
        if self.trouble is None and not self._outside["supervisor"]["running"]:
            with contextlib.suppress(OSError, CoordinationError):  # what is damaged is said by who reads it next
                self._outside["unproven"] = sum(1 for _ in self._log.read(max(self._seq, 0), upto="head"))


def _told(error: CoordinationError | OSError | None) -> str:
    match error:
        case None:
            return ""
        case LogDamaged():
            return f"THE LOG IS DAMAGED: run `coord repair`. What is below is older. {error}"
        case NotFound():
            return f"THE LOG IS GONE, what is below is older. {error}"
        case _:
            return f"The log cannot be read, what is below is older: {error}"


class Lives(Mapping[str, Live]):
    """What runs do now, each looked up when it is asked for, and not again before a second has passed."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._known: dict[str, tuple[float, Live]] = {}
        self.now = 0.0

    def __getitem__(self, run: str) -> Live:
        """Also for a run of which nothing is known."""
        at, live = self._known.get(run, (float("-inf"), None))
        if live is None or not 0 <= self.now - at < _ASK_SECONDS:
            if len(self._known) > _REMEMBERED_MAX:
                self._known.clear()
            live = _looked_up(self._coordinator.run_directory(run))
            self._known[run] = self.now, live
        return live

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _looked_up(directory: Path) -> Live:
    try:
        progress = files.read_json_if_there(directory / "progress.json")
    except (OSError, ValueError):
        progress = None
    try:
        alive: bool | None = locks.held(directory / "worker.lock")
    except (OSError, CoordinationError):
        alive = None
    live = live_of(progress, alive=alive)
    return live if alive else replace(live, finished=(directory / "outcome.json").exists())


# ---- what is read of one task ----------------------------------------------------------------------------------------


def diff_of(coordinator: Coordinator, task: Task) -> str:
    """The change of its newest commit as text; "" without one. Asks git. Raises CoordinationError, OSError."""
    if not task.commit or not task.base:
        return ""
    return coordinator.workspaces.diff(task.base, task.commit, DIFF_BYTES_MAX)


class Transcripts:
    """The ends of transcripts, each read again when it has grown."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._stamp: tuple[Any, ...] = ()

    def read(self, task: Task, paper: Paper) -> Paper:
        """The paper with the transcript of the newest run that has one; the same paper when nothing is new."""
        for run in reversed(task.runs):
            path = self._coordinator.run_directory(run.id) / "transcript.jsonl"
            try:
                status = path.stat()
            except OSError:
                continue
            stamp = (run.id, status.st_size, status.st_mtime_ns)
            if stamp == self._stamp and paper.transcript_of == run.id:
                return paper
            self._stamp = stamp
            return replace(paper, transcript=_end_of(path), transcript_of=run.id)
        return replace(paper, transcript=(), transcript_of="") if paper.transcript_of else paper


def _end_of(path: Path) -> list[Part]:
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(size - transcripts.BYTES_MAX, 0))
            return transcripts.told(stream.read(transcripts.BYTES_MAX), whole=size <= transcripts.BYTES_MAX)
    except OSError as error:
        return [Part(f"It cannot be read: {error}")]
