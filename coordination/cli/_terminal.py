"""How is what others wrote shown on a terminal? As plain text, in lines that fit; or as JSON, as it is."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

# Whole escape sequences first (CSI; then OSC, DCS, APC, PM and SOS with their text; then the two-byte ones), in their
# 7-bit and 8-bit forms; then every control character that is left, and what overrides the direction of text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]"
)
_BREAKS = re.compile(r"\s*[\n\t\u2028\u2029]\s*")


def plain(text: str) -> str:
    """Text of others without anything that would steer a terminal; line ends and tabs stay."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    return _ESCAPES.sub("", printable.replace("\r\n", "\n"))


def line(text: str, width: int = 0) -> str:
    """The same on one line, cut to ``width`` signs (0: not cut)."""
    joined = _BREAKS.sub(" ", plain(text)).strip()
    return joined if not width or len(joined) <= width else f"{joined[: max(width - 1, 0)]}…"


def say(text: str = "", *, whole: bool = False) -> None:
    """One line of a person's answer, its indent kept; cut to the terminal if there is one, unless ``whole``."""
    indent = " " * (len(text) - len(text.lstrip(" ")))
    cut = sys.stdout.isatty() and not whole
    click.echo(indent + line(text, max(shutil.get_terminal_size().columns - len(indent), 20) if cut else 0))


def tell(text: str) -> None:
    """Text of any length, uncut."""
    click.echo(plain(text))


def note(text: str) -> None:
    """What goes beside the answer: progress and hints, on stderr."""
    click.echo(plain(text), err=True)


def emit(value: Any) -> None:
    """One JSON object on one line, in ASCII: nothing in it can steer a terminal. Written out at once."""
    click.echo(json.dumps(value))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; the last takes what is left."""
    cells = [list(heads), *([line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads) - 1)]
    for row in cells:
        say("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


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
