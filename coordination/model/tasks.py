"""What is wanted: the task, its states, and which may follow which."""

from __future__ import annotations

from enum import StrEnum

from coordination.model.runs import Value


class Kind(StrEnum):
    """What sort of work a task is; it decides the role that gets it."""

    SEARCH = "search"
    PLAN = "plan"
    IMPLEMENT = "implement"
    FIX = "fix"
    REFACTOR = "refactor"
    TEST = "test"
    DOCUMENT = "document"
    REVIEW = "review"
    AUDIT = "audit"

    @property
    def read_only(self) -> bool:
        """Whether the task ends ``done`` with a report instead of ``merged`` with a commit."""
        return self in READ_ONLY_KINDS


READ_ONLY_KINDS = frozenset({Kind.SEARCH, Kind.PLAN, Kind.REVIEW, Kind.AUDIT})


class ReviewMode(StrEnum):
    """When Red looks at a commit."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class TaskSpec(Value, frozen=True, kw_only=True):
    """A task as it was asked for. ``None`` means: what the settings say when a run is planned."""

    prompt: str
    title: str
    kind: Kind = Kind.IMPLEMENT
    role: str = "auto"
    priority: int = 0
    after: tuple[str, ...] = ()
    gates: tuple[str, ...] | None = None
    paths: tuple[str, ...] = ()
    base: str | None = None
    review: ReviewMode = ReviewMode.AUTO
    budget_usd: float | None = None
    timeout_seconds: float | None = None
    turns_max: int | None = None
    attempts_max: int | None = None
    context: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    version: int = 1


class Status(StrEnum):
    """Where a task stands. Reasons for waiting are computed, never logged."""

    QUEUED = "queued"
    RUNNING = "running"
    REVIEWING = "reviewing"
    APPROVED = "approved"
    MERGED = "merged"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEPENDENCY_FAILED = "dependency_failed"
    HELD = "held"
    WAITING_FOR_PERSON = "waiting_for_person"
    WAITING_FOR_ANSWER = "waiting_for_answer"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself, and nobody is waited for."""
        return self in ENDED

    @property
    def ended_well(self) -> bool:
        """Whether dependants may start."""
        return self in ENDED_WELL


ENDED_WELL = frozenset({Status.MERGED, Status.DONE})
ENDED = ENDED_WELL | {Status.FAILED, Status.CANCELLED, Status.DEPENDENCY_FAILED}

S = Status
_BACK = {S.QUEUED, S.HELD, S.FAILED, S.CANCELLED, S.WAITING_FOR_PERSON}
TRANSITIONS: dict[Status, frozenset[Status]] = {
    S.QUEUED: frozenset({S.RUNNING, S.HELD, S.CANCELLED, S.DEPENDENCY_FAILED, S.WAITING_FOR_PERSON, S.FAILED}),
    S.HELD: frozenset({S.QUEUED, S.CANCELLED, S.DEPENDENCY_FAILED}),
    S.RUNNING: frozenset({S.REVIEWING, S.APPROVED, S.DONE, S.WAITING_FOR_ANSWER, *_BACK}),
    S.REVIEWING: frozenset({S.APPROVED, *_BACK}),
    S.APPROVED: frozenset({S.MERGED, *_BACK}),
    S.WAITING_FOR_PERSON: frozenset({S.QUEUED, S.HELD, S.APPROVED, S.CANCELLED, S.FAILED}),
    S.WAITING_FOR_ANSWER: frozenset({S.QUEUED, S.HELD, S.CANCELLED, S.FAILED}),
    S.FAILED: frozenset({S.QUEUED, S.HELD}),
    S.CANCELLED: frozenset({S.QUEUED, S.HELD}),
    S.DEPENDENCY_FAILED: frozenset({S.QUEUED, S.HELD, S.CANCELLED}),
    S.MERGED: frozenset(),
    S.DONE: frozenset(),
}
del S
