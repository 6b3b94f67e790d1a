"""Patterns of protected files against a slow reading of the same rules, and spellings that must not matter."""

from __future__ import annotations

import re
from functools import cache

from hypothesis import example, given
from hypothesis import strategies as st

from coordination.model.protection import covered

NAMES = st.sampled_from(["a", "b", "ab", ".a", "A", "b.c"])
PARTS = st.sampled_from(["a", "b", "ab", ".a", "*", "a*", "?", "**", "*.c", "[ab]"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PATTERNS = st.builds(
    lambda parts, head, tail, no: f"{no}{head}{'/'.join(parts)}{tail}",
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
    st.sampled_from(["", "/"]),
    st.sampled_from(["", "", "!"]),
)


def oracle(name: str, patterns: list[str]) -> bool:
    """What stands in the way of a pattern is tried by asking whether the pattern could fit anything below."""
    for pattern in reversed(patterns):
        told = pattern.removeprefix("!").casefold()
        parts = [part for part in told.split("/") if part]
        if "/" not in told.rstrip("/"):
            parts = ["**", *parts]
        if _fits(tuple(parts), tuple(name.casefold().split("/")), strict=pattern.startswith("!")):
            return not pattern.startswith("!")
    return False


@cache
def _fits(parts: tuple[str, ...], path: tuple[str, ...], *, strict: bool) -> bool:
    if not parts:
        return True  # all below what fits
    if not path:
        # the file stands where a directory is wanted; what may be at any depth wants none in particular
        return all(part == "**" for part in parts) or not strict
    if parts[0] == "**":
        # once a directory was passed over, nothing stands in the way any more
        return any(_fits(parts[1:], path[skipped:], strict=True) for skipped in range(len(path) + 1))
    return _one(parts[0], path[0]) and _fits(parts[1:], path[1:], strict=strict)


def _one(part: str, name: str) -> bool:
    signs = {"*": ".*", "?": ".", "**": ".*"}
    return (
        re.fullmatch("".join(signs.get(sign, sign if sign in "[]" else re.escape(sign)) for sign in part), name)
        is not None
    )


@given(PATHS, st.lists(PATTERNS, min_size=1, max_size=3))
@example("a", ["a/**"])
@example("a/b", ["**/b/a"])
@example("a", ["a/**/b"])
def test_it_is_as_a_slow_reading_says(name: str, patterns: list[str]) -> None:
    """Any path, any patterns, exceptions among them."""
    assert covered(name, patterns) is oracle(name, patterns)


@given(PATHS, PATTERNS, st.sampled_from(["\u200b", "\u2060", "\ufeff"]), st.integers(0, 12))
def test_spelling_does_not_matter(name: str, pattern: str, hidden: str, place: int) -> None:
    """Case, and signs that nobody sees, in the name or in the pattern."""
    found = covered(name, [pattern])
    assert covered(name.upper(), [pattern]) is found
    assert covered(name, [pattern.upper()]) is found
    assert covered(name[:place] + hidden + name[place:], [pattern]) is found
