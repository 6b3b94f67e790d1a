"""What a person sees on a real terminal: one screen, and nothing of others that would steer it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from coordination.cli import run
from coordination.coordinator import Coordinator, locate
from coordination.model import events as e
from coordination.model.runs import Purpose
from coordination.model.tasks import TaskSpec

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\x00\r\x08 \u2066end"
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
SETTINGS = '[git]\ntarget = "main"\n[agents]\nbackend = "scripted"\n[limits]\nattempts_max = 1\n'


def on_terminal(root: Path, *arguments: str, columns: int = 80, lines: int = 24) -> list[str]:
    """The lines that ``coord`` prints on a terminal of that size."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-P", "-m", "coordination", "-C", str(root), *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        told = b""
        while True:
            try:
                block = os.read(ours, 65_536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not block:
                break
            told += block
        assert process.wait(30) == 0, told.decode(errors="replace")
    os.close(ours)
    return told.decode().replace("\r\n", "\n").splitlines()


@pytest.fixture
def busy(repository: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Sixty tasks: some run, some need a person, most wait, and a few were cancelled; with long, hostile texts."""
    assert run(["-C", str(repository), "init"]) == 0
    (repository / ".coordination" / "coordination.toml").write_text(SETTINGS)
    coordinator = Coordinator(locate(repository))
    names = [f"task-{number}" for number in range(60)]
    spec = TaskSpec(prompt=f"Do it {EVIL}", title=f"Make it {EVIL} {'long ' * 20}")  # as no task file could bring it
    coordinator.transact(lambda _: [e.TaskSubmitted(task=name, spec=spec, digest=name) for name in names])

    def planned(name: str) -> list[e.AnyEvent]:
        id_ = f"{name}.1.{Purpose.WORK}"
        planned = e.RunPlanned(task=name, run=id_, purpose=Purpose.WORK, role="green", model="sonnet", reason="first")
        return [planned, e.RunStarted(task=name, run=id_, pid=1)]

    coordinator.transact(lambda _: [event for name in names[:4] for event in planned(name)])
    coordinator.transact(
        lambda _: [e.TaskEscalated(task=name, reason=f"a question {EVIL} {'x' * 90}") for name in names[4:16]]
    )
    coordinator.transact(lambda _: [e.TaskCancelled(task=name) for name in names[16:20]])
    capsys.readouterr()
    return repository


def test_status_is_one_screen(busy: Path) -> None:
    """On 80 columns and 24 lines: is it working, what needs me, what runs, what waits, what did it cost."""
    lines = on_terminal(busy, "status")
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert not STEERING.search(text)
    for said in ("Supervisor: none", "Spent: 0.0000 USD", "Needs a person (12)", "Running (4)", "Waiting (40)"):
        assert said in text
    assert re.search(r"… and \d+ more: coord tasks --state waiting_for_person", text)
    assert re.search(r"… and \d+ more: coord tasks$", text, re.MULTILINE)
    assert "4 running" in text
    assert "12 waiting_for_person" in text


def test_a_larger_screen_shows_more(busy: Path) -> None:
    """With room for all, all of it stands there, also what can be typed about each question."""
    lines = on_terminal(busy, "status", columns=100, lines=120)
    assert sum("coord retry task-" in line for line in lines) == 12
    assert not any("more:" in line for line in lines)
    assert len(on_terminal(busy, "status", lines=5)) > 5  # of everything something, even so


def test_status_as_json_has_all_of_it(busy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a program reads is not cut to a screen."""
    assert run(["-C", str(busy), "status", "--json"]) == 0
    row: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [len(row[key]) for key in ("running", "needs_person", "waiting")] == [4, 12, 40]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["status"], ["tasks"], ["show", "task-1"], ["show", "task-1.1.work"], ["show", "task-5"], ["log"], ["roles"]),
        *(["replay"], ["replay", "--verify"], ["repair"], ["submit", "--estimate", f"x {EVIL}"], ["cancel", "task-30"]),
        *(["pause", "task-31", "--reason", EVIL], ["reject", "task-4", "--reason", EVIL], ["retry", "task-5"]),
        *(["show", EVIL], ["submit", "--kind", EVIL, "x"], ["report", "--since", EVIL], ["tasks", "--state", EVIL]),
    ],
    ids=lambda arguments: " ".join(arguments).encode("ascii", "backslashreplace").decode()[:40],
)
def test_nothing_of_others_steers_a_terminal(
    busy: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is printed for people, on success and on failure."""
    assert run(["-C", str(busy), *arguments]) in (0, 1, 2, 3, 4)
    told = capsys.readouterr()
    assert told.out + told.err
    assert not STEERING.search(told.out + told.err)


def test_no_text_of_others_makes_a_line_of_its_own(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A title or a reason with line ends cannot pass for something that we say, where we say one thing a line."""
    assert run(["-C", str(repository), "init"]) == 0
    (repository / ".coordination" / "coordination.toml").write_text(SETTINGS)
    forged = "first\nT2 merged as 0123456789ab"
    prompt = f"```script\n{json.dumps({'ending': 'failed', 'reason': forged})}\n```"
    Coordinator(locate(repository)).submit({"id": "T1", "prompt": prompt, "title": "first T2 merged as 0123456789ab"})
    capsys.readouterr()
    argv = [sys.executable, "-P", "-m", "coordination", "-C", str(repository), "start", "--foreground", "--once"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "T1.1.work failed: first" in told
    assert not any(line.startswith("T2 ") for line in told.splitlines())
