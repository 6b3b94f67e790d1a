"""Where is the person who looks, and what does a key do there? A place and a key give a place. Pure.

What is chosen is remembered by name, not by number: when the list moves, the choice stays with its task. When the task
leaves the list the choice goes to a neighbour, which is why every decision that matters names its task and asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from coordination.model.state import State, Task
from coordination.model.tasks import ENDED, Status
from coordination.monitor.cells import shown
from coordination.monitor.seen import ASKING, Seen
from coordination.monitor.wishes import Verb, Wish, refusal

TEXT_MAX = 2_000
END = 1_000_000  # further than anything that is scrolled
_STEP = 4  # rows for one turn of the wheel


class Screen(StrEnum):
    """What fills the terminal."""

    OVERVIEW = "overview"
    TASKS = "tasks"
    AGENTS = "agents"
    EVENTS = "events"
    TASK = "task"


class Tab(StrEnum):
    """What is shown of one task."""

    TIMELINE = "timeline"
    DIFF = "diff"
    EVIDENCE = "evidence"
    TRANSCRIPT = "transcript"
    FINDINGS = "findings"


class Filter(StrEnum):
    """Which tasks are listed."""

    ALL = "all"
    OPEN = "open"
    NEEDS = "needs a person"
    WAITING = "waiting"
    WELL = "ended well"
    BADLY = "ended badly"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked before something is done: y or n, or (with ``written``) a line of text."""

    asks: str
    wish: Wish | None = None  # None: it is a search
    written: str | None = None
    needed: bool = False  # an empty text is no answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Everything about the view that is not about the tasks."""

    screen: Screen = Screen.OVERVIEW
    behind: Screen = Screen.OVERVIEW  # where one comes back to from a task
    chosen: str = ""  # an entry, see ``entries``
    at: int = 0  # where it stood
    task: str = ""
    tab: Tab = Tab.TIMELINE
    top: int = 0  # first line shown, where lines are scrolled
    filter: Filter = Filter.ALL
    search: str = ""
    question: Question | None = None
    helping: bool = False
    said: str = ""
    failed: bool = False  # whether what is said is bad news
    left: bool = False


Answer = tuple[Place, Wish | None]


# ---- what can be chosen ----------------------------------------------------------------------------------------------


def entries(seen: Seen, place: Place) -> list[str]:
    """What the choice moves over, as ``section:name``, in the order of the screen."""
    lists = seen.lists
    runs = [f"run:{run.id}" for run in lists.runs]
    match place.screen:
        case Screen.OVERVIEW:
            needs = [f"needs:{task.id}" for task in lists.needs]
            queue = [f"queue:{task.id}" for task in lists.queue]
            return [*needs, *runs, *(f"landing:{task.id}" for task in lists.landing), *queue]
        case Screen.AGENTS:
            return runs
        case Screen.TASKS:
            return [f"task:{task.id}" for task in listed(seen, place)]
        case _:
            return []


_WANTED: dict[Filter, Callable[[Task], bool]] = {
    Filter.ALL: lambda _: True,
    Filter.OPEN: lambda task: task.status not in ENDED,
    Filter.NEEDS: lambda task: task.status in ASKING,
    Filter.WAITING: lambda task: task.status in (Status.QUEUED, Status.HELD),
    Filter.WELL: lambda task: task.status.ended_well,
    Filter.BADLY: lambda task: task.status in ENDED and not task.status.ended_well,
}


def listed(seen: Seen, place: Place) -> Sequence[Task]:
    """The tasks that filter and search leave."""
    if place.filter is Filter.ALL and not place.search:
        return seen.lists.everything
    wanted, text = _WANTED[place.filter], place.search.lower()
    return [task for task in seen.lists.everything if wanted(task) and (not text or _has(task, text))]


def _has(task: Task, text: str) -> bool:
    spec = task.spec
    return text in task.id.lower() or text in spec.title.lower() or text in spec.kind or text in task.status


def settled(seen: Seen, place: Place) -> Place:
    """The place with a choice that is there: the same one, or what stands where it stood."""
    if place.screen in (Screen.TASK, Screen.EVENTS):
        return place  # nothing is chosen there; coming back, the choice is where it was
    found = entries(seen, place)
    if not found:
        return replace(place, chosen="", at=0) if place.chosen else place
    if place.at < len(found) and found[place.at] == place.chosen:
        return place
    at = found.index(place.chosen) if place.chosen in found else min(place.at, len(found) - 1)
    return replace(place, chosen=found[at], at=at)


def named(place: Place) -> str:
    """The task that a decision would be about; "" for none."""
    if place.screen is Screen.TASK:
        return place.task
    kind, _, name = place.chosen.partition(":")
    return name.partition(".")[0] if kind == "run" else name


# ---- keys ------------------------------------------------------------------------------------------------------------


def pressed(seen: Seen, place: Place, key: str, sign: str | None, page: int) -> Answer:
    """What a key leads to. ``sign`` is what it types, ``page`` how many lines scroll away at once."""
    place = replace(place, said="", failed=False)
    if key == "ctrl+c":
        return replace(place, left=True), None
    if place.question is not None:
        return _answered(place, place.question, key, sign)
    if place.helping:
        return replace(place, helping=key not in _CLOSING, left=key == "q"), None
    if key == "question_mark" or sign == "?":
        return replace(place, helping=True), None
    moved = _moved(seen, place, key, page)
    if moved is not None:
        return moved, None
    if key in _VERBS:
        return _wished(seen, place, _VERBS[key])
    return _gone(seen, place, key), None


_CLOSING = ("escape", "question_mark", "enter", "q", "backspace", "space")
_SCREENS = {"1": Screen.OVERVIEW, "2": Screen.TASKS, "3": Screen.AGENTS, "4": Screen.EVENTS}
_TABS = {str(number): tab for number, tab in enumerate(Tab, 1)}


def _gone(seen: Seen, place: Place, key: str) -> Place:
    """To another screen, tab, filter or search; the same place for a key that means nothing."""
    inside = place.screen is Screen.TASK
    match key:
        case "q":
            return replace(place, left=True)
        case "enter" if not inside:
            return opened(seen, place, named(place))
        case "escape" | "backspace" if inside:
            return settled(seen, replace(place, screen=place.behind, top=0))
        case "escape":
            return settled(seen, replace(place, search="", filter=Filter.ALL, top=0))
        case "slash":
            asks = Question(asks="Search in ids, titles, kinds and states:", written=place.search)
            return replace(place, question=asks, screen=Screen.TASKS)
        case "f":
            following = list(Filter)[(list(Filter).index(place.filter) + 1) % len(Filter)]
            return settled(seen, replace(place, screen=Screen.TASKS, filter=following))
        case "tab" | "right" | "shift+tab" | "left" if inside:
            step = 1 if key in ("tab", "right") else -1
            tabs = list(Tab)
            return _turned(place, tabs[(tabs.index(place.tab) + step) % len(tabs)])
        case _ if inside and key in _TABS:
            return _turned(place, _TABS[key])
        case "tab" | "shift+tab":
            return _next_section(seen, place, 1 if key == "tab" else -1)
        case _ if key in _SCREENS:
            return settled(seen, replace(place, screen=_SCREENS[key], top=0))
    return place


def _turned(place: Place, tab: Tab) -> Place:
    return replace(place, tab=tab, top=END if tab is Tab.TRANSCRIPT else 0)


def following(place: Place, top_max: int) -> Place:
    """A transcript that is read at its end stays there when it grows; ``top_max`` is how far one could scroll."""
    at_end = place.screen is Screen.TASK and place.tab is Tab.TRANSCRIPT and place.top >= top_max
    return replace(place, top=END) if at_end else place


def opened(seen: Seen, place: Place, task: str) -> Place:
    """Inside one task; what ran last is what one mostly wants to see."""
    if not task or seen.state.get(task) is None:
        return place
    return replace(place, screen=Screen.TASK, behind=place.screen, task=task, tab=Tab.TIMELINE, top=0)


def _moved(seen: Seen, place: Place, key: str, page: int) -> Place | None:
    steps = {
        "up": -1, "k": -1, "down": 1, "j": 1, "wheel_up": -_STEP, "wheel_down": _STEP,
        "pageup": -page, "pagedown": page, "space": page, "home": -END, "g": -END, "end": END, "G": END, "upper_g": END,
    }  # fmt: skip
    if key not in steps:
        return None
    if place.screen in (Screen.TASK, Screen.EVENTS):
        return replace(place, top=max(0, place.top + steps[key]))  # the frame knows where the end is
    found = entries(seen, place)
    at = max(0, min(place.at + steps[key], len(found) - 1))
    return replace(place, at=at, chosen=found[at]) if found else place


def _next_section(seen: Seen, place: Place, step: int) -> Place:
    """To the first entry of the next section that has one."""
    found = entries(seen, place)
    firsts = [at for at, entry in enumerate(found) if at == 0 or _section(entry) != _section(found[at - 1])]
    if not firsts:
        return place
    present = max(number for number, first in enumerate(firsts) if first <= place.at or number == 0)
    at = firsts[(present + step) % len(firsts)]
    return replace(place, at=at, chosen=found[at])


def _section(entry: str) -> str:
    return entry.partition(":")[0]


# ---- decisions -------------------------------------------------------------------------------------------------------

_VERBS = {
    "a": "approve", "x": "reject", "c": "cancel", "r": "retry", "p": "pause", "P": "pause all", "upper_p": "pause all",
}  # fmt: skip


def _wished(seen: Seen, place: Place, verb: str) -> Answer:
    if verb == "pause all":
        return _wished_for_all(seen.state, place)
    task = seen.state.get(named(place)) if named(place) else None
    if task is None:
        return replace(place, said=f"Choose a task first: {verb} is about one.", failed=True), None
    wish = Wish(verb=Verb(verb), task=task.id)
    match wish.verb:
        case Verb.APPROVE:
            asks = f"Approve {task.id} at {task.commit[:12]}? It lands when its turn comes."
            return _asking(seen.state, place, asks, replace(wish, commit=task.commit))
        case Verb.REJECT:
            asks = f"Reject {task.id}; what is wrong?"
            return _asking(seen.state, place, asks, replace(wish, commit=task.commit), written="")
        case Verb.CANCEL:
            asks = f"Cancel {task.id} ({shown(task.spec.title)[:40]})? What it runs is stopped."
            return _asking(seen.state, place, asks, wish)
        case Verb.RETRY:
            asks = f"Try {task.id} ({shown(task.spec.title)[:40]}) again, from fresh counters?"
            return _asking(seen.state, place, asks, wish)
        case _:
            return place, replace(wish, verb=Verb.RESUME if task.paused else Verb.PAUSE)


def _wished_for_all(state: State, place: Place) -> Answer:
    if state.paused or any(account.kind for account in state.accounts.values()):
        return _asking(state, place, "Let everything go on?", Wish(verb=Verb.RESUME))
    asks = "Pause everything? Nothing new starts; what runs finishes."
    return _asking(state, place, asks, Wish(verb=Verb.PAUSE))


def _asking(state: State, place: Place, asks: str, wish: Wish, written: str | None = None) -> Answer:
    """Ask, unless it is refused anyway."""
    if why := refusal(state, wish):
        return replace(place, said=why, failed=True), None
    needed = written is not None
    return replace(place, question=Question(asks=asks, wish=wish, written=written, needed=needed)), None


def _answered(place: Place, question: Question, key: str, sign: str | None) -> Answer:
    if key == "escape":
        return replace(place, question=None), None
    if question.written is None:
        agreed = key in ("y", "Y", "upper_y")
        said = "" if agreed else "Nothing was changed."
        return replace(place, question=None, said=said), question.wish if agreed else None
    if key == "enter":
        return _written(place, question, question.written.strip())
    return replace(place, question=replace(question, written=_typed(question.written, key, sign))), None


def _written(place: Place, question: Question, text: str) -> Answer:
    if question.needed and not text:
        return replace(place, said="Expected a sentence, found nothing. Escape leaves.", failed=True), None
    place = replace(place, question=None)
    if question.wish is None:
        return replace(place, search=text, at=0, chosen=""), None
    return place, replace(question.wish, text=text)


def _typed(written: str, key: str, sign: str | None) -> str:
    match key:
        case "backspace" | "ctrl+h":
            return written[:-1]
        case "ctrl+u":
            return ""
        case "ctrl+w":
            return written.rstrip().rpartition(" ")[0]
    return (written + sign)[:TEXT_MAX] if sign and sign.isprintable() else written


def pasted(place: Place, text: str) -> Place:
    """Text that the terminal says was pasted: only into a text, and as one line; it is never taken for keys."""
    question = place.question
    if question is None or question.written is None:
        return place
    line = shown(text.replace("\r", "\n"))  # as terminals send line ends
    return replace(place, question=replace(question, written=(question.written + line)[:TEXT_MAX]))
