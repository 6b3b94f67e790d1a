"""Does a coordination always come to an end, and is nothing forbidden done on the way?

The witness reads records only. It shares no code with the state, the plan or the policies that it judges.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.model import commands
from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.runs import DiffStat, Ending, Outcome, Purpose
from coordination.model.state import Core, State, Task
from coordination.model.tasks import Kind, ReviewMode, Status, TaskSpec
from coordination.planning.plan import plan
from coordination.policy import shipped
from coordination.testing import strategies
from coordination.testing.strategies import FAR_SECONDS, IDS, Batch, History, World

READ_ONLY = {"search", "plan", "review", "audit"}
STILL = {Status.QUEUED, Status.HELD, Status.WAITING_FOR_PERSON}


def collide(left: TaskSpec, right: TaskSpec) -> bool:
    """Whether one expects to touch what lies in, or is, what the other expects to touch. Paths without wildcards."""
    pairs = [(PurePosixPath(a), PurePosixPath(b)) for a in left.paths for b in right.paths]
    return any(a == b or a in b.parents or b in a.parents for a, b in pairs)


@dataclass
class Witness:
    """What happened, by the records; ``see`` fails at the first record that may not stand where it stands."""

    specs: dict[str, TaskSpec] = field(default_factory=dict)
    live: dict[str, e.RunPlanned] = field(default_factory=dict)
    ended: dict[str, tuple[e.RunPlanned, Outcome]] = field(default_factory=dict)
    planned: Counter[str] = field(default_factory=Counter)
    holding: set[str] = field(default_factory=set)
    well: set[str] = field(default_factory=set)
    badly: set[str] = field(default_factory=set)
    approved: dict[str, e.Evidence] = field(default_factory=dict)
    by_person: set[str] = field(default_factory=set)
    counters: dict[str, Counter[str]] = field(default_factory=dict)
    paused: bool = False
    held: set[str] = field(default_factory=set)

    def see(self, batch: Batch) -> None:
        """Take in one batch."""
        for record in batch.records:
            self._see(record.event, batch)
        self._bounds(batch.facts)

    def _see(self, event: e.AnyEvent, batch: Batch) -> None:
        match event:
            case e.TaskSubmitted():
                self.specs[event.task] = event.spec
                self.counters[event.task] = Counter()
            case e.RunPlanned():
                self._planned(event, batch.facts)
            case e.RunEnded():
                self.ended[event.run] = (self.live.pop(event.run), event.outcome)
                self._let_go(event.task)
            case e.TaskApproved():
                self._approved(event, batch)
            case e.TaskMerged():
                self._merged(event)
            case e.TaskDone():
                assert self.specs[event.task].kind in READ_ONLY
                assert event.report.strip()
                self._over(event.task, self.well)
            case e.TaskFailed() | e.TaskCancelled() | e.DependencyFailed():
                assert not self._rides(event.task), "what lands just now does not end otherwise"
                self._over(event.task, self.badly)
            case e.TaskRequeued():
                self._requeued(event)
            case e.TaskEscalated():
                self.counters[event.task][event.raises] += 1
            case e.CoordinationPaused() | e.CoordinationResumed():
                self.paused = isinstance(event, e.CoordinationPaused)
            case e.TaskHeld():
                self.held.add(event.task)
            case e.TaskReleased():
                self.held.discard(event.task)
            case _:
                pass

    def _planned(self, event: e.RunPlanned, facts: Facts) -> None:
        spec = self.specs[event.task]
        self.planned[event.task] += 1
        assert event.run == f"{event.task}.{self.planned[event.task]}.{event.purpose}"
        assert not any(run.task == event.task for run in self.live.values()), "one run of a task at a time"
        assert not self.paused, "nothing starts while everything is paused"
        assert event.task not in self.held, "nothing starts for a task that is paused"
        assert not facts.stopping, "nothing starts while the supervisor stops"
        assert event.task not in self.well | self.badly, "what has ended starts nothing"
        assert event.reason
        if event.purpose is Purpose.WORK:
            assert facts.starting, "no work starts while the supervisor drains"
            assert {after.lower() for after in spec.after} <= {task.lower() for task in self.well}
            assert event.limits.budget_usd is None or event.limits.budget_usd > 0
            assert (event.role == "green") or spec.kind in READ_ONLY or event.role == spec.role
            self.holding.add(event.task)
        else:
            assert spec.kind not in READ_ONLY, "a report is neither gated nor reviewed nor landed"
            assert event.commit, "a commit is judged by its SHA"
        if event.purpose is Purpose.LANDING:
            assert self.approved[event.task].commit == event.commit
            assert not facts.astray, "nothing lands on a branch that is astray"
            self._taken_along(event, facts)
        self.live[event.run] = event

    def _taken_along(self, event: e.RunPlanned, facts: Facts) -> None:
        tasks = [event.task, *(member.task for member in event.batch)]
        assert len(set(tasks)) == len(tasks) <= facts.settings.landing.batch_max
        for member in event.batch:
            assert self.approved[member.task].commit == member.commit
            assert member.task not in self.held | self.well | self.badly
            assert not self._rides(member.task)
            assert not any(run.task == member.task for run in self.live.values())

    def _rides(self, task: str) -> bool:
        return any(member.task == task for run in self.live.values() for member in run.batch)

    def _bounds(self, facts: Facts) -> None:
        used = Counter(run.role or str(run.purpose) for run in self.live.values())
        assert used["gate"] <= facts.settings.gate_slots
        assert used["landing"] <= 1
        for role in facts.roles.values():
            override = facts.settings.roles.get(role.name)
            assert used[role.name] <= (override.slots if override and override.slots else role.slots)
        held = sorted(self.holding)
        for n, left in enumerate(held):
            for right in held[n + 1 :]:
                assert not collide(self.specs[left], self.specs[right]), f"{left} and {right} touch the same files"
        limits = facts.settings.limits
        for task, counter in self.counters.items():
            assert counter["failure"] < (self.specs[task].attempts_max or limits.attempts_max)
            assert counter["rejected"] < limits.rounds_max
            assert counter["conflict"] < limits.returns_max
            assert counter["rejected"] + counter["rounds"] <= limits.rounds_max
            assert counter["conflict"] + counter["returns"] <= limits.returns_max

    def _approved(self, event: e.TaskApproved, batch: Batch) -> None:
        evidence, spec = event.evidence, self.specs[event.task]
        runs = [pair for pair in self.ended.values() if pair[0].task == event.task]
        work = [outcome for run, outcome in runs if run.purpose is Purpose.WORK and outcome.commit]
        assert evidence.commit == work[-1].commit, "only the newest commit is approved"
        self.approved[event.task] = evidence
        if not batch.planned:
            assert evidence.reviewer == "person"
            return
        asked = spec.gates if spec.gates is not None else batch.facts.settings.gates.default
        passed = {gate.gate for gate in evidence.gates if gate.exit_code == 0 and gate.commit == evidence.commit}
        assert set(asked) <= passed
        if evidence.verdict == "skipped":
            diff = work[-1].diff
            small = diff is not None and 0 < diff.lines <= 20 and bool(asked)
            assert spec.review == "never" or (spec.review == "auto" and small)
        else:
            run, outcome = self.ended[evidence.reviewer]
            assert (run.commit, run.role, outcome.verdict) == (evidence.commit, "red", "approve")

    def _merged(self, event: e.TaskMerged) -> None:
        assert self.approved[event.task].commit == event.commit, "what lands is what was approved"
        told = [
            (run, outcome)
            for run, outcome in self.ended.values()
            if run.task == event.task or any(member.task == event.task for member in run.batch)
        ]
        run, outcome = told[-1]
        assert run.purpose is Purpose.LANDING
        claims = {run.task: (run.commit, outcome.commit)} | {
            member.task: (member.commit, landed.merge)
            for member in run.batch
            for landed in outcome.batch
            if landed.task == member.task and landed.kind == "merged"
        }
        assert claims[event.task] == (event.commit, event.merge)
        self._over(event.task, self.well)

    def _requeued(self, event: e.TaskRequeued) -> None:
        self.badly.discard(event.task)
        self.approved.pop(event.task, None)
        self.counters[event.task][event.reason.kind] += 1
        if event.reason.kind == "retried":
            self.counters[event.task].clear()
        blameless = {"stopped": Ending.STOPPED, "weather": Ending.LIMITED}.get(event.reason.kind)
        if blameless:
            assert self.ended[event.reason.run][1].ending is blameless

    def _over(self, task: str, how: set[str]) -> None:
        assert task not in self.well, "a good end is for ever"
        how.add(task)
        self._let_go(task)

    def _let_go(self, task: str) -> None:
        if task in self.well | self.badly and not any(run.task == task for run in self.live.values()):
            self.holding.discard(task)


def holds_together(state: State, witness: Witness) -> None:
    """What must be true of a state at every batch."""
    for task in state.tasks.values():
        assert not (task.live and task.status in STILL), f"{task.id} is {task.status} while {task.live[0].id} lives"
        limits = (task.attempts, task.rounds, task.returns)
        told = witness.counters[task.id]
        tried = task.status is Status.FAILED and bool(task.runs)
        most = (told["failure"] + tried, told["rejected"] + told["rounds"], told["conflict"] + told["returns"])
        assert all(counted <= seen for counted, seen in zip(limits, most, strict=True))
        assert not (task.status is Status.HELD and not task.paused)
        assert not (task.status is Status.QUEUED and task.paused)
    assert {run.id for run in state.live_runs()} == set(witness.live)


def planned_alike(batch: Batch, state: State) -> None:
    """Planning is a function: it changes nothing, says the same twice, and the same of a state that was reloaded."""
    before = Core().dump(state)
    first = plan(state, batch.facts, shipped())
    assert plan(state, batch.facts, shipped()) == first
    assert Core().dump(state) == before
    assert plan(Core().load(before), batch.facts, shipped()) == first
    assert len({task for event in first if (task := getattr(event, "task", ""))}) == len(first), (
        "a task moves at most one step a plan"
    )


def excused(state: State, facts: Facts) -> set[str]:
    """Tasks that rightly stand still: they wait for a person, for what nobody sent, or for such a task."""
    found: set[str] = set()
    while True:
        more = {task.id for task in state.tasks.values() if task.id not in found and _excuse(state, facts, task, found)}
        if not more:
            return found
        found |= more


def _excuse(state: State, facts: Facts, task: Task, found: set[str]) -> bool:
    if task.status.ended or task.status is Status.WAITING_FOR_PERSON:
        return True
    unknown = any(after.lower() not in state.keys for after in task.spec.after)
    behind = any(
        state.get(after) is not None and state.find(after).id in found - _well(state) for after in task.spec.after
    )
    blocked = any(
        other in found and state.tasks[other].runs and collide(task.spec, state.tasks[other].spec)
        for other in state.open
        if other != task.id
    )
    return unknown or behind or blocked or task.spec.role not in ("auto", *facts.roles)


def _well(state: State) -> set[str]:
    return {task.id for task in state.tasks.values() if task.status.ended_well}


@settings(max_examples=200)
@given(st.data())
def test_no_history_breaks_a_rule_and_every_one_comes_to_an_end(data: st.DataObject) -> None:
    """Slots, landings, paths, pauses, dependencies, counters, evidence hold at every batch; nothing waits in vain."""
    witness = Witness()

    def seen(batch: Batch, state: State) -> None:
        witness.see(batch)
        holds_together(state, witness)

    history = data.draw(strategies.histories(seen=seen))
    state, facts = history.state, history.facts
    assert not state.live_runs()
    moving = {task.id: str(task.status) for task in state.tasks.values()}
    assert set(state.tasks) <= excused(state, facts), moving
    later = Facts(**{name: getattr(facts, name) for name in facts.__struct_fields__} | {"now": facts.now + FAR_SECONDS})
    assert plan(state, later, history.policies) == []


@settings(max_examples=40)
@given(strategies.histories(seen=planned_alike))
def test_planning_is_a_pure_function(history: History) -> None:
    """At every batch: planning twice, or on a state from a snapshot, gives the same events and changes nothing."""
    assert plan(history.state, history.facts, history.policies) == []


@pytest.mark.parametrize("kind", list(Kind))
def test_the_witness_knows_the_read_only_kinds(kind: Kind) -> None:
    """The oracle's own list of kinds that end with a report agrees with the contract's."""
    assert kind.read_only is (str(kind) in {"search", "plan", "review", "audit"})


@settings(max_examples=150)
@given(st.data())
def test_no_landing_of_several_breaks_a_rule(data: st.DataObject) -> None:
    """Many are approved while everything is paused; then they land together, and people interfere."""
    witness, batches = Witness(), 0

    def seen(batch: Batch, state: State) -> None:
        nonlocal batches
        witness.see(batch)
        holds_together(state, witness)
        batches += sum(isinstance(r.event, e.RunPlanned) and bool(r.event.batch) for r in batch.records)

    known = data.draw(strategies.settings())
    world = World(facts=strategies.facts(known), dice=Random(data.draw(st.integers(0, 2**32))), seen=seen)
    count = data.draw(st.integers(3, 6))
    for name in IDS[:count]:
        world.submit(name, TaskSpec(prompt="do it", title="It", review=ReviewMode.NEVER, gates=()))
    # work runs within its slots; what is approved is paused, and nothing lands before all of them are
    while not all(world.state.find(name).status is Status.APPROVED for name in IDS[:count]):
        world.ask(lambda state: commands.resume(state, None))
        world.wait(1000.0)
        world.ask(lambda state: commands.pause(state, None))
        for run in world.state.live_runs():
            commit = f"c-{run.id}"
            world.end(run.task, Outcome(ending=Ending.SUCCEEDED, commit=commit, diff=DiffStat(files=1, insertions=9)))
            world.ask(partial(commands.pause, task_id=run.task))
    for name in IDS[:count]:
        world.ask(partial(commands.resume, task_id=name))
    world.ask(lambda state: commands.resume(state, None))
    world.decide()
    for _ in range(data.draw(st.integers(0, 40))):
        world.turn()
    world.finish()
    assert not world.state.live_runs()
    assert not any(task.lands_with or task.landed for task in world.state.tasks.values())
    assert set(world.state.tasks) <= excused(world.state, world.facts)
    if known.landing.batch_max > 1:
        assert batches, "it is not tried here what it is meant to try"
