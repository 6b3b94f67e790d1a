"""What has the program said that matters: for the ending, for the bill, for whoever watches?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import msgspec

from coordination.agents.claude.spending import Spoken, billed, estimated, total
from coordination.model.runs import Usage

JSON = Any

RESET_MAX_SECONDS = 8 * 24 * 3600.0  # the longest window is a week; anything later is nonsense


class Tail:
    """Reads a growing file line by line, from where it ended when first looked at."""

    CHUNK = 1 << 20

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """Yield the complete lines that are there now."""
        while chunk := self._file.read(self.CHUNK):
            head, newline, rest = chunk.rpartition(b"\n")
            if not newline:
                self._rest += chunk
                continue
            yield from (self._rest + head).split(b"\n")
            self._rest = rest


def decoded(line: bytes) -> Mapping[str, JSON]:
    """Return the message in a line; a line that is no JSON object says nothing (half of one, when it was killed)."""
    try:
        message = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


class Heard:
    """All that was said which matters: for the ending, for the bill, for whoever watches."""

    def __init__(self, canary: str) -> None:
        self._canary = canary
        self.settings_applied = False
        self.initialized: bool | None = None  # None: not answered yet
        self.complaint = ""
        self.results: list[Mapping[str, JSON]] = []
        self._asking = False  # an answer is on its way
        self._unknown_usd = 0.0
        self.trouble = ""  # what kind of error the program itself last spoke of
        self.rejected = False  # the service says the usage limit is reached
        self.warned = 0.0  # how much of a usage window is used up, as the service warned; 0: no warning
        self.resets_at = 0.0
        self.model = ""
        self.session = ""
        self.turns = 0
        self.tool = ""
        self.file = ""
        self.denials: dict[str, str] = {}
        self._unbilled: dict[str, Spoken] = {}  # since the last result
        self._billed = Usage()

    def hear(self, message: Mapping[str, JSON]) -> None:
        """Take in one message; unknown kinds are none of our business."""
        match message:
            case {"type": "assistant", "message": dict() as said}:
                self.trouble = str(message.get("error") or "")
                self._asking = False
                self._assistant(said)
            case {"type": "user"}:  # what a tool said; the next answer is asked for at once
                self._asking = True
            case {"type": "result"}:
                self._result(message)
            case {"type": "system", "subtype": "hook_response", "hook_event": "SessionStart"}:
                self.settings_applied |= self._canary in str(message.get("stderr", ""))
            case {"type": "system", "subtype": "init"}:
                self._asking = True
                self.model = str(message.get("model", ""))
                self.session = str(message.get("session_id", ""))
            case {"type": "system", "subtype": "permission_denied"}:
                self.deny(str(message.get("tool_use_id")), f"{message.get('tool_name')}: needs an approval")
            case {"type": "rate_limit_event", "rate_limit_info": dict() as limit}:
                self._limit(limit)
            case {"type": "control_response", "response": {"request_id": "initialize"} as answer}:
                self.initialized = answer.get("subtype") == "success"
                self.complaint = str(answer.get("error", ""))

    def complete(self, usages: Mapping[str, Mapping[str, JSON]], response_usd: float) -> None:
        """Take in what messages used, by id, of which no result has told. What nobody can tell costs so much an answer.

        That is one on its way, and those that the program, which writes its record a little later, had not written.
        """
        for identity in self._unbilled.keys() & usages.keys():
            self._unbilled[identity].usage = usages[identity]
        unknown = len(self._unbilled.keys() - usages.keys()) + self._asking
        self._unknown_usd = response_usd * unknown

    @property
    def owing(self) -> bool:
        """Whether something was asked of which no result has told what it cost."""
        return self._asking or bool(self._unbilled)

    def deny(self, call: str, what: str) -> None:
        """Remember what the agent was not allowed to do, once a call."""
        self.denials.setdefault(call, what)

    def _assistant(self, said: Mapping[str, JSON]) -> None:
        model = str(said.get("model", ""))
        if model == "<synthetic>":  # the program's own words about an error
            return
        identity = str(said.get("id", ""))
        if identity not in self._unbilled:
            self._unbilled[identity] = Spoken(model)
            self.turns += 1
        spoken = self._unbilled[identity]
        if isinstance(said.get("usage"), dict):
            spoken.usage = said["usage"]
        content = said.get("content")
        blocks = content if isinstance(content, list) else []
        for block in (each for each in blocks if isinstance(each, dict)):
            spoken.characters += len(json.dumps(block.get("input") or block.get("text") or ""))
            if block.get("type") == "tool_use":
                self.tool = str(block.get("name", ""))
                self.file = _file_of(block.get("input"))

    def _result(self, result: Mapping[str, JSON]) -> None:
        self.results.append(result)
        self._asking = False
        self._billed = total(self._billed, billed(result, list(self._unbilled.values())))
        self._unbilled = {}
        for denial in result.get("permission_denials") or []:
            if isinstance(denial, dict):
                where = _file_of(denial.get("tool_input"))
                self.deny(str(denial.get("tool_use_id")), f"{denial.get('tool_name')} {where}".strip())

    def _limit(self, limit: Mapping[str, JSON]) -> None:
        over = bool(limit.get("isUsingOverage"))
        self.rejected = limit.get("overageStatus" if over else "status") == "rejected"
        windows = limit.get("unifiedWindows")
        window = windows.get(limit.get("rateLimitType")) if isinstance(windows, dict) else None
        named = window.get("resetsAt") if isinstance(window, dict) else None
        self.resets_at = _instant(named or limit.get("resetsAt"), now=time.time())
        used = limit.get("utilization")
        self.warned = float(used) if limit.get("status") == "allowed_warning" and isinstance(used, int | float) else 0.0

    @property
    def usage(self) -> Usage:
        """What the run cost so far: exact up to the last result, estimated after it."""
        open_messages = list(self._unbilled.values())
        spent = self._billed if not open_messages else total(self._billed, estimated(open_messages))
        return msgspec.structs.replace(spent, cost_usd=spent.cost_usd + self._unknown_usd, turns=self.turns)


def _file_of(arguments: JSON) -> str:
    if not isinstance(arguments, dict):
        return ""
    return str(arguments.get("file_path") or arguments.get("notebook_path") or arguments.get("path") or "")


def _instant(value: JSON, *, now: float) -> float:
    """Return seconds since the epoch from seconds or milliseconds; 0 for what cannot be a reset time."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return 0.0
    seconds = value / 1000 if value > 1e11 else float(value)  # noqa: PLR2004 - the year 5138, or 1973 in milliseconds
    return seconds if now < seconds < now + RESET_MAX_SECONDS else 0.0
