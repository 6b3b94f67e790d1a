"""Who owns what, and is the owner alive?

Three kinds of ownership:

* ``exclusive``: a coarse lock for a stretch of work that nobody asks about (repair, making workspaces). By filelock.
* ``hold`` and ``held``: a lock for life (a worker's run, the supervisor's place). It can be *asked about without being
  taken*: asking by taking would make a starting worker find its own lock busy. It ends with its holder, however that
  ends, because the kernel closes the descriptor; hence a held lock, never a process number, means "alive".
* ``Identity``: a process number that means one process only: number, start and boot.

A lock file is never removed while somebody may wait for it, and a symbolic link in its place is refused. Many short
turns at one thing are another matter: ``log.turns``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import LockHeld, Unsuitable

_POLL_SECONDS = 0.01


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One process and no other: its number, its start in ticks since boot, the boot."""

    pid: int
    start: int
    boot: str


def identity(pid: int | None = None, *, env: Env = REAL) -> Identity | None:
    """Who has this process number now (default: we ourselves); None when nobody alive has."""
    number = env.pid() if pid is None else pid
    start = env.process_start(number)
    return None if start is None else Identity(pid=number, start=start, boot=env.boot_id())


def alive(who: Identity, *, env: Env = REAL) -> bool:
    """Whether that very process lives. A recycled number, a zombie and another boot are not it."""
    return identity(who.pid, env=env) == who


@contextmanager
def exclusive(path: Path, timeout_seconds: float) -> Iterator[None]:
    """Own ``path`` for a stretch of work. Raises LockHeld after ``timeout_seconds``, Unsuitable for a symbolic link."""
    import filelock  # takes a while, and most processes never need it

    _refuse_link(path)
    lock = filelock.FileLock(path, timeout=timeout_seconds, mode=0o600)
    try:
        lock.acquire(poll_interval=_POLL_SECONDS)
    except filelock.Timeout as error:
        raise LockHeld(
            f"{path} is locked by another process for {timeout_seconds} s: wait for it, or stop it"
        ) from error
    try:
        yield
    finally:
        lock.release()


class Held:
    """A lock for life that is ours until ``release``, the end of the ``with`` block or the end of our process."""

    def __init__(self, path: Path, descriptor: int, env: Env) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        self._env = env

    def release(self) -> None:
        """Let go. Once is enough, twice is harmless."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._env.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def hold(path: Path, wait_seconds: float = 0.0, *, env: Env = REAL) -> Held | None:
    """Take the lock for life, waiting at most ``wait_seconds``; None when another one keeps it that long."""
    deadline = env.monotonic() + wait_seconds
    while True:
        taken = _try_hold(path, env)
        if taken is not None:
            return taken
        if env.monotonic() >= deadline:
            return None
        env.sleep(_POLL_SECONDS)


def held(path: Path, *, env: Env = REAL) -> bool:
    """Whether somebody alive holds the lock, asked without taking it. No file: nobody does."""
    try:
        descriptor = open_lock_file(path, env.open_read)
    except FileNotFoundError:
        return False
    try:
        return env.locked(descriptor)
    finally:
        env.close(descriptor)


def holder(path: Path, *, env: Env = REAL) -> Identity | None:
    """Who wrote its name into a lock for life last. Only for messages: whether it is *held* is what ``held`` says."""
    try:
        return msgspec.json.decode(files.read(path, env=env), type=Identity)
    except (OSError, msgspec.DecodeError):
        return None


def open_lock_file(path: Path, opener: Callable[[Path], int]) -> int:
    """Open a file to lock. Raises Unsuitable for a symbolic link, OSError."""
    try:
        return opener(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise _link_found(path) from error
        raise


def _try_hold(path: Path, env: Env) -> Held | None:
    descriptor = open_lock_file(path, env.open_write)
    try:
        # the file may have been removed, and made anew by another one, between opening and locking
        ours = env.try_lock(descriptor) and env.same_file(descriptor, path)
        if ours:
            _sign(descriptor, env)
    except BaseException:
        env.close(descriptor)
        raise
    if ours:
        return Held(path, descriptor, env)
    env.close(descriptor)
    return None


def _sign(descriptor: int, env: Env) -> None:
    name = msgspec.json.encode(identity(env=env))
    env.resize(descriptor, 0)
    files.write_fully(descriptor, name + b"\n", 0, env=env)


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise _link_found(path)


def _link_found(path: Path) -> Unsuitable:
    return Unsuitable(f"{path} is a symbolic link: expected a lock file of ours. Remove the link")
