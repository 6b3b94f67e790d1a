"""What does the kernel do when the system refuses? Every system call of every operation fails, once and from then on.

One warm process forks a child for each case. The child makes an operation ready and waits; strace attaches to it, so
that nothing but the operation is counted; the n-th call of one kind then fails with an error of our choice, on the
real interpreter. Afterwards a process without the fault must find everything that was acknowledged, nothing that was
refused, and be able to go on; and what was raised must be an error that says something.

A first run without a fault tells which calls an operation makes (``calls``). strace skips a call that it lets fail,
which is what a failing one mostly is: not done.

    python -m coordination.testing.syscalls --cases 300 --seed 7
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import CoordinationError, OutcomeUnknown
from coordination.log.file import FileLog, create
from coordination.store import SnapshotDirectory
from coordination.testing import history
from coordination.testing.history import Event
from coordination.testing.operations import OPERATIONS, PROJECTION, SNAPSHOTS, appended, log_of, saved

ERRORS: Mapping[str, tuple[str, ...]] = {
    "openat": ("EIO", "ENOSPC", "ENOMEM", "EMFILE", "ENFILE", "EACCES", "EINTR"),
    "pread64": ("EIO", "ENOMEM", "EINTR"),
    "pwrite64": ("ENOSPC", "EIO", "EDQUOT", "EFBIG", "EINTR"),
    "fdatasync": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT", "EINTR"),
    "rename": ("EIO", "ENOSPC", "ENOMEM", "EROFS"),
    "fcntl": ("EIO", "ENOLCK", "ENOMEM", "EMFILE", "EINTR"),
    "ftruncate": ("EIO", "ENOSPC", "EINTR"),
    "mmap": ("ENOMEM", "EMFILE", "EACCES"),
    "munmap": ("ENOMEM",),
    "futex": ("ENOMEM", "EINTR", "EAGAIN"),
    "unlink": ("EIO", "ENOSPC", "EROFS"),
    "mkdir": ("EIO", "ENOSPC", "EROFS"),
    "getdents64": ("EIO", "ENOMEM"),
    "newfstatat": ("EIO", "ENOMEM"),
    "fstat": ("EIO", "ENOMEM"),
    "lstat": ("EIO", "ENOMEM"),
    "stat": ("EIO", "ENOMEM"),
    "read": ("EIO", "EINTR"),
    "close": ("EIO", "ENOSPC", "EINTR"),
}
_RETRIED_FOR_EVER = "EINTR"  # the interpreter tries again: from then on would be a loop
_BEFORE = (b'{"v":"before 1"}', b'{"v":"before 2"}')
_VALUE = "during"
_AFTER = "after"
_PATIENCE_SECONDS = 100.0  # longer than the log's own
_LINE = re.compile(r"(?:\d+ +)?(\w+)\((.*)")
_NAMELESS = re.compile(r".*, -1, 0\) +=")  # a mapping of no file: the interpreter's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One system call that an operation makes: which one of its kind it is, counted from 1, and how it looked."""

    name: str
    number: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What fails where."""

    operation: str
    call: str
    number: int
    error: str
    lasting: bool  # from then on, not only once

    @property
    def injection(self) -> str:
        """As strace takes it."""
        return f"inject={self.call}:error={self.error}:when={self.number}{'+' if self.lasting else ''}"


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the child says became of its operation."""

    seq: int | None = None
    error: str = ""  # the class of what was raised
    message: str = ""
    known: bool = True  # whether it is an error of ours or the system's
    maybe: bool = False  # whether it says that the outcome is unknown


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run tried and found."""

    seed: int
    matrix: int = 0  # how many there are
    cases: int = 0
    tried: list[str] = field(default_factory=list)
    failed: int = 0  # operations that raised
    unhurt: int = 0  # operations that got over it
    raised: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)


def missing() -> str:
    """Why nothing can be traced here; "" when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace here: {probe.stderr.strip()}" if probe.returncode else ""


# ---- a traced child --------------------------------------------------------------------------------------------------


def calls(operation: str, env: Env = REAL) -> list[Call]:
    """The system calls that an operation makes when nothing fails, in order."""
    with at_work(operation) as place:
        trace = place / "trace"
        names = ",".join(ERRORS)
        outcome, _ = _traced(operation, place, ["-e", f"trace=?{names.replace(',', ',?')}", "-o", str(trace)], env)
        assert not outcome.error, outcome
        return list(_parsed(trace.read_text().splitlines()))


def _parsed(lines: Sequence[str]) -> Iterator[Call]:
    counted: Counter[str] = Counter()
    for line in lines:
        matched = _LINE.match(line)
        if matched is None:
            continue
        counted[matched[1]] += 1
        if not _NAMELESS.match(line):
            yield Call(name=matched[1], number=counted[matched[1]], text=matched[2])


@contextmanager
def at_work(operation: str) -> Iterator[Path]:
    """A place with a log of two batches and two snapshots; with nothing, when the operation is to make the log."""
    with tempfile.TemporaryDirectory(prefix="syscalls-") as directory:
        place = Path(directory)
        if operation != "create":
            create(log_of(place))
            log = FileLog(log_of(place))
            for payload in _BEFORE:
                appended(log, payload)
            log.close()
            for number in (1, 2):
                SnapshotDirectory(place / SNAPSHOTS).save(saved(number))
            files.publish(place / "published", b"old")
        yield place


def _traced(operation: str, place: Path, options: Sequence[str], env: Env = REAL) -> tuple[Outcome, int]:
    """Do the operation in a child under strace; what became of it, and how the child ended."""
    go, ready, told = os.pipe(), os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_child(operation, place, env, go[0], ready[1], told[1])
    for descriptor in (go[0], ready[1], told[1]):
        os.close(descriptor)
    assert os.read(ready[0], 1), "the child could not make its operation ready"
    tracer = subprocess.Popen(["strace", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    attached = tracer.stderr.readline()
    assert "attached" in attached, attached
    os.write(go[1], b"x")
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS)
    _, status = os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    tracer.communicate()
    outcome = os.read(told[0], 1 << 16)  # the child is gone, so there is all of it or nothing
    for descriptor in (go[1], ready[0], told[0]):
        os.close(descriptor)
    code = os.waitstatus_to_exitcode(status)
    return msgspec.json.decode(outcome, type=Outcome) if outcome else Outcome(error="nothing was said"), code


def _be_child(operation: str, place: Path, env: Env, go: int, ready: int, told: int) -> None:
    code = 1
    try:
        do = OPERATIONS[operation](place, env, b'{"v":"%b"}' % _VALUE.encode())
        os.write(ready, b"x")
        os.readv(go, [bytearray(1)])  # a call that the operation does not make: strace may come before or after it
        os.write(told, msgspec.json.encode(_outcome(do)))
        code = 0
    finally:
        os._exit(code)


def _outcome(do: Callable[[], int | None]) -> Outcome:
    try:
        return Outcome(seq=do())
    except (CoordinationError, OSError) as error:
        return Outcome(error=type(error).__name__, message=str(error), maybe=isinstance(error, OutcomeUnknown))
    except BaseException as error:  # noqa: BLE001 # that nothing else is raised is the claim
        return Outcome(error=type(error).__name__, message=repr(error), known=False)


# ---- the matrix ------------------------------------------------------------------------------------------------------


def matrix() -> list[Case]:
    """Every call of every operation with every error that it can give, once and lasting."""
    return [
        Case(operation=operation, call=call.name, number=call.number, error=error, lasting=lasting)
        for operation in OPERATIONS
        for call in calls(operation)
        for error in ERRORS[call.name]
        for lasting in (False, True)
        if not (lasting and error == _RETRIED_FOR_EVER)
    ]


def run(cases: int, seed: int, part: int = 0, parts: int = 1) -> Report:
    """So many cases of the matrix in an order that the seed decides, or one of several parts of them."""
    report = Report(seed=seed)
    REAL.wake(memoryview(bytearray(8)).cast("Q"), 0, 1)  # what this imports is not to be imported in a child
    every = matrix()
    report.matrix = len(every)
    for case in sorted(every, key=lambda case: _place_in_order(case, seed))[:cases]:
        if _place_in_order(case, 0) % parts == part:
            try_case(case, report)
    return report


def _place_in_order(case: Case, seed: int) -> int:
    """Of the case alone: processes that share the work must agree, also when one of them saw a call more."""
    return zlib.crc32(f"{seed} {case}".encode())


def try_case(case: Case, report: Report, env: Env = REAL) -> None:
    """Do the operation with the fault, look at what is left without it, and go on with that."""
    with at_work(case.operation) as place:
        options = ["-e", f"trace={case.call}", "-e", case.injection, "-o", os.devnull]
        outcome, code = _traced(case.operation, place, options, env)
        report.cases += 1
        report.tried.append(str(case))
        report.calls[f"{case.operation}: {case.call}"] += 1
        report.failed += bool(outcome.error)
        report.unhurt += not outcome.error
        if outcome.error:
            report.raised[outcome.error] += 1
        report.violations += [f"{case}: {what} ({outcome})" for what in _wrong(case, place, outcome, code)]


def _wrong(case: Case, place: Path, outcome: Outcome, code: int) -> Iterator[str]:
    if code != 0:
        yield f"the child ended with {code}"
    if outcome.error and not (outcome.known and " " in outcome.message):
        yield "this is no error that says something"
    try:
        number = _go_on(place)
    except (CoordinationError, OSError) as error:
        yield f"a process without the fault cannot go on: {error!r}"
        return
    yield from _judged(case, place, outcome, number)
    yield from _kept(place, case, outcome)


def _go_on(place: Path) -> int:
    create(log_of(place))
    log = FileLog(log_of(place))
    try:
        number = appended(log, b'{"v":"%b"}' % _AFTER.encode())
        assert log.durable == number, "what was acknowledged must be durable"
    finally:
        log.close()
    SnapshotDirectory(place / SNAPSHOTS).save(saved(1 << 10))
    files.publish(place / "published again", b"new")
    return number


def _judged(case: Case, place: Path, outcome: Outcome, number: int) -> Iterator[str]:
    """Whether the log keeps its word, by the independent checker."""
    events = []
    if case.operation != "create":
        for at, payload in enumerate(_BEFORE):
            value = msgspec.json.decode(payload)["v"]
            events += [Event("before", 2 * at, "invoke", value), Event("before", 2 * at + 1, "ok", value, at + 1)]
    events.append(Event("during", 10, "invoke", _VALUE))
    if outcome.seq is not None:
        events.append(Event("during", 11, "ok", _VALUE, outcome.seq))
    elif outcome.error:
        events.append(Event("during", 11, "unknown" if outcome.maybe else "refused", _VALUE))
    events += [Event("after", 20, "invoke", _AFTER), Event("after", 21, "ok", _AFTER, number)]
    try:
        raw = history.raw_batches(log_of(place))
    except history.NotALog as error:
        yield f"not a log any more: {error}"
        return
    final = [(seq, msgspec.json.decode(payload)["v"]) for seq, payload in raw]
    yield from (violation.message for violation in history.violations(events, final))


def _kept(place: Path, case: Case, outcome: Outcome) -> Iterator[str]:
    """Whether snapshots and published files are whole, the old or the new one, and the new one when so said."""
    if case.operation == "create":
        return
    published = files.read(place / "published")
    new = b'{"v":"%b"}' % _VALUE.encode()
    done = case.operation == "publish" and not outcome.error
    if published not in ({new} if done else {b"old", new}):
        yield f"the published file holds {published!r}"
    directory = SnapshotDirectory(place / SNAPSHOTS)
    found = directory.newest(PROJECTION, 1, log="any", seq_max=(1 << 10) - 1)
    if found is None or found.state != saved(found.seq).state:
        yield f"no whole snapshot is left: {found}"
    elif case.operation == "snapshot" and not outcome.error and found.seq == 2:
        yield "the snapshot that was saved is not there"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print the report as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m coordination.testing.syscalls", description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=int, default=0, help="of so many parts this one, counted from 0")
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args(arguments)
    report = run(options.cases, options.seed, options.part, options.parts)
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
