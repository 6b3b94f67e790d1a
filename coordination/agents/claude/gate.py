"""May another program start now? Starting one takes a core for half a second, and many at once slow each other down.

So at most as many start together as there are slots; whoever has started lets the next one in. A slot is a lock for
life, so it is free again however its holder ends. All runs of a state directory share the slots.
"""

from __future__ import annotations

import time
from pathlib import Path

from coordination import locks
from coordination.agents import Stopping

_LOOK_SECONDS = 0.02


class StartGate:
    """``enter``, start, ``leave``. Without a directory it stands open."""

    def __init__(self, directory: str, slots: int) -> None:
        self._paths = [Path(directory) / f"start.{number}.lock" for number in range(slots)] if directory else []
        self._held: locks.Held | None = None

    def enter(self, stopping: Stopping, seconds_max: float) -> None:
        """Wait for a slot; not longer than that, and not when we are to stop. Raises OSError, Unsuitable."""
        deadline = time.monotonic() + seconds_max
        while self._paths and time.monotonic() < deadline and not stopping():
            for path in self._paths:
                self._held = locks.hold(path)
                if self._held is not None:
                    return
            time.sleep(_LOOK_SECONDS)

    def leave(self) -> None:
        """Let the next one in. Once is enough, more is harmless."""
        if self._held is not None:
            self._held.release()
            self._held = None
