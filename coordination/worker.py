"""What does one run do? The child process for it: lock, request, run, outcome.

A worker has no log. It is given a run directory; it holds ``worker.lock`` there for life, as claim and pulse, and
its last act is to publish ``outcome.json``. It refuses to begin when somebody began before (``worker.json``), when
the run has ended (``outcome.json``) or was given up (``revoked``): a repeated effect is always a new run.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from coordination import confinement, files, gates, kin, locks, preparation, sandbox, temporary
from coordination.agents import create
from coordination.env import private
from coordination.environment import MARKER, without_credentials
from coordination.errors import CoordinationError, GitFailed, LockHeld, Refused, SetUpFailed, Unsuitable
from coordination.model.runs import (
    CONFLICTED_FILES,
    AgentRequest,
    ConflictReport,
    DiffStat,
    Ending,
    GateCommand,
    GateResult,
    Landed,
    Outcome,
    Purpose,
    RunRequest,
)
from coordination.workspaces import BranchAstray, LandingResult, Workspaces

T = TypeVar("T")

LOCK_WAIT_SECONDS = 5.0
ROOM_WAIT_SECONDS = 3600.0  # for room on a full disk, with an outcome that would be lost
ROOM_LOOK_SECONDS = 0.5
REPORT_MAX = 64 * 1024
REASON_MAX = 16 * 1024
LISTED_MAX = 200
_CITED = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_./-]{0,255}")


class Stop:
    """What was asked of this worker: nothing, to end the turn, or to end at once.

    A signal may come from anybody. ``wished`` is whether it was the supervisor who sent one: it says so first, in
    the file ``wish``. What others end is a crash, or a run that is always ended so would be begun for ever.
    """

    def __init__(self, wish: Path) -> None:
        self.level, self.wished = 0, False
        self._wish = wish

    def install(self) -> None:
        """SIGTERM asks; a second one insists."""
        signal.signal(signal.SIGTERM, self._asked)
        signal.signal(signal.SIGINT, _unheard)

    def _asked(self, _signal: int, _frame: object) -> None:
        self.level += 1
        self.wished = self.wished or self._wish.exists()

    def __call__(self) -> str:
        """What a runner asks: "", "ask" or "kill"."""
        return ("", "ask", "kill")[min(self.level, 2)]


def _unheard(_signal: int, _frame: object) -> None:
    """Not for us. A signal that is ignored instead would be ignored by every gate and agent, too."""


def main(argv: list[str] | None = None) -> int:
    """Entry of the child process: ``python -m coordination.worker RUN_DIRECTORY``."""
    directory = Path((sys.argv[1:] if argv is None else argv)[0])
    stop = Stop(directory / "stop.json")
    stop.install()
    claimed = directory / "worker.lock"
    lock = _when_there_is_room(lambda: locks.hold(claimed, wait_seconds=LOCK_WAIT_SECONDS), stop)
    if lock is None:
        return 0
    with lock:
        # Asked under the lock: whoever gives the run up publishes ``revoked`` first and probes the lock after.
        if any((directory / name).exists() for name in ("outcome.json", "revoked", "worker.json")):
            return 0
        request = msgspec.json.decode(files.read(directory / "request.json"), type=RunRequest)
        confinement.enter(**msgspec.structs.asdict(request.confinement))
        me = locks.identity()
        begun = msgspec.to_builtins(me) | {"token": request.token}
        _when_there_is_room(lambda: files.publish_json(directory / "worker.json", begun), stop)
        outcome = work(request, directory, stop)
        claim = {"run": request.run, "token": request.token, "outcome": msgspec.to_builtins(_bounded(outcome))}
        claim = _writable(claim)
        _when_there_is_room(lambda: files.publish_json(directory / "outcome.json", claim), stop)
        with contextlib.suppress(OSError, RecursionError):  # what is left the supervisor removes when it has time
            temporary.clear(str(directory))
            _workspaces(request).discard(Path(request.state_directory) / "scratch" / request.run)
    return 0


def _workspaces(request: RunRequest) -> Workspaces:
    private = (*request.setup.copy, *request.setup.keep)
    return Workspaces(Path(request.repository), Path(request.state_directory), private=private, pooling=request.pooling)


def _when_there_is_room(action: Callable[[], T], stop: Stop) -> T:
    """Do what must be written and is known nowhere else: a full disk is waited out, unless we are told to stop."""
    deadline = time.monotonic() + ROOM_WAIT_SECONDS
    while True:
        try:
            return action()
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not full or stop.level or time.monotonic() >= deadline:
                raise
        time.sleep(ROOM_LOOK_SECONDS)


def _bounded(outcome: Outcome) -> Outcome:
    """What agents and tools said, cut to what may stand in the log; the transcript has it all."""
    return replace(
        outcome,
        report=outcome.report[:REPORT_MAX],
        reason=outcome.reason[:REASON_MAX],
        cited=outcome.cited[:LISTED_MAX],
        denials=tuple(denial[:REASON_MAX] for denial in outcome.denials[:LISTED_MAX]),
        outside=outcome.outside[:LISTED_MAX],
    )


def _writable(value: Any) -> Any:
    """The same with what no UTF-8 can hold replaced: half of a surrogate pair, where a text was cut."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_writable(key): _writable(item) for key, item in value.items()}
        case list() | tuple():
            return [_writable(item) for item in value]
    return value


def work(request: RunRequest, directory: Path, stop: Stop) -> Outcome:
    """Do the run and say how it ended. One of the two places that catch broadly: everything becomes an outcome."""
    began = time.time()
    run = _Run(request, directory, stop)
    try:
        outcome = run.perform()
    except (LockHeld, GitFailed) as error:
        # says nothing about the work: a landing that ends so is made again and not taken for a conflict
        outcome = Outcome(ending=Ending.CRASHED, code=type(error).__name__, reason=str(error))
    except BranchAstray as error:
        outcome = Outcome(ending=Ending.CRASHED, code="astray", reason=str(error))
    except SetUpFailed as error:  # nor does this: a landing that ends so is nobody's conflict
        outcome = Outcome(ending=Ending.CRASHED, code="setup_failed", reason=str(error))
    except Unsuitable as error:
        outcome = Outcome(ending=Ending.CRASHED, code=type(error).__name__, reason=str(error))
    except Refused as error:
        outcome = Outcome(ending=Ending.FAILED, code="refused", reason=str(error))
    except CoordinationError as error:
        # a landing that met this has said nothing about the work
        ending = Ending.CRASHED if request.purpose is Purpose.LANDING else Ending.FAILED
        outcome = Outcome(ending=ending, code=type(error).__name__, reason=str(error))
    except Exception as error:
        import traceback  # only here

        with (
            contextlib.suppress(OSError),
            open(directory / "stderr.log", "a", encoding="utf-8", errors="replace", opener=private) as log,
        ):
            traceback.print_exc(file=log)
        reason = f"{type(error).__name__}: {error} (the traceback is in stderr.log of the run)"
        outcome = Outcome(ending=Ending.CRASHED, code="worker_error", reason=reason)
    if stop.level and outcome.ending is not Ending.SUCCEEDED:
        outcome = _stopped(outcome) if stop.wished else _ended_by_others(outcome)
    return replace(outcome, started_at=began, ended_at=time.time())


def _stopped(outcome: Outcome) -> Outcome:
    return replace(outcome, ending=Ending.STOPPED, reason=outcome.reason or "stopped on request")


def _ended_by_others(outcome: Outcome) -> Outcome:
    reason = f"the worker was sent a SIGTERM, not by the supervisor: {outcome.reason}"
    return replace(outcome, ending=Ending.CRASHED, code=f"signal:{signal.SIGTERM:d}", reason=reason)


class _Run:
    """One run, step by step; ``perform`` reads as the table of contents."""

    def __init__(self, request: RunRequest, directory: Path, stop: Stop) -> None:
        self.request, self.directory, self.stop = request, directory, stop
        self.workspaces = _workspaces(request)
        self._progress: dict[str, Any] = {}
        self._trees: dict[str, str] = {}  # by commit
        self._commands = 0  # of gates and set-up: each has a home and a temporary directory of its own

    def perform(self) -> Outcome:
        try:
            return self._performed()
        except (SetUpFailed, Unsuitable):
            if self.request.purpose is not Purpose.WORK:  # nobody goes on in a workspace that was only to judge
                self._cleared(Outcome(ending=Ending.CRASHED))
            raise

    def _performed(self) -> Outcome:
        match self.request.purpose:
            case Purpose.WORK if self.request.agent is not None and not self.request.agent.writes:
                return self._read()
            case Purpose.WORK:
                return self._write()
            case Purpose.GATE:
                return self._gate()
            case Purpose.REVIEW:
                return self._review()
            case Purpose.LANDING:
                return self._land()

    def progress(self, said: Mapping[str, Any]) -> None:
        """Not an event: what it does now, for those who look. Lost without harm."""
        self._progress |= said
        target = self.directory / "progress.json"
        scratch = self.directory / ".progress.tmp"
        with contextlib.suppress(OSError):
            with open(scratch, "wb", opener=private) as stream:
                stream.write(msgspec.json.encode(_writable(self._progress | {"at": time.time()})))
            os.replace(scratch, target)  # noqa: PTH105

    # -- purposes ----------------------------------------------------------------------------------------------------

    def _write(self) -> Outcome:
        request = self.request
        place = request.workspace
        self.progress({"phase": "workspace"})
        path = self._ready_workspace()
        conflicted = self.workspaces.bring_in(path, place.bring_in, request.task) if place.bring_in else ()
        before = self.workspaces.snapshot_outside()
        outcome = self._agent(conflicted)
        base = place.bring_in or place.base
        outcome = replace(outcome, base=base, outside=tuple(self.workspaces.audit(before)))
        if outcome.ending is not Ending.SUCCEEDED:
            return outcome
        self.progress({"phase": "commit"})
        message = self._message(outcome)
        commit = self.workspaces.commit(path, message, request.author, branch=place.branch, base=place.base)
        diff = self.workspaces.diff_stat(base, commit) if commit is not None else DiffStat()
        # Work of an earlier run that the log never heard of counts; work that was judged before does not.
        if commit is None or commit == place.commit or not diff.files:
            return _idle(outcome)
        return replace(outcome, commit=commit, diff=diff)

    def _read(self) -> Outcome:
        request = self.request
        self.progress({"phase": "workspace"})
        self._ready_workspace()
        outcome = self._unchanged(self._agent())
        cited = self.workspaces.exists_at(request.workspace.commit, _cited(outcome.report))
        outcome = replace(outcome, base=request.workspace.commit, cited=tuple(sorted(cited)))
        return self._cleared(outcome)

    def _review(self) -> Outcome:
        self.progress({"phase": "workspace"})
        self._ready_workspace()
        outcome = self._cleared(self._unchanged(self._agent()))
        if outcome.ending is Ending.SUCCEEDED and outcome.verdict not in ("approve", "reject"):
            reason = "the reviewer gave no verdict of the required form; that is not approval"
            return replace(outcome, ending=Ending.FAILED, code="malformed_verdict", reason=reason)
        return outcome

    def _gate(self) -> Outcome:
        place = self.request.workspace
        known = self._passed(place.commit)
        if len(known) == len(self.request.gates):
            return _judged(tuple(known.values()))
        self.progress({"phase": "workspace"})
        made = not self.workspaces.path(place.name).exists()
        path = self.workspaces.ensure(place)
        return self._cleared(_judged(self._run_gates(path, place.commit, exact=made)))

    def _land(self) -> Outcome:
        landing = self.request.landing
        assert landing is not None
        self.progress({"phase": "landing"})
        results = self.workspaces.land_batch(
            landing, task=self.request.task, gates=self._run_gates, stopping=lambda: bool(self.stop.level)
        )
        others = [(member.task, results[member.task]) for member in landing.batch if member.task in results]
        batch = tuple(_landed(self.request.run, task, result) for task, result in others)
        outcome = replace(_landing(results[self.request.task]), batch=batch)
        for merged in [task for task, result in results.items() if result.kind == "merged"]:
            for name in self._workspaces_of(merged):
                outcome = self._cleared(outcome, name, merged)
        return outcome

    # -- parts -------------------------------------------------------------------------------------------------------

    def _agent(self, conflicted: Sequence[str] = ()) -> Outcome:
        request = self._told(conflicted)
        self.progress({"phase": "agent", "model": request.model})
        # two processes that resume one session both succeed, and one of the two conversations is lost without a word
        with _owned(request.config_directory):
            try:
                return create(request.backend, request.options).run(request, progress=self.progress, stopping=self.stop)
            finally:
                kin.end_orphans()  # before anybody judges, commits or removes what they could still change

    def _told(self, conflicted: Sequence[str]) -> AgentRequest:
        """The agent's request with what only the worker knows."""
        agent = self.request.agent
        assert agent is not None
        listed = "\n".join(f"- {name}" for name in conflicted) or "- none; the merge was clean"
        # Built by the supervisor from a list; credentials stand in no file, so they come from our own environment.
        environment = dict(os.environ)
        return replace(agent, environment=environment, prompt=agent.prompt.replace(CONFLICTED_FILES, listed))

    def _unchanged(self, outcome: Outcome) -> Outcome:
        changed = self.workspaces.changes(self.workspaces.path(self.request.workspace.name))
        if not changed or outcome.ending is not Ending.SUCCEEDED:
            return outcome
        reason = f"a read-only run changed the tree: {', '.join(changed[:5])}"
        return replace(outcome, ending=Ending.FAILED, code="tree_changed", reason=reason)

    def _run_gates(
        self, directory: Path, commit: str, names: Sequence[str] | None = None, *, exact: bool = False
    ) -> tuple[GateResult, ...]:
        """The gates' results, up to the first that fails; each sees the exact commit, whatever ran there before it.

        ``names``: only those that whoever is merged there has named; None: all. ``exact``: nothing ran there yet.
        """
        results: list[GateResult] = []
        known = self._passed(commit)
        for gate in (gate for gate in self.request.gates if names is None or gate.name in names):
            self.progress({"phase": "gate", "gate": gate.name})
            results.append(known.get(gate.name) or self._run_gate(gate, directory, commit, exact=exact and not results))
            if not results[-1].passed:
                break
        return tuple(results)

    def _run_gate(self, gate: GateCommand, directory: Path, commit: str, *, exact: bool = False) -> GateResult:
        tries = 0

        def attempt() -> GateResult:
            nonlocal tries
            tries += 1
            if not exact or tries > 1:
                self.workspaces.make_exact(directory, commit)
            self._set_up(directory, trusted=False)
            self.progress({"phase": "gate", "gate": gate.name})
            environment, own = self._own_places()
            try:
                return gates.run(
                    gate,
                    commit=commit,
                    directory=directory,
                    log=self.directory / "gate.log",
                    environment=environment,
                    walls=self._walls(directory, environment, network=gate.network),
                    temporary=own,
                )
            finally:
                kin.end_orphans()

        result = gates.judge(gate, attempt, again=lambda: not self.stop.level)
        if gate.cache and not self.stop.level:
            tree = self._tree(commit)
            self._passes.note(self._pass_key(gate, tree), tree, self.request.run, result)
        return result

    def _passed(self, commit: str) -> dict[str, GateResult]:
        """The gates that need not run: they passed before on the same files."""
        if self.request.gates:
            self._refuse_without_sandbox()
        asked = [gate for gate in self.request.gates if gate.cache and not gate.fresh]
        if not asked:
            return {}
        tree = self._tree(commit)
        found = [self._passes.find(self._pass_key(gate, tree), gate.name, tree, commit) for gate in asked]
        return {result.gate: result for result in found if result is not None}

    def _tree(self, commit: str) -> str:
        if commit not in self._trees:
            self._trees[commit] = self.workspaces.tree(commit)
        return self._trees[commit]

    def _pass_key(self, gate: GateCommand, tree: str) -> str:
        environment = without_credentials(os.environ)
        for name in ("HOME", "TMPDIR", MARKER):  # another one for each run
            environment.pop(name, None)
        set_up = preparation.described(self.request.setup)
        sandboxed = bool(self.request.sandbox.program)
        return gates.key(gate, tree=tree, environment=environment, sandboxed=sandboxed, set_up=set_up)

    @property
    def _passes(self) -> gates.Passes:
        return gates.Passes(directory=self._cache / "gates")

    @property
    def _cache(self) -> Path:
        return Path(self.request.state_directory) / "cache"

    # -- commands that are not ours ----------------------------------------------------------------------------------

    def _ready_workspace(self) -> Path:
        """The run's workspace, set up when nobody has worked in it yet."""
        place = self.request.workspace
        made = not self.workspaces.path(place.name).exists()
        path = self.workspaces.ensure(place)
        if not place.branch or not self.workspaces.is_set_up(path):
            # what a commit of nobody but the agents says is made there must not be given to others
            trusted = (made or not place.branch) and self.workspaces.head(path) == place.base
            self._set_up(path, trusted=trusted)
            self.workspaces.note_set_up(path)
        return path

    def _set_up(self, workspace: Path, *, trusted: bool) -> None:
        """Copy and make what [setup] says. Raises SetUpFailed, also when it changed what git tracks."""
        setup = self.request.setup
        if not (setup.commands or setup.copy):
            return
        self.progress({"phase": "set-up"})
        before = set(self.workspaces.changes(workspace))
        self.workspaces.note_lent(workspace)

        def perform(argv: Sequence[str]) -> sandbox.Ended:
            environment, own = self._own_places()
            try:
                return sandbox.run(
                    argv,
                    name=f"set-up {argv[0]!r}",
                    directory=workspace,
                    log=self.directory / "setup.log",
                    environment=environment,
                    timeout_seconds=setup.timeout_seconds,
                    walls=self._walls(workspace, environment, network=setup.network),
                    temporary=own,
                )
            finally:
                kin.end_orphans()

        tracked = self.workspaces.tracked(workspace, (*setup.copy, *setup.keep))
        cache = self._cache / "setup"
        # where the commands make more than what is kept, giving that alone to others would leave them without the rest
        preparation.prepare(
            setup,
            workspace,
            tracked=tracked,
            perform=perform,
            cache=cache,
            keep=lambda: trusted and self.workspaces.is_pristine(workspace),
        )
        changed = sorted(set(self.workspaces.changes(workspace)) - before)
        if changed:
            raise SetUpFailed(
                f"set-up changed files that git does not ignore: {', '.join(changed[:5])}. Expected only ignored "
                "files, or what [setup] keep names"
            )

    def _own_places(self) -> tuple[dict[str, str], Path]:
        """The environment of one command, without credentials, and the temporary directory that is its own."""
        self._commands += 1
        own = Path(self.request.state_directory) / "scratch" / self.request.run / f"command.{self._commands}"
        for name in ("home", "tmp"):
            (own / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = without_credentials(os.environ) | {"HOME": str(own / "home"), "TMPDIR": str(own / "tmp")}
        return environment, own / "tmp"

    def _walls(self, workspace: Path, environment: Mapping[str, str], *, network: bool) -> sandbox.Walls:
        """Within what a command runs."""
        self._refuse_without_sandbox()
        request = self.request.sandbox
        return sandbox.Walls(
            program=request.program,
            hidden=request.hidden,
            # what steers git there is not the command's to write
            shown=(*request.shown, str(workspace / ".git")),
            writable=(str(workspace), environment.get("HOME", "")),
            network=network,
        )

    def _refuse_without_sandbox(self) -> None:
        if self.request.sandbox.required and not self.request.sandbox.program:
            raise Unsuitable(
                "settings require a sandbox for gates and set-up, and none works here: install bubblewrap and allow "
                'user namespaces (`coord doctor`), or set [agents] sandbox = "auto"'
            )

    def _cleared(self, outcome: Outcome, name: str = "", task: str = "") -> Outcome:
        """The outcome, after its workspace was taken down; one that cannot be is kept and changes nothing about it."""
        name, task = name or self.request.workspace.name, task or self.request.task
        try:
            try:
                self.workspaces.remove(name, task)
            except GitFailed:  # git itself may have been killed, for want of memory or by a person: nobody else comes
                self.workspaces.remove(name, task)
        except (CoordinationError, OSError, RecursionError) as error:
            kept = f"its workspace was kept: {error}"
            return replace(outcome, reason=f"{outcome.reason}\n{kept}".strip())
        return outcome

    def _workspaces_of(self, task: str) -> list[str]:
        """Its own, and those of judging runs that were killed: a run's name is the task's, a dot and more."""
        return [task, *sorted(path.name for path in self.workspaces.path(task).parent.glob(f"{task}.*"))]

    def _message(self, outcome: Outcome) -> str:
        summary = outcome.report.strip()[:4000]
        return f"{self.request.title}\n\n{summary}" if summary else self.request.title


def _judged(results: tuple[GateResult, ...]) -> Outcome:
    failed = [result for result in results if not result.passed]
    if not failed:
        return Outcome(ending=Ending.SUCCEEDED, gates=results)
    first = failed[0]
    reason = f"gate {first.gate!r} exited {first.exit_code}:\n{first.output[-4000:]}"
    return Outcome(ending=Ending.FAILED, code=f"exit:{first.exit_code}", reason=reason, gates=results)


def _landing(result: LandingResult) -> Outcome:
    """What a landing says of its own task."""
    match result.kind:
        case "merged":
            return Outcome(ending=Ending.SUCCEEDED, code="merged", commit=result.merge, gates=result.gates)
        case "conflict":
            return _conflicting(result.conflict)
        case "gate_failed":
            failed = _judged(result.gates)
            return replace(failed, reason=f"{_merging(result)}: {failed.reason}", conflict=result.conflict)
        case "moved":
            reason = "the integration branch moved while the merge was tested; it is landed again"
        case "left":
            reason = "it ended before the merge was tested; it is landed again"
    return Outcome(ending=Ending.CRASHED, code=result.kind, reason=reason)


def _landed(run: str, task: str, result: LandingResult) -> Landed:
    """What it says of another one that it took along."""
    outcome = _landing(result)
    known = result.kind in ("merged", "conflict", "gate_failed")
    return Landed(
        task=task,
        kind=result.kind if known else "left",
        merge=result.merge if result.kind == "merged" else "",
        # what passed is told once, by the task that took the others along; what failed stands in the reason
        gates=tuple(replace(gate, output="") for gate in result.gates) if result.kind == "merged" else (),
        conflict=outcome.conflict,
        reason=f"{outcome.reason}\n(in {run})"[:REASON_MAX] if outcome.reason else "",
    )


def _merging(result: LandingResult) -> str:
    others = f", and with {', '.join(result.on_top_of)}" if result.on_top_of else ""
    return f"after merging with what landed meanwhile{others}"


@contextlib.contextmanager
def _owned(session: str) -> Iterator[None]:
    """Own a session's directory for the time. Raises LockHeld when another run does."""
    path = Path(f"{session}.lock")
    if not path.parent.is_dir():
        yield  # a backend that keeps nothing
        return
    lock = locks.hold(path, wait_seconds=LOCK_WAIT_SECONDS)
    if lock is None:
        raise LockHeld(f"{path} is held by {locks.holder(path)}: another run goes on with this session")
    with lock:
        yield


def _idle(outcome: Outcome) -> Outcome:
    """An agent that said it was done and changed nothing: it was not allowed to, gave up with words, or is silent."""
    reason = "the agent said it was done but changed nothing"
    code = "no_change" if outcome.report.strip() else "nothing"
    if outcome.denials:
        code, reason = "denied", f"{reason}, and was not allowed to: {'; '.join(outcome.denials[:3])}"
    return replace(outcome, ending=Ending.FAILED, code=code, reason=reason)


def _conflicting(conflict: ConflictReport | None) -> Outcome:
    """Both sides by name, as the next agent and the person will read it."""
    report = conflict or ConflictReport()
    others = f" with what {', '.join(report.others)} landed" if report.others else ""
    reason = f"conflict{others} in {', '.join(report.files)} (other side: {report.integration[:12]})\n{report.detail}"
    return Outcome(ending=Ending.CONFLICT, code="conflict", reason=reason.strip(), conflict=report)


def _cited(report: str) -> set[str]:
    """Words of the report that could be paths of this repository."""
    words = {word.split(":")[0].rstrip(".") for word in _CITED.findall(report[:REPORT_MAX])}
    return {word for word in words if "/" in word or "." in word}


if __name__ == "__main__":
    kin.adopt_orphans()
    sys.exit(main())
