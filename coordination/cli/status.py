"""What runs, what waits and why, what needs a person, what did it cost? On one screen."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._screen import Section, fitted
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, say, seconds

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.model.state import Run

NOTES_MAX = 3
_ASKING = "coord tasks --state waiting_for_person"
_HINT = ": coord show TASK, then approve, reject or retry"


@verb("coord status", "coord -C ~/projects/shop status", "coord status --json | jq .needs_person")
@json_option()
@click.pass_obj
def command(session: Session, as_json: bool) -> None:
    """Show what runs, what waits and why, what needs a person, and what was spent."""
    row = observed(session.reading())
    if as_json:
        emit(row)
        return
    _tell(row, shutil.get_terminal_size())


def observed(coordinator: Coordinator) -> dict[str, Any]:
    """The status as the log has it, with what only files can tell: progress of runs, task files not judged yet."""
    from coordination import views

    state = coordinator.state()
    facts = coordinator.observed()
    supervisor = coordinator.supervisor()
    row = views.status(state, facts, coordinator.policies, seq=coordinator.store.seq, supervisor=supervisor)
    for task in row["running"]:
        task["live"] = [_live(coordinator, run, facts.now) for run in state.tasks[task["task"]].live]
    rejected = coordinator.inbox.rejected_directory.glob("*.error.json")
    row["inbox"] = {"pending": len(coordinator.inbox.pending()), "rejected": sum(1 for _ in rejected)}
    row["inbox"]["directory"] = str(coordinator.inbox.directory)
    row["warnings"] += coordinator.outdated(supervisor)
    return row


def _live(coordinator: Coordinator, run: Run, now: float) -> dict[str, Any]:
    from coordination import files, views

    progress = files.read_json_if_there(coordinator.run_directory(run.id) / "progress.json")
    spent = now - run.started_at if run.started_at else 0.0
    return views.run_row(run) | {"seconds": round(max(spent, 0.0), 3), "progress": progress}


def _tell(row: dict[str, Any], size: os.terminal_size) -> None:
    """All of it in as many lines as the terminal has, with one left for its prompt."""
    # what is read by a program is not wrapped, so that it can look for words
    head = [*_headline(row, size.columns if sys.stdout.isatty() else sys.maxsize)]
    sections = [
        Section(title=f"{title} ({len(entries)}){hint}", entries=entries, rest=rest)
        for title, hint, rest, entries in (
            ("Limits", "", "coord status --json", [_limit(limit) for limit in row["limits"]]),
            ("Needs a person", _HINT, _ASKING, [_asking(task) for task in row["needs_person"]]),
            ("Running", "", "coord tasks", [line for task in row["running"] for line in _running(task)]),
            ("Waiting", "", "coord tasks", [_waiting(task) for task in row["waiting"]]),
        )
    ]
    for text in [*head, *fitted(sections, size.lines - len(head) - 1)]:
        say(text)


def _headline(row: dict[str, Any], columns: int) -> Iterator[str]:
    supervisor, inbox = row["supervisor"], row["inbox"]
    guards = _guards(supervisor["guards"] or {})
    yield f"Supervisor: pid {supervisor['pid']}{guards}" if supervisor["running"] else "Supervisor: none; `coord start`"
    yield from textwrap.wrap(f"Tasks: {_counts(row['counts'])}.", columns, subsequent_indent="  ")
    yield from textwrap.wrap(f"Spent: {_spent(row['money'])}.", columns, subsequent_indent="  ")
    if row["money"]["a_merged_task_usd"] is not None:
        yield f"A merged task cost {_each(row['money'])}."
    if row["paused"]:
        yield "Everything is paused: nothing new starts; `coord resume` goes on."
    if inbox["pending"]:
        yield f"Inbox: {inbox['pending']} task files are not judged yet."
    if inbox["rejected"]:
        yield f"Inbox: {inbox['rejected']} task files were rejected; the reasons: {inbox['directory']}/rejected"
    for warning in row["warnings"][:NOTES_MAX]:
        yield f"Note: {warning}"
    if len(row["warnings"]) > NOTES_MAX:
        yield f"Note: … and {len(row['warnings']) - NOTES_MAX} more: coord status --json | jq .warnings"


def _counts(counts: dict[str, int]) -> str:
    """What moves and what waits before what has ended: the eye stops at the first line."""
    from coordination.model.tasks import ENDED

    ranked = sorted(counts, key=lambda name: (name in ENDED, name))
    return ", ".join(f"{counts[name]} {name}" for name in ranked) or "none yet; `coord submit`"


_SANDBOX = {
    "works": "agents' commands run in a sandbox",
    "missing": "no sandbox works here (`coord doctor`)",
    "off": "no sandbox, as the settings say",
}


_GATES = {
    "works": "gates run in a sandbox",
    "missing": "gates run WITHOUT a sandbox, as none works here (`coord doctor`)",
    "refused": "NO gate runs, as settings require a sandbox and none works here (`coord doctor`)",
    "off": "gates run without a sandbox, as the settings say",
}


def _guards(guards: dict[str, Any]) -> str:
    """What stands between agents and the machine."""
    parts = [_SANDBOX[guards["sandbox"]]] if guards.get("sandbox") in _SANDBOX else []
    if guards.get("gates") in _GATES:
        parts.append(_GATES[guards["gates"]])
    if limited := guards.get("limited"):
        parts.append(f"the {' and '.join(limited)} of runs are limited")
    return "".join(f"; {part}" for part in parts)


def _spent(money: dict[str, Any]) -> str:
    caps, spent = money["caps"], dollars(money["spent_usd"], estimated=money["estimated"])
    parts = [spent if caps["total_usd"] is None else f"{spent} of {caps['total_usd']:.2f}"]
    if caps["day_usd"] is not None:
        parts.append(f"{dollars(money['today_usd'])} of {caps['day_usd']:.2f} today (UTC)")
    if money["promised_usd"]:
        parts.append(f"{dollars(money['promised_usd'])} promised to runs")
    return ", ".join(parts)


def _each(money: dict[str, Any]) -> str:
    """What a merged task cost on average, and who of that spent how much with which model."""
    parts = [
        f"{part['role']} ({part['model']}) {dollars(part['usd'], estimated=part['estimated'])}"
        for part in money["a_merged_task"]
    ]
    whole = dollars(money["a_merged_task_usd"], estimated=money["a_merged_task_estimated"])
    return f"{whole}{': ' if parts else ''}{', '.join(parts)}"


def _limit(limit: dict[str, Any]) -> list[str]:
    what, said = f"  {limit['account']}: {limit['kind']}", f"      it said: {limit['said']}"
    if limit["needs_person"]:
        return [f"{what}: put it right, then `coord resume`", said]
    tries = f"; {limit['probe']} tries whether it is over" if limit["probe"] else ", then one run tries"
    return [f"{what}: parked until {limit['until']}{tries}", said]


def _running(task: dict[str, Any]) -> list[list[str]]:
    return [
        [f"  {live['run']}  {_who(live)}  {_how_long(live)}  {_doing(live)}{task['title']}"] for live in task["live"]
    ]


def _who(live: dict[str, Any]) -> str:
    return f"{live['role']} ({live['model']})" if live["role"] else str(live["gate"] or live["purpose"])


def _how_long(live: dict[str, Any]) -> str:
    return seconds(live["seconds"]) if live["started_at"] else "starting"


def _doing(live: dict[str, Any]) -> str:
    progress = live["progress"] or {}
    doing = " ".join(str(progress[key]) for key in ("phase", "tool", "file") if progress.get(key))
    return f"[{doing}]  " if doing else ""


def _asking(task: dict[str, Any]) -> list[str]:
    return [f"  {task['task']}  {task['title']}: {task['reason']}", f"      {' | '.join(task['choices'])}"]


def _waiting(task: dict[str, Any]) -> list[str]:
    waits = f"  {task['task']}  {task['title']}: {'; '.join(task['waiting'])}"
    # why it is in the queue again, which explains more than when it leaves it
    return [waits, f"      {task['reason']}"] if task["state"] == "queued" and task["reason"] else [waits]
