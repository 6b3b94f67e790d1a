"""What is listed on the screen, and which rows of each list? What needs a person first. Pure.

A section makes only the rows that are shown, wherever the choice stands, so ten thousand tasks cost what a screenful
does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from coordination import views
from coordination.model.events import Record, described
from coordination.model.runs import Purpose
from coordination.model.state import Run, Task
from coordination.model.tasks import Status
from coordination.monitor.cells import Line, Part, Tone, column, shown, toned
from coordination.monitor.place import Filter, Place, listed
from coordination.monitor.seen import NOTHING, Live, Seen
from coordination.printable import seconds

ROOMY = 120  # from here on columns are wider, and there are more
SILENT_SECONDS = 120.0
_IDENTITY_MAX = 16


@dataclass(frozen=True, kw_only=True)
class Body:
    """What stands between head and foot."""

    lines: Sequence[Line]
    hits: dict[int, str] = field(default_factory=dict)
    top_max: int = 0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A list with a head. ``row`` is asked only for what is shown; ``entry`` names what can be chosen."""

    title: str
    rows: int
    row: Callable[[int], Line]  # asked only for what is shown
    entry: Callable[[int], str] = lambda _: ""
    tone: Tone = Tone.HEAD
    beside: str = ""  # said after the title


def laid_out(sections: Sequence[Section], place: Place, room: int) -> Body:
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
    return Body(lines=lines, hits={row: entry for row, entry in hits.items() if entry})


def _index(section: Section, place: Place) -> int | None:
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


def notes_of(seen: Seen) -> list[Line]:
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
    warnings = [*seen.warnings, *views.warnings(seen.state, seen.facts)]
    return [*notes, *((Part(f"note: {text}"),) for text in warnings)]


def needs(seen: Seen, width: int) -> Section:
    """What waits for a person, then what he should know."""
    tasks, notes = seen.lists.needs, notes_of(seen)
    name = _names(tasks, width)

    def row(at: int) -> Line:
        if at >= len(tasks):
            return notes[at - len(tasks)]
        task = tasks[at]
        why = task.reason or "waits for an answer"
        return (*name(task), Part(why, Tone.STRONG))

    return Section(
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


def agents(seen: Seen, width: int, *, full: bool = False) -> Section:
    """What runs, with what each does now; ``full`` says the slots too."""
    runs = seen.lists.runs
    used = ""
    if full:
        most = {role: seen.facts.slots(role) for role in sorted(seen.facts.roles)}
        lives = [run.role for run in runs]
        used = "; slots " + ", ".join(f"{role} {lives.count(role)} of {slots}" for role, slots in most.items())
    return Section(
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


def queue(seen: Seen, width: int) -> Section:
    """What waits, and why."""
    tasks = seen.lists.queue
    name = _names(tasks, width)

    def row(at: int) -> Line:
        task = tasks[at]
        why = "; ".join(views.waiting(seen.state, seen.facts, seen.policies, task))
        back = f" ({task.reason})" if task.status is Status.QUEUED and task.reason else ""
        priority = Part(column(f"{task.spec.priority:+d}" if task.spec.priority else "", 5))
        return (*name(task), priority, Part(why), Part(back, Tone.FAINT))

    return Section(title="Queue", rows=len(tasks), row=row, entry=lambda at: f"queue:{tasks[at].id}")


def landing(seen: Seen, width: int) -> Section:
    """What is approved: one lands, the others wait for their turn."""
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

    return Section(title="Landing", rows=len(tasks), row=row, entry=lambda at: f"landing:{tasks[at].id}")


def tasks_listed(seen: Seen, place: Place, width: int) -> Section:
    """All tasks, or those that filter and search leave."""
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

    return Section(title=said, rows=len(tasks), row=row, entry=lambda at: f"task:{tasks[at].id}")


def events(seen: Seen) -> Section:
    """What happened last."""
    recent = seen.recent
    return Section(title="Events, newest first", rows=len(recent), row=lambda at: event(recent[-1 - at]))


def event(record: Record) -> Line:
    """One event, as a sentence with its time."""
    row = described(record)
    return (Part(f"{clock(record.at)} ", Tone.FAINT), Part(views.narrated(row["type"], row)))


def clock(at: float) -> str:
    """The time of day of an instant, in UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "--:--:--Z"
