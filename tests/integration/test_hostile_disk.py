"""A full disk is waited out: nothing is lost or done twice, and the work goes on by itself when there is room."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.testing.account import replayed, violations
from coordination.testing.stage import FILES, PASSES, Stage, settings_text

JSON = Any

pytestmark = pytest.mark.timeout(90)

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
SETTINGS: dict[str, JSON] = {
    "gates": {"default": ["unit"], "unit": list(PASSES)},
    "agents": {"backend": "scripted"},
    "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.3},
    "retry": {"backoff_seconds": 0.05},
}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Stage]:
    """A stage whose state directory is a small disk of its own."""
    stage = Stage(tmp_path / "stage", settings=SETTINGS)
    stage.make_repository()
    stage.state.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs", stage.state], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode(errors='replace').strip()}")
    try:
        stage.initialise()
        yield stage
        stage.close()
    finally:
        subprocess.run(["umount", "-l", stage.state], check=True)


def fill(stage: Stage) -> Path:
    """Take up all the room there is."""
    ballast = stage.state / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    os.write(descriptor, bytes(size))
            except OSError:
                continue
    finally:
        os.close(descriptor)
    return ballast


def drop(stage: Stage, seconds: float) -> None:
    """One task whose agent takes so long."""
    work = {"write": {"greeter.py": WARMER}, "report": "warmer", "sleep_seconds": seconds}
    body = json.dumps({"by_purpose": {"work": work}})
    stage.drop(id="T", review="never", prompt=f"Do it.\n```script\n{body}\n```")


@pytest.mark.parametrize("when", ["TaskSubmitted", "RunPlanned", "RunStarted", "TaskApproved"])
def test_a_full_disk_only_delays(small: Stage, when: str) -> None:
    """Full from some moment on, with an agent at work or not: when there is room the task lands, once."""
    stage = small
    drop(stage, 1.0)
    supervisor = stage.start("--once")
    stage.wait_for_event(when)
    ballast = fill(stage)
    # whoever has something to write waits: the supervisor, which says so, or a worker
    stage.wait_for(lambda: "the disk is full" in stage.said() or stage.processes_of_runs(), "complaint or worker")
    assert supervisor.poll() is None, stage.said()
    ballast.unlink()
    assert supervisor.wait(60) == 0, stage.said()
    assert violations(stage, "T", {"greeter.py": WARMER}) == []


def test_an_outcome_that_finds_no_room_is_written_when_there_is(small: Stage, tmp_path: Path) -> None:
    """A gate passes while the disk is full: its word is not lost, and it is not run again."""
    stage = small
    ran = tmp_path / "ran"
    slow = f"import time; open({str(ran)!r}, 'a').write('x'); time.sleep(1); open({str(ran)!r}, 'a').write('y')"
    settings = {
        **SETTINGS,
        "git": {"target": "main"},
        "gates": {"default": ["unit"], "unit": [sys.executable, "-c", slow], "cache": False},
        "agents": {**SETTINGS["agents"], "sandbox": "off"},  # it writes to a file of ours
    }
    stage.home.settings_file.write_text(settings_text(settings))
    drop(stage, 0.0)
    supervisor = stage.start("--once")
    stage.wait_for(ran.exists, "gate")
    ballast = fill(stage)
    stage.wait_for(lambda: ran.read_text() == "xy" and len(stage.processes_of_runs()) == 1, "end of the gate")
    ballast.unlink()
    assert supervisor.wait(60) == 0, stage.said()
    (gate,) = stage.events("RunPlanned", purpose="gate")
    assert [event["outcome"]["ending"] for event in stage.events("RunEnded", run=gate["run"])] == ["succeeded"]
    assert ran.read_text() == "xyxy", "once for the gate, once on landing"


def test_a_stop_is_obeyed_while_the_disk_is_full(small: Stage) -> None:
    """SIGTERM ends the supervisor also then; the next one, with room, goes on."""
    stage = small
    drop(stage, 30.0)
    supervisor = stage.start()
    stage.wait_for_event("RunStarted", run="T.1.work")
    ballast = fill(stage)
    supervisor.terminate()
    assert supervisor.wait(30) is not None
    ballast.unlink()
    stage.coord("cancel", "T")
    stage.run(code=1)
    assert stage.processes_of_runs() == []
    assert list(replayed(stage)) == []
