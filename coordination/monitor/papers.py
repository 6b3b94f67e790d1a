"""What is there to read about one task? Its timeline, change, evidence, transcript and findings, as lines. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from coordination import views
from coordination.model.state import Task
from coordination.monitor.cells import Line, Part, Tone, wrapped
from coordination.monitor.place import Tab
from coordination.monitor.seen import Seen
from coordination.printable import dollars, seconds

Row = dict[str, Any]
_LABEL = 11


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Paper:
    """What only files and git can tell of the task that is open. Compared by identity: a new look is a new paper."""

    task: str = ""
    diff: str | None = None  # None: not read yet
    transcript: Sequence[Part] = ()
    transcript_of: str = ""  # the run


def lines(seen: Seen, task: Task, tab: Tab, paper: Paper, width: int) -> Sequence[Line]:
    """The tab of a task, in lines that fit."""
    match tab:
        case Tab.DIFF:
            return _diff(paper, width)
        case Tab.TRANSCRIPT:
            return _transcript(paper, width)
    detail = views.task_detail(seen.state, seen.facts, seen.policies, task)
    match tab:
        case Tab.EVIDENCE:
            found = _evidence(detail)
        case Tab.FINDINGS:
            found = _findings(detail)
        case _:
            found = _timeline(detail)
    return _laid(found, width)


def _laid(parts: Iterable[Part], width: int) -> list[Line]:
    """Long ones are wrapped, and go on under their own beginning."""
    laid: list[Line] = []
    for text, tone in parts:
        indent = text[: len(text) - len(text.lstrip(" "))][: width // 2]
        rows = wrapped(text.strip(), width - len(indent))
        laid += [(Part(indent + row, tone),) for row in rows]
    return laid


# ---- timeline --------------------------------------------------------------------------------------------------------


def _timeline(detail: Row) -> Iterator[Part]:
    yield Part(f"{detail['task']}  {detail['title']}", Tone.STRONG)
    yield from _fields(
        ("state", f"{detail['state']}{': ' + detail['reason'] if detail['reason'] else ''}"),
        ("waiting", "; ".join(detail["waiting"])),
        ("kind", f"{detail['kind']}, role {detail['role']}, priority {detail['priority']}"),
        ("after", " ".join(detail["after"])),
        ("cause", " <- ".join(detail["chain"])),
        ("counters", f"attempts {detail['attempts']}, rounds {detail['rounds']}, returns {detail['returns']}"),
        ("cost", dollars(detail["cost_usd"], estimated=detail["cost_estimated"])),
        ("commit", detail["commit"]),
        ("merge", detail["merge"]),
    )
    yield Part("")
    yield Part(f"{detail['submitted_at']}  submitted by {detail['source'] or 'command'}")
    for run in detail["runs"]:
        yield from _told_run(run)
    if detail["state"] not in ("queued", "running", "reviewing"):
        yield Part(f"{detail['changed_at']}  {detail['state']}: {detail['reason']}")
    yield Part("")
    yield Part("Prompt", Tone.HEAD)
    yield from (Part(f"  {row}") for row in str(detail["prompt"]).splitlines())


def _told_run(run: Row) -> Iterator[Part]:
    who = f"{run['role']} ({run['model']})" if run["role"] else run["gate"] or run["purpose"]
    yield Part(f"{run['planned_at']}  {run['run']} planned: {who}: {run['reason']}", _tone_of(run["role"]))
    if run["started_at"]:
        yield Part(f"{run['started_at']}  {run['run']} started (pid {run['pid']})")
    outcome = run["outcome"]
    if outcome is None:
        return
    usage = outcome["usage"]
    spent = f", {dollars(usage['cost_usd'], estimated=usage['estimated'])}" if usage["cost_usd"] else ""
    took = f" after {seconds(outcome['ended_at'] - outcome['started_at'])}" if outcome["started_at"] else ""
    verdict = f", verdict {outcome['verdict']}" if outcome["verdict"] else ""
    code = f" ({outcome['code']})" if outcome["code"] else ""
    yield Part(f"{run['ended_at']}  {run['run']} {run['ending']}{code}{took}{verdict}{spent}")
    if outcome["reason"]:
        yield Part(f"  {outcome['reason']}")


def _tone_of(role: str) -> Tone:
    return {"blue": Tone.BLUE, "green": Tone.GREEN, "red": Tone.RED}.get(role, Tone.PLAIN)


# ---- evidence and findings -------------------------------------------------------------------------------------------


def _evidence(detail: Row) -> Iterator[Part]:
    evidence = detail["evidence"]
    if not evidence:
        yield Part("No evidence yet: it is collected when the work is approved.", Tone.FAINT)
    else:
        files, added, removed = (evidence.get(key, 0) for key in ("files", "insertions", "deletions"))
        yield from _fields(
            ("commit", evidence.get("commit")),
            ("base", evidence.get("base")),
            ("judged by", f"{evidence.get('reviewer') or 'no review'} {evidence.get('verdict', '')}".rstrip()),
            ("reason", evidence.get("reason")),
            ("change", f"{files} files, +{added} -{removed}" if files else ""),
            ("cost", dollars(evidence.get("cost_usd") or 0.0)),
        )
        yield from _gates(evidence.get("gates") or ())
    for run in detail["runs"]:
        if run["outcome"] is not None and run["outcome"]["gates"]:
            yield Part("")
            yield Part(run["run"], Tone.HEAD)
            yield from _gates(run["outcome"]["gates"])
    if detail["report"]:
        yield Part("")
        yield Part("Report", Tone.HEAD)
        yield from (Part(f"  {row}") for row in detail["report"].splitlines())


def _gates(gates: Iterable[Row]) -> Iterator[Part]:
    for gate in gates:
        passed = gate["exit_code"] == 0
        what = "passed" if passed else f"failed with exit code {gate['exit_code']}"
        yield Part(f"gate {gate['gate']} {what} on {gate['commit'][:12]}", Tone.PLAIN if passed else Tone.ALARM)
        yield from (Part(f"    {row}", Tone.FAINT) for row in (gate.get("output") or "").splitlines()[-12:])


def _findings(detail: Row) -> Iterator[Part]:
    nothing = True
    for run in detail["runs"]:
        outcome = run["outcome"] or {}
        if outcome.get("verdict") or outcome.get("findings"):
            nothing = False
            yield Part(f"{run['run']} {run['role']}: {outcome.get('verdict') or 'no verdict'}", _tone_of(run["role"]))
            yield from (Part(f"  {row}") for row in (outcome.get("report") or "").splitlines())
            for finding in outcome.get("findings") or ():
                line = f":{finding['line']}" if finding.get("line") else ""
                place = f"{finding['file']}{line}: " if finding.get("file") else ""
                yield Part(f"  {finding.get('severity') or 'major'}: {place}{finding['message']}")
        for what, texts in _met(outcome):
            nothing = False
            yield from (Part(f"{run['run']}: {what} {text}", Tone.ALARM) for text in texts)
    for entry in detail["feedback"]:
        nothing = False
        yield Part(f"sent back, {entry['kind']}: {entry['message']}", Tone.STRONG)
    for text in detail["refused"]:
        nothing = False
        yield Part(f"refused: {text}", Tone.ALARM)
    if nothing:
        yield Part("Nobody has found anything, and nothing was sent back.", Tone.FAINT)


def _met(outcome: Row) -> Iterator[tuple[str, Sequence[str]]]:
    """What a run met or did that it should not have, as far as there is any."""
    conflict = (outcome.get("conflict") or {}).get("files")
    found = {"denied:": outcome.get("denials"), "outside:": outcome.get("outside"), "conflict in": conflict}
    yield from ((what, texts) for what, texts in found.items() if texts)


def _fields(*fields: tuple[str, str | None]) -> Iterator[Part]:
    for name, text in fields:
        if text:
            yield Part(f"{name + ':':<{_LABEL}} {text}")


# ---- what files and git say ------------------------------------------------------------------------------------------


@lru_cache(4)
def _diff(paper: Paper, width: int) -> Sequence[Line]:
    if paper.diff is None:
        return [(Part("Reading …", Tone.FAINT),)]
    rows = paper.diff.split("\n") if paper.diff else ["No commit yet, or one that changes nothing."]
    return [(Part(piece, _tone_of_change(row)),) for row in rows for piece in wrapped(row, width)]


def _tone_of_change(row: str) -> Tone:
    if row.startswith(("+++", "---", "diff ", "index ")):
        return Tone.STRONG
    if row.startswith("@@"):
        return Tone.BLUE
    return Tone.GREEN if row.startswith("+") else Tone.RED if row.startswith("-") else Tone.PLAIN


@lru_cache(4)
def _transcript(paper: Paper, width: int) -> Sequence[Line]:
    if not paper.transcript_of:
        return [(Part("No agent has worked on it yet, or its transcript is gone.", Tone.FAINT),)]
    head = Part(f"{paper.transcript_of}, the end of its transcript", Tone.HEAD)
    return _laid((head, *paper.transcript), width)
