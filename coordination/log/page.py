"""Where is the head, and did somebody leave work unfinished? 4096 bytes of memory shared by all who use a log.

The page only saves time and carries marks: whatever it says can be worked out from the segments, and a page that is
not believed is rebuilt by recovery. It dies with the boot, because only within one boot do the marks of a killed
process and the bytes it left in the page cache belong together. One word outlives the boot as a witness: ``durable``
was stored after the sync, so a log that ends before it has lost something.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Literal

import msgspec

from coordination.env import Env

BYTES = 4096
_MAGIC = int.from_bytes(b"coordpg1", "little")
Mark = Literal["dirty", "syncing", "poison"]
_WORDS = (
    "magic",
    "boot",
    "log",
    "epoch",
    "segment",
    "offset",
    "head_seq",
    "head_sum",
    "check",
    "durable",
    "dirty",
    "syncing",
    "poison",
    "owner_pid",
    "owner_start",
    "owner_namespace",
)
_AT = {word: index for index, word in enumerate(_WORDS)}
_CHECKED = _AT["check"]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the next line goes."""

    epoch: int
    segment: int
    offset: int
    seq: int
    sum: int
    durable: int


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Who set the marks. Its number means nothing to who lives in another namespace of process ids."""

    pid: int
    start: int
    namespace: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a whole page of this log said at one moment."""

    head: Head
    marked: bool  # work is unfinished or failed
    poisoned: bool
    this_boot: bool
    owner: Owner


class Page:
    """The mapped file. Whoever stores holds the append lock; everybody reads."""

    def __init__(self, path: Path, descriptor: int, log: str, env: Env) -> None:
        self.path = path
        self._descriptor = descriptor
        self._env = env
        self._words = env.map_shared(descriptor, BYTES)
        boot = env.boot_id()
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
        return self._env.same_file(self._descriptor, self.path)

    @property
    def dies_with_boot(self) -> bool:
        """Whether the system names its boots; if not, a page can never be believed."""
        return self._boot != 0

    def read(self) -> Reading | None:
        """What the page says; None when it is not a whole page of this log."""
        for _ in range(100):  # a writer between two stores makes a moment's nonsense, a broken page lasts
            words = self._words[: len(_WORDS)].tolist()
            if self._whole(words):
                return self._reading(words)
        return None

    def set_up(self, head: Head) -> None:
        """Make it a clean page that says ``head``."""
        for word, value in (
            ("magic", _MAGIC),
            ("boot", self._boot),
            ("log", self._log),
        ):
            self._store(word, value)
        self.advance(head)
        self._store("poison", 0)
        self.clear()

    def advance(self, head: Head) -> None:
        """Say that ``head`` was appended and synced. Only between the marks."""
        self._store("epoch", head.epoch)
        self._store("segment", head.segment)
        self._store("offset", head.offset)
        self._store("head_seq", head.seq)
        self._store("head_sum", head.sum)
        self._store("check", _check(self._words[:_CHECKED].tolist()))
        self._store("durable", head.durable)

    def begin(self, owner_start: int) -> None:
        """Mark that bytes may stand behind the head from now on, and by whom."""
        self._store("owner_pid", self._env.pid())
        self._store("owner_start", owner_start)
        self._store("owner_namespace", self._namespace)
        self.mark("dirty")

    def mark(self, mark: Mark) -> None:
        """Set a mark; it stays until recovery or ``clear``."""
        self._store(mark, 1)

    def clear(self) -> None:
        """Take the marks of one append back: it is done."""
        self._store("syncing", 0)
        self._store("dirty", 0)

    def _store(self, word: str, value: int) -> None:
        self._env.store(self._words, _AT[word], value)

    def _whole(self, words: list[int]) -> bool:
        return (
            words[_AT["magic"]] == _MAGIC
            and words[_AT["log"]] == self._log
            and words[_CHECKED] == _check(words[:_CHECKED])
            and words[_AT["durable"]] <= words[_AT["head_seq"]]
        )

    def _reading(self, words: list[int]) -> Reading:
        named = dict(zip(_WORDS, words, strict=True))
        return Reading(
            head=Head(
                epoch=named["epoch"],
                segment=named["segment"],
                offset=named["offset"],
                seq=named["head_seq"],
                sum=named["head_sum"],
                durable=named["durable"],
            ),
            marked=bool(named["dirty"] or named["syncing"] or named["poison"]),
            poisoned=bool(named["poison"]),
            this_boot=self.dies_with_boot and named["boot"] == self._boot,
            owner=Owner(pid=named["owner_pid"], start=named["owner_start"], namespace=named["owner_namespace"]),
        )


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _check(words: list[int]) -> int:
    return zlib.crc32(b"".join(word.to_bytes(8, "little") for word in words))
