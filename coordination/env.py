"""What may kernel code touch of the world? Only this: files, blocking locks, a shared page, clocks, dice, processes.

Everything ``files``, ``log`` and ``store`` do outside their own memory goes through one ``Env``, so that a test can
fail, cut or count each single gesture by subclassing it. Methods map one to one to system calls wherever possible and
raise ``OSError`` as the system does; descriptors are plain integers, always close-on-exec, and never follow a symbolic
link in the last place of a path.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import uuid
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_FIELD = 19  # of /proc/PID/stat, counted behind the command's name
_SYSCTL = "/usr/sbin/sysctl"
_POLL_SECONDS = 0.0005
_RACY_NANOSECONDS = 2_500_000_000  # the coarsest clock of a filesystem that we know of ticks every two seconds
_FUTEX_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98}
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1  # not the private ones: the word is shared between processes
_FUTEX_SECONDS_MAX = 86400.0
_LOW_HALF = 0 if sys.byteorder == "little" else 4
_TIMESPEC = struct.Struct("qq")
_SAFE = os.O_CLOEXEC | os.O_NOFOLLOW
# struct flock on a 64-bit machine, and which of its five fields is the type; the others are 0 (the whole file)
_FLOCK, _TYPE = {"darwin": (struct.Struct("qqihh"), 3)}.get(sys.platform, (struct.Struct("hhqqi4x"), 0))


class Env:
    """The real world. Subclass it to make single gestures fail."""

    # Description locks (Linux) exclude two descriptors of one process as well, survive closing another descriptor of
    # the same file, and can be asked for without being taken. Elsewhere: see ``_lock_elsewhere``.
    description_locks = hasattr(fcntl, "F_OFD_SETLKW")

    # files

    def open_read(self, path: Path) -> int:
        """Open an existing file for reading. Never blocks, not even on a FIFO."""
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | _SAFE)

    def open_write(self, path: Path) -> int:
        """Open for reading and writing; make it, for its owner only, when it is not there."""
        return os.open(path, os.O_RDWR | os.O_CREAT | _SAFE, 0o600)

    def open_existing(self, path: Path) -> int:
        """Open for reading and writing what must be there."""
        return os.open(path, os.O_RDWR | _SAFE)

    def create(self, path: Path) -> int:
        """Make a file that must not exist yet, for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFE, 0o600)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back; locks held through it go with it."""
        os.close(descriptor)

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at most ``size`` bytes at ``offset``; fewer at the end of the file."""
        return os.pread(descriptor, size, offset)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write at ``offset``; returns how many bytes were taken, which may be fewer."""
        return os.pwrite(descriptor, data, offset)

    def size(self, descriptor: int) -> int:
        """Length of the file in bytes."""
        return os.fstat(descriptor).st_size

    def resize(self, descriptor: int, size: int) -> None:
        """Set the length of the file. Used for the shared page only, never on a log."""
        os.ftruncate(descriptor, size)

    def sync(self, descriptor: int) -> None:
        """Bytes and metadata to the disk."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync alone leaves the bytes in the drive's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)

    def sync_data(self, descriptor: int) -> None:
        """Bytes to the disk, and as much metadata as is needed to read them back."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(descriptor)
        else:
            self.sync(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Put ``old`` in the place of ``new``, atomically."""
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        os.unlink(path)

    def make_directory(self, path: Path) -> None:
        """Make one directory for its owner only."""
        os.mkdir(path, 0o700)

    def list_directory(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        return sorted(os.listdir(path))

    def sync_directory(self, path: Path) -> None:
        """Make names that were created, renamed or removed in this directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(descriptor)
        finally:
            os.close(descriptor)

    def is_file(self, path: Path) -> bool:
        """Whether a regular file, not a link to one, stands there."""
        try:
            return stat.S_ISREG(os.lstat(path).st_mode)
        except FileNotFoundError:
            return False

    def is_directory(self, path: Path) -> bool:
        """Whether a directory stands there."""
        return os.path.isdir(path)

    def file_id(self, descriptor: int) -> tuple[int, int]:
        """Which file is open: device and inode, its own for as long as it is open."""
        status = os.fstat(descriptor)
        return status.st_dev, status.st_ino

    def file_id_at(self, path: Path | str) -> tuple[int, int] | None:
        """Which file has this name now; None when none has."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def names_stamp(self, directory: Path | str) -> tuple[int, int, int] | None:
        """What changes whenever a name in a directory comes, goes or changes its meaning.

        None while that is too recent to tell: a second change within one tick of the filesystem's clock would leave
        no trace (git calls such files racy). Device, inode and time of change, which nobody can set back.
        """
        try:
            status = os.stat(directory)
        except FileNotFoundError:
            return None
        if abs(time.time_ns() - status.st_ctime_ns) < _RACY_NANOSECONDS:
            return None
        return status.st_dev, status.st_ino, status.st_ctime_ns

    def same_file(self, descriptor: int, path: Path) -> bool:
        """Whether ``path`` still names the file that is open."""
        return self.file_id_at(path) == self.file_id(descriptor)

    # locks

    def lock(self, descriptor: int) -> None:
        """Wait for the exclusive lock of an open file. Ends with ``unlock``, ``close`` or our death."""
        if self.description_locks:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _described(fcntl.F_WRLCK))
        else:
            self._lock_elsewhere(descriptor, 0)

    def try_lock(self, descriptor: int) -> bool:
        """Take the exclusive lock if nobody has it."""
        try:
            if self.description_locks:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _described(fcntl.F_WRLCK))
            else:
                self._lock_elsewhere(descriptor, fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def unlock(self, descriptor: int) -> None:
        """Let the lock go."""
        if self.description_locks:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _described(fcntl.F_UNLCK))
        else:
            fcntl.lockf(descriptor, fcntl.LOCK_UN)
            fcntl.flock(descriptor, fcntl.LOCK_UN)

    def locked(self, descriptor: int) -> bool:
        """Whether somebody else has the lock, found out without taking it."""
        query = fcntl.F_OFD_GETLK if self.description_locks else fcntl.F_GETLK
        answer = fcntl.fcntl(descriptor, query, _described(fcntl.F_WRLCK))
        kind: int = _FLOCK.unpack(answer)[_TYPE]
        return kind != fcntl.F_UNLCK

    def _lock_elsewhere(self, descriptor: int, flags: int) -> None:
        # flock excludes, also within one process; the record lock on top only makes the holder visible to ``locked``.
        # Weaker than description locks in one way: a holder that asks about its own file drops the visible half.
        fcntl.flock(descriptor, fcntl.LOCK_EX | flags)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | flags)
        except OSError:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            raise

    # shared memory

    def map_shared(self, descriptor: int, size: int) -> memoryview:
        """The file's first bytes as 8-byte words, shared with every process that maps them."""
        return memoryview(mmap.mmap(descriptor, size)).cast("Q")

    def unmap(self, words: memoryview) -> None:
        """Give the mapping back."""
        memory = words.obj
        words.release()
        memory.close()  # type: ignore[attr-defined] # an mmap: see map_shared

    def store(self, words: memoryview, index: int, value: int) -> None:
        """Store one 8-byte word of a shared page: nobody ever sees half of it."""
        words[index] = value

    def store_many(self, words: memoryview, index: int, values: Sequence[int]) -> None:
        """Store words one after the other; who looks meanwhile may see some of them."""
        words[index : index + len(values)] = memoryview(array("Q", values))

    def wait_word(self, words: memoryview, index: int, value: int, timeout_seconds: float) -> None:
        """Sleep while the low half of a word is that of ``value``, until ``wake`` or the time is over.

        May return early for no reason: ask again what was waited for. A wake between looking and sleeping is not lost,
        provided that the word is changed before it.
        """
        if (futex := _futex()) is None:
            time.sleep(min(timeout_seconds, _POLL_SECONDS))
        else:
            futex(words, index, _FUTEX_WAIT, value & 0xFFFFFFFF, timeout_seconds)

    def wake(self, words: memoryview, index: int, sleepers: int) -> int:
        """Wake at most that many of those who sleep in ``wait_word`` on this word, in any process; how many it were."""
        futex = _futex()
        return 0 if futex is None else futex(words, index, _FUTEX_WAKE, sleepers, None)

    # clocks and dice

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that never run backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def random_hex(self, size: int) -> str:
        """``size`` random bytes as hexadecimal digits."""
        return os.urandom(size).hex()

    def uuid(self) -> str:
        """A random UUID."""
        return str(uuid.UUID(bytes=os.urandom(16), version=4))

    # processes

    def pid(self) -> int:
        """Our process id."""
        return os.getpid()

    def boot_id(self) -> str:
        """What changes with every boot; "" where the system does not say."""
        return _first_line(_BOOT_ID) or _boot_session()

    def process_start(self, pid: int) -> int | None:
        """When a living process started, in ticks since boot; None when it is gone or a zombie.

        With the boot this tells a process from a later one that got its number. Where there is no ``/proc`` the answer
        for a living process is 0: its number alone.
        """
        if not _BOOT_ID.exists():
            return _signalled(pid)
        line = _first_line(Path(f"/proc/{pid}/stat"))
        fields = line.rpartition(")")[2].split()  # the command's name may hold blanks and parentheses
        if len(fields) <= _START_FIELD or fields[0] in "ZX":
            return None
        return int(fields[_START_FIELD])

    def process_stopped(self, pid: int) -> bool:
        """Whether that process was stopped by a signal (SIGSTOP, Ctrl-Z). False where the system does not say."""
        return _first_line(Path(f"/proc/{pid}/stat")).rpartition(")")[2].lstrip().startswith("T")

    def lock_holder(self, path: Path) -> int | None:
        """Which process has a file open through which it holds the lock of ``path``; None when nobody we can see.

        Description locks name no process, so this looks through ``/proc`` (proc_pid_fdinfo(5)): for exceptions only.
        """
        wanted = self.file_id_at(path)
        for entry in Path("/proc").glob("[0-9]*/fdinfo/*"):
            try:
                held = "\nlock:" in entry.read_text() and self._open_at(entry) == wanted
            except OSError:  # it ended, or is somebody else's
                continue
            if held:
                return int(entry.parts[2])
        return None

    def has_open(self, pid: int, path: Path) -> bool:
        """Whether that process has a file open that is ``path`` now. False where the system does not say."""
        wanted = self.file_id_at(path)
        for entry in Path(f"/proc/{pid}/fdinfo").glob("*"):
            try:
                if self._open_at(entry) == wanted:
                    return True
            except OSError:  # closed meanwhile, or somebody else's
                continue
        return False

    def _open_at(self, entry: Path) -> tuple[int, int]:
        status = os.stat(Path("/proc", entry.parts[2], "fd", entry.name))
        return status.st_dev, status.st_ino

    def open_process(self, pid: int) -> int:
        """A descriptor that means this very process, also after its number was given to another one. Linux only."""
        return os.pidfd_open(pid)

    def signal_process(self, process: int, number: int) -> None:
        """Signal the process behind a descriptor. Raises ProcessLookupError when it is gone."""
        signal.pidfd_send_signal(process, number)


@cache
def _futex() -> Callable[[memoryview, int, int, int, float | None], int] | None:
    """futex(2) on a word of shared memory; None where there is none."""
    number = _FUTEX_CALL.get(os.uname().machine) if sys.platform == "linux" else None
    if number is None:
        return None
    import ctypes  # only who writes or waits needs it, and it takes a while to import

    call: Any = ctypes.CDLL(None).syscall
    call.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_char_p)
    char = ctypes.c_char

    def futex(words: memoryview, index: int, operation: int, value: int, timeout_seconds: float | None) -> int:
        # the object that pins the mapping is gone after this line, so that unmapping stays possible
        address = ctypes.addressof(char.from_buffer(words, 8 * index + _LOW_HALF))
        timeout = None
        if timeout_seconds is not None:
            seconds = min(max(timeout_seconds, 0.0), _FUTEX_SECONDS_MAX)
            timeout = _TIMESPEC.pack(int(seconds), int(seconds % 1 * 1e9))
        answer: int = call(number, address, operation, value, timeout)
        return answer

    return futex


@cache
def _described(kind: int) -> bytes:
    return _FLOCK.pack(*(kind if field == _TYPE else 0 for field in range(5)))


def _boot_session() -> str:
    # macOS; asked once by each who needs it
    if not os.path.exists(_SYSCTL):
        return ""
    command = [_SYSCTL, "-n", "kern.bootsessionuuid"]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()


def private(path: str, flags: int) -> int:
    """Opener (as ``open`` takes one) of files that are for their owner only and never behind a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _signalled(pid: int) -> int | None:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return None if error.errno == errno.ESRCH else 0  # alive, and not ours
    return 0


def _first_line(path: Path) -> str:
    try:
        return path.read_bytes().split(b"\n", 1)[0].decode("utf-8", "replace")
    except OSError:
        return ""


REAL = Env()
