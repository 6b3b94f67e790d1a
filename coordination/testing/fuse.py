"""Which writes and flushes reach a file, in which order? A file that tells, served over the kernel's FUSE protocol.

``python -m coordination.testing.fuse DIRECTORY PARENT`` mounts one file over ``DIRECTORY/disk``. It holds what
``DIRECTORY/before`` holds, but in memory, and everything that is done to it goes to ``DIRECTORY/gestures``: the offset
and the size of each write and its bytes; ``FLUSH`` as offset for each fsync. How many there were stands in
``DIRECTORY/position``, to be mapped: counted *before* the kernel is told that a gesture is done, so whoever learns that
it is done finds it counted. It ends when the file is unmounted or PARENT ends.

One request is read, done, recorded and answered before the next is read: the recording has one order, and what was
answered before another request was made stands before it. The protocol is that of ``linux/fuse.h`` (7.31 and later).
The mount point is a file, so the root of this filesystem is the file itself: no directories, no names, no lookups.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import sys
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO

from coordination.testing import linux

FLUSH = (1 << 64) - 1
GESTURE = struct.Struct("=QQ")  # offset, size

_WRITE_BYTES_MAX = 1 << 20
_FOREVER_SECONDS = 1 << 30
_MAJOR, _MINOR = 7, 31
_BIG_WRITES, _MAX_PAGES = 1 << 5, 1 << 22  # take what the layer above writes at once, not page by page


class Opcode(IntEnum):
    """enum fuse_opcode, as far as a single file needs it."""

    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25  # a close(2); what makes bytes durable is FSYNC
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


_UNANSWERED = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)

_IN = struct.Struct("=IIQQIIIHH")  # fuse_in_header: len opcode unique nodeid uid gid pid total_extlen padding
_OUT = struct.Struct("=IiQ")  # fuse_out_header: len error unique
_INIT_IN = struct.Struct("=IIII")  # fuse_init_in: major minor max_readahead flags
_INIT_OUT = struct.Struct("=IIIIHHIIHHI28x")  # the same; background congestion max_write time_gran max_pages align
_PLACE_IN = struct.Struct("=QQIIQII")  # fuse_read_in and fuse_write_in: fh offset size flags lock_owner flags padding
_WRITE_OUT = struct.Struct("=II")  # fuse_write_out: size padding
_OPEN_OUT = struct.Struct("=QII")  # fuse_open_out: fh open_flags padding
_ATTR_OUT = struct.Struct("=QIIQQQ24x12xIIIIIII")  # fuse_attr_out: how long valid; ino size blocks, times, mode …
_STATFS_OUT = struct.Struct("=QQQQQIII28x")  # fuse_kstatfs


class RecordedFile:
    """The file's bytes, and the record of what is done to them."""

    def __init__(self, before: bytes, gestures: BinaryIO, position: memoryview) -> None:
        self._bytes = bytearray(before)
        self._gestures = gestures
        self._position = position

    def answer(self, opcode: int, body: memoryview) -> bytes:
        """Do what one request asks; the body of the reply. Raises OSError for what a single file does not do."""
        match opcode:
            case Opcode.READ:
                _, offset, size, *_ = _PLACE_IN.unpack_from(body)
                return bytes(self._bytes[offset : offset + size])
            case Opcode.WRITE:
                _, offset, size, *_ = _PLACE_IN.unpack_from(body)
                return self._write(offset, body[_PLACE_IN.size : _PLACE_IN.size + size])
            case Opcode.FSYNC:
                return self._record(FLUSH, b"")
            case Opcode.INIT:
                return _agreed(body)
            case Opcode.GETATTR | Opcode.SETATTR:
                return self._attributes()
            case Opcode.OPEN:
                return _OPEN_OUT.pack(0, 0, 0)
            case Opcode.STATFS:
                return _STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096)
            case Opcode.FLUSH | Opcode.RELEASE | Opcode.DESTROY:
                return b""
        # also FALLOCATE: whoever wants a hole writes zeroes then, which we see
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    def _write(self, offset: int, data: memoryview) -> bytes:
        end = offset + len(data)
        if end > len(self._bytes):  # a disk does not grow
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._bytes[offset:end] = data
        self._record(offset, data)
        return _WRITE_OUT.pack(len(data), 0)

    def _record(self, offset: int, data: memoryview | bytes) -> bytes:
        self._gestures.write(GESTURE.pack(offset, len(data)))
        self._gestures.write(data)
        self._position[0] += 1
        return b""

    def _attributes(self) -> bytes:
        size = len(self._bytes)
        mode, links, block_bytes = 0o100600, 1, 4096
        return _ATTR_OUT.pack(_FOREVER_SECONDS, 0, 0, 1, size, size // 512, mode, links, 0, 0, 0, block_bytes, 0)


def serve(device: int, file: RecordedFile) -> None:
    """Answer what comes from ``/dev/fuse`` until the file is unmounted."""
    while (request := _next_request(device)) is not None:
        _, opcode, unique, *_ = _IN.unpack_from(request)
        if opcode in _UNANSWERED:
            continue
        code, body = 0, b""
        try:
            body = file.answer(opcode, request[_IN.size :])
        except OSError as error:
            code = -(error.errno or errno.EIO)
        with suppress(FileNotFoundError):  # whoever asked is gone: the last closing, as the mount goes
            os.write(device, _OUT.pack(_OUT.size + len(body), code, unique) + body)


def main(directory: Path, parent: int) -> None:
    """Mount, say so in one line on standard output, serve."""
    linux.end_with_parent(parent)
    device = os.open(linux.FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    with (directory / "position").open("r+b") as counted, (directory / "gestures").open("wb") as gestures:
        position = memoryview(mmap.mmap(counted.fileno(), 0)).cast("Q")
        file = RecordedFile((directory / "before").read_bytes(), gestures, position)
        options = f"fd={device},rootmode=100600,user_id={os.getuid()},group_id={os.getgid()}"
        linux.mount("recorded", directory / "disk", "fuse", options)
        # Out of the namespace of those who use it: were we the last one in it, our end would first unmount what stands
        # on our file, and wait for us to write it.
        linux.live_apart()
        linux.unmount(directory / "disk", lazily=True)
        sys.stdout.write("mounted\n")
        sys.stdout.flush()
        serve(device, file)


def _next_request(device: int) -> memoryview | None:
    while True:
        try:
            return memoryview(os.read(device, _WRITE_BYTES_MAX + 4096))
        except OSError as error:
            if error.errno == errno.ENODEV:  # unmounted
                return None
            if error.errno != errno.ENOENT:  # who asked did not wait for it
                raise


def _agreed(body: memoryview) -> bytes:
    """Which version and which flags of the protocol are spoken. fuse_init_out."""
    _, _, readahead, flags = _INIT_IN.unpack_from(body)
    wanted = flags & (_BIG_WRITES | _MAX_PAGES)
    pages = _WRITE_BYTES_MAX // mmap.PAGESIZE
    return _INIT_OUT.pack(_MAJOR, _MINOR, readahead, wanted, 16, 12, _WRITE_BYTES_MAX, 1, pages, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
