"""How is what others wrote shown on a terminal? As plain text, in lines that fit; or as JSON, as it is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from coordination.plain import line, plain

__all__ = ["dollars", "emit", "line", "note", "plain", "say", "seconds", "table", "tell"]


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
