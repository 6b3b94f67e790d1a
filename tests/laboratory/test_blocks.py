"""Does the log keep its word on a real ext4 whose power is cut anywhere, where others are seen to break theirs?"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec
import pytest

from coordination.testing import blocks, fuse, linux, powercuts
from coordination.testing.blocks import Gesture, Piece, Recording
from coordination.testing.powercuts import Expected, RecoveredLog, Scribe, SharedLog, Told, Word

PROGRAM = [sys.executable, "-m", powercuts.__name__]
LOOP_GET_STATUS64, LOOP_STATUS_BYTES = 0x4C05, 232
PATIENCE_SECONDS = 30.0

MISSING = linux.missing()
mountable = pytest.mark.skipif(bool(MISSING), reason=f"no recorded disk here: {MISSING}")

# ---- on a real ext4 --------------------------------------------------------------------------------------------------


@mountable
@pytest.mark.timeout(1500)
def test_the_log_loses_nothing(tier: int, seed: int, tmp_path: Path, figure: Callable[..., None]) -> None:
    """Cut anywhere: all acknowledged batches and snapshots are there, no others, and the log never says damaged."""
    shares = [300] if tier == 1 else [5_000, 5_000]
    searches = [_searching("log", share, seed + n, tmp_path) for n, share in enumerate(shares)]
    found = [_told(search, 1400) for search in searches]
    losing, states = sum(told.losing for told in found), sum(sum(told.states.values()) for told in found)
    nested = sum(told.states.get("log-recovered", 0) for told in found)
    figure("G3", "log: states of a cut ext4", states, violations=losing, note=f"{nested} of them cut in recovery again")
    assert not losing, [example for told in found for example in told.examples]
    assert states == sum(shares)
    assert 0 < nested < states
    assert [told.unflushed for told in found] == [0] * len(found)


@mountable
def test_sqlite_with_a_synced_write_ahead_log_loses_nothing(
    tier: int, seed: int, tmp_path: Path, figure: Callable[..., None]
) -> None:
    """The reference that is known to keep its word does: the laboratory invents no losses."""
    told = _told(_searching("sqlite-wal", 60 * tier**3, seed, tmp_path), 55)
    figure("G3", "reference: SQLite WAL, FULL", told.states["sqlite-wal"], violations=told.losing)
    assert not told.losing, told.examples
    assert told.unflushed == 0


@mountable
@pytest.mark.parametrize(
    ("workload", "what"),
    [
        ("sqlite-delete", "SQLite DELETE, FULL"),
        ("rename", "rename without fsync"),
        ("log-without-sync", "log without sync"),
        ("log-without-file-sync", "log without fsync of new files"),
        ("log-without-directory-sync", "log without fsync of directories"),
    ],
)
def test_controls_lose_what_they_acknowledged(
    workload: str, what: str, tier: int, seed: int, figure: Callable[..., None]
) -> None:
    """What is known to break its word is seen to break it, in every run."""
    told = _told(_searching(workload, 60 * tier**2, seed), 55)
    states = told.states[workload]
    figure("G3", f"control: {what}", states, note=f"lost in {told.losing}, as it must")
    assert told.losing > 0, f"{workload} lost nothing in {states} states: {_command(workload, states, seed)}"


@mountable
def test_a_state_that_was_kept_is_looked_at_again(tmp_path: Path) -> None:
    """The command that a failure prints finds the same faults in the same state."""
    example = _told(_searching("rename", 20, 1, tmp_path), 55).examples[0]
    answer = subprocess.run(example.command.split(), capture_output=True, text=True, timeout=30, check=True)
    repeated = msgspec.json.decode(answer.stdout, type=powercuts.Example)
    assert repeated == msgspec.structs.replace(example, command="")


@mountable
@pytest.mark.parametrize("victim", ["the program", "its parent"])
def test_nothing_stays_behind_a_kill(victim: str, tmp_path: Path) -> None:
    """Killed in the middle, by itself or with its parent: no process, no mount, no loop device is left."""
    code = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code, *_command("log", 10**6, 1)], env=environment) as parent:
        program, device, file = _wait_for(lambda: _recording(tmp_path))
        os.kill(program if victim == "the program" else parent.pid, signal.SIGKILL)
        parent.wait(PATIENCE_SECONDS)
    _wait_for(lambda: not _processes(tmp_path))
    _wait_for(lambda: _file_behind(device) != file)
    assert os.fspath(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def _command(workload: str, count: int, seed: int, keep: Path | None = None) -> list[str]:
    kept = [] if keep is None else ["--keep", str(keep)]
    return [*PROGRAM, workload, "--states", str(count), "--seed", str(seed), *kept]


def _searching(workload: str, count: int, seed: int, keep: Path | None = None) -> subprocess.Popen[str]:
    command = _command(workload, count, seed, keep)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _told(search: subprocess.Popen[str], timeout_seconds: float) -> Told:
    with search:
        try:
            output, complaints = search.communicate(timeout=timeout_seconds)
        finally:
            search.kill()
    assert search.returncode == 0, f"{search.args!r}: {complaints}"
    return msgspec.json.decode(output, type=Told)


T = TypeVar("T")


def _wait_for(condition: Callable[[], T | None]) -> T:
    deadline, pause = time.monotonic() + PATIENCE_SECONDS, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        pause.wait(0.01)
    return found


def _processes(scratch: Path) -> list[int]:
    """Who lives with that scratch directory in its environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended
            if os.fsencode(f"TMPDIR={scratch}") in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)  # parents before their children


def _recording(scratch: Path) -> tuple[int, Path, bytes] | None:
    """The program that records just now, its loop device and which file is behind that."""
    for process in _processes(scratch):
        with suppress(OSError, ValueError):
            program = Path(f"/proc/{process}/cmdline").read_text().split("\0")[1:3] == PROGRAM[1:]
            mounts = Path(f"/proc/{process}/mountinfo").read_text()
            mounted = re.search(rf"{re.escape(os.fspath(scratch))}\S*/root .* - ext4 (/dev/loop\d+) ", mounts)
            if program and mounted and (file := _file_behind(Path(mounted[1]))):
                return process, Path(mounted[1]), file
    return None


def _file_behind(device: Path) -> bytes:
    """Which file is behind a loop device: its device and inode, as the kernel says it; empty when there is none."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(descriptor, LOOP_GET_STATUS64, bytes(LOOP_STATUS_BYTES))[:16]
    except OSError:
        return b""
    finally:
        os.close(descriptor)


# ---- what is worked out of a recording, without any device -----------------------------------------------------------


def _recording_of(dice: Random, size: int = 16 * 512) -> Recording:
    """Made up: writes of whole sectors in random places, and flushes."""
    gestures = []
    for number in range(dice.randint(1, 12)):
        start = dice.randrange(size // 512)
        count = dice.randint(1, size // 512 - start)
        write = Gesture(start * 512, bytes([number + 1]) * 512 * count)
        gestures.append(dice.choice([write, write, Gesture(fuse.FLUSH, b"")]))
    return Recording(before=bytes(size), gestures=tuple(gestures), begin=0, end=len(gestures))


def test_images_hold_what_was_flushed_and_what_was_kept(seed: int) -> None:
    """Each image is the one that is worked out from nothing, whatever images were asked for before it."""
    dice = Random(seed)
    compared = 0
    for _ in range(200):
        recording = _recording_of(dice)
        for cut, image in blocks.images(recording, blocks.draw(recording, dice, 20)):
            expected = bytearray(recording.before)
            flushes = [n for n, gesture in enumerate(recording.gestures[: cut.position]) if gesture.flushes]
            for gesture in recording.gestures[: flushes[-1] if flushes else 0]:
                if not gesture.flushes:
                    expected[gesture.offset : gesture.offset + len(gesture.data)] = gesture.data
            for piece in cut.kept:
                assert (flushes[-1] if flushes else -1) < piece.gesture < cut.position
                gesture = recording.gestures[piece.gesture]
                expected[gesture.offset + piece.start : gesture.offset + piece.end] = gesture.data[
                    piece.start : piece.end
                ]
            assert image == expected, (seed, cut)
            compared += 1
    assert compared > 1000


def test_cuts_differ_and_reach_every_kind_of_loss(seed: int) -> None:
    """No state is counted twice; among many there are whole prefixes, lost writes, lost first writes and torn ones."""
    dice = Random(seed)
    write, flush = Gesture(0, bytes(4096)), Gesture(fuse.FLUSH, b"")
    recording = Recording(before=bytes(4096), gestures=(write, flush, write, write, flush, write), begin=1, end=5)
    cuts = blocks.draw(recording, dice, 200)
    assert len(cuts) == len(set(cuts)) > 20
    assert [cut.position for cut in cuts] == sorted(cut.position for cut in cuts)
    assert {cut.position for cut in cuts} == {1, 2, 3, 4, 5}
    kept = {cut.kept for cut in cuts if cut.position == 4}
    both = (Piece(2, 0, 4096), Piece(3, 0, 4096))
    assert {(), both, both[:1], both[1:]} <= kept
    assert any(sum(piece.end - piece.start for piece in pieces) % 4096 > 0 for pieces in kept)
    assert all(cut.kept == () for cut in cuts if cut.position in (2, 5))


def test_the_recorded_file_is_counted_before_it_answers() -> None:
    """Writes and flushes are recorded in order; what lies beyond the end is refused and not recorded."""
    gestures, position = io.BytesIO(), memoryview(bytearray(8)).cast("Q")
    file = fuse.RecordedFile(bytes(1024), gestures, position)
    place = struct.Struct("=QQIIQII")
    file.answer(fuse.Opcode.WRITE, memoryview(place.pack(0, 512, 3, 0, 0, 0, 0) + b"abc"))
    assert position[0] == 1
    file.answer(fuse.Opcode.FSYNC, memoryview(b""))
    assert position[0] == 2
    with pytest.raises(OSError, match="No space"):
        file.answer(fuse.Opcode.WRITE, memoryview(place.pack(0, 1022, 3, 0, 0, 0, 0) + b"abc"))
    with pytest.raises(OSError, match="not implemented"):
        file.answer(43, memoryview(b""))  # FALLOCATE
    assert position[0] == 2
    assert file.answer(fuse.Opcode.READ, memoryview(place.pack(0, 511, 5, 0, 0, 0, 0))) == b"\0abc\0"
    assert gestures.getvalue() == fuse.GESTURE.pack(512, 3) + b"abc" + fuse.GESTURE.pack(fuse.FLUSH, 0)


# ---- what is said of a state -----------------------------------------------------------------------------------------


@pytest.fixture
def said(tmp_path: Path) -> Expected:
    """A log beneath ``tmp_path`` that was never cut, and what was said while it was written."""
    position = itertools.count()
    with closing(Scribe(tmp_path / "words", lambda: next(position))) as scribe:
        RecoveredLog().play(tmp_path, scribe, Random(1))
    lines = (tmp_path / "words").read_bytes().splitlines()
    return powercuts.expected_at([msgspec.json.decode(line, type=Word) for line in lines], 1000)


def test_a_whole_log_has_no_faults(said: Expected, tmp_path: Path) -> None:
    """Nothing is found where nothing is wrong."""
    assert len(said.done) == 1 + RecoveredLog.batches_each
    assert SharedLog().faults(tmp_path, said) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda e: Expected(asked=e.asked | {"batch x": 1}, done=e.done | {"batch x": 2}), "lost: batch x"),
        (lambda _: Expected(asked={}, done={}), "never asked for: batch recovered 0"),
        (lambda e: Expected(asked=e.asked, done=e.done | {"snapshot 3": 2}), "the newest snapshot is of batch 0"),
        (
            lambda e: Expected(asked=e.asked | {"batch recovered 1": 900}, done=e.done | {"batch recovered 2": 800}),
            "batch recovered 2 stands behind one that was asked for after it was done",
        ),
    ],
    ids=["lost", "phantom", "snapshot", "order"],
)
def test_every_kind_of_fault_is_found(
    change: Callable[[Expected], Expected], fault: str, said: Expected, tmp_path: Path
) -> None:
    """A log that does not hold what was said is told apart, each way by its own sentence."""
    assert any(found.startswith(fault) for found in SharedLog().faults(tmp_path, change(said)))


def test_a_damaged_log_is_a_fault(said: Expected, tmp_path: Path) -> None:
    """Whatever the log raises after a power cut counts against it."""
    segment = max((tmp_path / "log").glob("*.jsonl"))
    segment.write_bytes(b"x" + segment.read_bytes()[1:])
    assert any(found.startswith("LogDamaged") for found in SharedLog().faults(tmp_path, said))


def test_a_lost_log_is_a_fault_only_once_it_was_made(said: Expected, tmp_path: Path) -> None:
    """Before ``create`` returned there may be none, and it can be made; afterwards that is a loss."""
    (tmp_path / "elsewhere").mkdir()
    assert SharedLog().faults(tmp_path / "elsewhere", Expected(asked={}, done={})) == []
    (tmp_path / "nowhere").mkdir()
    assert SharedLog().faults(tmp_path / "nowhere", said) == ["the log is gone"]


def test_what_was_said_counts_from_the_cut_on() -> None:
    """Done counts at its position, asked only before it: gesture n is the first that shows what was asked at n."""
    words = [Word("asked", "a", 3), Word("done", "a", 5)]
    at = {position: powercuts.expected_at(words, position) for position in (3, 4, 5)}
    assert at[3] == Expected(asked={}, done={})
    assert at[4] == Expected(asked={"a": 3}, done={})
    assert at[5] == Expected(asked={"a": 3}, done={"a": 5})
