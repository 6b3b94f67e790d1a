"""Does every peer really sync what it acknowledges? Counted from outside, by strace, over the processes it starts.

Run as ``python -m tests.benchmarks.syncs PEER OPERATION DIRECTORY COUNT`` this does the work that is traced; two calls
that ask for files that cannot be there mark where the counted part begins and ends.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.measuring import Operation
from tests.benchmarks.peers import Peer, payload
from tests.benchmarks.peers.all import PEERS

_BEGIN, _END = "/benchmark-begins", "/benchmark-ends"
OPERATIONS = 40
_SYNC = re.compile(r"\b(?:fsync|fdatasync|msync|sync_file_range)\(")
_SECONDS = 120


def missing() -> str:
    """Why syncs cannot be counted here; "" when they can."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        return "strace is not on PATH"
    tried = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "strace is too old (before 5.3), or may not trace here"


def counted(peer: Peer, operation: Operation, directory: Path, operations: int = OPERATIONS) -> float:
    """Syncs for each operation of one process; an append needs 1, a claim with its completion 2."""
    with tempfile.TemporaryDirectory(dir=directory, prefix="benchmark-") as name:
        trace = Path(name, "trace")
        calls = "trace=fsync,fdatasync,msync,sync_file_range,?access,?faccessat,?faccessat2"
        tracing = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-e", "signal=none", "-o", str(trace)]
        work = [sys.executable, "-m", __name__, peer.name, operation, name, str(operations)]
        done = subprocess.run([*tracing, *work], capture_output=True, text=True, check=False, timeout=_SECONDS)
        if done.returncode:
            raise RuntimeError(f"{peer.name}: {done.stderr}")
        return count(trace.read_text(encoding="utf-8", errors="replace")) / operations


def count(trace: str) -> int:
    """How many of a trace's syncs began between the marks."""
    begin, end = trace.index(_BEGIN), trace.index(_END)
    return len(_SYNC.findall(trace, begin, end))


def _work(name: str, operation: str, place: Path, count: int) -> None:
    peer = next(peer for peer in PEERS if peer.name == name)
    with peer.serve(place):
        peer.create(place)
        if operation != "append":
            peer.submit(place, count)
        connection = peer.connect(place, 0)
        os.access(_BEGIN, os.F_OK)
        for _ in range(count):
            if operation == "append":
                connection.append(payload(1))
            else:
                connection.claim_and_complete()
        os.access(_END, os.F_OK)
        connection.close()


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
