"""Who tells people what happens, without the loop waiting for it? A process beside the supervisor, while it lives."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from coordination import files
from coordination.coordinator import Coordinator
from coordination.env import private
from coordination.supervisor.children import Children

FINISH_SECONDS = 15.0  # for the last message at the end
AGAIN_SECONDS = 60.0  # until one that died is started again


class Teller:
    """``coord notify``, if the settings name anybody to tell. It ends when its input does, so never later than we."""

    def __init__(self, coordinator: Coordinator, children: Children) -> None:
        self._coordinator = coordinator
        self._children = children
        self._process: subprocess.Popen[bytes] | None = None
        self._tried = float("-inf")

    def tend(self) -> None:
        """Start it, and once a minute again if it died."""
        if self._process is not None and self._process.poll() is None:
            return
        if time.monotonic() - self._tried >= AGAIN_SECONDS:
            self._tried = time.monotonic()
            self._forget()
            self._begin()

    def finish(self) -> None:
        """Let it tell what is left, for a bounded time."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(FINISH_SECONDS)
        self._forget()

    def _begin(self) -> None:
        """From now on, or from where it was; what happened while nobody was to be told is not told later."""
        notify, place = self._coordinator.settings.notify, self._coordinator.home.state / "notified.json"
        if not (notify.command or notify.webhook):
            files.discard(place)
            return
        if not place.exists():
            store = self._coordinator.store
            files.publish_json(place, {"log": store.log.uuid, "seq": store.seq})
        self._start()

    def _start(self) -> None:
        home = self._coordinator.home
        environment = {**os.environ, "COORDINATION_HOME": str(home.state)}
        with open(home.state / "notify.log", "ab", opener=private) as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "coordination", "-C", str(home.repository.root), "notify"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: it still tells how we ended
            )
        self._children.spare(self._process.pid)

    def _forget(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: with the command that hangs
        self._process.wait()
        self._children.spare_no_longer(self._process.pid)
        self._process = None
