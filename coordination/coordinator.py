"""What can be asked of a repository's coordination? The use cases behind every surface; prints nothing.

A ``Coordinator`` belongs to one repository and its state directory. It works whether or not a supervisor runs: all
writing goes through ``store.transact``, all reading folds the same log.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from coordination import __version__, context, files, filesystem, locks, repair, roles, shipped, temporary
from coordination import log as logs
from coordination import settings as settings_
from coordination.env import REAL
from coordination.errors import LockHeld, LogDamaged, NotFound, Refused, Rejected, SettingsError, Unsuitable, UsageError
from coordination.inbox import Inbox
from coordination.log import examination
from coordination.log import file as file_log
from coordination.log.page import vouches
from coordination.log.segments import PAGE
from coordination.model import commands, taskfile
from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.projection import Projection
from coordination.model.roles import Role
from coordination.model.state import Core, State
from coordination.planning.estimates import Estimate, estimate
from coordination.policy import Policies
from coordination.policy import shipped as shipped_policies
from coordination.settings import Settings
from coordination.store import Moment, Progress, SnapshotDirectory, Store, digest, replay
from coordination.workspaces import Repository, Workspaces, discover
from coordination.workspaces.upkeep import Upkeep

STATE_DIRECTORY = ".coordination"
_DIRECTORIES = (
    "log",
    "snapshots",
    "locks",
    "runs",
    "sessions",
    "agent_workspaces",
    "scratch",
    "cache",
    "pool",
    "set_aside",
    "roles",
    "shared_context",
)

# What init asks for again after a lost log: every trace is moved, so that nothing of the old work becomes unreachable.
_SET_ASIDE = (
    "git for-each-ref --format='%(refname)' refs/coordination/ refs/heads/coordination/ | "
    'while read -r ref; do git update-ref "refs/before/${ref#refs/}" "$ref" && git update-ref -d "$ref"; done'
)

REMEMBERED_MAX = 16  # files of commits, each of at most ``context.BYTES_MAX``

Decide = Callable[[State], Sequence[e.AnyEvent]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """Where a repository's coordination lives."""

    repository: Repository
    state: Path

    @property
    def settings_file(self) -> Path:
        """The user's settings."""
        return self.state / "coordination.toml"

    @property
    def log(self) -> Path:
        """The log's directory."""
        return self.state / "log"


def locate(directory: Path, home: str = "") -> Home:
    """Find the repository round ``directory`` and its state directory (``home`` overrides where that is)."""
    repository = discover(directory)
    state = Path(home).expanduser().absolute() if home else repository.root / STATE_DIRECTORY
    return Home(repository=repository, state=state)


def initialise(home: Home) -> bool:
    """Make the state directory, the settings file and the log; whether anything was made. Repeatable.

    Raises Refused for a repository without commits or with a detached HEAD, LogDamaged when the repository shows
    that there once was a log that is gone.
    """
    made = False
    target = "" if home.settings_file.exists() else home.repository.target()
    home.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    _own(home)
    _remember(home)
    workspaces = Workspaces(home.repository.common, home.state)
    if home.state.is_relative_to(home.repository.root):
        workspaces.exclude(f"/{home.state.relative_to(home.repository.root).as_posix()}/")
    _furnish(home)
    Inbox(home.state / "inbox", time.time).prepare()
    if target:
        files.publish(home.settings_file, settings_.default_text(target).encode())
        made = True
    if not _has_log(home):
        _refuse_lost_log(home, workspaces)
        file_log.create(home.log)
        made = True
    return made


def _furnish(home: Home) -> None:
    for name in _DIRECTORIES:
        (home.state / name).mkdir(exist_ok=True, mode=0o700)


def _has_log(home: Home) -> bool:
    return home.log.is_dir() and any(home.log.glob("*.jsonl"))


def _own(home: Home) -> None:
    filesystem.check(home.state)
    status = home.state.stat(follow_symlinks=False)
    if home.state.is_symlink() or status.st_uid != os.getuid():
        raise Unsuitable(f"{home.state} is a link or belongs to somebody else: expected a directory of yours")
    if status.st_mode & 0o077:
        home.state.chmod(0o700)


def _remember(home: Home) -> None:
    """The state directory belongs to one repository; another one is refused."""
    note = home.state / "repository.json"
    known = files.read_json_if_there(note)
    common = str(home.repository.common)
    if known is None:
        found = Workspaces(home.repository.common, home.state).phantoms()
        files.publish_json(note, {"common": common, "phantoms": found})
    elif known.get("common") != common:
        raise Refused(f"{home.state} belongs to the repository {known.get('common')}, not to {common}: {_way(home)}")


def _way(home: Home) -> str:
    """What to do about the state directory of another repository."""
    if home.state != home.repository.root / STATE_DIRECTORY:
        return "unset COORDINATION_HOME or point it elsewhere"
    return (
        f"if this is a copy, remove {home.state} and run `coord init`; if the repository was moved, move it back, or "
        f"write the new path into {home.state / 'repository.json'} and run "
        f"`git worktree repair {STATE_DIRECTORY}/agent_workspaces/*` in it"
    )


def _refuse_lost_log(home: Home, workspaces: Workspaces) -> None:
    if workspaces.traces():
        raise LogDamaged(
            f"{home.log} holds no log, but the repository has branches or refs of an earlier one (coordination/*, "
            "refs/coordination/*): somebody removed the state directory. Put it back from a backup; or, to begin anew "
            f"and keep the old work under refs/before/, run `{_SET_ASIDE}`, then `coord init`",
            path=str(home.log),
        )


class Coordinator:
    """One repository's coordination. Raises Refused when ``coord init`` was never run."""

    def __init__(self, home: Home, *, now: Callable[[], float] = time.time, ours: bool = False) -> None:
        self.home = home
        self._ours = ours  # a process of ours, which others may kill when it was stopped while it keeps them waiting
        self.now = now
        self._read_at = lru_cache(REMEMBERED_MAX)(self._read)  # what is in a commit stays as it is
        self.policies: Policies = shipped_policies()
        if not home.state.is_dir():
            _refuse_lost_log(home, self.workspaces)
            raise Refused(f"{home.repository.root} has no coordination yet: run `coord init` there first")
        _own(home)
        _remember(home)
        if not _has_log(home):
            _refuse_lost_log(home, self.workspaces)
            if vouches(home.log / PAGE, REAL):
                raise examination.hopeless(home.log, "every segment is missing, but there was a log: its page is there")
            raise Refused(f"{home.state} has no log yet: run `coord init` first")

    @cached_property
    def workspaces(self) -> Upkeep:
        """The worktrees of runs, and git. What set-up lends them is known as far as the settings can be read."""
        private: tuple[str, ...] = ()
        with contextlib.suppress(SettingsError, OSError):
            private = (*self.settings.setup.copy, *self.settings.setup.keep)
        return Upkeep(self.home.repository.common, self.home.state, private=private)

    @cached_property
    def store(self) -> Store[State]:
        """The log and the state folded from it."""
        return Store(logs.connect(f"file:{self.home.log}", ours=self._ours), Core(), self.snapshots, now=self.now)

    @cached_property
    def snapshots(self) -> SnapshotDirectory:
        """Saved states; any of them may vanish."""
        return SnapshotDirectory(self.home.state / "snapshots")

    @cached_property
    def settings(self) -> Settings:
        """The user's settings, read once. Raises SettingsError naming file and key."""
        path = self.home.settings_file
        try:
            text = files.read(path).decode("utf-8") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise SettingsError(f"{path}: expected UTF-8 text, found {error.reason}", file=str(path)) from error
        return settings_.parse(text, file=str(path))

    @cached_property
    def roles(self) -> dict[str, Role]:
        """Roles by name: the shipped ones, then the user's own, which add or override."""
        return roles.load([shipped.roles(), self.home.state / "roles"])

    @cached_property
    def inbox(self) -> Inbox:
        """Where task files land."""
        return Inbox(self.home.state / "inbox", self.now)

    def furnish(self) -> None:
        """Make the directories that a home of an earlier version lacks: agents are kept out of what is there."""
        _furnish(self.home)

    # -- reading -----------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """What is true now."""
        return self.store.refresh()

    def facts(self, **observed: Any) -> Facts:
        """What decisions and views depend on besides the state."""
        if "signed_in" not in observed:
            observed["signed_in"] = self.supervisor()["signed_in"]
        return Facts(now=self.now(), settings=self.settings, roles=self.roles, **observed)

    def merges(self) -> dict[str, str]:
        """The merges that the log knows to have landed, each with its task; those of newer batches later."""
        landed = [task for task in self.store.state.tasks.values() if task.merge]
        return {task.merge: task.id for task in sorted(landed, key=lambda task: task.changed_at)}

    def observed(self, **observed: Any) -> Facts:
        """The facts with how the integration branch stands. To be asked after ``state``."""
        git = self.settings.git
        if not self.store.state.integration:
            return self.facts(**observed)  # not made yet
        standing = self.workspaces.standing(git.integration, git.target, self.merges())
        astray = standing.astray or self.workspaces.elsewhere(git.integration)
        if standing.again:
            astray = f"branch {git.integration} is gone; `coord start` makes it again with all that has landed"
        return self.facts(integration=standing.head, astray=astray, **observed)

    def history(self, since: int = 0, task: str = "") -> Iterator[dict[str, Any]]:
        """Events after batch ``since`` as flat objects; what is not proven durable is labelled ``unproven``."""
        log = self.store.log
        for seq, payload in log.read(max(since, log.base), upto="head"):
            for record in e.decode(seq, payload):
                if task and getattr(record.event, "task", "").lower() != task.lower():
                    continue
                row = e.described(record)
                yield row | {"unproven": True} if seq > log.durable else row

    def last_batch(self) -> tuple[int, float]:
        """The number of the newest durable batch and when it was appended; (0, 0.0) for an empty log."""
        log = self.store.log
        for seq, payload in log.read(max(log.durable - 1, log.base), upto="durable"):
            records = e.decode(seq, payload)
            return seq, records[0].at if records else 0.0
        return log.durable, 0.0

    def replay(
        self,
        upto_seq: int | None = None,
        upto_time: float | None = None,
        *,
        trusting: bool = False,
        digests_at: Collection[int] = (),
        progress: Progress | None = None,
        projection: Projection[State] | None = None,
    ) -> Moment[State]:
        """Fold the state from the log alone, as ``store.replay`` does, on a connection of its own; writes nothing.

        ``projection`` folds as ``Core`` does and may note what it sees.
        """
        log = logs.connect(f"file:{self.home.log}")
        try:
            return replay(
                log,
                projection or Core(),
                self.snapshots,
                upto_seq=upto_seq,
                upto_time=upto_time,
                trusting=trusting,
                digests_at=digests_at,
                progress=progress,
            )
        finally:
            log.close()

    def examine_log(self) -> repair.Report:
        """What of the log and the snapshots is damaged; writes nothing. Works, like ``repair_log``, on any damage."""
        return repair.examine(self.home.state, self._acknowledged())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Own the supervisor's place for a while. Raises LockHeld while a supervisor runs."""
        held = locks.hold(self.supervisor_lock)
        if held is None:
            who = locks.holder(self.supervisor_lock)
            pid = f"pid {who.pid}" if who else "a process that did not sign"
            raise LockHeld(
                f"a supervisor runs: {pid} holds {self.supervisor_lock}. Nothing was changed. Run: coord stop",
                holder=str(who),
            )
        with held:
            yield

    def repair_log(self) -> repair.Report:
        """Put it right, after a backup. Raises LockHeld while a supervisor runs or somebody writes to the log."""
        with self.alone():
            return repair.mend(self.home.state, self._acknowledged(), self.now())

    def _acknowledged(self) -> dict[str, int]:
        """How far the repository itself remembers the log."""
        try:
            trace = self.workspaces.read_log_ref()
        except LogDamaged:
            trace = None
        return {} if trace is None else {trace.uuid: trace.seq}

    def estimate(self, value: Mapping[str, Any]) -> Estimate:
        """What a task would cost, and when it would start, if it were submitted now; writes nothing.

        Raises Rejected for what ``accept`` would reject.
        """
        submission, state = self._parsed(value), self.state()
        task, events = commands.submit(state, submission)
        if events:
            self._check_role(submission)
        return estimate(state, self.facts(), self.policies, task, submission.spec)

    def digest(self, state: State) -> str:
        """SHA-256 of a state in canonical form: equal states, equal digests."""
        return digest(Core().dump(state))

    def run_directory(self, run: str) -> Path:
        """Where a run's request, transcript and outcome are."""
        return self.home.state / "runs" / run

    def run_marker(self, run: str) -> str:
        """What every process of a run carries in its environment: unique over all repositories."""
        return f"{self.store.log.uuid}/{run}"

    def run_group(self, run: str) -> str:
        """What the control groups of a run are called: unique over all repositories. ``*`` matches every run."""
        return f"{self.store.log.uuid}.{run}"

    def clear_scratch(self) -> None:
        """Remove what workers that were killed left of their homes and temporary files. Only while no run is live."""
        for path in (self.home.state / "scratch").glob("*"):
            with contextlib.suppress(OSError):  # its worker removes it just now; or it must wait for another time
                temporary.clear(str(self.run_directory(path.name)))  # first: the other is how we know of it
                self.workspaces.discard(path)

    def clear_phantoms(self) -> None:
        """Take away what the agents' sandboxes left in the git directory, but nothing that was there before us."""
        note = files.read_json(self.home.state / "repository.json")
        self.workspaces.clear_phantoms(note.get("phantoms", []))

    # -- the supervisor, seen from outside ---------------------------------------------------------------------------

    @property
    def supervisor_lock(self) -> Path:
        """Held for life by the one supervisor."""
        return self.home.state / "locks" / "supervisor.lock"

    def supervisor(self) -> dict[str, Any]:
        """Whether one runs, and which process it is."""
        running = locks.held(self.supervisor_lock)
        who = locks.holder(self.supervisor_lock) if running else None
        note = files.read_json_if_there(self.home.state / "supervisor.json") if running else None
        return {
            "running": running,
            "pid": who.pid if who else None,
            "since": (note or {}).get("since"),
            "signed_in": (note or {}).get("signed_in", True),
            "guards": (note or {}).get("guards") or None,
            "version": __version__,
        }

    # -- writing -----------------------------------------------------------------------------------------------------

    def transact(self, decide: Decide) -> State:
        """Let a pure function decide on fresh state, and record what it says. Durable on return."""
        return self.store.transact(decide).state

    def submit(self, value: Mapping[str, Any], *, ticket: str = "", source: str = "command") -> str:
        """Accept a task, whoever brings it; its id. Raises Rejected with the reason."""
        return self.accept(value, ticket=ticket, source=source)[0]

    def accept(self, value: Mapping[str, Any], *, ticket: str = "", source: str = "command") -> tuple[str, bool]:
        """The same, and whether it was new: what was accepted before is not accepted twice."""
        submission = self._parsed(value)
        accepted = ""

        def decide(state: State) -> Sequence[e.AnyEvent]:
            nonlocal accepted
            accepted, events = commands.submit(state, submission, ticket=ticket, source=source)
            if events:  # what was accepted before stays accepted, whatever the roles are now
                self._check_role(submission)
            return events

        new = bool(self.store.transact(decide).events)
        return accepted, new

    def _parsed(self, value: Mapping[str, Any]) -> taskfile.Submission:
        return taskfile.parse(dict(value), roles=self.roles, gates=self.settings.gates.named)

    def judge(self, data: bytes, ticket: str, source: str) -> str:
        """Judge the bytes of a task file: the inbox's callback."""
        return self.submit(taskfile.decode(data), ticket=ticket, source=source)

    def _check_role(self, submission: taskfile.Submission) -> None:
        spec = submission.spec
        role = self.roles.get(spec.role)
        if role is not None and not role.writes and not spec.kind.read_only:
            raise Rejected(
                f"role {role.name!r} may not write, and a task of kind {spec.kind} must",
                field="role",
                expected="a role that writes, or a read-only kind",
                found=role.name,
            )

    def stop(self, mode: str) -> None:
        """Ask the present supervisor to stop: ``finish``, ``drain`` or ``force``."""
        self.transact(lambda state: commands.stop(state, mode))

    # -- context for runs --------------------------------------------------------------------------------------------

    def context_for(self, commit: str, entries: Sequence[str], tokens_max: int = 12_000) -> tuple[str, str]:
        """What a run is given to read: (the repository's CLAUDE.md, everything else packed), from git objects only."""
        read = partial(self._read_at, commit)
        folders = [self.home.state / "shared_context", shipped.shared_context()]
        candidates = context.gather(folders, instructions=None, entries=entries, read=read)
        instructions = read("CLAUDE.md") or b""
        return instructions.decode("utf-8", "replace"), context.pack(candidates, tokens_max)

    def _read(self, commit: str, path: str) -> bytes | None:
        try:
            return self.workspaces.read_at(commit, path, context.BYTES_MAX)
        except (NotFound, Refused):
            return None


def parse_moment(text: str) -> float:
    """An RFC 3339 instant as seconds since the epoch; without a zone it is local time. Raises UsageError."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        expected = "a sequence number or a time like 2026-01-31T12:00:00Z (without a zone: local time)"
        raise UsageError(f"expected {expected}, found {text!r}") from None
