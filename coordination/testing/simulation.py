"""Does the log keep its word when many processes use it and the world fails at every moment? A search by seeds.

One seed is one schedule: a ``SimulatedWorld``, some processes as greenlets that append, read, wait and settle, and the
faults that are in store for them. Every gesture is a point at which somebody else may go on, or something fails. The
same seed gives the same history to the last byte::

    python -m coordination.testing.simulation --seed 7 --seconds 60
    python -m coordination.testing.simulation --seed 7 --schedules 1 --trace

What is checked: what was acknowledged is on the disk at that moment; after a failed sync nobody acknowledges until
there is a new segment; copies of the world are crashed at any moment and must recover; and in the end the independent
checker (``history``) compares all that was asked and answered with what stands in the log.
"""

from __future__ import annotations

import argparse
import errno
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, get_args

import msgspec

from coordination.errors import Conflict, OutcomeUnknown, Refused
from coordination.log.file import FileLog, create
from coordination.testing import history
from coordination.testing.aftermath import DIRECTORY, Batches, Ledger, crash, payload, read
from coordination.testing.disk import File
from coordination.testing.scheduler import Actor, Scheduler, Script
from coordination.testing.world import DAY_SECONDS, Fate, Fault, SimulatedEnv, SimulatedWorld, Stuck

_EPOCH = re.compile(rb'"epoch":(\d+)')
_GESTURES_MAX = 30_000
_CRASHES_MAX = 6
_VIOLATIONS_MAX = 3  # of one schedule; one alone mostly shows itself many times
_TRIES = 30
_PART = 50  # schedules that one process does in a row
_SYNCS = ("sync", "sync_data")
_KILLING = (*_SYNCS, "write", "store", "store_many", "rename", "sync_directory", "lock", "unlock", "wake", "wait_word")
_OPENING = ("open_write", "open_existing", "open_read", "create")
_FAILING = (*_OPENING, "rename", "sync_directory", "resize", "read", "unlink")
_JUMPS = (DAY_SECONDS, -DAY_SECONDS, 365 * DAY_SECONDS, -365 * DAY_SECONDS)
Trouble = Literal[
    "kill", "kill aimed", "power cut", "failed sync", "failed names", "short", "full", "error", "split", "stop", "jump"
]  # fmt: skip
TROUBLES: tuple[Trouble, ...] = (*get_args(Trouble), "failed sync")


class Report(msgspec.Struct, kw_only=True):
    """What one schedule, or many, came to."""

    schedules: int = 0
    crash_states: int = 0
    gestures: int = 0
    acknowledged: int = 0
    troubles: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[str] = msgspec.field(default_factory=list)

    def add(self, other: Report) -> None:
        """Sum up."""
        self.schedules += other.schedules
        self.crash_states += other.crash_states
        self.gestures += other.gestures
        self.acknowledged += other.acknowledged
        self.troubles += other.troubles
        self.violations += other.violations


class Aim(msgspec.Struct):
    """A fault that hits a gesture of one kind, so many of them from now."""

    trouble: Trouble
    left: int
    fault: Fault
    times: int = 1
    path: Path | None = None  # only gestures about this one count


class Schedule(Scheduler):
    """One seed's history."""

    def __init__(self, seed: int, *, troubles: tuple[Trouble, ...] = TROUBLES, trace: bool = False) -> None:
        dice = Random(seed)
        world = SimulatedWorld(dice.getrandbits(32))
        super().__init__(world, dice, patience=dice.choice((1.0, 3.0, 12.0, 50.0)), gestures_max=_GESTURES_MAX)
        self.seed = seed
        self.report = Report(schedules=1)
        self.ledger = Ledger()
        self.events: list[history.Event] = []
        self.seen: list[history.Seen] = []
        self._now = 0
        self._values = 0
        self._segment_bytes = dice.choice((1, 300, 700, 1 << 16))
        self._aims: dict[str, list[Aim]] = {}
        self._moments: list[tuple[int, Callable[[SimulatedEnv], Fault | None]]] = []  # by number of gestures, sorted
        self._next_moment = sys.maxsize
        self._failed_sync: dict[File, bytes] = {}  # what stood on the disk in each segment when a sync failed
        if trace:
            world.trace = []
        self._crashes_left = _CRASHES_MAX
        self._booting = False  # since the last power cut nobody has recovered
        self._prepare(troubles)

    def play(self) -> Report:
        """Let it happen, and judge."""
        try:
            self.run()
        except Stuck as stuck:
            self.wrong(str(stuck))
        else:
            self._judge()
        self.report.gestures = self.gestures
        self.report.acknowledged = len(self.ledger.acknowledged)
        return self.report

    def wrong(self, what: str) -> None:
        """A promise was broken."""
        again = f"python -m coordination.testing.simulation --seed {self.seed} --schedules 1"
        violation = f"{what}\n    again: {again}"
        if violation not in self.report.violations and len(self.report.violations) < _VIOLATIONS_MAX:
            self.report.violations.append(violation)

    # what is in store

    def _prepare(self, troubles: tuple[Trouble, ...]) -> None:
        dice = self.dice
        for number in range(dice.choice((2, 2, 3, 3, 4))):
            self._begin(f"writer {number}", dice.randrange(1, 6))
        for number in range(dice.choice((0, 0, 1))):
            self.start(f"reader {number}", self._reads(dice.randrange(1, 4)))
        for number in range(dice.choice((0, 0, 1))):
            self.start(f"waiter {number}", self._waits(dice.randrange(1, 4)))
        for _ in range(dice.choice((0, 1, 1, 2, 3, 5)) if troubles else 0):
            self._plan(dice.choice(troubles))
        for _ in range(dice.choice((0, 1, 2))):
            self._at(dice.randrange(500), self._crash)

    def _plan(self, trouble: Trouble) -> None:
        dice = self.dice
        count, share = dice.choice((dice.randrange(1, 8), dice.randrange(1, 30))), dice.random()
        dropped, times = dice.random() < 0.5, dice.randrange(1, 20)
        match trouble:
            case "kill":
                self._at(dice.randrange(600), lambda _: self._struck_by("kill", Fault("kill", share=share)))
            case "kill aimed":
                self._aim(dice.choice(_KILLING), Aim(trouble, count, Fault("kill", share=share)))
            case "power cut":
                self._at(dice.randrange(600), self._cut)
            case "failed sync":
                self._aim(dice.choice(_SYNCS), Aim(trouble, count, Fault("error", errno.EIO, dropped=dropped)))
            case "failed names":
                fault = Fault("error", errno.EIO, dropped=True)
                self._aim("sync_directory", Aim(trouble, dice.randrange(1, 5), fault, path=DIRECTORY))
            case "short":
                self._aim("write", Aim(trouble, count, Fault("short", share=share)))
            case "full":
                self._aim("write", Aim(trouble, count, Fault("error", errno.ENOSPC), dice.randrange(1, 6)))
            case "error":
                fault = Fault("error", dice.choice((errno.EIO, errno.ENOSPC)), dropped=dropped)
                self._aim(dice.choice(_FAILING), Aim(trouble, count, fault))
            case "split":
                gesture = dice.choice(("write", "look", "wait_word"))
                self._aim(gesture, Aim(trouble, count, Fault("split", share=share), times))
            case "stop":
                self._at(dice.randrange(600), self._stop)
            case "jump":
                self._at(dice.randrange(600), self._jump)

    def _at(self, gestures: int, action: Callable[[SimulatedEnv], Fault | None]) -> None:
        self._moments.append((self.gestures + gestures, action))
        self._moments.sort(key=lambda moment: moment[0])
        self._next_moment = self._moments[0][0]

    def _aim(self, gesture: str, aim: Aim) -> None:
        self._aims.setdefault(gesture, []).append(aim)

    # what happens

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        """Perhaps let others go on; then what is in store for this gesture."""
        super().step(env, gesture, about)
        if self.gestures >= self._next_moment and env.alive:
            _, action = self._moments.pop(0)
            self._next_moment = self._moments[0][0] if self._moments else sys.maxsize
            if (fault := action(env)) is not None:
                return fault
        if gesture in self._aims and env.alive:
            return self._struck(env, gesture, about)
        return None

    def _struck(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        for aim in self._aims[gesture]:
            if aim.path is not None and aim.path != about:
                continue
            aim.left -= 1
            if aim.left <= 0:
                aim.times -= 1
                if not aim.times:
                    self._aims[gesture].remove(aim)
                if gesture in _SYNCS and aim.fault.kind == "error":
                    self._sync_fails(env, about)
                return self._struck_by(aim.trouble, aim.fault)
        return None

    def _struck_by(self, trouble: Trouble, fault: Fault | None = None) -> Fault | None:
        self.report.troubles[trouble] += 1
        return fault

    def _sync_fails(self, env: SimulatedEnv, descriptor: object) -> None:
        """Remember what was on the disk before; often more happens while nobody has understood yet."""
        file = env.file_behind(descriptor)
        standing = self._segments()
        if file in standing and (not self._failed_sync or _epoch(standing) > _epoch(self._failed_sync)):
            self._failed_sync = standing
        luck = self.dice.random()
        if luck < 0.25:
            self._at(self.dice.randrange(1, 6), lambda other: Fault("kill") if other is env else None)
        elif luck < 0.4:
            self._at(self.dice.randrange(1, 100), self._cut)
        if file is not None and self.dice.random() < 0.4:
            self._at(self.dice.randrange(1, 200), lambda _: file.evict())

    def _cut(self, env: SimulatedEnv) -> Fault | None:  # noqa: ARG002 - it hits everybody
        self.world.power_cut()
        self._failed_sync, self._booting = {}, True
        if self.dice.random() < 0.4:
            self._at(self.dice.randrange(1, 120), self._cut)
        return self._struck_by("power cut")

    def _stop(self, env: SimulatedEnv) -> Fault | None:
        self.stop(env, self.dice.choice((0.001, 0.05, 0.8)))
        return self._struck_by("stop")

    def _jump(self, env: SimulatedEnv) -> Fault | None:  # noqa: ARG002 - everybody's clock
        self.world.jump(self.dice.choice(_JUMPS))
        return self._struck_by("jump")

    def _crash(self, env: SimulatedEnv | None, *, worst: bool = False) -> None:  # noqa: ARG002 - it hits a copy
        if self._crashes_left:
            self._crashes_left -= 1
            wrong, states = crash(self.world, self.ledger, self.dice, self._segment_bytes, worst=worst)
            self.report.crash_states += states
            for what in wrong:
                self.wrong(what)

    def died(self, actor: Actor) -> None:
        """Somebody else comes and goes on."""
        if actor.name.startswith("writer") and self._values < 40:
            # under a name of its own: what the dead one saw of a log that is not proven yet binds nobody else
            self._begin(actor.name + "'", self.dice.randrange(1, 4))

    def failed(self, actor: Actor, error: Exception) -> None:
        """No error may come out of the log but those that the script expects."""
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.wrong(f"{actor.name}: {type(error).__name__}: {error} ({where.name}, line {where.lineno})")

    # what the processes do

    def _begin(self, name: str, steps: int) -> None:
        def script(env: SimulatedEnv) -> None:
            log = self._connected(env)
            for _ in range(steps):
                self._patiently(self._one_of(env, log, name))

        self.start(name, script)

    def _one_of(self, env: SimulatedEnv, log: FileLog, name: str) -> Callable[[], None]:
        luck = self.dice.random()
        if luck < 0.35:
            return lambda: self._append_after_reading(env, log, name)
        if luck < 0.5:
            return lambda: self._append_deciding_again(log, name)
        if luck < 0.8:
            return lambda: self._append_blindly(log, name)
        if luck < 0.9:
            return lambda: self._read(log, name, durable=self.dice.random() < 0.5)
        return lambda: self._settle(log)

    def _reads(self, times: int) -> Script:
        def script(env: SimulatedEnv) -> None:
            log = self._connected(env)
            for _ in range(times):
                self._patiently(lambda: self._read(log, f"reader {env.number}", durable=self.dice.random() < 0.6))
                env.sleep(self.dice.choice((0.0, 0.0001, 0.001)))

        return script

    def _waits(self, times: int) -> Script:
        def script(env: SimulatedEnv) -> None:
            log = self._connected(env)
            for _ in range(times):
                self._patiently(lambda: self._wait(log))

        return script

    def _connected(self, env: SimulatedEnv) -> FileLog:
        logs: list[FileLog] = []
        ours = self.dice.random() < 0.5

        def connect() -> None:
            create(DIRECTORY, env=env)
            logs.append(FileLog(DIRECTORY, env=env, segment_bytes=self._segment_bytes, ours=ours))

        self._patiently(connect)
        return logs[0]

    def _patiently(self, act: Callable[[], None]) -> None:
        """A failing disk may be reported; once it works again, so must the log."""
        for _ in range(_TRIES):
            try:
                return act()
            except (OSError, OutcomeUnknown, Refused):
                continue
        raise AssertionError(f"still refused after {_TRIES} tries, though the disk works again")

    def _append_after_reading(self, env: SimulatedEnv, log: FileLog, name: str) -> None:
        batches = read(log, durable=False)
        head, seen = len(batches), batches[-1][1] if batches else None
        value = self._asked(name)
        if self.dice.random() < 0.3:  # think: then the head may be another batch of the same number
            env.sleep(self.dice.choice((0.0001, 0.01, 0.1)))
        self._answered(name, value, lambda: log.append(payload(value, after=head, seen=seen), after=head))

    def _append_blindly(self, log: FileLog, name: str) -> None:
        value = self._asked(name)
        line = payload(value)
        self._answered(name, value, lambda: log.append(line, after=0, again=lambda: line))

    def _append_deciding_again(self, log: FileLog, name: str) -> None:
        value = self._asked(name)

        def decide() -> bytes:
            batches = read(log, durable=False)
            return payload(value, after=len(batches), seen=batches[-1][1] if batches else None)

        self._answered(name, value, lambda: log.append(payload(value, after=0), after=0, again=decide))

    def _asked(self, name: str) -> str:
        self._values += 1
        value = f"{name}.{self._values}"
        self.ledger.ask(value)
        self._tell(history.Event(name, self._tick(), "invoke", value))
        return value

    def _answered(self, name: str, value: str, append: Callable[[], int]) -> None:
        try:
            seq = append()
        except (OutcomeUnknown, OSError) as error:
            self._tell(history.Event(name, self._tick(), "unknown", value), error)
        except (Conflict, Refused) as error:
            self.ledger.refuse(value)
            self._tell(history.Event(name, self._tick(), "refused", value), error)
        else:
            self._tell(history.Event(name, self._tick(), "ok", value, seq))
            self._acknowledged(seq, value)

    def _acknowledged(self, seq: int, value: str) -> None:
        self._booting = False
        stands = b'"v":"%b"' % value.encode()
        standing, before = self._segments(), self._failed_sync
        if not any(stands in content for content in standing.values()):
            self.wrong(f"{value!r} was acknowledged as {seq}, and is not on the disk")
        if before and not any(stands in content for content in before.values()):
            made = {file: content for file, content in standing.items() if file not in before and stands in content}
            if _epoch(made) <= _epoch(before):
                self.wrong(f"{value!r} was acknowledged as {seq} after a failed sync, without a recovery")
        if (wrong := self.ledger.acknowledge(seq, value)) is not None:
            self.wrong(wrong)
        if self.dice.random() < 0.3:
            self._crash(None, worst=self.dice.random() < 0.5)

    def _read(self, log: FileLog, name: str, *, durable: bool) -> None:
        # after a power cut the newest batches are not proven until a writer has recovered: a reader cannot know better
        proven = not durable or not self._booting
        began, promised = self._tick() if proven else 0, dict(self.ledger.acknowledged) if proven else {}
        batches = read(log, durable=durable)
        standing = dict(batches)
        for seq, value in promised.items():
            if standing.get(seq) != value:
                self.wrong(f"{name} saw {standing.get(seq)!r} as {seq}, acknowledged as {value!r} before")
        self.seen.append(history.Seen(name, began, tuple(value for _, value in batches), durable))

    def _settle(self, log: FileLog) -> None:
        log.settle()
        self._booting = False

    def _wait(self, log: FileLog) -> None:
        promised = 0 if self._booting else max(self.ledger.acknowledged, default=0)
        after = log.durable
        if log.wait(after, self.dice.choice((0.0, 0.002, 1.0))):
            assert log.durable > after, f"waited for more than {after} durable, and there are {log.durable}"
        else:
            assert promised <= after, f"waited in vain for more than {after}, and {promised} was acknowledged before"

    def _tick(self) -> int:
        self._now += 1
        return self._now

    def _tell(self, event: history.Event, error: Exception | None = None) -> None:
        self.events.append(event)
        if self.world.trace is not None:
            told = f"{event.value} {event.seq or ''} {'' if error is None else repr(error)}"
            self.world.trace.append((0, f"{event.process}: {event.kind}", told))

    def _segments(self) -> dict[File, bytes]:
        """What is on the disk in each segment."""
        directory = self.world.directories.get(str(DIRECTORY))
        entries = {} if directory is None else directory.entries
        segments = (node for name, node in entries.items() if name.endswith(".jsonl") and isinstance(node, File))
        return {file: bytes(file.disk) for file in segments}

    # what is judged in the end

    def _judge(self) -> None:
        for env in list(self.world.processes):
            self.world.kill(env)
        self.world.fate, self.world.gestures_left = Fate(), _GESTURES_MAX
        settled = self._settled()
        for violation in history.violations(self.events, settled, self.seen):
            self.wrong(violation.message)
        self._crashes_left = 2
        self._crash(None, worst=True)
        self._crash(None)

    def _settled(self) -> Batches:
        try:
            env = self.world.process()
            create(DIRECTORY, env=env)
            log = FileLog(DIRECTORY, env=env, segment_bytes=self._segment_bytes)
            log.settle()
            batches = read(log, durable=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, the log must not raise it
            self.wrong(f"in the end: {type(error).__name__}: {error}")
            return ()
        for what in self.ledger.wrong(batches):
            self.wrong(what)
        return batches


def _epoch(segments: dict[File, bytes]) -> int:
    """The highest epoch in these segments' headers; 0 without any."""
    found = (_EPOCH.search(content) for content in segments.values())
    return max((int(match[1]) for match in found if match), default=0)


def search(
    seed: int,
    schedules: int | None = None,
    seconds: float | None = None,
    *,
    troubles: tuple[Trouble, ...] = TROUBLES,
    violations_max: int = 10,
) -> Report:
    """Schedules of ``seed``, ``seed + 1``, ... until so many, or so much time, or so many violations."""
    report = Report()
    ends = None if seconds is None else time.monotonic() + seconds
    while report.schedules != schedules and len(report.violations) < violations_max:
        if ends is not None and time.monotonic() >= ends:
            break
        report.add(Schedule(seed + report.schedules, troubles=troubles).play())
    return report


def search_with_pool(
    seed: int,
    schedules: int,
    *,
    processes: int,
    seconds: float | None = None,
    troubles: tuple[Trouble, ...] = TROUBLES,
) -> Report:
    """As ``search``, over several processes; whoever is at work when the time is over begins no further part."""
    report = Report()
    ends = None if seconds is None else time.time() + seconds
    parts = [(seed + done, min(_PART, schedules - done)) for done in range(0, schedules, _PART)]
    with ProcessPoolExecutor(processes) as pool:
        for part in pool.map(partial(_part, troubles=troubles, ends=ends), parts):
            report.add(part)
    return report


def _part(part: tuple[int, int], troubles: tuple[Trouble, ...], ends: float | None) -> Report:
    if ends is not None and time.time() > ends:
        return Report()
    return search(*part, troubles=troubles)


def main(arguments: list[str] | None = None) -> int:
    """Search as asked on the command line; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first schedule's number")
    parser.add_argument("--schedules", type=int, help="how many; default: as many as fit into --seconds")
    parser.add_argument("--seconds", type=float, help="how long; default: 10, or until all --schedules are done")
    parser.add_argument("--processes", type=int, default=1, help="how many at once; needs --schedules")
    parser.add_argument("--trace", action="store_true", help="print every gesture of the first schedule")
    asked = parser.parse_args(arguments)
    if asked.trace:
        schedule = Schedule(asked.seed, trace=True)
        report = schedule.play()
        for number, gesture, about in schedule.world.trace or ():
            print(number, gesture, about)
    else:
        begun = time.monotonic()
        seconds = 10.0 if asked.schedules is None and asked.seconds is None else asked.seconds
        if asked.processes > 1 and asked.schedules:
            report = search_with_pool(asked.seed, asked.schedules, processes=asked.processes, seconds=seconds)
        else:
            report = search(asked.seed, asked.schedules, seconds)
        taken = time.monotonic() - begun
        print(f"{report.schedules / taken:.0f} schedules/s, {report.crash_states / taken:.0f} crash states/s")
    print(f"{report.schedules} schedules, {report.crash_states} crash states, {report.gestures} gestures,", end=" ")
    print(f"{report.acknowledged} batches acknowledged, troubles: {dict(report.troubles)}")
    for violation in report.violations:
        print(violation)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
