"""What does the terminal show? The lines of one frame, exactly as many and as wide as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from coordination import views
from coordination.model.money import day_of
from coordination.monitor import papers, sections
from coordination.monitor.cells import Line, Part, Tone, cells, column, fitted, shown, text_of, wrapped
from coordination.monitor.papers import Paper
from coordination.monitor.place import Place, Screen, Tab, named
from coordination.monitor.sections import Body
from coordination.monitor.seen import Seen

WIDE = 130  # from here on there is a second column
_SECTION_MAX = 20  # rows of a section where the height is not given
_TROUBLE_LINES = 4
_SAID_LINES = 3
_NO_PAPER = Paper()

HELP = (
    ("up down j k", "choose; page up, page down, home, end"),
    ("tab", "next section, or next tab of a task"),
    ("enter", "open the task; escape goes back"),
    ("1 2 3 4", "overview, all tasks, agents, events"),
    ("1 … 5", "in a task: timeline, diff, evidence, transcript, findings"),
    ("/", "search tasks; escape shows all again"),
    ("f", "filter tasks by how they stand, one press after the other"),
    ("a", "approve the commit of a task that waits for you (asks again)"),
    ("x", "reject it, with a reason that its agent is given"),
    ("c", "cancel a task (asks again)"),
    ("r", "retry one that failed, was cancelled or waits for you (asks)"),
    ("p", "pause a task, or resume it"),
    ("P", "pause everything, or let everything go on (asks again)"),
    ("q", "leave; nothing that runs is touched"),
)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is shown, where the entries stand, and how far one can scroll."""

    lines: Sequence[Line]
    hits: dict[int, str] = field(default_factory=dict)  # row to entry
    top_max: int = 0
    page: int = 1  # lines that scroll away at once


def frame(seen: Seen, place: Place, width: int, height: int, paper: Paper = _NO_PAPER) -> Frame:
    """One frame of exactly that size."""
    head, foot = _head(seen, place, width), _foot(seen, place, width)
    room = max(height - len(head) - len(foot), 0)
    body = _help(width, room) if place.helping else _body(seen, place, paper, width, room)
    lines = [*head, *body.lines, *[()] * (room - len(body.lines))][: max(height - len(foot), 0)]
    hits = {row + len(head): entry for row, entry in body.hits.items()}
    fit = [fitted(line, width) for line in [*lines, *foot][-height:]]
    return Frame(lines=fit, hits=hits, top_max=body.top_max, page=max(room - 2, 1))


def plain_text(seen: Seen, place: Place, width: int, height: int | None = None) -> str:
    """One frame as text for where nobody presses keys; without a height as long as it has to be."""
    head = _head(seen, place, width)
    room = _room_needed(seen, place) if height is None else max(height - len(head), 1)
    body = _body(seen, place, _NO_PAPER, width, room).lines
    rows = [text_of(fitted(line, width)).rstrip() for line in (*head, *body)]
    return "\n".join(rows).rstrip() + "\n"


def _room_needed(seen: Seen, place: Place) -> int:
    lists = seen.lists
    if place.screen is Screen.AGENTS:
        return len(lists.runs) + 2
    parts = (sections.notes_of(seen), lists.needs, lists.runs, lists.landing, lists.queue, seen.recent)
    return sum(min(len(part), _SECTION_MAX) + 2 for part in parts)


def _body(seen: Seen, place: Place, paper: Paper, width: int, room: int) -> Body:
    match place.screen:
        case Screen.OVERVIEW:
            return _overview(seen, place, width, room)
        case Screen.AGENTS:
            return sections.laid_out([sections.agents(seen, width, full=True)], place, room)
        case Screen.TASKS:
            return sections.laid_out([sections.tasks_listed(seen, place, width)], place, room)
        case Screen.EVENTS:
            return _scrolled(len(seen.recent), lambda at: sections.event(seen.recent[-1 - at]), place, room)
        case Screen.TASK:
            return _task(seen, place, paper, width, room)


# ---- head and foot ---------------------------------------------------------------------------------------------------


def _head(seen: Seen, place: Place, width: int) -> list[Line]:
    title = f" {seen.repository}  {place.screen if place.screen is not Screen.TASK else place.task} "
    clock = f" {sections.clock(seen.now)} "
    first = (Part(column(title, max(width - len(clock), 0)) + clock, Tone.CHOSEN),)
    lines: list[Line] = [first]
    if seen.trouble:
        lines += [(Part(column(row, width), Tone.ALARM),) for row in wrapped(seen.trouble, width)[:_TROUBLE_LINES]]
    lines.append(_supervision(seen, width))
    if seen.state.paused:
        lines.append((Part("PAUSED: nothing new starts; P (or `coord resume`) lets everything go on", Tone.ALARM),))
    if seen.trouble and not seen.seq:
        return lines  # nothing is known, which is not the same as that there is nothing
    counts = ", ".join(f"{count} {name}" for name, count in sorted(seen.lists.counts.items()))
    lines.append((Part(f"Tasks: {counts or 'none yet; `coord submit`'}"),))
    lines.append(_spent(seen))
    return lines


def _supervision(seen: Seen, width: int) -> Line:
    supervisor = seen.supervisor
    if supervisor["running"]:
        return (Part(f"Supervisor: pid {supervisor['pid']}"), *_unguarded(supervisor), *_inbox(seen))
    live = len(seen.lists.runs)
    what = f"; runs to be settled: {live}" if live else ""
    some = f"; newer batches that are not proven durable: {seen.unproven}" if seen.unproven else ""
    said = f"NO SUPERVISOR: nothing moves; `coord start` starts one. This is what the files say{what}{some}"
    return (Part(column(said, width), Tone.ALARM),)


def _unguarded(supervisor: views.Row) -> Iterable[Part]:
    sandbox = (supervisor.get("guards") or {}).get("sandbox")
    if sandbox in ("missing", "off"):
        why = "no sandbox works here, `coord doctor`" if sandbox == "missing" else "no sandbox, as the settings say"
        yield Part(f"; {why}", Tone.STRONG)


def _inbox(seen: Seen) -> Iterable[Part]:
    if seen.pending:
        yield Part(f"; task files not judged yet: {seen.pending}")
    if seen.rejected:
        yield Part(f"; rejected: {seen.rejected}, see inbox/rejected", Tone.STRONG)


def _spent(seen: Seen) -> Line:
    money = views.spending(seen.state, seen.facts)
    caps, promised = money["caps"], money["promised_usd"]
    spent = _of(money["spent_usd"], caps["total_usd"])
    today = _of(money["today_usd"], caps["day_usd"])
    about = "about " if money["estimated"] else ""
    full = _full(money["spent_usd"] + promised, caps["total_usd"]) or _full(
        money["today_usd"] + promised, caps["day_usd"]
    )
    by_role = ", ".join(_of_role(seen, role, usd) for role, usd in money["by_role"].items() if role)
    said = f"Spent: {about}{spent} USD, today {today}" + (f", promised {promised:.2f}" if promised else "")
    return (Part(said, Tone.STRONG if full else Tone.PLAIN), Part(f"  ({by_role})" if by_role else "", Tone.FAINT))


def _of_role(seen: Seen, role: str, usd: float) -> str:
    """What a role has cost, or today's part of it where that is capped."""
    override = seen.facts.settings.roles.get(role)
    if override is None or override.day_usd is None:
        return f"{role} {usd:.2f}"
    return f"{role} {_of(seen.state.money.spent_on(day_of(seen.now), role), override.day_usd)} today"


def _of(usd: float, cap: float | None) -> str:
    return f"{usd:.2f}" if cap is None else f"{usd:.2f} of {cap:.2f}"


def _full(usd: float, cap: float | None) -> bool:
    return cap is not None and usd >= cap


_DECIDE = "a approve  x reject  c cancel  r retry  p pause"
_KEYS = {
    Screen.OVERVIEW: f"? help  q quit  enter open  {_DECIDE}",
    Screen.TASKS: "? help  q quit  enter open  / search  f filter  c cancel  r retry  p pause",
    Screen.AGENTS: "? help  q quit  enter open  c cancel  p pause  1 overview",
    Screen.EVENTS: "? help  q quit  up down scroll  1 overview",
    Screen.TASK: f"? help  escape back  tab next  {_DECIDE}",
}


def _foot(seen: Seen, place: Place, width: int) -> list[Line]:
    question = place.question
    said = _rows(place.said, width, Tone.ALARM if place.failed else Tone.STRONG)
    if question is None:
        return [*(said or [_about_chosen(seen, place)]), (Part(_KEYS[place.screen], Tone.FAINT),)]
    asks = _rows(question.asks, width, Tone.STRONG)
    if question.written is None:
        return [*asks, (Part("y yes, any other key no", Tone.FAINT),)]
    written = (Part("> "), Part(_end_of(question.written, width - 3)), Part(" ", Tone.CHOSEN))
    return [*asks, *(said or [(Part("enter takes it, escape leaves", Tone.FAINT),)]), written]


def _about_chosen(seen: Seen, place: Place) -> Line:
    """What the row of the choice has no room for."""
    task = seen.state.get(named(place)) if place.chosen and place.screen is not Screen.TASK else None
    if task is None:
        return ()
    why = "; ".join(views.waiting(seen.state, seen.facts, seen.policies, task)) or task.reason
    return (Part(f"{task.id}: ", Tone.STRONG), Part(why or task.spec.title))


def _rows(text: str, width: int, tone: Tone) -> list[Line]:
    return [(Part(row, tone),) for row in wrapped(text, width)[:_SAID_LINES]] if text else []


def _end_of(text: str, width: int) -> str:
    """The end of what is being written: that is where the person looks."""
    text = shown(text)
    while cells(text) > max(width, 1):
        text = text[1:]
    return text


def _help(width: int, room: int) -> Body:
    rows: list[Line] = [(Part("Keys", Tone.HEAD),)]
    rows += [(Part(column(f"  {keys}", 16), Tone.STRONG), Part(what)) for keys, what in HELP]
    rows.append((Part("Blue searches, green implements, red reviews. Escape closes this.", Tone.FAINT),))
    return Body(lines=[fitted(row, width) for row in rows[:room]])


# ---- sections --------------------------------------------------------------------------------------------------------


def _overview(seen: Seen, place: Place, width: int, room: int) -> Body:
    lists = seen.lists
    if width < WIDE:
        wanted = [
            sections.needs(seen, width),
            sections.agents(seen, width),
            sections.landing(seen, width),
            sections.queue(seen, width),
            sections.events(seen),
        ]
        return sections.laid_out([part for part in wanted if part.rows], place, room)
    right = max(width * 2 // 5, 50)
    left = width - right - 2
    some = [sections.needs(seen, left), sections.agents(seen, left, full=not lists.queue), sections.queue(seen, left)]
    body = sections.laid_out([part for part in some if part.rows], place, room)
    beside = sections.laid_out(
        [part for part in (sections.landing(seen, right), sections.events(seen)) if part.rows], place, room
    )
    rows = max(len(body.lines), len(beside.lines))
    lines = [(*fitted(_at(body.lines, row), left), Part("  "), *_at(beside.lines, row)) for row in range(rows)]
    return Body(lines=lines, hits=beside.hits | body.hits)


def _at(lines: Sequence[Line], row: int) -> Line:
    return lines[row] if row < len(lines) else ()


# ---- one task --------------------------------------------------------------------------------------------------------


def _task(seen: Seen, place: Place, paper: Paper, width: int, room: int) -> Body:
    task = seen.state.get(place.task)
    if task is None:
        return Body(lines=[(Part(f"There is no task {place.task} any more.", Tone.ALARM),)])
    parts: list[Part] = []
    for number, tab in enumerate(Tab, 1):
        parts += [Part(f" {number} {tab} ", Tone.CHOSEN if tab is place.tab else Tone.PLAIN), Part(" ")]
    lines = papers.lines(seen, task, place.tab, paper, width)
    body = _scrolled(len(lines), lambda at: lines[at], place, max(room - 2, 0))
    return Body(lines=[tuple(parts), (), *body.lines], top_max=body.top_max)


def _scrolled(rows: int, row: Callable[[int], Line], place: Place, room: int) -> Body:
    top_max = max(rows - room, 0)
    top = min(place.top, top_max)
    return Body(lines=[row(at) for at in range(top, min(top + room, rows))], top_max=top_max)
