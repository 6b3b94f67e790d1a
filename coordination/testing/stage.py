"""Where is the whole thing tried? In a throw-away repository, with real processes, seen from outside.

A ``Stage`` makes the repository, runs supervisors in child processes with an environment of its own, drops task files,
waits for conditions and keeps what the user's part of the repository looked like. What happened is read from the raw
lines of the log, by code that shares nothing with the package's own reading.

A supervisor can be made to end itself by ``kill -9`` at a *cut*: ``step@event`` is where it first comes to the step of
that name (see ``Supervisor(mark=…)``) while that event is the last of any task, so idle turns of the loop are one cut.
``python -m coordination.testing.stage REPOSITORY [CUT]`` is that supervisor as a program.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from coordination import locks
from coordination.agents.claude import find_binary
from coordination.coordinator import Coordinator, Home, initialise, locate
from coordination.environment import MARKER
from coordination.supervisor import Supervisor
from coordination.supervisor.children import send

JSON = Any
T = TypeVar("T")

FILES: Mapping[str, str] = {
    "README.md": "# Greeter\n\nSays hello.\n",
    "greeter.py": 'GREETING = "Hello"\n\n\ndef greet(name: str) -> str:\n    return f"{GREETING}, {name}!"\n',
}
PASSES = (sys.executable, "-B", "-c", "import greeter")
"""A gate that FILES pass."""

_LOOK_SECONDS = 0.02
_OWN = (".git", ".coordination")


class Late(AssertionError):
    """What was waited for did not happen in time."""


class Stage:
    """A repository with coordination. ``settings`` are the tables of coordination.toml."""

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, JSON] | None = None,
        files: Mapping[str, str] = FILES,
        url: str = "",
    ) -> None:
        """Lay the environment down; ``url`` is the Messages API that runs talk to."""
        self.directory = directory
        self.repository = directory / "repository"
        self.state = self.repository / ".coordination"
        self.files = files
        self.settings = settings or {}
        self.environment = {
            "HOME": str(directory / "home"),
            "PATH": os.environ["PATH"],
            "TMPDIR": str(directory / "tmp"),
            "LANG": "C.UTF-8",
            "ANTHROPIC_API_KEY": "made-up",
            "ANTHROPIC_BASE_URL": url or "http://127.0.0.1:9",
        }
        self.processes: list[subprocess.Popen[bytes]] = []

    # -- setting up ---------------------------------------------------------------------------------------------------

    def build(self) -> Stage:
        """Make the repository with one commit, and its coordination."""
        self.make_repository()
        self.initialise()
        return self

    def make_repository(self) -> None:
        """A repository with one commit on ``main``."""
        for name in ("home", "tmp", "repository"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("init", "-q", "-b", "main", "--template=")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "first")

    def initialise(self) -> None:
        """What ``coord init`` does, and the settings."""
        initialise(self.home)
        target = {"git": {"target": "main"}}
        self.home.settings_file.write_text(settings_text({**target, **self.settings}))

    @property
    def home(self) -> Home:
        """The repository as the package sees it."""
        return locate(self.repository)

    def git(self, *arguments: str) -> str:
        """Run git in the user's checkout, with an identity and no settings of the machine; its output."""
        identity = {
            f"GIT_{who}_{what}": "user@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        known = {"HOME": self.environment["HOME"], "PATH": self.environment["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}
        # without optional locks, or looking at the status would rewrite the user's index
        argv = ["git", "--no-optional-locks", *arguments]
        done = subprocess.run(
            argv, cwd=self.repository, env=known | identity, check=True, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    # -- acting -------------------------------------------------------------------------------------------------------

    def coord(self, *arguments: str, code: int = 0) -> str:
        """Run a command as a person would; its output. An exit code other than ``code`` is an error."""
        argv = [sys.executable, "-P", "-m", "coordination", "-C", str(self.repository), *arguments]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode != code:
            raise AssertionError(f"{arguments} exited {done.returncode}, not {code}: {done.stdout}{done.stderr}")
        return done.stdout + (done.stderr if code else "")

    def drop(self, **fields: JSON) -> None:
        """Put a task file into the inbox as the contract says: written beside, then renamed."""
        self.drop_text(f"{fields['id']}.json", json.dumps(fields))

    def drop_text(self, name: str, text: str) -> None:
        """The same with any text."""
        inbox = self.state / "inbox"
        scratch = inbox / f".{name}.tmp"
        scratch.write_text(text)
        scratch.rename(inbox / name)

    def start(self, *options: str, cut: str | None = None) -> subprocess.Popen[bytes]:
        """Start a supervisor: ``coord start --foreground``, or one that ends itself at a cut ("": one that could)."""
        repository = str(self.repository)
        argv = ["coordination", "-C", repository, "start", "--foreground", *options]
        if cut is not None:
            argv = ["coordination.testing.stage", repository, cut]
        with (self.directory / "supervisor.txt").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", *argv],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
        self.processes.append(process)
        return process

    def run(self, *, code: int | None = 0, timeout_seconds: float = 90.0) -> None:
        """Run a supervisor until nothing is left to do. ``code`` is how it must exit; None: as it likes."""
        found = self.start("--once").wait(timeout=timeout_seconds)
        if code is not None and found != code:
            raise AssertionError(f"the supervisor exited {found}, not {code}:\n{self.said()}")

    def said(self) -> str:
        """What the supervisors printed last."""
        path = self.directory / "supervisor.txt"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    # -- seeing -------------------------------------------------------------------------------------------------------

    def events(self, kind: str = "", **wanted: JSON) -> list[dict[str, JSON]]:
        """Events from the raw lines of the log, in order; of one type and with these values."""
        found = [{**event, "seq": seq} for seq, event in raw_events(self.state / "log")]
        return [
            event
            for event in found
            if kind in ("", event["type"]) and all(event.get(key) == value for key, value in wanted.items())
        ]

    def wait_for(self, condition: Callable[[], T], what: str, timeout_seconds: float = 30.0) -> T:
        """Wait until the condition gives something true. Raises Late, with what happened instead."""
        deadline = time.monotonic() + timeout_seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                told = "\n".join(f"{event['seq']} {event['type']} {event.get('run', '')}" for event in self.events())
                raise Late(f"no {what} within {timeout_seconds:g} s\n{told}\n{self.said()}")
            time.sleep(_LOOK_SECONDS)
        return found

    def wait_for_event(self, kind: str, timeout_seconds: float = 30.0, **wanted: JSON) -> dict[str, JSON]:
        """Wait for an event of that type with these values; the first."""
        return self.wait_for(lambda: self.events(kind, **wanted), f"{kind} {wanted}", timeout_seconds)[0]

    def show(self, task: str) -> dict[str, JSON]:
        """One task, as ``coord show --json`` tells it."""
        return dict(json.loads(self.coord("show", task, "--json")))

    def worker(self, run: str) -> locks.Identity | None:
        """Which process holds the run's lock."""
        lock = self.state / "runs" / run / "worker.lock"
        return locks.holder(lock) if locks.held(lock) else None

    def kill_worker(self, run: str) -> bool:
        """``kill -9`` to exactly that run's worker; False when there is none."""
        who = self.worker(run)
        return who is not None and send(who, signal.SIGKILL)

    def commit(self, name: str, text: str) -> str:
        """Let the user write a file and commit it in the checkout; the commit."""
        (self.repository / name).write_text(text)
        self.git("add", name)
        self.git("commit", "-q", "-m", f"The user writes {name}")
        return self.git("rev-parse", "HEAD").strip()

    def processes_of_runs(self, run: str = "") -> list[int]:
        """Living processes of this repository's runs (or of one run), whoever their parent is."""
        begin = f"{MARKER}={self.uuid}/{run}"
        found = []
        for number, environment in environments():
            if any(entry == begin if run else entry.startswith(begin) for entry in environment.split("\0")):
                found.append(number)
        return found

    @property
    def uuid(self) -> str:
        """Which log this is, by its first line."""
        first = min((self.state / "log").glob("*.jsonl"))
        with first.open() as lines:
            return str(json.loads(next(lines))["log"])

    def digests(self) -> tuple[JSON, JSON]:
        """The (number, digest) of the state the last supervisor held, and of the log replayed up to there."""
        note = json.loads((self.state / "supervisor.json").read_text())
        coordinator = Coordinator(self.home)
        moment = coordinator.replay(upto_seq=note["seq"])
        return (note["seq"], note["digest"]), (moment.seq, coordinator.digest(moment.state))

    def users(self) -> dict[str, JSON]:
        """Everything in the repository that is the user's: two of these are equal when nothing was touched."""
        git = self.repository / ".git"
        shown = self.git("for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        ours = ("refs/heads/coordination/", "refs/coordination/")
        names = ["index", "config", "HEAD", "description", "packed-refs", *_below(git / "hooks", "hooks/")]
        return {
            "files": {name: _content(self.repository / name) for name in _below(self.repository)},
            "git": {name: _content(git / name) for name in names if os.path.lexists(git / name)},
            "modules": {name: _content(git / "modules" / name) for name in _below(git / "modules")},
            "refs": [line for line in shown if not line.startswith(ours)],
            "status": self.git("status", "--porcelain=v2", "--branch", "--untracked-files=all"),
            "stash": self.git("stash", "list"),
            "reflog": _content(git / "logs" / "HEAD"),
            "entries": sorted(entry.name for entry in git.iterdir() if entry.name != "worktrees"),
        }

    # -- clearing up --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the supervisors that still run, and their runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)
        for number in self.processes_of_runs():
            who = locks.identity(number)
            if who is not None and number in self.processes_of_runs():
                send(who, signal.SIGKILL)


# -- what stands on disk, read without the package --------------------------------------------------------------------


def raw_events(log: Path) -> Iterator[tuple[int, dict[str, JSON]]]:
    """Events with their batch numbers. What a later segment declares void, and a torn last line, is left out."""
    segments = [_lines(path) for path in sorted(log.glob("*.jsonl"))]
    for number, (_, *batches) in enumerate(segments):
        later = [header["previous"]["last_seq"] for header, *_ in segments[number + 1 :] if header.get("previous")]
        for batch in batches:
            if batch["seq"] <= min(later, default=batch["seq"]):
                yield from ((batch["seq"], event) for event in batch["events"])


def _lines(path: Path) -> list[dict[str, JSON]]:
    complete = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in complete]


def environments() -> Iterator[tuple[int, str]]:
    """Every living process we may look into, with its environment: NAME=VALUE, each ended by NUL."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                yield int(entry.name), (entry / "environ").read_bytes().decode("utf-8", "replace")
            except OSError:
                continue  # ended, or not ours to look into


def _below(directory: Path, prefix: str = "") -> list[str]:
    found: list[str] = []
    for where, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if Path(where) != directory or name not in _OWN]
        found += [str(Path(where, name).relative_to(directory)) for name in (*names, *directories)]
    return sorted(prefix + name for name in found if name not in _OWN)


def _content(path: Path) -> tuple[int, str | bytes]:
    status = path.lstat()
    if path.is_symlink():
        return status.st_mode, str(path.readlink())
    return status.st_mode, path.read_bytes() if path.is_file() else ""


def settings_text(tables: Mapping[str, JSON]) -> str:
    """Tables of values as TOML; names with a dot are tables inside tables."""
    loose = {name: value for name, value in tables.items() if not isinstance(value, Mapping)}
    parts = [f"{name} = {json.dumps(value)}" for name, value in loose.items()]
    for name, table in tables.items():
        if isinstance(table, Mapping):
            parts += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(parts) + "\n"


# -- supervisors that can be cut --------------------------------------------------------------------------------------


class Cuts:
    """The ``mark`` of a supervisor: writes the cuts down as they pass, and ends the process at one of them."""

    def __init__(self, coordinator: Coordinator, file: Path, cut: str) -> None:
        self._coordinator, self._cut = coordinator, cut
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self._seen: set[str] = set()
        self._position = (-1, "")

    def __call__(self, name: str) -> None:
        """A step with an effect is about to begin, or has ended."""
        cut = f"{name}@{self._where()}"
        if cut in self._seen:
            return
        self._seen.add(cut)
        os.write(self._file, f"{cut}\n".encode())
        if cut == self._cut:
            os.kill(os.getpid(), signal.SIGKILL)

    def _where(self) -> str:
        """What the log says last of a task."""
        seq = self._coordinator.store.seq
        if self._position[0] != seq:
            told = [event for _, event in raw_events(self._coordinator.home.log) if "task" in event]
            last = told[-1] if told else {"type": "nothing"}
            self._position = (seq, f"{last['type']}:{last.get('run') or last.get('task', '')}")
        return self._position[1]


def supervise(repository: Path, environment: Mapping[str, str], cut: str) -> None:
    """Be a supervisor that ends when nothing is left to do, or at the cut. Takes over this process's environment."""
    os.environ.clear()
    os.environ.update(environment)
    coordinator = Coordinator(locate(repository))
    Supervisor(coordinator, once=True, mark=Cuts(coordinator, repository.parent / "cuts.txt", cut)).run()


def supervise_forked(stage: Stage, cut: str, timeout_seconds: float = 60.0) -> int:
    """The same in a process forked from a warm one, which is much faster; how it exited (-9: at the cut)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["coordination.testing.stage"])
    process = context.Process(target=supervise, args=(stage.repository, stage.environment, cut))
    process.start()
    process.join(timeout_seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise Late(f"the supervisor of {stage.repository} did not end within {timeout_seconds:g} s")
    return process.exitcode


def passed(stage: Stage) -> Sequence[str]:
    """The cuts that supervisors have passed so far, in order."""
    return (stage.directory / "cuts.txt").read_text().splitlines()


def with_claude(stage: Stage) -> Stage:
    """The stage, with the Claude Code program that this environment would drive."""
    stage.environment["COORDINATION_CLAUDE"] = find_binary(
        os.environ.get("COORDINATION_CLAUDE", ""), os.environ.get("PATH", "")
    )
    return stage


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), dict(os.environ), sys.argv[2] if len(sys.argv) > 2 else "")
