"""How do the numbers become a page that people like to look at? One section a question, pictures before tables."""

from __future__ import annotations

from xml.etree.ElementTree import Element

from coordination.report.charts import instant
from coordination.report.markup import document, el
from coordination.report.progress import throughput, timeline, waiting
from coordination.report.results import endings, landed, reviews
from coordination.report.spending import money
from coordination.report.style import SHEET
from coordination.report.wording import Row, lasting, left_out, usd, who


def page(found: Row, *, name: str, made_at: float, version: str) -> str:
    """The whole page about the repository ``name``, from what ``figures.gather`` found."""
    sections = (
        ("needs", "Needs a person", _needs),
        ("timeline", "Who was at work", timeline),
        ("throughput", "What came and what ended", throughput),
        ("waiting", "What it waited for", waiting),
        ("money", "What it cost", money),
        ("endings", "What went wrong, and what was done about it", endings),
        ("reviews", "Reviews", reviews),
        ("landed", "What landed, and on what evidence", landed),
    )
    window = found["window"]
    batches = f"batches {window['first_seq']} to {window['seq']}" if window["first_seq"] else "no batch of the log"
    stretch = f"{instant(window['start'])} to {instant(window['end'])}"
    head = el(
        "header",
        el("h1", f"{name}: what the agents did"),
        el("p", f"{stretch}, {batches}. Times are UTC.", class_="soft"),
        el("nav", [el("a", title, href=f"#{anchor}") for anchor, title, _ in sections]),
    )
    body = [el("section", el("h2", title), fill(found), id=anchor) for anchor, title, fill in sections]
    made = (
        f"Made {instant(made_at)} by coord {version} from the log alone; caps and slots are those of the settings then."
    )
    foot = el("footer", el("p", made, " Sums are US dollars at list price; days are days of UTC.", class_="soft"))
    return document(f"{name}: report", SHEET, [head, el("main", _glance(found), _notes(found), body), foot])


def _glance(found: Row) -> Element:
    counts, totals, money = found["status"]["counts"], found["totals"], found["status"]["money"]
    asking = counts.get("waiting_for_person", 0) + counts.get("waiting_for_answer", 0)
    at_work = sum(counts.get(name, 0) for name in ("running", "reviewing", "approved"))
    waiting = sum(counts.get(name, 0) for name in ("queued", "held"))
    badly = sum(totals["ended"].get(name, 0) for name in ("failed", "dependency_failed"))
    cap = money["caps"]["total_usd"]
    spent = f"spent in this time; {usd(money['spent_usd'])} in all" + (f" of {usd(cap)}" if cap is not None else "")
    median = totals["median_seconds"]
    tiles = [
        (str(totals["ended"].get("merged", 0)), "landed", ""),
        (str(totals["ended"].get("done", 0)), "answered with a report", ""),
        (str(badly), "failed", ""),
        (str(asking), "need a person now", "asks" if asking else ""),
        (str(at_work), "under way now", ""),
        (str(waiting), "wait in the queue now", ""),
        (usd(totals["spent_usd"], estimated=totals["estimated"]), spent, ""),
        ("none" if median is None else lasting(median), "from submission to its end, median", ""),
    ]
    return el(
        "div",
        [el("div", el("b", big), el("span", small), class_=f"tile {kind}") for big, small, kind in tiles],
        class_="tiles",
    )


def _notes(found: Row) -> list[Element]:
    status, window = found["status"], found["window"]
    notes = ["Everything is paused: nothing new starts until somebody resumes."] if status["paused"] else []
    for limit in status["limits"]:
        end = "until a person puts it right" if limit["needs_person"] else f"until {limit['until']}"
        notes.append(f"{limit['account']}: {limit['kind']} ({limit['said']}), {end}.")
    notes += status["warnings"]
    if window["taken_away"]:
        notes.append(
            f"The log up to batch {window['taken_away']} was taken away; what only it said is not shown: "
            "when tasks came and ended, what was paid when, reviews and endings of that time."
        )
    return [el("p", note, class_="note") for note in notes]


def _needs(found: Row) -> list[Element | None]:
    asking = found["needs_person"]
    if not asking["rows"]:
        return [el("p", "Nothing does.", class_="soft")]
    items = [
        el(
            "li",
            *who(task),
            el("div", task["reason"], class_="says"),
            el("div", [el("code", choice) for choice in task["choices"]], class_="choices"),
        )
        for task in asking["rows"]
    ]
    return [el("ul", items, class_="plain"), left_out(asking["more"], "tasks: coord tasks --state waiting_for_person")]
