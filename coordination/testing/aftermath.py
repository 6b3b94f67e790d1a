"""Is a log whole after a crash, and does it go on? Judged only by what was asked and answered before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from coordination.env import Env
from coordination.errors import NotFound
from coordination.log.file import FileLog, create
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld

DIRECTORY = Path("/state/log")
_GESTURES_MAX = 20_000  # of one recovery; a few hundred are usual
Batches = Sequence[tuple[int, str]]  # number and value


class Ledger:
    """What was asked of one log and what was answered."""

    def __init__(self) -> None:
        self.acknowledged: dict[int, str] = {}
        self.possible: set[str] = set()  # asked for, and not refused
        self.refused: set[str] = set()

    def copy(self) -> Ledger:
        """The same so far."""
        twin = Ledger()
        twin.acknowledged = dict(self.acknowledged)
        twin.possible, twin.refused = set(self.possible), set(self.refused)
        return twin

    def ask(self, value: str) -> None:
        """It is about to be appended."""
        self.possible.add(value)

    def refuse(self, value: str) -> None:
        """It was certainly not appended."""
        self.possible.discard(value)
        self.refused.add(value)

    def acknowledge(self, seq: int, value: str) -> str | None:
        """It is durable as this number; what is wrong with that, if anything."""
        other = self.acknowledged.setdefault(seq, value)
        return None if other == value else f"{seq} was acknowledged for {other!r} and for {value!r}"

    def wrong(self, batches: Batches) -> Iterator[str]:
        """What cannot be, if these are all the batches of the log."""
        standing = dict(batches)
        for seq, value in self.acknowledged.items():
            if standing.get(seq) != value:
                yield f"{value!r} was acknowledged as {seq}, where {standing.get(seq)!r} stands"
        for expected, (seq, value) in enumerate(batches, 1):
            if seq != expected:
                yield f"expected number {expected}, found {seq}"
            if value in self.refused:
                yield f"{value!r} was refused and stands as {seq}"
            elif value not in self.possible:
                yield f"{value!r} stands as {seq}, and nobody asked for it"
        if len(set(standing.values())) < len(batches):
            yield f"something stands there twice: {batches}"


def payload(value: str, *, after: int | None = None, seen: str | None = None) -> bytes:
    """A batch that says what it is and, if it was decided on facts, after which batch, and what stood there."""
    told = {"v": value} if after is None else {"v": value, "after": after, "seen": seen}
    return json.dumps(told, separators=(",", ":")).encode()


def read(log: FileLog, *, durable: bool) -> list[tuple[int, str]]:
    """All batches. Raises AssertionError when one was decided on other facts than those that stand before it."""
    batches: list[tuple[int, str]] = []
    for seq, line in log.read(0, upto="durable" if durable else "head"):
        told = json.loads(line)
        if "after" in told:
            before = batches[-1] if batches else (0, None)
            assert before == (told["after"], told["seen"]), f"{line!r} stands as {seq} after {before}"
        batches.append((seq, told["v"]))
    return batches


def recover(world: SimulatedWorld, ledger: Ledger, segment_bytes: int) -> list[str]:
    """Do what the next process does: read, settle, read again, append, read as somebody else. What was wrong.

    Raises Killed when the world's fate says so; whatever was acknowledged until then stands in the ledger.
    """
    wrong: list[str] = []
    world.gestures_left = _GESTURES_MAX
    try:
        _recover(world.process(), world.process(), ledger, segment_bytes, wrong)
    except Exception as error:  # noqa: BLE001 - whatever it is, a log after a crash must not raise it
        wrong.append(f"after the crash: {type(error).__name__}: {error}")
    return wrong


def _recover(env: Env, other: Env, ledger: Ledger, segment_bytes: int, wrong: list[str]) -> None:
    log = _connected(env, ledger, segment_bytes)
    unsettled = read(log, durable=False)
    wrong += ledger.wrong(unsettled)
    proven = log.durable
    log.settle()
    batches = read(log, durable=True)
    wrong += ledger.wrong(batches)
    # what was being written may be found by settling, though the page did not show it to readers
    if batches[: len(unsettled)] != unsettled or not proven <= log.durable == len(batches):
        wrong.append(f"{unsettled} of which {proven} durable became {batches} of which {log.durable} by settling")
    head = len(batches)
    value = f"after {head} at {env.monotonic()}"
    ledger.ask(value)
    seq = log.append(payload(value, after=head, seen=batches[-1][1] if batches else None), after=head)
    assert seq == head + 1, f"appended after {head} as {seq}"
    ledger.acknowledge(seq, value)
    wrong += ledger.wrong(read(FileLog(DIRECTORY, env=other), durable=True))


def _connected(env: Env, ledger: Ledger, segment_bytes: int) -> FileLog:
    try:
        return FileLog(DIRECTORY, env=env, segment_bytes=segment_bytes)
    except NotFound:
        assert not ledger.acknowledged, f"the log is gone, and with it {ledger.acknowledged}"
    create(DIRECTORY, env=env)
    return FileLog(DIRECTORY, env=env, segment_bytes=segment_bytes)


class Cut(Fate):
    """Everybody dies at gesture number ``at``; a write or a series of stores is cut in the middle."""

    def __init__(self, at: int, share: float) -> None:
        self._left = at
        self._share = share

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:  # noqa: ARG002 - whatever it is
        """Count."""
        self._left -= 1
        return Fault("kill", share=self._share) if self._left == 0 else None


def crash(
    world: SimulatedWorld,
    ledger: Ledger,
    dice: Random,
    segment_bytes: int,
    *,
    worst: bool = False,
) -> tuple[list[str], int]:
    """Crash a copy of this world by the dice, perhaps again during recovery; what was wrong, and how many states.

    ``worst``: a power cut after which nothing is there but what was synced.
    """
    twin = world.copy(dice.getrandbits(32))
    told = ledger.copy()
    if worst:
        twin.power_cut(lambda file: bytearray(file.disk), lambda directory: dict(directory.disk))
    elif dice.random() < 0.75:
        twin.power_cut()
    states = 1
    for states in range(2, 2 + dice.choice((0, 0, 1, 2))):
        twin.fate = Cut(dice.randrange(1, 80), dice.random())
        try:
            if wrong := recover(twin, told, segment_bytes):
                return wrong, states
        except Killed:
            pass
        for env in list(twin.processes):
            twin.kill(env)
        if dice.random() < 0.5:
            twin.power_cut()
    twin.fate = Fate()
    return recover(twin, told, segment_bytes), states
