"""What does the program's own record of a session say that it did not say aloud? What each message used, in the end.

Aloud it tells a message's numbers when its stream begins, when next to nothing has been put out, and the sum with its
result. A program that is killed gives none; its record, written after each message, is then all there is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordination.agents.claude.heard import Heard, Tail, decoded
from coordination.model.runs import AgentRequest

JSON = Any


def complete(heard: Heard, request: AgentRequest, response_usd: float) -> None:
    """Tell what messages used of which no result has told."""
    if heard.owing:
        found: Mapping[str, Mapping[str, JSON]] = {}
        with contextlib.suppress(OSError):  # then what was heard must do
            found = usages(request.config_directory, request.session)
        heard.complete(found, response_usd)


def find(config_directory: str, session: str) -> list[Path]:
    """The record of a session, if it has begun."""
    return list(Path(config_directory, "projects").glob(f"*/{session}.jsonl")) if session else []


def usages(config_directory: str, session: str) -> dict[str, Mapping[str, JSON]]:
    """What each message of a session used, by its id. Raises OSError."""
    found: dict[str, Mapping[str, JSON]] = {}
    for path in find(config_directory, session):
        with path.open("rb") as lines:
            for line in Tail(lines).lines():
                match decoded(line):
                    case {"type": "assistant", "message": {"id": str() as identity, "usage": dict() as usage}}:
                        found[identity] = usage
    return found
