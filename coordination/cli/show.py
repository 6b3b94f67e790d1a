"""What is known of one task, or of one run?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, known_tasks, verb
from coordination.cli._decision import hint_without_supervisor
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, say, tell

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.model.state import Run, State


@verb("coord show T7", "coord show T7.2.review", "coord show T7 --json | jq .evidence")
@click.argument("name", metavar="TASK|RUN", shell_complete=known_tasks)
@json_option()
@click.pass_obj
def command(session: Session, name: str, as_json: bool) -> None:
    """Show everything about a task: its runs, evidence, change, gates, findings, cost and reasons; or about one run."""
    coordinator = session.reading()
    state = coordinator.state()
    if "." in name:
        run = _run(coordinator, _found(state, name))
        if as_json:
            emit(run)
        else:
            _tell_run(run, "")
        return
    task = _task(coordinator, state, name)
    if as_json:
        emit(task)
        return
    _tell_task(task)
    if not state.find(name).status.ended:
        hint_without_supervisor(coordinator)


def _found(state: State, name: str) -> Run:
    task = state.find(name.partition(".")[0])
    known = {run.id.lower(): run.id for run in task.runs}
    return state.run(known.get(name.lower(), name))


def _task(coordinator: Coordinator, state: State, name: str) -> dict[str, Any]:
    """The task's row with what only the repository can tell: where its files are."""
    from coordination import views

    task = state.find(name)
    row = views.task_detail(state, coordinator.facts(), coordinator.policies, task)
    workspace = coordinator.workspaces.path(task.id)
    row["runs"] = [_run(coordinator, run) for run in task.runs]
    row["workspace"] = str(workspace) if workspace.is_dir() else None
    row["preserved"] = list(coordinator.workspaces.preserved(task.id))
    return row


def _run(coordinator: Coordinator, run: Run) -> dict[str, Any]:
    from coordination import views

    directory = coordinator.run_directory(run.id)
    return views.run_row(run) | {"directory": str(directory) if directory.is_dir() else None}


def _tell_task(task: dict[str, Any]) -> None:
    _fields(
        ("task", f"{task['task']}  {task['title']}"),
        ("state", f"{task['state']}{': ' + task['reason'] if task['reason'] else ''}"),
        ("waiting", "; ".join(task["waiting"])),
        ("kind", f"{task['kind']}, role {task['role']}, priority {task['priority']}"),
        ("after", " ".join(task["after"])),
        ("cause", " <- ".join(task["chain"])),
        ("counters", f"attempts {task['attempts']}, rounds {task['rounds']}, returns {task['returns']}"),
        ("cost", dollars(task["cost_usd"], estimated=task["cost_estimated"])),
        ("submitted", f"{task['submitted_at']} by {task['source'] or 'command'}"),
        ("base", task["base"]),
        ("commit", task["commit"]),
        ("merge", task["merge"]),
        ("workspace", task["workspace"]),
        ("preserved", " ".join(task["preserved"])),
    )
    _tell_evidence(task["evidence"] or {})
    for run in task["runs"]:
        say()
        _tell_run(run, "  ")
    if task["feedback"]:
        say()
        say("Sent back:")
    for entry in task["feedback"]:
        say(f"  {entry['kind']}: {entry['message']}", whole=True)
    _block("Prompt", task["prompt"])
    _block("Report", task["report"])


def _tell_evidence(evidence: dict[str, Any]) -> None:
    if not evidence:
        return
    judged = f"{evidence['reviewer']}: {evidence.get('verdict', '')}" if evidence.get("reviewer") else "no review"
    _fields(("evidence", f"{judged}; {evidence.get('reason', '')}"), ("change", _change(evidence)))
    _tell_gates(evidence.get("gates", ()), "")


def _tell_run(run: dict[str, Any], indent: str) -> None:
    outcome = run.get("outcome") or {}
    who = f"{run['role']} ({run['model']})" if run["role"] else run["gate"] or run["purpose"]
    code = f" ({outcome['code']})" if outcome.get("code") else ""
    say(f"{indent}{run['run']}  {who}  {run['ending'] or 'under way'}{code}")
    inner = indent + "  "
    usage = outcome.get("usage", {})
    _fields(
        ("why", run["reason"]),
        ("means", _meaning(run["explained"])),
        ("said", outcome.get("reason")),
        ("verdict", outcome.get("verdict")),
        ("commit", outcome.get("commit")),
        ("change", _change(outcome.get("diff") or {})),
        (
            "cost",
            dollars(usage.get("cost_usd", 0.0), estimated=usage.get("estimated", False)) if any(usage.values()) else "",
        ),
        ("conflict", " ".join((outcome.get("conflict") or {}).get("files", ()))),
        ("denied", "; ".join(outcome.get("denials", ()))),
        ("outside", "; ".join(outcome.get("outside", ()))),
        ("preserved", " ".join(outcome.get("preserved", ()))),
        ("files", run["directory"]),
        indent=inner,
    )
    _tell_gates(outcome.get("gates", ()), inner)
    for finding in outcome.get("findings", ()):
        line = f":{finding['line']}" if finding.get("line") else ""
        place = f"{finding['file']}{line}: " if finding.get("file") else ""
        say(f"{inner}{finding.get('severity', 'major')}: {place}{finding['message']}", whole=True)


_REMEDIES = {
    "fresh": "tried again in a new session",
    "resume": "tried again in the same session",
    "other_model": "tried again with the fallback model",
    "shorter": "tried again without packed context",
    "wait": "tried again when that is over; no attempt is used up",
    "person": "a person decides",
    "fail": "given up",
}


def _meaning(explained: dict[str, Any] | None) -> str:
    """What kind of ending it was and what is done about it; nothing for a success."""
    if explained is None or explained["kind"] in ("done", "stopped"):
        return ""
    often = f", at most {explained['most']} times" if explained["most"] else ""
    return f"{explained['kind']}: {explained['meaning']}; {_REMEDIES[explained['remedy']]}{often}"


def _tell_gates(gates: Iterable[dict[str, Any]], indent: str) -> None:
    for gate in gates:
        passed = "passed" if gate["exit_code"] == 0 else f"failed with exit code {gate['exit_code']}"
        say(f"{indent}gate {gate['gate']} {passed} on {gate['commit'][:12]}")


def _change(numbers: dict[str, Any]) -> str:
    files, added, removed = (numbers.get(key, 0) for key in ("files", "insertions", "deletions"))
    return f"{files} files, +{added} -{removed}" if files else ""


def _fields(*fields: tuple[str, str | None], indent: str = "") -> None:
    for name, text in fields:
        if text:
            say(f"{indent}{name + ':':<11} {text}", whole=True)


def _block(title: str, text: str | None) -> None:
    if text:
        say()
        say(f"{title}:")
        tell("\n".join(f"  {row}" for row in text.splitlines()))
