"""Does a log survive processes that are killed anywhere, many at once? The kills are aimed at every gesture.

One warm process forks many that share a log on real files. Each doomed one kills itself with SIGKILL before the k-th
gesture of one operation, or in the middle of it: after so many bytes of a write, so many words of many stores. Steady
ones append beside them, and whoever died is replaced. k walks over every gesture that the operation makes when it is
alone; in the crowd the k-th may be another one, so what was really hit is counted. At the end of a round the history
that the processes wrote is compared with the bytes on the disk by ``coordination.testing.history``.

    python -m coordination.testing.aimed --kills 200 --seed 7

prints a report as JSON and exits 1 when a promise was broken. ``--plant`` puts a bug in that must be found.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import OutcomeUnknown
from coordination.log import recovery
from coordination.log.file import FileLog, create
from coordination.log.frames import encode_line
from coordination.log.page import Head, Page, Reading
from coordination.store import SnapshotDirectory
from coordination.testing import history
from coordination.testing.gestures import Counting, Noticing, pieces
from coordination.testing.history import Recorder
from coordination.testing.operations import PROJECTION, SNAPSHOTS, appended, log_of, mark_unfinished, saved

PROCESSES = 16
_KILLS_A_LOG = 40
_STEADY_EVERY = 4  # one process in so many is not doomed
_STEADY_BATCHES = 10
_TURNS_MAX = 100  # a doomed process that was not hit until then is counted as missed
_PATIENCE_SECONDS = 60.0
_MOMENT_SECONDS = 0.001
_CUTS_MAX = 400  # of a page of zeroes, or of fill, not every byte is a cut of its own
_ROLLING_BYTES = 1
MANY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """Where a process dies: before a gesture of an operation, or when so many pieces of it are done."""

    operation: str
    gesture: int  # counted from 1
    piece: int = 0


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run did and found."""

    seed: int
    kills: int = 0
    missed: int = 0
    logs: int = 0
    acknowledged: int = 0
    unanswered: int = 0
    hits: Counter[str] = field(default_factory=Counter)  # "operation: gesture", cut in pieces or not
    violations: list[str] = field(default_factory=list)


class Doomed(Noticing):
    """The real world, which ends at a gesture."""

    def __init__(self, aim: Aim, last_words: Callable[[str], None]) -> None:
        self._aim = aim
        self._left = aim.gesture
        self._last_words = last_words
        self.armed = False

    def noticed(self, gesture: str, arguments: tuple[Any, ...]) -> None:
        """Count, and die when it is time."""
        if self.armed:
            self._left -= 1
            if self._left == 0:
                self._die(gesture, arguments)

    def _die(self, gesture: str, arguments: tuple[Any, ...]) -> NoReturn:
        self.armed = False
        whole = pieces(gesture, arguments)
        done = self._aim.piece % whole
        if done:
            part = {"write": (1, 0), "store_many": (2, 0)}[gesture][0]
            cut = (*arguments[:part], arguments[part][:done], *arguments[part + 1 :])
            getattr(Env, gesture)(self, *cut)
        self._last_words(f"{self._aim.operation}: {gesture}{' in pieces' if done else ''}")
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("killed, and still there")


# ---- what a process does ---------------------------------------------------------------------------------------------


class Process:
    """One user of the log: what it asks for and what it is told goes into the history."""

    def __init__(self, place: Path, name: str, env: Env, segment_bytes: int = MANY_BYTES) -> None:
        self._place = place
        self._name = name
        self._env = env
        self._count = 0
        self._batches = Recorder(place / "batches", name)
        self._snapshots = Recorder(place / "snapshots.history", name)
        self._segment_bytes = segment_bytes
        self.log: FileLog | None = None

    def create(self) -> None:
        """Make the log, if nobody did."""
        create(log_of(self._place), env=self._env)

    def create_and_append(self) -> None:
        """Make the log, if nobody did, and use it."""
        self.create()
        self.append()

    def append(self) -> int:
        """Append one batch and record it; its number, 0 when that is not known."""
        if self.log is None:
            self.log = FileLog(log_of(self._place), env=self._env, segment_bytes=self._segment_bytes)
        self._count += 1
        value = f"{self._name}.{self._count}"
        self._batches.invoke(value)
        try:
            seq = appended(self.log, b'{"v":"%b"}' % value.encode())
        except OutcomeUnknown:
            self._batches.unknown(value)
            return 0
        self._batches.ok(value, seq)
        return seq

    def recover(self) -> int:
        """Append when somebody was killed in the middle of an append."""
        mark_unfinished(self._place, REAL)
        return self.append()

    def read(self) -> None:
        """Read what is durable, from the beginning, and record it."""
        if self.log is None:
            self.log = FileLog(log_of(self._place), env=self._env)
        at = history.now()
        values = [json.loads(payload)["v"] for _, payload in self.log.read(0, upto="durable")]
        self._batches.seen(values, at=at, durable=True)

    def snapshot(self) -> None:
        """Append, and save a snapshot of it."""
        seq = self.append()
        self._snapshots.invoke(value := f"{self._name}.{self._count}")
        SnapshotDirectory(self._place / SNAPSHOTS, env=self._env).save(saved(seq))
        self._snapshots.ok(value, seq)

    def wait(self) -> None:
        """Read, append, and wait until that can be seen."""
        if self.log is None or not self.log.wait(self.append() - 1, _PATIENCE_SECONDS):
            raise AssertionError("what was acknowledged is not durable")
        self.log.wait(self.log.durable, _MOMENT_SECONDS)

    def publish(self) -> None:
        """Replace a file that others replace as well."""
        files.publish_json(self._place / "published", [self._name] * 20, env=self._env)


DEEDS: Mapping[str, Callable[[Process], Any]] = {
    "create": Process.create_and_append,
    "append": Process.append,
    "roll": Process.append,
    "recover": Process.recover,
    "read": Process.read,
    "wait": Process.wait,
    "snapshot": Process.snapshot,
    "publish": Process.publish,
}


def _doom(place: Path, name: str, aim: Aim) -> None:
    env = Doomed(aim, lambda words: _note(place / "hits", words))
    segment_bytes = _ROLLING_BYTES if aim.operation == "roll" else MANY_BYTES
    process = Process(place, name, env, segment_bytes)
    if aim.operation != "create":
        process.create()
        process.append()
    _arm(env, aim)
    for _ in range(_TURNS_MAX):
        DEEDS[aim.operation](process)


def _arm(env: Doomed, aim: Aim) -> None:
    if aim.operation == "recover":
        recovery.recover = _within(env, recovery.recover)  # this process has no other use for it, and no future
    else:
        env.armed = True


def _within(env: Doomed, real: Callable[..., Any]) -> Callable[..., Any]:
    """``real``, with only the gestures made in it counted."""

    def counted(*arguments: Any, **more: Any) -> Any:
        env.armed = True
        try:
            return real(*arguments, **more)
        finally:
            env.armed = False

    return counted


def _steady(place: Path, name: str) -> None:
    process = Process(place, name, REAL)
    process.create()
    for _ in range(_STEADY_BATCHES):
        process.append()
    process.read()


def _complaining(place: Path, job: Callable[[], None]) -> Callable[[], None]:
    """``job``, whose error is kept for the report."""

    def complaining() -> None:
        try:
            job()
        except BaseException as error:
            _note(place / "complaints", repr(error))
            raise

    return complaining


def _complaints(place: Path) -> list[str]:
    path = place / "complaints"
    return path.read_text().splitlines() if path.exists() else []


def _note(path: Path, words: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(descriptor, words.encode() + b"\n")
    os.close(descriptor)


# ---- where to aim ----------------------------------------------------------------------------------------------------


def aims() -> list[Aim]:
    """Every gesture of every operation as it is made by one who is alone, whole and at each piece."""
    found: list[Aim] = []
    for operation in DEEDS:
        for index, (_, whole) in enumerate(_gestures(operation), 1):
            step = max(1, whole // _CUTS_MAX)
            found += [Aim(operation=operation, gesture=index, piece=piece) for piece in range(0, whole, step)]
    return found


def _gestures(operation: str) -> list[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as place:
        env = Counting()
        process = Process(Path(place), "p1", env, _ROLLING_BYTES if operation == "roll" else MANY_BYTES)
        if operation != "create":
            process.create()
            process.append()
        if operation == "recover":
            return _recovery_gestures(process, env)
        env.made.clear()
        DEEDS[operation](process)
        return env.made


def _recovery_gestures(process: Process, env: Counting) -> list[tuple[str, int]]:
    made: list[tuple[str, int]] = []
    real = recovery.recover

    def recover(*arguments: Any, **more: Any) -> Reading:
        env.made.clear()
        try:
            return real(*arguments, **more)
        finally:
            made.extend(env.made)

    recovery.recover = recover
    try:
        process.recover()
    finally:
        recovery.recover = real
    return made


def chosen(kills: int, dice: random.Random) -> Iterator[Aim]:
    """So many aims: before every gesture first, as many in the middle of one, then all of them again and again."""
    every = aims()
    whole = [aim for aim in every if aim.piece == 0]
    torn = [aim for aim in every if aim.piece]
    count = 0
    while count < kills:
        dice.shuffle(whole)
        dice.shuffle(torn)
        first = len(whole) // 3
        turn = whole + torn if kills > 3 * len(every) else [*whole, *torn[:first]]
        if kills < len(turn):
            dice.shuffle(turn)
        for aim in turn[: kills - count]:
            count += 1
            yield aim


# ---- rounds ----------------------------------------------------------------------------------------------------------


def run(kills: int, seed: int, *, processes: int = PROCESSES) -> Report:
    """Aim so many kills, at most ``processes`` doomed and steady ones at a time on one log after another."""
    report = Report(seed=seed)
    wanted = list(chosen(kills, random.Random(seed)))
    gc.freeze()
    for aimed in _rounds(wanted, processes):
        with tempfile.TemporaryDirectory(prefix="aimed-") as place:
            _round(Path(place), aimed, processes, report)
        if report.violations:
            break
    return report


def _rounds(wanted: Sequence[Aim], processes: int) -> Iterator[Sequence[Aim]]:
    """What is tried on one log: those who create need a place without one, so they are few at a time."""
    creating = [aim for aim in wanted if aim.operation == "create"]
    others = [aim for aim in wanted if aim.operation != "create"]
    for some, size in ((creating, processes), (others, _KILLS_A_LOG)):
        yield from (some[at : at + size] for at in range(0, len(some), size))


def _round(place: Path, aimed: Sequence[Aim], processes: int, report: Report) -> None:
    report.logs += 1
    jobs = [_complaining(place, job) for job in _jobs(place, aimed)]
    last = _complaining(place, lambda: _steady(place, "last"))
    try:
        statuses = _crowd(jobs, processes) + _crowd([last], 1)
    except TimeoutError as hung:
        report.violations.append(f"log {report.logs}: {hung}; aims {aimed}")
        return
    report.kills += sum(status == -signal.SIGKILL for status in statuses)
    report.missed += len(aimed) - sum(status == -signal.SIGKILL for status in statuses)
    found = [f"a process ended with {status}" for status in statuses if status not in {0, -signal.SIGKILL}]
    found += [*_complaints(place), *judged(place, report)]
    report.violations += [f"log {report.logs}: {what}" for what in found]


def _jobs(place: Path, aimed: Iterable[Aim]) -> Iterator[Callable[[], None]]:
    for number, aim in enumerate(aimed):
        if number % _STEADY_EVERY == 1:
            yield lambda number=number: _steady(place, f"s{number}")  # type: ignore[misc]
        yield lambda number=number, aim=aim: _doom(place, f"d{number}", aim)  # type: ignore[misc]


def _crowd(jobs: Sequence[Callable[[], None]], processes: int) -> list[int]:
    """Fork for each job, so many at once; how each ended. Raises TimeoutError when nobody ends any more."""
    waiting = list(reversed(jobs))
    alive: set[int] = set()
    statuses = []
    with _alarm():
        try:
            while waiting or alive:
                while waiting and len(alive) < processes:
                    alive.add(_forked(waiting.pop()))
                signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS)
                pid, status = os.waitpid(-1, 0)
                alive.discard(pid)
                statuses.append(os.waitstatus_to_exitcode(status))
        finally:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return statuses


class _alarm:  # noqa: N801 # a context manager reads as a function
    def __enter__(self) -> None:
        self._before = signal.signal(signal.SIGALRM, self._raise)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @staticmethod
    def _raise(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"no process ended for {_PATIENCE_SECONDS} s: the log does not go on")


def _forked(job: Callable[[], None]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        job()
        code = 0
    finally:
        os._exit(code)  # nothing of the parent's is to be cleaned up here; what was raised is in the complaints


def judged(place: Path, report: Report) -> list[str]:
    """What the history of a round and the bytes on the disk say against the log, the snapshots and the file."""
    told = history.load(place / "batches")
    report.acknowledged += sum(event.kind == "ok" for event in told.events)
    report.unanswered += sum(event.kind == "invoke" for event in told.events)
    report.unanswered -= sum(event.kind != "invoke" for event in told.events)
    if (place / "hits").exists():
        report.hits.update((place / "hits").read_text().splitlines())
    try:
        final = [(seq, json.loads(payload)["v"]) for seq, payload in history.raw_batches(log_of(place))]
    except history.NotALog as error:
        return [f"not a log any more: {error}"]
    found = [violation.message for violation in history.violations(told.events, final, told.seen)]
    return found + list(_snapshots(place)) + list(_published(place))


def _snapshots(place: Path) -> Iterator[str]:
    told = history.load(place / "snapshots.history").events
    newest = max((event.seq or 0 for event in told if event.kind == "ok"), default=0)
    found = SnapshotDirectory(place / SNAPSHOTS).newest(PROJECTION, 1, log="any", seq_max=1 << 62)
    if newest and found is None:
        yield f"snapshot {newest} was saved, and there is none"
    if found is not None and (found.seq < newest or found.state != saved(found.seq).state):
        yield f"snapshot {newest} was saved, and the newest is {found.seq}: {found.state!r}"


def _published(place: Path) -> Iterator[str]:
    try:
        value = files.read_json_if_there(place / "published")
    except ValueError as error:
        yield f"the published file is torn: {error}"
    else:
        if value is not None and value != value[:1] * 20:
            yield f"the published file is mixed: {value}"


# ---- bugs to find, so that finding nothing means something -----------------------------------------------------------


def _advance_first() -> None:
    """Move the head before the line is written: a sync between the two promises what a kill then prevents."""
    real = FileLog._write  # noqa: SLF001 # a bug is planted inside

    def write(self: FileLog, page: Page, reading: Reading, payload: bytes) -> Head:
        head = reading.head
        line, checksum = encode_line(payload, seq=head.seq + 1, durable=0, segment=head.segment, previous_sum=head.sum)
        if head.offset < self._segment_bytes:  # else it rolls
            page.advance(msgspec.structs.replace(head, offset=head.offset + len(line), seq=head.seq + 1, sum=checksum))
        return real(self, page, reading, payload)

    FileLog._write = write  # type: ignore[method-assign] # noqa: SLF001


def _publish_in_place() -> None:
    """Write a new segment under its name, instead of beside it: a kill leaves half of one."""
    real = files.publish

    def publish(path: Path, data: bytes, *, env: Env = REAL) -> None:
        if path.suffix != ".jsonl":
            return real(path, data, env=env)
        descriptor = env.open_write(path)
        files.write_fully(descriptor, data, 0, env=env)
        env.sync(descriptor)
        env.close(descriptor)
        return env.sync_directory(path.parent)

    files.publish = publish


PLANTED: Mapping[str, Callable[[], None]] = {
    "": lambda: None,
    "advances-first": _advance_first,
    "publishes-in-place": _publish_in_place,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print the report as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.aimed", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--plant", choices=sorted(PLANTED), default="")
    options = parser.parse_args(arguments)
    PLANTED[options.plant]()
    report = run(options.kills, options.seed, processes=options.processes)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
