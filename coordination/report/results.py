"""How did runs end that did not succeed, what did reviews say, and what landed on what evidence?"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from coordination.report.charts import Series, bars, instant
from coordination.report.markup import el
from coordination.report.wording import Row, figure, lasting, left_out, many, table, usd, who


def endings(found: Row) -> list[Element | None]:
    """Kinds of endings, what each means, and what followed."""
    shown = found["endings"]
    if not shown["kinds"]:
        return [el("p", "Every run that ended in this time succeeded.", class_="soft")]
    rows = [
        (
            each["kind"],
            many(each["runs"], "run"),
            [(Series(name="", colour="slate" if each["kind"] == "stopped" else "bad"), each["runs"])],
        )
        for each in shown["kinds"]
    ]
    cells = [
        [
            each["kind"],
            each["says"],
            "; ".join(f"{done} ({times:,})" for done, times in each["remedies"].items()),
            usd(each["usd"]),
        ]
        for each in shown["kinds"]
    ]
    caption = f"{many(shown['runs'], 'run')} did not succeed; they cost {usd(shown['usd'])}."
    heads = ("kind", "what it means", "what followed, how often", "cost")
    return [figure(caption, bars(caption, rows, width=1120.0)), table(heads, cells, (3,))]


_VERDICTS = {"approve": ("approved", "green"), "reject": ("rejected", "bad"), "none": ("no verdict", "pale")}
_SEVERITIES = {"blocker": "bad", "major": "amber", "minor": "slate"}


def reviews(found: Row) -> list[Element | None]:
    """Verdicts, findings, rounds, and what was rejected."""
    shown = found["reviews"]
    spared = f"{many(shown['without'], 'task')} landed without one." if shown["without"] else ""
    if not shown["runs"]:
        return [el("p", f"No review in this time. {spared}", class_="soft")]
    verdicts = [
        (name, many(shown["verdicts"][key], "review"), [(Series(name=name, colour=colour), shown["verdicts"][key])])
        for key, (name, colour) in _VERDICTS.items()
        if key in shown["verdicts"]
    ]
    known = [*_SEVERITIES, *sorted(set(shown["findings"]) - set(_SEVERITIES))]
    findings = [
        (
            name,
            many(shown["findings"][name], "finding"),
            [(Series(name=name, colour=_SEVERITIES.get(name, "slate")), shown["findings"][name])],
        )
        for name in known
        if name in shown["findings"]
    ]
    rounds = [
        (
            _rounds(int(number)),
            many(tasks, "task"),
            [(Series(name=_rounds(int(number)), colour="red" if int(number) else "green"), tasks)],
        )
        for number, tasks in shown["rounds"].items()
    ]
    pictures = [
        figure("Verdicts", bars("Verdicts of reviews", verdicts), wide=False),
        figure("Reviewed tasks that ended well, by rejections before", bars("Rounds", rounds), wide=False)
        if rounds
        else None,
        figure("Findings, by severity", bars("Findings by severity", findings), wide=False) if findings else None,
    ]
    rejected = shown["rejected"]
    return [
        el("p", f"{many(shown['runs'], 'review')}. {spared}"),
        el("div", pictures, class_="two"),
        el("h3", "Rejections, the newest first") if rejected["rows"] else None,
        el("ul", [_rejection(each) for each in rejected["rows"]], class_="plain") if rejected["rows"] else None,
        left_out(rejected["more"], "rejections"),
    ]


def _rounds(number: int) -> str:
    return "at once" if not number else f"after {many(number, 'rejection')}"


def _rejection(each: Row) -> Element:
    findings = [
        el("li", el("b", f"{found['severity']} "), _place(found), found["message"])
        for found in each["findings"]["rows"]
    ]
    return el(
        "li",
        *who(each),
        el("div", f"{each['run']} ({each['model']}), {instant(each['at'])}", class_="soft"),
        el("div", each["says"], class_="says") if each["says"] else None,
        el("ul", findings) if findings else None,
        left_out(each["findings"]["more"], "findings"),
    )


def _place(found: Row) -> Element | str:
    if not found["file"]:
        return ""
    return el("code", f"{found['file']}:{found['line']} " if found["line"] else f"{found['file']} ")


def landed(found: Row) -> list[Element | None]:
    """What ended well, the newest first, with what it rests on."""
    merged, done = found["landed"]["merged"], found["landed"]["done"]
    parts: list[Element | None] = []
    if merged["rows"]:
        heads = ("landed", "task", "commit, merge", "gates", "review", "change", "took", "cost")
        rows = [_merged(task) for task in merged["rows"]]
        parts += [table(heads, rows, (6, 7)), left_out(merged["more"], "that landed: coord tasks --state merged")]
    if done["rows"]:
        columns = ("ended", "task", "read at", "files cited", "took", "cost")
        parts += [el("h3", "Answered with a report"), table(columns, [_done(task) for task in done["rows"]], (3, 4, 5))]
        parts.append(left_out(done["more"], "with a report: coord tasks --state done"))
    return parts or [el("p", "Nothing landed in this time.", class_="soft")]


def _merged(task: Row) -> list[Any]:
    commits = el("span", _sha(task["commit"]), el("br"), _sha(task["merge"]))
    gates = ", ".join(map(_gate, task["gates"]))
    none = "no gates for it" if task["gates_configured"] else "no gates are set"
    change = f"{many(task['files'], 'file')} +{task['insertions']} -{task['deletions']}"
    return [
        el("span", instant(task["at"], "%Y-%m-%d %H:%M"), class_="whole"),
        el("span", who(task)),
        commits,
        gates or none,
        _reviewer(task),
        change,
        lasting(task["seconds"]),
        usd(task["usd"], estimated=task["estimated"]),
    ]


def _gate(gate: Row) -> str:
    said = "passed" if gate["passed"] else "FAILED"
    again = " when run again" if gate["flaky"] else ""
    before = f" before, in {gate['cached']}" if gate["cached"] else ""
    return f"{gate['gate']} {said}{again}{before}"


def _reviewer(task: Row) -> str:
    rejected = f", after {many(task['rejections'], 'rejection')}" if task["rejections"] else ""
    if task["reviewer"] == "person":
        name = f" ({task['person']})" if task["person"] else ""
        return f"a person{name}{rejected}: {task['reason']}"
    if not task["reviewer"]:
        return f"none: {task['reason']}{rejected}"
    model = f" ({task['reviewed_with']})" if task["reviewed_with"] else ""
    return f"{task['reviewer']}{model}{rejected}"


def _done(task: Row) -> list[Any]:
    return [
        el("span", instant(task["at"], "%Y-%m-%d %H:%M"), class_="whole"),
        el("span", who(task)),
        _sha(task["commit"]),
        str(task["cited"]),
        lasting(task["seconds"]),
        usd(task["usd"], estimated=task["estimated"]),
    ]


def _sha(commit: str) -> Element:
    return el("code", commit[:12], class_="whole")
