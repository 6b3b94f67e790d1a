"""What a run is asked and how it ended, as plain values.

A *run* is one process for one purpose. Its request and its outcome are files in its run directory; both are
defined here because the supervisor, the worker and the agents all speak of them. Money is in US dollars,
durations in seconds, instants in seconds since the Unix epoch (UTC).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, dataclass_transform

import msgspec

CONFLICTED_FILES = "\u2063{conflicted files}"
"""Where, in a prompt, the worker names the files in conflict: it makes the merge, so only it knows them."""


class Purpose(StrEnum):
    """Why a run exists."""

    WORK = "work"
    GATE = "gate"
    REVIEW = "review"
    LANDING = "landing"


class Ending(StrEnum):
    """How a run ended. Decided from structured facts only, never from prose."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"  # the agent or the gate said no, or delivered nothing that counts
    CONFLICT = "conflict"  # a landing met another task's change
    STOPPED = "stopped"  # we asked it to stop; nobody is to blame
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"  # the worker or the agent died without an outcome
    LIMITED = "limited"  # usage limit, rate limit, overload: weather


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Base of the frozen, keyword-only values of the model; defaults are left out when written."""


class Limits(Value, frozen=True, kw_only=True):
    """What one run may use."""

    timeout_seconds: float = 3600.0
    budget_usd: float | None = None
    turns_max: int | None = None


class DiffStat(Value, frozen=True, kw_only=True):
    """Size of a change."""

    files: int = 0
    insertions: int = 0
    deletions: int = 0
    binaries: int = 0  # files whose change has no lines to count

    @property
    def lines(self) -> int:
        """Changed lines: insertions and deletions."""
        return self.insertions + self.deletions


class Finding(Value, frozen=True, kw_only=True):
    """One thing a reviewer found, at a place in the code."""

    message: str
    file: str = ""
    line: int = 0
    severity: str = "major"  # blocker | major | minor

    @property
    def told(self) -> str:
        """As a line of text."""
        line = f":{self.line}" if self.line else ""
        place = f"{self.file}{line}: " if self.file else ""
        return f"- [{self.severity}] {place}{self.message}"


class Rule(Value, frozen=True, kw_only=True):
    """One rule that spoke when it was decided whether a commit may land, with its numbers."""

    rule: str  # task | gates | flaky | size | kind | history | protected
    asks: str = ""  # review | person; "": it is content
    found: str = ""


class GateTry(Value, frozen=True, kw_only=True):
    """One time that a gate's command ran, and failed."""

    exit_code: int
    seconds: float = 0.0
    output: str = ""  # the tail, at most 16 KiB


class GateResult(Value, frozen=True, kw_only=True):
    """What a gate printed and how it exited, bound to the commit it ran on."""

    gate: str
    commit: str
    exit_code: int
    seconds: float = 0.0
    output: str = ""  # the tail, at most 16 KiB
    flaky: bool = False  # it passed, but not at the first try
    failures: tuple[GateTry, ...] = ()  # the tries before this one
    cached: str = ""  # it was not run: the run in which it passed on the same files

    @property
    def passed(self) -> bool:
        """Whether the gate's command exited 0."""
        return self.exit_code == 0


class ConflictReport(Value, frozen=True, kw_only=True):
    """Both sides of a conflict, so that nothing is dropped and nobody guesses."""

    files: tuple[str, ...] = ()
    others: tuple[str, ...] = ()  # tasks that landed changes to those files
    integration: str = ""  # the commit on the other side
    detail: str = ""


class Member(Value, frozen=True, kw_only=True):
    """Another approved commit that lands in the same run."""

    task: str
    commit: str


class Landed(Value, frozen=True, kw_only=True):
    """What became of one member of a batch. ``merge`` is on the integration branch when ``kind`` is merged."""

    task: str
    kind: str  # merged | conflict | gate_failed | left, of which nothing is known
    merge: str = ""
    gates: tuple[GateResult, ...] = ()
    conflict: ConflictReport | None = None
    reason: str = ""


class Usage(Value, frozen=True, kw_only=True):
    """What a run cost. ``estimated`` when prices or a dead run's spend had to be assumed."""

    cost_usd: float = 0.0
    estimated: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    turns: int = 0


class Outcome(Value, frozen=True, kw_only=True):
    """How a run ended: a claim by the worker, checked by the supervisor before it becomes a fact."""

    ending: Ending
    reason: str = ""  # one sentence for a person
    code: str = ""  # the structured signal behind the ending, e.g. "max_turns", "exit:3"
    base: str = ""  # commit the workspace started from
    commit: str = ""  # what a work run committed; what a landing put on the integration branch
    diff: DiffStat | None = None
    report: str = ""  # the agent's last words; the evidence of a read-only task
    cited: tuple[str, ...] = ()  # paths named in the report that exist at the base commit
    changed: tuple[str, ...] = ()  # the files that a work run's commit changes, as git says; both names of a rename
    unlisted: int = 0  # how many more there are
    verdict: str = ""  # approve | reject, of a review
    judged: str = ""  # the commit that the verdict names
    findings: tuple[Finding, ...] = ()
    gates: tuple[GateResult, ...] = ()
    conflict: ConflictReport | None = None
    batch: tuple[Landed, ...] = ()  # what became of the others that a landing took along
    usage: Usage = Usage()
    model: str = ""
    session: str = ""
    denials: tuple[str, ...] = ()  # what the agent was not allowed to do
    outside: tuple[str, ...] = ()  # what moved in the repository outside the workspace while it ran
    preserved: tuple[str, ...] = ()  # refs that keep what was in the workspace
    resets_at: float = 0.0  # of a limited or warned run: when the limit ends, if the service said so
    warned: float = 0.0  # share of a usage window that is used up, when the service warned of its end
    started_at: float = 0.0
    ended_at: float = 0.0


class GateCommand(Value, frozen=True, kw_only=True):
    """A gate as configured: a name and an argv, never a shell line."""

    name: str
    argv: tuple[str, ...]
    timeout_seconds: float = 600.0
    network: bool = False
    reruns: int = 0  # how often it is run again when it fails
    cache: bool = False  # that it passed is kept, to count for whatever has the same files
    fresh: bool = False  # it is run even if it passed on the same files before


class SetUp(Value, frozen=True, kw_only=True):
    """What is done in a fresh workspace before anybody works or judges there."""

    commands: tuple[tuple[str, ...], ...] = ()
    copy: tuple[str, ...] = ()  # files of the main worktree, relative to its top
    keep: tuple[str, ...] = ()  # directories that the commands make, kept for other workspaces
    key: tuple[str, ...] = ()  # files that say what is in them
    root: str = ""  # the main worktree, absolute
    network: bool = False
    timeout_seconds: float = 600.0


class SandboxRequest(Value, frozen=True, kw_only=True):
    """Within what gates and set-up run."""

    program: str = ""  # bubblewrap; "": none works here, or none is wanted
    required: bool = False
    hidden: tuple[str, ...] = ()  # places whose content is not seen
    shown: tuple[str, ...] = ()  # places that are seen although they may lie in a hidden one


class AgentRequest(Value, frozen=True, kw_only=True):
    """What a runner is asked to do; everything it may know."""

    run: str
    task: str
    role: str
    backend: str
    prompt: str
    instructions: str  # the role's text and the repository's own CLAUDE.md, appended to the system prompt
    model: str
    fallback_model: str = ""
    tools: tuple[str, ...] = ()
    writes: bool = False
    shell: bool = False  # may run commands, if a sandbox works (or settings say so)
    commit: str = ""  # what a review judges
    schema: dict[str, Any] | None = None  # JSON schema of the answer
    limits: Limits = Limits()
    session: str = ""  # UUID
    resume: bool = False  # the session has begun in an earlier run: go on with it, if it is there
    continuation: str = ""  # what is asked instead of the prompt when it is
    directory: str = ""  # the workspace, absolute
    run_directory: str = ""  # absolute; transcript.jsonl, stderr.log and progress.json go here
    config_directory: str = ""  # CLAUDE_CONFIG_DIR, absolute
    environment: dict[str, str] = {}
    deny_write: tuple[str, ...] = ()
    deny_read: tuple[str, ...] = ()
    sandbox: str = "auto"  # auto | require | off
    options: dict[str, Any] = {}  # of the backend, from settings: grace times, binary, watchdogs


class WorkspaceRequest(Value, frozen=True, kw_only=True):
    """Which tree a run works in, by commit, never by a moving name."""

    name: str  # directory below agent_workspaces/
    base: str = ""  # commit the branch starts from when it does not exist yet
    branch: str = ""  # full branch name; empty: detached at ``commit``
    commit: str = ""  # what must be checked out for gates and reviews
    bring_in: str = ""  # integration commit to merge in before the agent starts (after a conflict)


class MemberRequest(Value, frozen=True, kw_only=True):
    """One commit of several that are to be landed, and what its merge is to say."""

    task: str
    commit: str
    message: str = ""
    trailers: dict[str, str] = {}
    gates: tuple[str, ...] | None = None  # names: they must pass on whatever lands it; None: all that the run has


class Pooling(Value, frozen=True, kw_only=True):
    """How many trees of workspaces that were taken down are kept for the next ones. 0: none."""

    trees: int = 0
    bytes: int = 0  # all together
    files_min: int = 0  # a smaller tree is made as quickly as it is recycled


class LandingRequest(Value, frozen=True, kw_only=True):
    """What is to be landed, and where."""

    commit: str
    branch: str = "coordination/integration"
    target: str = ""
    message: str = ""
    trailers: dict[str, str] = {}
    gates: tuple[str, ...] | None = None
    onto: str = ""  # where the branch was when this was planned: it must still contain that
    batch: tuple[MemberRequest, ...] = ()  # the others, in the order in which they are to land


class Confinement(Value, frozen=True, kw_only=True):
    """What a run may take of the machine, with all its descendants; 0: as much as there is."""

    group: str = ""  # names the control groups it is counted in
    memory_bytes: int = 0
    processes: int = 0
    file_bytes: int = 0  # of one file


class RunRequest(Value, frozen=True, kw_only=True):
    """``request.json``: everything a worker may know. Published before the worker is spawned."""

    run: str
    task: str
    purpose: Purpose
    token: int  # fencing token: the sequence number of the batch that planned the run
    repository: str  # the common git directory, absolute
    state_directory: str
    workspace: WorkspaceRequest
    limits: Limits
    confinement: Confinement = Confinement()
    pooling: Pooling = Pooling()
    agent: AgentRequest | None = None
    gates: tuple[GateCommand, ...] = ()
    setup: SetUp = SetUp()
    sandbox: SandboxRequest = SandboxRequest()
    landing: LandingRequest | None = None
    author: dict[str, str] = {}  # trailers of the task commit
    title: str = ""
    stop_grace_seconds: float = 10.0
