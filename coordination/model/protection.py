"""Which of the files that a commit changes may a person alone let through? Patterns and names in, names out.

A pattern is read like a line of ``.gitignore``: one without a slash fits at any depth, another from the top of the
repository; ``*`` and ``?`` stay within a name, ``**`` crosses directories, and what fits a directory fits all below it.
The last pattern that fits a file decides, and one that begins with ``!`` lets it go. ``@default`` stands for DEFAULT.

Names are compared as the mildest file system would: without regard to case, to forms of the same letter, and to signs
that nobody sees. A file, link or submodule that stands where a pattern needs a directory fits it, too.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from coordination.model.runs import Outcome, Value
from coordination.settings import PROTECTED_BY_DEFAULT, PROTECTED_DEFAULT

_DEEP = "**"
_MILD = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


class Touched(Value, frozen=True, kw_only=True):
    """What a commit changes of what is protected."""

    changed: int = 0  # files, both names of a renamed one
    protected: tuple[str, ...] = ()
    unlisted: int = 0  # files whose names nobody knows: any of them may be protected

    @property
    def any(self) -> bool:
        """Whether something protected is changed, or may be."""
        return bool(self.protected or self.unlisted)


def touched(outcome: Outcome | None, patterns: Sequence[str]) -> Touched:
    """What of a work run's commit is protected. Where names are missing it may be anything."""
    if not patterns:
        return Touched(changed=len(outcome.changed) if outcome is not None else 0)
    if outcome is None or outcome.diff is None:
        return Touched(changed=1, unlisted=1)
    unlisted = max(outcome.unlisted, outcome.diff.files - len(outcome.changed), 0)
    protected = _protected(outcome.changed, expanded(patterns))
    return Touched(changed=len(outcome.changed) + unlisted, protected=protected, unlisted=unlisted)


@lru_cache(64)  # what waits to be judged is judged again at every turn
def _protected(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if covered(name, patterns))


def expanded(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns with those of the package where they are asked for."""
    return tuple(
        each for pattern in patterns for each in (PROTECTED_DEFAULT if pattern == PROTECTED_BY_DEFAULT else (pattern,))
    )


def covered(name: str, patterns: Sequence[str]) -> bool:
    """Whether the last pattern that fits the file protects it."""
    path = tuple(_mild(name).split("/"))
    for pattern in reversed(patterns):
        lets_go = pattern.startswith("!")
        if _fits(_segments(pattern.removeprefix("!")), path, stands_in_the_way=not lets_go):
            return not lets_go
    return False


@lru_cache(1024)
def _segments(pattern: str) -> tuple[str, ...]:
    found = tuple(segment for segment in _mild(pattern).split("/") if segment)
    anchored = "/" in pattern.rstrip("/")
    return found if anchored else (_DEEP, *found)


def _fits(wanted: tuple[str, ...], path: tuple[str, ...], *, stands_in_the_way: bool) -> bool:
    if wanted[0] == _DEEP and len(wanted[1:]) == 1:  # most are so, and a commit may change a thousand files
        return wanted[1] in path if _plain(wanted[1]) else any(_name(wanted[1]).fullmatch(name) for name in path)
    if all(_plain(name) for name in wanted):
        return path[: len(wanted)] == wanted or (stands_in_the_way and wanted[: len(path)] == path)
    return _followed(wanted, path, stands_in_the_way=stands_in_the_way)


@lru_cache(1024)
def _plain(name: str) -> bool:
    return not set(name) & set("*?[")


def _followed(wanted: tuple[str, ...], path: tuple[str, ...], *, stands_in_the_way: bool) -> bool:
    """Follow the pattern name by name; ``at`` are the places in it that the path so far may have come to."""
    at = _onwards(wanted, {0})
    for name in path:
        at = _onwards(wanted, {place for where in at for place in _step(wanted, where, name)})
        if len(wanted) in at:
            return True  # the file itself, or a directory that it is in
    return stands_in_the_way and len(path) in at and _DEEP not in wanted[: len(path)]


def _step(wanted: Sequence[str], where: int, name: str) -> Iterable[int]:
    if where < len(wanted):
        if wanted[where] == _DEEP:
            yield where
        elif _name(wanted[where]).fullmatch(name):
            yield where + 1


def _onwards(wanted: Sequence[str], at: set[int]) -> set[int]:
    """With the places behind every ``**`` that may stand for no directory at all."""
    for where in range(len(wanted)):
        if where in at and wanted[where] == _DEEP:
            at.add(where + 1)
    return at


@lru_cache(1024)
def _name(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def _mild(text: str) -> str:
    return unicodedata.normalize("NFKC", _MILD.sub("", unicodedata.normalize("NFKC", text))).casefold()
