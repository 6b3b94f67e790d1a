"""What can a power cut leave of a filesystem? Every image that a recording of its block writes and flushes allows.

A real ext4 is mounted over a loop device over a file that records (``coordination.testing.fuse``). What ran on it can
then be cut anywhere: all that was written before the last flush is on the disk; of what was written since, any part may
be, in any order, down to single sectors. Each image is mounted again (ext4 recovers its journal) and asked::

    linux.live_apart()
    with record(blank(), directory) as disk:
        (disk.root / "file").write_text("hello")
        at = disk.position()  # what is durable now must be in every image of a cut at this position or later
    for cut, image in images(disk.recording, draw(disk.recording, Random(1), 100)):
        with image_mounted(image, directory) as root:
            ...

Positions count gestures: a cut at position n is a cut before gesture n. One thing is not seen: a write that was still
under way when a flush was asked for counts as flushed if it arrived first; a disk need not promise that. Needs root,
``/dev/fuse`` and loop devices: ``linux.missing()`` tells. Whoever records has a mount namespace of its own, so nothing
stays behind when it is killed.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec

from coordination.testing import fuse, linux

SECTOR_BYTES = 512  # what a disk writes whole or not at all
IMAGE_BYTES = 32 << 20
_HOLE = bytes(1 << 16)
_PATIENCE_SECONDS = 30.0
_TRIES_EACH = 20

# With a journal, as it is made by default; what ext4 would do later by itself is done at once.
_MAKE = ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")


class Gesture(msgspec.Struct, frozen=True, array_like=True):
    """A write of ``data`` at ``offset``, or a flush."""

    offset: int
    data: bytes

    @property
    def flushes(self) -> bool:
        """Whether this makes all earlier writes durable."""
        return self.offset == fuse.FLUSH


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """An image, all that happened to it in order, and between which positions the filesystem was in use."""

    before: bytes
    gestures: tuple[Gesture, ...]
    begin: int
    end: int


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of one write: which gesture, and from where to where in its data."""

    gesture: int
    start: int
    end: int


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A cut before gesture ``position``. ``kept``: what reached the disk of the writes since the last flush before."""

    position: int
    kept: tuple[Piece, ...]


class Disk:
    """A mounted filesystem that is being recorded."""

    recording: Recording  # there once the block of ``record`` has ended

    def __init__(self, root: Path, counted: memoryview) -> None:
        self.root = root
        self._counted = counted

    def position(self) -> int:
        """How many gestures there were. May be asked in forked children too."""
        count: int = self._counted[0]
        return count


def blank(size: int = IMAGE_BYTES) -> bytes:
    """An empty ext4 with a journal. Raises OSError, CalledProcessError."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(size)
        subprocess.run([*_MAKE, file.name], check=True, timeout=_PATIENCE_SECONDS)
        return Path(file.name).read_bytes()


@contextmanager
def record(before: bytes, directory: Path, *, direct: bool = False) -> Iterator[Disk]:
    """Mount an image under ``directory`` and record what reaches it. ``direct``: the loop device does direct I/O.

    Call ``linux.live_apart`` first. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "before").write_bytes(before)
    (directory / "position").write_bytes(bytes(mmap.PAGESIZE))
    (directory / "disk").touch()
    (directory / "root").mkdir(exist_ok=True)
    with (directory / "position").open("rb") as counted:
        disk = Disk(directory / "root", _counter(counted.fileno()))
    with _served(directory):
        backing = os.open(directory / "disk", os.O_RDWR | os.O_CLOEXEC)
        try:
            with linux.mounted(backing, disk.root, direct=direct):
                begin = disk.position()
                yield disk
                end = disk.position()
        finally:
            os.close(backing)
    gestures = tuple(_gestures((directory / "gestures").read_bytes()))
    assert len(gestures) == disk.position() >= end
    disk.recording = Recording(before=before, gestures=gestures, begin=begin, end=end)


def draw(recording: Recording, dice: Random, count: int) -> list[Cut]:
    """Different cuts, in order of their positions; fewer than ``count`` when there are hardly more."""
    drawn: set[Cut] = set()
    for _ in range(_TRIES_EACH * count):
        if len(drawn) == count:
            break
        position = dice.randint(recording.begin, recording.end)
        writes = range(flushed_before(recording, position), position)
        drawn.add(Cut(position=position, kept=tuple(_pieces(recording, writes, dice))))
    return sorted(drawn, key=lambda cut: (cut.position, [(p.gesture, p.start, p.end) for p in cut.kept]))


def flushed_before(recording: Recording, position: int) -> int:
    """The position right after the last flush before a cut: the gestures from there on are writes that may be lost."""
    while position > 0 and not recording.gestures[position - 1].flushes:
        position -= 1
    return position


def images(recording: Recording, cuts: Sequence[Cut]) -> Iterator[tuple[Cut, bytearray]]:
    """The disk after each cut; ``cuts`` in order of their positions. An image is good until the next is asked for."""
    image, done = bytearray(recording.before), 0
    for cut in cuts:
        flushed = flushed_before(recording, cut.position)
        for gesture in recording.gestures[done:flushed]:
            if not gesture.flushes:
                _put(image, gesture.offset, gesture.data)
        done = max(done, flushed)
        undone = [_kept(image, recording.gestures[piece.gesture], piece) for piece in cut.kept]
        yield cut, image
        for offset, data in reversed(undone):
            _put(image, offset, data)


@contextmanager
def image_mounted(image: bytes | bytearray, directory: Path) -> Iterator[Path]:
    """Mount a copy of an image, as after the power is back; what is done to it is forgotten. Raises OSError."""
    target = directory / "again"
    target.mkdir(exist_ok=True)
    memory = os.memfd_create("image")
    try:
        os.truncate(memory, len(image))
        for offset in range(0, len(image), len(_HOLE)):
            part = image[offset : offset + len(_HOLE)]
            if part != _HOLE:  # most of it is
                os.pwrite(memory, part, offset)
        with linux.mounted(memory, target):
            yield target
    finally:
        os.close(memory)


@contextmanager
def _served(directory: Path) -> Iterator[None]:
    """A process that serves ``directory/disk``, until the block ends and nobody has the file open any more."""
    command = [sys.executable, "-m", fuse.__name__, str(directory), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            if server.stdout.readline() != "mounted\n":
                raise OSError(f"the file that records was not mounted: exit code {server.wait(_PATIENCE_SECONDS)}")
            try:
                yield
            finally:
                linux.unmount(directory / "disk", lazily=True)  # the loop device lets go of it a moment later
            if server.wait(_PATIENCE_SECONDS) != 0:
                raise OSError(f"the file that records ended with exit code {server.returncode}")
        finally:
            server.kill()


def _counter(descriptor: int) -> memoryview:
    return memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)).cast("Q")


def _gestures(data: bytes) -> Iterator[Gesture]:
    at = 0
    while at < len(data):
        offset, size = fuse.GESTURE.unpack_from(data, at)
        at += fuse.GESTURE.size
        yield Gesture(offset, data[at : at + size])
        at += size


def _pieces(recording: Recording, writes: Iterable[int], dice: Random) -> Iterator[Piece]:
    """Which of the unflushed writes reach the disk: all, whole ones, or single sectors; many of them or few."""
    unit = dice.choice(["everything", "write", "write", "sector"])
    luck = dice.choice([0.1, 0.5, 0.9])
    for write in writes:
        size = len(recording.gestures[write].data)
        step = SECTOR_BYTES if unit == "sector" else size
        for start in range(0, size, step):
            if unit == "everything" or dice.random() < luck:
                yield Piece(write, start, min(start + step, size))


def _kept(image: bytearray, gesture: Gesture, piece: Piece) -> tuple[int, bytes]:
    """Let a piece reach the disk; what was there before, and where."""
    return _put(image, gesture.offset + piece.start, gesture.data[piece.start : piece.end])


def _put(image: bytearray, offset: int, data: bytes) -> tuple[int, bytes]:
    before = bytes(image[offset : offset + len(data)])
    image[offset : offset + len(data)] = data
    return offset, before
