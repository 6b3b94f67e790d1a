"""Where is the head, how far is the disk, and did somebody leave work unfinished? Memory shared by all who use a log.

The page only saves time and carries marks: whatever it says can be worked out from the segments, and a page that is
not believed is rebuilt by recovery. It dies with the boot, because only within one boot do the marks of a killed
process and the bytes it left in the page cache belong together. One word outlives the boot as a witness: ``durable``
was stored after the sync, so a log that ends before it has lost something.

The head stands in one of two slots, and ``generation`` says in which: a writer fills the other one and then counts up,
so that a reader who holds no lock always finds a whole head, also when the writer was stopped in the middle.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Literal

import msgspec

from coordination.env import Env
from coordination.locks import Identity
from coordination.log.turns import Bell

BYTES = 4096
_MAGIC = int.from_bytes(b"coordpg2", "little")
Mark = Literal["dirty", "syncing", "poison"]
Turn = Literal["append", "sync"]
_SLOT = ("epoch", "segment", "offset", "head_seq", "head_sum", "check")
_OWNER = ("pid", "start", "namespace", "ours")
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
    "append_bell",
    "sync_bell",
    *(f"append_{word}" for word in _OWNER),
    *(f"sync_{word}" for word in _OWNER),
)
_AT = {word: index for index, word in enumerate(_WORDS)}
_CHECKED = struct.Struct(f"<{4 + len(_SLOT) - 1}Q")
_FIRST_SLOT, _DURABLE, _GENERATION = _AT["epoch_0"], _AT["durable"], _AT["generation"]


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
    durable: int  # everything up to here is on the disk
    dirty: bool  # a line is being written, or its writer was killed
    syncing: bool  # a sync is under way, or who asked for it was killed
    poisoned: bool  # a sync failed
    this_boot: bool


class Page:
    """The mapped file. The head is stored in the append turn, ``durable`` in the sync turn; everybody reads."""

    def __init__(self, path: Path, descriptor: int, log: str, env: Env) -> None:
        self._name = str(path)  # asked for at every append, and text is what the system wants
        self._descriptor = descriptor
        self._env = env
        self._words = env.map_shared(descriptor, BYTES)
        self._file = env.file_id(descriptor)
        boot = env.boot_id()
        self._boot_id = boot
        self._boot = _hashed(boot) if boot else 0
        self._log = _hashed(log)
        self._namespace = env.pid_namespace()

    def close(self) -> None:
        """Unmap."""
        self._env.unmap(self._words)
        self._env.close(self._descriptor)

    @property
    def current(self) -> bool:
        """Whether the mapped file is still the one that has the name."""
        return self._env.file_id_at(self._name) == self._file

    @property
    def dies_with_boot(self) -> bool:
        """Whether the system names its boots; if not, a page can never be believed."""
        return self._boot != 0

    def bell(self, turn: Turn) -> Bell:
        """The word on which those sleep who wait for this turn."""
        return self._words, _AT[f"{turn}_bell"]

    def read(self) -> Reading | None:
        """What the page says; None when it is not a whole page of this log."""
        for _ in range(100):  # a slot may be filled again while we look, a broken page stays broken
            # durable first: a head that is read later is at least as far
            words = [self._words[_DURABLE], *self._words[: len(_WORDS)].tolist()]
            reading = self._reading(words[0], words[1:])
            if reading is not None:
                return reading
        return None

    def covers(self, epoch: int, seq: int) -> bool:
        """Whether batch ``seq`` of that epoch is known to be on the disk. Quick; False may also mean: ask ``read``."""
        if self._words[_DURABLE] < seq:
            return False
        # the epoch after the watermark: if this watermark is of a newer one, so is the epoch that we see
        return bool(self._words[_FIRST_SLOT + self._words[_GENERATION] % 2 * len(_SLOT)] == epoch)

    def set_up(self, head: Head) -> None:
        """Make it a clean page that says ``head`` and that all of it is durable. In both turns."""
        self._env.store_many(self._words, 0, (_MAGIC, self._boot, self._log))
        self.advance(head)
        self.reach(head.seq)
        for mark in ("poison", "syncing", "dirty"):
            self._store(mark, 0)

    def advance(self, head: Head) -> None:
        """Say that ``head`` was appended. In the append turn, between ``begin`` and ``clear``."""
        generation = self._words[_GENERATION] + 1 & 0xFFFFFFFFFFFFFFFF
        slot = (head.epoch, head.segment, head.offset, head.seq, head.sum)
        check = zlib.crc32(_CHECKED.pack(_MAGIC, self._boot, self._log, generation, *slot))
        self._env.store_many(self._words, _FIRST_SLOT + generation % 2 * len(_SLOT), (*slot, check))
        self._env.store(self._words, _GENERATION, generation)

    def reach(self, durable: int) -> None:
        """Say that everything up to this number is on the disk. In the sync turn, after the sync."""
        self._env.store(self._words, _DURABLE, durable)

    def sign(self, turn: Turn, start: int, *, ours: bool) -> None:
        """Say who has the turn, and whether it may be killed when it is stopped in it."""
        self._env.store_many(self._words, _AT[f"{turn}_pid"], (self._env.pid(), start, self._namespace, int(ours)))

    def signed(self, turn: Turn) -> Identity | None:
        """Who signed last, if it is one of ours and its number means something here."""
        at = _AT[f"{turn}_pid"]
        pid, start, namespace, ours = self._words[at : at + len(_OWNER)].tolist()
        if not ours or namespace != self._namespace or self._words[_AT["boot"]] != self._boot:
            return None
        return Identity(pid=pid, start=start, boot=self._boot_id)

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
        at = _FIRST_SLOT + generation % 2 * len(_SLOT)
        epoch, segment, offset, seq, checksum, check = words[at : at + len(_SLOT)]
        whole = (
            words[0] == _MAGIC
            and words[2] == self._log
            and check == zlib.crc32(_CHECKED.pack(*words[:4], epoch, segment, offset, seq, checksum))
            and durable <= seq
        )
        if not whole:
            return None
        return Reading(
            head=Head(epoch=epoch, segment=segment, offset=offset, seq=seq, sum=checksum),
            durable=durable,
            dirty=bool(words[_AT["dirty"]]),
            syncing=bool(words[_AT["syncing"]]),
            poisoned=bool(words[_AT["poison"]]),
            this_boot=self.dies_with_boot and words[1] == self._boot,
        )


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
