"""A full disk is an error while it is full, and nothing afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordination.errors import Unsuitable
from coordination.testing import full_disk
from coordination.testing.full_disk import Filling, Report, SmallDisk

CASES = {1: 100, 2: 1_000}
TIMES = {1: 4, 2: 25}
PROCESSES = 4


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk that is full soon."""
    at = tmp_path / "disk"
    at.mkdir()
    try:
        mounted = SmallDisk(at).__enter__()
    except Unsuitable as error:
        pytest.skip(str(error))
    yield mounted
    mounted.__exit__()


def told(report: Report) -> str:
    tries = ", ".join(f"{count} at try {number}" for number, count in sorted(report.tries.items()))
    return f"{report.hurt} hurt; then done {tries}; longest {report.seconds_max * 1000:.0f} ms after there was room"


@pytest.mark.timeout(300)
def test_full_before_each_write(disk: SmallDisk, tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Full before any write of any operation: with room again the same connection goes on, and nothing was lost."""
    report = full_disk.filled_at_each_write(disk, CASES[tier], seed)
    violations = len(report.violations)
    figure("G11", "disk full at a write, one process", report.cases, violations=violations, note=told(report))
    assert not report.violations, f"--seed {seed}: {report.violations[:5]}"
    assert report.hurt > report.cases // 2


@pytest.mark.timeout(300)
def test_full_under_several_writers(disk: SmallDisk, tier: int, figure: Callable[..., None]) -> None:
    """Processes that append all the time are all refused while the disk is full, and all go on when it is not."""
    report = full_disk.writers_get_over_it(disk, PROCESSES, TIMES[tier])
    what = f"disk full under {PROCESSES} processes"
    figure("G11", what, report.cases, violations=len(report.violations), note=told(report))
    assert not report.violations


class Deaf(Filling):
    """A world that hears of no failed or short write of a line."""

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if not data.startswith(b'{"seq"'):
            return super().write(descriptor, data, offset)
        with contextlib.suppress(OSError):
            super().write(descriptor, data, offset)
        return len(data)


@pytest.mark.timeout(120)
def test_writes_that_fail_unheard_are_found(disk: SmallDisk, seed: int, figure: Callable[..., None]) -> None:
    """The control: who takes a failed write for done loses what was acknowledged, and that is seen."""
    report = full_disk.filled_at_each_write(disk, 50, seed, Deaf)
    figure("G11", "control: failed writes unheard", report.cases, note=f"{len(report.violations)} convicted")
    assert report.violations
