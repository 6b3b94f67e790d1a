"""What happens next: settle what ended, land what is approved, start what may start.

``plan`` returns the events of one step; the loop folds them and asks again until there are none. Every task moves at
most one step a call, so the order of the branches below never matters. Nothing starts in a step in which something
was settled: the slot that became free may belong to a task that waited for just that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from coordination.model import commands
from coordination.model import events as e
from coordination.model.endings import How
from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import Ending, Landed, Limits, Member, Purpose, Rule
from coordination.model.state import Run, State, Task, gate_results
from coordination.model.tasks import Kind, Status
from coordination.model.waiting import hindrances, holders, in_order, live_by_role, live_landing, order_key
from coordination.policy import VETO, Judgement, Policies, Rank, informed
from coordination.settings import Gate

GATE = "gate"


def plan(state: State, facts: Facts, policies: Policies) -> list[e.AnyEvent]:
    """The next step of every task that can take one. Reads only; the events are the caller's to append."""
    step = _Step(state, facts, policies)
    return [*step.settle(), *step.land(), *step.propagate()] or list(step.start())


def route(facts: Facts, policies: Policies, task: Task) -> tuple[Role | None, str]:
    """The role with the best score, and why; (None, why not) when every role is vetoed."""
    scored = [(policies.score(facts, task, role), role) for role in facts.roles.values()]
    open_to = [(score, role) for score, role in scored if score > VETO]
    if not open_to:
        return None, "no role may take it"
    _, role = min(open_to, key=lambda pair: (-pair[0], pair[1].name))
    asked = task.spec.role != "auto"
    why = f"the task asks for {role.name}" if asked else f"kind {task.spec.kind} is routed to {role.name}"
    return role, why


def as_review(task: Task) -> Task:
    """The task as the router sees its review: read-only, for whoever reviews, whoever worked on it."""
    return replace(task, spec=replace(task.spec, kind=Kind.REVIEW, role="auto"))


class _Step:
    """One call of ``plan``: the state, and the slots that this step has already given away."""

    def __init__(self, state: State, facts: Facts, policies: Policies) -> None:
        self.state, self.facts, self.policies = state, informed(state, facts), policies
        # at most one run of an agent is planned a call: the next is weighed against the money and the weather after it
        self.asked = False
        self.lives: Counter[str] = live_by_role(state)
        self.tasks = sorted((state.tasks[task] for task in state.busy), key=lambda task: order_key(facts, task))

    # -- slots -------------------------------------------------------------------------------------------------------

    def _free(self, role: str) -> bool:
        most = self.facts.settings.gate_slots if role == GATE else self.facts.slots(role)
        return self.lives[role] < most

    def _take(self, role: str) -> None:
        self.lives[role] += 1

    def _still(self, task: Task) -> bool:
        """Whether nothing new may start for a task because a person paused it, or everything stops."""
        return self.facts.stopping or self.state.paused or task.paused

    # -- settle: what a finished run leads to ------------------------------------------------------------------------

    def settle(self) -> Iterator[e.AnyEvent]:
        """What follows from runs that ended."""
        for task in self.tasks:
            if not task.live and task.status in (Status.RUNNING, Status.REVIEWING):
                yield from self._settle(task)

    def _settle(self, task: Task) -> Iterator[e.AnyEvent]:
        last = task.present[-1]
        assert last.outcome is not None
        inconclusive = not last.succeeded and not (last.purpose is Purpose.GATE and last.outcome.gates)
        if inconclusive:
            yield from self._remedy(task, last)
        elif task.spec.kind.read_only:
            yield from self._finish(task, last)
        else:
            yield from self._judge(task)

    def _remedy(self, task: Task, run: Run) -> Iterator[e.AnyEvent]:
        assert run.outcome is not None
        remedy = self.policies.remedy(self.facts, task, run)
        not_before = self.facts.now + remedy.delay_seconds if remedy.delay_seconds else 0.0
        if remedy.rank == Rank.FAIL:
            yield e.TaskFailed(task=task.id, reason=remedy.reason)
        elif remedy.rank == Rank.PERSON:
            yield e.TaskEscalated(task=task.id, reason=remedy.reason)
        elif run.purpose is Purpose.WORK:
            kind = "failure" if remedy.rank == Rank.RETRY else _blameless(run)
            reason = e.RequeueReason(kind=kind, message=remedy.reason, run=run.id, how=remedy.how)
            yield e.TaskRequeued(task=task.id, reason=reason, not_before=not_before)
        # The work is done and committed: only the judging run is repeated, on the same commit.
        elif not self._early(task, run):
            yield from self._judge(task)

    def _early(self, task: Task, run: Run) -> bool:
        """Whether a run that ended without a word about the commit is not to be repeated yet.

        The delay is counted from its end, so nothing needs to be logged for it; a clock that went back ends it.
        """
        delay = self.policies.remedy(self.facts, task, run).delay_seconds
        return run.ended_at <= self.facts.now < run.ended_at + delay

    def _finish(self, task: Task, run: Run) -> Iterator[e.AnyEvent]:
        assert run.outcome is not None
        outcome = run.outcome
        evidence = e.Evidence(
            commit=outcome.base,
            base=outcome.base,
            verdict="report",
            reason="read-only: a report, the cited paths that exist at the base commit, and an unchanged tree",
            decided_at=self.facts.now,
            cited=outcome.cited,
            cost_usd=task.usage.cost_usd,
            cost_estimated=task.usage.estimated,
        )
        yield e.TaskDone(task=task.id, evidence=evidence, report=outcome.report)

    # -- judge: gates, review, approval ------------------------------------------------------------------------------

    def _judge(self, task: Task) -> Iterator[e.AnyEvent]:
        verdict = self.policies.verdict(self.facts, task, task.present)
        match verdict.judgement:
            case Judgement.ACCEPT:
                yield e.TaskApproved(task=task.id, evidence=self._evidence(task, self._reasons(task)))
            case Judgement.CONFIRM:
                yield e.TaskEscalated(task=task.id, reason=verdict.reason, rules=self._rules(task))
            case Judgement.REVIEW:
                yield from self._review(task, verdict.reason)
            case Judgement.GATE:
                yield from self._gate(task, verdict.gates)
            case Judgement.AGAIN:
                yield from self._again(task, verdict.reason)
            case Judgement.REJECT:
                last = task.present[-1].id
                reason = e.RequeueReason(kind="rejected", message=verdict.reason, run=last)
                yield e.TaskRequeued(task=task.id, reason=reason)
            case Judgement.PERSON:
                rejected = task.present[-1].verdict_on(task.commit) == "reject"
                # After the last round a person decides every further one: the counter stays at its limit.
                counted = rejected and task.rounds < self.facts.settings.limits.rounds_max
                raises = "rounds" if counted else ""
                yield e.TaskEscalated(task=task.id, reason=verdict.reason, raises=raises, rules=self._rules(task))

    def _reasons(self, task: Task) -> str:
        return "; ".join(self.policies.reasons(self.facts, task, task.present))

    def _rules(self, task: Task) -> tuple[Rule, ...]:
        return self.policies.rules(self.facts, task, task.present)

    def _again(self, task: Task, reason: str) -> Iterator[e.AnyEvent]:
        most = int(task.spec.attempts_max or self.facts.settings.limits.attempts_max)
        if task.attempts + 1 >= most:
            yield e.TaskFailed(task=task.id, reason=f"{reason}\n(attempt {task.attempts + 1} of {most})")
            return
        why = e.RequeueReason(kind="failure", message=reason, run=task.present[-1].id)
        yield e.TaskRequeued(task=task.id, reason=why)

    def _gate(self, task: Task, names: Sequence[str]) -> Iterator[e.AnyEvent]:
        """One gate run at a time for a task: ids are derived from the number of runs planned."""
        if self._still(task) or not self._free(GATE):
            return
        self._take(GATE)
        name = names[0]
        settings = self.facts.settings
        # set-up before the first try is given to every run
        timeout = self._gate_seconds(settings.gates.named[name]) - settings.setup.most_seconds
        yield e.RunPlanned(
            task=task.id,
            run=task.next_run(Purpose.GATE),
            purpose=Purpose.GATE,
            reason=f"gate {name} on {task.commit[:12]}",
            gate=name,
            commit=task.commit,
            base=task.base,
            limits=Limits(timeout_seconds=timeout),
        )

    def _review(self, task: Task, asked: str) -> Iterator[e.AnyEvent]:
        reviewing = as_review(task)
        role, why = route(self.facts, self.policies, reviewing)
        if role is None:
            yield e.TaskEscalated(task=task.id, reason=f"review: {why}; a person decides")
            return
        if self.asked or self._still(task) or not self._free(role.name) or self.policies.holds(self.facts, reviewing):
            return
        limits = self.policies.limits(self.facts, task, role)
        if _used_up(limits):
            yield e.TaskEscalated(
                task=task.id, reason=f"review: {_overspent(task)}; `coord approve {task.id}` goes without"
            )
            return
        self._take(role.name)
        self.asked = True
        yield e.RunPlanned(
            task=task.id,
            run=task.next_run(Purpose.REVIEW),
            purpose=Purpose.REVIEW,
            role=role.name,
            model=self._model_for_review(task, role),
            reason=f"review of {task.commit[:12]}: {why}; {asked}",
            rules=self._rules(task),
            commit=task.commit,
            base=task.base,
            limits=limits,
            account=self.facts.account(role),
        )

    def _model_for_review(self, task: Task, role: Role) -> str:
        """The role's, or the other one after a review that ended for want of it."""
        tried = [run for run in task.present if run.purpose is Purpose.REVIEW and run.commit == task.commit]
        if not tried or tried[-1].outcome is None:
            return self.facts.model(role)
        how = self.policies.remedy(self.facts, task, tried[-1]).how
        return self.facts.fallback_model(role.name) if how is How.OTHER_MODEL else tried[-1].model

    def _evidence(self, task: Task, reason: str) -> e.Evidence:
        """All of it of the one commit that is judged: what others said of another one is no part of it."""
        wanted = task.spec.gates if task.spec.gates is not None else self.facts.settings.gates.default
        approving = [run for run in task.present if run.verdict_on(task.commit) == "approve"]
        return commands.evidence(
            task,
            task.commit,
            gates=tuple(gate_results(task.present, task.commit).values()),
            gates_configured=bool(wanted),
            reviewer=approving[-1].id if approving else "",
            verdict="approve" if approving else "skipped",
            reason=reason,
            rules=self._rules(task),
            decided_at=self.facts.now,
        )

    # -- land --------------------------------------------------------------------------------------------------------

    def land(self) -> Iterator[e.AnyEvent]:
        """Settle what tried to land, then let the next one try, with those behind it. Never two at once."""
        first: Task | None = None
        behind: list[Task] = []
        for task in self.tasks:
            if task.status is not Status.APPROVED or task.live or task.lands_with:
                continue
            tried = task.runs[task.landing :]
            if task.landed is not None:
                yield from self._landed_with(task, task.landed)
            elif tried and not self._again_landing(task, tried[-1]):
                yield from self._landed(task, tried[-1])
            elif not self._still(task) and not (tried and self._early(task, tried[-1])):
                first = first or task
                if not tried:  # what ended a landing without a word may end the next one: it goes alone
                    behind.append(task)
        if first is not None and not self.facts.astray and not live_landing(self.state):
            yield self._landing(first, behind)

    def _again_landing(self, task: Task, last: Run) -> bool:
        """Whether the newest landing ended without a word about the commit, and is simply made again."""
        assert last.outcome is not None
        if last.outcome.ending in (Ending.SUCCEEDED, Ending.CONFLICT, Ending.FAILED):
            return False
        return self.policies.remedy(self.facts, task, last).rank <= Rank.RETRY

    def _landing(self, task: Task, able: Sequence[Task]) -> e.RunPlanned:
        """The first in order lands; the others come along unless it ended a landing without a word before."""
        assert task.evidence is not None
        others = [other for other in able if other.id != task.id] if task in able else []
        batch = _members(others[: self.facts.settings.landing.batch_max - 1])
        along = f"; with {', '.join(member.task for member in batch)}" if batch else ""
        # finding who breaks the gates doubles the largest batch that can be searched with each further try
        tries = 1 + len(batch).bit_length()
        return e.RunPlanned(
            task=task.id,
            run=task.next_run(Purpose.LANDING),
            purpose=Purpose.LANDING,
            reason=f"lands {task.evidence.commit[:12]}: {task.evidence.reason}{along}",
            commit=task.evidence.commit,
            base=task.base,
            limits=Limits(timeout_seconds=self._landing_seconds([task, *others[: len(batch)]]) * tries),
            onto=self.facts.integration,
            batch=batch,
        )

    def _landing_seconds(self, tasks: Sequence[Task]) -> float:
        """What testing one merge of theirs may take: as long as any run, or as its gates may take if that is more."""
        gates, most = self.facts.settings.gates, self.facts.settings.limits.timeout_seconds
        wanted = [name for task in tasks for name in (gates.default if task.spec.gates is None else task.spec.gates)]
        named = [gates.named[name] for name in dict.fromkeys(wanted) if name in gates.named]
        return max(most, sum(self._gate_seconds(gate) for gate in named))

    def _gate_seconds(self, gate: Gate) -> float:
        """What a gate may take with all its tries, and set-up before each."""
        settings = self.facts.settings
        return (1 + settings.gates.reruns) * (gate.timeout_seconds + settings.setup.most_seconds)

    def _landed_with(self, task: Task, landed: Landed) -> Iterator[e.AnyEvent]:
        """What follows from the landing of another task that took this one along."""
        assert task.evidence is not None
        if landed.kind == "merged":
            yield e.TaskMerged(task=task.id, commit=task.evidence.commit, merge=landed.merge, gates=landed.gates)
        else:
            yield from self._returned(task, landed.reason)

    def _landed(self, task: Task, run: Run) -> Iterator[e.AnyEvent]:
        assert run.outcome is not None
        outcome = run.outcome
        if outcome.ending is Ending.SUCCEEDED:
            yield e.TaskMerged(task=task.id, commit=run.commit, merge=outcome.commit, gates=outcome.gates)
        elif outcome.ending in (Ending.CONFLICT, Ending.FAILED):
            yield from self._returned(task, outcome.reason, run)
        else:
            yield e.TaskEscalated(task=task.id, reason=f"{run.id} {outcome.ending}: {outcome.reason}")

    def _returned(self, task: Task, said: str, run: Run | None = None) -> Iterator[e.AnyEvent]:
        """Back to work, as often as it may; ``run`` is its own landing."""
        if run is not None and run.outcome is not None and run.outcome.code == "refused":
            yield e.TaskEscalated(task=task.id, reason=said)
        elif task.returns + 1 >= self.facts.settings.limits.returns_max:
            reason = f"came back from landing {task.returns + 1} times: {said}"
            counted = task.returns < self.facts.settings.limits.returns_max
            yield e.TaskEscalated(task=task.id, reason=reason, raises="returns" if counted else "")
        else:
            why = e.RequeueReason(
                kind="conflict", message=said, run=run.id if run is not None else task.taken_along[-1]
            )
            yield e.TaskRequeued(task=task.id, reason=why)

    # -- dependencies ------------------------------------------------------------------------------------------------

    def propagate(self) -> Iterator[e.AnyEvent]:
        """A task whose dependency ended badly ends too, with the chain to the first cause."""
        waiting = {name: None for cause in self.state.fallen for name in self.state.needed_by[cause.lower()]}
        for task in (self.state.tasks[name] for name in waiting):
            if task.status in (Status.QUEUED, Status.HELD) and not task.live:
                yield from self._propagate(task)

    def _propagate(self, task: Task) -> Iterator[e.AnyEvent]:
        for after in task.spec.after:
            cause = self.state.get(after)
            if cause is not None and cause.status.ended and not cause.status.ended_well:
                chain = (cause.id, *cause.chain)
                first = self.state.tasks[chain[-1]]
                reason = f"{' <- '.join(chain)}: {first.id} is {first.status}: {first.reason}"
                yield e.DependencyFailed(task=task.id, chain=chain, reason=reason)
                return

    # -- start -------------------------------------------------------------------------------------------------------

    def start(self) -> Iterator[e.AnyEvent]:
        """Give free slots to queued tasks in order, asking policies lazily."""
        if self.facts.stopping or not self.facts.starting or self.state.paused:
            return
        if self.asked or not any(self._free(role) for role in self.facts.roles):
            return
        holding = list(holders(self.state).values())
        for task in in_order(self.state, self.facts, self._startable):
            events = list(self._start(task, holding))
            yield from events
            if any(isinstance(event, e.RunPlanned) for event in events):
                return

    def _startable(self, task: Task) -> bool:
        """Whether anything like it may start: a role that takes it has a free slot, and no policy holds what is so."""
        free = any(self._free(role.name) for role in self.facts.takers(task.spec))
        return free and not self.policies.holds(self.facts, task)

    def _start(self, task: Task, holding: list[Task]) -> Iterator[e.AnyEvent]:
        if task.live or _fell(self.state, task) or hindrances(self.state, self.facts, task, holding):
            return
        base = self._base(task)
        if not base:
            if task.spec.base is not None and task.id in self.facts.bases:
                said = f"base {task.spec.base!r} is not an ancestor of the target or the integration branch"
                yield e.TaskFailed(task=task.id, reason=said)
            return
        role, why = route(self.facts, self.policies, task)
        if role is None or not self._free(role.name):
            return
        limits = self.policies.limits(self.facts, task, role)
        if _used_up(limits):
            yield e.TaskEscalated(task=task.id, reason=f"{_overspent(task)}; `coord retry {task.id}` does not raise it")
            return
        self._take(role.name)
        self.asked = True
        last = task.feedback[-1] if task.feedback else None
        how, before = _carried_on(task, role)
        other = self.facts.fallback_model(role.name) if how is How.OTHER_MODEL else ""
        resumed = before if before is not None and how is How.RESUME else None
        yield e.RunPlanned(
            task=task.id,
            run=task.next_run(Purpose.WORK),
            purpose=Purpose.WORK,
            role=role.name,
            model=other or (self.facts.model(role) if resumed is None else resumed.model),
            reason=why if last is None else f"{why}; {last.kind}: {last.headline[:200]}",
            base=base,
            bring_in=_other_side(task, self.facts.integration),
            limits=limits,
            account=self.facts.account(role),
            continues=(resumed.continues or resumed.id) if resumed is not None else "",
            lean=how is How.SHORTER or (before is not None and before.lean),
        )

    def _base(self, task: Task) -> str:
        if task.base:
            return task.base
        return self.facts.bases.get(task.id, "") if task.spec.base is not None else self.facts.integration


def _fell(state: State, task: Task) -> bool:
    found = (state.get(after) for after in task.spec.after)
    return any(dep is not None and dep.status.ended and not dep.status.ended_well for dep in found)


def _other_side(task: Task, integration: str) -> str:
    """What the workspace takes in before every try once a landing sent the task back; "" when none did.

    A try that failed after the conflict leaves the merge undone, and a commit that holds the merge is to be compared
    with the other side, not with where the task once began. A conflict with the user's own branch is settled with that.
    """
    if task.other_side:
        return integration if task.other_side == "integration" else task.other_side
    landings = [run.outcome for run in task.runs if run.purpose is Purpose.LANDING and run.outcome is not None]
    back = [o for o in landings if o.ending in (Ending.CONFLICT, Ending.FAILED) and o.code != "refused"]
    if not back:
        return ""
    conflict = back[-1].conflict
    return conflict.integration if conflict is not None and conflict.others == ("target",) else integration


def _members(tasks: Sequence[Task]) -> tuple[Member, ...]:
    return tuple(Member(task=task.id, commit=task.evidence.commit) for task in tasks if task.evidence is not None)


def _used_up(limits: Limits) -> bool:
    return limits.budget_usd is not None and limits.budget_usd <= 0


def _overspent(task: Task) -> str:
    return f"its budget is used up: {task.usage.cost_usd:.4f} USD spent"


def _blameless(run: Run) -> str:
    assert run.outcome is not None
    return "stopped" if run.outcome.ending is Ending.STOPPED else "weather"


def _carried_on(task: Task, role: Role) -> tuple[How, Run | None]:
    """How the next work run begins, and the run of the same role that it carries on; (FRESH, None) for a new start."""
    last = task.feedback[-1] if task.feedback else None
    if last is None or not last.how or not task.runs:
        return How.FRESH, None
    before = next((run for run in reversed(task.runs) if run.id == last.run), None)
    if before is None or before.purpose is not Purpose.WORK or before.role != role.name:
        return How.FRESH, None
    return How(last.how), before
