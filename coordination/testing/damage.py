"""What does damage on the disk do to a log? It is detected, or it does no harm; never other batches, never a crash.

An ``Image`` is a log at rest with what was acknowledged in it. ``damages`` makes every single-bit flip, every
truncation, zeroed ranges, files swapped, deleted and put back to an older state; ``judged`` lets a reader and a writer
loose on each. Most of it runs on bytes in memory (``BytesEnv``), which is as good as files where nobody dies and
nothing is concurrent, and a thousand times faster; ``lay_out`` puts the same files on a real disk.

One weakness is declared in docs/log-format.md: when the page is lost *as well*, damage in what was synced last cannot
be told from a torn end. It is counted apart, and only where the first batch that is missing was itself hit and no line
that is left says that it had been on the disk.

    python -m coordination.testing.damage --cases 20000 --seed 7
"""

# ruff: noqa: ARG002, D102 # what each gesture of BytesEnv does is said in Env

from __future__ import annotations

import argparse
import errno
import itertools
import os
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from coordination.env import Env
from coordination.errors import LogDamaged, NotFound
from coordination.log.file import FileLog, create
from coordination.log.page import Head, Page
from coordination.log.segments import PAGE
from coordination.store import SnapshotDirectory
from coordination.testing.operations import PROJECTION, SNAPSHOTS, appended, log_of, mark_unfinished, saved

Verdict = Literal["harmless", "detected", "weakness", "violation"]
Witness = Literal["page", "page of another boot", "no page"]

WITNESSES: tuple[Witness, ...] = ("page", "page of another boot", "no page")
BOOT = "this"  # in which images are made
_PLACE = Path("/")
_TINY_BYTES = 1
_EXTRA = b'{"extra":1}'


# ---- a disk of bytes -------------------------------------------------------------------------------------------------


class _File:
    __slots__ = ("data",)

    def __init__(self, data: bytes | bytearray = b"") -> None:
        self.data = data

    def changing(self) -> bytearray:
        """The bytes, in a form that can be changed."""
        if isinstance(self.data, bytes):
            self.data = bytearray(self.data)
        return self.data


class BytesEnv(Env):
    """A world of files in memory for one process that is alone: nothing fails, and time passes when it waits."""

    def __init__(self, contents: Mapping[str, bytes], boot: str = BOOT) -> None:
        self._files = {path: _File(data) for path, data in contents.items()}
        self._directories = {os.path.dirname(path) for path in contents} | {"/"}  # noqa: PTH120 # a million times
        self._opened: dict[int, _File] = {}
        self._descriptors = itertools.count(3)
        self._boot = boot
        self._now = 0.0

    def contents(self) -> dict[str, bytes]:
        """All files as they are now."""
        return {path: bytes(file.data) for path, file in self._files.items()}

    def open_read(self, path: Path) -> int:
        file = self._files.get(str(path))
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        descriptor = next(self._descriptors)
        self._opened[descriptor] = file
        return descriptor

    open_existing = open_read

    def open_write(self, path: Path) -> int:
        self._files.setdefault(str(path), _File())
        return self.open_read(path)

    def create(self, path: Path) -> int:
        if str(path) in self._files:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        return self.open_write(path)

    def close(self, descriptor: int) -> None:
        del self._opened[descriptor]

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        return bytes(self._opened[descriptor].data[offset : offset + size])

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        target = self._opened[descriptor].changing()
        if len(target) < offset:
            target.extend(bytes(offset - len(target)))
        target[offset : offset + len(data)] = data
        return len(data)

    def size(self, descriptor: int) -> int:
        return len(self._opened[descriptor].data)

    def resize(self, descriptor: int, size: int) -> None:
        target = self._opened[descriptor].changing()
        target[:] = target[:size].ljust(size, b"\0")

    def sync(self, descriptor: int) -> None:
        assert descriptor in self._opened

    sync_data = sync

    def rename(self, old: Path, new: Path) -> None:
        self._files[str(new)] = self._files.pop(str(old))

    def unlink(self, path: Path) -> None:
        if self._files.pop(str(path), None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))

    def make_directory(self, path: Path) -> None:
        self._directories.add(str(path))

    def list_directory(self, path: Path) -> list[str]:
        if not self.is_directory(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        beginning = f"{path}/".replace("//", "/")
        return sorted(name[len(beginning) :] for name in self._files if name.startswith(beginning))

    def sync_directory(self, path: Path) -> None:
        assert self.is_directory(path)

    def is_file(self, path: Path) -> bool:
        return str(path) in self._files

    def is_directory(self, path: Path) -> bool:
        return str(path) in self._directories

    def file_id(self, descriptor: int) -> tuple[int, int]:
        return 1, id(self._opened[descriptor])

    def names_stamp(self, directory: Path | str) -> tuple[int, int, int] | None:
        return None

    def file_id_at(self, path: Path | str) -> tuple[int, int] | None:
        file = self._files.get(str(path))
        return None if file is None else (1, id(file))

    def lock(self, descriptor: int) -> None:
        assert descriptor in self._opened

    unlock = lock

    def try_lock(self, descriptor: int) -> bool:
        return descriptor in self._opened

    def locked(self, descriptor: int) -> bool:
        return descriptor not in self._opened

    def map_shared(self, descriptor: int, size: int) -> memoryview:
        return memoryview(self._opened[descriptor].changing())[:size].cast("Q")

    def unmap(self, words: memoryview) -> None:
        words.release()

    def wait_word(self, words: memoryview, index: int, value: int, timeout_seconds: float) -> None:
        self._now += timeout_seconds

    def wake(self, words: memoryview, index: int, sleepers: int) -> int:
        assert sleepers
        return 0

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def monotonic(self) -> float:
        return self._now

    def boot_id(self) -> str:
        return self._boot

    def process_start(self, pid: int) -> int | None:
        return pid

    def process_stopped(self, pid: int) -> bool:
        return pid < 0

    def lock_holder(self, path: Path) -> int | None:
        return None


# ---- images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A log at rest: its files by path below a place, what is acknowledged in it, and how the files were before."""

    name: str
    contents: Mapping[str, bytes]
    batches: tuple[bytes, ...]
    older: tuple[Mapping[str, bytes], ...]

    @property
    def damageable(self) -> list[str]:
        """Everything but the empty lock files."""
        return sorted(path for path, data in self.contents.items() if data)


class _Waiting(FileLog):
    """Appends and does not wait for the sync."""

    def _become_durable(self, page: Page, mine: Head) -> None:
        assert mine.seq, page


class _Builder:
    """Makes a log by using it."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self.env = BytesEnv({})
        self.batches: list[bytes] = []
        self.older: list[dict[str, bytes]] = []
        create(log_of(_PLACE), env=self.env)

    def append(self, count: int, segment_bytes: int = 1 << 20) -> None:
        log = FileLog(log_of(_PLACE), env=self.env, segment_bytes=segment_bytes)
        for _ in range(count):
            self.older.append(self.env.contents())
            self.batches.append(b'{"n":%d,"x":"%b"}' % (len(self.batches), b"y" * self._dice.randrange(12)))
            appended(log, self.batches[-1])
        log.close()

    def append_group(self, count: int) -> None:
        """Several batches that one sync makes durable, as when many writers wait for it."""
        log = _Waiting(log_of(_PLACE), env=self.env)
        for _ in range(count - 1):
            self.batches.append(b'{"n":%d}' % len(self.batches))
            appended(log, self.batches[-1])
        log.close()
        self.append(1)

    def recover(self) -> None:
        """As after one who was killed in the middle of a write."""
        self.older.append(self.env.contents())
        newest = max(path for path in self.env.contents() if path.endswith(".jsonl"))
        descriptor = self.env.open_existing(Path(newest))
        self.env.write(descriptor, b'{"seq":99,"dura', len(self.env.contents()[newest].rstrip(b"\n")) + 1)
        self.env.close(descriptor)
        mark_unfinished(_PLACE, self.env)
        log = FileLog(log_of(_PLACE), env=self.env)
        log.settle()
        log.close()

    def image(self, name: str) -> Image:
        return Image(name=name, contents=self.env.contents(), batches=tuple(self.batches), older=tuple(self.older))


def images(seed: int) -> list[Image]:
    """Logs of one segment, of many, some of them void, and with lines that share a sync; the seed decides payloads."""
    plain, rolled, recovered, grouped = (_Builder(seed + number) for number in range(4))
    plain.append(5)
    rolled.append(2)
    rolled.append(2, _TINY_BYTES)
    rolled.append(2)
    recovered.append(2)
    recovered.recover()
    recovered.append(2)
    recovered.recover()
    recovered.append(1)
    grouped.append(1)
    grouped.append_group(3)
    return [
        plain.image("one segment"),
        rolled.image("rolled"),
        recovered.image("recovered"),
        grouped.image("one sync for many"),
    ]


def lay_out(contents: Mapping[str, bytes], place: Path) -> None:
    """Put files below a real directory; who uses it must say that the boot is BOOT."""
    for path, data in contents.items():
        target = place / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)


# ---- damages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is done to one file, or to two that are swapped."""

    kind: Literal["bit", "cut", "zeroes", "deleted", "swapped", "older"]
    path: str
    start: int = 0  # the first byte that is not as it was
    end: int = 0  # the first byte that is as it was again
    bit: int = 0
    other: str = ""  # swapped with
    age: int = 0  # as it was before this step of the image's making

    def on(self, image: Image, witness: Witness = "page") -> dict[str, bytes]:
        """All files of the image with the damage done, and its page removed where there is to be none."""
        contents = dict(image.contents)
        data = contents[self.path]
        match self.kind:
            case "bit":
                flipped = bytes([data[self.start] ^ 1 << self.bit])
                contents[self.path] = data[: self.start] + flipped + data[self.end :]
            case "cut":
                contents[self.path] = data[: self.start]
            case "zeroes":
                contents[self.path] = data[: self.start] + bytes(self.end - self.start) + data[self.end :]
            case "deleted":
                del contents[self.path]
            case "swapped":
                contents[self.path], contents[self.other] = contents[self.other], data
            case "older":
                contents[self.path] = image.older[self.age][self.path]
        if witness == "no page":
            contents.pop(_PAGE, None)
        return contents

    def hits(self, path: str, start: int, end: int) -> bool:
        """Whether it reaches into these bytes of a file."""
        return path in {self.path, self.other} and start < self.end and self.start < end


def every(image: Image) -> list[Damage]:
    """Every flip of one bit, every cut, every file deleted, swapped or older. For zeroed ranges see ``zeroed``."""
    found: list[Damage] = []
    for path in image.damageable:
        data = image.contents[path]
        size = len(data)
        inside = range(_told(data))
        found += [Damage(kind="bit", path=path, start=at, end=at + 1, bit=bit) for at in inside for bit in range(8)]
        found += [Damage(kind="cut", path=path, start=at, end=size) for at in inside]
        found.append(Damage(kind="deleted", path=path, end=size))
        for age, older in enumerate(image.older):
            if path in older and older[path] != data:
                start = _first_difference(older[path], data)
                found.append(Damage(kind="older", path=path, start=start, end=size, age=age))
    for path, other in itertools.combinations(image.damageable, 2):
        size = max(len(image.contents[path]), len(image.contents[other]))
        found.append(Damage(kind="swapped", path=path, end=size, other=other))
    return found


def zeroed(image: Image, dice: random.Random) -> Damage:
    """Some range of some file is zeroes now."""
    path = dice.choice(image.damageable)
    told = _told(image.contents[path])
    start, end = sorted(dice.sample(range(told + 1), 2))
    return Damage(kind="zeroes", path=path, start=start, end=end)


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (a, b) in pairs if a != b), min(len(one), len(other)))


def _told(data: bytes) -> int:
    """How many bytes say something: of the rest of the page and of a segment's fill a few stand for all."""
    return min(len(data), len(data.rstrip(b"\0\n")) + 8)


# ---- verdicts --------------------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run tried and found."""

    seed: int
    cases: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    more_than_one: int = 0  # weaknesses in which more than the newest batch was dropped
    violations: list[str] = field(default_factory=list)


Use = Callable[[Path, Env], list[bytes]]


def read(place: Path, env: Env) -> list[bytes]:
    """Read as one who only reads."""
    log = FileLog(log_of(place), env=env)
    try:
        numbered = list(log.read(0, upto="head"))
        durable = list(log.read(0, upto="durable"))
    finally:
        log.close()
    assert [seq for seq, _ in numbered] == list(range(1, len(numbered) + 1)), "numbers must count from 1"
    assert durable == numbered[: len(durable)], "what is durable must be the beginning"
    return [payload for _, payload in numbered]


def write(place: Path, env: Env) -> list[bytes]:
    """Go on with it; what was in it before."""
    log = FileLog(log_of(place), env=env)
    try:
        log.settle()
        before = read(place, env)
        assert appended(log, _EXTRA) == len(before) + 1, "the next batch must have the next number"
    finally:
        log.close()
    assert read(place, env) == [*before, _EXTRA], "what is appended must be there afterwards"
    return before


def boot_of(witness: Witness) -> str:
    """In which boot the damaged log is looked at."""
    return "next" if witness == "page of another boot" else BOOT


def judged(image: Image, damage: Damage, witness: Witness) -> tuple[Verdict, str]:
    """The worse of what a reader and a writer make of it, in memory."""
    contents = damage.on(image, witness)
    verdicts = [
        verdict(image, damage, witness, use, _PLACE, BytesEnv(contents, boot_of(witness))) for use in (read, write)
    ]
    return max(verdicts, key=lambda each: _BADNESS.index(each[0]))


def verdict(image: Image, damage: Damage, witness: Witness, use: Use, place: Path, env: Env) -> tuple[Verdict, str]:
    """What one use of a damaged log comes to."""
    try:
        found = use(place, env)
    except LogDamaged:
        return "detected", ""
    except NotFound:
        found = []  # as if there had never been a log
    except Exception as error:  # noqa: BLE001 # that nothing else is raised is the claim
        return "violation", f"{use.__name__}: {error!r}"
    if tuple(found) == image.batches:
        return "harmless", ""
    if tuple(found) != image.batches[: len(found)]:
        return "violation", f"{use.__name__}: other batches: {found}"
    dropped = len(image.batches) - len(found)
    unwitnessed = witness == "no page" or damage.hits(_PAGE, 0, 1 << 62)
    if unwitnessed and _could_be_torn(image, damage, len(found) + 1):
        return "weakness", f"{dropped} dropped"
    return "violation", f"{use.__name__}: {dropped} batches dropped without a word"


def _could_be_torn(image: Image, damage: Damage, first: int) -> bool:
    """Whether the first missing line was hit, and no line that was not says that it had been on the disk."""
    torn, promised = False, 0
    for path, data in image.contents.items():
        for line in _LINE.finditer(data):
            hit = damage.hits(path, line.start(), line.end())
            torn = torn or (hit and int(line[1]) == first)
            promised = max(promised, 0 if hit else int(line[2]))
    return torn and promised < first


def run(cases: int, seed: int) -> Report:
    """So many cases: of all that can be listed as much as fits, and half as many zeroed ranges."""
    report = Report(seed=seed)
    for image, damage, witness in itertools.islice(sampled(cases, seed), cases):
        found, why = judged(image, damage, witness)
        report.cases += 1
        report.verdicts[f"{found} with {witness}"] += 1
        report.kinds[damage.kind] += 1
        if found == "weakness":
            report.more_than_one += why != "1 dropped"
        if found == "violation":
            report.violations.append(f"{image.name}, {witness}, {damage}: {why}")
    return report


def sampled(cases: int, seed: int) -> Iterator[tuple[Image, Damage, Witness]]:
    """At least so many cases, spread over all images; each that can be listed comes once before any comes again."""
    dice = random.Random(seed)
    made = 0
    while made < cases:
        for image in images(dice.randrange(1 << 30)):
            listed = [(damage, witness) for damage in every(image) for witness in WITNESSES]
            share = min(len(listed), (2 * cases + 11) // 12)
            for damage, witness in dice.sample(listed, share):
                yield image, damage, witness
            for _ in range(share // 2):
                yield image, zeroed(image, dice), dice.choice(WITNESSES)
            made += share + share // 2


_LINE = re.compile(rb'\{"seq":([0-9]+),"durable":([0-9]+),[^\n]*\n')
_PAGE = str(log_of(_PLACE) / PAGE)
_BADNESS: Sequence[Verdict] = ("harmless", "detected", "weakness", "violation")


# ---- snapshots -------------------------------------------------------------------------------------------------------


def snapshots(cases: int, seed: int) -> Report:
    """Damage to saved snapshots: what is found afterwards is one that was saved, or none."""
    report = Report(seed=seed)
    dice = random.Random(seed)
    image = _saved_image()
    listed = every(image)
    for number in range(cases):
        damage = listed[number % len(listed)] if number < len(listed) else zeroed(image, dice)
        directory = SnapshotDirectory(_PLACE / SNAPSHOTS, env=BytesEnv(damage.on(image)))
        found = directory.newest(PROJECTION, 1, log="any", seq_max=1 << 62)
        report.cases += 1
        report.kinds[damage.kind] += 1
        report.verdicts["none" if found is None else "newest" if found.seq == 8 else "older"] += 1
        if found is not None and (found.seq not in {7, 8} or found.state != saved(found.seq).state):
            report.violations.append(f"{damage}: {found}")
    return report


def _saved_image() -> Image:
    env = BytesEnv({})
    directory = SnapshotDirectory(_PLACE / SNAPSHOTS, env=env)
    older = []
    for seq in (6, 7, 8):
        directory.save(saved(seq))
        older.append(env.contents())
    return Image(name="snapshots", contents=env.contents(), batches=(), older=tuple(older))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print the report as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.damage", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    report = run(options.cases, options.seed)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
