"""How many operations a second do N processes get out of one store, and how long does each wait?

Child processes are forked, connect, warm up, wait for one starting time and work until one closing time. Every
operation's duration is kept, so that the slow ones show. Afterwards the store is asked whether everything that was
acknowledged is there: who is fast because work was lost is not measured but refused.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Literal, TypeVar

from tests.benchmarks.peers import Connection, Peer, payload

Operation = Literal["append", "claim and complete"]
OPERATIONS: tuple[Operation, ...] = ("append", "claim and complete")
T = TypeVar("T")

_LEAD_NS = 50_000_000  # between the last "ready" and the start
_PATIENCE_SECONDS = 300.0
OPERATIONS_MAX = 1 << 18  # of one process; room for them is made before the start
_WARMING = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How one measurement is made."""

    operation: Operation
    processes: int
    seconds: float
    operations_max: int = OPERATIONS_MAX  # a process stops there even when there is time left
    tasks: int = 0  # submitted before they are claimed


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What one process did."""

    warmed: int  # operations before the start
    in_time: int  # operations that ended before the closing time
    ended_ns: int
    durations_ns: array[int]
    tasks: Sequence[int]  # that it claimed


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One measurement of one peer."""

    per_second: float
    p50_ns: int
    p99_ns: int
    longest_ns: int
    fairness: float  # operations of the slowest process, as a part of those of the fastest
    operations: int
    twice: int  # tasks that more than one process got: a defect of the peer
    others: float  # part of the machine's time that processes which are not ours took meanwhile


def measure(peer: Peer, plan: Plan, directory: Path) -> Measured:
    """Make one measurement in a new directory below ``directory`` and check that the work was done."""
    clock = _Clock()
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as name, peer.serve(Path(name)):
        place = Path(name)
        peer.create(place)
        if plan.tasks:
            peer.submit(place, plan.tasks)
        begin_ns, works = _worked(peer, plan, place)
        twice = check(peer, plan, place, works)
    return _measured(works, plan, begin_ns, twice, clock.others())


def check(peer: Peer, plan: Plan, place: Path, works: Sequence[Work]) -> int:
    """Compare what was acknowledged with what is there; how many tasks more than one process got."""
    acknowledged = sum(work.warmed + len(work.durations_ns) for work in works)
    if not plan.tasks:
        _compare(peer, "appended", acknowledged, peer.appended(place))
        return 0
    won = {task for work in works for task in work.tasks}
    _compare(peer, "completed", len(won), peer.completed(place))
    return acknowledged - len(won)


def in_child(call: Callable[[], T]) -> T:
    """What ``call`` returns in a process of its own, whose memory knows nothing of earlier measurements."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    child = fork.Process(target=_answer, args=(call, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        answer: T = _received(ours)
        return answer
    finally:
        child.join(_PATIENCE_SECONDS)


@contextmanager
def beside(peer: Peer, place: Path, processes: int, tasks: int) -> Iterator[None]:
    """Let that many processes do the same until the block ends."""
    fork = multiprocessing.get_context("fork")
    plan = Plan(operation="append", processes=processes, seconds=_PATIENCE_SECONDS, operations_max=0, tasks=tasks)
    children = [fork.Process(target=_work_on, args=(peer, plan, place, process)) for process in range(processes)]
    for child in children:
        child.start()
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.join()


def percentile(ordered: Sequence[int], part: float) -> int:
    """The smallest of the sorted values that is not below that part of all."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _worked(peer: Peer, plan: Plan, place: Path) -> tuple[int, list[Work]]:
    fork = multiprocessing.get_context("fork")
    pipes: list[Pipe] = []
    children = []
    for process in range(plan.processes):
        ours, theirs = fork.Pipe()
        child = fork.Process(target=_child, args=(peer, plan, place, process, theirs), daemon=True)
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    try:
        for pipe in pipes:
            _received(pipe)  # it is ready
        begin_ns = time.perf_counter_ns() + _LEAD_NS
        for pipe in pipes:
            pipe.send(begin_ns)
        return begin_ns, [_received(pipe) for pipe in pipes]
    finally:
        for child in children:
            child.join(_PATIENCE_SECONDS)


def _received(pipe: Pipe) -> Any:
    if not pipe.poll(_PATIENCE_SECONDS):
        raise TimeoutError(f"a measured process said nothing for {_PATIENCE_SECONDS} s")
    said = pipe.recv()
    if isinstance(said, Exception):
        raise said
    return said


def _child(peer: Peer, plan: Plan, place: Path, process: int, pipe: Pipe) -> None:
    def work() -> Work:
        connection = peer.connect(place, process)
        working = _Working(connection, plan)
        pipe.send(None)
        try:
            return working.until_closing(pipe.recv())
        finally:
            connection.close()

    _answer(work, pipe)


def _work_on(peer: Peer, plan: Plan, place: Path, process: int) -> None:
    once = _Working(peer.connect(place, process), plan).once
    while once():
        pass


def _answer(call: Callable[[], object], pipe: Pipe) -> None:
    try:
        pipe.send(call())
    except Exception:  # noqa: BLE001 - the parent raises it
        pipe.send(RuntimeError(f"in a measured process: {traceback.format_exc()}"))


class _Clock:
    """Whose time was it? Of the machine's processors, from /proc/stat; of ours, when they have been waited for."""

    def __init__(self) -> None:
        self._begun = self._now()

    def others(self) -> float:
        busy, passed, ours = (now - begun for now, begun in zip(self._now(), self._begun, strict=True))
        return max(0.0, busy - ours) / passed if passed else 0.0

    def _now(self) -> tuple[float, float, float]:
        try:
            line = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
        except OSError:
            return 0.0, 0.0, 0.0
        # user nice system idle iowait irq softirq steal; guests are in the first two
        seconds = [int(field) / os.sysconf("SC_CLK_TCK") for field in line.split()[1:9]]
        return sum(seconds) - seconds[3] - seconds[4], sum(seconds), sum(os.times()[:4])


class _Working:
    def __init__(self, connection: Connection, plan: Plan) -> None:
        self._plan = plan
        self._payload = payload(1)
        self._append = connection.append
        self._claim = connection.claim_and_complete
        self._tasks = array("q")
        self.once: Callable[[], bool] = self._claimed if plan.tasks else self._appended
        self._warmed = sum(self.once() for _ in range(_WARMING))
        self._durations = array("q", bytes(8 * plan.operations_max))

    def until_closing(self, begin_ns: int) -> Work:
        clock, once, durations = time.perf_counter_ns, self.once, self._durations
        end_ns = begin_ns + int(self._plan.seconds * 1e9)
        time.sleep(max(0, begin_ns - clock()) / 1e9)
        count = in_time = 0
        now = begun = clock()
        while now < end_ns and count < self._plan.operations_max and once():
            now = clock()
            durations[count] = now - begun
            begun = now
            count += 1
            in_time += now <= end_ns
        return Work(
            warmed=self._warmed, in_time=in_time, ended_ns=now, durations_ns=durations[:count], tasks=self._tasks
        )

    def _appended(self) -> bool:
        self._append(self._payload)
        return True

    def _claimed(self) -> bool:
        number = self._claim()
        if number is None:
            return False
        self._tasks.append(number)
        return True


def _compare(peer: Peer, done: str, acknowledged: int, found: int) -> None:
    if acknowledged != found:
        raise AssertionError(f"{peer.name}: {acknowledged} {done} and acknowledged, {found} found")


def _measured(works: Sequence[Work], plan: Plan, begin_ns: int, twice: int, others: float) -> Measured:
    durations = sorted(duration for work in works for duration in work.durations_ns)
    if not durations:
        raise TimeoutError(f"no operation ended within {plan.seconds} s: measure longer")
    counts = [work.in_time for work in works]
    elapsed_ns = min(plan.seconds * 1e9, max(work.ended_ns for work in works) - begin_ns)
    return Measured(
        per_second=sum(counts) / elapsed_ns * 1e9,
        p50_ns=percentile(durations, 0.5),
        p99_ns=percentile(durations, 0.99),
        longest_ns=durations[-1],
        fairness=min(counts) / max(1, *counts),
        operations=len(durations),
        twice=twice,
        others=others,
    )
