"""The live view in a real terminal: tmux, whose screen is read back, with real processes behind it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordination.coordinator import Coordinator
from coordination.testing.stage import Stage

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")

SETTINGS = {
    "agents": {"backend": "scripted"},
    "gates": {"default": ["there"], "there": ["test", "-e", "README.md"]},
    "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 1.0},
    "limits": {"attempts_max": 1},
}
COORD = [sys.executable, "-P", "-m", "coordination"]
BROKEN = """
import sys
from coordination import cli
from coordination.monitor import frames
frame, drawn = frames.frame, []
def broken(*given):
    drawn.append(1)
    return frame(*given) if len(drawn) < 6 else 1 / 0
frames.frame = broken
sys.exit(cli.run(sys.argv[1:]))
"""


def script(**actions: object) -> str:
    return f"Do as told\n```script\n{json.dumps(actions)}\n```\n"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A repository without a supervisor and without tasks."""
    made = Stage(tmp_path, settings=SETTINGS).build()
    yield made
    made.close()


class Tmux:
    """One terminal of a tmux of its own."""

    def __init__(self, directory: Path, size: tuple[int, int], command: list[str], **variables: str) -> None:
        self._socket = str(directory / "tmux")
        self._ended = directory / "exit code"
        words = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), *command])
        width, height = map(str, size)
        shell = f"{words}; echo $? > {shlex.quote(str(self._ended))}; exec sleep 100"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, shell)

    def _tmux(self, *arguments: str) -> str:
        # what says how large our own terminal is says nothing about this one
        environment = {name: value for name, value in os.environ.items() if name not in ("TMUX", "COLUMNS", "LINES")}
        done = subprocess.run(
            ["tmux", "-S", self._socket, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        """Key names as tmux has them."""
        self._tmux("send-keys", *keys)

    def shown(self, *, styled: bool = False) -> str:
        """What stands on the screen; with ``styled`` the escape sequences that make it so."""
        return self._tmux("capture-pane", "-p", *(["-e"] if styled else []))

    def until(self, wanted: str | Callable[[str], bool]) -> str:
        """The screen once that is on it."""
        found = (lambda shown: wanted in shown) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + 30
        while not found(shown := self.shown()):
            assert time.monotonic() < deadline, f"no {wanted} came:\n{shown}"
            time.sleep(0.05)
        return shown

    def exit_code(self) -> int:
        """How the command ended, once it has."""
        deadline = time.monotonic() + 30
        while not (self._ended.exists() and self._ended.read_text().strip()):
            assert time.monotonic() < deadline, f"it did not end:\n{self.shown()}"
            time.sleep(0.05)
        return int(self._ended.read_text())

    def close(self) -> None:
        """End the terminal: what runs in it gets a SIGHUP."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True, timeout=20, check=False)


Opened = Callable[..., Tmux]


@pytest.fixture
def terminal(stage: Stage, tmp_path: Path) -> Iterator[Opened]:
    """Opens a terminal with the monitor of the stage in it."""
    opened: list[Tmux] = []

    def open_terminal(
        *options: str, size: tuple[int, int] = (80, 24), command: list[str] | None = None, **variables: str
    ) -> Tmux:
        words = [*(command or COORD), "-C", str(stage.repository), "monitor", *options]
        opened.append(Tmux(tmp_path, size, words, **variables))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


@pytest.mark.parametrize("size", [(80, 24), (160, 50)])
def test_a_night_is_watched_and_decided(stage: Stage, terminal: Opened, size: tuple[int, int]) -> None:
    """A real supervisor works, a run is watched, cancelled at a key, the supervisor is killed, and the view goes on."""
    stage.drop(id="long", prompt=script(write={"a.txt": "a\n"}, sleep_seconds=600), title="Takes [red]long")
    stage.drop(id="next", prompt=script(), title="Comes after", after=["long"])
    supervisor = stage.start()
    stage.wait_for_event("RunStarted", run="long.1.work")
    screen = terminal(size=size)
    shown = screen.until("long.1.work")
    assert f"Supervisor: pid {supervisor.pid}" in shown
    screen.until(lambda shown: "> green" in shown and "waits for long (running)" in shown)
    # a busy tmux gives the window its size after the program has begun
    screen.until(lambda shown: len(shown.rstrip("\n").split("\n")) == size[1])
    screen.press("c")
    screen.until("Cancel long (Takes [red]long)?")
    screen.press("y")
    stage.wait_for_event("TaskCancelled", task="long")
    stage.wait_for_event("DependencyFailed", task="next")
    screen.until("1 cancelled, 1 dependency_failed")
    supervisor.kill()
    screen.until("NO SUPERVISOR: nothing moves; `coord start` starts one")
    screen.press("2", "f", "f", "f", "f", "f")
    screen.until("Tasks, ended badly (2)")
    screen.press("q")
    assert screen.exit_code() == 0
    assert "Tasks, ended badly" not in screen.shown()


def test_agents_alone_and_back(stage: Stage, terminal: Opened) -> None:
    """`--agents` begins there."""
    screen = terminal("--agents")
    screen.until("Agents (0); slots blue 0 of")
    screen.press("1")
    screen.until("repository  overview")


def test_the_wheel_moves_the_choice(stage: Stage, terminal: Opened) -> None:
    """Several rows a turn, down and up again."""
    coordinator = Coordinator(stage.home)
    for number in range(1, 31):
        coordinator.submit({"prompt": f"Number {number}"})
    screen = terminal()
    screen.until("> t1 ")
    screen.press("-l", "\x1b[<65;5;10M" * 2)
    screen.until("> t9 ")
    screen.press("-l", "\x1b[<64;5;10M")
    screen.until("> t5 ")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "vt100"}])
def test_no_colour_means_none(stage: Stage, terminal: Opened, variables: dict[str, str]) -> None:
    """Neither a colour nor a grey comes out; bold and reverse do."""
    screen = terminal(**variables)
    screen.until("NO SUPERVISOR")
    styled = screen.shown(styled=True)
    numbers = {number for part in styled.split("\x1b[")[1:] for number in part.partition("m")[0].split(";")}
    assert numbers <= {"0", "1", "2", "4", "7", "39", "49", ""}
    assert "7" in numbers


def test_a_terminal_that_cannot_be_steered_gets_one_frame(stage: Stage, terminal: Opened) -> None:
    """TERM=dumb: plain lines, and an end."""
    screen = terminal(TERM="dumb")
    assert screen.exit_code() == 0
    screen.until("This terminal says that it cannot be steered")
    screen.until("NO SUPERVISOR")


def test_a_damaged_log_is_told_and_exits_5(stage: Stage, terminal: Opened) -> None:
    """With what to run, on the screen and in the exit code."""
    for number in range(5):
        stage.coord("submit", f"prompt {number}")
    segment = min((stage.state / "log").glob("*.jsonl"))
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    screen = terminal()
    screen.until("THE LOG IS DAMAGED: run `coord repair`")
    screen.press("Down", "Enter", "2", "q")
    assert screen.exit_code() == 5
    assert "THE LOG IS DAMAGED" in stage.coord("monitor", "--once", code=5)


def test_what_nobody_expected_leaves_the_terminal_whole(stage: Stage, terminal: Opened) -> None:
    """A defect of ours is one sentence and exit code 1, not a traceback with the texts of others in it."""
    screen = terminal(command=[sys.executable, "-P", "-c", BROKEN])
    assert screen.exit_code() == 1
    shown = screen.until("ZeroDivisionError")
    assert "This was not expected" in shown
    assert "Traceback" not in shown


def test_it_can_be_put_aside_and_brought_back(stage: Stage, tmp_path: Path) -> None:
    """Ctrl-Z, fg, and Ctrl-L after another program wrote over it: the whole frame is there again."""
    screen = Tmux(tmp_path, (80, 24), ["bash", "--norc", "-i"])
    try:
        screen.press(shlex.join([*COORD, "-C", str(stage.repository), "monitor"]), "Enter")
        screen.until("NO SUPERVISOR")
        screen.press("C-z")
        screen.until("Stopped")
        screen.press("fg", "Enter")
        screen.until(lambda shown: "NO SUPERVISOR" in shown and "? help" in shown)
        screen.press("-R")
        screen.until(lambda shown: "NO SUPERVISOR" not in shown)
        screen.press("C-l")
        screen.until(lambda shown: "NO SUPERVISOR" in shown and "? help" in shown)
    finally:
        screen.close()


def test_a_stopped_view_is_in_nobodys_way(stage: Stage, terminal: Opened) -> None:
    """It holds no lock, whenever it is stopped: others write, and what they wrote is shown when it goes on."""
    screen = terminal()
    screen.until("NO SUPERVISOR")
    (ours,) = [process for process in Path("/proc").glob("[0-9]*") if _is_monitor(process, stage)]
    os.kill(int(ours.name), signal.SIGSTOP)
    try:
        stage.coord("submit", "--title", "Written meanwhile", "prompt")
        assert "Written meanwhile" not in screen.shown()
    finally:
        os.kill(int(ours.name), signal.SIGCONT)
    screen.until("Written meanwhile")


def test_who_loses_the_terminal_ends(stage: Stage, terminal: Opened, tmp_path: Path) -> None:
    """As when an SSH session breaks: nothing of it stays, and nothing spins."""
    screen = terminal()
    screen.until("NO SUPERVISOR")
    ours = [process for process in Path("/proc").glob("[0-9]*") if _is_monitor(process, stage)]
    assert ours
    screen.close()
    deadline = time.monotonic() + 20
    while any(_is_monitor(process, stage) for process in ours):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)


def _is_monitor(process: Path, stage: Stage) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[1:2] == [b"-P"] and b"monitor" in words and str(stage.repository).encode() in words


def test_once_is_plain_text_of_the_width_that_is_asked_for(stage: Stage) -> None:
    """Not on a terminal: no escape sequence, and nothing is changed."""
    stage.coord("submit", "x" * 300, "--title", "A long title " * 10)
    before = Coordinator(stage.home).store.refresh_seq()
    for width in ("60", "160"):
        stage.environment["COLUMNS"] = width
        shown = stage.coord("monitor", "--once")
        assert "NO SUPERVISOR" in shown
        assert "\x1b" not in shown
        assert 0 < max(map(len, shown.splitlines())) <= int(width)
        assert stage.coord("monitor").split("\n")[1:] == shown.split("\n")[1:]
        assert "Agents (0); slots" in stage.coord("monitor", "--agents")
    assert Coordinator(stage.home).store.refresh_seq() == before
