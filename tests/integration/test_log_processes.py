"""Many processes on one log, killed anywhere: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordination.errors import Conflict
from coordination.log.file import FileLog, create

# Counts every gesture of the kernel and kills itself at the k-th; says on stdout what was acknowledged.
SUICIDE = """
import os, signal, sys
from pathlib import Path
from coordination.env import Env
from coordination.log.file import FileLog

class Cut(Env):
    left = -1
    def _gesture(self):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1

def counted(name):
    real = getattr(Env, name)
    def gesture(self, *arguments):
        self._gesture()
        if name == "write" and self.left < 0 and self.torn:
            real(self, arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *arguments)
    return gesture

for name in ("open_existing", "open_write", "create", "write", "sync", "sync_data", "rename", "sync_directory",
             "lock", "unlock", "store", "list_directory"):
    setattr(Cut, name, counted(name))

env = Cut()
env.torn = sys.argv[4] == "torn"
log = FileLog(Path(sys.argv[1]), env=env, segment_bytes=int(sys.argv[2]))
if sys.argv[5] == "recover":
    (Path(sys.argv[1]) / "page").unlink()
    log.settle()
    (Path(sys.argv[1]) / "page").unlink()
head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
env.left = int(sys.argv[3])
if sys.argv[5] == "recover":
    log.settle()
    list(log.read(0, upto="head"))
print(log.append(b'{"by":"suicide"}', after=head), flush=True)
"""

COUNTER = """
import sys
from pathlib import Path
from coordination import log as logs
from coordination.model.events import CoordinationPaused, canonical
from coordination.store import Store

class Counts:
    name, version = "counts", 1
    def initial(self): return {}
    def fold(self, state, record):
        state[record.event.reason] = state.get(record.event.reason, 0) + 1
        return state
    def dump(self, state): return canonical(state)
    def load(self, data): raise NotImplementedError

name, transactions = sys.argv[2], int(sys.argv[3])
store = Store(logs.connect("file:" + sys.argv[1]), Counts(), None, lambda: 1.0)
input()
for expected in range(1, transactions + 1):
    done = store.transact(lambda state: [CoordinationPaused(reason=name)])
    assert done.state[name] == expected, (name, done.state, expected)
    assert done.seq == sum(done.state.values())
    assert store.durable >= done.seq
print(store.digest())
"""


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def append(log: FileLog, payload: bytes) -> int:
    while True:
        head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
        try:
            return log.append(payload, after=head)
        except Conflict:
            continue


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("what", "segment_bytes", "torn"),
    [("append", 1 << 20, "whole"), ("append", 1 << 20, "torn"), ("append", 1, "whole"), ("recover", 1 << 20, "whole")],
)
def test_killed_at_any_gesture_of_an_append(tmp_path: Path, what: str, segment_bytes: int, torn: str) -> None:
    """Killed before the k-th gesture, for every k: another process goes on, what was acknowledged is there once."""
    create(tmp_path)
    log = FileLog(tmp_path)
    acknowledged = [append(log, b'{"by":"us"}') for _ in range(2)]
    cuts = 0
    while True:
        child = run(SUICIDE, str(tmp_path), str(segment_bytes), str(cuts), torn, what)
        output, _ = child.communicate()
        assert child.returncode in {-9, 0}
        acknowledged += [int(line) for line in output.split()]
        acknowledged.append(append(log, b'{"by":"us"}'))
        assert len(set(acknowledged)) == len(acknowledged), f"one number acknowledged twice at cut {cuts}"
        batches = dict(log.read(0, upto="durable"))
        assert list(batches) == list(range(1, acknowledged[-1] + 1)), f"cut {cuts}"
        assert all(seq in batches for seq in acknowledged), f"cut {cuts}"
        by_us = [seq for seq, payload in batches.items() if payload == b'{"by":"us"}']
        assert len(by_us) == cuts + 3, f"cut {cuts}"
        if child.returncode == 0:
            break
        cuts += 1
    log.close()
    assert cuts > 15


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_eight_processes_transact_at_once(tmp_path: Path) -> None:
    """Eight writers with 500 transactions each: no loss, no gap, one order, every line JSON, one state for all."""
    processes, transactions = 8, 500
    create(tmp_path / "log")
    children = [run(COUNTER, str(tmp_path / "log"), f"p{n}", str(transactions)) for n in range(processes)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    log = FileLog(tmp_path / "log")
    reasons = [json.loads(payload)["events"][0]["reason"] for _, payload in log.read(0, upto="durable")]
    assert len(reasons) == processes * transactions
    assert all(reasons.count(f"p{n}") == transactions for n in range(processes))
    lines = [json.loads(line) for line in (tmp_path / "log" / f"{1:020d}.jsonl").read_bytes().split()]
    assert lines[0]["format"] == "coordination-log-1"
    assert [line["seq"] for line in lines[1:]] == list(range(1, len(reasons) + 1))
    log.close()
