"""What happens in a storm? Everything that can, at moments that a seed chooses.

The plan is a pure function of the seed: which trouble the model makes for which task, which part of which run is
killed how long after it began, and at how many runs the supervisor dies. What is not chosen is how the machine
schedules it all; so a seed repeats the plan, and mostly the storm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from time import monotonic
from typing import Any

from coordination.testing.account import INTEGRATION, Demand
from coordination.testing.stage import Stage
from coordination.testing.strikes import everybody, strike
from tests.e2e.lines import case, read, say, verdict, write

JSON = Any

CHEAP = {"usage": {"input_tokens": 100, "output_tokens": 100}}
DEAR_USD = 0.2
DEAR = {"usage": {"input_tokens": 100, "output_tokens": 19_960}}  # just below that, at ten dollars a million
SLOW_SECONDS = 0.8  # of the last answer, where a run is to be met alive
TURNS_MAX = 3

# ---- the plan --------------------------------------------------------------------------------------------------------

LANDS = (
    *("nothing", "nothing", "overloaded", "rate limit", "service error", "connection lost", "cut off", "no answer"),
    *("gave up first", "out of turns", "rejected first"),
)
ENDS_BADLY = {"gave up for good": "failed", "refused": "waiting_for_person"}
TROUBLES = (*LANDS, *ENDS_BADLY)


@dataclass(frozen=True, kw_only=True)
class Blow:
    """A part of the next run for that purpose is killed so long after it was first seen and all else has come."""

    purpose: str
    part: str
    after_seconds: float
    after_answers: int = 0  # of the model, to this task
    after_landing: bool = False  # once the branch has moved: all is done, and only nobody has said so


@dataclass(frozen=True, kw_only=True)
class Fate:
    """All that is to happen to one task."""

    task: str
    trouble: str = "nothing"
    reviewed: bool = False
    after: tuple[str, ...] = ()
    blows: tuple[Blow, ...] = ()

    @property
    def demand(self) -> Demand:
        """How it must end all the same."""
        ends = {ENDS_BADLY.get(self.trouble, "merged")}
        return Demand(task=self.task, ends=frozenset(ends), content={_file(self.task): _text(self)})

    @property
    def file(self) -> Mapping[str, JSON]:
        """The task file."""
        limits = {"attempts_max": 2} if self.trouble == "gave up for good" else {}
        if self.trouble == "out of turns":
            limits["turns_max"] = TURNS_MAX
        review = "always" if self.reviewed else "never"
        return {"id": self.task, "prompt": "Write it.", "review": review, "after": list(self.after), **limits}


@dataclass(frozen=True, kw_only=True)
class Fall:
    """The supervisor is killed so long after that many runs were seen, and another one is started at once."""

    runs: int
    after_seconds: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole storm."""

    fates: Sequence[Fate]
    falls: Sequence[Fall]


def planned(seed: int, tasks: int) -> Plan:
    """The storm of a seed over so many tasks."""
    dice = Random(seed)
    troubles = [TROUBLES[number % len(TROUBLES)] for number in range(tasks)]
    dice.shuffle(troubles)
    names = [f"s{number:03}" for number in range(tasks)]
    fates: list[Fate] = []
    for name, trouble in zip(names, troubles, strict=True):
        fates.append(_fate(dice, name, trouble, [fate.task for fate in fates if fate.trouble in LANDS]))
    blows = _blows(dice, fates)
    # the last third is left to one supervisor, whose descriptors are counted in the end
    count = 3 + tasks // 10
    falls = sorted(dice.sample(range(2, 2 * tasks), count))
    return Plan(
        fates=[replace(fate, blows=tuple(blows[fate.task])) for fate in fates],
        falls=[Fall(runs=runs, after_seconds=dice.choice((0.0, 0.05, 0.3))) for runs in falls],
    )


def _fate(dice: Random, task: str, trouble: str, before: Sequence[str]) -> Fate:
    reviewed = trouble == "rejected first" or (trouble in LANDS and dice.random() < 0.1)
    after = (dice.choice(before),) if before and trouble in LANDS and dice.random() < 0.1 else ()
    return Fate(task=task, trouble=trouble, reviewed=reviewed, after=after)


def _blows(dice: Random, fates: Sequence[Fate]) -> Mapping[str, list[Blow]]:
    """One for every second task, of each kind some; nobody gets more than two."""
    lands = [fate for fate in fates if fate.trouble in LANDS]
    kinds = [("work", "worker"), ("work", "agent"), ("gate", "worker"), ("landing", "worker"), ("review", "worker")]
    found: dict[str, list[Blow]] = {fate.task: [] for fate in fates}
    for number in range(max(len(kinds), len(fates) // 2)):
        purpose, part = kinds[number % len(kinds)]
        open_to = lands if purpose != "review" else [fate for fate in lands if fate.reviewed]
        open_to = [fate for fate in (open_to if purpose != "work" else fates) if len(found[fate.task]) < 2]
        if open_to:
            longest = {"worker": 2.5, "agent": 1.2}[part] if purpose in ("work", "review") else 0.25
            blow = Blow(purpose=purpose, part=part, after_seconds=dice.uniform(0.0, longest))
            if purpose == "landing" and number % 2:
                blow = Blow(purpose=purpose, part=part, after_seconds=0.0, after_landing=True)
            found[dice.choice(open_to).task].append(blow)
    return found


# ---- what the model says ---------------------------------------------------------------------------------------------


def _file(task: str) -> str:
    return f"work/{task}.txt"


def _text(fate: Fate) -> str:
    return f"{fate.task} {'twice' if fate.trouble == 'rejected first' else 'once'}\n"


def _error(status: int, kind: str, times: int) -> dict[str, JSON]:
    return {"status": status, "type": kind, "message": "a storm", "times": times}


REFUSES = [[CHEAP, *say("No."), {"stop_reason": "refusal"}]] * 4
FAULTS: Mapping[str, dict[str, JSON]] = {
    "overloaded": _error(529, "overloaded_error", 2),
    "rate limit": _error(429, "rate_limit_error", 1),
    "service error": _error(500, "api_error", 2),
    "connection lost": {"drop": True, "times": 1},
    "cut off": {"drop": True, "said": "I will begin by", "times": 1},
    "no answer": {"hang": True, "times": 1},
}


def scripts(fate: Fate) -> Iterator[dict[str, JSON]]:
    """What the model says to all the prompts of a task, the most special one first."""
    begins, goes_on = f"# Task {fate.task}:", f"The previous run of task {fate.task} ended"
    review, answered = f"# Review of task {fate.task}:", "A reviewer rejected"
    once = does_it(fate.task, f"{fate.task} once\n", slow=bool(fate.blows))
    fault = FAULTS.get(fate.trouble)
    match fate.trouble:
        case "gave up for good":
            again = first = [[CHEAP, *say("I cannot.")]]
        case "refused":
            again = first = REFUSES
        case "gave up first":
            first, again = [[CHEAP, *say("I cannot.")]], once
        case "out of turns":
            first, again = [[CHEAP, *read("greeter.py")]] * 6, once
        case "rejected first":
            yield _named(f"{fate.task}/review 2", review, answered, steps=[[CHEAP, *verdict("approve", "Fine.")]])
            yield _named(f"{fate.task}/review 1", review, steps=[[CHEAP, *verdict("reject", "Once is not enough.")]])
            yield _named(f"{fate.task}/answers", begins, answered, steps=does_it(fate.task, _text(fate)))
            first = again = once
        case _:
            first, again = [[*([fault] if fault else []), *once[0]], *once[1:]], once
    if fate.trouble != "rejected first":
        yield _named(f"{fate.task}/review", review, steps=[[CHEAP, *verdict("approve", "Fine.")]])
    yield _named(f"{fate.task}/goes on", goes_on, steps=again)
    yield _named(f"{fate.task}/again", begins, "What happened before", steps=again)
    yield _named(f"{fate.task}/first", begins, steps=first)


def does_it(task: str, text: str, *, slow: bool = False, usage: Mapping[str, JSON] = CHEAP) -> list[JSON]:
    """Look, write, report. What is there already must be read before it may be written."""
    wait = [{"delay_seconds": SLOW_SECONDS}] if slow else []
    return [[usage, *read(_file(task))], [usage, *write(_file(task), text)], [*wait, usage, *say("It is written.")]]


def greedy(task: str) -> Iterator[dict[str, JSON]]:
    """The same for a task that looks round for long, with answers that are as dear as declared: two dollars in all."""
    looks = [[DEAR, *read("greeter.py")]] * 7
    steps = [[{"delay_seconds": 0.1}, *step] for step in (*looks, *does_it(task, f"{task} once\n", usage=DEAR))]
    yield _named(f"{task}/dear goes on", f"The previous run of task {task} ended", steps=steps)
    yield _named(f"{task}/dear", f"# Task {task}:", steps=steps)


def _named(name: str, *contains: str, steps: JSON) -> dict[str, JSON]:
    return {"name": name, **case(*contains, steps=steps)}


# ---- the storm itself ------------------------------------------------------------------------------------------------


@dataclass
class Storm:
    """Strikes when it is time to; ``turn`` is called over and over while everything goes on."""

    stage: Stage
    start: Callable[[], object]  # another supervisor
    blows: dict[str, list[Blow]]  # those to come, by task
    falls: list[Fall] = field(default_factory=list)
    answered: Callable[[str], int] = lambda _task: 0  # how many answers a task has had
    struck: Counter[str] = field(default_factory=Counter)
    _newest: dict[str, str] = field(default_factory=dict)  # task -> its newest run
    _seen: set[str] = field(default_factory=set)  # names of run directories
    _due: dict[tuple[str, Blow], float] = field(default_factory=dict)
    _before: dict[str, str] = field(default_factory=dict)  # run -> where the branch was when it was first seen
    _falling: float | None = None

    def turn(self) -> None:
        """Look once, and do what is due."""
        fresh = {path.name for path in (self.stage.state / "runs").iterdir()} - self._seen
        self._seen |= fresh
        # one run of a task at a time: the newest is the one with the highest number
        self._newest |= {run.split(".")[0]: run for run in sorted(fresh, key=lambda run: int(run.split(".")[1]))}
        met = [(run, blow) for task, blows in self.blows.items() for run, blow in self._meeting(task, blows)]
        living = everybody(self.stage) if met else {}
        for run, blow in met:
            if self._strikes(run, blow, living.get(run, {})):
                self.blows[run.split(".")[0]].remove(blow)
                self.struck[f"{blow.purpose} {blow.part}"] += 1
        self._fall()

    def until(self, done: Callable[[], bool]) -> Callable[[], bool]:
        """A condition to wait for while the storm goes on."""

        def looked() -> bool:
            self.turn()
            return done()

        return looked

    @property
    def spared(self) -> int:
        """How many blows never met anybody."""
        return sum(map(len, self.blows.values()))

    def _meeting(self, task: str, blows: Sequence[Blow]) -> Iterator[tuple[str, Blow]]:
        """The first blow that is meant for what a task does now."""
        run = self._newest.get(task, "")
        meant = [blow for blow in blows if run.endswith(f".{blow.purpose}")]
        if meant and not (self.stage.state / "runs" / run / "outcome.json").exists():
            yield run, meant[0]

    def _strikes(self, run: str, blow: Blow, living: Mapping[str, int]) -> bool:
        if blow.part not in living or not self._come(run, blow):
            return False
        due = self._due.setdefault((run, blow), monotonic() + blow.after_seconds)
        return monotonic() >= due and strike(self.stage, run, blow.part)

    def _come(self, run: str, blow: Blow) -> bool:
        """Whether it is time for a blow that waits for something to happen."""
        if blow.after_answers and self.answered(run.split(".", maxsplit=1)[0]) < blow.after_answers:
            return False
        branch = (self.stage.repository / ".git/refs/heads" / INTEGRATION).read_text()
        return not blow.after_landing or branch != self._before.setdefault(run, branch)

    def _fall(self) -> None:
        if self._falling is None and self.falls and len(self._seen) >= self.falls[0].runs:
            self._falling = monotonic() + self.falls.pop(0).after_seconds
        if self._falling is not None and monotonic() >= self._falling:
            self._falling = None
            supervisor = self.stage.processes[-1]
            supervisor.kill()
            supervisor.wait()
            self.struck["supervisor"] += 1
            self.start()
