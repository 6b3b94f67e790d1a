"""How does a log look after a year? Long histories, made within seconds, for whoever measures replay or start-up.

They are shaped like what a supervisor writes: a start or an end of a run is a batch of its own, what is decided at one
moment is a batch together, and a few tasks are worked on at once. Every history is legal and folds; the same numbers
give the same bytes. For histories in which everything happens that can happen see ``strategies.histories``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from coordination import files
from coordination.env import REAL
from coordination.log import frames, segments
from coordination.log.frames import Header, Previous
from coordination.model import events as e
from coordination.model.runs import DiffStat, Ending, Finding, GateResult, Limits, Outcome, Purpose, Usage
from coordination.model.tasks import Kind, TaskSpec

EPOCH = 1_800_000_000.0
SEGMENT_BYTES = 64 << 20
_LIVE_MAX = 12  # tasks that are worked on at once
_WAITING_MAX = 40  # tasks that are submitted ahead
_SEARCH_EVENTS = 5
_LANDED_EVENTS = 12
_ROUND_EVENTS = 10
_REVIEW_EVENTS = 3

Batch = tuple[float, Sequence[e.AnyEvent]]
"""When it was appended, and what."""


def write_history(
    directory: Path, events: int, tasks: int, *, seed: int = 0, segment_bytes: int = SEGMENT_BYTES
) -> None:
    """Make a log in a new directory with that many events about that many tasks, all of them durable.

    There is no shared page, as after a reboot: ``FileLog(directory).settle()`` makes one.
    """
    files.make_directory(directory)
    segment = _Segment.first(directory, str(UUID(int=Random(seed).getrandbits(128), version=4)))
    for at, batch in batches(events, tasks, seed=seed):
        if segment.size >= segment_bytes:
            segment = segment.closed()
        segment.add(e.encode(batch, at))
    segment.publish()


def batches(events: int, tasks: int, *, seed: int = 0) -> Iterator[Batch]:
    """The same history without its log."""
    now, left = EPOCH, events
    for batch in _World(Random(seed), events, tasks).batches():
        now += 0.25
        yield now, batch[:left]
        left -= len(batch)
        if left <= 0:
            return


# ---- what happens ----------------------------------------------------------------------------------------------------

Step = tuple[bool, e.AnyEvent]
"""Whether it is decided by the plan (and shares a batch with what is decided then), and what."""


class _World:
    """Tasks come, a few are worked on at once, and each goes its way to the end."""

    def __init__(self, dice: Random, events: int, tasks: int) -> None:
        self._dice = dice
        self._events_each = events / tasks
        self._tasks = tasks
        self._promised = 0.0  # events of the stories told so far
        self._submitted = 0
        self._waiting: list[Iterator[Step]] = []
        self._live: list[tuple[Step, Iterator[Step]]] = []

    def batches(self) -> Iterator[list[e.AnyEvent]]:
        yield [e.SupervisorStarted(supervisor="s1", pid=4000, host="localhost", version="0.1.0")]
        yield [e.IntegrationCreated(branch="coordination/integration", commit=_sha(self._dice), target="main")]
        while self._submitted < self._tasks or self._waiting or self._live:
            yield from self._submissions()
            while self._waiting and len(self._live) < _LIVE_MAX:
                self._go_on(self._waiting.pop(0))
            yield from self._moment()
        while True:  # rounding: what is missing to the number asked for
            yield [e.CoordinationPaused(reason="night")]
            yield [e.CoordinationResumed()]

    def _submissions(self) -> Iterator[list[e.AnyEvent]]:
        while self._submitted < self._tasks and len(self._waiting) < _WAITING_MAX:
            self._submitted += 1
            story = self._story(f"task-{self._submitted}")
            yield [next(story)[1]]
            self._waiting.append(story)

    def _story(self, task: str) -> Iterator[Step]:
        """As long as it takes to meet the number of events that a task has on average."""
        missing = self._events_each * self._submitted - self._promised
        story = _Story(self._dice, task)
        if missing < _SEARCH_EVENTS:
            self._promised += 1
            return story.only_submitted()
        if missing < _LANDED_EVENTS:
            self._promised += _SEARCH_EVENTS
            return story.search()
        rounds, rest = divmod(int(missing) - _LANDED_EVENTS, _ROUND_EVENTS)
        reviewed = rounds > 0 or rest >= _REVIEW_EVENTS
        self._promised += _LANDED_EVENTS + rounds * _ROUND_EVENTS + reviewed * _REVIEW_EVENTS
        return story.landed(rounds, reviewed=reviewed)

    def _go_on(self, story: Iterator[Step]) -> None:
        step = next(story, None)
        if step is not None:
            self._live.append((step, story))

    def _moment(self) -> Iterator[list[e.AnyEvent]]:
        """Everything that is to be decided, in one batch; then one to three things that happen."""
        decided = [entry for entry in self._live if entry[0][0]]
        if decided:
            yield [event for (_, event), _ in decided]
        self._live = [entry for entry in self._live if not entry[0][0]]
        for _, story in decided:
            self._go_on(story)
        happening = [entry for entry in self._live if not entry[0][0]]
        for (_, event), story in self._dice.sample(happening, min(len(happening), self._dice.randint(1, 3))):
            yield [event]
            self._live = [entry for entry in self._live if entry[1] is not story]
            self._go_on(story)


@dataclass(frozen=True)
class _Story:
    """One task from its submission on."""

    dice: Random
    task: str

    def only_submitted(self) -> Iterator[Step]:
        """It waits for ever."""
        yield self._submitted(Kind.IMPLEMENT)

    def search(self) -> Iterator[Step]:
        """A question that is answered."""
        yield self._submitted(Kind.SEARCH)
        base = _sha(self.dice)
        report = f"It is defined in src/module_{self.dice.randrange(90)}.py and used in three places."
        outcome = self._outcome(base=base, report=report, cited=("src/module.py",))
        yield from self._run(1, Purpose.WORK, outcome, role="blue", model="haiku", base=base)
        evidence = e.Evidence(
            commit=base, base=base, verdict="report", reason="read-only: a report", cited=outcome.cited
        )
        yield True, e.TaskDone(task=self.task, evidence=evidence, report=report)

    def landed(self, rounds: int, *, reviewed: bool) -> Iterator[Step]:
        """A change that is rejected so many times by its reviewer before it lands."""
        yield self._submitted(Kind.IMPLEMENT)
        base, number = _sha(self.dice), 1
        for left in range(rounds, -1, -1):
            commit = _sha(self.dice)
            yield from self._worked(number, base, commit)
            number += 2
            if reviewed:
                yield from self._reviewed(number, commit, approved=not left)
                number += 1
        yield from self._landing(number, base, commit)

    def _worked(self, number: int, base: str, commit: str) -> Iterator[Step]:
        diff = DiffStat(files=2, insertions=self.dice.randrange(1, 90), deletions=4)
        report = "The change is made, with a test that fails without it."
        outcome = self._outcome(base=base, commit=commit, diff=diff, report=report)
        yield from self._run(number, Purpose.WORK, outcome, role="green", model="sonnet", base=base)
        passed = Outcome(ending=Ending.SUCCEEDED, gates=(_passed(commit),), started_at=EPOCH, ended_at=EPOCH + 2.5)
        yield from self._run(number + 1, Purpose.GATE, passed, gate="unit", commit=commit, base=base)

    def _reviewed(self, number: int, commit: str, *, approved: bool) -> Iterator[Step]:
        finding = Finding(message="The empty list is not handled.", file="src/module.py", line=12)
        outcome = self._outcome(
            verdict="approve" if approved else "reject",
            findings=() if approved else (finding,),
            report="Looked at all of it.",
        )
        run = f"{self.task}.{number}.review"
        yield from self._run(number, Purpose.REVIEW, outcome, role="red", model="opus", commit=commit)
        if not approved:
            reason = e.RequeueReason(kind="rejected", message=finding.message, run=run)
            yield True, e.TaskRequeued(task=self.task, reason=reason)

    def _landing(self, number: int, base: str, commit: str) -> Iterator[Step]:
        evidence = e.Evidence(
            commit=commit,
            base=base,
            gates=(_passed(commit),),
            verdict="approve",
            reason="gates passed",
            files=2,
            cost_usd=0.05,
        )
        yield True, e.TaskApproved(task=self.task, evidence=evidence)
        merge = _sha(self.dice)
        outcome = Outcome(
            ending=Ending.SUCCEEDED,
            base=base,
            commit=merge,
            gates=(_passed(merge),),
            started_at=EPOCH,
            ended_at=EPOCH + 1.5,
        )
        yield from self._run(number, Purpose.LANDING, outcome, commit=commit, base=base)
        yield True, e.TaskMerged(task=self.task, commit=commit, merge=merge, gates=outcome.gates)

    def _submitted(self, kind: Kind) -> Step:
        spec = TaskSpec(
            prompt=f"Change module {self.task} so that the empty list is handled, and add a test for it.",
            title=f"Handle the empty list in {self.task}",
            kind=kind,
            paths=(f"src/{self.task}/",),
        )
        digest = f"{self.dice.getrandbits(256):064x}"
        return False, e.TaskSubmitted(
            task=self.task,
            spec=spec,
            digest=digest,
            ticket=f"{self.dice.getrandbits(48):012x}",
            source=f"{self.task}.json",
        )

    def _run(self, number: int, purpose: Purpose, outcome: Outcome, **planned: Any) -> Iterator[Step]:
        run = f"{self.task}.{number}.{purpose}"
        reason = f"{purpose}: the next in order"
        yield (
            True,
            e.RunPlanned(
                task=self.task,
                run=run,
                purpose=purpose,
                reason=reason,
                limits=Limits(budget_usd=5.0, turns_max=60),
                **planned,
            ),
        )
        yield False, e.RunStarted(task=self.task, run=run, pid=self.dice.randrange(300, 32_000))
        yield False, e.RunEnded(task=self.task, run=run, outcome=outcome)

    def _outcome(self, **fields: object) -> Outcome:
        usage = Usage(cost_usd=0.015625, input_tokens=14_799, output_tokens=self.dice.randrange(60, 900), turns=3)
        session = str(UUID(int=self.dice.getrandbits(128), version=4))
        told = {
            "code": "completed",
            "model": "claude-sonnet",
            "session": session,
            "started_at": EPOCH,
            "ended_at": EPOCH + 9.5,
        }
        return Outcome(ending=Ending.SUCCEEDED, usage=usage, **(told | fields))  # type: ignore[arg-type]


def _passed(commit: str) -> GateResult:
    return GateResult(gate="unit", commit=commit, exit_code=0, seconds=2.25, output="12 passed in 2.11s\n")


def _sha(dice: Random) -> str:
    return f"{dice.getrandbits(160):040x}"


# ---- how it is written -----------------------------------------------------------------------------------------------


class _Segment:
    """Lines of one segment, collected; a file once it is published."""

    def __init__(self, directory: Path, header: Header) -> None:
        self._directory = directory
        self._header = header
        line, self._sum = frames.encode_header(header)
        self._lines = [line]
        self._seq = header.first_seq - 1
        self.size = len(line)

    @classmethod
    def first(cls, directory: Path, log: str) -> _Segment:
        return cls(directory, Header(log=log, segment=1, epoch=1, first_seq=1, durable=0, previous=None))

    def add(self, payload: bytes) -> None:
        self._seq += 1
        line, self._sum = frames.encode_line(
            payload, seq=self._seq, durable=self._seq - 1, segment=self._header.segment, previous_sum=self._sum
        )
        self._lines.append(line)
        self.size += len(line)

    def publish(self) -> None:
        files.publish(segments.path_of(self._directory, self._header.segment), b"".join(self._lines), env=REAL)

    def closed(self) -> _Segment:
        """The segment that follows this one, which is published."""
        self.publish()
        number = self._header.segment
        previous = Previous(segment=number, last_seq=self._seq, sum=frames.written(self._sum))
        header = Header(
            log=self._header.log,
            segment=number + 1,
            epoch=1,
            first_seq=self._seq + 1,
            durable=self._seq,
            previous=previous,
        )
        return _Segment(self._directory, header)
