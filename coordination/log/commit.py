"""How does what was written become durable? One sync for all who wait (group commit).

Whoever gets the sync turn reads where the head is, syncs, says on the page how far the disk is now, and rings; whoever
finds the turn taken sleeps until the bell, and then mostly finds that his batch was among them. The head is read before
the sync and never after it: what is written while a sync runs is not covered by it.

A sync that failed may have lost the bytes, whatever the page cache shows, and a second one would succeed without them.
So it poisons the page, and from then on nobody acknowledges anything of this epoch: the next one recovers, which writes
what is not proven into another file. A syncing mark that is found at the beginning of the turn was left by a process
that was killed between its sync and its word about it; the sync may have failed, so that is poison as well.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from coordination.env import Env
from coordination.log.page import Head, Page
from coordination.log.tail import Tail
from coordination.log.turns import Bell, Turns

_LOCK = "sync.lock"
Attempt = Literal["done", "busy", "refused"]  # refused: the page is not to be believed any more


class Commit:
    """The sync turn and what is done in it. The append turn may be held when it is entered, never the other way."""

    def __init__(
        self,
        directory: Path,
        *,
        bell: Callable[[], Bell | None],
        env: Env,
    ) -> None:
        self.turns = Turns(directory / _LOCK, env=env, bell=bell)
        self._env = env
        self._tail = Tail(directory, self.turns.names, env=env)

    def try_sync(self, page: Page, epoch: int) -> Attempt:
        """Sync what was appended in this epoch, unless somebody else is at it. Raises OSError when the sync failed."""
        if not self.turns.try_enter():
            return "busy"
        return self._sync_and_leave(page, epoch)

    def sync_all(self, page: Page, epoch: int) -> Attempt:
        """The same, after waiting for the turn. Raises OSError, LockHeld."""
        self.turns.__enter__()
        return self._sync_and_leave(page, epoch)

    def close(self) -> None:
        """Give back descriptors."""
        self.turns.close()
        self._tail.close()

    def _sync_and_leave(self, page: Page, epoch: int) -> Attempt:
        which = 1
        try:
            # all of it asked again in the turn: somebody may have poisoned, recovered or synced while we waited
            reading = page.read() if page.current(self.turns.names) else None
            if reading is None or reading.poisoned or reading.head.epoch != epoch or not reading.this_boot:
                return "refused"
            if reading.durable == reading.head.seq:
                return "done"
            if reading.syncing:
                page.mark("poison")
                return "refused"
            which = page.begin_round(reading.head.seq)
            self._sync(page, reading.head)
            return "done"
        finally:
            self.turns.leave()
            page.ring_round(which)  # also after nothing was done: somebody may have gone to sleep on our account

    def _sync(self, page: Page, head: Head) -> None:
        page.mark("syncing")
        try:
            self._env.sync_data(self._tail.descriptor(head.segment))
        except OSError:
            page.mark("poison")
            self._tail.close()
            raise
        page.reach(head.seq)
        page.clear("syncing")
