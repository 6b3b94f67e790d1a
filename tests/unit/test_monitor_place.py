"""Each key leads where it says, and nothing that matters happens at one key."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordination.errors import Refused
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Outcome
from coordination.monitor.place import Filter, Place, Screen, Tab, entries, listed, named, pasted, pressed, settled
from coordination.monitor.seen import Seen
from coordination.monitor.wishes import Verb, Wish, events_of
from coordination.testing import strategies
from coordination.testing.strategies import History, World
from tests.unit.seeing import HOSTILE, seen, seen_of, spec, world

WORKED = Outcome(ending=Ending.SUCCEEDED, base="b1", commit="c0ffee", diff=DiffStat(files=1, insertions=100))
REJECTED = Outcome(ending=Ending.SUCCEEDED, verdict="reject", report="No.")
KEYS = (
    *("up", "down", "j", "k", "pageup", "pagedown", "home", "end", "g", "G", "space", "tab", "shift+tab", "left"),
    *("right", "enter", "escape", "backspace", "1", "2", "3", "4", "5", "slash", "f", "a", "x", "c", "r", "p", "P"),
    *("question_mark", "q", "y", "n", "wheel_up", "wheel_down", "ctrl+u", "ctrl+w", "ctrl+c", "f1"),
)


def asking() -> World:
    """A waits for a person at c0ffee; B and C run, D waits for a slot, E has failed."""
    made = world(A=spec(), E=spec(attempts_max=1))
    made.end("E", Outcome(ending=Ending.FAILED, code="refused", reason="no"))
    for _ in range(3):
        made.end("A", WORKED)
        made.end("A", REJECTED)
    for name in "BCD":
        made.submit(name, spec(title=f"Title of {name}"))
    made.decide()
    return made


def press(found: Seen, place: Place, *keys: str) -> tuple[Place, Wish | None]:
    """The keys one after the other; what the last one leads to."""
    wish = None
    for key in keys:
        place, wish = pressed(found, settled(found, place), key, key if len(key) == 1 else None, page=10)
    return place, wish


def test_the_choice_moves_over_all_sections() -> None:
    """From what needs a person to the queue, and no further; home, end and pages too."""
    found = seen(asking())
    order = entries(found, Place())
    assert order == ["needs:A", "run:B.1.work", "run:C.1.work", "queue:D"]
    assert press(found, Place(), "down")[0].chosen == "run:B.1.work"
    assert press(found, Place(), "down", "j", "j", "j", "j")[0].chosen == "queue:D"
    assert press(found, Place(), "end", "k")[0].chosen == "run:C.1.work"
    assert press(found, Place(), "pagedown", "up", "pageup")[0].chosen == "needs:A"
    assert [press(found, Place(), *["tab"] * times)[0].chosen for times in (1, 2, 3)] == [
        "run:B.1.work",
        "queue:D",
        "needs:A",
    ]
    assert press(found, Place(), "shift+tab")[0].chosen == "queue:D"


def test_the_choice_stays_with_its_task_when_the_list_moves() -> None:
    """What comes before it pushes it down; when it goes, its neighbour is chosen."""
    made = asking()
    place = press(seen(made), Place(), "end")[0]
    made.transact(commands.cancel(made.state, "B"))
    made.end("B", Outcome(ending=Ending.STOPPED))
    assert settled(seen(made), place).chosen == "run:D.1.work" or settled(seen(made), place).chosen == "queue:D"
    one = settled(seen(made), Place(chosen="run:C.1.work", at=2))
    assert one.chosen == "run:C.1.work"
    made.end("C", Outcome(ending=Ending.FAILED, code="refused", reason="no"))
    assert settled(seen(made), one).chosen in entries(seen(made), one)


def test_screens_and_tabs_have_their_keys() -> None:
    """Numbers, tab and arrows; a task is left to where one came from, with the same choice."""
    found = seen(asking())
    for key, screen in (("1", Screen.OVERVIEW), ("2", Screen.TASKS), ("3", Screen.AGENTS), ("4", Screen.EVENTS)):
        assert press(found, Place(screen=Screen.EVENTS), key)[0].screen is screen
    inside = press(found, Place(), "down", "enter")[0]
    assert (inside.screen, inside.task, inside.tab) == (Screen.TASK, "B", Tab.TIMELINE)
    assert [press(found, inside, str(number))[0].tab for number in range(1, 6)] == list(Tab)
    assert press(found, inside, "tab")[0].tab is Tab.DIFF
    assert press(found, inside, "left")[0].tab is Tab.FINDINGS
    assert press(found, inside, "shift+tab", "right")[0].tab is Tab.TIMELINE
    for key in ("escape", "backspace"):
        back = press(found, inside, key)[0]
        assert (back.screen, back.chosen) == (Screen.OVERVIEW, "run:B.1.work")
    from_tasks = press(found, Place(screen=Screen.TASKS), "enter", "escape")[0]
    assert from_tasks.screen is Screen.TASKS


def test_lines_scroll_and_never_above_the_first() -> None:
    """In a task and among events."""
    found = seen(asking())
    place = Place(screen=Screen.TASK, task="A")
    assert press(found, place, "down", "down")[0].top == 2
    assert press(found, place, "pagedown", "up")[0].top == 9
    assert press(found, place, "up")[0].top == 0
    assert press(found, place, "wheel_down")[0].top > 1
    assert press(found, place, "4")[0].top > press(found, place, "2")[0].top == 0


def test_help_and_leaving() -> None:
    """`?` shows it, any of several keys closes it; `q` and Ctrl-C leave, also out of a question."""
    found = seen(asking())
    helping = press(found, Place(), "question_mark")[0]
    assert helping.helping
    assert press(found, helping, "down")[0].helping
    assert not press(found, helping, "escape")[0].helping
    assert press(found, Place(), "q")[0].left
    assert press(found, Place(), "x", "ctrl+c")[0].left
    assert not press(found, Place(), "x", "q")[0].left


def test_filter_and_search_leave_what_is_asked_for() -> None:
    """One filter after the other; ids, titles, kinds and states are searched, whatever the case."""
    found = seen(asking())
    wanted = {
        Filter.OPEN: {"A", "B", "C", "D"},
        Filter.NEEDS: {"A"},
        Filter.WAITING: {"D"},
        Filter.WELL: set(),
        Filter.BADLY: {"E"},
        Filter.ALL: {"A", "B", "C", "D", "E"},
    }
    place = Place()
    for name, tasks in wanted.items():
        place = press(found, place, "f")[0]
        assert (place.screen, place.filter) == (Screen.TASKS, name)
        assert {task.id for task in listed(found, place)} == tasks
    for text, tasks in (("TITLE OF c", {"C"}), ("failed", {"E"}), ("nothing like it", set())):
        searching = press(found, Place(), "slash", *text.replace(" ", "_"))[0]
        searching = pasted(press(found, Place(), "slash")[0], text)
        place = press(found, searching, "enter")[0]
        assert {task.id for task in listed(found, place)} == tasks
        assert len(listed(found, press(found, place, "escape")[0])) == 5


@pytest.mark.parametrize(
    ("keys", "wish"),
    [
        (("a", "y"), Wish(verb=Verb.APPROVE, task="A", commit="c0ffee")),
        (("x", *"no-way", "enter"), Wish(verb=Verb.REJECT, task="A", text="no-way", commit="c0ffee")),
        (("c", "y"), Wish(verb=Verb.CANCEL, task="A")),
        (("r", "Y"), Wish(verb=Verb.RETRY, task="A")),
        (("p",), Wish(verb=Verb.PAUSE, task="A")),
        (("P", "y"), Wish(verb=Verb.PAUSE)),
        (("down", "c", "y"), Wish(verb=Verb.CANCEL, task="B")),
        (("2", "end", "r", "y"), Wish(verb=Verb.RETRY, task="E")),
        (("enter", "a", "y"), Wish(verb=Verb.APPROVE, task="A", commit="c0ffee")),
    ],
)  # fmt: skip
def test_a_decision_has_its_keys(keys: tuple[str, ...], wish: Wish) -> None:
    """The last key of each gives the wish and the ones before it none; it can be recorded as it is."""
    made = asking()
    found = seen(made)
    assert all(press(found, Place(), *keys[:number])[1] is None for number in range(1, len(keys)))
    assert press(found, Place(), *keys)[1] == wish
    assert events_of(made.state, wish)


@pytest.mark.parametrize("verb", ["a", "c", "r", "P"])
@pytest.mark.parametrize("key", ["n", "escape", "enter", "space", "down", "q"])
def test_only_a_yes_is_a_yes(verb: str, key: str) -> None:
    """Every other key leaves everything as it is."""
    place, wish = press(seen(asking()), Place(), verb, key)
    assert wish is None
    assert place.question is None
    assert not place.left


def test_what_was_paused_is_resumed_by_the_same_keys() -> None:
    """One task, and everything."""
    made = asking()
    made.transact(commands.pause(made.state, "A"))
    made.transact(commands.pause(made.state, None))
    assert press(seen(made), Place(), "p")[1] == Wish(verb=Verb.RESUME, task="A")
    assert press(seen(made), Place(), "P", "y")[1] == Wish(verb=Verb.RESUME)


def test_what_is_refused_is_said_before_anything_is_asked() -> None:
    """A running task can be neither approved nor rejected nor retried, and one that ended not be cancelled."""
    found = seen(asking())
    for key in ("a", "x", "r"):
        place, wish = press(found, Place(), "down", key)
        assert (place.question, wish, place.failed) == (None, None, True)
        assert "only a task that" in place.said
    assert "nothing to cancel" in press(found, Place(screen=Screen.TASKS), "end", "c")[0].said
    assert "Choose a task first" in press(found, Place(screen=Screen.EVENTS), "c")[0].said


def test_a_rejection_needs_a_sentence() -> None:
    """Blanks are none; the question stays open."""
    place, wish = press(seen(asking()), Place(), "x", "enter")
    assert wish is None
    assert place.question is not None
    assert "Expected a sentence" in place.said


def test_what_is_written_can_be_corrected() -> None:
    """Backspace, Ctrl-W and Ctrl-U; keys are letters meanwhile."""
    found = seen(asking())
    place = pasted(press(found, Place(), "x")[0], "one\rtwo\nthree")
    assert place.question is not None
    assert place.question.written == "one two three"
    written = [press(found, place, key)[0].question for key in ("backspace", "ctrl+w", "ctrl+u", "q")]
    assert [each.written for each in written if each] == ["one two thre", "one two", "", "one two threeq"]


def test_what_is_pasted_is_never_taken_for_keys() -> None:
    """Outside a text it is dropped; a question that wants a key does not get one from it."""
    found = seen(asking())
    assert pasted(Place(), "cy") == Place()
    place = press(found, Place(), "c")[0]
    assert pasted(place, "y") == place


@pytest.mark.parametrize("evil", HOSTILE)
def test_what_is_pasted_is_harmless(evil: str) -> None:
    """One line, without control characters, and not without end."""
    place = pasted(press(seen(asking()), Place(), "x")[0], evil * 1_000)
    assert place.question is not None
    assert place.question.written is not None
    assert place.question.written.isprintable()
    assert len(place.question.written) <= 2_000


def test_nobody_approves_what_was_not_seen() -> None:
    """Between the question and the answer another commit came: refused, and nothing is recorded."""
    made = asking()
    wish = press(seen(made), Place(), "a", "y")[1]
    assert wish is not None
    made.transact(commands.reject(made.state, "A", "again"))
    made.decide()
    made.transact(commands.end(made.state, "B.1.work", Outcome(ending=Ending.STOPPED), token=made.live("B").token))
    made.decide()
    made.end("A", Outcome(ending=Ending.SUCCEEDED, base="b1", commit="5ec0nd", diff=DiffStat(files=1, insertions=100)))
    made.transact([e.TaskEscalated(task="A", reason="look")])
    with pytest.raises(Refused, match="another commit now"):
        events_of(made.state, wish)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(strategies.histories(), st.lists(st.sampled_from(KEYS), max_size=30))
def test_no_keys_lead_astray(history: History, keys: list[str]) -> None:
    """Whatever is pressed after whatever happened: the choice exists, and every wish names a task that does."""
    found = seen_of(history.state, history.facts, recent=history.records)
    place = Place()
    for key in keys:
        place, wish = pressed(found, settled(found, place), key, key if len(key) == 1 else None, page=10)
        place = settled(found, place)
        chosen = entries(found, place)
        assert place.chosen in chosen or not chosen
        assert place.screen is not Screen.TASK or found.state.get(named(place)) is not None
        if wish is not None:
            assert not wish.task or found.state.get(wish.task) is not None
