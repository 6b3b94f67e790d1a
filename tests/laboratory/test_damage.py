"""Whatever happens to the bytes on the disk is detected or does no harm; never other batches, never a crash."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordination.env import Env
from coordination.errors import LogDamaged
from coordination.log import frames
from coordination.log.file import FileLog
from coordination.testing import damage
from coordination.testing.damage import BytesEnv, Damage

CASES = {1: 20_000, 2: 1_000_000}
PROCESSES = {1: 1, 2: 2}
REAL_CASES = {1: 300, 2: 5_000}
SNAPSHOT_CASES = {1: 4_000, 2: 50_000}
COMMAND = [sys.executable, "-m", "coordination.testing.damage"]


class Boot(Env):
    """The real world in a boot of our choice, so that a page made elsewhere can be of it."""

    def __init__(self, boot: str) -> None:
        self._boot = boot

    def boot_id(self) -> str:
        return self._boot


def reports(cases: int, seed: int, processes: int) -> list[dict[str, Any]]:
    commands = [[*COMMAND, "--cases", str(cases // processes), "--seed", str(seed + n)] for n in range(processes)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
    return [json.loads(child.communicate()[0]) for child in running]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_damage_is_detected_or_harmless(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Bits, cuts, zeroes, whole files: a reader and a writer find all batches, or say that the log is damaged."""
    found = reports(CASES[tier], seed, PROCESSES[tier])
    verdicts: Counter[str] = sum((Counter(report["verdicts"]) for report in found), Counter())
    totals = Counter({word: sum(n for name, n in verdicts.items() if name.startswith(word)) for word in VERDICTS})
    broken = [violation for report in found for violation in report["violations"]]
    more = sum(report["more_than_one"] for report in found)
    note = f"{totals['detected']} detected, {totals['harmless']} harmless, {totals['weakness']} declared weakness "
    note += f"(page lost as well; {more} of them more than the newest batch)"
    figure("G7", "damaged logs", sum(report["cases"] for report in found), violations=len(broken), note=note)
    assert not broken, f"{' '.join(COMMAND[1:])} --seed {seed}: {broken[:5]}"
    assert totals["detected"] > totals["weakness"] > 0


VERDICTS = ("harmless", "detected", "weakness", "violation")


@pytest.mark.timeout(300)
def test_damaged_snapshots_are_passed_over(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """What is found among damaged snapshots is one that was saved, or none."""
    report = damage.snapshots(SNAPSHOT_CASES[tier], seed)
    note = ", ".join(f"{count} {verdict}" for verdict, count in sorted(report.verdicts.items()))
    figure("G7", "damaged snapshots", report.cases, violations=len(report.violations), note=note)
    assert not report.violations


@pytest.mark.timeout(300)
def test_memory_and_disk_come_to_the_same(tmp_path: Path, tier: int, seed: int, figure: Callable[..., None]) -> None:
    """The verdict on real files is the one on bytes in memory."""
    cases = list(itertools.islice(damage.sampled(REAL_CASES[tier], seed), 2 * REAL_CASES[tier]))
    differing = []
    for number, (image, done, witness) in enumerate(random.Random(seed).sample(cases, REAL_CASES[tier])):
        for use in (damage.read, damage.write):
            place = tmp_path / f"{number}-{use.__name__}"
            damage.lay_out(done.on(image, witness), place)
            real = damage.verdict(image, done, witness, use, place, Boot(damage.boot_of(witness)))
            env = BytesEnv(done.on(image, witness), damage.boot_of(witness))
            if real != (thought := damage.verdict(image, done, witness, use, Path("/"), env)):
                differing.append((image.name, done, witness, use.__name__, real, thought))
    figure("G7", "damaged logs on real files, verdict as in memory", REAL_CASES[tier], violations=len(differing))
    assert not differing


def test_a_log_without_checksums_is_found(
    seed: int, monkeypatch: pytest.MonkeyPatch, figure: Callable[..., None]
) -> None:
    """The control: when every line counts, whatever its bytes, damage gives other batches, and that is seen."""

    class NoSum:
        @staticmethod
        def crc32(_data: bytes | memoryview, _start: int = 0) -> int:
            return 0

    monkeypatch.setattr(frames, "zlib", NoSum)
    report = damage.run(1_000, seed)
    figure("G7", "control: no checksums", report.cases, note=f"{len(report.violations)} convicted")
    assert any("other batches" in violation for violation in report.violations)


def test_a_reader_without_a_page_sees_damage_in_the_middle() -> None:
    """One bit of an early line, and no page: the lines behind it say that it was on the disk, so it is damage."""
    image = damage.images(0)[0]
    path = next(path for path in image.contents if path.endswith(".jsonl"))
    at = image.contents[path].index(b'"n":1')
    contents = Damage(kind="bit", path=path, start=at, end=at + 1).on(image, "no page")
    log = FileLog(Path("/log"), env=BytesEnv(contents))
    with pytest.raises(LogDamaged):
        list(log.read(0, upto="head"))


def older_pages(use: Callable[[Path, Env], list[bytes]]) -> list[str]:
    """What breaks when the page of this boot is put back to each of its older states."""
    found = []
    for image in damage.images(0):
        for done in damage.every(image):
            if done.kind == "older" and done.path == "/log/page":
                env = BytesEnv(done.on(image))
                found.append(damage.verdict(image, done, "page", use, Path("/"), env))
    return [why for verdict, why in found if verdict == "violation"]


def test_a_page_that_was_put_back_misleads_no_writer() -> None:
    """What is appended to a log with an older page of the same boot is acknowledged only where readers find it."""
    assert not older_pages(damage.write)


def test_a_page_that_was_put_back_misleads_no_reader() -> None:
    """A reader with an older page of the same boot finds everything, or says that something is wrong."""
    assert not older_pages(damage.read)
