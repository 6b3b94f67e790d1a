"""Who was stopped while it kept others from writing is freed of its turn, if it is one of ours; else it is named."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from coordination.env import REAL
from coordination.errors import LockHeld, OutcomeUnknown, Refused
from coordination.log.file import FileLog, create
from coordination.log.turns import Turns
from coordination.testing.operations import appended

TIMES = {1: 2, 2: 50}
BOUND_SECONDS = 10.0  # generous: what it really takes is told as a figure

# Stops itself before a gesture: the first of a kind, or the k-th of all.
HOLDER = """
import os, signal, sys
from pathlib import Path
from coordination.testing.gestures import Noticing
from coordination.log.file import FileLog
from coordination.testing.operations import appended

class Stopping(Noticing):
    armed, count = False, 0
    def noticed(self, gesture, arguments):
        self.count += self.armed
        if self.armed and sys.argv[2] in (gesture, str(self.count)):
            self.armed = False
            os.write(1, b"x")
            if sys.argv[4] == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            else:
                os.read(0, 1)

env = Stopping()
log = FileLog(Path(sys.argv[1]), env=env, ours=sys.argv[3] == "ours")
appended(log, b'{"by":"holder, before"}')
if sys.argv[5] == "later":
    os.write(1, b"r")
    os.read(0, 1)
env.armed = True
appended(log, b'{"by":"holder, stopped"}')
os.write(1, b"y")
"""
GESTURES = 28  # of an append by one who is alone
INSIDE = {"append.lock": "write", "sync.lock": "sync_data"}


@contextmanager
def holder(
    directory: Path,
    before: str,
    *,
    ours: str = "ours",
    how: str = "stop",
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not go on in the middle of its turn; ``meanwhile`` comes between two appends of its."""
    arguments = [str(directory), INSIDE.get(before, before), ours, how, "later" if meanwhile else "now"]
    command = [sys.executable, "-c", HOLDER, *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        if meanwhile is not None:
            assert os.read(child.stdout.fileno(), 1) == b"r"
            meanwhile()
            os.write(child.stdin.fileno(), b"x")
        assert select.select([child.stdout], [], [], 20)[0], "the holder did not get so far"
        assert os.read(child.stdout.fileno(), 1) == b"x"
        if how == "stop":
            wait_for(lambda: REAL.process_stopped(child.pid))
        yield child
    finally:
        child.kill()
        child.communicate()


def wait_for(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not claim():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.001)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create(tmp_path / "log")
    return tmp_path / "log"


def batches(log: FileLog) -> list[bytes]:
    return [payload for _, payload in log.read(0, upto="durable")]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lock", INSIDE)
def test_one_of_ours_that_was_stopped_is_killed(
    directory: Path, lock: str, tier: int, figure: Callable[..., None]
) -> None:
    """Stopped in its turn and registered as ours: it is killed, the others go on, and nothing acknowledged is lost."""
    took: list[float] = []
    for number in range(TIMES[tier]):
        with holder(directory, lock) as child:
            log = FileLog(directory)
            begun = time.monotonic()
            appended(log, b'{"by":"us","n":%d}' % number)
            took.append(time.monotonic() - begun)
            assert child.wait(timeout=BOUND_SECONDS) == -signal.SIGKILL
            found = batches(log)
            log.close()
        assert found[-1] == b'{"by":"us","n":%d}' % number
        assert found.count(b'{"by":"holder, before"}') == number + 1
    note = f"longest {max(took):.2f} s until an append that waited was durable"
    figure("G10", f"stopped inside {lock}, ours", len(took), note=note)
    assert max(took) < BOUND_SECONDS


@pytest.mark.timeout(600)
def test_one_of_ours_may_stop_anywhere(tmp_path: Path, tier: int, figure: Callable[..., None]) -> None:
    """Stopped before any gesture of an append: its turn is freed, the others never wait, and nothing is lost."""
    gestures = range(1, GESTURES + 1, {1: 3, 2: 1}[tier])
    with ThreadPoolExecutor(4) as threads:
        ends = list(threads.map(lambda at: stopped_at(tmp_path / f"log-{at}", at), gestures))
    freed = ends.count("freed")
    figure("G10", "stopped before any gesture of an append, ours", len(ends), violations=len(ends) - freed)
    assert freed == len(ends)


def stopped_at(directory: Path, gesture: int) -> str:
    """What became of one that was stopped there, when somebody else had written before it."""
    create(directory)
    log = FileLog(directory, ours=True)
    with holder(directory, str(gesture), meanwhile=lambda: appended(log, b'{"by":"us"}')):
        begun = time.monotonic()
        try:
            appended(log, b'{"by":"us, again"}')
            end = "freed"
        except (LockHeld, OutcomeUnknown):
            end = "named"
        assert time.monotonic() - begun < BOUND_SECONDS
    appended(log, b'{"by":"us, in the end"}')
    found = batches(log)
    log.close()
    assert found[:2] == [b'{"by":"holder, before"}', b'{"by":"us"}']
    assert found[-1] == b'{"by":"us, in the end"}'
    assert end == "named" or b'{"by":"us, again"}' in found
    return end


def test_who_cannot_sync_does_not_deny_what_it_wrote(directory: Path) -> None:
    """Refused means not appended: a line that was written and waits for a stranger's sync is an unknown outcome."""
    with holder(directory, "sync.lock", ours="not ours") as child:
        log = FileLog(directory)
        with pytest.raises(Refused) as raised:
            appended(log, b'{"by":"us"}')
        child.send_signal(signal.SIGCONT)
        assert child.wait(timeout=BOUND_SECONDS) == 0
        log.settle()
        found = batches(log)
        log.close()
    assert isinstance(raised.value, OutcomeUnknown) or b'{"by":"us"}' not in found


def test_one_of_ours_is_known_to_who_comes_first(directory: Path) -> None:
    """A connection that has never read anything knows one of ours as well."""
    with holder(directory, "append.lock"):
        log = FileLog(directory)
        appended(log, b'{"by":"us"}')
        log.close()


@pytest.mark.parametrize("lock", INSIDE)
def test_somebody_elses_process_is_named_and_left_alone(
    directory: Path, lock: str, figure: Callable[..., None]
) -> None:
    """Stopped and not registered: who waits is refused with the number of the process, which lives and can go on."""
    with holder(directory, lock, ours="not ours") as child:
        log = FileLog(directory)
        with pytest.raises(Refused, match=str(child.pid)) as refused:
            appended(log, b'{"by":"us"}')
        held = refused.value if lock == "append.lock" else refused.value.__cause__
        assert isinstance(held, LockHeld)
        assert held.holder == str(child.pid)
        assert REAL.process_stopped(child.pid)
        child.send_signal(signal.SIGCONT)
        assert child.wait(timeout=BOUND_SECONDS) == 0
        assert b'{"by":"holder, stopped"}' in batches(log)
        appended(log, b'{"by":"us, again"}')
        log.close()
    figure("G10", f"stopped inside {lock}, not ours", 1, note="refused, naming it; not killed")


def test_a_traced_process_is_not_killed(directory: Path, figure: Callable[..., None]) -> None:
    """A debugger looks at one of ours that is in its turn: that is no stop, and who waits waits until it is over."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    with holder(directory, "append.lock", how="wait") as child, traced(child.pid):
        turns = turns_of(directory)
        wait_for(lambda: state(child.pid) == "t")
        turns._look_at_holder()
        turns.close()
        assert child.poll() is None
    figure("G10", "traced inside append.lock", 1, note="not killed")


@contextmanager
def traced(pid: int) -> Iterator[None]:
    """Hold a process in the state of one that is traced and does not run."""
    attach = f"""
import ctypes, os, sys
ptrace = ctypes.CDLL(None, use_errno=True).ptrace
ptrace.argtypes = [ctypes.c_long] * 4
if ptrace(16, {pid}, 0, 0):
    sys.exit(os.strerror(ctypes.get_errno()))
os.waitpid({pid}, 0)
os.write(1, b"x")
os.read(0, 1)
ptrace(17, {pid}, 0, 0)
"""
    debugger = subprocess.Popen([sys.executable, "-c", attach], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert debugger.stdout is not None
    if os.read(debugger.stdout.fileno(), 1) != b"x":
        debugger.communicate()
        pytest.skip("no process may be traced here")
    try:
        yield
    finally:
        debugger.communicate(b"x")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def turns_of(directory: Path) -> Turns:
    """The append turn as another connection sees it."""
    return Turns(directory / "append.lock", env=REAL)
