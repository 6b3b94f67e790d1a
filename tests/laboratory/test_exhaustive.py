"""Every short history, crashed at every gesture in every way that the bounds allow, recovers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from coordination import files
from coordination.env import Env
from coordination.log import page, recovery
from coordination.testing.exhaustive import (
    BYTE_BY_BYTE,
    NESTED,
    OPERATIONS,
    SKETCHY,
    Bounds,
    Report,
    Workload,
    explore,
    main,
    workloads,
)
from coordination.testing.world import SimulatedEnv

PROCESSES = 2
TIER_2_SECONDS = 300.0


@pytest.mark.timeout(1800)
def test_every_short_history_survives_every_crash(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """All workloads of two operations (tier 2: three) survive a crash at any gesture, and one more while recovering."""
    report = explore([*workloads(1), *workloads(2)], SKETCHY, seed=seed)
    if tier == 2:
        longest = workloads(3)
        Random(seed).shuffle(longest)  # if the time is too short, every day leaves out others
        report.add(explore(longest, SKETCHY, seed=seed, seconds=TIER_2_SECONDS, processes=PROCESSES))

    length = 2 if tier == 1 else 3
    possible = sum(len(OPERATIONS) ** number for number in range(1, length + 1))
    what = f"crash states of workloads of at most {length} operations"
    show(figure, what, report, f"{report.workloads:,} of {possible:,} workloads, {report.gestures:,} gestures")
    assert not report.violations, "\n".join(report.violations)


@pytest.mark.timeout(1800)
def test_an_append_is_torn_at_every_byte(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """An append (tier 2: any operation) survives every combination of what arrived, torn at every byte."""
    chosen = [("append",)] if tier == 1 else workloads(1)
    report = explore(chosen, BYTE_BY_BYTE, seed=seed, processes=1 if tier == 1 else PROCESSES)

    show(figure, "crash states of one operation, byte by byte", report, f"{report.gestures:,} gestures")
    assert not report.violations, "\n".join(report.violations)


@pytest.mark.timeout(1800)
def test_a_recovery_crashes_at_every_gesture(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """A recovery that crashes at any gesture is recovered from; tier 2: after every crash of every operation."""
    if tier == 1:
        report = explore([("killed-syncing",)], Bounds(disks=1, bytes=1, nested=0), seed=seed)
    else:
        report = explore(workloads(1), NESTED, seed=seed, processes=PROCESSES)

    show(figure, "crash states of recoveries, at every gesture", report, f"{report.nested:,} of them nested")
    assert not report.violations, "\n".join(report.violations)


def test_a_workload_is_repeated_exactly(seed: int) -> None:
    """The same workload and seed give the same states."""
    first, second = (Workload(("append", "roll"), SKETCHY, seed).explore() for _ in range(2))

    assert first == second


def test_the_command_says_how_to_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    """What is found comes with the command that finds it again."""
    with patch.object(SimulatedEnv, "sync_directory", nothing):
        assert main(["--workload", "append"]) == 1
    assert (
        "again: python -m coordination.testing.exhaustive --workload append --seed 0 --disks 0 --bytes 0"
        in capsys.readouterr().out
    )
    assert main(["--workload", "append"]) == 0
    assert "1 workloads, " in capsys.readouterr().out


# ---- each of these takes one protection away -------------------------------------------------------------------------


def nothing(*arguments: object) -> None:
    """Is done."""


def in_place(path: Path, data: bytes, *, env: Env) -> None:
    """Publish without a temporary file."""
    descriptor = env.open_write(path)
    files.write_fully(descriptor, data, 0, env=env)
    env.sync(descriptor)
    env.close(descriptor)
    env.sync_directory(path.parent)


PLANTED: dict[str, tuple[str, Callable[[], Any]]] = {
    "no sync of the data": ("append", lambda: patch.object(SimulatedEnv, "sync_data", nothing)),
    "no sync of directories": ("append", lambda: patch.object(SimulatedEnv, "sync_directory", nothing)),
    "no sync of published files": ("roll", lambda: patch.object(SimulatedEnv, "sync", nothing)),
    "segments appear bit by bit": ("roll", lambda: patch.object(files, "publish", in_place)),
    "no sync of snapshots": ("snapshot,append", lambda: patch.object(files, "publish", unsynced_snapshots)),
    "any batch counts as durable": ("append", lambda: patch.object(page.Page, "covers", lambda *_: True)),
    "what is unproven is left out": (
        "killed-syncing,settle",
        lambda: patch.object(recovery, "publish_segment", emptied),
    ),
}

_publish, _publish_segment = files.publish, recovery.publish_segment


def unsynced_snapshots(path: Path, data: bytes, *, env: Env) -> None:
    """Publish a snapshot without any sync, and everything else as it should be."""
    if path.suffix == ".jsonl":
        return _publish(path, data, env=env)
    descriptor = env.create(path)
    files.write_fully(descriptor, data, 0, env=env)
    return env.close(descriptor)


def emptied(directory: Any, header: Any, payloads: Any, *, env: Any) -> Any:
    """Publish a segment without what recovery found."""
    return _publish_segment(directory, header, (), env=env)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(planted: str, seed: int) -> None:
    """With one protection of the log taken away a workload of one or two operations shows it."""
    workload, plant = PLANTED[planted]
    with plant():
        report = explore([tuple(workload.split(","))], SKETCHY, seed=seed)

    assert report.violations


def show(figure: Callable[..., None], what: str, report: Report, note: str) -> None:
    figure("G2", what, report.states, violations=len(report.violations), note=note)
