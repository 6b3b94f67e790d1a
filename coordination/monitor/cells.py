"""How does a text become cells of a screen? Harmless, measured, and cut or filled to the width there is. Pure.

Everything that is shown passes ``fitted``. What others wrote keeps its letters and loses whatever could steer a
terminal (see ``printable``), and whatever terminals disagree about the width of, or a line would run into the next one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from coordination.printable import plain

_MARKS_MAX = 2  # accents on one sign; more would be drawn over the lines above
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # joiners and the like: what they join is shown side by side
_UNKNOWN = {"Cn", "Co"}
_SELECTORS = range(0xFE00, 0xFE10)  # they make the sign before them wider in some terminals
_SKIN_TONES = range(0x1F3FB, 0x1F400)
# parts of syllables that stand alone, and symbols that one edition of Unicode calls narrow and the next one wide
_DISPUTED = (
    *(range(0x1160, 0x1200), range(0xD7B0, 0xD800), range(0x3164, 0x3165), range(0xFFA0, 0xFFA1)),
    *(range(0x2630, 0x2638), range(0x268A, 0x2690), range(0x4DC0, 0x4E00), range(0x1D300, 0x1D380)),
)
_BREAKS = str.maketrans(dict.fromkeys("\n\t\u2028\u2029", " "))


class Tone(StrEnum):
    """What a part of a line is, said by colour where there are colours. Never the only thing that says it."""

    PLAIN = "plain"
    STRONG = "strong"
    FAINT = "faint"
    HEAD = "head"
    CHOSEN = "chosen"
    ALARM = "alarm"
    BLUE = "blue"
    GREEN = "green"
    RED = "red"


class Part(NamedTuple):
    """Some text in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Part, ...]


def shown(text: str) -> str:
    """The text on one line, with nothing in it that could steer a terminal or that has no certain width."""
    return text if text.isascii() and text.isprintable() else _shown(text)


@lru_cache(4096)
def _shown(text: str) -> str:
    certain = "".join(_certain(unicodedata.normalize("NFC", plain(text).translate(_BREAKS))))
    return unicodedata.normalize("NFC", certain)  # an accent may stand beside its letter only now


def _certain(text: str) -> Iterator[str]:
    marks = _MARKS_MAX  # none at the beginning: there is no sign to put it on
    for sign in text:
        category = unicodedata.category(sign)
        if category in ("Mn", "Me"):
            marks += 1
            if marks <= _MARKS_MAX and ord(sign) not in _SELECTORS:
                yield sign
        elif category not in _UNSEEN and ord(sign) not in _SKIN_TONES:
            marks = 0
            unknown = category in _UNKNOWN or any(ord(sign) in some for some in _DISPUTED)
            yield "\N{REPLACEMENT CHARACTER}" if unknown else sign


def cells(text: str) -> int:
    """How many cells a shown text takes."""
    return len(text) if text.isascii() else sum(_cells(sign) for sign in text)


@lru_cache(4096)
def _cells(sign: str) -> int:
    if unicodedata.category(sign) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in ("W", "F") else 1


def cut(text: str, width: int) -> str:
    """The text as shown, in at most so many cells; an ellipsis stands for what is left out."""
    text = shown(text)
    if cells(text) <= width:
        return text
    return f"{_beginning(text, width - 1)}…" if width > 0 else ""


def _beginning(text: str, width: int) -> str:
    if text.isascii():
        return text[: max(width, 0)]
    taken = 0
    for at, sign in enumerate(text):
        taken += _cells(sign)
        if taken > width:
            return text[:at]
    return text


def column(text: str, width: int, *, right: bool = False) -> str:
    """The text in exactly so many cells."""
    text = cut(text, width)
    blank = " " * (width - cells(text))
    return blank + text if right else text + blank


def fitted(line: Iterable[Part], width: int) -> Line:
    """The line in exactly so many cells."""
    parts: list[Part] = []
    left = width
    for part in line:
        if left <= 0:
            break
        text = cut(part.text, left)
        if text:
            parts.append(Part(text, part.tone))
            left -= cells(text)
    return (*parts, Part(" " * left)) if left > 0 else tuple(parts)


def toned(line: Iterable[Part], tone: Tone) -> Line:
    """The same line, all in one tone."""
    return tuple(Part(part.text, tone) for part in line)


def text_of(line: Iterable[Part]) -> str:
    """The line without its tones."""
    return "".join(part.text for part in line)


def wrapped(text: str, width: int) -> list[str]:
    """All of a text in lines of at most so many cells, broken at blanks where there are any."""
    return [piece for row in plain(text).expandtabs(4).split("\n") for piece in _broken(shown(row), max(width, 2))]


def _broken(text: str, width: int) -> Iterator[str]:
    while cells(text) > width:
        piece = _beginning(text, width)
        blank = piece.rfind(" ")
        if text[len(piece)] != " " and blank > width // 2:
            piece = piece[:blank]
        yield piece.rstrip()
        text = text[len(piece) :].removeprefix(" ")
    yield text.rstrip()
