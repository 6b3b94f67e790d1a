"""What does the terminal show? The lines of one frame, exactly as many and as wide as there is room for. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from coordination import views
from coordination.model.events import Record, described
from coordination.model.money import day_of
from coordination.model.runs import Purpose
from coordination.model.state import Run, Task
from coordination.model.tasks import Status
from coordination.monitor import papers
from coordination.monitor.cells import Line, Part, Tone, cells, column, fitted, shown, text_of, toned, wrapped
from coordination.monitor.papers import Paper
from coordination.monitor.place import Filter, Place, Screen, Tab, listed, named
from coordination.monitor.seen import NOTHING, Live, Seen
from coordination.printable import seconds

WIDE = 130  # from here on there is a second column
ROOMY = 120  # from here on columns are wider, and there are more
SILENT_SECONDS = 120.0
_SECTION_MAX = 20  # rows of a section where the height is not given
_TROUBLE_LINES = 4
_SAID_LINES = 3
_IDENTITY_MAX = 16
_NO_PAPER = Paper()

HELP = (
    ("up down j k", "choose; page up, page down, home, end"),
    ("tab", "next section, or next tab of a task"),
    ("enter", "open the task; escape goes back"),
    ("1 2 3 4", "overview, all tasks, agents, events"),
    ("1 … 5", "in a task: timeline, diff, evidence, transcript, findings"),
    ("/", "search tasks; escape shows all again"),
    ("f", "filter tasks: all, open, needs a person, waiting, ended well, ended badly"),
    ("a", "approve the commit of a task that waits for you (asks again)"),
    ("x", "reject it, with a reason that its agent is given"),
    ("c", "cancel a task (asks again)"),
    ("r", "retry a task that failed, was cancelled or waits for you (asks again)"),
    ("p", "pause a task, or resume it"),
    ("P", "pause everything, or let everything go on (asks again)"),
    ("?", "this help"),
    ("q", "leave; nothing that runs is touched"),
)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is shown, where the entries stand, and how far one can scroll."""

    lines: Sequence[Line]
    hits: dict[int, str] = field(default_factory=dict)  # row to entry
    top_max: int = 0
    page: int = 1  # lines that scroll away at once


@dataclass(frozen=True, kw_only=True)
class _Body:
    lines: Sequence[Line]
    hits: dict[int, str] = field(default_factory=dict)
    top_max: int = 0


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
    parts = (_notes(seen), lists.needs, lists.runs, lists.landing, lists.queue, seen.recent)
    return sum(min(len(part), _SECTION_MAX) + 2 for part in parts)


def _body(seen: Seen, place: Place, paper: Paper, width: int, room: int) -> _Body:
    match place.screen:
        case Screen.OVERVIEW:
            return _overview(seen, place, width, room)
        case Screen.AGENTS:
            return _sections([_agents(seen, width, full=True)], place, room)
        case Screen.TASKS:
            return _sections([_tasks(seen, place, width)], place, room)
        case Screen.EVENTS:
            return _scrolled(len(seen.recent), lambda at: _event(seen.recent[-1 - at]), place, room)
        case Screen.TASK:
            return _task(seen, place, paper, width, room)


# ---- head and foot ---------------------------------------------------------------------------------------------------


def _head(seen: Seen, place: Place, width: int) -> list[Line]:
    title = f" {seen.repository}  {place.screen if place.screen is not Screen.TASK else place.task} "
    clock = f" {_clock(seen.now)} "
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
        return (Part("Supervisor: "), Part(f"pid {supervisor['pid']}", Tone.STRONG), *_inbox(seen))
    live = len(seen.lists.runs)
    what = f"; runs to be settled: {live}" if live else ""
    some = f"; newer batches that are not proven durable: {seen.unproven}" if seen.unproven else ""
    said = f"NO SUPERVISOR: nothing moves; `coord start` starts one. This is what the files say{what}{some}"
    return (Part(column(said, width), Tone.ALARM),)


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


def _help(width: int, room: int) -> _Body:
    rows: list[Line] = [(Part("Keys", Tone.HEAD),), ()]
    rows += [(Part(column(f"  {keys}", 16), Tone.STRONG), Part(what)) for keys, what in HELP]
    rows += [(), (Part("Colours: blue searches, green implements, red reviews. Escape closes this.", Tone.FAINT),)]
    return _Body(lines=[fitted(row, width) for row in rows[:room]])


# ---- sections --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Section:
    title: str
    rows: int
    row: Callable[[int], Line]  # asked only for what is shown
    entry: Callable[[int], str] = lambda _: ""
    tone: Tone = Tone.HEAD
    beside: str = ""  # said after the title


def _overview(seen: Seen, place: Place, width: int, room: int) -> _Body:
    lists = seen.lists
    if width < WIDE:
        wanted = [_needs(seen, width), _agents(seen, width), _landing(seen, width), _queue(seen, width), _events(seen)]
        return _sections([part for part in wanted if part.rows], place, room)
    right = max(width * 2 // 5, 50)
    left = width - right - 2
    some = [_needs(seen, left), _agents(seen, left, full=not lists.queue), _queue(seen, left)]
    body = _sections([part for part in some if part.rows], place, room)
    beside = _sections([part for part in (_landing(seen, right), _events(seen)) if part.rows], place, room)
    rows = max(len(body.lines), len(beside.lines))
    lines = [(*fitted(_at(body.lines, row), left), Part("  "), *_at(beside.lines, row)) for row in range(rows)]
    return _Body(lines=lines, hits=beside.hits | body.hits)


def _at(lines: Sequence[Line], row: int) -> Line:
    return lines[row] if row < len(lines) else ()


def _sections(sections: Sequence[_Section], place: Place, room: int) -> _Body:
    """One under the other, each with a head; where there is not room for all, the choice stays in view."""
    lines: list[Line] = []
    hits: dict[int, str] = {}
    for section, rows in zip(sections, _shares([part.rows for part in sections], room), strict=True):
        if rows < 0:
            continue
        chosen = _index(section, place)
        start = 0 if chosen is None else max(0, min(chosen - rows // 2, section.rows - rows))
        more = f", {start + 1} to {start + rows} shown" if 0 < rows < section.rows else ""
        lines.append((Part(f"{section.title} ({section.rows:,}{more}){section.beside}", section.tone),))
        for at in range(start, start + rows):
            hits[len(lines)] = section.entry(at)
            lines.append(_marked(section.row(at), chosen=at == chosen))
    return _Body(lines=lines, hits={row: entry for row, entry in hits.items() if entry})


def _index(section: _Section, place: Place) -> int | None:
    """Where the choice stands in a section: looked for where it can be, which is before or at its place in all."""
    if not place.chosen or not section.rows or not section.entry(0):
        return None
    if section.entry(0).partition(":")[0] != place.chosen.partition(":")[0]:
        return None
    upto = min(place.at, section.rows - 1)
    return next((at for at in range(upto, -1, -1) if section.entry(at) == place.chosen), None)


def _marked(line: Line, *, chosen: bool) -> Line:
    return (Part("> ", Tone.CHOSEN), *toned(line, Tone.CHOSEN)) if chosen else (Part("  "), *line)


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each section gets beside its head: one each, then turn by turn; -1: not even a head."""
    given = [-1] * len(wanted)
    for at, rows in enumerate(wanted):
        first = min(rows, 1)
        if room < 1 + first:
            break
        given[at], room = first, room - 1 - first
    while room > 0 and (growing := [at for at, rows in enumerate(given) if 0 <= rows < wanted[at]]):
        for at in growing[:room]:
            given[at] += 1
        room -= len(growing[:room])
    return given


# ---- what needs a person ---------------------------------------------------------------------------------------------


def _notes(seen: Seen) -> list[Line]:
    """What a person should know that is about no task."""
    notes: list[Line] = []
    for limit in views.limits(seen.state, seen.facts):
        until = (
            "put it right, then P" if limit["needs_person"] else f"parked until {limit['until']}, then one run tries"
        )
        tone = Tone.ALARM if limit["needs_person"] else Tone.STRONG
        notes.append((Part(f"limit on {limit['account']}: {limit['kind']} ({limit['said']}); {until}", tone),))
    if seen.rejected and not seen.supervisor["running"]:
        notes.append((Part(f"task files rejected: {seen.rejected}; the reasons: inbox/rejected"),))
    return [*notes, *((Part(f"note: {text}"),) for text in views.warnings(seen.state, seen.facts))]


def _needs(seen: Seen, width: int) -> _Section:
    tasks, notes = seen.lists.needs, _notes(seen)
    name = _names(tasks, width)

    def row(at: int) -> Line:
        if at >= len(tasks):
            return notes[at - len(tasks)]
        task = tasks[at]
        why = task.reason or "waits for an answer"
        return (*name(task), Part(why, Tone.STRONG))

    return _Section(
        title="Needs you",
        rows=len(tasks) + len(notes),
        row=row,
        entry=lambda at: f"needs:{tasks[at].id}" if at < len(tasks) else "",
        tone=Tone.ALARM if tasks else Tone.HEAD,
    )


def _names(tasks: Sequence[Task], width: int) -> Callable[[Task], Line]:
    """How the ids and titles of a section are shown: in columns that fit all of them."""
    identity = min(max((len(task.id) for task in tasks), default=0), _IDENTITY_MAX) + 1
    title = max(min(max(width // 3, 12), 50) - identity, 8)
    return lambda task: (
        Part(column(task.id, identity), Tone.STRONG),
        Part(column(task.spec.title, title) + "  "),
    )


# ---- agents ----------------------------------------------------------------------------------------------------------


def _agents(seen: Seen, width: int, *, full: bool = False) -> _Section:
    runs = seen.lists.runs
    used = ""
    if full or width >= WIDE:
        most = {role: seen.facts.slots(role) for role in sorted(seen.facts.roles)}
        lives = [run.role for run in runs]
        used = "; slots " + ", ".join(f"{role} {lives.count(role)} of {slots}" for role, slots in most.items())
    return _Section(
        title="Agents",
        beside=used,
        rows=len(runs),
        row=lambda at: _agent(seen, runs[at], width),
        entry=lambda at: f"run:{runs[at].id}",
    )


_ROLE_TONES = {"blue": Tone.BLUE, "green": Tone.GREEN, "red": Tone.RED}


def _agent(seen: Seen, run: Run, width: int) -> Line:
    live, roomy = seen.lives.get(run.id, NOTHING), width >= ROOMY
    taken = seconds(seen.now - run.started_at) if run.started_at else ""
    tokens = _short(live.tokens) + " tok" * roomy if live.tokens else ""
    cost = f"${live.cost_usd:.3f}" if live.cost_usd else ""
    doing, tone = _doing(seen, run, live)
    return (
        Part(column(run.role or str(run.purpose), 6) + " ", _ROLE_TONES.get(run.role, Tone.PLAIN)),
        Part(column(run.id, 24 if roomy else 14) + " "),
        Part(column(run.model or run.gate, 12) + " " if roomy else "", Tone.FAINT),
        Part(column(taken, 6, right=True) + " "),
        Part(column(doing, 32 if roomy else 22) + " ", tone),
        Part(column(tokens, 10 if roomy else 6, right=True) + column(cost, 8, right=True) + "  "),
        Part(seen.state.tasks[run.task].spec.title),
    )


def _doing(seen: Seen, run: Run, live: Live) -> tuple[str, Tone]:
    if live.alive is False and run.started_at:
        return ("ended, not settled", Tone.STRONG) if live.finished else ("its process is gone", Tone.ALARM)
    if not run.started_at and not live.phase:
        return "starting", Tone.FAINT
    doing = f"{live.tool} {live.file}".strip() if live.phase in ("agent", "") else live.phase
    silent = seen.now - live.at if live.at else 0.0
    if silent > SILENT_SECONDS:
        return f"silent for {seconds(silent)}: {doing}", Tone.STRONG
    return doing or live.phase or "thinking", Tone.PLAIN


def _short(number: int) -> str:
    """A count in at most five signs, where it is of a size that is met."""
    for unit, sign in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.1f}{sign}"
    return str(number)


# ---- queue, landing, tasks, events -----------------------------------------------------------------------------------


def _queue(seen: Seen, width: int) -> _Section:
    tasks = seen.lists.queue
    name = _names(tasks, width)

    def row(at: int) -> Line:
        task = tasks[at]
        why = "; ".join(views.waiting(seen.state, seen.facts, seen.policies, task))
        back = f" ({task.reason})" if task.status is Status.QUEUED and task.reason else ""
        priority = Part(column(f"{task.spec.priority:+d}" if task.spec.priority else "", 5))
        return (*name(task), priority, Part(why), Part(back, Tone.FAINT))

    return _Section(title="Queue", rows=len(tasks), row=row, entry=lambda at: f"queue:{tasks[at].id}")


def _landing(seen: Seen, width: int) -> _Section:
    tasks = seen.lists.landing
    name = _names(tasks, width)

    def row(at: int) -> Line:
        task = tasks[at]
        live = next((run for run in task.live if run.purpose is Purpose.LANDING), None)
        if live is None:
            why = "; ".join(views.waiting(seen.state, seen.facts, seen.policies, task))
            return (*name(task), Part(why or "is being stopped"))
        said = seen.lives.get(live.id, NOTHING).phase
        for_long = f" for {seconds(seen.now - live.started_at)}" if live.started_at else ""
        return (*name(task), Part(f"lands now{for_long} {said}".rstrip(), Tone.STRONG))

    return _Section(title="Landing", rows=len(tasks), row=row, entry=lambda at: f"landing:{tasks[at].id}")


def _tasks(seen: Seen, place: Place, width: int) -> _Section:
    tasks = listed(seen, place)
    said = f"Tasks, {place.filter}" if place.filter is not Filter.ALL else "Tasks"
    if place.search:
        said += f", with {shown(place.search)!r}"

    def row(at: int) -> Line:
        task = tasks[at]
        state = column(views.state_of(seen.state, task), 18)
        kind = column(str(task.spec.kind), 10)
        cost = column(f"${task.usage.cost_usd:.2f}" if task.usage.cost_usd else "", 9, right=True)
        name = (Part(column(task.id, 12 if width < ROOMY else 20) + " ", Tone.STRONG), Part(f"{state} {kind}{cost}  "))
        return (*name, Part(task.spec.title), Part(f"  {task.reason}" if width >= ROOMY else "", Tone.FAINT))

    return _Section(title=said, rows=len(tasks), row=row, entry=lambda at: f"task:{tasks[at].id}")


def _events(seen: Seen) -> _Section:
    recent = seen.recent
    return _Section(title="Events, newest first", rows=len(recent), row=lambda at: _event(recent[-1 - at]))


def _event(record: Record) -> Line:
    row = described(record)
    return (Part(f"{_clock(record.at)} ", Tone.FAINT), Part(views.narrated(row["type"], row)))


# ---- one task --------------------------------------------------------------------------------------------------------


def _task(seen: Seen, place: Place, paper: Paper, width: int, room: int) -> _Body:
    task = seen.state.get(place.task)
    if task is None:
        return _Body(lines=[(Part(f"There is no task {place.task} any more.", Tone.ALARM),)])
    parts: list[Part] = []
    for number, tab in enumerate(Tab, 1):
        parts += [Part(f" {number} {tab} ", Tone.CHOSEN if tab is place.tab else Tone.PLAIN), Part(" ")]
    lines = papers.lines(seen, task, place.tab, paper, width)
    body = _scrolled(len(lines), lambda at: lines[at], place, max(room - 2, 0))
    return _Body(lines=[tuple(parts), (), *body.lines], top_max=body.top_max)


def _scrolled(rows: int, row: Callable[[int], Line], place: Place, room: int) -> _Body:
    top_max = max(rows - room, 0)
    top = min(place.top, top_max)
    return _Body(lines=[row(at) for at in range(top, min(top + room, rows))], top_max=top_max)


def _clock(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "--:--:--Z"
