"""How does a log behave when nothing can go wrong? For tests and for trying out what would happen.

Everybody in this process who connects to one name shares one log, which lives as long as somebody holds it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from uuid import uuid4
from weakref import WeakValueDictionary

from coordination.errors import Conflict
from coordination.log import Upto, frames


class _Batches:
    def __init__(self) -> None:
        self.uuid = str(uuid4())
        self.grown = threading.Condition()
        self.payloads: list[bytes] = []


# the one piece of module state: a name has to mean something
_named: WeakValueDictionary[str, _Batches] = WeakValueDictionary()
_naming = threading.Lock()


def connect(url: str, *, ours: bool = False) -> MemoryLog:  # noqa: ARG001 - nobody is ever kept waiting
    """The log of that name, empty when it is new."""
    name = url.partition(":")[2]
    with _naming:
        batches = _named.get(name)
        if batches is None:
            batches = _named[name] = _Batches()
    return MemoryLog(batches)


class MemoryLog:
    """Batches in a list. The head is always durable, the epoch always 1."""

    epoch = 1
    base = 0

    def __init__(self, batches: _Batches) -> None:
        self._batches = batches

    @property
    def uuid(self) -> str:
        """Which log this is."""
        return self._batches.uuid

    @property
    def durable(self) -> int:
        """The head."""
        return len(self._batches.payloads)

    def append(self, payload: bytes, *, after: int, again: Callable[[], bytes] | None = None) -> int:
        """Append one batch. Raises Conflict, UsageError."""
        frames.check_payload(payload)
        with self._batches.grown:
            head = len(self._batches.payloads)
            if head != after:
                if again is None:
                    raise Conflict(f"decided after batch {after}, but the log's head is {head}", head=head)
                payload = again()
                frames.check_payload(payload)
            self._batches.payloads.append(payload)
            self._batches.grown.notify_all()
        return head + 1

    def read(self, after: int, *, upto: Upto) -> Iterable[tuple[int, bytes]]:  # noqa: ARG002 - head and durable agree
        """The batches after number ``after``."""
        return list(enumerate(self._batches.payloads[after:], after + 1))

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Wait until there is a batch beyond ``after``."""
        with self._batches.grown:
            timeout_seconds = min(timeout_seconds, threading.TIMEOUT_MAX)
            return self._batches.grown.wait_for(lambda: self.durable > after, timeout_seconds)

    def settle(self) -> None:
        """Nothing to do: the head is durable."""

    def close(self) -> None:
        """Nothing to give back."""
