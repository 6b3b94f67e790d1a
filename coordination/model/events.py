"""Facts, one frozen value each, and how a batch of them is written down.

A batch is one JSON object ``{"at": <RFC 3339, UTC>, "events": [{"type": "TaskSubmitted", …}, …]}``; the log adds
its own framing round it. Decoding is strict about types and ignores unknown *fields* (a newer version may add
some); an unknown event type is an error, because a fact we cannot read must not be skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson

from coordination.errors import LogDamaged
from coordination.model.runs import GateResult, Limits, Member, Outcome, Purpose, Rule, Value
from coordination.model.tasks import TaskSpec


class Event(Value, tag_field="type", frozen=True, kw_only=True):
    """Base of all facts. The tag is the class name."""


class TaskSubmitted(Event, tag=True, frozen=True, kw_only=True):
    """A task was accepted. ``digest`` is the SHA-256 of the canonical JSON before defaults."""

    task: str
    spec: TaskSpec
    digest: str
    ticket: str = ""
    source: str = ""  # the inbox file's name, or "command"


class RunPlanned(Event, tag=True, frozen=True, kw_only=True):
    """A run was decided. Its id is derived, so planning twice names the same run."""

    task: str
    run: str
    purpose: Purpose
    role: str = ""
    model: str = ""
    reason: str = ""  # why this run, this role
    gate: str = ""
    commit: str = ""  # what it judges or lands
    base: str = ""
    bring_in: str = ""
    limits: Limits = Limits()
    account: str = ""  # whose limits it shares; "" for what asks no service
    continues: str = ""  # the run whose session it goes on with
    lean: bool = False  # without packed context
    rules: tuple[Rule, ...] = ()  # of a review: what spoke when it was asked for
    onto: str = ""  # of a landing: where the integration branch was
    batch: tuple[Member, ...] = ()  # of a landing: the others that it takes along


class RunStarted(Event, tag=True, frozen=True, kw_only=True):
    """A worker holds the run's lock."""

    task: str
    run: str
    pid: int = 0


class RunEnded(Event, tag=True, frozen=True, kw_only=True):
    """A run's outcome was checked and accepted as a fact."""

    task: str
    run: str
    outcome: Outcome


class RunRefused(Event, tag=True, frozen=True, kw_only=True):
    """An outcome was not accepted: superseded, malformed or not of that run."""

    task: str
    run: str
    reason: str


class RequeueReason(Value, frozen=True, kw_only=True):
    """Why a task goes back to the queue, and which counter that raises."""

    kind: str  # failure | rejected | conflict | stopped | weather | retried | answered
    message: str
    run: str = ""
    how: str = ""  # how the next run begins: see ``model.endings.How``; "": in a new session

    @property
    def headline(self) -> str:
        """The first line of the message; empty when there is none."""
        return next(iter(self.message.splitlines()), "")


class TaskRequeued(Event, tag=True, frozen=True, kw_only=True):
    """Back to the queue. ``not_before`` is an instant; 0 means at once."""

    task: str
    reason: RequeueReason
    not_before: float = 0.0


class Evidence(Value, frozen=True, kw_only=True):
    """Why a task may be called done, bound to one commit."""

    commit: str
    base: str = ""
    gates: tuple[GateResult, ...] = ()
    gates_configured: bool = True
    reviewer: str = ""  # the review run, "person", or "" when none was needed
    person: str = ""  # who that was: the name of the user
    verdict: str = ""  # approve | skipped
    reason: str = ""  # why that verdict was enough
    rules: tuple[Rule, ...] = ()  # every rule that spoke, with its numbers
    decided_at: float = 0.0
    files: int = 0
    insertions: int = 0
    deletions: int = 0
    binaries: int = 0  # files among them whose change has no lines to count
    cited: tuple[str, ...] = ()
    cost_usd: float = 0.0
    cost_estimated: bool = False


class TaskApproved(Event, tag=True, frozen=True, kw_only=True):
    """The commit may land."""

    task: str
    evidence: Evidence


class TaskMerged(Event, tag=True, frozen=True, kw_only=True):
    """The commit is on the integration branch, in ``merge``."""

    task: str
    commit: str
    merge: str
    gates: tuple[GateResult, ...] = ()


class TaskDone(Event, tag=True, frozen=True, kw_only=True):
    """A read-only task ended with a report."""

    task: str
    evidence: Evidence
    report: str


class TaskFailed(Event, tag=True, frozen=True, kw_only=True):
    """Every remedy is used up."""

    task: str
    reason: str


class TaskCancelled(Event, tag=True, frozen=True, kw_only=True):
    """A person no longer wants it."""

    task: str
    reason: str = ""


class DependencyFailed(Event, tag=True, frozen=True, kw_only=True):
    """A task it needs ended badly. ``chain`` leads from that dependency to the first cause."""

    task: str
    chain: tuple[str, ...]
    reason: str


class TaskEscalated(Event, tag=True, frozen=True, kw_only=True):
    """A person must decide. ``raises`` names the counter that led here: rounds, returns or nothing."""

    task: str
    reason: str
    raises: str = ""
    rules: tuple[Rule, ...] = ()


class TaskHeld(Event, tag=True, frozen=True, kw_only=True):
    """A person paused it."""

    task: str
    reason: str = ""


class TaskReleased(Event, tag=True, frozen=True, kw_only=True):
    """A person resumed it."""

    task: str


class CoordinationPaused(Event, tag=True, frozen=True, kw_only=True):
    """Nothing new starts."""

    reason: str = ""


class CoordinationResumed(Event, tag=True, frozen=True, kw_only=True):
    """Work goes on."""


class SupervisorStarted(Event, tag=True, frozen=True, kw_only=True):
    """A supervisor took the lock."""

    supervisor: str
    pid: int
    host: str = ""
    version: str = ""


class SupervisorStopped(Event, tag=True, frozen=True, kw_only=True):
    """A supervisor let go in good order."""

    supervisor: str
    reason: str = ""


class StopRequested(Event, tag=True, frozen=True, kw_only=True):
    """A person asked one particular supervisor to stop. mode: finish | drain | force."""

    supervisor: str
    mode: str


class IntegrationCreated(Event, tag=True, frozen=True, kw_only=True):
    """The integration branch was made from the target."""

    branch: str
    commit: str
    target: str


class IntegrationRestored(Event, tag=True, frozen=True, kw_only=True):
    """The integration branch was gone and was made again, with everything that is known to have been on it."""

    branch: str
    commit: str
    reason: str = ""


class BatchLost(Event, tag=True, frozen=True, kw_only=True):
    """Repair found the batch with this number damaged or missing; this stands in its place.

    ``tasks`` are the ids that could still be read in the damaged bytes. ``evidence`` says where those bytes are kept.
    """

    tasks: tuple[str, ...] = ()
    evidence: str = ""
    reason: str = ""


AnyEvent = (
    TaskSubmitted
    | RunPlanned
    | RunStarted
    | RunEnded
    | RunRefused
    | TaskRequeued
    | TaskApproved
    | TaskMerged
    | TaskDone
    | TaskFailed
    | TaskCancelled
    | DependencyFailed
    | TaskEscalated
    | TaskHeld
    | TaskReleased
    | CoordinationPaused
    | CoordinationResumed
    | SupervisorStarted
    | SupervisorStopped
    | StopRequested
    | IntegrationCreated
    | IntegrationRestored
    | BatchLost
)


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An event with its place and time: ``(seq, index)`` and seconds since the epoch."""

    seq: int
    index: int
    at: float
    event: AnyEvent


class _Batch(msgspec.Struct, gc=False):
    at: datetime
    events: list[AnyEvent]


_decoder = msgspec.json.Decoder(_Batch)
_encoder = msgspec.json.Encoder()


def encode(events: Sequence[AnyEvent], at: float) -> bytes:
    """Write one batch as a JSON object without line breaks."""
    moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return b'{"at":"' + moment.encode() + b'","events":' + _encoder.encode(events) + b"}"


def decode(seq: int, payload: bytes) -> list[Record]:
    """Read one batch back. Raises LogDamaged when it is not a batch of ours."""
    try:
        batch = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LogDamaged(f"batch {seq} passed its checksum but is not a batch of events: {error}", seq=seq) from error
    at = batch.at.timestamp()
    records: list[Record] = []
    for event in batch.events:  # a plain loop: a comprehension over one or two takes longer than reading them
        records.append(Record(seq=seq, index=len(records), at=at, event=event))
    return records


def name(event: AnyEvent) -> str:
    """The event's type as the log has it."""
    return type(event).__name__


def described(record: Record) -> dict[str, Any]:
    """A record as one flat JSON object, the form ``coord log`` prints."""
    body: dict[str, Any] = msgspec.to_builtins(record.event)
    at = datetime.fromtimestamp(record.at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    kind = body.pop("type")
    task = body.pop("task", None)
    head: dict[str, Any] = {"seq": record.seq, "index": record.index, "at": at, "type": kind}
    if task is not None:
        head["task"] = task
    return head | body


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no blanks: equal values give equal bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
