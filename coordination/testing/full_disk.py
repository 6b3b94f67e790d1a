"""Does a log get over a full disk? It fills up before each write, there is room again, and the work goes on.

``SmallDisk`` is a real filesystem in memory (tmpfs) that can be filled to the last page and the last inode and emptied
again. ``filled_at_each_write`` lets one operation after the other run into that; ``writers_get_over_it`` does it to
several processes at once. Nobody is restarted: the same connections go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import CoordinationError, OutcomeUnknown, Rejected, Unsuitable
from coordination.inbox import Fate, Inbox
from coordination.log.file import FileLog, create
from coordination.log.segments import PAGE
from coordination.store import SnapshotDirectory
from coordination.testing import history
from coordination.testing.gestures import Noticing
from coordination.testing.history import Recorder
from coordination.testing.operations import PROJECTION, SNAPSHOTS, appended, log_of, mark_unfinished, saved

TRIES_MAX = 3
_TAKES_ROOM = frozenset({"write", "create", "open_write", "make_directory"})
_SIZE, _INODES = "1m", 400
_PATIENCE_SECONDS = 20.0


class SmallDisk:
    """A mounted disk of one megabyte; ``with SmallDisk(path):``. Raises Unsuitable where nothing can be mounted."""

    def __init__(self, at: Path) -> None:
        self.at = at
        self._ballast = at / "ballast"

    def __enter__(self) -> Self:
        options = f"size={_SIZE},nr_inodes={_INODES},mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.at)]
        mounted = subprocess.run(command, check=False, capture_output=True, text=True)
        if mounted.returncode:
            raise Unsuitable(f"no disk can be mounted here: {mounted.stderr.strip()}")
        self._ballast.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.at)], check=True)

    def fill(self) -> None:
        """Take up all the room and all the names there are."""
        descriptor = os.open(self._ballast / "bytes", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for size in (1 << 16, 1 << 12):
            with contextlib.suppress(OSError):
                while os.write(descriptor, bytes(size)):
                    pass
        os.close(descriptor)
        with contextlib.suppress(OSError):
            for number in range(_INODES):
                os.close(os.open(self._ballast / str(number), os.O_WRONLY | os.O_CREAT, 0o600))

    def free(self) -> None:
        """Give it all back."""
        for path in self._ballast.iterdir():
            path.unlink()


class Filling(Noticing):
    """The real world, whose disk is full from the k-th gesture that takes room on."""

    def __init__(self, at: int, fill: Callable[[], None]) -> None:
        self._left = at
        self._fill = fill
        self.armed = False

    def noticed(self, gesture: str, arguments: tuple[Any, ...]) -> None:  # noqa: ARG002 # only which one counts
        """Fill the disk when it is time."""
        if self.armed and gesture in _TAKES_ROOM:
            self._left -= 1
            if self._left == 0:
                self._fill()

    @property
    def reached(self) -> bool:
        """Whether the operation came as far as that."""
        return self._left <= 0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run tried and found."""

    cases: int = 0
    hurt: int = 0  # operations that said that they failed
    tries: Counter[int] = field(default_factory=Counter)  # how many it took afterwards
    seconds_max: float = 0.0
    violations: list[str] = field(default_factory=list)


# ---- one process -----------------------------------------------------------------------------------------------------


class Work:
    """One user of a place on the disk. Each verb may be tried again; a verb that returns has done it."""

    def __init__(self, place: Path, env: Env, recorder: Recorder, size: int) -> None:
        self._place = place
        self._env = env
        self._recorder = recorder
        self._value = "x" * size
        self._count = 0
        self._log: FileLog | None = None

    def close(self) -> None:
        """Give descriptors back."""
        if self._log is not None:
            self._log.close()

    def log(self, segment_bytes: int = 1 << 20) -> FileLog:
        """The connection, made when it is needed first."""
        if self._log is None:
            self._log = FileLog(log_of(self._place), env=self._env, segment_bytes=segment_bytes)
        return self._log

    def create(self) -> None:
        """Make the log."""
        create(log_of(self._place), env=self._env)

    def append(self) -> None:
        """Append a batch."""
        self._count += 1
        value = f"{self._count} {self._value}"
        self._recorder.invoke(value)
        try:
            self._recorder.ok(value, appended(self.log(), json.dumps({"v": value}).encode()))
        except OutcomeUnknown:
            self._recorder.unknown(value)
            raise
        except (CoordinationError, OSError):
            self._recorder.refused(value)
            raise

    def roll(self) -> None:
        """Append a batch to a segment that is full."""
        self.log(segment_bytes=1)
        self.append()

    def recover(self) -> None:
        """Append after somebody was killed in the middle of it."""
        mark_unfinished(self._place, REAL)
        self.append()

    def recover_without_page(self) -> None:
        """Append after the page was lost."""
        files.discard(log_of(self._place) / PAGE)
        self.append()

    def snapshot(self) -> None:
        """Save one."""
        SnapshotDirectory(self._place / SNAPSHOTS, env=self._env).save(saved(1 << 10))

    def publish(self) -> None:
        """Replace a file."""
        files.publish(self._place / "published", self._value.encode(), env=self._env)

    def accept(self) -> None:
        """A task file becomes a batch."""
        self._sweep(self._judged)

    def reject(self) -> None:
        """A task file is refused."""
        self._sweep(_never)

    def _sweep(self, judge: Callable[[bytes, str, str], str]) -> None:
        inbox = Inbox(self._place / "inbox", time.time, env=self._env)
        receipts = inbox.recover(lambda ticket: ticket if ticket in self._tickets() else None, judge)
        receipts += inbox.sweep(judge)
        if not any(receipt.fate in {Fate.ACCEPTED, Fate.REJECTED} for receipt in receipts):
            raise Unsuitable(f"nothing was settled: {receipts}")

    def _judged(self, _data: bytes, ticket: str, _name: str) -> str:
        if ticket not in self._tickets():
            self._recorder.invoke(ticket)
            try:
                self._recorder.ok(ticket, appended(self.log(), json.dumps({"v": ticket}).encode()))
            except OutcomeUnknown:
                self._recorder.unknown(ticket)
                raise
        return ticket

    def _tickets(self) -> list[str]:
        return [json.loads(payload)["v"] for _, payload in self.log().read(0, upto="head")]


def _never(_data: bytes, _ticket: str, _name: str) -> str:
    raise Rejected("no")


VERBS: Mapping[str, Callable[[Work], None]] = {
    "create": Work.create,
    "append": Work.append,
    "roll": Work.roll,
    "recover": Work.recover,
    "recover without page": Work.recover_without_page,
    "snapshot": Work.snapshot,
    "publish": Work.publish,
    "accept": Work.accept,
    "reject": Work.reject,
}


def filled_at_each_write(disk: SmallDisk, cases: int, seed: int, world: type[Filling] = Filling) -> Report:
    """So many times: an operation begins, before its k-th write the disk is full, there is room, it is tried again."""
    dice = random.Random(seed)
    report = Report()
    while report.cases < cases:
        size = dice.choice([1, 3_000, 9_000, 70_000])
        for verb in dice.sample(sorted(VERBS), len(VERBS)):
            at = 1
            while report.cases < cases and _filled_at(disk, verb, at, size, report, world):
                at += 1
    return report


def _filled_at(disk: SmallDisk, verb: str, at: int, size: int, report: Report, world: type[Filling]) -> bool:
    """One case; False when the operation does not write that often."""
    with tempfile.TemporaryDirectory(dir=disk.at) as directory, tempfile.TemporaryDirectory() as elsewhere:
        place = Path(directory)
        records = Path(elsewhere, "history")
        recorder = Recorder(records, "one")
        env = world(at, disk.fill)
        work = Work(place, env, recorder, size)
        _furnish(place, verb)
        try:
            env.armed = True
            hurt = _try(VERBS[verb], work)
            env.armed = False
            if env.reached:
                begun = time.monotonic()
                disk.free()
                _count(report, hurt, _tries(VERBS[verb], work), f"{verb}, full before write {at}, {size} bytes")
                report.seconds_max = max(report.seconds_max, time.monotonic() - begun)
                if verb == "create":
                    _try(Work.append, work)
                report.violations += [f"{verb}, full before write {at}: {what}" for what in _wrong(place, records)]
        finally:
            work.close()
            recorder.close()
            disk.free()
    return env.reached


def _furnish(place: Path, verb: str) -> None:
    if verb != "create":
        create(log_of(place))
    if verb in {"accept", "reject"}:
        (place / "inbox").mkdir()
        (place / "inbox" / "task.json").write_text('{"prompt": "do it"}')


def _try(verb: Callable[[Work], None], work: Work) -> str:
    """What it came to: "" or what was raised."""
    try:
        verb(work)
    except (CoordinationError, OSError) as error:
        return repr(error)
    return ""


def _tries(verb: Callable[[Work], None], work: Work) -> list[str]:
    """What was raised until it was done, or until it was tried too often."""
    raised: list[str] = []
    while len(raised) < TRIES_MAX and (error := _try(verb, work)):
        raised.append(error)
    return raised


def _count(report: Report, hurt: str, raised: Sequence[str], what: str) -> None:
    report.cases += 1
    report.hurt += bool(hurt)
    report.tries[len(raised) + 1] += 1
    if len(raised) == TRIES_MAX:
        report.violations.append(f"{what}: with room again it still fails: {raised}")


def _wrong(place: Path, records: Path) -> Iterator[str]:
    told = history.load(records)
    try:
        final = [(seq, json.loads(payload)["v"]) for seq, payload in history.raw_batches(log_of(place))]
    except history.NotALog as error:
        yield f"not a log any more: {error}"
        return
    yield from (violation.message[:300] for violation in history.violations(told.events, final, told.seen))
    found = SnapshotDirectory(place / SNAPSHOTS).newest(PROJECTION, 1, log="any", seq_max=1 << 62)
    if found is not None and found.state != saved(found.seq).state:
        yield f"the snapshot is not the one that was saved: {found}"
    for path in (place / "inbox").glob("*/*") if (place / "inbox").exists() else ():
        if path.parent.name == ".taken":
            yield f"the inbox did not finish with {path.name}"


# ---- several processes -----------------------------------------------------------------------------------------------


def writers_get_over_it(disk: SmallDisk, processes: int, times: int) -> Report:
    """So many times: processes append without a pause, the disk is full until each was hurt, and then it is not."""
    report = Report()
    for _ in range(times):
        with tempfile.TemporaryDirectory(dir=disk.at) as directory, tempfile.TemporaryDirectory() as elsewhere:
            place, records = Path(directory), Path(elsewhere, "history")
            create(log_of(place))
            writers = [_Writer(place, records, f"w{number}") for number in range(processes)]
            try:
                _full_once(disk, writers, report)
            finally:
                disk.free()
                for writer in writers:
                    writer.stop()
                for writer in writers:
                    writer.end()
            report.violations += list(_wrong(place, records))
    return report


def _full_once(disk: SmallDisk, writers: Sequence[_Writer], report: Report) -> None:
    disk.fill()
    hurt = [writer.until(b"-") for writer in writers]
    disk.free()
    begun = time.monotonic()
    for writer, seen in zip(writers, hurt, strict=True):
        _count(report, "hurt" if seen else "", [], writer.name)
        if not seen or not writer.until(b"+"):
            report.violations.append(f"{writer.name}: {'never back' if seen else 'never hurt'}")
    report.seconds_max = max(report.seconds_max, time.monotonic() - begun)


class _Writer:
    """A forked process that appends, and says + or - after each try."""

    def __init__(self, place: Path, records: Path, name: str) -> None:
        self.name = name
        self._said, say = os.pipe()
        self._stop, stop = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _write_until_stopped(place, records, name, say, self._stop)
        os.close(say)
        self._stopping = stop

    def until(self, word: bytes) -> bool:
        """Wait until it said so, from now on. False when it does not."""
        self._drain()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if select.select([self._said], [], [], 0.1)[0] and word in os.read(self._said, 1):
                return True
        return False

    def _drain(self) -> None:
        while select.select([self._said], [], [], 0)[0] and os.read(self._said, 1 << 16):
            pass

    def stop(self) -> None:
        """Let it stop."""
        os.write(self._stopping, b"x")

    def end(self) -> None:
        """See that it did."""
        self._drain()
        os.waitpid(self._pid, 0)
        for descriptor in (self._said, self._stop, self._stopping):
            os.close(descriptor)


def _write_until_stopped(place: Path, records: Path, name: str, say: int, stop: int) -> None:
    parent = os.getppid()
    try:
        work = Work(place, REAL, Recorder(records, name), 500)
        while os.getppid() == parent and not select.select([stop], [], [], 0.001)[0]:
            os.write(say, b"-" if _try(Work.append, work) else b"+")
    finally:
        os._exit(0)
