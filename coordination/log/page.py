"""Where is the head, how far is the disk, and did somebody leave work unfinished? Memory shared by all who use a log.

The page only saves time and carries marks: whatever it says can be worked out from the segments, and a page that is
not believed is rebuilt by recovery. It dies with the boot, because only within one boot do the marks of a killed
process and the bytes it left in the page cache belong together. One word outlives the boot as a witness: ``durable``
was stored after the sync, so a log that ends before it has lost something.

The head stands in one of two slots, and ``generation`` says in which: a writer fills the other one and then counts up,
so that a reader who holds no lock always finds a whole head, also when the writer was stopped in the middle.

Syncs come in rounds, even and odd. ``covering`` says in one word up to which batch the last round goes and which of the
two it is, so that whoever waits knows on which bell: that of the round under way, or that of the next one.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Literal, get_args

import msgspec

from coordination import files
from coordination.env import Env
from coordination.log.names import Names
from coordination.log.turns import EVERYBODY, Bell

BYTES = 4096
_WORD_BYTES = 8
_MAGIC = int.from_bytes(b"coordpg2", "little")
Mark = Literal["dirty", "syncing", "poison"]
Sleeping = Literal["append", "sync", "round_0", "round_1", "durable"]
_SLOT = ("epoch", "segment", "offset", "head_seq", "head_sum", "check")
_WORDS = (
    "magic",
    "boot",
    "log",
    "generation",
    *(f"{word}_0" for word in _SLOT),
    *(f"{word}_1" for word in _SLOT),
    "durable",
    "dirty",
    "syncing",
    "poison",
    "covering",
    *(f"{bell}_{word}" for bell in get_args(Sleeping) for word in ("bell", "sleepers")),
)
_AT = {word: index for index, word in enumerate(_WORDS)}
_CHECKED = struct.Struct(f"<{4 + len(_SLOT) - 1}Q")
_GENERATION, _FIRST_SLOT, _SLOT_WORDS, _DURABLE = _AT["generation"], _AT["epoch_0"], len(_SLOT), _AT["durable"]
_DIRTY, _SYNCING, _POISON, _COVERING = _AT["dirty"], _AT["syncing"], _AT["poison"], _AT["covering"]
_READ = _POISON + 1  # words that a reading needs


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next line goes."""

    epoch: int
    segment: int
    offset: int
    seq: int
    sum: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole page of this log said at one moment."""

    head: Head
    generation: int
    durable: int  # everything up to here is on the disk
    dirty: bool  # a line is being written, or its writer was killed
    syncing: bool  # a sync is under way, or who asked for it was killed
    poisoned: bool  # a sync failed
    this_boot: bool
    fits: bool = True  # whether the files say no more, as far as its reader looked


class Page:
    """The mapped file. The head is stored in the append turn, ``durable`` in the sync turn; everybody reads."""

    def __init__(self, path: Path, descriptor: int, log: str, env: Env) -> None:
        self._name = str(path)  # asked for at every append, and text is what the system wants
        self._descriptor = descriptor
        self._env = env
        self._words = env.map_shared(descriptor, BYTES)
        self._file = env.file_id(descriptor)
        self.bells = {sleeping: Bell(self._words, _AT[f"{sleeping}_bell"], env) for sleeping in get_args(Sleeping)}
        boot = env.boot_id()
        self._boot = _hashed(boot) if boot else 0
        self._log = _hashed(log)

    def close(self) -> None:
        """Unmap."""
        self._env.unmap(self._words)
        self._env.close(self._descriptor)

    def current(self, names: Names) -> bool:
        """Whether the mapped file is still the one that has the name."""
        return names.file_id_at(self._name) == self._file

    @property
    def dies_with_boot(self) -> bool:
        """Whether the system names its boots; if not, a page can never be believed."""
        return self._boot != 0

    def read(self) -> Reading | None:
        """What the page says; None when it is not a whole page of this log."""
        before: list[int] = []
        for _ in range(100):  # a slot may be filled again while we look
            durable = self._words[_DURABLE]  # first: a head that is read later is at least as far
            words = self._words[:_READ].tolist()
            reading = self._reading(durable, words)
            if reading is not None or words == before:  # twice the same: nobody is filling it, it is broken
                return reading
            before = words
        return None

    def covers(self, epoch: int, seq: int) -> bool:
        """Whether batch ``seq`` of that epoch is known to be on the disk. Quick; False may also mean: ask ``read``."""
        if self._words[_DURABLE] < seq:
            return False
        # the epoch after the watermark: if this watermark is of a newer one, so is the epoch that we see
        return bool(self._words[_FIRST_SLOT + self._words[_GENERATION] % 2 * _SLOT_WORDS] == epoch)

    def set_up(self, head: Head) -> None:
        """Make it a clean page that says ``head`` and that all of it is durable. In both turns."""
        self._env.store_many(self._words, 0, (_MAGIC, self._boot, self._log))
        self.advance(head)
        self.reach(head.seq)
        for mark in ("poison", "syncing", "dirty"):
            self._store(mark, 0)

    def introduce(self, head: Head, durable: int) -> None:
        """Make it a page of this boot that says what stands, marked as it is. In both turns."""
        self.reach(durable)
        self._env.store_many(self._words, 0, (_MAGIC, self._boot, self._log))
        self.advance(head)

    def advance(self, head: Head) -> None:
        """Say that ``head`` was appended. In the append turn, between ``begin`` and ``clear``."""
        generation = self._words[_GENERATION] + 1 & 0xFFFFFFFFFFFFFFFF
        slot = (head.epoch, head.segment, head.offset, head.seq, head.sum)
        check = zlib.crc32(_CHECKED.pack(_MAGIC, self._boot, self._log, generation, *slot))
        self._env.store_many(self._words, _FIRST_SLOT + generation % 2 * _SLOT_WORDS, (*slot, check))
        self._env.store(self._words, _GENERATION, generation)

    def reach(self, durable: int) -> None:
        """Say that everything up to this number is on the disk. In the sync turn, after the sync."""
        self._env.store(self._words, _DURABLE, durable)

    @property
    def syncing(self) -> bool:
        """Whether a sync seems to be under way."""
        return self._words[_SYNCING] != 0

    def begin_round(self, seq: int) -> int:
        """Say that a sync begins that covers batches up to ``seq``; which of the two rounds it is. In the sync turn."""
        which: int = 1 - self._words[_COVERING] % 2
        self._env.store(self._words, _COVERING, seq * 2 + which)
        return which

    def heard(self) -> tuple[int, int]:
        """What the bells of the rounds say now: to be asked before trying for the sync turn."""
        return self.bells["round_0"].heard(), self.bells["round_1"].heard()

    def sleep_until_round(self, seq: int, heard: tuple[int, int]) -> None:
        """Sleep until the round is over that covers batch ``seq``: the one under way, if it does, or the next one."""
        covering = self._words[_COVERING]
        which = covering % 2 if seq <= covering // 2 else 1 - covering % 2
        (self.bells["round_1"] if which else self.bells["round_0"]).sleep(heard[which])

    def ring_round(self, which: int) -> None:
        """Wake all whom this round covered, all who follow, and one for the next round."""
        (self.bells["round_1"] if which else self.bells["round_0"]).ring(EVERYBODY)
        (self.bells["round_0"] if which else self.bells["round_1"]).ring(1)
        self.bells["durable"].ring(EVERYBODY)

    def mark(self, mark: Mark) -> None:
        """Set a mark; it stays until ``clear`` or recovery."""
        self._store(mark, 1)

    def clear(self, mark: Mark) -> None:
        """Take a mark back: what it warned of is done."""
        self._store(mark, 0)

    def _store(self, word: str, value: int) -> None:
        self._env.store(self._words, _AT[word], value)

    def _reading(self, durable: int, words: list[int]) -> Reading | None:
        generation = words[_GENERATION]
        at = _FIRST_SLOT + generation % 2 * _SLOT_WORDS
        epoch, segment, offset, seq, checksum, check = words[at : at + _SLOT_WORDS]
        if (
            words[0] != _MAGIC
            or words[2] != self._log
            or check != zlib.crc32(_CHECKED.pack(*words[:4], epoch, segment, offset, seq, checksum))
            or durable > seq
        ):
            return None
        return Reading(
            head=Head(epoch=epoch, segment=segment, offset=offset, seq=seq, sum=checksum),
            generation=generation,
            durable=durable,
            dirty=words[_DIRTY] != 0,
            syncing=words[_SYNCING] != 0,
            poisoned=words[_POISON] != 0,
            this_boot=self._boot != 0 and words[1] == self._boot,
        )


def open_page(path: Path, log: str, env: Env) -> Page | None:
    """The page, if there is a file that can be one. Raises OSError."""
    try:
        descriptor = env.open_existing(path)
    except FileNotFoundError:
        return None
    if env.size(descriptor) < BYTES:
        env.close(descriptor)
        return None
    return Page(path, descriptor, log, env)


def vouches(path: Path, env: Env) -> bool:
    """Whether there is a page that says that anything was ever acknowledged. Raises OSError.

    One that does not may be all that a power cut left of making a log: names reach the disk in any order.
    """
    try:
        descriptor = env.open_read(path)
    except FileNotFoundError:
        return False
    try:
        return any(env.read(descriptor, _WORD_BYTES, _WORD_BYTES * _DURABLE))
    finally:
        env.close(descriptor)


def create_page(path: Path, log: str, env: Env) -> Page:
    """Make an empty page. Raises OSError."""
    descriptor = env.open_write(path)
    # written, not only resized: a store into a hole of a full disk would be a signal instead of an error
    try:
        files.write_fully(descriptor, bytes(BYTES), 0, env=env)
    except BaseException:
        env.close(descriptor)
        raise
    return Page(path, descriptor, log, env)


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
