"""How does a notice reach a person? By a command and a webhook of their choice, from a process beside the supervisor.

It follows the log from where it was the last time, so nothing is forgotten; what was on its way when it was killed is
told again. Notices that come close together are told together. A message that nobody takes is tried again, later and
later, and then left out with a complaint: it is an effect on others, and no fact.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from coordination import files, locks
from coordination.coordinator import Coordinator
from coordination.environment import secrets, without_credentials
from coordination.errors import LockHeld, NotFound
from coordination.model.state import Core, State
from coordination.notices import Notice, notices, seen
from coordination.printable import line, redacted

NOTICES_MAX = 50  # in one message
TEXT_MAX = 500
_TRY_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_HANDOVER_SECONDS = 30.0
_BACKOFF_SECONDS = 1.0
_LAST_TRIES = 3  # with a pause between them, when it is time to leave
_REMEMBERED_SECONDS = 30.0  # where we are is written down at least so often


class Notifier:
    """Tells of one repository's log. ``complain`` hears of what could not be told."""

    def __init__(
        self, coordinator: Coordinator, environment: Mapping[str, str], complain: Callable[[str], None]
    ) -> None:
        self._coordinator = coordinator
        self._settings = coordinator.settings.notify
        self._environment = environment
        self._complain = complain
        self._note = coordinator.home.state / "notified.json"
        self._secrets = secrets(environment, coordinator.settings.environment.passed)
        self._waiting: list[Notice] = []
        self._noted = 0.0

    def run(self, ended: threading.Event) -> None:
        """Follow the log until ``ended``, then tell what is left, each way once. Raises LockHeld beside another one."""
        path = self._coordinator.home.state / "locks" / "notifier.lock"
        held = locks.hold(path, _HANDOVER_SECONDS)  # the one of a supervisor that was killed still tells the last
        if held is None:
            raise LockHeld(f"another process tells already: {locks.holder(path)} holds {path}")
        with held:
            seq, state = self._begin()
            due = float("inf")
            while True:
                leaving = ended.is_set()  # asked first: what came before it is still told
                seq, state = self._read(seq, state)
                if self._waiting:
                    due = min(due, time.monotonic() + self._settings.wait_seconds)
                if self._waiting and (leaving or time.monotonic() >= due):
                    if not self.tell(self._waiting, ended, self._settings.retries_max + 1) and ended.is_set():
                        return  # there was no time to try again: it is told the next time
                    self._waiting, due = [], float("inf")
                    self._remember(seq)
                elif not self._waiting and (leaving or time.monotonic() - self._noted > _REMEMBERED_SECONDS):
                    self._remember(seq)
                if leaving:
                    return
                if not self._coordinator.store.log.wait(seq, min(_LOOK_SECONDS, max(due - time.monotonic(), 0.01))):
                    ended.wait(0.01)

    def tell(self, told: Sequence[Notice], ended: threading.Event, tries_max: int) -> bool:
        """One message, each way; whether it arrived each way. Tried a few more times only once ``ended``."""
        data = json.dumps(self._message(told)).encode()
        arrived = [self._delivered(way, send, data, ended, tries_max) for way, send in self._ways()]
        return all(arrived)

    # -- what there is to tell ---------------------------------------------------------------------------------------

    def _begin(self) -> tuple[int, State]:
        """Where we were; at first, and after the log began anew, at its end: nobody wants to hear of the past."""
        log = self._coordinator.store.log
        found = files.read_json_if_there(self._note) or {}
        seq = found.get("seq", 0) if found.get("log") == log.uuid else log.durable
        try:
            return seq, self._coordinator.replay(upto_seq=seq, trusting=True).state
        except NotFound:  # that part of the log was taken away meanwhile
            moment = self._coordinator.replay(trusting=True)
            return moment.seq, moment.state

    def _read(self, seq: int, state: State) -> tuple[int, State]:
        for record in self._coordinator.store.follow(seq):
            before = seen(state)
            state = Core().fold(state, record)
            seq = record.seq
            self._waiting += [
                notice for notice in notices(record.event, before, state) if notice.kind in self._settings.events
            ]
        return seq, state

    def _remember(self, seq: int) -> None:
        files.publish_json(self._note, {"log": self._coordinator.store.log.uuid, "seq": seq})
        self._noted = time.monotonic()

    def _message(self, told: Sequence[Notice]) -> dict[str, Any]:
        """What is sent: no secret and no control character is in it. ``text`` says all, as chat programs show it."""
        rows = [
            {name: line(redacted(str(value), self._secrets), TEXT_MAX) for name, value in _fields(notice)}
            for notice in told[:NOTICES_MAX]
        ]
        name = line(self._coordinator.home.repository.root.name, TEXT_MAX)
        more = len(told) - len(rows)
        lines = [f"{name}: {row['text']}" for row in rows] + ([f"{name}: … and {more} more"] if more else [])
        return {"repository": name, "text": "\n".join(lines), "notices": rows, "more": more}

    # -- how it is told ----------------------------------------------------------------------------------------------

    def _ways(self) -> Iterator[tuple[str, Callable[[bytes], None]]]:
        if self._settings.command:
            yield "command", self._run
        if self._settings.webhook:
            yield "webhook", self._post

    def _delivered(
        self, way: str, send: Callable[[bytes], None], data: bytes, ended: threading.Event, tries_max: int
    ) -> bool:
        problem, tries = "", 0
        while tries < tries_max:
            if ended.is_set():
                tries_max = min(tries_max, tries + _LAST_TRIES)
            try:
                send(data)
            except (OSError, ValueError, http.client.HTTPException, subprocess.SubprocessError) as error:
                problem = _problem(error)
            else:
                return True
            tries += 1
            if tries < tries_max and ended.wait(_BACKOFF_SECONDS * 2.0 ** (tries - 1)):
                time.sleep(_LOOK_SECONDS)
        self._complain(f"[notify] {way}: a message did not arrive: {redacted(problem, self._secrets)}")
        return False

    def _post(self, data: bytes) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "coord"}
        request = urllib.request.Request(self._settings.webhook, data=data, headers=headers)  # noqa: S310  # by settings
        with urllib.request.build_opener(_Stay).open(request, timeout=_TRY_SECONDS):
            return

    def _run(self, data: bytes) -> None:
        subprocess.run(
            self._settings.command,
            input=data,
            env=without_credentials(self._environment),
            cwd=self._coordinator.home.repository.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_TRY_SECONDS,
            check=True,
        )


class _Stay(urllib.request.HTTPRedirectHandler):
    """What people are told goes where they said, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing: it is an error then."""


def _fields(notice: Notice) -> list[tuple[str, Any]]:
    return [(name, getattr(notice, name)) for name in notice.__struct_fields__]


def _problem(error: Exception) -> str:
    """What went wrong, without the address or the words of the command, which may hold a token."""
    match error:
        case subprocess.CalledProcessError(returncode=code):
            return f"it exited with {code}"
        case subprocess.TimeoutExpired():
            return f"it took longer than {_TRY_SECONDS:g} s"
        case urllib.error.HTTPError(code=code):
            return f"HTTP status {code}"
        case urllib.error.URLError(reason=reason):
            return str(reason)
        case OSError(strerror=str(said)):
            return said
    return type(error).__name__
