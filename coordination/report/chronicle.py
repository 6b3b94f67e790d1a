"""What happened in a stretch of the log, and when? Noted while the state is folded: afterwards it only says how it is.

A ``Chronicle`` is the core state's projection with somebody who watches. Its time never goes back: what a clock that
went back wrote counts as of the latest moment before. What a damaged log left aside is not noted, as it is not folded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coordination.model import events as e
from coordination.model.endings import OTHER, SUCCEEDED, How, kind_of
from coordination.model.facts import Facts
from coordination.model.runs import Ending, Purpose
from coordination.model.state import Core, Run, State, Task
from coordination.model.tasks import ENDED, Status
from coordination.report.reasons import tally

SAMPLES = 96
"""How often it is asked, over the whole stretch, what everybody waits for."""

_ENDS = (e.TaskMerged, e.TaskDone, e.TaskFailed, e.TaskCancelled, e.DependencyFailed)
_HOW: dict[str, str] = {
    How.FRESH: "tried again in a new session",
    How.RESUME: "tried again in the same session",
    How.OTHER_MODEL: "tried again with the other model",
    How.SHORTER: "tried again without packed context",
    How.WAIT: "waited, then tried again",
}
_REQUEUED = {
    "weather": "waited, then tried again",
    "stopped": "put back to the queue",
    "conflict": "sent back with both sides",
    "rejected": "sent back with the findings",
    "retried": "a person had it tried again",
    "answered": "a person decided",
}


@dataclass(frozen=True, kw_only=True)
class Payment:
    """What one run cost, when it was known."""

    at: float
    role: str
    model: str
    usd: float
    estimated: bool


@dataclass(kw_only=True)
class Band:
    """A time in which something kept everything, or an account, from starting. ``end`` is None while it lasts."""

    kind: str
    said: str
    start: float
    end: float | None = None


@dataclass(frozen=True, kw_only=True)
class Misfortune:
    """A run that did not succeed."""

    kind: str
    says: str
    usd: float


@dataclass(kw_only=True)
class Chronicle:
    """Folds like ``Core`` and notes what comes after batch ``since_seq`` and not before ``since_time``."""

    facts: Facts
    last_at: float  # of the newest record there is
    since_seq: int = 0
    since_time: float | None = None
    name: str = Core.name
    version: int = Core.version
    first_seq: int = 0
    first_at: float | None = None  # None: nothing happened in that stretch
    submitted: list[float] = field(default_factory=list)
    ended: list[tuple[float, Status]] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)  # task -> when it ended well
    payments: list[Payment] = field(default_factory=list)
    reviews: list[tuple[float, Run]] = field(default_factory=list)
    misfortunes: list[Misfortune] = field(default_factory=list)
    remedies: Counter[tuple[str, str]] = field(default_factory=Counter)  # (kind of ending, what was done) -> how often
    samples: list[tuple[float, Counter[str]]] = field(default_factory=list)
    bands: list[Band] = field(default_factory=list)
    _lasting: dict[str, Band] = field(default_factory=dict)  # by account; "": a pause of everything
    _core: Core = field(default_factory=Core)
    _clock: float = float("-inf")
    _step: float = 1.0
    _next: float = 0.0
    _unanswered: dict[str, str] = field(default_factory=dict)  # task -> kind of the ending nobody has answered yet

    # -- a projection ------------------------------------------------------------------------------------------------

    def initial(self) -> State:
        """Nothing has happened."""
        return self._core.initial()

    def dump(self, state: State) -> bytes:
        """The state as ``Core`` dumps it."""
        return self._core.dump(state)

    def load(self, dump: bytes) -> State:
        """The state back from its dump. Raises msgspec.DecodeError."""
        return self._core.load(dump)

    def fold(self, state: State, record: e.Record) -> State:
        """Take one record in, and note what it changed."""
        earliest = self._clock == float("-inf")
        at = self._clock = max(self._clock, record.at)
        if record.seq <= self.since_seq or (self.since_time is not None and at < self.since_time):
            return self._core.fold(state, record)
        if self.first_at is None:
            self._begin(state, record.seq, at if earliest or self.since_time is None else self.since_time)
        if self._next <= at:
            self._sample(state, self._next)
            self._next += self._step * (1 + (at - self._next) // self._step)  # nothing changed in between
        event = record.event
        before = state.tasks.get(getattr(event, "task", ""))
        state = self._core.fold(state, record)
        self._note(state, event, before, at)
        return state

    # -- what is noted -----------------------------------------------------------------------------------------------

    def close(self, state: State, at: float) -> None:
        """Note how everything stands at the end of the stretch."""
        if self.first_at is None:
            self.first_at = self.since_time if self.since_time is not None else at
        self._sample(state, max(at, self._clock))

    def _begin(self, state: State, seq: int, start: float) -> None:
        self.first_seq, self.first_at = seq, start
        self._step = max((self.last_at - start) / SAMPLES, 1.0)
        self._next = start
        self._see_weather(state, start)
        if state.paused:
            self._see("", "paused", "since before", start)

    def _sample(self, state: State, at: float) -> None:
        self.samples.append((at, tally(state, self.facts, at)))
        if len(self.samples) > 2 * SAMPLES:  # a clock that went back: the newest record is not the latest
            self.samples, self._step = self.samples[::2], self._step * 2

    def _note(self, state: State, event: e.AnyEvent, before: Task | None, at: float) -> None:
        task = state.tasks.get(getattr(event, "task", ""))
        match event:
            case e.TaskSubmitted() if before is None and task is not None:
                self.submitted.append(at)
            case e.RunEnded() if task is not None and (run := _ended(task, event)) is not None:
                self._note_end(run, event, at)
                self._see_weather(state, at)
            case e.RunPlanned() if task is not None:
                self._answer(task.id, "the same run once more")
                self._see_weather(state, at)
            case e.TaskRequeued(reason=reason) if task is not None:
                self._answer(task.id, _REQUEUED.get(reason.kind) or _HOW.get(reason.how, _HOW[How.FRESH]))
            case e.TaskEscalated() if task is not None:
                self._answer(task.id, "a person decides")
            case e.TaskApproved(evidence=evidence) if task is not None:
                self._answer(task.id, "a person decided" if evidence.reviewer == "person" else "went on without it")
            case e.CoordinationPaused(reason=reason):
                self._see("", "paused", reason or "by a person", at)
            case e.BatchLost():
                self._see("", "paused", "a part of the log is lost", at)
            case e.CoordinationResumed():
                self._see("", "", "", at)
                self._see_weather(state, at)
        if isinstance(event, _ENDS) and task is not None and before is not None:
            self._note_arrival(before, task, at)

    def _note_arrival(self, before: Task, task: Task, at: float) -> None:
        if task.status not in ENDED or before.status is task.status:
            return
        self.ended.append((at, task.status))
        self._answer(task.id, "cancelled" if task.status is Status.CANCELLED else "given up")
        if task.status.ended_well:
            self.arrived[task.id] = at

    def _note_end(self, run: Run, event: e.RunEnded, at: float) -> None:
        outcome = event.outcome
        if outcome.usage.cost_usd:
            usage, model = outcome.usage, outcome.model or run.model
            paid = Payment(at=at, role=run.role, model=model, usd=usage.cost_usd, estimated=usage.estimated)
            self.payments.append(paid)
        if run.purpose is Purpose.REVIEW:
            self.reviews.append((at, run))
        kind, says = named(run)
        if kind != SUCCEEDED.name:
            self.misfortunes.append(Misfortune(kind=kind, says=says, usd=outcome.usage.cost_usd))
            self._unanswered[run.task] = kind

    def _answer(self, task: str, said: str) -> None:
        kind = self._unanswered.pop(task, None)
        if kind is not None:
            self.remedies[kind, said] += 1

    @property
    def unanswered(self) -> Counter[str]:
        """Endings about which nothing has been decided yet, by kind."""
        return Counter(self._unanswered.values())

    # -- times in which nothing started ------------------------------------------------------------------------------

    def _see_weather(self, state: State, at: float) -> None:
        for name, account in state.accounts.items():
            self._see(name, f"{account.kind} of {name}" if account.kind else "", account.said, at)

    def _see(self, what: str, kind: str, said: str, at: float) -> None:
        """From now on that is in the way, or (kind "") nothing is."""
        known = self._lasting.get(what)
        if known is not None and known.kind != kind:
            known.end = at
            del self._lasting[what]
        if kind and what not in self._lasting:
            self._lasting[what] = Band(kind=kind, said=said, start=at)
            self.bands.append(self._lasting[what])


def named(run: Run) -> tuple[str, str]:
    """How a run ended, in a few words and in a sentence; "done" when it succeeded. Raises for one that is live."""
    assert run.outcome is not None, f"{run.id} has not ended"
    kind = kind_of(run.outcome)
    if run.outcome.ending is Ending.CONFLICT:
        return "conflict", "it met what other tasks had landed"
    if kind is OTHER and run.purpose is Purpose.GATE:
        return "gate failed", "a gate did not exit 0 on the commit"
    if kind is OTHER and run.purpose is Purpose.LANDING:
        return "landing failed", "the merge did not pass the gates, or could not be made"
    return kind.name, kind.says


def _ended(task: Task, event: e.RunEnded) -> Run | None:
    """The run whose end this is; None when the event was left aside after a loss."""
    for run in reversed(task.runs):
        if run.id == event.run:
            return run if run.outcome is event.outcome else None
    return None
