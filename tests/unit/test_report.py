"""The report: one page that nobody's text can change, bounded, with the numbers that status shows."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from coordination import report, views
from coordination.model import commands
from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.runs import DiffStat, Ending, Finding, GateResult, Landed, Outcome, Purpose, Usage
from coordination.model.state import Core, State
from coordination.model.tasks import Kind, ReviewMode, Status, TaskSpec
from coordination.model.waiting import holders, overlap
from coordination.policy import shipped
from coordination.report import figures, reasons
from coordination.report.charts import rounded_up
from coordination.report.markup import el
from coordination.settings import Gates, MoneySettings, Settings
from coordination.testing import histories, strategies
from coordination.testing.strategies import EPOCH, GATES, History, World, facts

SECTIONS = ("needs", "timeline", "throughput", "waiting", "money", "endings", "reviews", "landed")
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "nav", "a", "main", "section", "footer", "h1", "h2"),
    *("h3", "p", "div", "span", "b", "br", "ul", "li", "code", "figure", "figcaption", "table", "thead", "tbody", "tr"),
    *("th", "td", "svg", "rect", "line", "text", "polyline", "polygon"),
}
VOID = {"meta", "br"}
ATTRIBUTES = {
    *("charset", "http-equiv", "content", "name", "lang", "class", "id", "href", "viewbox", "role", "aria-label"),
    *("aria-hidden", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "points", "text-anchor"),
}
EVIL = (
    "</style><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>",
    "\x1b]0;title\x07\x1b[31m\u202ered\x00",
    "\" onmouseover='alert(1)' x=\"&lt;&#60;]]>--><!--",
    "half \ud800 a pair \r\n javascript:alert(1)",
)


# ---- a page, read as a browser would ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """What stands in a page: its tags in their order, its attributes, its text. Fails for what is not well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.said: list[str] = []
        self.style = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.said.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    @property
    def text(self) -> str:
        """All that is shown or told."""
        return "\n".join(self.said)

    def values(self, name: str) -> list[str]:
        """What stands in all attributes of that name."""
        return [value for _, known, value in self.attributes if known == name]


def harmless(page: Page) -> None:
    """The page runs nothing, asks for nothing, and shows nothing that steers."""
    assert set(page.tags) <= TAGS
    assert {name for _, name, _ in page.attributes} <= ATTRIBUTES
    assert all(value.startswith("#") for value in page.values("href"))
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)
    policies = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policies[0].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policies[0]
    assert set(SECTIONS) <= set(page.values("id"))


# ---- what is reported on ---------------------------------------------------------------------------------------------


def folded(
    records: Iterable[e.Record], known: Facts, *, since_seq: int = 0, since_time: float | None = None
) -> tuple[report.Chronicle, State]:
    listed = list(records)
    last_at = listed[-1].at if listed else 0.0
    chronicle = report.Chronicle(facts=known, last_at=last_at, since_seq=since_seq, since_time=since_time)
    state = chronicle.initial()
    for record in listed:
        state = chronicle.fold(state, record)
    return chronicle, state


def gathered(records: Sequence[e.Record], known: Facts, **since: Any) -> tuple[dict[str, Any], State]:
    chronicle, state = folded(records, known, **since)
    seq = records[-1].seq if records else 0
    return report.gather(chronicle, state, known, shipped(), seq=seq), state


def shown(found: dict[str, Any]) -> Page:
    return Page(report.page(found, name="shop", made_at=EPOCH, version="0"))


def records_of(world: World) -> list[e.Record]:
    return [record for batch in world.batches for record in batch.records]


def spent(usd: float, **fields: Any) -> dict[str, Any]:
    return {"usage": Usage(cost_usd=usd, turns=1), "model": "claude-x", **fields}


def busy(text: str = "plain", **settings_: Any) -> World:
    """A world in which everything that the page shows has happened; ``text`` stands wherever others write."""
    known = facts(Settings(gates=Gates(default=("unit",), named=GATES), **settings_))
    made = World(facts=known)
    made.submit("A", TaskSpec(prompt=text, title=text, review=ReviewMode.ALWAYS, paths=("src",)))
    made.submit("B", TaskSpec(prompt=text, title=text, kind=Kind.SEARCH))
    made.submit("C", TaskSpec(prompt=text, title=text, paths=("src/x",)))
    made.submit("D", TaskSpec(prompt=text, title=text, after=("C",)))
    made.decide()
    work = Outcome(ending=Ending.SUCCEEDED, base="b1", commit="c1", diff=DiffStat(files=1, insertions=99), **spent(0.5))
    gate = Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="unit", commit="c1", exit_code=0, output=text),))
    findings = tuple(Finding(message=text, file=text, line=3, severity=text) for _ in range(9))
    said = Outcome(ending=Ending.SUCCEEDED, verdict="reject", report=text, findings=findings, **spent(0.25))
    for outcome in (work, gate, said, work, gate, replace(said, verdict="approve", findings=(), model=text)):
        made.wait(60.0)
        made.end("A", outcome)
    made.end("B", Outcome(ending=Ending.SUCCEEDED, base="b1", report=text, cited=("src/a.py",), **spent(0.1)))
    landed = Outcome(ending=Ending.SUCCEEDED, commit="m1", gates=(GateResult(gate=text, commit="m1", exit_code=0),))
    made.end("A", landed)
    made.wait(60.0)
    made.end("C", Outcome(ending=Ending.FAILED, code="no_change", reason=text, **spent(0.2)))
    made.wait(60.0)
    made.end("C", Outcome(ending=Ending.FAILED, code="refusal", reason=text, **spent(0.2)))
    made.submit("E", TaskSpec(prompt=text, title=text))
    made.decide()
    made.end("E", Outcome(ending=Ending.LIMITED, code="usage_limit_reached", reason=text, **spent(0.1)))
    made.ask(lambda state: commands.pause(state, None))
    made.wait(60.0)
    return made


# ---- the page --------------------------------------------------------------------------------------------------------


def test_everything_that_happened_is_on_the_page() -> None:
    """Every section is filled, with what people look for."""
    made = busy(money=MoneySettings(total_usd=50.0, day_usd=20.0))
    found, state = gathered(records_of(made), made.facts)
    page = shown(found)
    harmless(page)
    assert state.tasks["C"].status is Status.WAITING_FOR_PERSON
    for said in (
        *("coord retry C", "green 1", "blue 1", "red 1", "gate 1", "landing 1", "Everything is paused"),
        *("cap of 20.00 USD a day", "of at most 50.00 USD", "refusal", "a person decides", "after 1 rejection"),
        *("tried again in a new session", "A.6.review", "m1", "usage limit of claude", "… and 3 more findings"),
    ):
        assert said in page.text, said


@pytest.mark.parametrize("text", EVIL, ids=range(len(EVIL)))
def test_nothing_that_others_wrote_changes_the_page(text: str) -> None:
    """The same history with hostile text has the same tags in the same order, and the text stands in it."""
    made, tame = busy(text), busy("plain")
    page, other = (shown(gathered(records_of(world), world.facts)[0]) for world in (made, tame))
    harmless(page)
    assert page.tags == other.tags
    assert (
        report.page(gathered(records_of(made), made.facts)[0], name=text, made_at=EPOCH, version="0").count("<style")
        == 1
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=st.lists(st.sampled_from([*"<>&\"'/=` ;-!x", "script", "style", "\x1b[", "\n", "\u202e", "\x9d"])).map("".join)
)
def test_no_text_changes_the_page(text: str) -> None:
    """Whatever signs markup is made of."""
    made = busy(f"a{text}")
    page = shown(gathered(records_of(made), made.facts)[0])
    harmless(page)
    assert page.tags == shown(gathered(records_of(tame := busy("a")), tame.facts)[0]).tags


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories())
def test_the_numbers_are_those_of_status(history: History) -> None:
    """Of any legal history: counts, money and landings as status has them; and what is noted adds up to them."""
    found, state = gathered(history.records, history.facts)
    status = views.status(state, history.facts, shipped(), seq=len(history.batches), supervisor={})
    for key in ("counts", "cost_usd", "money", "merged", "paused", "limits", "warnings"):
        assert found["status"][key] == status[key]
    assert Core().dump(state) == Core().dump(history.state)
    by_role = {name: pytest.approx(usd) for name, usd in state.money.by_role.items()}
    assert {row["name"].replace("none", ""): row["usd"] for row in found["money"]["by_role"]} == by_role
    assert found["totals"]["spent_usd"] == pytest.approx(state.money.spent_usd)
    assert found["totals"]["submitted"] == len(state.tasks)
    assert found["landed"]["merged"]["tasks"] == found["totals"]["ended"].get("merged", 0) == status["merged"]
    asking = found["needs_person"]
    assert [row["task"] for row in asking["rows"]] == [row["task"] for row in status["needs_person"]][
        : len(asking["rows"])
    ]
    assert found["timeline"]["runs"] == sum(len(task.runs) for task in state.tasks.values())
    assert sum(each["tasks"] for each in found["waiting"]["now"]) == len(state.open)
    bins = found["throughput"]["bins"]
    assert sum(sum(each["ended"].values()) for each in bins) == sum(found["totals"]["ended"].values())
    json.dumps(found, allow_nan=False)
    page = shown(found)
    harmless(page)
    assert str(status["merged"]) in page.text


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories(), st.floats(0, 1))
def test_two_stretches_make_the_whole(history: History, share: float) -> None:
    """What came up to a batch and what came since it are together what came: --since leaves nothing out."""
    seq = int(share * len(history.batches))
    whole, _ = folded(history.records, history.facts)
    before, _ = folded([record for record in history.records if record.seq <= seq], history.facts)
    after, _ = folded(history.records, history.facts, since_seq=seq)
    for name in ("submitted", "ended", "payments", "reviews", "misfortunes"):
        assert len(getattr(before, name)) + len(getattr(after, name)) == len(getattr(whole, name)), name
    assert before.arrived.keys() | after.arrived.keys() == whole.arrived.keys()


def test_a_stretch_begins_when_it_was_asked_to() -> None:
    """By time, what came before is not in it, and a task that came before and landed in it is."""
    made = busy()
    records = records_of(made)
    landed = next(record for record in records if isinstance(record.event, e.TaskMerged))
    found, _ = gathered(records, made.facts, since_time=landed.at)
    assert found["window"]["start"] == landed.at
    assert found["totals"]["submitted"] == 1
    assert found["landed"]["merged"]["tasks"] == 1
    assert found["reviews"]["verdicts"] == {"approve": 1}
    assert sum(row["usd"] for row in found["money"]["by_role"]) < found["status"]["cost_usd"]


@pytest.mark.parametrize("since", [{}, {"since_time": EPOCH - 9e9}, {"since_time": EPOCH + 5.0}, {"since_seq": 1}])
def test_nothing_is_a_report_too(since: dict[str, Any]) -> None:
    """Of an empty log, and of a stretch in which nothing happened."""
    for records in ([], [e.Record(seq=1, index=0, at=EPOCH, event=e.SupervisorStarted(supervisor="s", pid=1))]):
        known = facts(Settings(), now=EPOCH + 60.0)
        found, _ = gathered(records, known, **since)
        page = shown(found)
        harmless(page)
        assert "Nothing landed in this time." in page.text
        assert found["window"]["start"] <= found["window"]["end"]
        assert found["window"]["end"] >= EPOCH


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories(), st.lists(st.sampled_from([-400 * 86_400.0, -3600.0, 0.0, 0.0, 3600.0, 9e9]), min_size=1))
def test_a_clock_that_jumps_spoils_no_page(history: History, jumps: list[float]) -> None:
    """Forward by centuries, back before the epoch: there is a page, and no bar ends before it begins."""
    offsets = itertools.cycle(jumps)
    by_batch = {batch.records[0].seq: next(offsets) for batch in history.batches}
    records = [
        e.Record(seq=record.seq, index=record.index, at=record.at + by_batch[record.seq], event=record.event)
        for record in history.records
    ]
    found, _ = gathered(records, history.facts)
    bars = [bar for lane in found["timeline"]["lanes"] for bar in lane["bars"]]
    assert all(bar["start"] <= bar["end"] for bar in bars)
    harmless(shown(found))


def test_what_a_damaged_log_left_aside_is_not_counted() -> None:
    """A loss pauses everything and is told; an end that fits nothing any more costs nothing."""
    made = busy()
    made.transact([e.BatchLost(tasks=("Z",), evidence="lost/7", reason="a bit")])
    stray = Outcome(ending=Ending.SUCCEEDED, **spent(99.0))
    made.transact([e.RunEnded(task="A", run="A.77.work", outcome=stray), e.TaskMerged(task="Z", commit="c", merge="m")])
    made.transact([e.RunEnded(task="C", run="C.1.work", outcome=stray)])  # it has ended before, and cost less
    found, state = gathered(records_of(made), made.facts)
    assert found["totals"]["spent_usd"] == pytest.approx(state.money.spent_usd)
    assert found["totals"]["spent_usd"] < 99.0
    assert found["landed"]["merged"]["tasks"] == 1
    assert "lost/7" in shown(found).text


def test_ten_thousand_tasks_are_a_page_that_opens() -> None:
    """A bounded one, which says what it left out; and its totals are those of all tasks."""
    records = [
        e.Record(seq=seq, index=index, at=at, event=event)
        for seq, (at, batch) in enumerate(histories.batches(60_000, 10_000), 1)
        for index, event in enumerate(batch)
    ]
    found, state = gathered(records, facts(Settings(), now=records[-1].at))
    text = report.page(found, name="shop", made_at=EPOCH, version="0")
    assert len(state.tasks) == 10_000
    assert len(text.encode()) < 5_000_000
    assert sum(len(lane["bars"]) for lane in found["timeline"]["lanes"]) <= 3_000
    landed = found["landed"]["merged"]
    assert (landed["tasks"], landed["more"]) == (state.merged, state.merged - figures.LANDED_MAX)
    page = Page(text)
    harmless(page)
    assert f"… and {landed['more']:,} more that landed" in page.text
    assert "are drawn together with their neighbours" in page.text


def test_times_in_which_nothing_started_begin_and_end() -> None:
    """A limit lasts until a run gets through, a pause until somebody resumes, however much happens meanwhile."""
    made = World(facts=facts(Settings()))
    made.ask(lambda state: commands.pause(state, None, "for the night"))
    for number in range(12):
        made.submit(f"s{number}", TaskSpec(prompt="p", title="It", kind=Kind.SEARCH))
    made.wait(60.0)
    made.ask(lambda state: commands.resume(state, None))
    made.decide()
    made.end("s0", Outcome(ending=Ending.LIMITED, code="overloaded_error", reason="too much"))
    made.end("s1", Outcome(ending=Ending.SUCCEEDED, report="There."))  # it was served before
    made.wait(600.0)
    (probe,) = made.state.live_runs()
    made.end(probe.task, Outcome(ending=Ending.SUCCEEDED, report="There."))
    made.ask(lambda state: commands.pause(state, None))
    found, _ = gathered(records_of(made), made.facts)
    bands = [
        (band["kind"], band["said"], band["start"] - EPOCH, band["end"]) for band in found["timeline"]["bands"]["rows"]
    ]
    assert bands == [
        ("paused", "for the night", 0.0, EPOCH + 60.0),
        ("overloaded of claude", "too much", 60.0, EPOCH + 660.0),
        ("paused", "by a person", 660.0, None),
    ]
    chronicle, later = folded(records_of(made), made.facts, since_time=EPOCH + 30.0)
    assert later.paused
    assert (chronicle.bands[0].kind, chronicle.bands[0].start) == ("paused", EPOCH + 30.0)


def test_who_landed_with_another_has_the_gates_of_that_landing() -> None:
    """It had no landing of its own; while it lands with another it is under way, and waits for nothing."""
    made = World(facts=facts(Settings(gates=Gates(default=("unit",), named=GATES))))
    for name in "ABC":
        made.submit(name, TaskSpec(prompt="p", title=f"Title {name}", review=ReviewMode.NEVER, gates=()))
    made.decide()
    for name in "ABC":
        diff = DiffStat(files=1, insertions=1)
        made.end(name, Outcome(ending=Ending.SUCCEEDED, base="b1", commit=f"c{name}", diff=diff))
        for run in made.state.tasks[name].live:
            if run.purpose is Purpose.GATE:
                passed = GateResult(gate=run.gate, commit=run.commit, exit_code=0)
                made.end(name, Outcome(ending=Ending.SUCCEEDED, gates=(passed,)))
    made.wait(600.0)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, commit="mA"))
    (landing,) = made.state.live_runs()
    (member,) = landing.batch
    assert (landing.task, member.task) == ("B", "C")
    assert reasons.grouped(made.state, made.facts, made.facts.now).keys() == {reasons.UNDER_WAY}
    gates = (GateResult(gate="together", commit="mC", exit_code=0, flaky=True),)
    made.wait(600.0)
    told = Landed(task="C", kind="merged", merge="mC", gates=gates)
    made.end("B", Outcome(ending=Ending.SUCCEEDED, commit="mC", batch=(told,), gates=gates))
    found, state = gathered(records_of(made), made.facts)
    assert state.tasks["C"].status is Status.MERGED
    rows = {row["task"]: row for row in found["landed"]["merged"]["rows"]}
    assert [(gate["gate"], gate["flaky"]) for gate in rows["C"]["gates"]] == [("together", True)]
    assert "together passed when run again" in shown(found).text
    assert f"{landing.id} (and 1 other task): done" in shown(found).text


# ---- its parts -------------------------------------------------------------------------------------------------------


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories())
def test_a_lane_is_a_slot(history: History) -> None:
    """No two runs of a lane overlap, and a role has as many lanes as it had runs at once."""
    chronicle, state = folded(history.records, history.facts)
    del chronicle
    end = max(history.facts.now, *(record.at for record in history.records))
    spans = [span for task in state.tasks.values() for run in task.runs if (span := figures._span(run, 0.0, end))]
    lanes = figures._lanes(spans)
    assert sorted(span[2].id for _, lane in lanes for span in lane) == sorted(span[2].id for span in spans)
    for _, lane in lanes:
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(lane))
    for role, number in Counter(role for role, _ in lanes).items():
        mine = [span for span in spans if (span[2].role or str(span[2].purpose)) == role]
        at_once = max(sum(1 for other in mine if other[0] <= span[0] < other[1]) for span in mine)
        assert number <= max(at_once, 1) or any(span[0] == span[1] for span in mine)


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(strategies.histories(turns_max=25), st.floats(0, 1))
def test_a_reason_is_the_first_that_status_shows(history: History, share: float) -> None:
    """A task that lacks only a slot says so here and there, and one that waits for a person stands under that."""
    upto = history.batches[: 1 + int(share * (len(history.batches) - 1))]
    _, state = folded([record for batch in upto for record in batch.records], upto[-1].facts)
    known = upto[-1].facts
    for reason, tasks in reasons.grouped(state, known, known.now).items():
        for task in tasks:
            says = views.waiting(state, known, shipped(), task)
            assert (reason == reasons.UNDER_WAY) == bool(task.live or task.lands_with)
            assert (reason == reasons.PERSON) == (task.status is Status.WAITING_FOR_PERSON and not task.live)
            if task.status is Status.QUEUED and not task.live:
                assert (says == ["waits for a free slot"]) == (reason == reasons.SLOT), (reason, says)


PATHS = st.text("ab/*.?", min_size=1, max_size=6)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from("XYZ"), PATHS), max_size=4), PATHS)
def test_held_paths_are_those_that_overlap(held: list[tuple[str, str]], wanted: str) -> None:
    """Asking an index of prefixes gives what comparing each with each gives; what a task holds itself stops it not."""
    made = World(facts=facts(Settings()))
    for name in "XYZ":
        paths = tuple(path for holder, path in held if holder == name)
        made.submit(name, TaskSpec(prompt="p", title="t", paths=paths))
    made.submit("W", TaskSpec(prompt="p", title="t", paths=(wanted,)))
    tasks = made.state.tasks
    for task in (tasks["W"], tasks["X"]):
        others = [other for other in tasks.values() if other.id in "XYZ" and other.id != task.id]
        expected = any(overlap(task.spec.paths, other.spec.paths) for other in others)
        assert reasons.Held([tasks[name] for name in "XYZ"]).stops(task) == expected
    assert holders(made.state) == {}


def test_text_and_numbers_are_written_so_that_they_mean_themselves() -> None:
    """Children are escaped, attributes quoted, control characters gone, numbers short."""
    from xml.etree.ElementTree import tostring

    made = el("p", "<b>", el("b", "x"), " & y", None, ["1", "2"], title='"<\x1b[1m', x=1.0, width=2.50001, class_=None)
    written = tostring(made, encoding="unicode", method="html")
    assert written == '<p title="&quot;<" x="1" width="2.5">&lt;b&gt;<b>x</b> &amp; y12</p>'


@pytest.mark.parametrize(
    ("most", "step", "top"), [(0, 1, 1), (1, 0.5, 1), (7, 2, 8), (60, 20, 60), (0.03, 0.01, 0.03), (1e9, 5e8, 1e9)]
)
def test_an_axis_has_round_numbers(most: float, step: float, top: float) -> None:
    """1, 2 or 5 times a power of ten, at most a few of them."""
    assert rounded_up(most) == pytest.approx((step, top))


def test_the_parts_of_where_time_went_are_the_runs_and_the_rest() -> None:
    """Work, gates, review and landing of what ended well; waiting is what is left."""
    made = busy()
    found, state = gathered(records_of(made), made.facts)
    seconds = found["landed"]["seconds"]
    tasks = [state.tasks[name] for name in ("A", "B")]
    assert set(seconds) <= {*(str(purpose) for purpose in Purpose), "waiting"}
    assert sum(seconds.values()) == pytest.approx(sum(task.changed_at - task.submitted_at for task in tasks))
