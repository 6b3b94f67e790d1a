"""One screen: of everything something, and what is left out is counted."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from coordination.cli._screen import Section, fitted


def section(name: str, *heights: int) -> Section:
    entries = [
        [f"{name}{at}", *(f"{name}{at} more {line}" for line in range(1, height))] for at, height in enumerate(heights)
    ]
    return Section(title=name, entries=entries, rest=f"list {name}")


SECTIONS = st.lists(st.lists(st.integers(1, 3), max_size=9), max_size=4).map(
    lambda heights: [section("abcd"[at], *each) for at, each in enumerate(heights)]
)


@given(SECTIONS, st.integers(0, 60))
def test_it_fits_and_counts_what_is_left_out(sections: list[Section], lines_max: int) -> None:
    """No more lines than there are, unless one entry a section is already too much; shown and more are all there is."""
    lines = fitted(sections, lines_max)
    filled = [each for each in sections if each.entries]
    least = sum(each.height(1, 0) for each in filled)
    assert len(lines) <= max(lines_max, least)
    for each in filled:
        shown = [line for line in lines if re.fullmatch(rf"{each.title}\d+", line)]
        assert shown == [entry[0] for entry in each.entries[: len(shown)]]
        assert shown
        more = [line for line in lines if line.endswith(f"list {each.title}")]
        left = len(each.entries) - len(shown)
        assert more == ([f"  … and {left} more: list {each.title}"] if left else [])


@given(SECTIONS)
def test_what_fits_is_shown_whole(sections: list[Section]) -> None:
    """With room for everything nothing is cut."""
    whole = [line for each in sections if each.entries for line in each.lines(len(each.entries), len(each.entries))]
    assert fitted(sections, len(whole)) == whole
    assert fitted(sections, 1000) == whole


def test_a_long_list_leaves_room_for_a_short_one() -> None:
    """A hundred that wait do not push out the one that needs a person."""
    lines = fitted([section("a", 2), section("b", *([1] * 100))], 12)
    assert lines == ["", "a", "a0", "", "b", *(f"b{at}" for at in range(6)), "  … and 94 more: list b"]


def test_one_more_takes_the_line_that_would_say_so() -> None:
    """Never "and 1 more" where that one could stand."""
    assert fitted([section("a", 1, 1, 1)], 5) == ["", "a", "a0", "a1", "a2"]
