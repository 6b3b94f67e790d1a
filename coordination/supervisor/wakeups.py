"""When to look again? After a notification or a timeout, whichever is first.

A notification only shortens the rest: nothing is ever done *because* of one, so a missed one costs time and no more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer


class Wakeups(FileSystemEventHandler):
    """Watches directories. (That a child died is no news, every git call is one; workers have threads that wait.)

    What is below them is watched as well, for what the library does with a file that leaves what it watches: it waits
    half a second for it to turn up again, and tells of nothing else meanwhile. And the inbox is emptied downwards.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._event = threading.Event()
        # the library complains on stderr of what comes while it is being stopped; nobody needs to know
        logging.getLogger("watchdog").addHandler(logging.NullHandler())
        self._observer = Observer()
        self._directories = directories
        self.watching = False

    def start(self) -> None:
        """Begin to watch. Where the system gives no watches (all in use, say), rests simply last their whole time."""
        try:
            for directory in self._directories:
                self._observer.schedule(self, str(directory), recursive=True)
            self._observer.start()
            self.watching = True
        except OSError:
            self.stop()

    def stop(self) -> None:
        """End the watching threads."""
        self.watching = False
        self._observer.unschedule_all()
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join(timeout=5)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something was written or renamed; reading is not news."""
        if event.event_type in ("created", "modified", "moved", "deleted"):
            self._event.set()

    def wake(self) -> None:
        """End the present rest."""
        self._event.set()

    def wait(self, timeout_seconds: float) -> None:
        """Rest until something happened or the time is over."""
        self._event.wait(timeout_seconds)
        self._event.clear()
