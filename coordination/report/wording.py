"""What do all sections say in the same way? Money, durations, numbers of things, tasks; tables and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree.ElementTree import Element

from coordination.report.charts import Series, legend
from coordination.report.markup import el

Row = dict[str, Any]

ROLES = {"blue": "blue", "green": "green", "red": "red", "gate": "amber", "landing": "violet"}
_OTHERS = ("teal", "pink", "brown", "slate")


def usd(amount: float, *, estimated: bool = False) -> str:
    """Money, to the cent where cents are seen."""
    told = f"{amount:,.2f}" if abs(amount) >= 1 or not amount else f"{amount:.4f}"
    return f"{'about ' if estimated else ''}{told} USD"


def lasting(seconds: float) -> str:
    """A duration in its two largest units."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def count(value: float) -> str:
    """A number of things, with a decimal only where it has one."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def many(number: int, thing: str, things: str = "") -> str:
    """So many things, in the right number."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def left_out(more: int, what: str) -> Element | None:
    """What a bounded list does not show; nothing when it shows all."""
    return el("p", f"… and {more:,} more {what}", class_="soft") if more else None


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Sequence[int] = ()) -> Element:
    """``numeric``: the columns that are set flush right."""
    kinds = ["n" if at in numeric else None for at in range(len(heads))]
    head = el("tr", [el("th", text, class_=kind) for text, kind in zip(heads, kinds, strict=True)])
    body = [el("tr", [el("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)]) for row in rows]
    return el("div", el("table", el("thead", head), el("tbody", body)), class_="wide")


def coloured(roles: Iterable[str]) -> dict[str, str]:
    """Known roles have their own colour; all others get what is left, in their order."""
    others = sorted({role for role in roles if role not in ROLES})
    return ROLES | {role: _OTHERS[at % len(_OTHERS)] for at, role in enumerate(others)}


def figure(caption: str, drawn: Element, series: Iterable[Series] = (), *, wide: bool = True) -> Element:
    """A picture under its caption, with its legend."""
    shown = [*series]
    return el(
        "figure",
        el("figcaption", caption),
        el("div", drawn, class_="wide" if wide else None),
        legend(shown) if shown else None,
    )


def who(task: Row) -> list[Element | str]:
    """A task, as it stands everywhere."""
    return [el("code", task["task"]), f" {task['title']}"]
