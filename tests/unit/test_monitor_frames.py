"""Every frame has exactly its size, says what is so, and first what needs a person."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Finding, Outcome, Usage
from coordination.model.tasks import Kind, ReviewMode
from coordination.model.waiting import in_order
from coordination.monitor import frames
from coordination.monitor.cells import Part, Tone, cells, text_of
from coordination.monitor.papers import Paper
from coordination.monitor.place import Place, Screen, Tab, opened, settled
from coordination.monitor.seen import Live, Seen, live_of
from coordination.settings import MoneySettings, Settings
from coordination.testing import strategies
from coordination.testing.strategies import History, World
from tests.unit.seeing import GONE, HOSTILE, many, seen, seen_of, spec, world

SIZES = [(80, 24), (160, 50), (40, 8), (20, 3), (1, 1), (300, 100)]
WORKED = Outcome(ending=Ending.SUCCEEDED, base="b1", commit="c0ffee", diff=DiffStat(files=1, insertions=100))
REJECTED = Outcome(
    ending=Ending.SUCCEEDED, verdict="reject", report="No.", findings=(Finding(message="off by one", file="a.py"),)
)


def lines(found: Seen, place: Place | None = None, width: int = 80, height: int = 24, **paper: Any) -> list[str]:
    shown = frames.frame(found, settled(found, place or Place()), width, height, Paper(**paper))
    rows = [text_of(line) for line in shown.lines]
    assert len(rows) == height
    assert {cells(row) for row in rows} == {width}
    return rows


def text(found: Seen, place: Place | None = None, width: int = 80, height: int = 24, **paper: Any) -> str:
    return "\n".join(row.rstrip() for row in lines(found, place, width, height, **paper))


def asking() -> World:
    """A was rejected three times and waits for a person; B runs; C and D wait."""
    made = world(A=spec(title="Rename the option"))
    for _ in range(3):
        made.end("A", WORKED)
        made.end("A", REJECTED)
    for name in "BCD":
        made.submit(name, spec(title=f"Title of {name}"))
    made.decide()
    return made


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", list(Screen))
def test_every_screen_has_its_size(screen: Screen, size: tuple[int, int]) -> None:
    """Also where there is hardly room for anything."""
    lines(seen(asking()), Place(screen=screen, task="A"), *size)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.histories(), st.sampled_from(list(Screen)), st.sampled_from(list(Tab)), st.sampled_from(SIZES))
def test_every_history_can_be_shown(history: History, screen: Screen, tab: Tab, size: tuple[int, int]) -> None:
    """Whatever happened, on every screen and every tab of every task, without and with a supervisor."""
    state, known = history.state, history.facts
    for supervisor in ({"running": True, "pid": 1}, GONE):
        found = seen_of(state, known, recent=history.records, supervisor=supervisor)
        for task in list(state.tasks)[:3] or ["none"]:
            lines(found, Place(screen=screen, task=task, tab=tab, top=3), *size)
        assert frames.plain_text(found, Place(screen=screen, task="x"), size[0])


def test_what_needs_a_person_comes_first() -> None:
    """Before agents, queue and events, with the reason, and chosen to begin with."""
    shown = text(seen(asking()))
    order = [shown.index(head) for head in ("Needs you (1)", "Agents (2)", "Queue (1)", "Events")]
    assert order == sorted(order)
    assert "> A Rename the option" in shown
    assert "rejected 3 times" in shown


def test_a_wide_terminal_shows_events_beside_the_rest() -> None:
    """At 160 columns the second column begins where the first one does."""
    row = next(row for row in lines(seen(asking()), width=160, height=50) if "Needs you" in row)
    assert "Events, newest first" in row


def test_an_agent_is_shown_with_what_it_does_now() -> None:
    """Role, run, time, tool and file, tokens and cost."""
    made = world(B=spec(title="Title of B"))
    run = made.live("B")
    made.transact([e.RunStarted(task="B", run=run.id, pid=4)])
    made.wait(65.0)
    now = made.facts.now
    live = Live(phase="agent", tool="Edit", file="src/a.py", tokens=12_345, cost_usd=0.42, at=now, alive=True)
    shown = text(seen(made, lives={run.id: live}))
    assert "green  B.1.work" in shown
    assert "1m05s Edit src/a.py" in shown
    assert "12.3k  $0.420" in shown
    tones = {part.tone for line in frames.frame(seen(made), Place(), 80, 24).lines for part in line}
    assert Tone.GREEN in tones


@pytest.mark.parametrize(
    ("live", "said"),
    [
        (Live(alive=False), "its process is gone"),
        (Live(alive=False, finished=True), "ended, not settled"),
        (Live(phase="workspace", alive=True), "workspace"),
        (Live(phase="agent", tool="Bash", at=1.0, alive=True), "silent for"),
    ],
)
def test_a_run_that_does_not_work_says_why(live: Live, said: str) -> None:
    """A dead worker is never shown as working."""
    made = world(B=spec())
    made.transact([e.RunStarted(task="B", run="B.1.work", pid=4)])
    assert said in text(seen(made, lives={"B.1.work": live}))


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_a_missing_supervisor_is_said_before_everything(size: tuple[int, int]) -> None:
    """In the second line, in the tone of alarm, with the command that helps."""
    found = frames.frame(seen(asking(), supervisor=GONE, unproven=2), Place(), *size)
    assert text_of(found.lines[1]).startswith("NO SUPERVISOR: nothing moves; `coord start` starts one")
    assert found.lines[1][0].tone is Tone.ALARM
    assert "NO SUPERVISOR" not in text(seen(asking()))


def test_damage_is_said_with_what_to_run_and_nothing_is_called_empty() -> None:
    """A log of which nothing could be read is not one without tasks."""
    shown = text(
        seen_of(World(facts=strategies.facts()).state, strategies.facts(), seq=0, trouble="D. Run: coord repair")
    )
    assert "Run: coord repair" in shown
    assert "none yet" not in shown
    assert "none yet" in text(seen_of(World(facts=strategies.facts()).state, strategies.facts(), seq=0))


def test_limits_warnings_and_losses_need_a_person_too() -> None:
    """A rejected key is shown among what needs a person, with what to do; so is a missing gate."""
    made = World(facts=strategies.facts(Settings()))
    made.submit("A", spec())
    made.decide()
    refused = Outcome(ending=Ending.LIMITED, code="authentication_failed", reason="invalid key")
    made.end("A", refused)
    shown = text(seen(made), width=120)
    assert "Needs you (2" in shown
    assert "limit on claude:" in shown
    assert "note: no gates by default" in shown


def test_what_only_files_can_tell_is_said_too() -> None:
    """Settings that changed meanwhile, task files that were rejected or are not judged yet, a missing sandbox."""
    made = asking()
    guarded = {"running": True, "pid": 7, "guards": {"sandbox": "missing"}}
    shown = text(seen(made, supervisor=guarded, warnings=["the settings changed"], pending=3, rejected=2), width=120)
    assert (
        "Supervisor: pid 7; no sandbox works here, `coord doctor`; task files not judged yet: 3; rejected: 2" in shown
    )
    assert "note: the settings changed" in shown
    assert "no sandbox" not in text(seen(made))
    assert "task files rejected: 2" in text(seen(made, supervisor=GONE, rejected=2))


def test_the_queue_says_why_each_waits() -> None:
    """For a dependency, for a slot, for nobody."""
    made = world(A=spec(), B=spec(), C=spec(), D=spec(after=("A",)), E=spec(after=("nobody",)))
    shown = text(seen(made), width=120)
    assert "waits for a free slot" in shown
    assert "waits for A (running)" in shown
    assert "waits for 'nobody', which nobody has submitted" in shown
    assert "1 held" in shown


def test_the_queue_stands_in_the_order_in_which_it_starts() -> None:
    """By priority, then by age, as planning takes it."""
    made = world(A=spec(), B=spec(), low=spec(), high=spec(priority=5), next=spec())
    expected = [task.id for task in in_order(made.state, made.facts, lambda _: True)]
    assert len(expected) == 3
    assert [task.id for task in seen(made).lists.queue] == expected


def test_the_landing_queue_says_who_lands_and_who_waits() -> None:
    """One at a time."""
    made = world(A=spec(review=ReviewMode.NEVER, gates=()), B=spec(review=ReviewMode.NEVER, gates=()))
    made.end("A", WORKED)
    made.end("B", WORKED)
    shown = text(seen(made))
    assert "Landing (2)" in shown
    assert shown.index("lands now") < shown.index("waits for its turn to land")


def test_spend_stands_against_its_caps() -> None:
    """In all, today and promised, by role; a full cap is in a stronger tone."""
    made = World(facts=strategies.facts(Settings(money=MoneySettings(total_usd=1.0, day_usd=1.0))))
    made.submit("A", spec(budget_usd=0.5))
    made.decide()
    assert "Spent: 0.00 of 1.00 USD, today 0.00 of 1.00, promised 0.50" in text(seen(made))
    made.end("A", Outcome(ending=Ending.FAILED, usage=Usage(cost_usd=1.2), code="x"))
    found = seen(made)
    head = next(line for line in frames.frame(found, Place(), 80, 24).lines if text_of(line).startswith("Spent"))
    assert text_of(head).startswith("Spent: 1.20 of 1.00 USD")
    assert "(green 1.20)" in text_of(head)
    assert head[0].tone is Tone.STRONG


def test_all_of_the_help_can_be_read_in_a_small_terminal() -> None:
    """At 80 by 24, also with a supervisor missing and everything paused: no key and no word is cut off."""
    made = asking()
    made.ask(lambda state: commands.pause(state, None))
    shown = text(seen(made, supervisor=GONE), Place(helping=True))
    for keys, what in frames.HELP:
        assert f"  {keys} " in shown
        assert what in shown
    assert "Escape closes this." in shown


def test_a_pause_is_said_on_top() -> None:
    """With how to end it."""
    made = asking()
    made.ask(lambda state: commands.pause(state, None))
    assert "PAUSED: nothing new starts" in text(seen(made))


# ---- one task --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tab", "said"),
    [
        (Tab.TIMELINE, "A.1.work planned: green"),
        (Tab.DIFF, "+new line"),
        (Tab.EVIDENCE, "No evidence yet"),
        (Tab.TRANSCRIPT, "→ Edit a.py"),
        (Tab.FINDINGS, "major: a.py: off by one"),
    ],
)
def test_a_task_can_be_read(tab: Tab, said: str) -> None:
    """Its timeline, change, evidence, transcript and findings."""
    found = seen(asking())
    place = opened(found, Place(chosen="needs:A"), "A")
    shown = text(
        found,
        Place(screen=place.screen, task="A", tab=tab),
        height=60,
        task="A",
        diff="--- a\n+++ b\n@@ -1 +1 @@\n-old line\n+new line",
        transcript=[Part("→ Edit a.py", Tone.STRONG)],
        transcript_of="A.1.work",
    )
    assert said in shown


def test_a_long_text_is_wrapped_and_not_cut() -> None:
    """The last word of a prompt can be read in any terminal."""
    made = world(A=spec(prompt="word " * 60 + "last"))
    assert "last" in text(seen(made), Place(screen=Screen.TASK, task="A"), width=50, height=40)


def test_evidence_shows_gates_and_who_judged() -> None:
    """Of an approved task."""
    made = world(A=spec(gates=()))
    made.end("A", WORKED)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="approve"))
    shown = text(seen(made), Place(screen=Screen.TASK, task="A", tab=Tab.EVIDENCE))
    assert "judged by:  A.2.review approve" in shown
    assert "c0ffee" in shown


def test_a_long_text_scrolls_and_stops_at_its_end() -> None:
    """The frame says how far; beyond the end nothing moves."""
    made = world(A=spec())
    found = seen(made)
    paper = Paper(task="A", diff="\n".join(f"+line {number}" for number in range(100)))
    place = Place(screen=Screen.TASK, task="A", tab=Tab.DIFF, top=10_000)
    shown = frames.frame(found, place, 80, 24, paper)
    assert any("line 99" in text_of(line) for line in shown.lines)
    assert 0 < shown.top_max < 100


def test_a_task_that_is_gone_is_no_failure() -> None:
    """After a repair a task may be lost."""
    assert "There is no task nowhere" in text(seen(asking()), Place(screen=Screen.TASK, task="nowhere"))


# ---- texts of others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize("screen", list(Screen))
def test_a_hostile_text_neither_styles_nor_breaks_a_frame(evil: str, screen: Screen) -> None:
    """In a title, a reason, a prompt, a report, a file name, a diff, a transcript and a pasted search."""
    made = world(A=spec(title=evil[:200], kind=Kind.SEARCH, labels={"a": "b"}), B=spec(title=evil))
    made.end("A", Outcome(ending=Ending.FAILED, reason=evil, report=evil, code=evil))
    live = Live(phase=evil, tool=evil, file=evil, at=made.facts.now, alive=True)
    found = seen(made, lives={"B.1.work": live}, trouble=evil, repository=evil)
    for tab in Tab:
        place = Place(screen=screen, task="A", tab=tab, said=evil, search=evil)
        for size in ((80, 24), (160, 50)):
            for row in lines(found, place, *size, diff=evil, transcript=[Part(evil)], transcript_of=evil):
                assert not set(row) & set("\x00\x07\x08\r\n\t\x1b\x7f\x9b\x9d\u202e\u2066\u200b\u200d\ud800")


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3))
def test_a_progress_file_may_hold_anything(value: Any) -> None:
    """Numbers beyond all bounds, texts in the place of numbers, lists."""
    keys = ("phase", "tool", "file", "tokens_output", "cost_usd", "at")
    live = live_of(dict.fromkeys(keys, value))
    made = world(B=spec())
    lines(seen(made, lives={"B.1.work": live}))
    assert live_of(value) == Live()


@pytest.mark.parametrize("number", [10**400, -(10**400), float("inf"), float("nan"), True], ids=range(5))
def test_a_number_is_kept_within_bounds(number: float) -> None:
    """So that it can be shown."""
    live = live_of({"tokens_output": number, "cost_usd": number, "at": number})
    assert 0 <= live.tokens <= 10**15


# ---- many ------------------------------------------------------------------------------------------------------------


def test_only_what_is_shown_is_made() -> None:
    """With 10,000 tasks, reasons and progress are asked for a screenful only, wherever the choice stands."""
    made = many(10_000)
    asked: list[str] = []

    class Counting(dict[str, Live]):
        def get(self, run: str, default: Any = None) -> Any:
            asked.append(run)
            return default

    found = seen(made, lives=Counting())
    for chosen in ("queue:k2", "queue:k9999"):
        shown = text(found, Place(chosen=chosen))
        assert f"> {chosen.partition(':')[2]} " in shown
    assert len(asked) <= 2 * 24
    assert "Queue (9,998, " in text(found)
    place = settled(found, Place(screen=Screen.TASKS, chosen="task:k5000"))
    assert "> k5000" in text(found, place)


def test_one_frame_is_plain_text_without_keys() -> None:
    """For a file or a pipe: no trailing blanks, no line about keys, and as long as it has to be."""
    found = seen(many(100))
    shown = frames.plain_text(found, Place(), 100)
    assert "? help" not in shown
    assert all(row == row.rstrip() and cells(row) <= 100 for row in shown.splitlines())
    assert shown.count("Change number") > 15
    assert len(frames.plain_text(found, Place(), 100, 24).splitlines()) <= 24
