"""What does a log promise? Batches of bytes in one order, durable before they are acknowledged, from many writers.

A log does not know what an event is. An engine is one module here, found by the scheme of a URL, and is checked by
``coordination.testing.log_conformance``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable
from typing import Literal, Protocol, cast

from coordination.errors import UsageError

Upto = Literal["head", "durable"]


class Log(Protocol):
    """One connection to a log. Threads may share it; after a fork connect anew."""

    @property
    def uuid(self) -> str:
        """Which log this is."""
        ...

    @property
    def epoch(self) -> int:
        """The epoch that ``read`` saw last. When it differs from before, what was read above ``durable`` is void."""
        ...

    @property
    def durable(self) -> int:
        """The highest sequence number that is known to survive a power cut."""
        ...

    @property
    def base(self) -> int:
        """The last batch that was taken away with the oldest part of the log; 0 when everything is there."""
        ...

    def append(self, payload: bytes, *, after: int, again: Callable[[], bytes] | None = None) -> int:
        """Append one batch (a JSON object on one line) and return its number, durable on return.

        When the head is not ``after``, or the epoch is not the one last read, ``again`` is asked for another payload,
        at a moment when nobody else appends: it may read the log, must be quick, and what it raises comes through with
        nothing appended. Without ``again``: Conflict, read and decide again. Conflict is also raised, rarely, when a
        recovery left the batch out for good, or must come before there can be another segment.
        Raises OutcomeUnknown when it may or may not have been appended: read to find out. Raises LogDamaged.
        """
        ...

    def read(self, after: int, *, upto: Upto) -> Iterable[tuple[int, bytes]]:
        """The batches after number ``after`` with their numbers, each verified. Raises LogDamaged, never skips.

        ``after`` must not be below ``base``: what was taken away is missing, and said to be.
        """
        ...

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Wait until ``durable`` is beyond ``after``; False when it is not within that time."""
        ...

    def settle(self) -> None:
        """Make the head durable, whoever wrote it. May change the epoch. Raises what ``append`` raises."""
        ...

    def close(self) -> None:
        """Give back descriptors and memory."""
        ...


def connect(url: str, *, ours: bool = False) -> Log:
    """Connect to an existing log: ``file:<directory>``, ``memory:<name>``. Raises UsageError, NotFound, LogDamaged.

    ``ours`` says that this is a process of the coordinator itself (the supervisor, a command): if it is stopped while
    it keeps all others from writing, they may kill it.
    """
    scheme = url.partition(":")[0]
    if not re.fullmatch(r"[a-z]+:.+", url, re.DOTALL):
        raise UsageError(f"log {url!r} is not of the form scheme:place, as in file:/path or memory:name")
    try:
        module = importlib.import_module(f"{__name__}.{scheme}")
    except ModuleNotFoundError as error:
        raise UsageError(f"no log engine {scheme!r}: expected a module coordination/log/{scheme}.py") from error
    if not hasattr(module, "connect"):
        raise UsageError(f"coordination/log/{scheme}.py is not a log engine: it has no connect(url)")
    return cast(Log, module.connect(url, ours=ours))
