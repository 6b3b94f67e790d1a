"""What people and outcomes ask for: pure functions from a state to events.

Each is idempotent: asked again in the state it leads to, it returns no events. What is illegal raises Refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from coordination.errors import Refused, Rejected
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Outcome, Purpose
from coordination.model.state import Run, State, Task, gate_results
from coordination.model.taskfile import Submission
from coordination.model.tasks import Status

NAMED_MAX = 64  # signs of what a reviewer calls a commit
SHORTEST_COMMIT = 7  # as many signs of a commit's name as a person must give, at least


def submit(
    state: State, submission: Submission, *, ticket: str = "", source: str = ""
) -> tuple[str, Sequence[e.AnyEvent]]:
    """The id the submission has (or gets), and the event that says so.

    The same ticket, or the same id with the same content, is a no-op. Raises Rejected when the id is taken by other
    content or the dependencies form a cycle.
    """
    if ticket and ticket in state.tickets:
        return state.tickets[ticket], ()
    known = state.get(submission.id) if submission.id else None
    if known is not None:
        _same_content(known, submission)
        return known.id, ()
    task = submission.id or f"t{state.mint}"
    _no_cycle(state, task, submission.spec.after)
    event = e.TaskSubmitted(task=task, spec=submission.spec, digest=submission.digest, ticket=ticket, source=source)
    return task, (event,)


def _same_content(known: Task, submission: Submission) -> None:
    if known.digest != submission.digest:
        raise Rejected(
            f"task {known.id!r} exists with other content; choose another id",
            field="id",
            expected=f"content with SHA-256 {known.digest}",
            found=submission.digest,
        )


def _no_cycle(state: State, task: str, after: Sequence[str]) -> None:
    """Refuse when following ``after`` from this task leads back to it. Iterative: chains may be long."""
    stack: list[tuple[str, tuple[str, ...]]] = [(first, (task, first)) for first in after]
    seen: set[str] = set()
    while stack:
        current, path = stack.pop()
        if current.lower() == task.lower():
            loop = " -> ".join(path)
            raise Rejected(f"dependencies form a cycle: {loop}", field="after", expected="no cycle", found=loop)
        if current.lower() in seen:
            continue
        seen.add(current.lower())
        known = state.get(current)
        if known is not None:
            stack += [(following, (*path, following)) for following in known.spec.after]


def start(run: Run, *, pid: int) -> Sequence[e.AnyEvent]:
    """A worker holds the run's lock."""
    return () if run.started_at or not run.live else (e.RunStarted(task=run.task, run=run.id, pid=pid),)


def end(state: State, run_id: str, outcome: Outcome, *, token: int) -> Sequence[e.AnyEvent]:
    """Accept an outcome as a fact, or record why not: superseded by another token, or ended already."""
    run = state.run(run_id)
    if not run.live:
        return ()
    if token != run.token:
        reason = f"fencing token {token} is not the run's {run.token}: the outcome comes from a superseded worker"
        return (e.RunRefused(task=run.task, run=run.id, reason=reason),)
    return (e.RunEnded(task=run.task, run=run.id, outcome=_proven(state.find(run.task), run, outcome)),)


def _proven(task: Task, run: Run, outcome: Outcome) -> Outcome:
    """The outcome, unless it claims a success and shows nothing for it: that is none."""
    lacking = _lacking(task, run, outcome) if outcome.ending is Ending.SUCCEEDED else ""
    if not lacking:
        return _of_this_commit(run, _of_this_gate(run, outcome))
    # A landing without a word about the commit is made again; it is no return of the work.
    ending = Ending.CRASHED if run.purpose is Purpose.LANDING else Ending.FAILED
    reason = f"the run says that it succeeded but shows no {lacking}"
    return replace(outcome, ending=ending, code="unproven", reason=reason)


def _of_this_gate(run: Run, outcome: Outcome) -> Outcome:
    """A gate's run speaks for that gate on that commit: what else it claims to have passed, nobody asked it to run."""
    if run.purpose is not Purpose.GATE:
        return outcome
    own = tuple(result for result in outcome.gates if (result.gate, result.commit) == (run.gate, run.commit))
    return outcome if own == outcome.gates else replace(outcome, gates=own)


def _of_this_commit(run: Run, outcome: Outcome) -> Outcome:
    """A verdict counts for the commit that it names, and only if that is the one which the run was asked about."""
    if run.purpose is not Purpose.REVIEW or outcome.ending is not Ending.SUCCEEDED or outcome.judged == run.commit:
        return outcome
    named = f"commit {outcome.judged[:NAMED_MAX]!r}" if outcome.judged else "no commit"
    reason = f"the verdict {outcome.verdict!r} names {named}, expected {run.commit}: it counts for nothing"
    judged = outcome.judged[:NAMED_MAX]
    return replace(outcome, ending=Ending.FAILED, code="other_commit", reason=reason, judged=judged)


def _lacking(task: Task, run: Run, outcome: Outcome) -> str:
    """What a success of that purpose must show and this one does not."""
    match run.purpose:
        case Purpose.WORK if task.spec.kind.read_only:
            return "" if outcome.report.strip() else "report"
        case Purpose.WORK | Purpose.LANDING:
            return "" if outcome.commit else "commit"
        case Purpose.GATE:
            passed = any((r.gate, r.commit) == (run.gate, run.commit) and r.passed for r in outcome.gates)
            return "" if passed else f"passing result of gate {run.gate!r} on {run.commit[:12]}"
        case Purpose.REVIEW:
            return "" if outcome.verdict in ("approve", "reject") else "verdict"


def cancel(state: State, task_id: str, reason: str = "") -> Sequence[e.AnyEvent]:
    """A person no longer wants it. What lands just now cannot be cancelled."""
    task = state.find(task_id)
    if task.status is Status.CANCELLED:
        return ()
    if task.status.ended_well or task.status is Status.FAILED:
        raise Refused(f"{task.id} has ended ({task.status}); there is nothing to cancel")
    if task.lands_with or any(run.purpose is Purpose.LANDING for run in task.live):
        raise Refused(f"{task.id} is landing just now; `coord show {task.id}` tells how it ends")
    # Between the end of the landing and the event that says so, the branch has it already.
    with_others = task.landed is not None and task.landed.kind == "merged"
    alone = any(run.purpose is Purpose.LANDING and run.succeeded for run in task.runs)
    if not task.doubt and (with_others or alone):
        raise Refused(f"{task.id} has just landed; there is nothing to cancel")
    return (e.TaskCancelled(task=task.id, reason=reason),)


_RETRIED = frozenset({Status.FAILED, Status.CANCELLED, Status.DEPENDENCY_FAILED, Status.WAITING_FOR_PERSON})


def retry(state: State, task_id: str) -> Sequence[e.AnyEvent]:
    """Try again with fresh counters, and give the tasks that failed only because of it another chance."""
    task = state.find(task_id)
    if task.status in (Status.QUEUED, Status.HELD):
        return ()
    if task.status not in _RETRIED:
        raise Refused(f"{task.id} is {task.status}; only a task that failed, was cancelled or waits can be retried")
    if task.live:
        raise Refused(f"{task.id} still has a run that is being stopped: {task.live[0].id}; try again in a moment")
    if task.lands_with:
        raise Refused(f"{task.id} is landing just now, with {task.lands_with}; try again in a moment")
    events: list[e.AnyEvent] = [_retried(task.id, "retried by a person")]
    freed = {task.id}
    # One pass an ancestor: dependants of dependants follow in the next.
    changed = True
    while changed:
        changed = False
        for other in state.tasks.values():
            if other.status is Status.DEPENDENCY_FAILED and other.id not in freed and freed & _needs(state, other):
                events.append(_retried(other.id, f"{task.id}, which it needs, is tried again"))
                freed.add(other.id)
                changed = True
    return events


def _retried(task_id: str, message: str) -> e.TaskRequeued:
    return e.TaskRequeued(task=task_id, reason=e.RequeueReason(kind="retried", message=message))


def _needs(state: State, task: Task) -> set[str]:
    return {known.id for after in task.spec.after if (known := state.get(after)) is not None}


def pause(state: State, task_id: str | None, reason: str = "") -> Sequence[e.AnyEvent]:
    """Hold one task (its present run finishes), or start nothing new at all."""
    if task_id is None:
        return () if state.paused else (e.CoordinationPaused(reason=reason),)
    task = state.find(task_id)
    if task.status.ended:
        raise Refused(f"{task.id} has ended ({task.status}); there is nothing to pause")
    return () if task.paused else (e.TaskHeld(task=task.id, reason=reason or "paused by a person"),)


def resume(state: State, task_id: str | None) -> Sequence[e.AnyEvent]:
    """Release one task, or let everything go on."""
    if task_id is None:
        parked = any(account.kind for account in state.accounts.values())
        return (e.CoordinationResumed(),) if state.paused or parked else ()
    task = state.find(task_id)
    if task.status.ended:
        raise Refused(f"{task.id} has ended ({task.status}); there is nothing to resume")
    return (e.TaskReleased(task=task.id),) if task.paused else ()


def approve(
    state: State, task_id: str, *, commit: str = "", person: str = "", at: float = 0.0, gates: Sequence[str] = ()
) -> Sequence[e.AnyEvent]:
    """A person takes responsibility for the newest commit; of ``commit``, if that is the one they looked at.

    ``gates`` are those of a task that names none. Raises Refused.
    """
    task = state.find(task_id)
    if task.status in (Status.APPROVED, Status.MERGED):
        _refuse_another(task, commit, task.evidence.commit if task.evidence is not None else task.commit)
        return ()
    if task.status is not Status.WAITING_FOR_PERSON:
        raise Refused(f"{task.id} is {task.status}; only a task that waits for a person can be approved")
    work = newest_work(task)
    if work is None or work.outcome is None or not work.outcome.commit:
        raise Refused(f"{task.id} has no commit to approve; `coord retry {task.id}` starts over")
    _refuse_another(task, commit, work.outcome.commit)
    return (e.TaskApproved(task=task.id, evidence=_persons(task, work.outcome.commit, person, at, gates)),)


def _refuse_another(task: Task, asked: str, newest: str) -> None:
    if asked and (len(asked) < SHORTEST_COMMIT or not newest.startswith(asked.lower())):
        raise Refused(
            f"the newest commit of {task.id} is {newest}, and you name {asked!r}; look at it with "
            f"`coord show {task.id}`, then say `coord approve {task.id} --commit {newest[:12]}`"
        )


def _persons(task: Task, commit: str, person: str, at: float, gates: Sequence[str]) -> e.Evidence:
    """What a person let through, and against what: gates that failed or never ran, and a reviewer's rejection."""
    wanted = task.spec.gates if task.spec.gates is not None else gates
    newest = gate_results(task.runs, commit)
    against = [f"gate {name} exited {result.exit_code}" for name, result in newest.items() if not result.passed]
    against += [f"gate {name} has not run on it" for name in wanted if name not in newest]
    against += [f"{run.id} rejected it" for run in task.runs if run.verdict_on(commit) == "reject"]
    who = f"approved by a person ({person})" if person else "approved by a person"
    who += "".join(f" after {run.id} approved it" for run in task.runs if run.verdict_on(commit) == "approve")
    return evidence(
        task,
        commit,
        gates=tuple(newest.values()),
        gates_configured=bool(newest or wanted),
        reviewer="person",
        person=person,
        verdict="approve",
        reason=f"{who}, although {', '.join(against)}" if against else who,
        rules=task.rules,
        decided_at=at,
    )


def evidence(task: Task, commit: str, **said: Any) -> e.Evidence:
    """What speaks for one commit: how large the change is, by the run that made it, and what the task has cost."""
    work = task.work_of(commit)
    outcome = work.outcome if work is not None else None
    diff = (outcome.diff if outcome is not None else None) or DiffStat()
    usage = task.usage
    return e.Evidence(
        commit=commit,
        base=outcome.base if outcome is not None else task.base,
        files=diff.files,
        insertions=diff.insertions,
        deletions=diff.deletions,
        binaries=diff.binaries,
        cost_usd=usage.cost_usd,
        cost_estimated=usage.estimated,
        **said,
    )


def newest_work(task: Task) -> Run | None:
    """The last work run that committed something."""
    works = [r for r in task.runs if r.purpose is Purpose.WORK and r.outcome is not None and r.outcome.commit]
    return works[-1] if works else None


def reject(state: State, task_id: str, reason: str) -> Sequence[e.AnyEvent]:
    """A person sends it back with a reason; raises no counter."""
    task = state.find(task_id)
    if task.status is not Status.WAITING_FOR_PERSON:
        raise Refused(f"{task.id} is {task.status}; only a task that waits for a person can be rejected")
    return (e.TaskRequeued(task=task.id, reason=e.RequeueReason(kind="answered", message=reason)),)


def stop(state: State, mode: str) -> Sequence[e.AnyEvent]:
    """Ask the present supervisor to stop. A milder wish never replaces a harder one."""
    ranks = {"": 0, "drain": 1, "finish": 2, "force": 3}
    if not state.supervisor or ranks[mode] <= ranks[state.stop]:
        return ()
    return (e.StopRequested(supervisor=state.supervisor, mode=mode),)
