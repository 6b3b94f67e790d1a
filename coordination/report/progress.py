"""Who was at work when, what came and what ended, and what did the rest wait for?"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from coordination.report.charts import Bar, Lane, Series, Shade, bars, instant, lanes, stacked_areas, stacked_bars
from coordination.report.markup import el
from coordination.report.reasons import REASONS
from coordination.report.wording import Row, coloured, count, figure, lasting, left_out, many, usd, who

_DAY = 86_400.0
_ENDS = {
    "merged": "green",
    "done": "blue",
    "failed": "bad",
    "dependency_failed": "pink",
    "cancelled": "slate",
}
_REASONS = dict(
    zip(
        REASONS,
        ("green", "pale", "violet", "slate", "brown", "teal", "amber", "pink", "bad", "blue", "red"),
        strict=True,
    )
)
_PARTS = {"work": "green", "gate": "amber", "review": "red", "landing": "violet", "waiting": "pale"}


def timeline(found: Row) -> list[Element | None]:
    """Runs in lanes, with the times in which nothing could start."""
    shown, window = found["timeline"], found["window"]
    if not shown["lanes"]:
        return [el("p", "No run in this time.", class_="soft")]
    colours = coloured(lane["role"] for lane in shown["lanes"])
    rows = _named_lanes(shown["lanes"], colours)
    shades = [
        Shade(start=band["start"], end=band["end"] or window["end"], tip=_shade(band))
        for band in shown["bands"]["rows"]
    ]
    roles = dict.fromkeys(lane["role"] for lane in shown["lanes"])
    series = [Series(name=_slots(role, shown["slots"]), colour=colours[role]) for role in roles]
    series.append(Series(name="did not succeed", colour="ink"))
    if shades:
        series.append(Series(name="paused, or a limit of the service", colour="warn"))
    caption = f"{many(shown['runs'], 'run')}, a lane a slot; point at a bar to see which. A mark below it: it failed."
    drawn = lanes(caption, rows, shades, window["start"], window["end"])
    shorter = f"shorter than {lasting(shown['apart_seconds'])}"
    joined = f"{shown['joined']:,} runs {shorter} are drawn together with their neighbours."
    return [
        figure(caption, drawn, series),
        el("p", joined, class_="soft") if shown["joined"] else None,
        left_out(shown["lanes_left_out"], "lanes"),
        left_out(shown["bands"]["more"], "pauses and limits"),
    ]


def _slots(role: str, slots: dict[str, int]) -> str:
    return f"{role} ({many(slots[role], 'slot')})" if role in slots else role


def _named_lanes(lanes: Sequence[Row], colours: dict[str, str]) -> list[Lane]:
    named, numbers = [], dict[str, int]()
    for lane in lanes:
        role = lane["role"]
        numbers[role] = numbers.get(role, 0) + 1
        drawn = [
            Bar(start=bar["start"], end=bar["end"], tip=_tip(bar), bad=bool(bar["bad"]), live=bar["live"])
            for bar in lane["bars"]
        ]
        named.append(Lane(name=f"{role} {numbers[role]}", colour=colours[role], bars=drawn))
    return named


def _tip(bar: Row) -> str:
    took = f"{instant(bar['start'], '%Y-%m-%d %H:%M:%S')}, {lasting(bar['end'] - bar['start'])}"
    if bar["runs"] > 1:
        return f"{bar['runs']} runs, {bar['bad']} of them did not succeed; {took}"
    ending = "under way" if bar["live"] else bar["ending"]
    cost = f", {usd(bar['usd'])}" if bar["usd"] else ""
    along = f" (and {many(bar['batch'], 'other task')})" if bar["batch"] else ""
    return f"{bar['run']}{along}: {ending}; {took}{cost}\n{bar['title']}"


def _shade(band: Row) -> str:
    lasted = "until now" if band["end"] is None else f"for {lasting(band['end'] - band['start'])}"
    return f"{band['kind']} ({band['said']}) from {instant(band['start'])} {lasted}"


def throughput(found: Row) -> list[Element | None]:
    """What came and what ended, and where the time of what ended well went."""
    shown, totals = found["throughput"], found["totals"]
    if not totals["submitted"] and not totals["ended"]:
        return [el("p", "Nothing came and nothing ended in this time.", class_="soft")]
    ends = [*(name for name in _ENDS if name in totals["ended"]), *sorted(set(totals["ended"]) - set(_ENDS))]
    series = [Series(name=name, colour=_ENDS.get(name, "brown")) for name in ends]
    width = shown["width_seconds"]
    days = "" if len(shown["bins"]) * width <= 2 * _DAY else "%d %b"
    form = f"{days} %H:%M" if width < _DAY else "%d %b"
    heads = [
        (instant(each["start"], form.strip()), f"from {instant(each['start'], '%Y-%m-%d %H:%M')}")
        for each in shown["bins"]
    ]
    line = ("submitted", [each["submitted"] for each in shown["bins"]])
    caption = f"Tasks that ended, each bar {lasting(width)}; the line: tasks that came."
    drawn = stacked_bars(caption, heads, [each["ended"] for each in shown["bins"]], series, told=count, line=line)
    ended = (
        ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in totals["ended"].items()) or "none ended"
    )
    return [
        el("p", f"{totals['submitted']:,} submitted; {ended}. A task that a person has tried again can end twice."),
        figure(caption, drawn, series),
        _where_time_went(found["landed"]["seconds"]),
    ]


def _where_time_went(seconds: dict[str, float]) -> Element | None:
    whole = sum(seconds.values())
    if not whole:
        return None
    parts = [
        (Series(name=f"{name} {seconds[name] / whole:.0%}", colour=_PARTS.get(name, "slate")), seconds[name])
        for name in [*_PARTS, *sorted(set(seconds) - set(_PARTS))]
        if seconds.get(name)
    ]
    caption = "Where the time of the tasks that ended well went, from submission to the end"
    drawn = bars(caption, [("all of them", lasting(whole), parts)], width=1120.0)
    return figure(caption, drawn, [series for series, _ in parts])


def waiting(found: Row) -> list[Element | None]:
    """What stood in the way, over time and now."""
    shown = found["waiting"]
    colours = [Series(name=reason, colour=_REASONS[reason]) for reason in REASONS]
    seen = {reason for sample in shown["samples"] for reason, number in sample["counts"].items() if number}
    series = [each for each in colours if each.name in seen]
    if not series:
        return [el("p", "No task waited for anything.", class_="soft")]
    samples = [(sample["at"], sample["counts"]) for sample in shown["samples"]]
    caption = (
        f"Tasks that had not ended, by the first thing in their way, at {len(samples)} moments; reasons that depend on "
        "settings and roles are those of now."
    )
    over_time = figure(caption, stacked_areas(caption, samples, series, told=count), series)
    if not shown["now"]:
        return [over_time, el("p", "Now nothing waits.", class_="soft")]
    known = {each.name: each for each in colours}
    rows = [
        (each["reason"], many(each["tasks"], "task"), [(known[each["reason"]], each["tasks"])]) for each in shown["now"]
    ]
    items = [el("li", el("b", each["reason"]), [_example(task) for task in each["examples"]]) for each in shown["now"]]
    return [
        over_time,
        el("h3", "Now"),
        el(
            "div",
            figure("Tasks that have not ended", bars("Tasks by reason, now", rows), wide=False),
            el("ul", items, class_="plain soft"),
            class_="two",
        ),
    ]


def _example(task: Row) -> Element:
    return el("div", *who(task), f": {task['says']}" if task["says"] else "")
