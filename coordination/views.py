"""What do people see? State as plain rows: the same for every surface. Pure; keys are stable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from coordination.model.accounts import Account
from coordination.model.commands import newest_work
from coordination.model.endings import kind_of
from coordination.model.experience import shares
from coordination.model.facts import Facts
from coordination.model.money import day_of
from coordination.model.runs import Ending, GateResult, Landed, Outcome, Purpose
from coordination.model.state import Run, State, Task, total
from coordination.model.tasks import Status
from coordination.model.waiting import hindrances, live_by_role, looks_held, order_key
from coordination.policy import Policies, informed
from coordination.policy.weather import until

Row = dict[str, Any]

LINE_MAX = 160
_LOSSES_MAX = 8
_NO_GATES = (
    "no gates by default: every change of a task that names none is reviewed, unless the task says never; see [gates] "
    "in coordination.toml"
)


def moment(at: float) -> str | None:
    """An instant as RFC 3339 in UTC; None for never."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def state_of(state: State, task: Task) -> str:
    """The state to show: a queued task with an unknown dependency is held."""
    return str(Status.HELD if looks_held(state, task) else task.status)


def waiting(state: State, facts: Facts, policies: Policies, task: Task) -> list[str]:
    """Why it does not run, computed now; empty for what runs or has ended."""
    if task.status.ended or task.live:
        return []
    if task.status is Status.WAITING_FOR_PERSON:
        return [task.reason]
    if task.status is Status.APPROVED:
        if task.lands_with:
            return [f"lands with {task.lands_with}"]
        return _pauses(state, task) or [facts.astray or "waits for its turn to land"]
    if task.status in (Status.RUNNING, Status.REVIEWING):
        return _pauses(state, task) or ["waits to be judged: for a slot, or until a run may be repeated"]
    reasons = [*hindrances(state, facts, task), *policies.holds(informed(state, facts), task)]
    return reasons or ["waits for a free slot"]


def choices(task: Task) -> list[str]:
    """What a person can type about a task that waits for one."""
    can = ["show", "approve"] if newest_work(task) is not None else ["show"]
    return [
        *(f"coord {name} {task.id}" for name in can),
        f"coord reject {task.id} --reason TEXT",
        f"coord retry {task.id}",
    ]


def _pauses(state: State, task: Task) -> list[str]:
    """Why the next run of a task that is under way is not planned, as far as people are the reason."""
    everything = ["everything is paused; `coord resume` goes on"] if state.paused else []
    return everything + ([f"paused by a person; `coord resume {task.id}` releases it"] if task.paused else [])


def task_row(state: State, facts: Facts, policies: Policies, task: Task) -> Row:
    """One line about a task."""
    usage = task.usage
    return {
        "task": task.id,
        "state": state_of(state, task),
        "title": task.spec.title,
        "kind": str(task.spec.kind),
        "role": next((run.role for run in reversed(task.runs) if run.purpose is Purpose.WORK), task.spec.role),
        "priority": task.spec.priority,
        "after": list(task.spec.after),
        "attempts": task.attempts,
        "rounds": task.rounds,
        "returns": task.returns,
        "cost_usd": round(usage.cost_usd, 6),
        "cost_estimated": usage.estimated,
        "submitted_at": moment(task.submitted_at),
        "changed_at": moment(task.changed_at),
        "run": task.live[-1].id if task.live else None,
        "lands_with": task.lands_with or None,
        "waiting": waiting(state, facts, policies, task),
        "reason": task.reason,
    }


def runs_of(state: State, task: Task) -> list[Run]:
    """Its runs, and the landings of other tasks that took it along with what they say of it, oldest first."""
    along = [run for name in task.taken_along for run in state.tasks[name.partition(".")[0]].runs if run.id == name]
    return sorted([*task.runs, *(_as_told(run, task.id) for run in along)], key=lambda run: run.token)


def _as_told(run: Run, task: str) -> Run:
    """A landing as far as it concerns one that it took along."""
    if run.outcome is None:
        return run
    whole = run.outcome
    landed = next((landed for landed in whole.batch if landed.task == task), Landed(task=task, kind="left"))
    outcome = Outcome(
        ending=_ENDINGS.get(landed.kind, Ending.CRASHED),
        code=landed.kind,
        reason=landed.reason,
        commit=landed.merge,
        gates=landed.gates,
        conflict=landed.conflict,
        started_at=whole.started_at,
        ended_at=whole.ended_at,
    )
    commit = next((member.commit for member in run.batch if member.task == task), run.commit)
    return replace(run, commit=commit, outcome=outcome)


_ENDINGS = {"merged": Ending.SUCCEEDED, "conflict": Ending.CONFLICT, "gate_failed": Ending.FAILED}


def run_row(run: Run) -> Row:
    """One run with how it ended."""
    row: Row = {
        "run": run.id,
        "purpose": str(run.purpose),
        "role": run.role,
        "model": run.model,
        "reason": run.reason,
        "gate": run.gate,
        "commit": run.commit,
        "planned_at": moment(run.planned_at),
        "started_at": moment(run.started_at),
        "ended_at": moment(run.ended_at),
        "pid": run.pid,
        "continues": run.continues or None,
        "batch": [member.task for member in run.batch],
        "ending": None,
        "outcome": None,
        "explained": None,
    }
    if run.outcome is not None:
        kind = kind_of(run.outcome)
        meaning = {"kind": kind.name, "meaning": kind.says, "remedy": str(kind.how), "most": kind.most}
        row |= {"ending": str(run.outcome.ending), "outcome": _whole(run.outcome), "explained": meaning}
    return row


def task_detail(state: State, facts: Facts, policies: Policies, task: Task) -> Row:
    """Everything about one task: runs, evidence, diff stat, cost, reasons."""
    return task_row(state, facts, policies, task) | {
        "prompt": task.spec.prompt,
        "spec": _whole(task.spec),
        "digest": task.digest,
        "source": task.source,
        "base": task.base or None,
        "commit": task.commit or None,
        "merge": task.merge or None,
        "chain": list(task.chain),
        "report": task.report or None,
        "evidence": _whole(task.evidence),
        "rules": _whole(task.rules),
        "changed": _changed(task),
        "feedback": _whole(task.feedback),
        "runs": [run_row(run) for run in runs_of(state, task)],
        "refused": list(task.refused),
        "unknown_dependencies": [after for after in task.spec.after if state.get(after) is None],
    }


def _changed(task: Task) -> Row | None:
    """The files that landing its newest commit would change, as git told the supervisor; None when there is none."""
    work = task.work_of(task.commit) if task.commit else None
    if work is None or work.outcome is None:
        return None
    outcome = work.outcome
    return {"base": outcome.base, "commit": task.commit, "files": list(outcome.changed), "unlisted": outcome.unlisted}


def ordered(state: State, facts: Facts) -> list[Task]:
    """All tasks: what runs first, then the queue in its order, then what ended, newest first."""
    rank = {Status.QUEUED: 1, Status.HELD: 1}

    def key(task: Task) -> tuple[float, ...]:
        if task.status.ended:
            return (2.0, -task.changed_at, float(task.seq))
        return (float(rank.get(task.status, 0)), *order_key(facts, task))

    return sorted(state.tasks.values(), key=key)


def status(state: State, facts: Facts, policies: Policies, *, seq: int, supervisor: Row) -> Row:
    """What runs, what waits and why, what needs a person, what it cost."""
    tasks = ordered(state, facts)
    # a cancelled task is shown until its last run is stopped
    rows = [task_row(state, facts, policies, task) for task in tasks if not task.status.ended or task.live]
    lives = live_by_role(state)
    roles = sorted(facts.roles) if facts.roles else []
    return {
        "supervisor": supervisor,
        "seq": seq,
        "paused": state.paused,
        "counts": dict(sorted(Counter(state_of(state, task) for task in tasks).items())),
        "running": [row for row in rows if row["run"]],
        "waiting": [row for row in rows if not row["run"] and row["state"] != Status.WAITING_FOR_PERSON],
        "needs_person": [
            row | {"choices": choices(state.tasks[row["task"]])}
            for row in rows
            if row["state"] == Status.WAITING_FOR_PERSON
        ],
        "slots": {role: {"used": lives[role], "most": facts.slots(role)} for role in roles},
        "landing": [run.id for task in tasks for run in task.live if run.purpose is Purpose.LANDING],
        "gates": list(facts.settings.gates.default),
        "gate_results": _gate_results(state),
        "flaky": _flaky(state),
        "warnings": warnings(state, facts),
        "cost_usd": round(state.money.spent_usd, 6),
        "money": _money(state, facts),
        "limits": limits(state, facts),
        "merged": state.merged,
    }


def warnings(state: State, facts: Facts) -> list[str]:
    """What a person should know although no task waits for him."""
    return [
        *([facts.astray] if facts.astray else []),
        *_losses(state),
        *([] if facts.settings.gates.default else [_NO_GATES]),
        *_doubts(_flaky(state)),
    ]


def limits(state: State, facts: Facts) -> list[Row]:
    """The accounts on which nothing starts now."""
    return [_weather(name, account, facts) for name, account in sorted(state.accounts.items()) if account.kind]


def _weather(name: str, account: Account, facts: Facts) -> Row:
    """Why nothing starts on an account, until when, and which run tries whether it is over."""
    return {
        "account": name,
        "kind": account.kind,
        "said": account.said,
        "since": moment(account.since),
        "until": None if account.personal else moment(until(account, facts)),
        "needs_person": account.personal,
        "probe": account.probe or None,
    }


def _money(state: State, facts: Facts) -> Row:
    """What was spent, and what a merged task cost on average, by role and model: its parts add up to the whole."""
    merged = [task for task in state.tasks.values() if task.status is Status.MERGED]
    usage = total(task.usage for task in merged)
    return spending(state, facts) | {
        "a_merged_task_usd": round(usage.cost_usd / len(merged), 6) if merged else None,
        "a_merged_task_estimated": usage.estimated,
        "a_merged_task": [
            {
                "role": share.role,
                "model": share.model,
                "runs": share.runs,
                "usd": round(share.usd / len(merged), 6),
                "estimated": share.estimated,
            }
            for share in shares(merged)
        ],
    }


def spending(state: State, facts: Facts) -> Row:
    """What was spent and is promised, by day, role and model, under which caps; days are days of UTC."""
    money, caps = state.money, facts.settings.money
    return {
        "spent_usd": round(money.spent_usd, 6),
        "estimated": money.estimated,
        "today_usd": round(money.spent_on(day_of(facts.now)), 6),
        "promised_usd": round(money.promised(0.0), 6),
        "by_role": {name: round(usd, 6) for name, usd in sorted(money.by_role.items())},
        "by_model": {name: round(usd, 6) for name, usd in sorted(money.by_model.items())},
        "caps": {"total_usd": caps.total_usd, "day_usd": caps.day_usd},
    }


def _flaky(state: State) -> list[Row]:
    """Gates that passed only when they were run again, with how often and where last."""
    found: dict[str, list[Run]] = {}
    for run, gate in _judgements(state):
        if gate.flaky:
            found.setdefault(gate.gate, []).append(run)
    last = {gate: max(runs, key=lambda run: run.ended_at) for gate, runs in found.items()}
    return [
        {"gate": gate, "times": len(runs), "run": last[gate].id, "at": moment(last[gate].ended_at)}
        for gate, runs in sorted(found.items())
    ]


def _gate_results(state: State) -> Row:
    """How often gates ran, alone or on a merge, and how often what they said before was enough."""
    results = [gate for _, gate in _judgements(state)]
    cached = sum(1 for gate in results if gate.cached)
    return {"run": len(results) - cached, "cached": cached, "flaky": sum(1 for gate in results if gate.flaky)}


def _judgements(state: State) -> Iterator[tuple[Run, GateResult]]:
    for task in state.tasks.values():
        for run in task.runs:
            outcome = run.outcome or Outcome(ending=Ending.STOPPED)
            told = [*outcome.gates, *(gate for landed in outcome.batch for gate in landed.gates)]
            # one merge is tested for all who landed with it, and told of each
            yield from ((run, gate) for gate in {(gate.gate, gate.commit): gate for gate in reversed(told)}.values())


def _doubts(flaky: list[Row]) -> list[str]:
    return [
        f"gate {row['gate']!r} is flaky: {row['times']} times it passed only when run again, last in {row['run']}"
        for row in flaky
    ]


def _losses(state: State) -> list[str]:
    """What repair could not bring back, for as long as the log has it."""
    if not state.losses:
        return []
    numbers = ", ".join(str(loss.seq) for loss in state.losses[:_LOSSES_MAX])
    rest = f" and {len(state.losses) - _LOSSES_MAX} more" if len(state.losses) > _LOSSES_MAX else ""
    lines = [f"batches {numbers}{rest} of the log are lost; what they said is kept in {state.losses[0].evidence}"]
    if state.lost:
        lines.append(f"tasks whose submission is lost, so that they must be submitted again: {', '.join(state.lost)}")
    if state.aside:
        lines.append(f"{state.aside} later events did not fit what is known, and were left aside")
    return lines


def narrated(record_type: str, body: Row) -> str:
    """One event as a sentence for people who follow along."""
    task, run = body.get("task", ""), body.get("run", "")
    match record_type:
        case "TaskSubmitted":
            return f"{task} submitted: {body['spec']['title']}"
        case "RunPlanned":
            who = f" by {body['role']} ({body['model']})" if body.get("role") else ""
            return f"{run} planned{who}: {_line(body.get('reason', ''))}"
        case "RunStarted":
            return f"{run} started (pid {body.get('pid', 0)})"
        case "RunEnded":
            outcome = body["outcome"]
            usage = outcome.get("usage", {})
            cost, about = usage.get("cost_usd", 0.0), "about " if usage.get("estimated") else ""
            verdict = f", verdict {outcome['verdict']}" if outcome.get("verdict") else ""
            spent = f", {about}{cost:.4f} USD" if cost else ""
            said = f": {_line(outcome['reason'])}" if outcome.get("reason") else ""
            return f"{run} {outcome['ending']}{verdict}{spent}{said}"
        case "TaskRequeued":
            return f"{task} back to the queue ({body['reason']['kind']}): {_line(body['reason']['message'])}"
        case "TaskApproved":
            evidence = body["evidence"]
            return f"{task} approved at {evidence['commit'][:12]}: {_line(evidence.get('reason', ''))}"
        case "TaskMerged":
            return f"{task} merged as {body['merge'][:12]}"
        case "TaskDone":
            return f"{task} done: {_line(body.get('report', ''))}"
        case "TaskEscalated":
            return f"{task} waits for a person: {_line(body['reason'])}"
        case "TaskFailed" | "DependencyFailed":
            return f"{task} failed: {_line(body['reason'])}"
        case "IntegrationRestored":
            return f"{body['branch']} was gone and is made again at {body['commit'][:12]}: {_line(body['reason'])}"
        case "BatchLost":
            named = ", ".join(body.get("tasks", ())) or "no task that could be read"
            return f"a batch is lost ({_line(body.get('reason', ''))}): it spoke of {named}; everything is paused"
        case "TaskCancelled" | "TaskHeld" | "TaskReleased":
            return f"{task} {record_type.removeprefix('Task').lower()}"
        case _:
            said = ", ".join(
                f"{key} {value}" for key, value in body.items() if key not in ("seq", "index", "at", "type")
            )
            return f"{_words(record_type)}{': ' + said if said else ''}"


def _whole(value: Any) -> Any:
    """A value with all its keys: what is written down leaves out defaults, and readers want keys that stay."""
    if isinstance(value, msgspec.Struct):
        return {field.encode_name: _whole(getattr(value, field.name)) for field in msgspec.structs.fields(value)}
    return [_whole(entry) for entry in value] if isinstance(value, tuple) else msgspec.to_builtins(value)


def _line(text: str) -> str:
    first = text.strip().splitlines()[0] if text.strip() else ""
    return first if len(first) <= LINE_MAX else first[: LINE_MAX - 1] + "…"


def _words(name: str) -> str:
    return "".join(f" {sign.lower()}" if sign.isupper() else sign for sign in name).strip()
