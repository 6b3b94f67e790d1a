"""Is there any crash, anywhere in a short history, that the log does not survive? All histories of up to k operations.

A workload is a few operations one after the other. While the last one runs, the world is copied at every gesture, and
the copies crash: the processes are killed (a write torn at any byte), or the power is cut and what was not synced
arrives in every combination that the bounds allow. Every copy must recover, keep what was acknowledged and go on, also
when it crashes again during recovery. The gestures of the operations before the last one belong to shorter workloads.

::

    python -m coordination.testing.exhaustive --operations 2
    python -m coordination.testing.exhaustive --workload append,roll --disks 4 --bytes 2 --nested 0
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import msgspec

from coordination.errors import Conflict, OutcomeUnknown
from coordination.log.file import FileLog, create
from coordination.store.snapshot import Snapshot, SnapshotDirectory
from coordination.testing.aftermath import DIRECTORY, Ledger, payload, read, recover
from coordination.testing.disk import Directory, File, Node, apply, content_after, names_after
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld

SNAPSHOTS = Path("/state/snapshots")
_NEVER_ROLLS = 1 << 20
_SUBSETS_MAX = 4  # of so many changes of names all subsets are tried, of more only beginnings
_VIOLATIONS_MAX = 10
_LINES_BYTES_MAX = 400
_PLACES_OF_LONG = 4
Contents = Callable[[File], bytearray]
Names = Callable[[Directory], dict[str, Node]]


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much is tried at each gesture; 0 is everything there is."""

    disks: int  # different outcomes of a power cut
    bytes: int  # places at which a write is torn
    nested: int  # gestures of each recovery at which it crashes again

    def as_options(self) -> str:
        """As the command line takes them."""
        return f"--disks {self.disks} --bytes {self.bytes} --nested {self.nested}"


SKETCHY = Bounds(disks=2, bytes=1, nested=1)
BYTE_BY_BYTE = Bounds(disks=0, bytes=0, nested=1)
NESTED = Bounds(disks=12, bytes=6, nested=0)


class Report(msgspec.Struct, kw_only=True):
    """What was tried and what was found."""

    workloads: int = 0
    gestures: int = 0
    states: int = 0  # crashed worlds that recovered, all different
    nested: int = 0  # of them those that crashed during recovery
    violations: list[str] = msgspec.field(default_factory=list)

    def add(self, other: Report) -> None:
        """Sum up."""
        self.workloads += other.workloads
        self.gestures += other.gestures
        self.states += other.states
        self.nested += other.nested
        self.violations += other.violations


class Workload(Fate):
    """One workload in one world, crashed at every gesture of its last operation."""

    def __init__(self, operations: Sequence[str], bounds: Bounds, seed: int) -> None:
        self.operations = tuple(operations)
        self.bounds = bounds
        self.report = Report(workloads=1)
        self.ledger = Ledger()
        self.saved: int | None = None  # the last snapshot that was acknowledged
        self.saving: int | None = None  # the one after it
        self.world = SimulatedWorld(seed)
        self.log: FileLog | None = None
        self.next_fault: tuple[str, Fault] | None = None
        self._seed = seed
        self._dice = Random(f"{seed} {self.operations}")
        self._watching = False
        self._written: File | None = None  # what the gesture before this one wrote to
        self._known: set[bytes] = set()
        self._values = 0

    def explore(self) -> Report:
        """Run it."""
        self.world.fate = self
        for number, operation in enumerate(self.operations, 1):
            self._watching = number == len(self.operations)
            try:
                OPERATIONS[operation](self)
            except Exception as error:  # noqa: BLE001 - nothing else may come out of the log
                self.wrong(f"{operation}: {type(error).__name__}: {error}")
            self.next_fault = None
        self._boundary()
        return self.report

    def wrong(self, what: str) -> None:
        """A promise was broken."""
        if len(self.report.violations) < _VIOLATIONS_MAX:
            again = f"--workload {','.join(self.operations)} --seed {self._seed} {self.bounds.as_options()}"
            self.report.violations.append(f"{what}\n    again: python -m coordination.testing.exhaustive {again}")

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        """Crash copies of the world as it is before this gesture."""
        if self._watching:
            self.report.gestures += 1
            self._boundary()
            self._written = env.file_behind(about) if gesture == "write" else None
        if self.next_fault is not None and self.next_fault[0] == gesture:
            fault, self.next_fault = self.next_fault[1], None
            return fault
        return None

    # what operations are made of

    def connected(self) -> FileLog:
        """The first process's connection, made when it is first needed or after it died."""
        if self.log is None:
            env = self.world.process()
            create(DIRECTORY, env=env)
            self.log = FileLog(DIRECTORY, env=env, segment_bytes=_NEVER_ROLLS)
        return self.log

    def append(self, log: FileLog) -> None:
        """Append after what stands there; whatever becomes of it stands in the ledger."""
        batches = read(log, durable=False)
        head, seen = len(batches), batches[-1][1] if batches else None
        self._values += 1
        value = str(self._values)
        self.ledger.ask(value)
        try:
            seq = log.append(payload(value, after=head, seen=seen), after=head)
        except Conflict:
            self.ledger.refuse(value)
        except OutcomeUnknown:
            return
        else:
            self.ledger.acknowledge(seq, value)

    def append_in_another(self, segment_bytes: int = _NEVER_ROLLS) -> None:
        """The same in a process that comes and goes; it may be killed."""
        self.connected()
        env = self.world.process()
        try:
            self.append(FileLog(DIRECTORY, env=env, segment_bytes=segment_bytes))
        except Killed:
            return
        self.world.kill(env)

    def restart(self, content: Contents | None, names: Names | None) -> None:
        """Cut the power now and begin again."""
        self.connected()
        self.world.power_cut(content, names)
        self.log = None
        self.connected().settle()

    def snapshot(self) -> None:
        """Publish a snapshot of everything durable."""
        log = self.connected()
        self.saving = log.durable
        state = b'{"seq":%d}' % self.saving
        snapshot = Snapshot(projection="all", version=1, seq=self.saving, log=log.uuid, state=state)
        SnapshotDirectory(SNAPSHOTS, env=self.world.process()).save(snapshot)
        self.saved, self.saving = self.saving, None

    # crashes

    def _boundary(self) -> None:
        if len(self.report.violations) >= _VIOLATIONS_MAX:
            return
        for twin in self._killed():
            self._try(twin)
        for content, names in self._disks():
            self._try(self._cut(content, names))

    def _cut(self, content: Contents, names: dict[int, Sequence[int]]) -> SimulatedWorld:
        """A copy after a power cut; what arrived is said of this world's files and carried out on their twins."""
        twin = self.world.copy(self._dice.getrandbits(32))
        files = zip(self.world.files(), twin.files(), strict=True)
        arrived = {id(other): content(file) for file, other in files}
        directories = zip(self.world.directories.values(), twin.directories.values(), strict=True)
        named = {id(other): names_after(other, names.get(id(directory), ())) for directory, other in directories}
        twin.power_cut(lambda file: arrived[id(file)], lambda directory: named[id(directory)])
        return twin

    def _killed(self) -> Iterator[SimulatedWorld]:
        """All processes killed now, or in the middle of the write that was made just before."""
        yield self.world.copy(self._dice.getrandbits(32))
        written = self._written
        if written is None or not written.changes:
            return
        whole = self.world.files().index(written)
        for torn in self._places(len(written.changes[-1][1] or b"")):
            twin = self.world.copy(self._dice.getrandbits(32))
            file = twin.files()[whole]
            offset, data = file.changes.pop()
            file.evict()
            file.change((offset, (data or b"")[:torn]))
            yield twin

    def _disks(self) -> Iterator[tuple[Contents, dict[int, Sequence[int]]]]:
        """What a power cut may leave: contents of files, and which changes of names arrived."""
        found = list(self._all_disks())
        few = self.bounds.disks
        yield from self._dice.sample(found, few) if few and len(found) > few else found

    def _all_disks(self) -> Iterator[tuple[Contents, dict[int, Sequence[int]]]]:
        directories = [directory for directory in self.world.directories.values() if directory.changes]
        namings = [
            dict(zip(map(id, directories), arrived, strict=True))
            for arrived in itertools.product(*(_subsets(len(directory.changes)) for directory in directories))
        ]
        nothing, everything = namings[0], namings[-1]
        for naming in namings:
            yield _nothing, naming
            yield _everything, naming
        for file in self.world.files():
            for content in self._contents(file):
                for naming in (nothing, everything) if nothing != everything else (nothing,):
                    for others in (_nothing, _everything):
                        yield partial(_mixed, file, content, others), naming

    def _contents(self, file: File) -> Iterator[bytearray]:
        """Of one file: every number of whole changes, the last one torn anywhere, its beginning lost, only its size."""
        last = len(file.changes)
        if not last:
            return
        first = 0 if not file.mapped else max(0, last - 3)
        for whole in range(first, last):
            yield content_after(file, whole)
        offset, data = file.changes[-1]
        for torn in self._places(len(data or b"")):
            yield content_after(file, last - 1, torn)
            late = content_after(file, last - 1)
            apply(late, (offset + torn, (data or b"")[torn:]))
            yield late
        for filling in (b"\0", b"\n"):
            yield file.disk + filling[:1] * (len(file.cache) - len(file.disk))

    def _places(self, size: int) -> Iterator[int]:
        """Where to tear so many bytes: everywhere, or at a few places of which the last byte is one.

        Long writes, a fill or a new page, are of one byte throughout, so that a few places stand for all.
        """
        few = self.bounds.bytes if size <= _LINES_BYTES_MAX else _PLACES_OF_LONG
        if not few or few >= size - 1:
            yield from range(1, size)
        else:
            yield from sorted({size - 1, *self._dice.sample(range(1, size - 1), few)})

    def _try(self, twin: SimulatedWorld) -> None:
        """Recover in a crashed world, unless one like it did before."""
        state = _digest(twin, self.ledger, self.saved, self.saving)
        if state in self._known:
            return
        self._known.add(state)
        self.report.states += 1
        nested = _Nested(self, twin)
        for what in nested.recover():
            self.wrong(what)

    def check_snapshot(self, world: SimulatedWorld) -> Iterator[str]:
        """The newest snapshot that was acknowledged is there, or the one that was being made."""
        if self.saved is not None:
            env = world.process()
            log = FileLog(DIRECTORY, env=env)
            found = SnapshotDirectory(SNAPSHOTS, env=env).newest("all", 1, log=log.uuid, seq_max=log.durable)
            if found is None or found.seq not in (self.saved, self.saving) or found.state != b'{"seq":%d}' % found.seq:
                yield f"snapshot {self.saved} was acknowledged, and there is {found}"


class _Nested(Fate):
    """One recovery, crashed again at some or all of its gestures."""

    def __init__(self, workload: Workload, world: SimulatedWorld) -> None:
        self._workload = workload
        self._world = world
        self._told = workload.ledger.copy()
        self._wrong: list[str] = []
        self._gestures = 0
        few = workload.bounds.nested
        self._chosen = {workload._dice.randrange(80) for _ in range(few)} if few else None  # noqa: SLF001 - its other half

    def recover(self) -> list[str]:
        """What was wrong, in this recovery or in those that came after one that crashed."""
        self._world.fate = self
        wrong = recover(self._world, self._told, _NEVER_ROLLS)
        self._world.fate = Fate()
        if not wrong:
            wrong += self._workload.check_snapshot(self._world)
        return wrong + self._wrong

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:  # noqa: ARG002 - at whatever it is
        """Crash a copy here."""
        self._gestures += 1
        if self._chosen is None or self._gestures in self._chosen:
            if self._chosen is None or self._gestures % 2:
                self._crash(_nothing, lambda directory: dict(directory.disk))
            if self._chosen is None or not self._gestures % 2:
                self._crash(None, None)
        return None

    def _crash(self, content: Contents | None, names: Names | None) -> None:
        twin = self._world.copy(self._world.dice.getrandbits(32))
        if content is not None or self._gestures % 4:
            twin.power_cut(content, names)
        self._workload.report.states += 1
        self._workload.report.nested += 1
        again = recover(twin, self._told.copy(), _NEVER_ROLLS)
        self._wrong += [f"crashed again at gesture {self._gestures} of recovery: {what}" for what in again]


# ---- operations ------------------------------------------------------------------------------------------------------


def _create(workload: Workload) -> None:
    create(DIRECTORY, env=workload.world.process())


def _append_after_fault(gesture: str, fault: Fault, workload: Workload) -> None:
    log = workload.connected()
    workload.next_fault = (gesture, fault)
    workload.append(log)


def _killed_at(gesture: str, workload: Workload) -> None:
    workload.connected()
    workload.next_fault = (gesture, Fault("kill", share=0.5))
    workload.append_in_another()


OPERATIONS: dict[str, Callable[[Workload], None]] = {
    "create": _create,
    "append": lambda workload: workload.append(workload.connected()),
    "other": lambda workload: workload.append_in_another(),
    "roll": lambda workload: workload.append_in_another(segment_bytes=1),
    "settle": lambda workload: workload.connected().settle(),
    "snapshot": lambda workload: workload.snapshot(),
    "sync-kept": partial(_append_after_fault, "sync_data", Fault("error", errno.EIO)),
    "sync-dropped": partial(_append_after_fault, "sync_data", Fault("error", errno.EIO, dropped=True)),
    "short": partial(_append_after_fault, "write", Fault("short", share=0.6)),
    "killed-writing": partial(_killed_at, "write"),
    "killed-syncing": partial(_killed_at, "sync_data"),
    "power-cut": lambda workload: workload.restart(None, None),
}


def workloads(operations: int) -> list[tuple[str, ...]]:
    """All of exactly so many operations."""
    return list(itertools.product(OPERATIONS, repeat=operations))


def explore(
    chosen: Sequence[tuple[str, ...]],
    bounds: Bounds,
    *,
    seed: int = 0,
    seconds: float | None = None,
    processes: int = 1,
) -> Report:
    """Try these workloads, until the time is over."""
    report = Report()
    ends = None if seconds is None else time.time() + seconds
    one = partial(_explored, bounds=bounds, seed=seed, ends=ends)
    if processes == 1:
        for each in chosen:
            report.add(one(each))
    else:
        with ProcessPoolExecutor(processes) as pool:
            for part in pool.map(one, chosen, chunksize=4):
                report.add(part)
    return report


def _explored(operations: tuple[str, ...], bounds: Bounds, seed: int, ends: float | None) -> Report:
    if ends is not None and time.time() > ends:
        return Report()
    return Workload(operations, bounds, seed).explore()


def _subsets(number: int) -> list[Sequence[int]]:
    """Which of so many changes may arrive; first none, last all."""
    if number > _SUBSETS_MAX:
        return [range(first) for first in range(number + 1)]
    return [[change for change in range(number) if chosen >> change & 1] for chosen in range(1 << number)]


def _nothing(file: File) -> bytearray:
    return bytearray(file.disk)


def _everything(file: File) -> bytearray:
    return content_after(file, len(file.changes))


def _mixed(file: File, content: bytearray, others: Contents, which: File) -> bytearray:
    return bytearray(content) if which is file else others(which)


def _digest(world: SimulatedWorld, *more: object) -> bytes:
    """Of everything a recovery could depend on: names, contents, what is synced, and what is expected."""
    digest = hashlib.blake2b(digest_size=16)
    for path, directory in world.directories.items():
        for name, node in sorted(directory.entries.items()):
            digest.update(f"{path}/{name if not name.endswith('.tmp') else 'tmp'}\0".encode())
            if isinstance(node, File) and not name.endswith(".tmp"):
                digest.update(node.cache)
                digest.update(b"\0synced\0" if node.cache == node.disk else node.disk)
        digest.update(b"synced" if directory.entries == directory.disk else b"changed")
    ledger = more[0]
    assert isinstance(ledger, Ledger)
    digest.update(repr((world.boots, sorted(ledger.acknowledged.items()), sorted(ledger.possible), more[1:])).encode())
    return digest.digest()


def main(arguments: list[str] | None = None) -> int:
    """Explore as asked on the command line; 1 when something was found."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.exhaustive", description=__doc__)
    parser.add_argument("--operations", type=int, default=2, help="all workloads of up to so many")
    parser.add_argument("--workload", help=f"one workload: {', '.join(OPERATIONS)}, with commas between them")
    parser.add_argument("--disks", type=int, default=0, help="outcomes of a power cut at each gesture; 0: all")
    parser.add_argument("--bytes", type=int, default=0, help="places at which a write is torn; 0: every byte")
    parser.add_argument("--nested", type=int, default=1, help="gestures of a recovery that crash again; 0: every one")
    parser.add_argument("--seed", type=int, default=0, help="of what is left to chance within the bounds")
    parser.add_argument("--seconds", type=float, help="begin no workload after that long")
    parser.add_argument("--processes", type=int, default=1, help="how many at once")
    asked = parser.parse_args(arguments)
    if asked.workload:
        chosen = [tuple(asked.workload.split(","))]
    else:
        chosen = [each for number in range(1, asked.operations + 1) for each in workloads(number)]
    bounds = Bounds(disks=asked.disks, bytes=asked.bytes, nested=asked.nested)
    begun = time.monotonic()
    report = explore(chosen, bounds, seed=asked.seed, seconds=asked.seconds, processes=asked.processes)
    rate = report.states / (time.monotonic() - begun)
    print(f"{report.workloads} workloads, {report.gestures} gestures, {report.states} crash states", end=" ")
    print(f"({report.nested} of them during recovery), {rate:.0f}/s")
    for violation in report.violations:
        print(violation)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
