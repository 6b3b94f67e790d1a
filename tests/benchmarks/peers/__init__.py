"""Who is measured, and what must each be able to do? We, and what people would reach for instead.

Each peer is used as well as its own documentation says, with every acknowledged operation on the disk. What could
not be made durable says so in ``note`` and is measured all the same, beside the others but outside every target.
"""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

BUSY_SECONDS = 120.0  # how long a peer may wait for its turn before it would be an error


class Connection(Protocol):
    """What one process holds while it is measured."""

    def append(self, payload: bytes) -> None:
        """Append one payload, durable on return."""
        ...

    def claim_and_complete(self) -> int | None:
        """Take the next free task and complete it, each durable on return; its number, None when none is left."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Peer:
    """One way to keep a log and a queue in a directory that many processes share."""

    name: str
    note = ""  # what a reader of the table must know
    has_tasks = True  # whether it can be asked to claim
    claims_durably = True  # whether a claim and its completion are on the disk, too

    def missing(self) -> str:
        """Why it cannot be measured here; "" when it can."""
        return ""

    def serve(self, directory: Path) -> AbstractContextManager[object]:
        """What must run beside the measured processes."""
        return nullcontext(directory)

    def create(self, directory: Path) -> None:
        """Make an empty store."""
        raise NotImplementedError

    def submit(self, directory: Path, tasks: int) -> None:
        """Fill the store with tasks numbered from 1, however fast it goes."""
        raise NotImplementedError

    def connect(self, directory: Path, process: int) -> Connection:
        """Connect, as process number ``process``."""
        raise NotImplementedError

    def appended(self, directory: Path) -> int:
        """How many payloads are in the store now."""
        raise NotImplementedError

    def completed(self, directory: Path) -> int:
        """How many tasks are completed now."""
        raise NotImplementedError


def payload(number: int) -> bytes:
    """The same batch of about 250 bytes for all: one event as our own log keeps them."""
    event = {
        "type": "RunPlanned",
        "task": f"t{number}",
        "run": f"t{number}.1.work",
        "purpose": "work",
        "role": "blue",
        "model": "claude-sonnet-4-5",
        "reason": "the oldest task that waits for nobody, on the one slot that is free",
    }
    return json.dumps({"at": "2026-11-21T12:00:00.000000Z", "events": [event]}, separators=(",", ":")).encode()


def number_of(payload: bytes) -> int:
    """The number that ``payload`` was made with."""
    name: str = json.loads(payload)["events"][0]["task"]
    return int(name[1:])
