"""Of which files does an index say that git need not look at them? Read from its bytes, which takes no call of git.

Entries stand one after the other: 40 bytes of times and numbers with the mode at 24, the name of the content, two bytes
of flags (two more, if the first say so), the path. Versions 2 and 3 pad each to eight bytes; version 4 says how much of
the path before to cut, and then what follows (gitformat-index(5)).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

LINK = 0o160000
_UNPADDED = 4
_VALID, _EXTENDED, _SKIPPED = 0x8000, 0x4000, 0x4000


def unseen(data: bytes, hash_bytes: int) -> bool:
    """Whether there are submodules, or files that git was told to take for unchanged, or to leave out; or who knows."""
    try:
        return any(mode == LINK or hidden for mode, hidden in _entries(data, hash_bytes))
    except (struct.error, ValueError, IndexError):
        return True


def _entries(data: bytes, hash_bytes: int) -> Iterator[tuple[int, bool]]:
    signature, version, count = struct.unpack_from(">4sII", data)
    if signature != b"DIRC" or version not in (2, 3, _UNPADDED):
        raise ValueError(f"expected an index of version 2 to 4, found {signature!r} {version}")
    at = 12
    for _ in range(count):
        (mode,) = struct.unpack_from(">I", data, at + 24)
        (flags,) = struct.unpack_from(">H", data, at + 40 + hash_bytes)
        name = at + 42 + hash_bytes
        hidden = bool(flags & _VALID)
        if flags & _EXTENDED:
            (more,) = struct.unpack_from(">H", data, name)
            hidden, name = hidden or bool(more & _SKIPPED), name + 2
        yield mode, hidden
        at = _after(data, at, name, padded=version < _UNPADDED)
    if b"link" in data[at:]:
        raise ValueError("expected all entries, found a part that completes another file")


def _after(data: bytes, at: int, name: int, *, padded: bool) -> int:
    """Where the next entry begins."""
    if padded:
        return at + ((data.index(0, name) - at) // 8 + 1) * 8
    while data[name] & 0x80:  # a number of several bytes
        name += 1
    return data.index(0, name + 1) + 1
