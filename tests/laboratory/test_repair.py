"""G17: whatever happens to the bytes of a log, repair keeps every batch whose bytes are not damaged."""

from __future__ import annotations

import copy
import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coordination.env import Env
from coordination.errors import LogDamaged
from coordination.log.examination import Examination, Fate
from coordination.log.file import FileLog, create
from coordination.log.repair import examine, mend

IMAGES = {1: 500, 2: 10_000}
IMAGES_EACH = 25  # of one log
HERE = "tests/laboratory/test_repair.py"


class Unsynced(Env):
    """The real world in a hurry: what is damaged here was on the disk before."""

    def sync(self, descriptor: int) -> None:
        pass

    def sync_data(self, descriptor: int) -> None:
        pass

    def sync_directory(self, path: Path) -> None:
        pass


class Loaded(Unsynced):
    """The same with dice that can be thrown again."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))


class AfterReboot(Unsynced):
    """The same, after another boot: marks and head of the page say nothing any more, only its watermark."""

    def boot_id(self) -> str:
        return "another boot"


ENV = Unsynced()
_BUILT: dict[tuple[int, int], Any] = {}  # the last log


@dataclass
class Image:
    """The files of a log as they are, and what was done to them. Knows nothing of how they are read."""

    files: dict[str, bytes]
    acknowledged: dict[int, bytes]
    places: dict[int, tuple[str, int, int]]  # file, begin and end of each of them
    whose: dict[str, str] = field(default_factory=dict)  # by name now, the name it had
    original: dict[str, bytes] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def __copy__(self) -> Image:
        whose = {name: name for name in self.files}
        return Image(dict(self.files), self.acknowledged, self.places, whose, dict(self.files))

    def segments(self) -> list[str]:
        return sorted(name for name in self.files if name.endswith(".jsonl"))

    def intact(self) -> set[int]:
        """Batches whose every byte is where it was in its file, under whatever name."""
        now = {was: self.files[name] for name, was in self.whose.items()}
        return {
            seq
            for seq, (name, begin, end) in self.places.items()
            if now.get(name, b"")[begin:end] == self.original[name][begin:end]
        }

    def write(self, directory: Path) -> None:
        directory.mkdir()
        for name, data in self.files.items():
            (directory / name).write_bytes(data)


def places(files: dict[str, bytes], acknowledged: dict[int, bytes]) -> dict[int, tuple[str, int, int]]:
    """Where each batch stands: in the newest file that has its number."""
    found = {}
    for name in sorted(name for name in files if name.endswith(".jsonl")):
        offset = 0
        for raw in files[name].rstrip(b"\n").split(b"\n"):
            row = json.loads(raw)
            if "seq" in row:
                found[row["seq"]] = (name, offset, offset + len(raw) + 1)
            offset += len(raw) + 1
    return {seq: found[seq] for seq in acknowledged}


def ends(data: bytes) -> int:
    """Where what is worth damaging ends: a little behind the last line."""
    return min(len(data), len(data.rstrip(b"\n")) + 8)


# ---- what happens to files -------------------------------------------------------------------------------------------


def flip(image: Image, name: str, dice: Random) -> None:
    """One bit."""
    data = bytearray(image.files[name])
    at = dice.randrange(ends(image.files[name]))
    data[at] ^= 1 << dice.randrange(8)
    image.files[name] = bytes(data)
    image.done.append(f"flip {name}:{at}")


def flip_near_an_end(image: Image, name: str, dice: Random) -> None:
    """One bit in the last bytes of a line: its checksum, its line feed."""
    data = bytearray(image.files[name])
    feeds = [at for at, sign in enumerate(data[: ends(image.files[name])]) if sign == 10] or [len(data) - 1]
    at = max(0, dice.choice(feeds) - dice.randrange(24))
    data[at] ^= 1 << dice.randrange(8)
    image.files[name] = bytes(data)
    image.done.append(f"flip {name}:{at} near an end")


def blot(image: Image, name: str, dice: Random) -> None:
    """A range of zeroes, line feeds or noise."""
    data = image.files[name]
    begin = dice.randrange(ends(data))
    length = dice.choice([1, 8, 40, 200, 512, 2000])
    kind = dice.choice(["zeroes", "feeds", "noise"])
    fill = {"zeroes": b"\0" * length, "feeds": b"\n" * length, "noise": dice.randbytes(length)}[kind]
    end = min(len(data), begin + length)
    image.files[name] = data[:begin] + fill[: end - begin] + data[end:]
    image.done.append(f"{kind} {name}:{begin}-{end}")


def cut(image: Image, name: str, dice: Random) -> None:
    """The end is gone."""
    at = dice.randrange(ends(image.files[name]))
    image.files[name] = image.files[name][:at]
    image.done.append(f"cut {name} at {at}")


def move_block(image: Image, name: str, dice: Random) -> None:
    """A block of the file stands where another should."""
    data = image.files[name]
    size = dice.choice([64, 300, 512])
    source, target = dice.randrange(ends(data)), dice.randrange(ends(data))
    block = data[source : source + size][: len(data) - target]
    image.files[name] = data[:target] + block + data[target + len(block) :]
    image.done.append(f"copy {name}:{source}+{len(block)} to {target}")


def delete(image: Image, name: str, dice: Random) -> None:
    """The file is gone; not the last one, without which there is no log at all."""
    if len(image.segments()) > 1:
        del image.files[name], image.whose[name]
        image.done.append(f"delete {name}")


def swap(image: Image, name: str, dice: Random) -> None:
    """Two segments have each other's names."""
    other = dice.choice(image.segments())
    image.files[name], image.files[other] = image.files[other], image.files[name]
    image.whose[name], image.whose[other] = image.whose[other], image.whose[name]
    image.done.append(f"swap {name} {other}")


DAMAGES: list[Callable[[Image, str, Random], None]] = [flip, flip, flip_near_an_end, blot, blot, cut, move_block]
RARE: list[Callable[[Image, str, Random], None]] = [delete, swap]


def damage(image: Image, dice: Random) -> Env:
    """One to four damages, sometimes to the page as well; with which world the log is met again."""
    for _ in range(dice.choice([1, 1, 1, 2, 3, 4])):
        names = [name for name in image.segments() if image.files[name]]
        if names:
            dice.choice([*DAMAGES * 2, *RARE])(image, dice.choice(names), dice)
    page = dice.choice(["", "", "", "deleted", "flipped", "zeroed", "another boot"])
    if page == "deleted":
        del image.files["page"], image.whose["page"]
    elif page == "flipped":
        data = bytearray(image.files["page"])
        data[dice.randrange(128)] ^= 1 << dice.randrange(8)
        image.files["page"] = bytes(data)
    elif page == "zeroed":
        image.files["page"] = bytes(len(image.files["page"]))
    if page:
        image.done.append(f"page {page}")
    return AfterReboot() if page == "another boot" else ENV


# ---- logs ------------------------------------------------------------------------------------------------------------


def payload(seq: int, dice: Random) -> bytes:
    """Of any size; some quote what looks like a line."""
    quoted = dice.choice(["", "x" * dice.randrange(300), '{"seq":3,"durable":2,', "\u00e9\u2603"])
    nested = {"seq": dice.randrange(9), "durable": 1, "sum": "00000000"} if dice.random() < 0.1 else None
    return json.dumps({"n": seq, "text": quoted, "of": nested}, ensure_ascii=False, separators=(",", ":")).encode()


def build(directory: Path, dice: Random) -> Image:
    """A log of several segments and epochs; some batches are unproven when the next writer comes."""
    env = Loaded(dice)
    create(directory, env=env)
    acknowledged: dict[int, bytes] = {}
    size = dice.choice([300, 900, 3000])
    for _ in range(dice.randrange(1, 4)):
        log = FileLog(directory, env=env, segment_bytes=size)
        list(log.read(0, upto="head"))
        log.settle()
        list(log.read(0, upto="head"))
        for _ in range(dice.randrange(0, 14)):
            seq = len(acknowledged) + 1
            data = payload(seq, dice)
            assert log.append(data, after=seq - 1) == seq
            acknowledged[seq] = data
        log.close()
        if dice.random() < 0.8:
            (directory / "page").unlink()  # the next writer recovers: another epoch
    log = FileLog(directory, env=env, segment_bytes=size)
    log.settle()
    log.close()
    paths = [path for path in directory.iterdir() if path.name == "page" or path.suffix == ".jsonl"]
    files = {path.name: path.read_bytes() for path in paths}
    for name in files.keys() - {"page"}:  # any part of the fill may be missing
        files[name] = files[name][: len(files[name].rstrip(b"\n")) + dice.choice([1, 1, 1, 2, 70, 5000])]
    return Image(files=files, acknowledged=acknowledged, places=places(files, acknowledged))


# ---- the claim -------------------------------------------------------------------------------------------------------


def placeholder(seq: int, _raw: bytes | None, _before: bytes) -> bytes:
    return b'{"lost":%d}' % seq


def holds(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def named(found: Examination, *fates: Fate) -> set[int]:
    return {seq for fate in fates for first, last in found.numbers(fate) for seq in range(first, last + 1)}


def read_all(directory: Path, env: Env) -> dict[int, bytes]:
    log = FileLog(directory, env=env)
    try:
        return dict(log.read(0, upto="head"))
    finally:
        log.close()


def refused(directory: Path, env: Env) -> bool:
    try:
        read_all(directory, env)
    except LogDamaged:
        return True
    return False


def check(image: Image, directory: Path, env: Env) -> Counter[str]:
    """What became of the batches. Raises AssertionError with what was violated."""
    image.write(directory)
    before = holds(directory)
    try:
        found = examine(directory, env=env)
    except LogDamaged:
        assert not image.intact(), "refused as hopeless, but batches are intact"
        assert holds(directory) == before
        return Counter({"images": 1, "hopeless images": 1})
    assert holds(directory) == before, "examining wrote"
    assert found.whole or not refused(directory, env) or found.damages, "refused, and nothing found"
    assert not (found.whole and refused(directory, env)), "refused by the kernel, and called whole"

    backup = directory.with_name(directory.name + " backup")
    mended = mend(directory, backup / "1", placeholder=placeholder, env=env)
    assert (mended.backup is None) == found.whole
    assert {name: data for name, data in holds(directory).items() if name in before and name != "page"} == {
        name: data for name, data in before.items() if name != "page"
    }, "an old file was changed"
    if mended.backup is not None:
        copied = holds(mended.backup)
        assert {name: copied[name] for name in before} == before, "the backup is not what was there"
    log = read_all(directory, env)
    judge(image, found, log)
    again = mend(directory, backup / "2", placeholder=placeholder, env=env)
    assert again.found.whole, f"mended twice: {again.found.damages}"
    assert not (backup / "2").exists()
    goes_on(directory, log, env)
    return Counter(
        {
            "images": 1,
            "whole images": int(found.whole),
            "intact": len(named(found, Fate.INTACT)),
            "lost": len(named(found, Fate.LOST)),
            "doubtful": len(named(found, Fate.DOUBTFUL)),
        }
    )


def judge(image: Image, found: Examination, log: dict[int, bytes]) -> None:
    intact, doubtful, lost = image.intact(), named(found, Fate.DOUBTFUL), named(found, Fate.LOST)
    assert list(log) == list(range(1, len(log) + 1)), "not numbered from 1 without a gap"
    for seq, data in image.acknowledged.items():
        if seq in intact:
            assert log.get(seq) == data, f"batch {seq} is intact, and the mended log has {log.get(seq)!r}"
        elif seq in log and log[seq] != data:
            assert seq in doubtful | lost, f"batch {seq} is another one, without a word"
    top = max(image.acknowledged, default=0)
    name = json.loads(image.original[image.segments()[0]].partition(b"\n")[0])["log"]
    if found.log == name and image.files.get("page") == image.original["page"]:
        assert len(log) >= top, "the page knows of more batches than the mended log has"
    elif image.acknowledged.keys() - log.keys():
        assert min(image.acknowledged.keys() - log.keys()) > max(intact, default=0)


def goes_on(directory: Path, log: dict[int, bytes], env: Env) -> None:
    writer = FileLog(directory, env=env)
    list(writer.read(0, upto="head"))
    writer.settle()
    list(writer.read(0, upto="head"))
    assert writer.append(b'{"after":"repair"}', after=len(log)) == len(log) + 1
    writer.close()
    assert read_all(directory, env) == log | {len(log) + 1: b'{"after":"repair"}'}


@pytest.mark.timeout(0)
def test_every_intact_batch_is_kept_at_its_number(
    tmp_path: Path, tier: int, seed: int, figure: Callable[..., None]
) -> None:
    """Random damage to logs of several segments and epochs; what is not intact is named, and nothing else changes."""
    chosen = os.environ.get("REPAIR_IMAGE")
    fates: Counter[str] = Counter()
    for number in range(IMAGES[tier]) if chosen is None else [int(chosen)]:
        fates += one(tmp_path, seed, number)
    note = ", ".join(f"{count:,} {what}" for what, count in sorted(fates.items()))
    figure("G17", "damaged images repaired", fates["images"], note=note)
    if chosen is None:
        assert min(fates[what] for what in ("intact", "lost", "doubtful", "whole images")) > 0, fates


def built(directory: Path, seed: int, number: int) -> Image:
    """A log, made anew only when it is another one than last time."""
    if (seed, number) not in _BUILT:
        _BUILT.clear()
        _BUILT[seed, number] = build(directory / "log", Random(f"{seed} log {number}"))
        shutil.rmtree(directory / "log")
    image: Image = _BUILT[seed, number]
    return copy.copy(image)


def one(directory: Path, seed: int, number: int) -> Counter[str]:
    """One image, and what became of its batches; the same for the same seed and number."""
    image = built(directory, seed, number // IMAGES_EACH)
    env = damage(image, Random(f"{seed} image {number}"))
    try:
        return check(image, directory / "image", env)
    except Exception as error:
        command = f"REPAIR_IMAGE={number} pytest {HERE} --seed {seed}"
        raise AssertionError(f"image {number} of seed {seed}: {error}\n{image.done}\n{command}") from error
    finally:
        for name in ("image", "image backup"):
            shutil.rmtree(directory / name, ignore_errors=True)
