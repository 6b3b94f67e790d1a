"""Whatever anybody wrote: what is shown is harmless, and exactly as wide as it should be."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from coordination.monitor.cells import Part, Tone, cells, column, cut, fitted, shown, text_of, wrapped
from tests.unit.seeing import HOSTILE

TEXTS = st.text() | st.sampled_from(HOSTILE) | st.text(alphabet="ab \n\t\x1b[;m世\u0301\u202e\u200d[]/")


@given(TEXTS)
@example("A\u200b\u0300")
def test_nothing_that_is_shown_steers_a_terminal(text: str) -> None:
    """Neither a control character nor an override of direction, a line end or anything invisible comes through."""
    found = shown(text)
    assert not {unicodedata.category(sign) for sign in found} & {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
    assert shown(found) == found


@given(st.lists(TEXTS, max_size=4), st.integers(0, 200))
def test_a_fitted_line_is_exactly_as_wide(texts: list[str], width: int) -> None:
    """Cut or filled, whatever it is made of."""
    line = fitted([Part(text, Tone.STRONG) for text in texts], width)
    assert cells(text_of(line)) == width


@given(TEXTS, st.integers(0, 60))
def test_a_column_is_exactly_as_wide_and_a_cut_text_fits(text: str, width: int) -> None:
    """Aligned to either side."""
    assert cells(column(text, width)) == cells(column(text, width, right=True)) == width
    assert cells(cut(text, width)) <= width


@given(TEXTS, st.integers(2, 60))
def test_wrapping_loses_no_letter(text: str, width: int) -> None:
    """All that is no blank is there, in order, in lines that fit."""
    rows = wrapped(text, width)
    assert all(cells(row) <= width for row in rows)
    whole = [shown(row) for row in text.replace("\r\n", "\n").expandtabs(4).split("\n")]
    if "\x1b" not in text and not {"\x9b", "\x9d", "\x90", "\x98", "\x9e", "\x9f"} & set(text):
        assert "".join("".join(rows).split()) == "".join("".join(whole).split())


def test_our_widths_are_those_of_the_library_that_draws() -> None:
    """But for vowel signs of a few scripts, which terminals draw in a cell of their own and the library in none."""
    others = []
    for number in [*range(0x20, 0xD800), *range(0xE000, 0x20000)]:
        sign = chr(number)
        if unicodedata.category(sign) != "Mc":
            found = shown(f"a{sign}")
            if cell_len(found) != cells(found) and not any(unicodedata.category(each) == "Mc" for each in found):
                others.append(hex(number))
    assert others == []


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Grüße, 世界", "Grüße, 世界"),
        ("cafe\u0301", "café"),
        ("a\u0301\u0302\u0303\u0304", "á\u0302\u0303"),
        ("👍🏽 ok", "👍 ok"),
        ("one\ntwo\tthree", "one two three"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
        ("\u0301first", "first"),
    ],
)
def test_what_can_be_read_stays(text: str, kept: str) -> None:
    """Letters, accents and brackets are text; two accents on one sign are enough."""
    assert shown(text) == kept


def test_what_is_cut_says_so() -> None:
    """An ellipsis stands for the rest, also in the middle of a wide sign."""
    assert cut("abcdef", 4) == "abc…"
    assert cut("世界世界", 4) == "世…"
    assert cut("abcd", 4) == "abcd"
    assert cut("abcd", 0) == ""
