"""What has landed and is not on the user's branch yet, and how does it get there: by fast-forward, or a pull request?

The use case behind ``coord land``. Which tasks a commit is of is told by the log; the rest by the repository.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError, GitFailed, Refused
from coordination.model.runs import DiffStat, Purpose
from coordination.model.state import State, Task
from coordination.workspaces.upkeep import Bringing

GH_SECONDS = 120.0
_BODY_TASKS_MAX = 200


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One commit that the target gains, along the first parents."""

    commit: str
    subject: str


class Landed(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose merge is among them."""

    task: str
    title: str
    merge: str
    reviewer: str = ""
    gates: tuple[str, ...] = ()
    files: int = 0
    insertions: int = 0
    deletions: int = 0
    cost_usd: float = 0.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What would be brought, or was."""

    bringing: Bringing
    tasks: tuple[Landed, ...] = ()
    commits: tuple[Step, ...] = ()
    diff: DiffStat | None = None


def survey(coordinator: Coordinator, *, now: bool = False) -> Delivery:
    """What ``deliver`` would do; changes nothing. ``now``: also while a task is landing."""
    git = coordinator.settings.git
    found = coordinator.workspaces.survey_checkout(
        coordinator.home.repository.root, target=git.target, integration=git.integration
    )
    return _described(coordinator, found if now else _waited_for(coordinator, found))


def deliver(coordinator: Coordinator, *, now: bool = False) -> Delivery:
    """Bring what landed to the user's branch, if nothing stands in the way. May be repeated."""
    before = survey(coordinator, now=now)
    if before.bringing.state != "ready":
        return before
    git = coordinator.settings.git
    done = coordinator.workspaces.bring(
        coordinator.home.repository.root, target=git.target, integration=git.integration
    )
    return _described(coordinator, done)


def _waited_for(coordinator: Coordinator, found: Bringing) -> Bringing:
    """Refused while a task is landing: what it brings belongs to what a person would expect to get."""
    landing = [run.id for run in coordinator.state().live_runs() if run.purpose is Purpose.LANDING]
    if found.state != "ready" or not landing:
        return found
    return msgspec.structs.replace(
        found,
        state="refused",
        reason=f"{landing[0]} is under way: it lands just now",
        remedy="wait until it has ended (`coord status`), or bring only what has landed by now: coord land --now",
    )


def _described(coordinator: Coordinator, bringing: Bringing) -> Delivery:
    old, new = bringing.old, bringing.new
    if not old or not new or bringing.state == "nothing":
        return Delivery(bringing=bringing)
    workspaces = coordinator.workspaces
    steps = tuple(Step(commit=commit, subject=said) for commit, said in workspaces.first_parents(old, new))
    return Delivery(
        bringing=bringing,
        tasks=_tasks(coordinator.state(), {step.commit for step in steps}),
        commits=steps,
        diff=workspaces.diff_stat(old, new),
    )


def _tasks(state: State, commits: set[str]) -> tuple[Landed, ...]:
    landed = (task for task in state.tasks.values() if task.merge in commits)
    return tuple(_landed(task) for task in sorted(landed, key=lambda task: (task.changed_at, task.seq, task.index)))


def _landed(task: Task) -> Landed:
    evidence = task.evidence
    return Landed(
        task=task.id,
        title=task.spec.title,
        merge=task.merge,
        reviewer=evidence.reviewer if evidence else "",
        gates=tuple(gate.gate for gate in evidence.gates if gate.passed) if evidence else (),
        files=evidence.files if evidence else 0,
        insertions=evidence.insertions if evidence else 0,
        deletions=evidence.deletions if evidence else 0,
        cost_usd=round(task.usage.cost_usd, 6),
    )


# -- pull requests ---------------------------------------------------------------------------------------------------


class PullRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of the remote's host."""

    remote: str
    branch: str
    base: str
    title: str
    body: str
    url: str = ""
    state: str = ""  # opened | updated; "" before


def prepare(coordinator: Coordinator, delivery: Delivery) -> PullRequest:
    """What ``open_request`` would push and ask for; changes nothing. Raises Refused when that cannot be."""
    bringing, root = delivery.bringing, coordinator.home.repository.root
    if not delivery.commits:
        raise Refused(f"there is nothing to open a pull request for: {bringing.reason}")
    _program()
    remote = coordinator.workspaces.remote_of(root, bringing.target)
    if not remote:
        raise Refused(f"{bringing.target} is kept at no remote. Run: git -C {root} remote add origin <address>")
    count = len(delivery.tasks)
    return PullRequest(
        remote=remote,
        branch=bringing.integration,
        base=bringing.target,
        title=delivery.tasks[0].title if count == 1 else f"Land {count} tasks",
        body=_body(delivery),
    )


def open_request(coordinator: Coordinator, wanted: PullRequest) -> PullRequest:
    """Push the integration branch and open a pull request, or update the open one. May be repeated. Raises Refused."""
    root = coordinator.home.repository.root
    try:
        coordinator.workspaces.push(root, wanted.remote, wanted.branch)
    except GitFailed as error:
        raise Refused(
            f"git could not push {wanted.branch} to {wanted.remote}: {error.stderr}. Nothing else was done"
        ) from error
    branches = ("--base", wanted.base, "--head", wanted.branch)
    known = _url(_gh(root, "pr", "list", *branches, "--state", "open", "--json", "url"))
    if known:
        return msgspec.structs.replace(wanted, url=known, state="updated")
    said = _gh(root, "pr", "create", *branches, "--title", wanted.title, "--body-file", "-", stdin=wanted.body)
    return msgspec.structs.replace(wanted, url=said.strip().split("\n")[-1], state="opened")


def _body(delivery: Delivery) -> str:
    lines = [_line(task) for task in delivery.tasks[:_BODY_TASKS_MAX]]
    if len(delivery.tasks) > _BODY_TASKS_MAX:
        lines.append(f"- and {len(delivery.tasks) - _BODY_TASKS_MAX} more")
    return "\n".join([*lines, "", "Each merge commit carries its reviewer, verdict and gates as trailers.", ""])


def _line(task: Landed) -> str:
    judged = f"reviewed by {task.reviewer}" if task.reviewer else "no review needed"
    gates = f"; gates {', '.join(task.gates)}" if task.gates else ""
    return f"- `{task.task}` {' '.join(task.title.split())} (+{task.insertions} -{task.deletions}; {judged}{gates})"


def _program() -> str:
    found = shutil.which("gh")
    if found is None:
        raise Refused("a pull request is opened by gh, which is not on PATH: install it (https://cli.github.com)")
    return found


def _gh(root: Path, *arguments: str, stdin: str = "") -> str:
    call = f"gh {' '.join(arguments[:2])}"
    try:
        done = subprocess.run(
            [_program(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            cwd=root,
            env=os.environ | {"GH_PROMPT_DISABLED": "1", "NO_COLOR": "1"},
            timeout=GH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CoordinationError(f"{call} did not end within {GH_SECONDS:g} s; the branch is pushed") from error
    if done.returncode != 0:
        raise Refused(f"{call} failed with {done.returncode}: {done.stderr.strip()}. The branch is pushed")
    return done.stdout


def _url(listed: str) -> str:
    try:
        return str(json.loads(listed)[0]["url"])
    except (ValueError, LookupError, TypeError):
        return ""
