"""A worker killed in the middle of judging or landing: only that run is made again, and the commit lands once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from coordination.testing.account import violations
from coordination.testing.stage import FILES, Stage

WARMER = FILES["greeter.py"].replace("Hello", "Good day")

# Hangs, once, in the run it is told of; writes down when it does.
GATE = """
import os, pathlib, time
told = pathlib.Path({told!r})
if os.environ["COORDINATION_RUN"].endswith("/{run}") and not told.exists():
    told.write_text("hangs")
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("victim", "again"),
    [("T.2.gate", "T.3.gate"), ("T.4.landing", "T.5.landing")],
)
def test_a_worker_killed_while_a_gate_runs_is_replaced(
    request: pytest.FixtureRequest, tmp_path: Path, victim: str, again: str
) -> None:
    """The gate dies with its worker; another run of the same purpose follows, and no attempt is used up."""
    told = tmp_path / "told"
    stage = stage_with_gate(tmp_path, GATE.format(told=str(told), run=victim))
    request.addfinalizer(stage.close)  # so that a hanging gate ends with the test, however that ends
    supervisor = stage.start("--once")
    stage.wait_for(told.exists, "gate that hangs")
    gates = stage.processes_of_runs(victim)
    assert len(gates) == 2
    assert stage.kill_worker(victim)
    stage.wait_for_event("RunEnded", run=victim)
    assert not set(gates) & set(stage.processes_of_runs())
    assert supervisor.wait(30) == 0, stage.said()
    assert [event["outcome"]["code"] for event in stage.events("RunEnded", run=victim)] == ["worker_died"]
    assert [event["outcome"]["ending"] for event in stage.events("RunEnded", run=again)] == ["succeeded"]
    assert violations(stage, "T", {"greeter.py": WARMER}) == []
    task = stage.show("T")
    assert (task["attempts"], task["rounds"], task["returns"]) == (0, 0, 0)


def stage_with_gate(directory: Path, gate: str) -> Stage:
    """One task by scripts, with that gate."""
    settings = {
        "gates": {"default": ["unit"], "unit": [sys.executable, "-S", "-c", gate], "cache": False},
        "agents": {"backend": "scripted", "sandbox": "off"},  # it writes to a file of ours
        "supervisor": {"poll_seconds": 0.05},
        "retry": {"backoff_seconds": 0.05},
    }
    stage = Stage(directory, settings=settings).build()
    work = {"write": {"greeter.py": WARMER}, "report": "warmer"}
    script = json.dumps({"by_purpose": {"work": work, "review": {"verdict": "approve", "report": "fine"}}})
    stage.drop(id="T", review="always", prompt=f"Make it warmer.\n```script\n{script}\n```")
    return stage
