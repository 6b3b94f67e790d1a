"""How does work get done? Observe, decide, act, rest; over and over, by level and never by edge.

Each step may be cut by ``kill -9`` and is simply done again by the next supervisor: ``observe`` looks at files, locks
and the log; ``decide`` is pure and names the same runs twice; ``act`` looks only at state ("planned, not started"),
and a worker that comes second finds the lock taken or the run begun and leaves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import FrameType

import msgspec

from coordination import __version__, agents, confinement, environment, files, locks, sandbox
from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError, GitFailed, LockHeld, Refused
from coordination.inbox import Receipt
from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.state import Core, Run, State, Task
from coordination.model.tasks import Status
from coordination.planning.plan import plan
from coordination.supervisor.acting import Actor
from coordination.supervisor.children import Children
from coordination.supervisor.collecting import Collector
from coordination.supervisor.observing import Observer
from coordination.supervisor.telling import Teller
from coordination.supervisor.wakeups import Wakeups
from coordination.workspaces import Standing

Mark = Callable[[str], None]
Narrate = Callable[[e.Record], None]

FULL_SECONDS = 1.0  # between tries while the disk is full
LATER_SECONDS = 7 * 24 * 3600.0  # past every delay that planning knows
BUSY_SECONDS = 0.05  # between looks at a run of which nobody tells us when it goes on
NOTE_SECONDS = 1.0  # supervisor.json is published at most this often
FAR_SECONDS = 1e9  # later than the end of any delay
ASTRAY_SECONDS = 10.0  # between looks at an integration branch that is not right and does not move


class Supervisor:
    """One repository's supervisor. ``run`` raises LockHeld when there is another one.

    ``mark`` is called by name before and after every step with an effect: tests end the process there.
    ``narrate`` is called with every durable record, in order, ``complain`` with why nothing can go on.
    With ``once`` it ends when nothing is left to do; unless ``patient``, it does not wait for delays then.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        once: bool = False,
        patient: bool = True,
        narrate: Narrate | None = None,
        receipts: Callable[[Receipt], None] | None = None,
        mark: Mark | None = None,
        complain: Callable[[str], None] | None = None,
    ) -> None:
        self.coordinator = coordinator
        self.once, self.patient = once, patient
        self.id = f"{platform.node()}:{os.getpid()}:{int(time.time())}"
        self._narrate, self._told = narrate, 0
        self._receipts = receipts or (lambda _receipt: None)
        self._mark: Mark = mark or (lambda _name: None)
        self._complain, self._complaint = complain or (lambda _why: None), ""
        self._children = Children(self._wake)
        self._observer = Observer(coordinator, self._children, self._mark)
        self._actor = Actor(coordinator, self._children, self._mark)
        self._collector = Collector(coordinator)
        self._teller = Teller(coordinator, self._children)
        self._signals = 0
        self._wakeups: Wakeups | None = None
        self._noted: tuple[int, float] = (-1, 0.0)
        self._since = coordinator.now()
        self._snapshot_seq = 0
        self._untidy = True
        self._standing, self._written = Standing(), ""
        self._seen, self._look_again = ("", -1), 0.0
        self._kept = ""  # what we last saw to be remembered in the repository
        self._good = ""  # where the branch was when it had all of these:
        self._merges: dict[str, str] = {}
        self._merged = 0  # so many the log had when we looked
        self._guards: dict[str, object] = {}

    # -- life --------------------------------------------------------------------------------------------------------

    def run(self) -> State:
        """Own the lock, then loop until stopped (or, with ``once``, until nothing is left to do)."""
        held = locks.hold(self.coordinator.supervisor_lock)
        if held is None:
            raise LockHeld(self._who_else(), holder=str(locks.holder(self.coordinator.supervisor_lock)))
        with held:
            self._install()
            try:
                self._begin()
                while not self._turned():
                    pass
                return self._end()
            finally:
                self._collector.end()
                if self._wakeups is not None:
                    self._wakeups.stop()

    def _who_else(self) -> str:
        who = locks.holder(self.coordinator.supervisor_lock)
        pid = f"pid {who.pid}" if who else "a process that did not sign"
        return f"another supervisor runs here: {pid} holds {self.coordinator.supervisor_lock}; `coord stop` ends it"

    def _install(self) -> None:
        home = self.coordinator.home.state
        self._wakeups = Wakeups([home / "inbox", home / "log"])
        self._wakeups.start()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._asked)
            signal.signal(signal.SIGINT, self._asked)
            # heard and forgotten: what is ignored is ignored by all our children, too, down to the gates
            signal.signal(signal.SIGHUP, lambda _number, _frame: None)

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._wake()

    def _wake(self) -> None:
        if self._wakeups is not None:
            self._wakeups.wake()

    def _begin(self) -> None:
        coordinator = self.coordinator
        coordinator.furnish()
        self._told = coordinator.store.refresh_seq() if self._narrate else 0
        started = e.SupervisorStarted(supervisor=self.id, pid=os.getpid(), host=platform.node(), version=__version__)
        self._mark("begin")
        coordinator.transact(lambda _state: [started])
        self._mark("begun")
        git = coordinator.settings.git
        if not coordinator.state().integration:
            head = coordinator.workspaces.ensure_integration(git.integration, git.target)
            self._mark("integration")
            made = e.IntegrationCreated(branch=git.integration, commit=head, target=git.target)
            coordinator.transact(lambda state: [] if state.integration else [made])
        self._look_at_integration()
        tickets = coordinator.state().tickets
        for receipt in coordinator.inbox.recover(tickets.get, self._judge):
            self._receipts(receipt)
        self._mark("recovered")
        self._guards = {"sandbox": self._sandbox(), "gates": self._gates(), "limited": confinement.works()}
        self._teller.tend()

    def _sandbox(self) -> str:
        """Whether agents' commands run in a sandbox: "works", "missing", "off", or "" where no backend has one."""
        settings = self.coordinator.settings.agents
        backends = {settings.backend or role.backend for role in self.coordinator.roles.values()}
        works = [agents.sandbox_works(backend, os.environ.get("PATH", "")) for backend in backends]
        if all(each is None for each in works):
            return ""
        return "off" if settings.sandbox == "off" else "missing" if False in works else "works"

    def _gates(self) -> str:
        """Whether gates and set-up run in a sandbox: works, missing, refused (it is required), off, or "" for none."""
        settings = self.coordinator.settings
        if not (settings.gates.named or settings.setup.commands):
            return ""
        if settings.agents.sandbox == "off":
            return "off"
        if sandbox.find(os.environ.get("PATH", "")):
            return "works"
        return "refused" if settings.agents.sandbox == "require" else "missing"

    def _end(self) -> State:
        self._untidy = True
        self._tidy(running=bool(self.coordinator.store.state.live_runs()))
        state = self.coordinator.transact(lambda _state: [e.SupervisorStopped(supervisor=self.id)])
        self._snapshot(force=True)
        self._note(force=True)
        self._tell()
        self._teller.finish()
        return state

    def _turned(self) -> bool:
        """A turn and a rest; whether it is time to end. A full disk is waited out: everything is simply done again."""
        try:
            if self._turn():
                return True
            self._rest()
            self._complaint = ""
        except (OSError, CoordinationError) as error:
            if not _full(error) or self._signals:
                raise
            self._wait_for_room(error)
        return False

    def _wait_for_room(self, error: Exception) -> None:
        if not self._complaint:
            self._complaint = f"the disk is full, everything waits for room: {error}"
            self._complain(self._complaint)
        assert self._wakeups is not None
        self._wakeups.wait(FULL_SECONDS)

    def _turn(self) -> bool:
        """Observe, decide, act; whether it is time to end."""
        state = self.observe()
        state = self.decide(state)
        self._actor.act(state, self._mode(state))
        self._tell()
        return self._finished(state)

    # -- observe -----------------------------------------------------------------------------------------------------

    def observe(self) -> State:
        """Take in task files and what became of runs."""
        coordinator = self.coordinator
        self._mark("sweep")
        for receipt in self._sweep():
            self._receipts(receipt)
        self._mark("swept")
        state = coordinator.state()
        for run in state.live_runs():
            events = self._observer.events(state, run)
            if events:
                self._mark(f"{_names(events)}:before")
                state = coordinator.transact(partial(self._still, run=run, events=events))
                self._mark(f"{_names(events)}:after")
                if not state.run(run.id).live:
                    self._actor.forget(run)
        return state

    def _sweep(self) -> list[Receipt]:
        inbox = self.coordinator.inbox
        try:
            return inbox.sweep(self._judge)
        except FileNotFoundError:
            if inbox.taken_directory.is_dir():
                raise
            return []  # somebody removes the inbox just now: the next sweep makes it again

    def _judge(self, data: bytes, ticket: str, source: str) -> str:
        """A taken task file becomes a task; what it is taken for and filed as lies before and after."""
        self._mark("judge:before")
        task = self.coordinator.judge(data, ticket, source)
        self._mark("judge:after")
        return task

    def _still(self, state: State, run: Run, events: Sequence[e.AnyEvent]) -> Sequence[e.AnyEvent]:
        """What was seen of a run, as long as the log does not know it already."""
        now = state.run(run.id)
        return [event for event in events if not (isinstance(event, e.RunStarted) and now.started_at) and now.live]

    # -- decide ------------------------------------------------------------------------------------------------------

    def decide(self, state: State) -> State:
        """Plan to the end: until one more plan says nothing."""
        while True:
            self._mark("decide")
            decided = self.coordinator.store.transact(
                partial(plan, facts=self._facts(state), policies=self.coordinator.policies)
            )
            state = decided.state
            if decided.seq is None:
                return state
            self._mark("decided")

    def _facts(self, state: State) -> Facts:
        standing = self._integration(state)
        astray = standing.astray or self._elsewhere(state)
        return self.coordinator.facts(
            integration=standing.head,
            astray=astray,
            signed_in=environment.signed_in(os.environ),
            bases=self._bases(state, standing.head),
            starting=self._mode(state) == "",
            stopping=self._mode(state) in ("finish", "force"),
        )

    def _integration(self, state: State) -> Standing:
        """How the branch stands. Git is asked only when its file says something else, or the log of more merges."""
        written = self.coordinator.workspaces.written_head(self.coordinator.settings.git.integration)
        if self._standing.astray and (written, state.merged) == self._seen and time.monotonic() < self._look_again:
            return self._standing  # whoever puts it right moves it: a supervisor that waits for that asks git rarely
        self._seen, self._look_again = (written, state.merged), time.monotonic() + ASTRAY_SECONDS
        moved = not written or written != self._written
        kept = self._standing.head == self._kept
        if moved or not kept or self._standing.astray or state.merged != self._merged:
            self._look_at_integration()
        return self._standing

    def _look_at_integration(self) -> None:
        """Whether everything that has landed is on it. One that is gone is made again only if that loses nothing."""
        coordinator, branch = self.coordinator, self.coordinator.settings.git.integration
        self._written = coordinator.workspaces.written_head(branch)
        found = self._stands()
        if found.again:
            found = self._restored(found.again)
        if found.head and found.head != self._kept:
            with contextlib.suppress(GitFailed):  # no room, or another one's lock: the next turn tries again
                coordinator.workspaces.remember(found.head)
                self._kept = found.head
        if found.astray and found.astray != self._standing.astray:
            self._complain(found.astray)
        self._standing = found
        if found.head != self._written:
            self._written = ""  # moved meanwhile, or another name for something: asked again

    def _stands(self) -> Standing:
        coordinator, git = self.coordinator, self.coordinator.settings.git
        merges, self._merged = coordinator.merges(), coordinator.store.state.merged
        found = coordinator.workspaces.standing(git.integration, git.target, merges, good=self._good, sure=self._merges)
        if found.head:
            self._good, self._merges = found.head, merges
        return found

    def _restored(self, commit: str) -> Standing:
        """The branch is gone, and everything that is known to have been on it is at this commit: made again there."""
        coordinator, git = self.coordinator, self.coordinator.settings.git
        try:
            head = coordinator.workspaces.ensure_integration(git.integration, git.target, start=commit)
        except Refused as error:
            return Standing(astray=str(error))
        if head != commit:
            return self._stands()  # somebody else was first
        self._mark("restored:before")
        reason = "everything that is known to have been on it is there"
        restored = e.IntegrationRestored(branch=git.integration, commit=commit, reason=reason)
        coordinator.transact(lambda _state: [restored])
        self._mark("restored:after")
        return self._stands()

    def _elsewhere(self, state: State) -> str:
        """Why a landing that met the branch in a place where it cannot be moved is not tried again yet."""
        busy = [state.tasks[name] for name in state.busy]
        met = [task for task in busy if task.status is Status.APPROVED and task.runs and _met_astray(task.runs[-1])]
        return self.coordinator.workspaces.elsewhere(self.coordinator.settings.git.integration) if met else ""

    def _bases(self, state: State, integration: str) -> dict[str, str]:
        """What ``base`` names, for tasks that have not started yet; "" when it is not acceptable."""
        bases = {}
        for task in (state.tasks[name] for name in state.based):
            assert task.spec.base is not None
            bases[task.id] = self._base(task.spec.base, integration)
        return bases

    def _base(self, name: str, integration: str) -> str:
        workspaces = self.coordinator.workspaces
        try:
            commit = workspaces.resolve(name)
            target = workspaces.resolve(self.coordinator.settings.git.target)
        except CoordinationError:
            return ""
        fits = (bool(integration) and workspaces.is_ancestor(commit, integration)) or workspaces.is_ancestor(
            commit, target
        )
        return commit if fits else ""

    # -- rest --------------------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        self._snapshot()
        self._note()
        self._teller.tend()
        poll = self.coordinator.settings.supervisor.poll_seconds
        runs = self.coordinator.store.state.live_runs()
        self._tidy(running=bool(runs))
        self._collector.look(resting=not runs)
        busy = any(self._pressing(run) for run in runs) or self._unjudged()
        assert self._wakeups is not None
        self._wakeups.wait(min(poll, BUSY_SECONDS) if busy else poll)

    def _pressing(self, run: Run) -> bool:
        """Whether it is about to begin or to be stopped, or was begun by another supervisor: only looking helps."""
        return not run.started_at or self._actor.stopping(run) or not self._children.told(run.id)

    def _tidy(self, *, running: bool) -> None:
        """Once after the last run ended: while agents run, their sandboxes may stand on what they left."""
        if not running and self._untidy:
            self.coordinator.clear_phantoms()
            self.coordinator.clear_scratch()
            confinement.leave(self.coordinator.run_group("*"))  # of workers that were not our own children
        self._untidy = running

    def _mode(self, state: State) -> str:
        """Nothing, drain, finish or force: what was asked by an event, or by signals (once: finish, more: force)."""
        if self._signals:
            return "finish" if self._signals == 1 and state.stop != "force" else "force"
        return state.stop

    def _finished(self, state: State) -> bool:
        mode = self._mode(state)
        if mode in ("finish", "force"):
            return not state.live_runs()
        if state.live_runs():
            return False
        if mode == "drain":
            return not self._ahead(state)
        return self.once and not self._unjudged() and not self._ahead(state)

    def _unjudged(self) -> bool:
        """Whether a task file waits to be judged: one that is still being written, or that just came."""
        try:
            return bool(self.coordinator.inbox.pending() or self.coordinator.inbox.taken())
        except FileNotFoundError:
            return True  # the inbox itself is gone: the next sweep makes it again

    def _ahead(self, state: State) -> bool:
        """Whether something will happen by itself: at once, or (if patient) when a delay is over."""
        facts = self._facts(state)
        if self.patient:
            facts = msgspec.structs.replace(facts, now=facts.now + LATER_SECONDS)
        return bool(plan(state, facts, self.coordinator.policies))

    # -- what it leaves for others to see ----------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._narrate is None:
            return
        for record in self.coordinator.store.follow(self._told):
            self._narrate(record)
            self._told = record.seq

    def _snapshot(self, *, force: bool = False) -> None:
        store = self.coordinator.store
        if not self._snapshot_seq:
            self._snapshot_seq = store.snapshot_seq
        if force or store.seq - self._snapshot_seq >= self.coordinator.settings.supervisor.snapshot_batches:
            self._mark("snapshot")
            self._snapshot_seq = store.snapshot()
            self.coordinator.workspaces.keep_log_ref(store.log.uuid, self._snapshot_seq)

    def _note(self, *, force: bool = False) -> None:
        """``supervisor.json``: the digest of the state we hold, folded incrementally, for ``replay --verify``."""
        store = self.coordinator.store
        seq, at = self._noted
        if seq == store.seq or (not force and time.monotonic() - at < NOTE_SECONDS):
            return
        note = {
            "supervisor": self.id,
            "pid": os.getpid(),
            "since": self._since,
            "signed_in": environment.signed_in(os.environ),
            "guards": self._guards,
            "seq": store.seq,
            "digest": self.coordinator.digest(store.state),
            "projection": f"{Core.name}-{Core.version}",
        }
        files.publish_json(self.coordinator.home.state / "supervisor.json", note)
        self._noted = (store.seq, time.monotonic())


def _full(error: BaseException | None) -> bool:
    """Whether there was no room: nothing was done then, or (of an append) reading tells what was."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _met_astray(run: Run) -> bool:
    return run.outcome is not None and run.outcome.code == "astray"


def _names(events: Sequence[e.AnyEvent]) -> str:
    return "+".join(e.name(event) for event in events)


def unfinished(state: State) -> list[Task]:
    """Tasks that did not end well, for the exit code of ``--once``."""
    return [task for task in state.tasks.values() if not task.status.ended_well]
