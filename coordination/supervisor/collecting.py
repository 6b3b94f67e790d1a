"""What takes room, what of it may go, and how does it go? Also beside a supervisor, and by a supervisor at rest.

``survey`` looks; ``collect`` lets go of what ``planning.keeping`` says may go. Whether a task is idle is asked again of
the log for each thing, under the lock that a run needs before it uses that thing: whatever a run was planned for before
is not idle, and a run that is planned later finds it gone and makes it anew. Every step may be cut and made again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from coordination import files, locks
from coordination.coordinator import Coordinator, locate
from coordination.errors import Conflict, CoordinationError, LockHeld, Refused
from coordination.model.state import State
from coordination.planning.keeping import DAY_SECONDS, Found, Verdict, idle, judge
from coordination.supervisor import requests
from coordination.supervisor.leftovers import unneeded_workspaces
from coordination.workspaces.upkeep import Ref

LOOK_SECONDS = 60.0  # between looks of a supervisor at rest at what there is to do
STOP_SECONDS = 5.0
_TRANSCRIPT = ("transcript.jsonl", "stderr.log", "gate.log", "setup.log")
_ASIDE = ("set_aside", "repair")
_BLOCK = 512  # see stat(2), st_blocks


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one thing that was to go."""

    verdict: Verdict
    gone: bool
    kept: str = ""  # the ref that keeps what was in it
    why: str = ""  # it did not go


def survey(coordinator: Coordinator, *, alone: bool = False, forget: bool = False) -> tuple[Verdict, ...]:
    """A verdict on everything that is kept; changes nothing. See ``planning.keeping.judge``."""
    state = coordinator.state()
    found = list(_on_disk(coordinator, state))
    if not alone:
        found += [*_refs(coordinator, state), *_aside(coordinator)]
    return judge(found, state, coordinator.settings.keep, coordinator.now(), alone=alone, forget=forget)


def collect(coordinator: Coordinator, *, alone: bool = False, forget: bool = False) -> Iterator[Done | Verdict]:
    """Let go of what may go, one after the other; of what stays, the verdict. Raises LockHeld beside another one."""
    with coordinator.workspaces.sweeping():
        for verdict in survey(coordinator, alone=alone, forget=forget):
            yield _gone(coordinator, verdict) if verdict.goes else verdict


def branch_of(coordinator: Coordinator, task: str) -> tuple[Ref, str] | None:
    """A task's branch, and how the integration branch or the target has all of it ("": not all); None without one."""
    ref = next((ref for ref in coordinator.workspaces.task_branches() if ref.task == task), None)
    if ref is None:
        return None
    return ref, coordinator.workspaces.landed_content(ref.commit, _known_branches(coordinator))


# -- what is there ---------------------------------------------------------------------------------------------------


def _on_disk(coordinator: Coordinator, state: State) -> Iterator[Found]:
    unneeded = {left.name: left for left in unneeded_workspaces(coordinator, state)}
    for name in sorted({*coordinator.workspaces.names(), *unneeded}):
        left, task = unneeded.get(name), name.partition(".")[0]
        yield Found(
            kind="workspace",
            name=name,
            task=task,
            bytes=_size(coordinator.workspaces.path(name)),
            at=_since(state, task),
            unneeded=f"{left.found}: {left.remedy}" if left else "",
        )
    yield from _sessions(coordinator, state)
    for task_ in state.tasks.values():
        for run in task_.runs:
            size = sum(_size(path) for path in _transcript(coordinator, run.id))
            if size and not run.live:
                yield Found(kind="transcript", name=run.id, task=task_.id, bytes=size, at=task_.changed_at)


def _sessions(coordinator: Coordinator, state: State) -> Iterator[Found]:
    known = {requests.session_of(coordinator, run): task.id for task in state.tasks.values() for run in task.runs}
    for path in sorted((coordinator.home.state / "sessions").glob("*")):
        if path.is_dir() and not path.is_symlink():
            task = known.get(path.name, "")
            yield Found(kind="session", name=path.name, task=task, bytes=_size(path), at=_since(state, task))


def _refs(coordinator: Coordinator, state: State) -> Iterator[Found]:
    workspaces = coordinator.workspaces
    known = _known_branches(coordinator)
    for ref in workspaces.task_branches():
        content = workspaces.landed_content(ref.commit, known) if idle(state, ref.task) else ""
        yield Found(
            kind="branch", name=ref.name, task=ref.task, at=_since(state, ref.task), commit=ref.commit, content=content
        )
    for ref in workspaces.preserved_refs():
        content = workspaces.landed_content(ref.commit, known) if idle(state, ref.task) else ""
        yield Found(kind="kept", name=ref.name, task=ref.task, at=ref.at, commit=ref.commit, content=content)


def _known_branches(coordinator: Coordinator) -> list[str]:
    git, found = coordinator.settings.git, []
    for name in (git.integration, git.target):
        with contextlib.suppress(CoordinationError):
            found.append(coordinator.workspaces.resolve(f"refs/heads/{name}"))
    return found


def _aside(coordinator: Coordinator) -> Iterator[Found]:
    for name in _ASIDE:
        for path in sorted((coordinator.home.state / name).glob("*")):
            yield Found(kind="aside", name=str(path), bytes=_size(path))


def _since(state: State, name: str) -> float:
    task = state.get(name)
    return task.changed_at if task is not None else 0.0


def _transcript(coordinator: Coordinator, run: str) -> list[Path]:
    directory = coordinator.run_directory(run)
    return [directory / name for name in _TRANSCRIPT]


def _size(path: Path) -> int:
    """Bytes on disk of a file, or of a directory with all that is in it; a file of two names counts for each."""
    total, left = 0, [path]
    while left:
        at = left.pop()
        with contextlib.suppress(OSError):  # gone just now, or closed to us
            total += at.lstat().st_blocks * _BLOCK
            if at.is_dir() and not at.is_symlink():
                left += at.iterdir()
    return total


# -- letting go ------------------------------------------------------------------------------------------------------


def _gone(coordinator: Coordinator, verdict: Verdict) -> Done:
    try:
        kept = _let_go(coordinator, verdict.found)
    except (CoordinationError, OSError, RecursionError) as error:
        return Done(verdict=verdict, gone=False, why=str(error))
    return Done(verdict=verdict, gone=True, kept=kept or "")


def _let_go(coordinator: Coordinator, found: Found) -> str | None:
    def needed() -> str:
        """Why it is needed after all, as the log stands now."""
        return "" if idle(coordinator.state(), found.task) else f"{found.task} is no longer at its end"

    match found.kind:
        case "workspace":
            return coordinator.workspaces.remove(found.name, found.task, needed)
        case "session":
            _drop_session(coordinator, found, needed)
        case "transcript":
            for path in _transcript(coordinator, found.name):
                files.discard(path)
        case "branch":
            return coordinator.workspaces.drop_branch(_ref(found), found.content, needed=needed)
        case "kept":
            coordinator.workspaces.drop_preserved(_ref(found), needed=needed)
        case "aside":
            raise AssertionError("what was set aside never goes")
    return None


def _drop_session(coordinator: Coordinator, found: Found, needed: Callable[[], str]) -> None:
    path = coordinator.home.state / "sessions" / found.name
    lock = locks.hold(Path(f"{path}.lock"))
    if lock is None:
        raise LockHeld(f"{path} is in use")
    with lock:
        why = needed()
        if why:
            raise Refused(f"session {found.name} stays: {why}")
        coordinator.workspaces.discard(path)
        files.discard(lock.path)


def _ref(found: Found) -> Ref:
    return Ref(name=found.name, task=found.task, commit=found.commit, at=found.at)


# -- by itself -------------------------------------------------------------------------------------------------------


class Collector:
    """Has a supervisor at rest let go of what needs no person's word: rarely, and in another process.

    ``look`` costs a listing of the workspaces: what takes longer is done elsewhere, and may be killed at any time.
    """

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._process: subprocess.Popen[bytes] | None = None
        self._next = 0.0  # monotonic
        self._tried: frozenset[str] = frozenset()

    def look(self, *, resting: bool) -> None:
        """Begin, if there is something to do and no run is under way."""
        if self._process is not None and self._process.poll() is None:
            return
        self._process = None
        if not resting or time.monotonic() < self._next or not self._coordinator.settings.keep.by_itself:
            return
        self._next = time.monotonic() + LOOK_SECONDS
        with contextlib.suppress(FileNotFoundError):  # what a person's own `coord gc` removes just now
            if self._due():
                self._process = self._begun()

    def pid(self) -> int | None:
        """The process that does it, while it does."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def end(self) -> None:
        """Have nothing under way any more."""
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_SECONDS)
            self._process = None

    def _due(self) -> bool:
        """Once a day, and when a landing was killed behind the move of the branch and left its workspace."""
        left = frozenset(left.name for left in unneeded_workspaces(self._coordinator, self._coordinator.store.state))
        new, self._tried = left - self._tried, left  # what could not go is tried again only once a day
        note = self._coordinator.home.state / "collected"
        try:
            age = self._coordinator.now() - note.stat().st_mtime
        except FileNotFoundError:
            age = 0.0
            note.touch(mode=0o600)
        if abs(age) >= DAY_SECONDS:  # a clock that jumped is a day over, too
            note.touch()
            return True
        return bool(new)

    def _begun(self) -> subprocess.Popen[bytes] | None:
        home = self._coordinator.home
        argv = [sys.executable, "-P", "-m", __name__, str(home.repository.root), str(home.state)]
        try:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=home.state
            )
        except OSError:  # no room for a process: another time
            return None


def main(arguments: Iterable[str]) -> None:
    """Let go of what needs no person's word in the repository of that root and state directory."""
    root, state = arguments
    os.nice(10)
    with contextlib.suppress(LockHeld, Conflict):  # a person does it just now
        for _ in collect(Coordinator(locate(Path(root), state)), alone=True):
            pass


if __name__ == "__main__":
    main(sys.argv[1:])
