"""Is what was done recorded exactly once, whatever workers and supervisors do? Simulated, thousands of tasks a minute.

Commands, plan and state are the real ones; the workers are careless. They die and are said to have crashed, and their
outcome arrives all the same; they answer twice, at once or much later, when another run has taken their place; they
answer with the token of somebody else. The witness reads records only. Each outcome carries the token of its writer,
so the witness knows whose word was taken for a fact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random

from msgspec.structs import replace

from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome
from coordination.model.state import Run
from coordination.model.tasks import ReviewMode, TaskSpec
from coordination.settings import Gates, LimitSettings, Settings
from coordination.testing.strategies import GATES, Batch, World, facts

TASKS = 6  # of one world


@dataclass(kw_only=True)
class Letter:
    """An outcome on its way."""

    run: str
    token: int
    outcome: Outcome


@dataclass(kw_only=True)
class Careless(World):
    """A world whose workers are not to be trusted."""

    letters: list[Letter] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def answer(self, run: Run) -> None:
        """A run begins, answers, dies, or speaks with another one's token; what it has written may come again."""
        if not run.started_at and self.dice.random() < 0.3:
            self.transact(commands.start(run, pid=self.dice.randrange(2, 1000)))
            return
        letter = Letter(run=run.id, token=run.token, outcome=replace(self._outcome(run), session=str(run.token)))
        fate = self.dice.random()
        if fate < 0.15:
            self._died(run, letter)
        elif fate < 0.25:
            self._superseded(run, letter)
        else:
            self._deliver(letter)
            if self.dice.random() < 0.3:
                self.told["answered twice"] += 1
                self._deliver(letter)
            if self.dice.random() < 0.3:
                self.letters.append(letter)

    def turn(self) -> None:
        """As everywhere, and now and then the post comes."""
        super().turn()
        while self.letters and self.dice.random() < 0.3:
            self.told["answered late"] += 1
            self._deliver(self.letters.pop(self.dice.randrange(len(self.letters))))
            self.decide()

    def finish(self) -> None:
        """To the end; then all that was still on its way arrives, and nothing may come of it."""
        super().finish()
        before = len(self.batches)
        for letter in self.letters:
            self.told["answered when all was over"] += 1
            self._deliver(letter)
        self.decide()
        assert len(self.batches) == before, f"a letter that came when all was over moved something: {self.batches[-1]}"

    def _deliver(self, letter: Letter) -> None:
        self.transact(commands.end(self.state, letter.run, letter.outcome, token=letter.token))

    def _died(self, run: Run, letter: Letter) -> None:
        """The supervisor finds it dead and says so; its last act comes to light afterwards."""
        self.told["died"] += 1
        crashed = Outcome(ending=Ending.CRASHED, code="worker_died", reason="the worker died without an outcome")
        self.transact([e.RunEnded(task=run.task, run=run.id, outcome=crashed)])
        self.letters.append(letter)

    def _superseded(self, run: Run, letter: Letter) -> None:
        """Somebody answers in this run's place; as the supervisor has it, the run ends without him."""
        self.told["answered with another token"] += 1
        token = run.token + self.dice.choice((-1, 1))
        foreign = Letter(run=run.id, token=token, outcome=replace(letter.outcome, session=str(token)))
        self._deliver(foreign)
        self.letters.append(foreign)
        if self.state.run(run.id).live and self.dice.random() < 0.5:
            superseded = Outcome(ending=Ending.CRASHED, code="superseded", reason="its outcome was refused")
            self.transact([e.RunEnded(task=run.task, run=run.id, outcome=superseded)])


_ENDS = (e.TaskMerged, e.TaskDone, e.TaskFailed, e.TaskCancelled, e.DependencyFailed, e.TaskEscalated)


class Witness:
    """What was recorded, and what of it may not be. Knows neither commands nor state nor plan."""

    def __init__(self) -> None:
        self.submitted: set[str] = set()
        self.token: dict[str, int] = {}
        self.ended: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.open: set[str] = set()  # tasks that have neither ended nor wait for a person
        self.wrong: list[str] = []

    def see(self, records: Iterable[e.Record]) -> None:
        """Take in a batch."""
        for record in records:
            self._see(record.seq, record.event)

    def _see(self, seq: int, event: e.AnyEvent) -> None:
        task = getattr(event, "task", "")
        if self.completed[task] and not isinstance(event, e.RunRefused):
            self.wrong.append(f"{event} after {task} was completed")
        match event:
            case e.TaskSubmitted():
                self.submitted.add(task)
                self.open.add(task)
            case e.RunPlanned():
                if event.run in self.token:
                    self.wrong.append(f"{event.run} was planned twice")
                self.token[event.run] = seq
            case e.RunEnded():
                self.ended[event.run] += 1
                writer = event.outcome.session
                if writer and writer != str(self.token[event.run]):
                    self.wrong.append(f"{event.run} of token {self.token[event.run]}: the word of {writer} was taken")
            case e.TaskRequeued() | e.TaskApproved():
                self.open.add(task)
        if isinstance(event, (e.TaskMerged, e.TaskDone)):
            self.completed[task] += 1
        if isinstance(event, _ENDS):
            self.open.discard(task)

    def complaints(self) -> Iterator[str]:
        """All that is wrong when everything is over."""
        yield from self.wrong
        yield from (f"{run} ended {self.ended[run]} times" for run in self.token if self.ended[run] != 1)
        yield from (f"{task} was completed {count} times" for task, count in self.completed.items() if count > 1)
        yield from (f"{task} is lost on the way" for task in self.open)


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of the tasks of one world."""

    tasks: int
    completed: int
    told: Counter[str]
    wrong: tuple[str, ...]


def play(seed: int) -> Played:
    """One world from one number: some tasks, careless workers, people and supervisors that interfere, and the end."""
    dice = Random(seed)
    gates = dice.choice([(), ("unit",)])
    limits = LimitSettings(attempts_max=dice.randrange(3, 12), budget_usd=1000.0)
    known = Settings(gates=Gates(default=gates, named=GATES), limits=limits, gate_slots=2)
    witness = Witness()

    def seen(batch: Batch, _state: object) -> None:
        witness.see(batch.records)

    world = Careless(facts=facts(known), dice=dice, seen=seen)
    for number in range(TASKS):
        review = dice.choice([ReviewMode.NEVER, ReviewMode.NEVER, ReviewMode.ALWAYS])
        world.submit(f"k{number}", TaskSpec(prompt="do it", title="It", review=review))
    try:
        for _ in range(dice.randrange(30)):
            world.turn()
        world.finish()
    except AssertionError as error:  # a state that was led astray refuses to go on
        witness.wrong.append(f"it could not go on: {error!r}")
    return Played(
        tasks=len(witness.submitted),
        completed=witness.completed.total(),
        told=world.told,
        wrong=tuple(witness.complaints()),
    )
