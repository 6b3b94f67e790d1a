"""How do numbers become pictures? SVG in the page, without a script: what is drawn says more when it is pointed at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.etree.ElementTree import Element

from coordination.report.markup import el, number

WIDTH = 1120.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 10.0, 12.0, 22.0
_LANE, _GAP = 18.0, 4.0
_BAR = 22.0
_LABEL_MAX = 30
_SIGN = 6.2  # how wide a letter of a label is, about
_TICKS_MAX = 9

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0
_TICKS = (
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28, 91, 182, 364, 728)),
)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One colour of a picture and what it stands for."""

    name: str
    colour: str


def legend(series: Iterable[Series]) -> Element:
    """Which colour is what."""
    return el("ul", [el("li", _patch(each.colour), each.name) for each in series], class_="legend")


def _patch(colour: str) -> Element:
    return el(
        "svg", el("rect", width=10, height=10, rx=2, class_=f"c-{colour}"), viewBox="0 0 10 10", aria_hidden="true"
    )


def picture(label: str, width: float, height: float, parts: Iterable[Element | None]) -> Element:
    """An SVG that scales, with what a person who cannot see it is told."""
    return el("svg", parts, viewBox=f"0 0 {number(width)} {number(height)}", role="img", aria_label=label)


# ---- scales ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From values to places in the picture."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where a value lies; what lies outside is put at the edge."""
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.0
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def _across(start: float, end: float, left: float = _LEFT) -> Scale:
    return Scale(low=start, high=max(end, start + 1.0), start=left, end=WIDTH - _RIGHT)


def _up(most: float, height: float) -> Scale:
    return Scale(low=0.0, high=most, start=height - _BOTTOM, end=_TOP)


def rounded_up(most: float, steps: int = 4) -> tuple[float, float]:
    """A step of 1, 2 or 5 times a power of ten, and the multiple of it that holds ``most``."""
    if most <= 0 or not math.isfinite(most):
        return 1.0, 1.0
    power = 10.0 ** math.floor(math.log10(most / steps))
    step = next(power * n for n in (1, 2, 5, 10, 20) if power * n * steps >= most * (1 - 1e-9))
    return step, step * math.ceil(most / step - 1e-9)


def _levels(step: float, most: float, up: Scale, told: Callable[[float], str]) -> Iterable[Element]:
    for at in range(round(most / step) + 1):
        y = up(at * step)
        yield el("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="grid" if at else "axis")
        yield el("text", told(at * step), x=_LEFT - 6, y=y + 4, text_anchor="end")


def _moments(start: float, end: float, across: Scale, height: float, *, lines: bool) -> Iterable[Element]:
    span = max(end - start, 1.0)
    step = next((tick for tick in _TICKS if span / tick <= _TICKS_MAX), span / _TICKS_MAX)
    form = _form(step, span)
    at = math.ceil(start / step) * step
    while at <= end:
        x = across(at)
        if lines:
            yield el("line", x1=x, x2=x, y1=_TOP, y2=height - _BOTTOM, class_="grid")
        if x < WIDTH - 30:
            yield el("text", instant(at, form), x=x, y=height - 6, text_anchor="middle")
        at += step


def _form(step: float, span: float) -> str:
    if span > 300 * _DAY:
        return "%b %Y"
    if span > 2 * _DAY:
        return "%d %b" if step >= _DAY else "%d %b %H:%M"
    return "%H:%M" if step >= _MINUTE else "%H:%M:%S"


def instant(at: float, form: str = "%Y-%m-%d %H:%M:%SZ") -> str:
    """A moment in UTC; a number that is none as it is."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return number(at)


# ---- pictures --------------------------------------------------------------------------------------------------------


def stacked_bars(
    label: str,
    heads: Sequence[tuple[str, str]],  # under the bar; when it is pointed at
    values: Sequence[Mapping[str, float]],
    series: Sequence[Series],
    *,
    told: Callable[[float], str],
    cap: tuple[float, str] | None = None,
    line: tuple[str, Sequence[float]] | None = None,
    height: float = 200.0,
) -> Element:
    """A bar a head, made of the series from the bottom up; a line for what must not be exceeded, and one more row."""
    highest = max([*(sum(bar.values()) for bar in values), *(line[1] if line else ()), cap[0] if cap else 0.0])
    step, most = rounded_up(highest)
    up, room = _up(most, height), (WIDTH - _LEFT - _RIGHT) / max(len(heads), 1)
    wide, parts = min(room * 0.78, 60.0), [*_levels(step, most, up, told)]
    longest = max((len(under) for under, _ in heads), default=0)
    every = max(1, math.ceil((longest * _SIGN + 14.0) / room))
    for at, ((under, pointed), bar) in enumerate(zip(heads, values, strict=True)):
        x, base = _LEFT + room * at + (room - wide) / 2, 0.0
        for each in series:
            amount = bar.get(each.name, 0.0)
            if amount > 0:
                top, bottom = up(base + amount), up(base)
                tip = el("title", f"{pointed}: {each.name} {told(amount)}")
                shape = {"x": x, "y": top, "width": wide, "height": max(bottom - top, 0.5)}
                parts.append(el("rect", tip, class_=f"c-{each.colour}", **shape))
                base += amount
        if not at % every:
            parts.append(el("text", under, x=x + wide / 2, y=height - 6, text_anchor="middle"))
    if line is not None:
        parts.append(_line([(_LEFT + room * (at + 0.5), up(value)) for at, value in enumerate(line[1])], line[0]))
    if cap is not None:
        y = up(cap[0])
        parts.append(el("line", el("title", cap[1]), x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="cap"))
        parts.append(el("text", cap[1], x=WIDTH - _RIGHT, y=y - 4, text_anchor="end", class_="strong"))
    return picture(label, WIDTH, height, parts)


def _line(points: Sequence[tuple[float, float]], tip: str) -> Element:
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return el("polyline", el("title", tip), points=path, class_="line")


def stacked_areas(
    label: str,
    samples: Sequence[tuple[float, Mapping[str, float]]],
    series: Sequence[Series],
    *,
    told: Callable[[float], str],
    height: float = 220.0,
) -> Element:
    """How the parts of a whole changed: each value holds until the next one."""
    start, end = samples[0][0], samples[-1][0]
    step, most = rounded_up(max(sum(counts.values()) for _, counts in samples))
    across, up = _across(start, end), _up(most, height)
    parts = [*_levels(step, most, up, told), *_moments(start, end, across, height, lines=False)]
    bases = [0.0] * len(samples)
    for each in series:
        tops = [base + counts.get(each.name, 0.0) for base, (_, counts) in zip(bases, samples, strict=True)]
        if any(top > base for top, base in zip(tops, bases, strict=True)):
            edge = _steps(samples, tops, across, up)
            floor = _steps(samples, bases, across, up)
            path = " ".join(f"{number(x)},{number(y)}" for x, y in [*edge, *reversed(floor)])
            peak = max(counts.get(each.name, 0.0) for _, counts in samples)
            tip = el("title", f"{each.name}: at most {told(peak)} at once")
            parts.append(el("polygon", tip, points=path, class_=f"c-{each.colour}"))
        bases = tops
    return picture(label, WIDTH, height, parts)


def _steps(
    samples: Sequence[tuple[float, Mapping[str, float]]], values: Sequence[float], across: Scale, up: Scale
) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for (at, _), value in zip(samples, values, strict=True):
        x, y = across(at), up(value)
        if points and points[-1][1] != y:
            points.append((x, points[-1][1]))
        points.append((x, y))
    if len(samples) == 1:
        points.append((WIDTH - _RIGHT, points[-1][1]))
    return points


def bars(
    label: str,
    rows: Sequence[tuple[str, str, Sequence[tuple[Series, float]]]],
    *,
    most: float = 0.0,
    width: float = 540.0,
) -> Element:
    """Lying bars, one below the other: a name, what is written behind it, and its parts."""
    left, right = 150.0, 108.0
    highest = max([most, *(sum(amount for _, amount in parts) for _, _, parts in rows)], default=0.0)
    scale = Scale(low=0.0, high=highest or 1.0, start=left, end=width - right)
    parts: list[Element] = []
    for at, (name, behind, pieces) in enumerate(rows):
        y, x = at * _BAR + 4, left
        parts.append(el("text", el("title", name), cut(name), x=left - 8, y=y + 12, text_anchor="end", class_="strong"))
        parts.append(el("rect", x=left, y=y + 2, width=width - right - left, height=_BAR - 10, rx=2, class_="track"))
        for series, amount in pieces:
            wide = scale(amount) - left
            if amount > 0:
                tip = el("title", f"{name}: {series.name} {behind}" if len(pieces) == 1 else f"{name}: {series.name}")
                shape = {"x": x, "y": y + 2, "width": max(wide, 1.0), "height": _BAR - 10}
                parts.append(el("rect", tip, rx=2, class_=f"c-{series.colour}", **shape))
                x += wide
        parts.append(el("text", behind, x=width - right + 8, y=y + 12))
    return picture(label, width, max(len(rows) * _BAR + 6, 10.0), parts)


def cut(text: str, most: int = _LABEL_MAX) -> str:
    """Text that fits beside a picture."""
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One stretch in a lane. ``bad``: it, or some of it, did not succeed."""

    start: float
    end: float
    tip: str
    bad: bool
    live: bool


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One slot: its name stands where the first of its kind begins."""

    name: str
    colour: str
    bars: Sequence[Bar]


@dataclass(frozen=True, kw_only=True)
class Shade:
    """A time that explains why there are no bars."""

    start: float
    end: float
    tip: str


def lanes(label: str, rows: Sequence[Lane], shades: Sequence[Shade], start: float, end: float) -> Element:
    """Who was at work when, a lane a slot."""
    height = _TOP + len(rows) * (_LANE + _GAP) + _BOTTOM
    across = _across(start, end, 84.0)
    parts: list[Element] = [*_moments(start, end, across, height, lines=True)]
    for at, lane in enumerate(rows):
        y = _TOP + at * (_LANE + _GAP)
        parts.append(
            el("text", el("title", lane.name), cut(lane.name, 12), x=76, y=y + 13, text_anchor="end", class_="strong")
        )
        parts.append(el("rect", x=84, y=y, width=WIDTH - _RIGHT - 84, height=_LANE, rx=2, class_="lane"))
    for shade in shades:
        x, wide = across(shade.start), across(shade.end) - across(shade.start)
        box = {"x": x, "y": _TOP, "width": max(wide, 1.0), "height": height - _TOP - _BOTTOM}
        parts.append(el("rect", el("title", shade.tip), class_="band", **box))
    for at, lane in enumerate(rows):
        for bar in lane.bars:
            parts += _drawn(bar, lane, across, _TOP + at * (_LANE + _GAP))
    return picture(label, WIDTH, height, parts)


def _drawn(bar: Bar, lane: Lane, across: Scale, y: float) -> Iterable[Element]:
    x = across(bar.start)
    wide = max(across(bar.end) - x, 1.0)
    kind = f"c-{lane.colour} {'live' if bar.live else 'run'}"
    yield el("rect", el("title", bar.tip), x=x, y=y + 1, width=wide, height=_LANE - 2, class_=kind)
    if bar.bad:  # not by colour alone: a mark below the bar
        yield el("rect", x=x, y=y + _LANE - 5, width=max(wide, 2.0), height=4, class_="badmark")
