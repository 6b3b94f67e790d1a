"""How does it look when it works? The whole main job in a throw-away repository, with a scripted model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from coordination.cli._terminal import tell

EXAMPLES = """
\b
Examples:
  coord demo
  coord demo --keep      leave the repository behind, to look round in it
"""


@click.command(epilog=EXAMPLES)
@click.option("--keep", is_flag=True, help="Leave the repository behind and say where it is.")
@click.option("--timeout", "timeout_seconds", default=170.0, show_default=True, help="Give up after so many seconds.")
def command(*, keep: bool, timeout_seconds: float) -> None:
    """Play the whole main job in a throw-away repository: real Claude Code, scripted model, no key, no cost."""
    from coordination.agents.claude import find_binary

    binary = find_binary(os.environ.get("COORDINATION_CLAUDE", ""), os.environ.get("PATH", ""))
    click.echo("This is a rehearsal: the Claude Code program is real, the model behind it is scripted.")
    click.echo(f"No key, no network, no cost. The program: {binary}")
    with _directory(keep=keep) as directory:
        ended_well = _Demo(directory, binary).play(time.monotonic() + timeout_seconds)
    sys.exit(0 if ended_well else 1)


@contextmanager
def _directory(*, keep: bool) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="coord-demo-"))
    try:
        yield directory
    finally:
        if keep:
            click.echo(
                f"\nThe repository is in {directory / 'greeter'}; `coord -C {directory / 'greeter'} status` reads it."
            )
        else:
            shutil.rmtree(directory, ignore_errors=True)


class _Demo:
    """One performance: repository, supervisor, kill, curtain."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.repository = directory / "greeter"
        self.home = directory / "home"
        self.binary = binary
        self.began = time.monotonic()

    def play(self, deadline: float) -> bool:
        from coordination.rehearsal import demo
        from coordination.rehearsal.model_server import ModelServer

        self._make_repository(demo.FILES)
        self._coord("init")
        self._configure(demo.SETTINGS)
        with ModelServer(demo.SCRIPTS) as model:
            self._drop(demo.TASKS)
            supervisor = self._start(model.url)
            try:
                self._follow(supervisor, demo.KILLED, deadline)
                ended_well = supervisor.wait(timeout=30) == 0
            finally:
                if supervisor.poll() is None:
                    supervisor.send_signal(signal.SIGTERM)
                    supervisor.wait(timeout=60)
            self._curtain(len(model.requests), ended_well=ended_well)
        return ended_well

    # -- the stage ---------------------------------------------------------------------------------------------------

    def _make_repository(self, tree: dict[str, str]) -> None:
        self.home.mkdir(parents=True)
        for name, text in tree.items():
            path = self.repository / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("init", "--quiet", "--initial-branch=main")
        self._git("add", "--all")
        self._git("-c", "user.name=You", "-c", "user.email=you@localhost", "commit", "--quiet", "-m", "A small greeter")
        self._say(f"a small repository in {self.repository}, with one test")

    def _configure(self, text: str) -> None:
        unit = json.dumps([sys.executable, "-B", "-m", "unittest", "discover", "-q"])
        file = self.repository / ".coordination" / "coordination.toml"
        file.write_text('[git]\ntarget = "main"\n' + text.format(unit=unit))

    def _drop(self, tasks: tuple[dict[str, object], ...]) -> None:
        inbox = self.repository / ".coordination" / "inbox"
        for number, task in enumerate(tasks):
            scratch = inbox / f".{number}.tmp"
            scratch.write_text(json.dumps(task, indent=2))
            scratch.rename(inbox / f"{number}-{task['id']}.json")
        self._say(f"{len(tasks)} task files dropped into the inbox: {', '.join(str(task['id']) for task in tasks)}")

    def _start(self, url: str) -> subprocess.Popen[bytes]:
        log = (self.repository / ".coordination" / "supervisor.log").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "coordination", "-C", str(self.repository), "start", "--foreground", "--once"],
                env=self._environment() | {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "rehearsal-no-key"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _environment(self) -> dict[str, str]:
        """Nothing of the user's own reaches the performance."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "COORDINATION_CLAUDE": self.binary,
            "LANG": "C.UTF-8",
        }

    # -- the play ----------------------------------------------------------------------------------------------------

    def _follow(self, supervisor: subprocess.Popen[bytes], victim: str, deadline: float) -> None:
        from coordination import views
        from coordination.coordinator import Coordinator, locate
        from coordination.model.events import described

        coordinator = Coordinator(locate(self.repository))
        told, killed = 0, False
        while time.monotonic() < deadline:
            ended = supervisor.poll() is not None
            for record in coordinator.store.follow(told, patience_seconds=0.1):
                told = record.seq
                row = described(record)
                if row["type"] not in ("RunStarted", "SupervisorStarted", "SupervisorStopped"):
                    self._say(views.narrated(row["type"], row))
            if not killed:
                killed = self._kill(f"{victim}.1.work")
            if ended:
                return
        self._say("the time is over")

    def _kill(self, run: str) -> bool:
        """Kill the worker once its agent works; the supervisor must notice and recover."""
        from coordination import files, locks
        from coordination.supervisor.children import send

        directory = self.repository / ".coordination" / "runs" / run
        progress = files.read_json_if_there(directory / "progress.json")
        if progress is None or progress.get("phase") != "agent" or not (directory / "transcript.jsonl").exists():
            return False
        who = locks.holder(directory / "worker.lock")
        if who is None or not send(who, signal.SIGKILL):
            return False
        self._say(f">>> the demo kills the worker of {run} (pid {who.pid}) with kill -9")
        return True

    def _curtain(self, requests: int, *, ended_well: bool) -> None:
        from coordination.coordinator import Coordinator, locate

        coordinator = Coordinator(locate(self.repository))
        state = coordinator.state()
        click.echo("\nThe integration branch:\n")
        click.echo(self._git("log", "--graph", "--format=%h %s", "coordination/integration"))
        runs = [run for task in state.tasks.values() for run in task.runs]
        states: dict[str, int] = {}
        for task in state.tasks.values():
            states[str(task.status)] = states.get(str(task.status), 0) + 1
        replayed = coordinator.replay()
        equal = coordinator.digest(replayed.state) == coordinator.digest(state)
        click.echo(f"tasks:     {len(state.tasks)} ({', '.join(f'{n} {name}' for name, n in sorted(states.items()))})")
        click.echo(
            f"runs:      {len(runs)}, of which {sum(bool(run.model) for run in runs)} were Claude Code processes"
        )
        same = "equals" if equal else "DIFFERS FROM"
        click.echo(f"log:       {replayed.seq} batches; state replayed from it {same} the live state")
        click.echo(f"spend:     {state.money.spent_usd:.4f} USD in play money, at list prices")
        click.echo(f"time:      {time.monotonic() - self.began:.0f} s")
        click.echo(
            f"\nThe model was scripted: {requests} answers came from a program on this machine, none from a real "
            "model. Everything else was real: Claude Code, git, processes, the kill, the log."
        )
        if not ended_well:
            log = (self.repository / ".coordination" / "supervisor.log").read_text(errors="replace")
            click.echo(f"\nNot everything ended well. The supervisor said last:\n{log[-3000:]}", err=True)

    # -- small things ------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        tell(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.repository,
            env={"HOME": str(self.home), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    def _coord(self, *arguments: str) -> None:
        argv = [sys.executable, "-m", "coordination", "-C", str(self.repository), *arguments]
        subprocess.run(argv, env=self._environment(), check=True, stdout=subprocess.DEVNULL)
