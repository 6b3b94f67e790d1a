"""How is the supervisor started: here, or in the background?"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import line, note, plain, tell
from coordination.environment import signed_in
from coordination.errors import CoordinationError, LockHeld

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.inbox import Receipt
    from coordination.model.events import Record
    from coordination.model.state import State

START_SECONDS = 30.0
LAST_WORDS_BYTES = 4000
_LOOK_SECONDS = 0.05


@verb(
    "coord start",
    "coord start --foreground",
    "coord start --once && coord land",
)
@click.option("--foreground", is_flag=True, help="Stay here and say what happens, until Ctrl-C.")
@click.option("--once", is_flag=True, help="Stay here until nothing is left to do: 0 if all tasks ended well, else 1.")
@click.option("--no-wait", is_flag=True, help="With --once: end instead of waiting until a task is tried again.")
@click.pass_obj
def command(session: Session, foreground: bool, once: bool, no_wait: bool) -> int:
    """Start the supervisor, in the background unless --foreground or --once.

    The agents need ANTHROPIC_API_KEY; a subscription login works through CLAUDE_CODE_OAUTH_TOKEN from
    `claude setup-token`. Without either, tasks wait. Without the Claude Code program, and beside another supervisor,
    it is refused. Ctrl-C asks the agents to finish their turn, a second one stops them at once.
    """
    if no_wait and not once:
        raise click.UsageError("--no-wait only goes with --once")
    coordinator = session.writing()
    _refuse_second(coordinator)
    _check_claude(coordinator, session)
    return _here(coordinator, once=once, patient=not no_wait) if foreground or once else _detached(coordinator, session)


def _check_claude(coordinator: Coordinator, session: Session) -> None:
    """Where a role needs Claude Code: refuse when it is nowhere, as every try would fail; say so without a login."""
    from coordination.agents.claude import find_binary

    override = coordinator.settings.agents.backend
    backends = {override or role.backend for role in coordinator.roles.values()}
    if "claude" not in backends:
        return
    find_binary(session.environment.get("COORDINATION_CLAUDE", ""), session.environment.get("PATH", ""))
    if not signed_in(session.environment):
        note(
            "Neither key nor login: nothing that needs Claude Code will start. Set ANTHROPIC_API_KEY, or "
            "CLAUDE_CODE_OAUTH_TOKEN from `claude setup-token`, then start again."
        )


def _refuse_second(coordinator: Coordinator) -> None:
    supervisor = coordinator.supervisor()
    if supervisor["running"]:
        pid = supervisor["pid"]
        raise LockHeld(f"a supervisor runs here already: pid {pid}; `coord stop` ends it", holder=f"pid {pid}")


# ---- here ------------------------------------------------------------------------------------------------------------


def _here(coordinator: Coordinator, *, once: bool, patient: bool) -> int:
    from coordination import kin
    from coordination.supervisor.loop import Supervisor

    kin.adopt_orphans()  # of workers that die
    supervisor = Supervisor(
        coordinator, once=once, patient=patient, narrate=_narrate, receipts=_received, complain=_say
    )
    state = supervisor.run()
    return _verdict(coordinator, state) if once else 0


def _narrate(record: Record) -> None:
    from coordination import views
    from coordination.model.events import described

    row = described(record)
    _say(f"{views.moment(record.at)} {views.narrated(row['type'], row)}")


def _received(receipt: Receipt) -> None:
    from coordination.inbox import Fate

    if receipt.fate is Fate.REJECTED:
        _say(f"task file {receipt.file} rejected: {receipt.reason}")


def _say(text: str) -> None:
    try:
        tell(line(text))  # one thing a line: nobody's text passes for another thing that happened
    except BrokenPipeError:
        # the one who listened left; the work goes on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _verdict(coordinator: Coordinator, state: State) -> int:
    """0 if all tasks ended well; else 1, naming those that did not, those that still wait, and for what."""
    from coordination import views
    from coordination.supervisor.loop import unfinished

    left = unfinished(state)
    facts = coordinator.observed(signed_in=signed_in(os.environ))
    for task in left:
        why = "; ".join(views.waiting(state, facts, coordinator.policies, task)) or task.reason
        note(line(f"{task.id} is {views.state_of(state, task)}: {why} (`coord show {task.id}`)"))
    return 1 if left else 0


# ---- in the background -----------------------------------------------------------------------------------------------


def _detached(coordinator: Coordinator, session: Session) -> int:
    log = coordinator.home.state / "supervisor.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        process = _spawn(coordinator, session, descriptor)
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + START_SECONDS
    while not _began(coordinator, process.pid):
        code = process.poll()
        if code is not None:
            _refuse_second(coordinator)  # somebody else was faster, and the log is theirs
            note(_last_words(log, before))
            note(f"The supervisor ended at once with exit code {code}; its log is {log}")
            return code if code > 0 else 1
        if time.monotonic() >= deadline:
            raise CoordinationError(
                f"the supervisor (pid {process.pid}) did not begin in {START_SECONDS:g} s: see {log}"
            )
        time.sleep(_LOOK_SECONDS)
    tell(f"Supervisor started: pid {process.pid}, log {log}")
    tell("See `coord status`; `coord log --follow` tells what happens; `coord stop` ends it.")
    return 0


def _spawn(coordinator: Coordinator, session: Session, output: int) -> subprocess.Popen[bytes]:
    home, environment = coordinator.home, {**session.environment, "COORD_DEBUG": "1"}
    if environment.get("COORDINATION_HOME"):
        environment["COORDINATION_HOME"] = str(home.state)
    # -P: the repository is the working directory, and nothing in it may be imported
    command = [sys.executable, "-P", "-m", "coordination", "-C", str(home.repository.root), "start", "--foreground"]
    return subprocess.Popen(
        command,
        cwd=home.repository.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _began(coordinator: Coordinator, pid: int) -> bool:
    """Whether that process holds the lock and went once round its loop: only then nothing of the start can fail."""
    from coordination import files, locks

    if not locks.held(coordinator.supervisor_lock):
        return False
    said = files.read_json_if_there(coordinator.home.state / "supervisor.json") or {}
    return bool(said.get("pid") == pid)


def _last_words(log: Path, offset: int) -> str:
    with log.open("rb") as stream:
        stream.seek(max(offset, stream.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
        return plain(stream.read().decode("utf-8", "replace")).strip()
