"""What of a text that others wrote may be shown? What is to be read, and nothing that would steer who shows it."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Whole escape sequences first (CSI; then OSC, DCS, APC, PM and SOS with their text; then the two-byte ones), in their
# 7-bit and 8-bit forms; then every control character that is left, and what overrides the direction of text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]"
)
_SECRET_MIN = 6  # shorter ones would only tear words apart
_BREAKS = re.compile(r"\s*[\n\t\u2028\u2029]\s*")


def plain(text: str) -> str:
    """Text of others without anything that would steer a terminal; line ends and tabs stay."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    return _ESCAPES.sub("", printable.replace("\r\n", "\n"))


def line(text: str, width: int = 0) -> str:
    """The same on one line, cut to ``width`` signs (0: not cut)."""
    joined = _BREAKS.sub(" ", plain(text)).strip()
    return joined if not width or len(joined) <= width else f"{joined[: max(width - 1, 0)]}…"


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The same without these values, of which some are keys and passwords: for text that leaves the machine."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SECRET_MIN:
            text = text.replace(secret, "[redacted]")
    return text


def seconds(duration: float) -> str:
    """A duration for people: 12s, 3m05s, 2h07m."""
    minutes, rest = divmod(max(0, int(duration)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def dollars(amount: float, *, estimated: bool = False) -> str:
    """Money for people."""
    return f"{'about ' if estimated else ''}{amount:.4f} USD"
