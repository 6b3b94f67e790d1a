"""What is true now: tasks and their runs, folded from records.

``fold`` owns the state it is given: it changes it in place and returns it, so that folding a long log stays linear.
Tasks and runs themselves are frozen and replaced. Whoever holds a state may read it freely between folds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from coordination.errors import NotFound
from coordination.model import accounts, money
from coordination.model import events as e
from coordination.model.accounts import Account
from coordination.model.money import Money
from coordination.model.runs import Ending, GateResult, Landed, Limits, Member, Outcome, Purpose, Rule, Usage, Value
from coordination.model.tasks import ENDED, ENDED_WELL, TRANSITIONS, Status, TaskSpec

FEEDBACK_MAX = 12


class Run(Value, frozen=True, kw_only=True):
    """One process for one purpose."""

    id: str
    task: str
    purpose: Purpose
    token: int  # fencing token: sequence number of the batch that planned it
    planned_at: float
    role: str = ""
    model: str = ""
    reason: str = ""
    gate: str = ""
    commit: str = ""
    base: str = ""
    bring_in: str = ""
    limits: Limits = Limits()
    account: str = ""
    continues: str = ""  # the run whose session it goes on with
    lean: bool = False
    onto: str = ""
    batch: tuple[Member, ...] = ()
    started_at: float = 0.0
    pid: int = 0
    ended_at: float = 0.0
    outcome: Outcome | None = None

    @property
    def live(self) -> bool:
        """Whether no outcome has been accepted for it yet."""
        return self.outcome is None

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.outcome is not None and self.outcome.ending is Ending.SUCCEEDED

    def verdict_on(self, commit: str) -> str:
        """What it said of exactly that commit, approve or reject; "" when it is no review of it."""
        if self.purpose is not Purpose.REVIEW or self.commit != commit or self.outcome is None or not self.succeeded:
            return ""
        # a log of the time when verdicts named no commit was believed; what is recorded since was compared
        return self.outcome.verdict if self.outcome.judged in ("", commit) else ""


class Task(Value, frozen=True, kw_only=True):
    """What is wanted, where it stands, and everything that was tried."""

    id: str
    spec: TaskSpec
    digest: str
    seq: int
    index: int
    submitted_at: float
    ticket: str = ""
    source: str = ""
    status: Status = Status.QUEUED
    paused: bool = False
    attempts: int = 0
    rounds: int = 0
    returns: int = 0
    cycle: int = 0  # runs[cycle:] belong to the present try
    trial: int = 0  # runs[trial:] were planned since a person last brought it back from its end
    decided: int = 0  # runs[decided:] were planned since a person last decided about it
    landing: int = 0  # runs[landing:] were planned after its approval
    not_before: float = 0.0
    base: str = ""  # where its branch started, by SHA
    commit: str = ""  # the newest commit of its work
    merge: str = ""
    reason: str = ""  # why it stands where it stands
    report: str = ""
    chain: tuple[str, ...] = ()
    feedback: tuple[e.RequeueReason, ...] = ()
    rules: tuple[Rule, ...] = ()  # what spoke when its commit was last judged
    evidence: e.Evidence | None = None
    runs: tuple[Run, ...] = ()
    refused: tuple[str, ...] = ()
    changed_at: float = 0.0
    doubt: int = 0  # the lost batch that named it last, until a person decides or it ends; 0: there is none
    skipped: int = 0  # numbers that runs in lost batches may have had
    lands_with: str = ""  # the landing of another task that takes it along, while that lives
    taken_along: tuple[str, ...] = ()  # all that did so, oldest first
    landed: Landed | None = None  # what became of it there, until that is acted upon
    other_side: str = ""  # what to take in since such a landing sent it back: a commit, or "integration"

    @property
    def present(self) -> tuple[Run, ...]:
        """The runs of the present try."""
        return self.runs[self.cycle :]

    @property
    def live(self) -> tuple[Run, ...]:
        """Runs whose outcome is not known yet."""
        return tuple([run for run in self.runs if run.outcome is None])

    def work_of(self, commit: str) -> Run | None:
        """The newest work run that made that commit."""
        made = (run for run in reversed(self.runs) if run.purpose is Purpose.WORK and run.outcome is not None)
        return next((run for run in made if run.outcome is not None and run.outcome.commit == commit), None)

    @property
    def usage(self) -> Usage:
        """What all its runs cost together."""
        return total(run.outcome.usage for run in self.runs if run.outcome is not None)

    def next_run(self, purpose: Purpose) -> str:
        """The id of its next run: derived, so that planning twice names the same one."""
        return f"{self.id}.{len(self.runs) + self.skipped + 1}.{purpose}"


def gate_results(runs: Iterable[Run], commit: str) -> dict[str, GateResult]:
    """The newest result of each gate on that commit; a gate that we stopped has said nothing about it."""
    conclusive = (Ending.SUCCEEDED, Ending.FAILED)
    gates = [run.outcome for run in runs if run.purpose is Purpose.GATE and run.outcome is not None]
    ended = [outcome for outcome in gates if outcome.ending in conclusive]
    return {gate.gate: gate for outcome in ended for gate in outcome.gates if gate.commit == commit}


def total(usages: Iterable[Usage]) -> Usage:
    """Sum of what runs cost."""
    cost, estimated, tokens_in, tokens_out, turns = 0.0, False, 0, 0, 0
    for usage in usages:
        cost += usage.cost_usd
        estimated = estimated or usage.estimated
        tokens_in += usage.input_tokens
        tokens_out += usage.output_tokens
        turns += usage.turns
    return Usage(cost_usd=cost, estimated=estimated, input_tokens=tokens_in, output_tokens=tokens_out, turns=turns)


class Loss(Value, frozen=True, kw_only=True):
    """A batch that nobody can read any more."""

    seq: int
    tasks: tuple[str, ...] = ()
    evidence: str = ""
    reason: str = ""


class State(msgspec.Struct, kw_only=True):
    """Everything, at one sequence number."""

    tasks: dict[str, Task] = {}
    keys: dict[str, str] = {}  # lower-case id -> id, because ids are compared without case
    tickets: dict[str, str] = {}  # inbox ticket -> task
    open: dict[str, None] = {}  # tasks that have not ended, in submission order
    # what planning looks at, so that a step costs what moves and not what waits; kept by ``_put``
    busy: dict[str, None] = {}  # tasks that run, are judged or land, or have a live run
    queued: dict[str, list[str]] = {}  # tasks that may be started: lines of those alike, in submission order
    holding: dict[str, None] = {}  # tasks that hold their paths
    based: dict[str, None] = {}  # tasks that have not started and name a base
    needed_by: dict[str, list[str]] = {}  # lower-case id -> the tasks that wait for it
    fallen: dict[str, None] = {}  # tasks that ended badly and that others wait for
    mint: int = 1  # smallest n for which "t<n>" is free
    paused: bool = False
    supervisor: str = ""
    stop: str = ""  # mode asked of the present supervisor
    integration: str = ""  # where the integration branch was made, by SHA
    merged: int = 0
    accounts: dict[str, Account] = {}  # the weather of each
    money: Money = Money()
    losses: list[Loss] = []
    lost: dict[str, int] = {}  # tasks whose submission is lost -> how many of their later events mean nothing
    aside: int = 0  # events left aside since the first loss, because they do not fit what is known

    def find(self, task: str) -> Task:
        """The task of that id, whatever the case. Raises NotFound."""
        key = self.keys.get(task.lower())
        if key is None:
            raise NotFound(f"no task {task!r}; `coord tasks` lists them")
        return self.tasks[key]

    def get(self, task: str) -> Task | None:
        """The task of that id, or None."""
        key = self.keys.get(task.lower())
        return None if key is None else self.tasks[key]

    def run(self, run: str) -> Run:
        """The run of that id. Raises NotFound."""
        task = self.find(run.partition(".")[0])
        for candidate in task.runs:
            if candidate.id == run:
                return candidate
        raise NotFound(f"no run {run!r}; `coord show {task.id}` lists its runs")

    def live_runs(self) -> list[Run]:
        """Runs without an outcome, oldest first; those of cancelled tasks too."""
        found = (run for task in self.busy for run in self.tasks[task].live)
        return sorted(found, key=lambda run: (run.token, run.id))

    def tasks_alive(self) -> Iterable[Task]:
        """Tasks that may still change by themselves."""
        return [self.tasks[task] for task in self.open]


def copied(state: State) -> State:
    """A state of its own, to fold on and see what would be. Only containers are copied: what they hold is frozen."""
    return State(**{name: _own(value) for name, value in msgspec.structs.asdict(state).items()})


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _own(found) for name, found in value.items()}
    return list(value) if isinstance(value, list) else value


class Core:
    """The state as a projection: a named fold with a version for its snapshots."""

    name = "core"
    version = 3

    def initial(self) -> State:
        """Nothing has happened."""
        return State()

    def fold(self, state: State, record: e.Record) -> State:
        """Take one record in."""
        return fold(state, record)

    def dump(self, state: State) -> bytes:
        """The state as JSON. Dictionaries keep their order: it is part of what the records said."""
        return _encoder.encode(state)

    def load(self, dump: bytes) -> State:
        """The state back from its dump. Raises msgspec.DecodeError."""
        return _decoder.decode(dump)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(State)


def fold(state: State, record: e.Record) -> State:
    """Take one record in."""
    if state.losses and not _fits(state, record, record.event):
        _take_in_doubt(state, record, record.event)
    else:
        _MEANINGS[type(record.event)](state, record, record.event)
    return state


def _put(state: State, record: e.Record, task: Task, **changes: Any) -> None:
    """Every change of a task goes through here, once a record: copying it is most of what a fold costs."""
    before, task = state.tasks.get(task.id), replace(task, changed_at=record.at, **changes)
    state.tasks[task.id] = task
    _file(state, before, task)
    if task.status in ENDED and not task.live:
        state.open.pop(task.id, None)
    elif task.id not in state.open:
        # A retried task comes back at the end; order of starting is by key, never by this.
        state.open[task.id] = None


def _move(state: State, record: e.Record, task_id: str, status: Status, **changes: Any) -> None:
    task = state.tasks[task_id]
    # Only a bug in a command can break this: the world cannot put an illegal fact into the log, it can only lose some.
    legal = status in TRANSITIONS[task.status] or status is task.status or task.doubt
    assert legal, f"{task_id}: {task.status} -> {status}"
    _put(state, record, task, status=status, **changes)


def _submit(state: State, record: e.Record, event: e.TaskSubmitted) -> None:
    assert event.task.lower() not in state.keys, f"{event.task} submitted twice"
    state.keys[event.task.lower()] = event.task
    if event.ticket:
        state.tickets[event.ticket] = event.task
    state.lost.pop(event.task, None)
    _mint(state)
    task = state.tasks[event.task] = Task(
        id=event.task,
        spec=event.spec,
        digest=event.digest,
        seq=record.seq,
        index=record.index,
        submitted_at=record.at,
        ticket=event.ticket,
        source=event.source,
        changed_at=record.at,
    )
    state.open[event.task] = None
    for after in event.spec.after:
        state.needed_by.setdefault(after.lower(), []).append(task.id)
        cause = state.get(after)
        if cause is not None and cause.status in _BADLY:
            state.fallen[cause.id] = None
    _file(state, None, task)


_BUSY = frozenset({Status.RUNNING, Status.REVIEWING, Status.APPROVED})
_BADLY = ENDED - ENDED_WELL


def _file(state: State, before: Task | None, task: Task) -> None:
    """Keep what planning looks at: where the task stands now, and no longer where it stood before."""
    live = bool(task.runs and task.live)
    alive = live or task.status not in ENDED
    _mark(state.busy, task.id, live or task.status in _BUSY)
    _mark(state.holding, task.id, bool(task.spec.paths) and alive and len(task.runs) > task.trial)
    _mark(state.based, task.id, task.spec.base is not None and alive and not task.base)
    _mark(state.fallen, task.id, task.status in _BADLY and task.id.lower() in state.needed_by)
    waits, waited = task.status is Status.QUEUED, before is not None and before.status is Status.QUEUED
    if waits != waited:
        alike = f"{task.spec.priority}/{task.spec.role}/{task.spec.kind}"
        line = state.queued.setdefault(alike, [])
        at = bisect_left(line, (task.seq, task.index), key=lambda name: _place(state, name))
        if waits:
            line.insert(at, task.id)
        else:
            del line[at]
        if not line:
            del state.queued[alike]


def _place(state: State, name: str) -> tuple[int, int]:
    task = state.tasks[name]
    return task.seq, task.index


def _mark(names: dict[str, None], name: str, stands: bool) -> None:
    if stands:
        names[name] = None
    else:
        names.pop(name, None)


def _mint(state: State) -> None:
    while (task := f"t{state.mint}") in state.keys or task in state.lost:
        state.mint += 1


_STATUS_OF_RUN = {
    Purpose.WORK: Status.RUNNING,
    Purpose.GATE: Status.REVIEWING,
    Purpose.REVIEW: Status.REVIEWING,
    Purpose.LANDING: Status.APPROVED,
}


def _plan(state: State, record: e.Record, event: e.RunPlanned) -> None:
    task = state.tasks[event.task]
    assert event.run == task.next_run(event.purpose), f"{event.run} planned out of turn"
    status, base = _STATUS_OF_RUN[event.purpose], task.base or event.base
    runs = (*task.runs, _planned(record, event))
    if event.account:
        state.accounts[event.account] = accounts.planned(state.accounts.get(event.account, Account()), event.run)
        state.money = money.reserved(state.money, event.run, event.role, event.limits.budget_usd or 0.0)
    said = {"rules": event.rules} if event.rules else {}
    _move(state, record, task.id, status, runs=runs, base=base, reason=event.reason, **said)
    for member in event.batch:
        other = state.tasks.get(member.task)
        if other is not None and _may_land(other, member.commit):
            along = (*other.taken_along, event.run)
            _put(state, record, other, lands_with=event.run, taken_along=along, landed=None)


def _may_land(task: Task, commit: str) -> bool:
    return task.status is Status.APPROVED and task.evidence is not None and task.evidence.commit == commit


def _planned(record: e.Record, event: e.RunPlanned) -> Run:
    return Run(
        id=event.run,
        task=event.task,
        purpose=event.purpose,
        token=record.seq,
        planned_at=record.at,
        role=event.role,
        model=event.model,
        reason=event.reason,
        gate=event.gate,
        commit=event.commit,
        base=event.base,
        bring_in=event.bring_in,
        limits=event.limits,
        account=event.account,
        continues=event.continues,
        lean=event.lean,
        onto=event.onto,
        batch=event.batch,
    )


def _start(state: State, record: e.Record, event: e.RunStarted) -> None:
    task = state.tasks[event.task]
    _, runs = _with_run(task, event.run, started_at=record.at, pid=event.pid)
    _put(state, record, task, runs=runs)


def _end(state: State, record: e.Record, event: e.RunEnded) -> None:
    task, outcome = state.tasks[event.task], event.outcome
    run, runs = _with_run(task, event.run, outcome=outcome, ended_at=record.at)
    if run.account or outcome.usage.cost_usd:
        model = outcome.model or run.model
        state.money = money.settled(state.money, run.id, run.role, model, outcome.usage, record.at)
    if run.account:
        weather = state.accounts.get(run.account, Account())
        state.accounts[run.account] = accounts.ended(weather, run.id, run.planned_at, outcome, record.at)
    if run.purpose is Purpose.WORK and outcome.commit:
        _put(state, record, task, runs=runs, commit=outcome.commit, base=task.base or outcome.base)
    elif run.purpose is Purpose.LANDING and outcome.ending in (Ending.CONFLICT, Ending.FAILED):
        _put(state, record, task, runs=runs, other_side="")  # its own landing has the newest word
    else:
        _put(state, record, task, runs=runs)
    told = {landed.task: landed for landed in outcome.batch if landed.kind != "left"}
    for member in run.batch:
        other = state.tasks.get(member.task)
        if other is not None and other.lands_with == run.id:
            said = told.get(member.task) if _may_land(other, member.commit) else None
            _put(state, record, other, lands_with="", landed=said)


def _with_run(task: Task, run_id: str, **changes: Any) -> tuple[Run, tuple[Run, ...]]:
    """A run of the task with these changes, and all its runs with that one. Raises NotFound."""
    runs, at = [*task.runs], len(task.runs) - 1
    while at >= 0 and runs[at].id != run_id:  # from the end: what changes is among the newest
        at -= 1
    if at < 0:
        raise NotFound(f"{task.id} has no run {run_id!r}")
    runs[at] = run = replace(runs[at], **changes)
    return run, tuple(runs)


def _refuse(state: State, record: e.Record, event: e.RunRefused) -> None:
    task = state.tasks[event.task]
    _put(state, record, task, refused=(*task.refused, f"{event.run}: {event.reason}"))


def _requeue(state: State, record: e.Record, event: e.TaskRequeued) -> None:
    task = state.tasks[event.task]
    kind = event.reason.kind
    fresh = kind == "retried"
    changes = {
        "attempts": 0 if fresh else task.attempts + (kind == "failure"),
        "rounds": 0 if fresh else task.rounds + (kind == "rejected"),
        "returns": 0 if fresh else task.returns + (kind == "conflict"),
        "cycle": len(task.runs),
        "trial": len(task.runs) if task.status.ended else task.trial,
        "decided": len(task.runs) if kind in ("retried", "answered") else task.decided,
        "not_before": event.not_before,
        "feedback": (*task.feedback, event.reason)[-FEEDBACK_MAX:],
        "chain": (),
        "rules": (),
        "evidence": None,
        "reason": event.reason.message,
        "doubt": 0,
        **_answered(task),
    }
    _move(state, record, task.id, Status.HELD if task.paused else Status.QUEUED, **changes)


def _answered(task: Task) -> dict[str, Any]:
    """The changes when what became of it in a landing with others was acted upon."""
    if task.landed is None:
        return {}
    conflict = task.landed.conflict
    with_target = conflict is not None and conflict.others == ("target",)
    side = conflict.integration if conflict is not None and with_target else "integration"
    return {"landed": None, "other_side": side if task.landed.kind != "merged" else task.other_side}


def _approve(state: State, record: e.Record, event: e.TaskApproved) -> None:
    evidence = event.evidence
    said = {"evidence": evidence, "commit": evidence.commit, "reason": evidence.reason, "rules": evidence.rules}
    _move(state, record, event.task, Status.APPROVED, landing=len(state.tasks[event.task].runs), doubt=0, **said)


def _merge(state: State, record: e.Record, event: e.TaskMerged) -> None:
    state.merged += 1
    _move(state, record, event.task, Status.MERGED, merge=event.merge, reason="landed", landed=None)


def _finish(state: State, record: e.Record, event: e.TaskDone) -> None:
    said = {"evidence": event.evidence, "report": event.report, "reason": event.evidence.reason}
    _move(state, record, event.task, Status.DONE, **said)


def _fail(state: State, record: e.Record, event: e.TaskFailed) -> None:
    task = state.tasks[event.task]
    tried = task.status is not Status.QUEUED  # what never ran has used up no attempt
    _move(state, record, task.id, Status.FAILED, reason=event.reason, attempts=task.attempts + tried)


def _cancel(state: State, record: e.Record, event: e.TaskCancelled) -> None:
    told = _answered(state.tasks[event.task])
    _move(state, record, event.task, Status.CANCELLED, chain=(), reason=event.reason or "cancelled by a person", **told)


def _fail_after(state: State, record: e.Record, event: e.DependencyFailed) -> None:
    _move(state, record, event.task, Status.DEPENDENCY_FAILED, chain=event.chain, reason=event.reason)


def _escalate(state: State, record: e.Record, event: e.TaskEscalated) -> None:
    task = state.tasks[event.task]
    counters = {
        "rounds": task.rounds + (event.raises == "rounds"),
        "returns": task.returns + (event.raises == "returns"),
        "rules": event.rules or task.rules,
        **_answered(task),
    }
    _move(state, record, task.id, Status.WAITING_FOR_PERSON, reason=event.reason, **counters)


def _hold(state: State, record: e.Record, event: e.TaskHeld) -> None:
    task = state.tasks[event.task]
    status = Status.HELD if task.status is Status.QUEUED else task.status
    # What waits for a person still says for what.
    said = event.reason or task.reason if status is Status.HELD else task.reason
    _move(state, record, task.id, status, paused=True, reason=said)


def _release(state: State, record: e.Record, event: e.TaskReleased) -> None:
    task = state.tasks[event.task]
    status = Status.QUEUED if task.status is Status.HELD else task.status
    said = "" if task.status is Status.HELD else task.reason
    _move(state, record, task.id, status, paused=False, reason=said)


def _pause(state: State, _record: e.Record, _event: e.CoordinationPaused) -> None:
    state.paused = True


def _resume(state: State, _record: e.Record, _event: e.CoordinationResumed) -> None:
    state.paused = False
    state.accounts = {name: accounts.cleared(account) for name, account in state.accounts.items()}


def _supervise(state: State, _record: e.Record, event: e.SupervisorStarted) -> None:
    state.supervisor, state.stop = event.supervisor, ""


def _leave(state: State, _record: e.Record, event: e.SupervisorStopped) -> None:
    if state.supervisor == event.supervisor:
        state.supervisor, state.stop = "", ""


def _ask_to_stop(state: State, _record: e.Record, event: e.StopRequested) -> None:
    if state.supervisor == event.supervisor:
        state.stop = event.mode


def _integrate(state: State, _record: e.Record, event: e.IntegrationCreated | e.IntegrationRestored) -> None:
    state.integration = event.commit


# ---- after a loss ----------------------------------------------------------------------------------------------------


def _lose(state: State, record: e.Record, event: e.BatchLost) -> None:
    """What it named waits for a person, and nothing new starts before one has looked."""
    state.paused = True
    state.losses.append(Loss(seq=record.seq, tasks=event.tasks, evidence=event.evidence, reason=event.reason))
    for name in event.tasks:
        task = state.get(name)
        if task is None:
            state.lost.setdefault(name, 0)
        elif not task.status.ended_well:
            _doubt(state, record, task, skipped=task.skipped + 1)  # it may have planned a run
    _mint(state)


def _doubt(state: State, record: e.Record, task: Task, **changes: Any) -> None:
    loss = state.losses[-1]
    kept = f" and {loss.evidence}" if loss.evidence else ""
    reason = (
        f"batch {loss.seq} of the log is lost, and where this task stands is in doubt: look at "
        f"`coord log --task {task.id}`{kept}, then `coord retry {task.id}` or `coord cancel {task.id}`"
    )
    _put(state, record, task, status=Status.WAITING_FOR_PERSON, reason=reason, doubt=loss.seq, **changes)


_BEFORE_RUN = {
    Purpose.WORK: {Status.QUEUED},
    Purpose.GATE: {Status.RUNNING, Status.REVIEWING},
    Purpose.REVIEW: {Status.RUNNING, Status.REVIEWING},
    Purpose.LANDING: {Status.APPROVED},
}


def _fits(state: State, record: e.Record, event: e.AnyEvent) -> bool:
    """Whether an event can follow what is known; what is in doubt only a person moves, until it ends."""
    name = getattr(event, "task", None)
    if name is None:
        return True
    if isinstance(event, e.TaskSubmitted):
        return name.lower() not in state.keys
    task = state.tasks.get(name)
    if task is None or not _may_follow(task, event):
        return False
    if isinstance(event, e.RunPlanned):
        _put(state, record, task, skipped=_number(task, event.run) - len(task.runs) - 1)
    return True


def _may_follow(task: Task, event: Any) -> bool:
    match event:
        case e.RunPlanned(run=run, purpose=purpose):
            newest = _number(task, task.runs[-1].id) if task.runs else 0
            in_turn = run == f"{task.id}.{max(newest + 1, _number(task, run))}.{purpose}" and not task.live
            return in_turn and not task.doubt and task.status in _BEFORE_RUN[purpose]
        case e.RunStarted(run=run) | e.RunEnded(run=run):
            return any(known.id == run and known.live for known in task.runs)
        case e.RunRefused() | e.TaskHeld() | e.TaskReleased():
            return not task.status.ended or isinstance(event, e.RunRefused)
        case e.TaskRequeued(reason=reason):
            ours = not task.doubt or reason.kind in ("retried", "answered")
            return ours and not task.live and _can_be(task, Status.HELD if task.paused else Status.QUEUED)
        case e.TaskApproved(evidence=evidence):
            ours = not task.doubt or evidence.reviewer == "person"
            return ours and not task.live and _can_be(task, Status.APPROVED)
        case e.TaskEscalated():
            return not task.doubt and _can_be(task, Status.WAITING_FOR_PERSON)
        case _:
            return not task.doubt and _can_be(task, _STATUS_OF_END[type(event)])


def _can_be(task: Task, status: Status) -> bool:
    return status is task.status or status in TRANSITIONS[task.status]


_STATUS_OF_END: dict[type[Any], Status] = {
    e.TaskMerged: Status.MERGED,
    e.TaskDone: Status.DONE,
    e.TaskFailed: Status.FAILED,
    e.TaskCancelled: Status.CANCELLED,
    e.DependencyFailed: Status.DEPENDENCY_FAILED,
}


def _take_in_doubt(state: State, record: e.Record, event: Any) -> None:
    """An event that does not fit: what it says of itself is taken, the rest is left aside, and its task is in doubt."""
    task = state.tasks.get(event.task)
    if task is None or isinstance(event, e.TaskSubmitted):
        state.aside += 1
        if task is None:
            state.lost[event.task] = state.lost.get(event.task, 0) + 1
            _mint(state)
        return
    if task.status.ended_well:
        state.aside += 1  # that end is for ever
        return
    if not task.doubt:
        _doubt(state, record, task)
        task = state.tasks[task.id]
    if type(event) in _STATUS_OF_END:
        _MEANINGS[type(event)](state, record, event)
        _put(state, record, state.tasks[task.id], doubt=0)
        return
    changes: dict[str, Any] = {}
    if isinstance(event, e.RunPlanned) and all(run.id != event.run for run in task.runs):
        changes = {"runs": (*task.runs, _planned(record, event)), "base": task.base or event.base}
    else:
        state.aside += 1
    # no later run gets the number of this one
    used = _number(task, getattr(event, "run", ""))
    _put(state, record, task, skipped=max(task.skipped, used - len(task.runs)), **changes)


def _number(task: Task, run: str) -> int:
    number = run.removeprefix(f"{task.id}.").partition(".")[0]
    return int(number) if number.isdecimal() else 0


# A table, because asking a million records for one type after the other costs as much as folding them.
_MEANINGS: dict[type[Any], Callable[[State, e.Record, Any], None]] = {
    e.TaskSubmitted: _submit,
    e.RunPlanned: _plan,
    e.RunStarted: _start,
    e.RunEnded: _end,
    e.RunRefused: _refuse,
    e.TaskRequeued: _requeue,
    e.TaskApproved: _approve,
    e.TaskMerged: _merge,
    e.TaskDone: _finish,
    e.TaskFailed: _fail,
    e.TaskCancelled: _cancel,
    e.DependencyFailed: _fail_after,
    e.TaskEscalated: _escalate,
    e.TaskHeld: _hold,
    e.TaskReleased: _release,
    e.CoordinationPaused: _pause,
    e.CoordinationResumed: _resume,
    e.SupervisorStarted: _supervise,
    e.SupervisorStopped: _leave,
    e.StopRequested: _ask_to_stop,
    e.IntegrationCreated: _integrate,
    e.IntegrationRestored: _integrate,
    e.BatchLost: _lose,
}
