"""What values and histories can there be? Hypothesis strategies for whoever tests a policy, a projection or a surface.

``values(kind)`` builds any frozen value of the model from its declared fields, so a new field or event is covered as
soon as it is declared. ``histories()`` plays a whole coordination: commands and the plan on our side, and on the other
side a world with agents, gates, people and stops that answers at random. Every history is legal::

    @given(strategies.histories())
    def test_my_projection(history):
        for batch in history.batches:
            ...
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Any, TypeVar

import msgspec
from hypothesis import strategies as st
from msgspec.structs import replace

from coordination.errors import CoordinationError
from coordination.model import commands
from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import (
    ConflictReport,
    DiffStat,
    Ending,
    Finding,
    GateResult,
    Landed,
    Outcome,
    Purpose,
    Usage,
)
from coordination.model.state import Core, Run, State
from coordination.model.taskfile import Submission
from coordination.model.tasks import Kind, ReviewMode, TaskSpec
from coordination.planning.plan import plan
from coordination.policy import Policies, shipped
from coordination.settings import Gate, Gates, Landing, LimitSettings, RoleSettings, Settings

V = TypeVar("V")

EPOCH = 1_800_000_000.0
FAR_SECONDS = 10_000_000.0
TURNS_MAX = 5_000

# ---- any value -------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_SIMPLE: dict[Any, st.SearchStrategy[Any]] = {
    str: texts,
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Any: st.none() | st.booleans() | texts,
}


def values(kind: type[V]) -> st.SearchStrategy[V]:
    """Any value of a type of the model: a struct, an enumeration, a container or a plain value."""
    return typing.cast("st.SearchStrategy[V]", _of(kind))


def events() -> st.SearchStrategy[e.AnyEvent]:
    """Any fact, whatever its fields hold; not necessarily one that may follow another."""
    return st.one_of([values(kind) for kind in typing.get_args(e.AnyEvent)])


def _of(kind: Any) -> st.SearchStrategy[Any]:
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([_of(argument) for argument in arguments])
    if origin is tuple:
        return st.lists(_of(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{item.name: _of(hints[item.name]) for item in msgspec.structs.fields(kind)})


# ---- a small world ---------------------------------------------------------------------------------------------------

ROLES = {
    "blue": Role(name="blue", description="", instructions="", model="haiku", kinds=("search", "plan"), slots=2),
    "green": Role(
        name="green",
        description="",
        instructions="",
        model="sonnet",
        kinds=("implement", "fix", "refactor", "test", "document"),
        writes=True,
        slots=2,
    ),
    "red": Role(name="red", description="", instructions="", model="opus", kinds=("review", "audit"), slots=1),
}
GATES = {"unit": Gate(argv=("true",)), "types": Gate(argv=("true",), timeout_seconds=5.0)}
PATHS = ("src", "src/a.py", "src/ab.py", "src/b/", "docs", "docs2/x", "./src/a.py")
IDS = ("k1", "k2", "t1", "k4", "k5", "t2")


def facts(settings: Settings | None = None, roles: Mapping[str, Role] | None = None, **observed: Any) -> Facts:
    """What decisions depend on in a world with three roles and two gates."""
    known = settings if settings is not None else Settings(gates=Gates(default=("unit",), named=GATES))
    seen: dict[str, Any] = {"now": EPOCH, "integration": "0" * 40} | observed
    return Facts(settings=known, roles=dict(ROLES if roles is None else roles), **seen)


def settings() -> st.SearchStrategy[Settings]:
    """Settings with tight limits, so that they are met."""
    return st.builds(
        Settings,
        gates=st.builds(Gates, default=st.sampled_from([(), ("unit",), ("unit", "types")]), named=st.just(GATES)),
        limits=st.builds(
            LimitSettings,
            attempts_max=st.integers(1, 3),
            rounds_max=st.integers(1, 3),
            returns_max=st.integers(1, 3),
            budget_usd=st.sampled_from([0.5, 5.0, 1000.0]),
        ),
        gate_slots=st.integers(1, 2),
        landing=st.builds(Landing, batch_max=st.integers(1, 4)),
        roles=st.dictionaries(
            st.sampled_from(["blue", "green", "red"]),
            st.builds(RoleSettings, slots=st.integers(1, 3), model=st.sampled_from(["", "other"])),
            max_size=2,
        ),
    )


def specs(after: Sequence[str] = ()) -> st.SearchStrategy[TaskSpec]:
    """Tasks as people ask for them; ``after`` is what they may depend on."""
    known = st.lists(st.sampled_from(after), max_size=2, unique=True) if after else st.just([])
    dependencies = st.booleans().flatmap(lambda some: known if some else st.just([]))
    return st.builds(
        TaskSpec,
        prompt=st.just("do it"),
        title=st.just("It"),
        kind=st.sampled_from(Kind) | st.just(Kind.IMPLEMENT),
        role=st.sampled_from(["auto"] * 8 + ["green", "nobody"]),
        priority=st.integers(-100, 100),
        after=dependencies.map(tuple),
        gates=st.none() | st.sampled_from([(), ("unit",), ("types", "unit")]),
        paths=st.lists(st.sampled_from(PATHS), max_size=2, unique=True).map(tuple),
        base=st.sampled_from([None] * 6 + ["main", "gone"]),
        review=st.sampled_from(ReviewMode),
        budget_usd=st.sampled_from([None, None, 0.25]),
        attempts_max=st.sampled_from([None, None, 1, 2]),
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one transaction appended, and what it was decided on."""

    records: tuple[e.Record, ...]
    facts: Facts
    planned: bool  # by ``plan``, not by a command


@dataclass(kw_only=True)
class World:
    """One coordination and all that surrounds it. ``seen`` is called after every batch, with the state then."""

    facts: Facts
    dice: Random = field(default_factory=lambda: Random(0))
    policies: Policies = field(default_factory=shipped)
    seen: Callable[[Batch, State], None] = lambda _batch, _state: None
    state: State = field(default_factory=State)
    batches: list[Batch] = field(default_factory=list)
    commits: int = 0

    def transact(self, events: Sequence[e.AnyEvent], *, planned: bool = False) -> None:
        """Append a batch and fold it."""
        if not events:
            return
        seq = len(self.batches) + 1
        records = tuple(
            e.Record(seq=seq, index=index, at=self.facts.now, event=event) for index, event in enumerate(events)
        )
        for record in records:
            self.state = Core().fold(self.state, record)
        batch = Batch(records=records, facts=self.facts, planned=planned)
        self.batches.append(batch)
        self.seen(batch, self.state)

    def ask(self, command: Callable[[State], Sequence[e.AnyEvent]]) -> bool:
        """Do what a person asks, unless it is refused; whether anything came of it."""
        try:
            events = command(self.state)
        except CoordinationError:
            return False
        self.transact(events)
        return bool(events)

    def submit(self, task: str | None, spec: TaskSpec) -> None:
        """A task file arrives."""
        submission = Submission(id=task, spec=spec, digest=f"digest of {task}")
        self.ask(lambda state: commands.submit(state, submission, ticket=f"ticket-{len(self.batches)}")[1])

    def decide(self) -> None:
        """Plan to the end: until one more plan says nothing."""
        for _ in range(TURNS_MAX):
            events = plan(self.state, self._observed(), self.policies)
            if not events:
                return
            self.transact(events, planned=True)
        raise AssertionError(f"planning does not come to an end: {events}")

    def live(self, task: str) -> Run:
        """The one run of a task whose outcome is not known yet."""
        (run,) = self.state.find(task).live
        return run

    def end(self, task: str, outcome: Outcome) -> None:
        """The live run of a task ends so, and what follows is decided."""
        run = self.live(task)
        self.transact(commands.end(self.state, run.id, completed(run, outcome), token=run.token))
        if run.purpose is Purpose.LANDING and outcome.ending is Ending.SUCCEEDED:
            self.facts = replace(self.facts, integration=outcome.commit)
        for landed in outcome.batch:
            self.facts = replace(self.facts, integration=landed.merge or self.facts.integration)
        self.decide()

    def wait(self, seconds: float) -> None:
        """Time passes, and what follows is decided."""
        self.facts = replace(self.facts, now=self.facts.now + seconds)
        self.decide()

    def _observed(self) -> Facts:
        wanted = [task for task in self.state.tasks_alive() if task.spec.base is not None and not task.base]
        bases = {task.id: "b" * 40 if task.spec.base == "main" else "" for task in wanted}
        self.facts = replace(self.facts, bases=bases)
        return self.facts

    # -- what the world does ------------------------------------------------------------------------------------------

    def answer(self, run: Run) -> None:
        """A run begins, or ends in one of the ways it can; now and then a superseded worker speaks up first."""
        if not run.started_at and self.dice.random() < 0.5:
            self.transact(commands.start(run, pid=self.dice.randrange(2, 1000)))
        elif self.dice.random() < 0.05:
            outcome = Outcome(ending=Ending.SUCCEEDED, commit=self._commit())
            self.transact(commands.end(self.state, run.id, outcome, token=run.token + 1))
        else:
            outcome = completed(run, self._outcome(run))
            self.transact(commands.end(self.state, run.id, outcome, token=run.token))

    def _commit(self) -> str:
        self.commits += 1
        return f"{self.commits:040x}"

    def _outcome(self, run: Run) -> Outcome:
        usage = Usage(cost_usd=self.dice.choice([0.0, 0.01, 0.3]), turns=1)
        if self.dice.random() < 0.3:
            return Outcome(ending=self.dice.choice(_ENDINGS_OF_ALL), reason=self.dice.choice(_REASONS), usage=usage)
        outcomes = {
            Purpose.WORK: self._worked,
            Purpose.GATE: self._gated,
            Purpose.REVIEW: self._reviewed,
            Purpose.LANDING: self._landed,
        }
        return replace(outcomes[run.purpose](run), usage=usage)

    def _worked(self, run: Run) -> Outcome:
        base = run.bring_in or run.base
        if self.state.tasks[run.task].spec.kind.read_only:
            return Outcome(ending=Ending.SUCCEEDED, base=base, report="It is there.", cited=("src/a.py",))
        if self.dice.random() < 0.05:
            return Outcome(ending=Ending.SUCCEEDED, base=base)  # says it is done, and shows nothing
        outside = ("refs/heads/main",) if self.dice.random() < 0.05 else ()
        diff = DiffStat(files=1, insertions=self.dice.choice([0, 3, 20, 21, 500]))
        changed = (self.dice.choice(["src/a.py"] * 9 + ["CODEOWNERS"]),)
        commit = self._commit()
        return Outcome(ending=Ending.SUCCEEDED, base=base, commit=commit, diff=diff, changed=changed, outside=outside)

    def _gated(self, run: Run) -> Outcome:
        code = self.dice.choice([0, 0, 0, 1])
        result = GateResult(gate=run.gate, commit=run.commit, exit_code=code, output="said so")
        return Outcome(ending=Ending.FAILED if code else Ending.SUCCEEDED, gates=(result,))

    def _reviewed(self, run: Run) -> Outcome:
        verdict = self.dice.choice(["approve", "approve", "reject", ""])
        findings = (Finding(message="wrong", file="src/a.py", line=3),) if verdict == "reject" else ()
        judged = self.dice.choice([run.commit] * 9 + ["f" * 40])
        return Outcome(ending=Ending.SUCCEEDED, verdict=verdict, judged=judged, findings=findings)

    def _landed(self, run: Run) -> Outcome:
        outcome = self._landed_alone(run)
        return replace(outcome, batch=tuple(self._taken_along(member.task) for member in run.batch))

    def _taken_along(self, task: str) -> Landed:
        kind = self.dice.choice(["merged", "merged", "conflict", "gate_failed", "left"])
        if kind == "merged":
            self.facts = replace(self.facts, integration=self._commit())
            return Landed(task=task, kind=kind, merge=self.facts.integration)
        reason = self.dice.choice(_REASONS)
        if kind != "conflict":
            return Landed(task=task, kind=kind, reason=reason)
        report = ConflictReport(files=("src/a.py",), others=("target",), integration=self.facts.integration)
        return Landed(task=task, kind=kind, reason=reason, conflict=report)

    def _landed_alone(self, run: Run) -> Outcome:
        fate = self.dice.choice(["merged", "merged", "conflict", "gate", "refused"])
        if fate == "conflict":
            report = ConflictReport(files=("src/a.py",), others=("k1",), integration=self.facts.integration)
            return Outcome(ending=Ending.CONFLICT, reason="conflict with what k1 landed", conflict=report)
        if fate != "merged":
            return Outcome(ending=Ending.FAILED, code=fate, reason=self.dice.choice(_REASONS))
        merge = self._commit()
        self.facts = replace(self.facts, integration=merge)
        gates = tuple(GateResult(gate=name, commit=merge, exit_code=0) for name in self.facts.settings.gates.default)
        return Outcome(ending=Ending.SUCCEEDED, commit=merge, base=run.base, gates=gates)

    # -- what people do -----------------------------------------------------------------------------------------------

    def interfere(self) -> None:
        """A person, or the one who starts and stops supervisors, does something."""
        task = self.dice.choice([*self.state.tasks]) if self.state.tasks else ""
        deeds: list[Callable[[State], Sequence[e.AnyEvent]]] = [
            lambda state: commands.cancel(state, task),
            lambda state: commands.retry(state, task),
            lambda state: commands.retry(state, task),
            lambda state: commands.pause(state, task),
            lambda state: commands.resume(state, task),
            lambda state: commands.pause(state, None),
            lambda state: commands.resume(state, None),
            lambda state: commands.resume(state, None),
            lambda state: commands.approve(state, task),
            lambda state: commands.approve(state, task),
            lambda state: commands.reject(state, task, self.dice.choice(_REASONS)),
            lambda state: commands.stop(state, self.dice.choice(["drain", "finish", "force"])),
        ]
        if self.dice.random() < 0.1:
            started = e.SupervisorStarted(supervisor=f"s{len(self.batches)}", pid=2)
            self.transact([started])
        else:
            self.ask(self.dice.choice(deeds))
        mode = self.state.stop
        self.facts = replace(self.facts, starting=not mode, stopping=mode in ("finish", "force"))

    def turn(self) -> None:
        """Time passes, something happens, and what follows from it is decided."""
        self.facts = replace(self.facts, now=self.facts.now + self.dice.choice([0.0, 1.0, 60.0]))
        live = self.state.live_runs()
        if live and self.dice.random() < 0.7:
            self.answer(self.dice.choice(live))
        elif self.dice.random() < 0.5:
            self.interfere()
        if self.dice.random() < 0.9:
            self.decide()

    def finish(self) -> None:
        """Nobody interferes any more: everything goes on until nothing happens by itself."""
        self.transact([e.SupervisorStarted(supervisor="last", pid=2)])
        self.ask(lambda state: commands.resume(state, None))
        for task in [*self.state.tasks]:
            self.ask(lambda state, task=task: commands.resume(state, task))  # type: ignore[misc]
        self.facts = replace(self.facts, starting=True, stopping=False)
        for _ in range(TURNS_MAX):
            self.decide()
            live = self.state.live_runs()
            if live:
                self.answer(self.dice.choice(live))
            elif not plan(self.state, replace(self._observed(), now=self.facts.now + FAR_SECONDS), self.policies):
                return
            self.facts = replace(self.facts, now=self.facts.now + 60.0)
        raise AssertionError(f"no end after {TURNS_MAX} turns: {self.state}")


def completed(run: Run, outcome: Outcome) -> Outcome:
    """With what nobody cared to make up: how large a change is and which files it is in, what a verdict is about."""
    if run.purpose is Purpose.WORK and outcome.commit:
        diff = outcome.diff or DiffStat(files=1, insertions=100)
        changed = outcome.changed or tuple(f"src/{number}.py" for number in range(diff.files))
        return replace(outcome, diff=diff, changed=changed)
    return replace(outcome, judged=run.commit) if outcome.verdict and not outcome.judged else outcome


_ENDINGS_OF_ALL = (Ending.FAILED, Ending.STOPPED, Ending.STOPPED, Ending.TIMED_OUT, Ending.CRASHED, Ending.LIMITED)
_REASONS = ("", "\n", "because\nof this", "no")


@dataclass(frozen=True, kw_only=True, repr=False)
class History:
    """A coordination from its first record to the point where nothing happens by itself."""

    batches: tuple[Batch, ...]
    state: State
    facts: Facts
    policies: Policies

    @property
    def records(self) -> list[e.Record]:
        """All records in order."""
        return [record for batch in self.batches for record in batch.records]

    def __repr__(self) -> str:
        """A failing example as people read a log: one fact a line."""
        lines = (f"{record.seq}.{record.index} {record.at - EPOCH:+g} {record.event}" for record in self.records)
        return "\n".join(["", str(self.facts.settings), *lines])


@st.composite
def histories(
    draw: st.DrawFn, *, turns_max: int = 60, seen: Callable[[Batch, State], None] = lambda _batch, _state: None
) -> History:
    """Legal histories: some tasks, a time in which people interfere, and the time until all is over.

    Tasks and settings shrink; what the world does comes from one seed.
    """
    known = draw(settings())
    count = draw(st.integers(1, len(IDS)))
    # Now and then one depends on what nobody ever submits.
    wanted = (*IDS[:count], "nobody") if draw(st.integers(0, 9)) == 9 else IDS[:count]
    tasks = [draw(specs(after=wanted)) for _ in range(count)]
    world = World(facts=facts(known), dice=Random(draw(st.integers(0, 2**32))), seen=seen)
    coming = [(IDS[n] if IDS[n][0] == "k" else None, spec) for n, spec in enumerate(tasks)]
    turns = draw(st.integers(0, turns_max))
    at_once = draw(st.booleans())
    while coming and at_once:
        world.submit(*coming.pop(0))
    for _ in range(turns):
        if coming and world.dice.random() < 0.3:
            world.submit(*coming.pop(0))
        world.turn()
    while coming:
        world.submit(*coming.pop(0))
    world.finish()
    return History(batches=tuple(world.batches), state=world.state, facts=world.facts, policies=world.policies)


__all__ = [
    "EPOCH",
    "GATES",
    "IDS",
    "PATHS",
    "ROLES",
    "Batch",
    "History",
    "World",
    "completed",
    "events",
    "facts",
    "histories",
    "settings",
    "specs",
    "texts",
    "values",
]
