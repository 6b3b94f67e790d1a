"""Does ``coord doctor`` find what is planted, and does ``--fix`` keep its hands off everybody else's?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordination import doctor
from coordination.cli import run
from coordination.coordinator import Coordinator, locate
from coordination.environment import MARKER

Look = Callable[..., dict[str, dict[str, Any]]]
REFUSAL = '{"type":"control_response","response":{"request_id":"initialize","subtype":"error","error":"no"}}'
SLEEPS = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def prepared(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a coordination, a gate, and a key."""
    assert run(["-C", str(repository), "init"]) == 0
    settings = repository / ".coordination" / "coordination.toml"
    settings.write_text(settings.read_text().replace("#default = []", 'default = ["unit"]\nunit = "true"'))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "made-up")
    return repository


@pytest.fixture
def look(prepared: Path, capsys: pytest.CaptureFixture[str]) -> Look:
    """Every check by name, of a doctor that must exit with ``code``."""

    def looked(*options: str, code: int = 0) -> dict[str, dict[str, Any]]:
        capsys.readouterr()
        found = run(["-C", str(prepared), "doctor", "--json", *options])
        said = capsys.readouterr()
        checks = {check["name"]: check for check in map(json.loads, said.out.splitlines())}
        assert found == code, f"{said.out}{said.err}"
        return checks

    return looked


@pytest.fixture
def sleeper() -> Iterator[Callable[[str], psutil.Popen]]:
    """Start a process that carries a marker; all of them end with the test."""
    started: list[psutil.Popen] = []

    def start(marker: str) -> psutil.Popen:
        started.append(psutil.Popen(SLEEPS, env={MARKER: marker}))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def program(directory: Path, text: str) -> str:
    path = directory / "claude"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.e2e
def test_the_real_program_is_tried_and_asked_nothing(look: Look) -> None:
    """With the real Claude Code everything that matters is fine, and nothing was left behind."""
    checks = look()
    assert checks["claude's abilities"]["state"] == "ok"
    assert all(check["state"] in ("ok", "weaker") for check in checks.values())
    assert "Claude Code" in checks["claude"]["found"]
    assert checks["log"]["found"] == "0 batches, whole"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "echo 1.0; [ $# = 1 ] || { echo unknown option --x >&2; exit 1; }",
            "does not start with our arguments: unkno",
        ),
        ("echo 1.0; [ $# = 1 ] || exit 0", "it does not start with our arguments: it says nothing"),
        (
            f"[ $# = 1 ] && echo 1.0 && exit; read line; echo '{REFUSAL}'",
            "it refuses our hooks: no",
        ),
    ],
    ids=["does not know a flag", "ends at once", "refuses the hooks"],
)
def test_a_program_that_cannot_be_driven_is_told(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: str
) -> None:
    """Not by its version: it was tried."""
    monkeypatch.setenv("COORDINATION_CLAUDE", program(tmp_path, text))
    check = look(code=1)["claude's abilities"]
    assert (check["state"], bool(check["advice"])) == ("fails", True)
    assert found in check["found"]


def test_a_program_that_is_not_there_is_told(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the path that was asked for; the other checks go on."""
    monkeypatch.setenv("COORDINATION_CLAUDE", "/nowhere/claude")
    checks = look(code=1)
    assert "/nowhere/claude" in checks["claude"]["found"]
    assert checks["processes"]["state"] == "ok"


def test_without_a_login_it_says_how_to_get_one(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, with the command."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    check = look(code=1)["login"]
    assert check["state"] == "fails"
    assert "claude setup-token" in check["advice"]


def test_a_damaged_log_is_found(look: Look, prepared: Path) -> None:
    """And the command that says what is lost."""
    assert run(["-C", str(prepared), "submit", "--id", "T1", "do it"]) == 0
    segment = max((prepared / ".coordination" / "log").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes().replace(b'"do it"', b'"do at"'))
    check = look(code=1)["log"]
    assert "coord repair" in check["advice"]


def test_what_an_ended_run_left_is_killed_and_nobody_else(
    look: Look, prepared: Path, sleeper: Callable[[str], psutil.Popen]
) -> None:
    """Ours by the marker; a process with the marker of another repository, or none, is nobody's to kill here."""
    ours = sleeper(Coordinator(locate(prepared)).run_marker("T.1.work"))
    others = [sleeper("another-log/T.1.work"), sleeper("")]
    check = look(code=1)["processes"]
    assert "T.1.work" in check["found"]
    assert look("--fix")["processes"]["state"] == "ok"
    assert ours.wait(timeout=10) == -signal.SIGKILL
    assert [process.poll() for process in others] == [None, None]


def test_an_agent_may_not_fix(prepared: Path) -> None:
    """Inside a run it is refused, like everything that is a person's."""
    environment = os.environ | {MARKER: "some-log/T.1.work"}
    command = [sys.executable, "-m", "coordination", "-C", str(prepared), "doctor", "--fix"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "only a person" in done.stderr


def test_before_init_it_says_what_to_do(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine can be looked at before anything is made, and nothing is."""
    assert run(["-C", str(repository), "doctor"]) == 1
    said = capsys.readouterr().out
    assert "run `coord init`" in said
    assert not (repository / ".coordination").exists()


def test_a_machine_on_which_gates_have_no_sandbox_is_told(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tried, not guessed from what is installed."""
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("COORDINATION_CLAUDE", program(tmp_path, "exit 1"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    check = look(code=1)["sandbox of gates"]
    assert (check["state"], check["advice"]) == (
        "weaker",
        "install bubblewrap, and allow unprivileged user namespaces",
    )


@pytest.mark.parametrize(("number", "state"), [(0, "weaker"), (1000, "ok")])
def test_who_runs_it_as_root_is_told(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    """The agents' sandbox is Claude Code's own, and leaves root the settings of the kernel."""
    monkeypatch.setenv("COORDINATION_CLAUDE", program(tmp_path, "exit 1"))
    monkeypatch.setattr(doctor, "_number_of_user", lambda: number)
    assert look(code=1)["user"]["state"] == state
