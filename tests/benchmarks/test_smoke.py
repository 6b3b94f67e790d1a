"""The benchmarks measure what they say: every peer and every benchmark, tiny. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from coordination.model import events as e
from coordination.model.runs import Purpose
from coordination.model.tasks import TaskSpec
from tests.benchmarks import starts, syncs, tables
from tests.benchmarks.makespan import SLOTS, Job, jobs, list_schedule
from tests.benchmarks.measuring import Plan, Work, check
from tests.benchmarks.peers import Peer
from tests.benchmarks.peers.all import PEERS
from tests.benchmarks.peers.ours import Claims
from tests.benchmarks.peers.sqlite import SQLite
from tests.benchmarks.running import NAMES
from tests.benchmarks.targets import ALL_TOGETHER, OURS, PROCESSORS, PROGRAM, TARGETS

_ROOT = Path(__file__).parents[2]
_EACH = 5  # operations of each process
_PATIENT = ["--rounds", "1", "--seconds", "30", "--operations", str(_EACH), "--tasks", "200"]
_TINY = ["--rounds", "1", "--seconds", "0.2", "--operations", str(_EACH)]
_SUPERVISED = ("P7", "P8", "P11", "P12")
_WATCHED = ("P20",)
_TRACE = """
1 access("/benchmark-begins", F_OK) = -1
2 fdatasync(3) = 0
1 access("/benchmark-ends", F_OK) = -1
2 fsync(3) = 0
"""

Figures = dict[tuple[str, int, str], dict[str, float]]


@pytest.fixture
def disk() -> Iterator[Path]:
    """Where stores may be made: on a disk, with a short name for sockets, and with a way through for other users."""
    if tables.filesystem_of(Path(tempfile.gettempdir())) == "tmpfs":
        pytest.skip("temporary directories are on tmpfs, where nothing is measured: set TMPDIR")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_does_what_is_counted(peer: Peer, disk: Path) -> None:
    """Two processes append and claim, the store had all of it (or the run had ended), and each operation was synced."""
    if why := peer.missing():
        pytest.skip(why)
    figures = _figures([*_PATIENT, "--peers", peer.name, "--only", "P1,P3,syncs", "--processes", "2"], disk)
    for operation, needed in (("append", 1), ("claim and complete", 2)):
        if operation == "append" or peer.has_tasks:
            measured = figures[operation, 2, peer.name]
            assert measured["operations"] == 2 * _EACH
            assert measured["per_second"] > 0
            assert 0 < measured["p50_ns"] <= measured["p99_ns"] <= measured["longest_ns"]
            if not syncs.missing() and (operation == "append" or peer.claims_durably):
                assert figures[operation, 1, peer.name]["syncs"] >= needed


def test_every_benchmark_has_its_figures(disk: Path) -> None:
    """Each target has its row, with a ratio wherever the peer is there, and every length of log its figures."""
    only = [name for name in NAMES if name not in ("syncs", *_SUPERVISED, *_WATCHED)]
    table = _run([*_PATIENT, "--events", "60,600", "--only", ",".join(only), "--json", str(disk / "json")], disk)
    _check_rows(table, only)
    figures = _read(disk / "json")
    for operation, figure in (("append behind", "per_second"), ("open behind", "seconds"), ("recover", "seconds")):
        assert all(figures[f"{operation} {events}", 1, OURS][figure] > 0 for events in (60, 600))


@pytest.mark.timeout(120)
def test_every_benchmark_of_a_supervisor_has_its_figures(disk: Path) -> None:
    """The same where a supervisor runs: a few drops, runs of Claude Code, a second of rest, five tasks."""
    _check_rows(_run([*_TINY, "--only", ",".join(_SUPERVISED)], disk), _SUPERVISED)


@pytest.mark.timeout(120)
def test_the_benchmark_of_the_live_view_has_its_figures(disk: Path) -> None:
    """Two starts, a second of rest with and without a supervisor, a few refreshes."""
    _check_rows(_run([*_TINY, "--only", ",".join(_WATCHED)], disk), _WATCHED)


def test_a_list_schedule_fills_every_slot_that_it_can() -> None:
    """Chains add up, what is free shares the slots, a later task passes one that waits, and no bound is undercut."""
    chain = [Job(seconds=2.0), Job(seconds=3.0, after=(0,)), Job(seconds=1.0, after=(1,))]
    assert list_schedule(chain, 5) == 6.0
    assert list_schedule([Job(seconds=1.0)] * 7, 3) == 3.0
    assert list_schedule([*chain, Job(seconds=4.0)], 2) == 6.0
    wanted = jobs(1.0)
    ends: list[float] = []
    for job in wanted:
        ends.append(job.seconds + max((ends[number] for number in job.after), default=0.0))
    even = sum(job.seconds for job in wanted) / SLOTS
    assert max(*ends, even) <= list_schedule(wanted) <= max(*ends, even) * 1.02


def test_only_syncs_between_the_marks_count() -> None:
    """A sync while a store is made or closed says nothing about its operations."""
    assert syncs.count(_TRACE) == 1
    assert syncs.count(_TRACE.replace("fdatasync", "write")) == 0


@pytest.mark.parametrize("subject", ["append", "transact"])
def test_the_profile_counts_the_syncs(subject: str, disk: Path) -> None:
    """The profile of one operation of ours counts its syncs and names functions of the log."""
    shown = _run(["--profile", subject, "--operations", "20"], disk)
    assert f"| sync_data | {1 if subject == 'append' else 2}.00 |" in shown
    assert "file.py" in shown


def test_memory_is_refused_as_a_disk() -> None:
    """On tmpfs a sync costs nothing, so nothing is measured there."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no tmpfs at /dev/shm")
    refused = _ran(["--quick"], Path("/dev/shm"))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--directory" in refused.stderr


def test_lost_work_is_refused(tmp_path: Path) -> None:
    """Whoever acknowledged more than the store holds is not measured."""
    peer = SQLite()
    peer.create(tmp_path)
    connection = peer.connect(tmp_path, 0)
    connection.append(b"{}")
    connection.close()
    plan = Plan(operation="append", processes=1, seconds=1.0)
    assert check(peer, plan, tmp_path, [_work(1)]) == 0
    with pytest.raises(AssertionError, match="2 appended and acknowledged, 1 found"):
        check(peer, plan, tmp_path, [_work(2)])


def test_a_task_with_two_winners_is_counted(tmp_path: Path) -> None:
    """A task that two processes report counts as won twice."""
    peer = SQLite()
    peer.create(tmp_path)
    peer.submit(tmp_path, 2)
    connection = peer.connect(tmp_path, 0)
    assert [connection.claim_and_complete() for _ in range(3)] == [1, 2, None]
    connection.close()
    plan = Plan(operation="claim and complete", processes=2, seconds=1.0, tasks=2)
    assert check(peer, plan, tmp_path, [_work(2, 1, 2), _work(1, 2)]) == 1


def test_our_fold_refuses_two_winners() -> None:
    """A history in which a task is claimed twice, or completed by another than its holder, does not fold."""
    claims = Claims()
    queue = claims.initial()
    spec = TaskSpec(prompt="", title="")
    planned = e.RunPlanned(task="t1", run="t1.1.work", purpose=Purpose.WORK, role="first")
    for event in (*(e.TaskSubmitted(task=task, spec=spec, digest="") for task in ("t1", "t2")), planned):
        queue = claims.fold(queue, _record(event))
    with pytest.raises(AssertionError, match="claimed twice"):
        claims.fold(queue, _record(planned))
    with pytest.raises(AssertionError, match="another than its holder"):
        claims.fold(queue, _record(e.TaskDone(task="t1", evidence=e.Evidence(commit=""), report="second")))


def _record(event: e.Event) -> e.Record:
    return e.Record(seq=1, index=0, at=0.0, event=cast(e.AnyEvent, event))


def _work(operations: int, *tasks: int) -> Work:
    durations = array("q", [1] * operations)
    return Work(warmed=0, in_time=operations, ended_ns=1, durations_ns=durations, tasks=tasks)


def _check_rows(table: str, goals: Sequence[str]) -> None:
    """Each target has its row, and a ratio wherever what it is measured against is there."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| P")]
    wanted = [target for target in TARGETS if target.goal in goals]
    assert [row[0] for row in rows] == [target.goal for target in wanted]
    missing = {peer.name for peer in PEERS if peer.missing()} | (
        {ALL_TOGETHER, PROCESSORS, PROGRAM} if starts.missing() else set()
    )
    for row, target in zip(rows, wanted, strict=True):
        assert (row[6] == "not measured") == (target.peer in missing), row


def _figures(options: list[str], directory: Path) -> Figures:
    _run([*options, "--json", str(directory / "json")], directory)
    return _read(directory / "json")


def _read(file: Path) -> Figures:
    """Of all rounds together."""
    cells: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return {
        (cell["operation"], cell["processes"], cell["peer"]): {
            name: value for one in cell["rounds"] for name, value in one.items()
        }
        for cell in cells
    }


def _run(options: list[str], directory: Path) -> str:
    done = _ran(options, directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _ran(options: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", "--directory", str(directory), *options]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=110, check=False)
