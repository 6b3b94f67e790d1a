"""When the system refuses a call, the log says so, keeps what it acknowledged, and goes on afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.env import Env
from coordination.testing import syscalls
from coordination.testing.syscalls import Case

CASES = {1: 400, 2: 100_000}  # tier 2: all there are
PARTS = 4  # at once: a case mostly waits for strace
COMMAND = [sys.executable, "-m", "coordination.testing.syscalls"]


@pytest.fixture(autouse=True)
def _strace() -> None:
    if reason := syscalls.missing():
        pytest.skip(reason)


def reports(cases: int, seed: int) -> list[dict[str, Any]]:
    arguments = ["--cases", str(cases), "--seed", str(seed), "--parts", str(PARTS)]
    running = [
        subprocess.Popen([*COMMAND, *arguments, "--part", str(part)], stdout=subprocess.PIPE) for part in range(PARTS)
    ]
    return [json.loads(child.communicate()[0]) for child in running]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_call_may_fail(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Whichever call fails, once or from then on: no loss, no phantom, an error that says what, and the log goes on."""
    found = reports(CASES[tier], seed)
    broken = [violation for report in found for violation in report["violations"]]
    raised = sum((Counter(report["raised"]) for report in found), Counter())
    kinds = {kind for report in found for kind in report["calls"]}
    tried = [case for report in found for case in report["tried"]]
    assert len(set(tried)) == len(tried), "a case was tried by two"
    wanted = min(CASES[tier], *(report["matrix"] for report in found))
    assert len(tried) >= wanted * 0.99, "the parts leave cases out"  # a call that one process saw and another did not
    failed, unhurt = (sum(report[word] for report in found) for word in ("failed", "unhurt"))
    note = f"{len(kinds)} pairs of operation and call; {failed} raised {dict(raised.most_common())}"
    note += f", {unhurt} got over it; {wanted} wanted"
    figure("G5", "failing system calls", failed + unhurt, violations=len(broken), note=note)
    assert not broken, f"{' '.join(COMMAND[1:])} --cases {CASES[tier]} --seed {seed}: {broken[:5]}"
    assert failed > unhurt


class Deaf(Env):
    """A world that hears of no failed write."""

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        try:
            return super().write(descriptor, data, offset)
        except OSError:
            return len(data)


def test_a_write_that_fails_unheard_is_found(figure: Callable[..., None]) -> None:
    """The control: who takes a failed write for done acknowledges what is not there, and that is seen."""
    report = syscalls.Report(seed=0)
    case = Case(operation="append", call="pwrite64", number=1, error="EIO", lasting=False)
    syscalls.try_case(case, report, Deaf())
    figure("G5", "control: a failed write unheard", report.cases, note=f"{len(report.violations)} convicted")
    assert report.violations


def test_an_unlock_that_fails_is_no_failed_append() -> None:
    """The line is written when the turn ends: what comes after may not deny it."""
    unlocks = [call for call in syscalls.calls("append") if "F_UNLCK" in call.text]
    report = syscalls.Report(seed=0)
    for call in unlocks:
        case = Case(operation="append", call="fcntl", number=call.number, error="ENOLCK", lasting=False)
        syscalls.try_case(case, report)
    assert not report.violations


def test_a_directory_that_cannot_be_looked_at_is_an_error_of_the_system() -> None:
    """When no directory can be looked at, making one raises OSError."""
    report = syscalls.Report(seed=0)
    case = Case(operation="create", call="newfstatat", number=1, error="EIO", lasting=True)
    syscalls.try_case(case, report)
    assert not report.violations


@pytest.mark.parametrize("operation", ["append", "append first", "roll", "append to unfinished", "create", "snapshot"])
def test_the_system_is_asked_what_the_gate_was_asked(
    operation: str, tmp_path: Path, figure: Callable[..., None]
) -> None:
    """Fidelity: the calls of the real interpreter are those that the kernel's gestures are made of, in their order."""
    env = Told(os.open(tmp_path / "gestures", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    made = [call.name for call in syscalls.calls(operation, env)]
    os.close(env.told)
    asked = list(expected((tmp_path / "gestures").read_text().split()))
    figure("G5", f"fidelity: {operation}", len(made), note="system calls, as the gestures say")
    assert made == asked[-len(made) :]  # before them come those that made the operation ready


class Told(Env):
    """The real world; writes down every gesture, also those that only look, with a call that none is made of."""

    def __init__(self, told: int) -> None:
        self.told = told


def _telling(name: str) -> Callable[..., Any]:
    real = getattr(Env, name)

    def gesture(self: Told, *arguments: Any) -> Any:
        os.write(self.told, f"{name} ".encode())
        return real(self, *arguments)

    return gesture


for _name, _value in vars(Env).items():
    if callable(_value) and not _name.startswith("_"):
        setattr(Told, _name, _telling(_name))

_STATUS, _READ_WHOLE = "newfstatat", ("openat", "newfstatat", "newfstatat", "read", "read", "close")
MADE_OF: dict[str, tuple[str, ...]] = {
    "open_read": ("openat",),
    "open_write": ("openat",),
    "open_existing": ("openat",),
    "create": ("openat",),
    "close": ("close",),
    "read": ("pread64",),
    "write": ("pwrite64",),
    "size": (_STATUS,),
    "sync": ("fsync",),
    "sync_data": ("fdatasync",),
    "rename": ("rename",),
    "unlink": ("unlink",),
    "make_directory": ("mkdir",),
    "list_directory": ("openat", _STATUS, "getdents64", "getdents64", "close"),
    "sync_directory": ("openat", "and sync", "close"),
    "is_directory": (_STATUS,),
    "file_id": (_STATUS,),
    "file_id_at": (_STATUS,),
    "names_stamp": (_STATUS,),
    "try_lock": ("fcntl",),
    "unlock": ("fcntl",),
    "map_shared": (_STATUS, "fcntl", "mmap"),  # the interpreter keeps a descriptor of its own
    "unmap": ("close", "munmap"),
    "wake": ("futex",),
    "boot_id": _READ_WHOLE,
    "process_start": (_STATUS, *_READ_WHOLE),
}
MEMORY_ONLY = {"store", "store_many", "pid", "random_hex", "uuid", "monotonic"}


def expected(gestures: list[str]) -> Iterator[str]:
    """The calls that these gestures are made of; one that contains another is told before it."""
    rest = iter(gestures)
    for gesture in rest:
        for call in () if gesture in MEMORY_ONLY else MADE_OF[gesture]:
            within = call.removeprefix("and ")
            if within == call:
                yield call
            else:
                assert next(rest) == within
                yield from MADE_OF[within]
