"""What is known of one task, or of one run?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, known_tasks, verb
from coordination.cli._decision import hint_without_supervisor
from coordination.cli._kept import describe, rows
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, say, tell

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.model.state import Run, State

_FILES_MAX = 40


FAILURE_LINES = 10


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
    kept = coordinator.workspaces.kept(task["task"])
    if as_json:
        emit(task | {"kept": rows(kept)})
        return
    _tell_task(task)
    if kept:
        say()
        say("Kept of its workspaces:")
    for line in describe(task["task"], kept):
        say(f"  {line}", whole=True)
    if not state.find(name).status.ended:
        hint_without_supervisor(coordinator)


def _found(state: State, name: str) -> Run:
    task = state.find(name.partition(".")[0])
    known = {run.id.lower(): run.id for run in task.runs}
    return state.run(known.get(name.lower(), name))


def _task(coordinator: Coordinator, state: State, name: str) -> dict[str, Any]:
    """The task's row with what only the repository can tell: where its files are."""
    from coordination import views
    from coordination.supervisor.collecting import branch_of

    task = state.find(name)
    facts = coordinator.observed()
    row = views.task_detail(state, facts, coordinator.policies, task)
    workspace = coordinator.workspaces.path(task.id)
    row["runs"] = [_run(coordinator, run) for run in views.runs_of(state, task)]
    row["workspace"] = str(workspace) if workspace.is_dir() else None
    found = branch_of(coordinator, task.id)
    row["branch"] = {"name": found[0].name, "commit": found[0].commit, "landed": found[1] or None} if found else None
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
        ("branch", _branch(task["branch"])),
        ("workspace", task["workspace"]),
    )
    _tell_evidence(task)
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


def _branch(branch: dict[str, Any] | None) -> str:
    if branch is None:
        return ""
    landed = {None: "not landed", "merged": "landed"}.get(
        branch["landed"], f"landed in other commits ({branch['landed']})"
    )
    return f"{branch['name'].removeprefix('refs/heads/')} at {branch['commit'][:12]}: {landed}"


def _tell_evidence(task: dict[str, Any]) -> None:
    """Why its commit may land, or what spoke when it was last judged; all of it about one commit."""
    from coordination import views

    evidence = task["evidence"] or {}
    if evidence:
        by = f"{evidence['reviewer']} {evidence['person']}".strip()
        judged = f"{by or 'no reviewer'}: {evidence['verdict']}"
        at = views.moment(evidence["decided_at"])
        _fields(
            ("evidence", f"of {evidence['commit']} since {evidence['base'][:12]}{f', {at}' if at else ''}"),
            ("reviewer", judged),
            ("reason", evidence["reason"]),
            ("change", _change(evidence)),
            ("cost then", dollars(evidence["cost_usd"], estimated=evidence["cost_estimated"])),
            ("cited", " ".join(evidence["cited"])),
        )
        _tell_gates(evidence["gates"], "")
    for rule in task["rules"]:
        say(f"rule {rule['rule']}{_asks(rule)}: {rule['found']}", whole=True)
    changed = task["changed"] or {"files": [], "unlisted": 0}
    if changed["files"]:
        say(f"look at it: git diff {changed['base'][:12]} {changed['commit'][:12]}")
    for name in changed["files"][:_FILES_MAX]:
        say(f"changes {name}", whole=True)
    left = len(changed["files"][_FILES_MAX:]) + changed["unlisted"]
    if left:
        say(f"changes {left} more; `coord show {task['task']} --json` has {len(changed['files'])} of their names")


def _asks(rule: dict[str, Any]) -> str:
    return {"review": " asks for a review", "person": " asks for a person"}.get(rule["asks"], "")


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
        ("verdict", _verdict(outcome)),
        ("summary", outcome.get("report") if outcome.get("verdict") else ""),
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
        known = f", as in {gate['cached']} on the same files" if gate.get("cached") else ""
        say(f"{indent}gate {gate['gate']} {passed} on {gate['commit'][:12]}{known}")
        failures = gate.get("failures", ())
        if gate.get("flaky"):
            say(f"{indent}  FLAKY: it passed at try {len(failures) + 1}; before that:")
        for failure in failures:
            say(f"{indent}  exit code {failure['exit_code']}:")
            for line in failure.get("output", "").strip().splitlines()[-FAILURE_LINES:]:
                say(f"{indent}    {line}")


def _verdict(outcome: dict[str, Any]) -> str:
    named = f" on {outcome['judged'][:12]}" if outcome.get("judged") else ""
    return f"{outcome['verdict']}{named}" if outcome.get("verdict") else ""


def _change(numbers: dict[str, Any]) -> str:
    files, added, removed, plain = (numbers.get(key, 0) for key in ("files", "insertions", "deletions", "binaries"))
    return f"{files} files, +{added} -{removed}{f', {plain} without lines' if plain else ''}" if files else ""


def _fields(*fields: tuple[str, str | None], indent: str = "") -> None:
    for name, text in fields:
        if text:
            say(f"{indent}{name + ':':<11} {text}", whole=True)


def _block(title: str, text: str | None) -> None:
    if text:
        say()
        say(f"{title}:")
        tell("\n".join(f"  {row}" for row in text.splitlines()))
