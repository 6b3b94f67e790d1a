"""Many processes on one log, every fault that the world has, thousands of schedules: no promise is broken."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from coordination.errors import LockHeld
from coordination.log import commit, file, page, recovery
from coordination.log.file import FileLog, create
from coordination.testing.aftermath import DIRECTORY, Cut, Ledger, payload, recover
from coordination.testing.disk import Directory, Node, name
from coordination.testing.simulation import TROUBLES, Report, Schedule, Trouble, main, search, search_with_pool
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld

FAILING_SYNCS: tuple[Trouble, ...] = ("failed sync", "failed sync", "kill aimed", "stop")
CLOCKS: tuple[Trouble, ...] = ("jump", "jump", "jump", "kill", "failed sync")
PROCESSES = 2
TIER_2_SECONDS = 300.0
_NUMBERS = 1_000_000  # schedules of one day's seed


@pytest.mark.timeout(1200)
def test_no_schedule_breaks_a_promise(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Whatever happens to processes, disk and clocks, nothing acknowledged is lost and nothing refused appears."""
    if tier == 1:
        report = search(seed * _NUMBERS, 2_000)
    else:
        report = search_with_pool(seed * _NUMBERS, 500_000, processes=PROCESSES, seconds=TIER_2_SECONDS)

    note = f"{report.gestures:,} gestures, {report.acknowledged:,} batches, {told(report)}"
    figure("G1", "simulated schedules", report.schedules, violations=len(report.violations), note=note)
    figure("G1", "crash states of schedules", report.crash_states, violations=len(report.violations))
    assert not report.violations, "\n".join(report.violations)
    assert report.crash_states >= 4 * report.schedules
    assert set(report.troubles) == set(TROUBLES)


@pytest.mark.timeout(600)
def test_nobody_acknowledges_after_a_failed_sync(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """From a failed sync on nothing is acknowledged until a recovery wrote a new segment, which loses nothing."""
    report = search(seed * _NUMBERS, 300 if tier == 1 else 10_000, troubles=FAILING_SYNCS)

    count = report.troubles["failed sync"]
    figure(
        "G6",
        "failed syncs, simulated",
        count,
        violations=len(report.violations),
        note=f"{report.schedules:,} schedules",
    )
    assert not report.violations, "\n".join(report.violations)


@pytest.mark.timeout(600)
def test_clocks_that_jump_break_nothing(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """A clock that leaps by a day or a year, at any gesture, changes neither what is kept nor who goes on."""
    report = search(seed * _NUMBERS, 200 if tier == 1 else 10_000, troubles=CLOCKS)

    count = report.troubles["jump"]
    figure(
        "G9", "clock jumps, simulated", count, violations=len(report.violations), note=f"{report.schedules:,} schedules"
    )
    assert not report.violations, "\n".join(report.violations)


def test_a_seed_is_a_history(seed: int) -> None:
    """The same seed gives the same gestures in the same order, the same answers and the same figures."""
    for number in range(seed, seed + 20):
        first, second = Schedule(number, trace=True), Schedule(number, trace=True)
        reports = first.play(), second.play()

        assert reports[0] == reports[1]
        assert first.world.trace == second.world.trace
        assert [first.events, first.seen] == [second.events, second.seen]


class Forgetful(Fate):
    """The first sync of the log's directory fails, and its new names are forgotten: no later sync brings them."""

    done = False

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        if self.done or (gesture, about) != ("sync_directory", DIRECTORY):
            return None
        self.done = True
        return Fault("error", errno.EIO, dropped=True)


def test_a_page_does_not_outlive_the_segment_that_a_failed_making_forgot(seed: int) -> None:
    """Whoever writes first makes the log anew; killed anywhere, with all names on the disk that can be, it goes on."""
    worlds = (SimulatedWorld(seed + number) for number in itertools.count())
    world = next(world for world in worlds if not begun(world))
    cuts = 0
    for cuts in itertools.count(1):
        twin, ledger = world.copy(seed), Ledger()
        twin.fate = Cut(cuts, 0.5)
        ledger.ask("a")
        try:
            FileLog(DIRECTORY, env=twin.process()).append(payload("a"), after=0, again=lambda: payload("a"))
        except Killed:
            pass
        else:
            break
        twin.fate = Fate()
        for env in list(twin.processes):
            twin.kill(env)
        twin.power_cut(lambda file: bytearray(file.cache), arrived)
        assert recover(twin, ledger, 1 << 16) == []
    assert cuts > 20


def begun(world: SimulatedWorld) -> list[str]:
    """Begin to make a log in it, and fail; the segments whose names are on the disk, for what is forgotten varies."""
    world.fate = Forgetful()
    with pytest.raises(OSError, match="Errno 5"):
        create(DIRECTORY, env=world.process())
    return [name for name in world.directories[str(DIRECTORY)].disk if name.endswith(".jsonl")]


def arrived(directory: Directory) -> dict[str, Node]:
    """Its names, when all that were changed since the last sync came to the disk."""
    names = dict(directory.disk)
    for naming in directory.changes:
        name(names, naming)
    return names


def test_the_command_prints_what_it_found(capsys: pytest.CaptureFixture[str]) -> None:
    """A search exits with 0 when all is well; a broken promise gives 1 and the command that repeats it."""
    assert main(["--seed", "5", "--schedules", "3"]) == 0
    assert "3 schedules, " in capsys.readouterr().out
    with patch.object(SimulatedEnv, "sync_data", nothing):
        assert main(["--seed", "5", "--schedules", "3"]) == 1
    assert "again: python -m coordination.testing.simulation --seed 5 --schedules 1" in capsys.readouterr().out
    assert main(["--seed", "5", "--trace"]) == 0
    assert "sync_data" in capsys.readouterr().out


# ---- the search finds what it is made for: each of these takes one protection away -----------------------------------


def synced_twice(sync: Callable[..., None]) -> Callable[..., None]:
    """A failed sync is tried again."""

    def again(self: commit.Commit, found: page.Page, head: page.Head) -> None:
        try:
            sync(self, found, head)
        except OSError:
            found.clear("poison")
            sync(self, found, head)

    return again


def nothing(*arguments: object) -> None:
    """Is done."""


def always(*arguments: object) -> bool:
    """Is so."""
    return True


def believed(self: file.FileLog, reading: page.Reading) -> bool:
    """Every page of this boot is believed, whatever is marked on it."""
    return reading.this_boot


Planted = tuple[tuple[Trouble, ...], Callable[[], Any]]  # what must happen for it to show, and how it is planted

PLANTED: dict[str, Planted] = {
    "no sync of the data": (TROUBLES, lambda: patch.object(SimulatedEnv, "sync_data", nothing)),
    "no sync of directories": (TROUBLES, lambda: patch.object(SimulatedEnv, "sync_directory", nothing)),
    "no sync of published files": (TROUBLES, lambda: patch.object(SimulatedEnv, "sync", nothing)),
    "no exclusion": (TROUBLES, lambda: patch.object(SimulatedEnv, "try_lock", always)),
    "no marks": (TROUBLES, lambda: patch.object(page.Page, "mark", nothing)),
    "marks are not heeded": (TROUBLES, lambda: patch.object(file.FileLog, "_believed", believed)),
    "a failed sync is tried again": (
        TROUBLES,
        lambda: patch.object(commit.Commit, "_sync", synced_twice(commit.Commit._sync)),
    ),
    "any batch counts as durable": (TROUBLES, lambda: patch.object(page.Page, "covers", always)),
    "who waits in vain says that nothing was appended": (("stop",), lambda: patch.object(file, "LockHeld", Unraised)),
    "a segment that may have no name is kept": (
        ("failed names", "failed names", "power cut"),
        lambda: patch.object(recovery, "_known", lambda chain, *_, **__: chain),
    ),
}


class Unraised(LockHeld):
    """Is caught, and never raised."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(planted: str, seed: int) -> None:
    """With one protection of the log taken away the search finds a broken promise."""
    troubles, plant = PLANTED[planted]
    with plant():
        report = search(seed * _NUMBERS, 1_500, troubles=troubles, violations_max=1)

    assert report.violations, f"{report.schedules} schedules did not find it"


def told(report: Report) -> str:
    return ", ".join(f"{trouble} {count:,}" for trouble, count in sorted(report.troubles.items()))
