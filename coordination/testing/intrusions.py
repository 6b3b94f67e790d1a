"""What if others come and go between two gestures of one process? Every place can be tried, none is left to chance.

A random schedule seldom lets three processes come and go while a fourth does not move; whoever was put aside by the
system for a second sees just that. One *victim* does one thing with a log. At its k-th gesture it stands still, and
*intruders* do all they do, one after the other: append, fail to sync, lose the cache, die, take the page away. Then the
victim goes on. In the end, with and without a power cut, all that was told is compared with what stands in the log.

A case says what happened before, what the victim does, who intrudes, how long segments get, and k::

    python -m coordination.testing.intrusions --cases 2000 --seed 7
    python -m coordination.testing.intrusions --case "append,die before the sync/append/settle,append/300/41"
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random

import msgspec

from coordination.errors import Conflict, OutcomeUnknown, Refused
from coordination.log import Upto
from coordination.log.file import FileLog, create
from coordination.testing.disk import Directory, Node, content_after, names_after
from coordination.testing.history import Event, Seen, violations
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld, Stuck

_DIRECTORY = Path("/log")
_SLEEPS_MAX = 3
_GESTURES_MAX = 20_000
_FAILED = Fault("error", errno.EIO)
_LOST = Fault("error", errno.EIO, dropped=True)
_DEATH = Fault("kill", share=0.5)

DEEDS = ("append", "append after reading", "settle", "read", "live")
# who intrudes appends, unless it says otherwise; faults: at its n-th gesture of a kind ("": of any), and what
FAULTS: Mapping[str, tuple[tuple[str, int, Fault], ...]] = {
    "append": (),
    "settle": (),
    "take the page away": (),
    "see what a crash would leave": (),
    "die while making the log": (("rename", 1, Fault("split")), ("sync_directory", 1, _DEATH)),
    "fail to sync": (("sync_data", 1, _FAILED),),
    "lose the cache": (("sync_data", 1, _LOST),),
    "lose the cache and die": (("sync_data", 1, _LOST), ("", 1, _DEATH)),
    "die before its turn to sync": (("try_lock", 2, _DEATH),),
    "die before the sync": (("sync_data", 1, _DEATH),),
    "write in part": (("write", 1, Fault("short", share=0.5)),),
    "find the disk full": (("write", 1, Fault("error", errno.ENOSPC)),),
    "die in the write": (("write", 1, _DEATH),),
    "die behind the write": (("store_many", 3, _DEATH),),
    "die before the name is synced": (("sync_directory", 1, _DEATH),),
    "fail to sync the name": (("sync_directory", 1, _FAILED),),
    "die in the last words of a recovery": (("store_many", 5, _DEATH),),
}
PRELUDES = (
    (),
    ("die while making the log",),
    ("append",),
    ("append", "fail to sync"),
    ("append", "die before its turn to sync"),
    ("append", "die before the sync"),
    ("append", "die behind the write"),
)
# what makes other batches of the same numbers, other segments, other pages
TELLING = (
    ("see what a crash would leave",),
    ("lose the cache", "append"),
    ("lose the cache and die", "append"),
    ("die behind the write", "settle"),
    ("fail to sync the name", "append"),
    ("take the page away", "append"),
    ("append", "append"),
)
SEGMENT_BYTES = (1, 300, 1 << 16)


class Case(msgspec.Struct, frozen=True):
    """One run."""

    prelude: tuple[str, ...]
    deed: str
    intruders: tuple[str, ...]
    segment_bytes: int
    gesture: int  # before which of the victim's gestures; 0: before none

    def __str__(self) -> str:
        parts = (",".join(self.prelude), self.deed, ",".join(self.intruders), self.segment_bytes, self.gesture)
        return "/".join(map(str, parts))


class Report(msgspec.Struct, kw_only=True):
    """What many cases came to."""

    cases: int = 0
    intruded: int = 0  # the victim made so many gestures, and the intruders came
    deeds: Counter[str] = msgspec.field(default_factory=Counter)
    violations: list[str] = msgspec.field(default_factory=list)


class _Unlucky(Random):
    """Dice by which nothing arrives on a disk that was not synced."""

    def random(self) -> float:
        return 0.0


class _Waiting(BaseException):
    """An intruder waits for the victim, which stands still: it is put aside for good."""


class _Bounded(Fate):
    """Nobody else is there, and a log that never comes to an end is stopped."""

    watching = True

    def __init__(self) -> None:
        self._left = _GESTURES_MAX

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:  # noqa: ARG002 -- whatever it is
        """Count."""
        self._left -= 1
        if self._left < 0:
            raise Stuck(f"no end after {_GESTURES_MAX} gestures")
        return None


class _Stage(_Bounded):
    """One world with its victim, its intruders, and what all of them were told."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.world = SimulatedWorld()
        self.world.dice = _Unlucky(0)
        self.case = case
        self.events: list[Event] = []
        self.seen: list[Seen] = []
        self.wrong: list[str] = []
        self.gestures = 0
        self._victim: SimulatedEnv | None = None
        self._faults: list[tuple[str, int, Fault]] = []
        self._sleeps = 0
        self._moment = 0

    def play(self) -> list[str]:
        """Prelude, deed, intrusion, judgement; what was wrong."""
        world = self.world
        world.fate = self
        if "die while making the log" not in self.case.prelude:
            create(_DIRECTORY, env=world.process())
        for intrusion in self.case.prelude:
            self._intrude(intrusion)
        bystander = self._connected(world.process())
        list(bystander.read(0, upto="head"))
        self._victim = victim = world.process()
        self._carefully("victim", lambda: self._do(self.case.deed, victim))
        self._victim = None
        self._carefully("bystander", lambda: self._read("onlooker", bystander))
        self._carefully("bystander", lambda: self._append("bystander", bystander))
        self._judge()
        return [f"{what}\n    again: python -m {__spec__.name} --case {str(self.case)!r}" for what in self.wrong]

    # what happens

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        """Let the intruders in when the time has come; let them meet their faults."""
        super().step(env, gesture, about)
        if env is self._victim:
            self.gestures += 1
            if self.gestures == self.case.gesture:
                for intrusion in self.case.intruders:
                    self._intrude(intrusion)
        elif self._faults and self._faults[0][0] in (gesture, ""):
            kind, left, fault = self._faults.pop(0)
            if left == 1:
                return fault
            self._faults.insert(0, (kind, left - 1, fault))
        return None

    def block(self, env: SimulatedEnv, ready: Callable[[], bool], until: float | None) -> None:
        """Time passes for the victim; an intruder that waits has come too early."""
        if env is not self._victim and self._victim is not None and not ready():
            self._sleeps += 1
            if self._sleeps > _SLEEPS_MAX:
                raise _Waiting
        super().block(env, ready, until)

    def _intrude(self, intrusion: str) -> None:
        env, self._sleeps = self.world.process(), 0
        name = f"{intrusion} {env.number}"
        try:
            self._carefully(name, lambda: self._come_and_go(intrusion, name, env))
        except _Waiting:
            pass
        finally:
            self._faults = []
            self.world.kill(env)

    def _come_and_go(self, intrusion: str, name: str, env: SimulatedEnv) -> None:
        if intrusion == "take the page away":
            env.unlink(_DIRECTORY / "page")
            return
        if intrusion == "see what a crash would leave":
            self._judge()
            return
        if intrusion == "die while making the log":
            self._faults = list(FAULTS[intrusion])
            create(_DIRECTORY, env=env)
            return
        log = self._connected(env)
        self._faults = list(FAULTS[intrusion])
        if intrusion == "settle":
            log.settle()
            self._read("onlooker", log)
        else:
            self._append(name, log)

    def _do(self, deed: str, env: SimulatedEnv) -> None:
        log = self._connected(env)
        if deed == "append":
            self._append("victim", log)
        elif deed == "append after reading":
            self._append_after_reading("victim", log)
        elif deed == "settle":
            log.settle()
            self._read("victim", log)
        elif deed == "read":
            self._read("victim", log)
        else:
            self._append("victim", log)
            self._read("victim", log)
            self._append_after_reading("victim", log)

    def _carefully(self, name: str, act: Callable[[], None]) -> None:
        """Failing disks may be reported; nothing else may come out of the log."""
        try:
            act()
        except (OSError, OutcomeUnknown, Refused, Conflict, Killed):
            return
        except Exception as error:  # noqa: BLE001 -- whatever it is, it should not be
            self.wrong.append(f"{name}: {type(error).__name__}: {error}")

    # what the processes do

    def _connected(self, env: SimulatedEnv) -> FileLog:
        return FileLog(_DIRECTORY, env=env, segment_bytes=self.case.segment_bytes)

    def _append(self, name: str, log: FileLog) -> None:
        value = self._ask(name)
        payload = json.dumps({"v": value}).encode()
        self._answer(name, value, lambda: log.append(payload, after=0, again=lambda: payload))

    def _append_after_reading(self, name: str, log: FileLog) -> None:
        batches = _values(log.read(0, upto="head"))
        value = self._ask(name)
        told = {"v": value, "after": batches[-1] if batches else None}
        self._answer(name, value, lambda: log.append(json.dumps(told).encode(), after=len(batches)))

    def _read(self, name: str, log: FileLog) -> None:
        uptos: tuple[Upto, ...] = ("durable", "head")
        for upto in uptos:
            at = self._tick()
            values = _values(log.read(0, upto=upto))
            self.seen.append(Seen(name, at, tuple(values), upto == "durable"))

    def _ask(self, name: str) -> str:
        value = f"{name}: {len(self.events)}"
        self.events.append(Event(name, self._tick(), "invoke", value))
        return value

    def _answer(self, name: str, value: str, append: Callable[[], int | None]) -> None:
        try:
            seq = append()
        except OutcomeUnknown:
            self.events.append(Event(name, self._tick(), "unknown", value))
            raise
        except (Conflict, Refused):
            self.events.append(Event(name, self._tick(), "refused", value))
            raise
        self.events.append(Event(name, self._tick(), "ok", value, seq))

    def _tick(self) -> int:
        self._moment += 1
        return self._moment

    # judgement

    def _judge(self) -> None:
        """Everybody is killed; or the power is cut and of the names arrive none, or only the newest."""
        self._judge_one(self.world.copy(1), "after a kill")
        for when, names in (("with nothing but the disk", _none), ("with the newest names only", _newest)):
            twin = self.world.copy(1)
            twin.power_cut(lambda file: content_after(file, 0), names)
            self._judge_one(twin, when)

    def _judge_one(self, twin: SimulatedWorld, when: str) -> None:
        twin.fate = _Bounded()
        final: list[tuple[int, str]] = []
        try:
            create(_DIRECTORY, env=twin.process())
            log = self._connected(twin.process())
            log.settle()
            final += enumerate(_values(log.read(0, upto="durable")), 1)
            log.append(b'{"v":"after all"}', after=len(final))
        except Exception as error:  # noqa: BLE001 -- whatever it is, it should not be
            self.wrong.append(f"{when}: {type(error).__name__}: {error}")
        else:
            # without a page the newest batches are there and not called durable: docs/log-format.md, downsides
            forgiven = {"stale"} if "take the page away" in self.case.intruders else set()
            found = [each for each in violations(self.events, final, self.seen) if each.kind not in forgiven]
            self.wrong += [f"{when}: {each.kind}: {each.message}" for each in found]


def _none(directory: Directory) -> dict[str, Node]:
    return names_after(directory, ())


def _newest(directory: Directory) -> dict[str, Node]:
    return names_after(directory, range(len(directory.changes))[-1:])


def _values(batches: Iterable[tuple[int, bytes]]) -> list[str]:
    """What the batches say. Raises AssertionError when one was decided on another batch than stands before it."""
    values: list[str] = []
    for seq, payload in batches:
        told = json.loads(payload)
        before = values[-1] if values else None
        assert seq == len(values) + 1, f"expected number {len(values) + 1}, found {seq}"
        assert told.get("after", before) == before, f"{told} stands behind {before!r}"
        values.append(told["v"])
    return values


def play(case: Case) -> tuple[list[str], bool]:
    """What was wrong in this case, and whether the intruders came."""
    stage = _Stage(case)
    return stage.play(), stage.gestures >= case.gesture > 0


def every() -> Iterator[Case]:
    """All kinds of cases, each with its first gesture."""
    crowds = [(), *((one,) for one in FAULTS), *((one, other) for one in FAULTS for other in FAULTS)]
    for prelude in PRELUDES:
        for deed in DEEDS:
            for crowd in crowds:
                for segment_bytes in SEGMENT_BYTES:
                    yield Case(prelude, deed, crowd, segment_bytes, 1)


def walk() -> Iterator[Case]:
    """Every gesture of every deed, with the crowds that tell most."""
    for prelude in PRELUDES:
        for deed in DEEDS:
            for crowd in TELLING:
                yield from _gestures(Case(prelude, deed, crowd, SEGMENT_BYTES[1], 0))


def _gestures(case: Case) -> Iterator[Case]:
    for gesture in range(1, _alone(msgspec.structs.replace(case, intruders=())) + 1):
        yield msgspec.structs.replace(case, gesture=gesture)


@cache
def _alone(case: Case) -> int:
    """How many gestures the victim makes when nobody comes."""
    stage = _Stage(case)
    stage.play()
    return stage.gestures


def chosen(seed: int, cases: int) -> Iterator[Case]:
    """So many cases at random out of all there are."""
    dice, kinds = Random(seed), list(every())
    for _ in range(cases):
        kind = msgspec.structs.replace(dice.choice(kinds), gesture=0)
        yield msgspec.structs.replace(
            kind, gesture=dice.randint(1, _alone(msgspec.structs.replace(kind, intruders=())))
        )


def search(cases: Iterable[Case], *, violations_max: int = 10) -> Report:
    """Try these, until so many violations."""
    report = Report()
    for case in cases:
        wrong, intruded = play(case)
        report.cases += 1
        report.intruded += intruded
        report.deeds[case.deed] += 1
        report.violations += wrong
        if len(report.violations) >= violations_max:
            break
    return report


def main(arguments: list[str] | None = None) -> int:
    """Try what the command line asks for; 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.intrusions", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="which")
    parser.add_argument("--walk", action="store_true", help="every gesture, with the crowds that tell most")
    parser.add_argument("--case", help="this one")
    asked = parser.parse_args(arguments)
    if asked.case is None:
        report = search(walk() if asked.walk else chosen(asked.seed, asked.cases))
        sys.stdout.write(f"{report.cases} cases, in {report.intruded} of them somebody intruded: {report.deeds}\n")
        wrong = report.violations
    else:
        prelude, deed, intruders, segment_bytes, gesture = asked.case.split("/")
        crowds = (tuple(part.split(",")) if part else () for part in (prelude, intruders))
        wrong, _ = play(Case(next(crowds), deed, next(crowds), int(segment_bytes), int(gesture)))
    sys.stdout.writelines(f"{what}\n" for what in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
