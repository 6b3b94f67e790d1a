"""Whose turn is it? A blocking lock for many short turns, among threads and processes alike, that ends with its holder.

The lock is a record lock on a file, so the kernel takes it back from the dead. Who must wait sleeps on a *bell*, a word
of the shared page, which everybody changes at the end of his turn. A bell that was not heard (its ringer was killed)
costs a moment and nothing else, because no sleep lasts longer than that.

A holder that was stopped (SIGSTOP, Ctrl-Z) would make everybody wait for ever. It is looked for after a while, and
killed if it is one of us; its unfinished work leaves marks, so the next one recovers. Anybody else is named, and
whoever waits is refused. One of us is who has the file ``ours`` open, as long as it is connected: so the kernel says.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from coordination.env import Env
from coordination.errors import LockHeld
from coordination.locks import Identity, identity, open_lock_file
from coordination.log.names import FileId, Names

OURS = "ours"  # open in every process that may be killed when it is stopped in a turn
EVERYBODY = 1 << 30
_SLEEP_SECONDS = 0.05  # the price of a bell that was not heard
_UNSEEN_SECONDS = 0.001  # between two tries where there is no bell yet
_LOOK_SECONDS = 0.5  # before the first look at who holds the lock, and between two looks
_PATIENCE_SECONDS = 60.0


class Bell:
    """Two words of a shared page: one to sleep on, and behind it whether anybody does."""

    def __init__(self, words: memoryview, index: int, env: Env) -> None:
        self._words = words
        self._index = index
        self._env = env
        self._step = 1 + (env.pid() << 8)  # two who ring at once do not say the same

    def heard(self) -> int:
        """What the bell says now: to be asked before looking at what is waited for, and given to ``sleep``."""
        said: int = self._words[self._index]
        return said

    def sleep(self, heard: int, timeout_seconds: float = _SLEEP_SECONDS) -> None:
        """Sleep until the bell says something else than what was heard, for a bounded time."""
        self._env.store(self._words, self._index + 1, 1)
        # changed after we said that we sleep: then whoever changed it may not have known
        if self._words[self._index] == heard:
            self._env.wait_word(self._words, self._index, heard, min(timeout_seconds, _SLEEP_SECONDS))

    def ring(self, sleepers: int) -> None:
        """Say something new, and wake at most that many of those who sleep."""
        words, index = self._words, self._index
        # first the word: whoever looked at it before does not fall asleep any more
        self._env.store(words, index, (words[index] + self._step) & 0xFFFFFFFF)
        if words[index + 1]:
            self._env.store(words, index + 1, 0)
            if self._env.wake(words, index, sleepers) >= sleepers:
                self._env.store(words, index + 1, 1)  # there may be more of them


class Turns:
    """``with turns:`` waits for our turn at ``path``. Raises LockHeld when its holder will not go on, Unsuitable."""

    def __init__(
        self,
        path: Path,
        *,
        env: Env,
        bell: Callable[[], Bell | None] = lambda: None,
    ) -> None:
        self.names = Names(path.parent, env=env)  # as of the beginning of our turn
        self._path = path
        self._name = str(path)
        self._env = env
        self._bell = bell
        self._threads = threading.Lock()  # one descriptor is one owner, so its threads must queue before it
        self._descriptor: int | None = None
        self._file: FileId | None = None

    def __enter__(self) -> Self:
        self._threads.acquire()
        try:
            if not self._taken():
                self._wait()
        except BaseException:
            self._threads.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    def try_enter(self) -> bool:
        """Take the turn if nobody has it; then ``leave`` must follow."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            entered = self._taken()
        except BaseException:
            self._threads.release()
            raise
        if not entered:
            self._threads.release()
        return entered

    def leave(self) -> None:
        """End our turn and ring for the next one."""
        assert self._descriptor is not None
        try:
            self._env.unlock(self._descriptor)
        except OSError:
            self._give_back()  # ends the lock as well: what was done in the turn must not seem to have failed
        finally:
            self._threads.release()
        bell = self._bell()
        if bell is not None:
            bell.ring(1)

    def patience(self) -> Iterator[None]:
        """To be asked after each sleep: looks after the holder now and then. Raises LockHeld in the end."""
        begun = looked = self._env.monotonic()
        while True:
            yield
            now = self._env.monotonic()
            if now - begun > _PATIENCE_SECONDS:
                self._give_up()
            if now - looked > _LOOK_SECONDS:
                self._look_at_holder()
                looked = now

    def close(self) -> None:
        """Give the descriptor back, and the lock with it."""
        with self._threads:
            self._give_back()

    def _wait(self) -> None:
        patience = self.patience()
        while True:
            bell = self._bell()
            heard = 0 if bell is None else bell.heard()  # before trying, or we might sleep through the ringing
            if self._taken():
                return
            if bell is None:
                self._env.sleep(_UNSEEN_SECONDS)
            else:
                bell.sleep(heard)
            next(patience)

    def _look_at_holder(self) -> None:
        """Free us of a holder that was stopped; LockHeld when it is not ours to kill. Does nothing to one that runs."""
        pid = self._env.lock_holder(self._path)
        if pid is None or not self._env.process_stopped(pid):
            return
        who = identity(pid, env=self._env)
        if who is None or not self._env.has_open(pid, self._path.with_name(OURS)):
            message = f"{self._path} is locked by process {pid}, which was stopped and is not one of ours: "
            raise LockHeld(message + f"let it go on (kill -CONT {pid}) or end it", holder=str(pid))
        self._kill(who)

    def _kill(self, who: Identity) -> None:
        try:
            process = self._env.open_process(who.pid)
        except ProcessLookupError:
            return
        try:
            if identity(who.pid, env=self._env) == who:  # asked again: from here on the descriptor means this very one
                self._env.signal_process(process, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self._env.close(process)

    def _give_up(self) -> None:
        pid = self._env.lock_holder(self._path)
        who = "a process that cannot be seen from here (in another container?)" if pid is None else f"process {pid}"
        message = f"{self._path} has been locked by {who} for {_PATIENCE_SECONDS:.0f} s: wait for it, or stop it"
        raise LockHeld(message, holder="" if pid is None else str(pid))

    def _taken(self) -> bool:
        while True:
            if self._descriptor is None:
                self._descriptor = open_lock_file(self._path, self._env.open_write)
                self._file = self._env.file_id(self._descriptor)
            if not self._env.try_lock(self._descriptor):
                return False
            self.names.look()
            if self.names.file_id_at(self._name) == self._file:
                return True
            self._give_back()  # somebody removed the file: what we locked excludes nobody any more

    def _give_back(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._env.close(descriptor)
