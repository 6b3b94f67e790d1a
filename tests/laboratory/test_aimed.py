"""Killed at any gesture, sixteen at once on one log: nothing acknowledged is lost, and the others go on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from coordination.testing import aimed

KILLS = {1: 1_000, 2: 30_000}
PLANTED = sorted(name for name in aimed.PLANTED if name)
COMMAND = [sys.executable, "-m", "coordination.testing.aimed"]


def run(*arguments: str) -> dict[str, Any]:
    """A run in a process of its own, which is small, warm and has one thread: the one that everybody is forked from."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_acknowledged_is_lost_wherever_processes_die(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Every gesture of every operation kills somebody in a crowd, and the history and the disk agree in the end."""
    arguments = ["--kills", str(KILLS[tier]), "--seed", str(seed)]
    report = run(*arguments)
    note = f"{report['logs']} logs, {report['acknowledged']} acknowledged, {len(report['hits'])} kinds of gestures hit"
    figure("G4", "aimed kills, 16 processes at once", report["kills"], violations=len(report["violations"]), note=note)
    assert not report["violations"], f"{' '.join(COMMAND[1:] + arguments)}: {report['violations']}"
    assert report["missed"] == 0
    assert {hit.split(":")[0] for hit in report["hits"]} == set(aimed.DEEDS)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(plant: str, seed: int, figure: Callable[..., None]) -> None:
    """A log that breaks the protocol is convicted: what the kills above do not find is not there."""
    report = run("--kills", str(KILLS[1]), "--seed", str(seed), "--plant", plant)
    figure("G4", f"control: {plant}", report["kills"], note="kills until it was convicted")
    assert report["violations"]
