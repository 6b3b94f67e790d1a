"""What a run leaves behind is killed, wherever it fled to, and nobody waits for what others must bury."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest

from coordination.environment import MARKER
from coordination.supervisor.children import REAP_SECONDS, reap

# Its child carries the mark, in a session of its own; the parent does not, and never waits for it.
PARENT = """
import os, subprocess, sys
child = subprocess.Popen(["sleep", "60"], env={**os.environ, sys.argv[1]: sys.argv[2]}, start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def marker() -> str:
    return f"{uuid.uuid4()}/T.1.work"


@pytest.fixture
def child(marker: str) -> Iterator[psutil.Process]:
    """A process with the mark whose parent will not collect it."""
    argv = [sys.executable, "-c", PARENT, MARKER, marker]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        yield psutil.Process(int(parent.stdout.readline()))
        parent.kill()


def test_a_dead_process_that_its_parent_does_not_collect_is_not_waited_for(child: psutil.Process, marker: str) -> None:
    """The loop goes on at once, also where the first process of a container collects nobody."""
    began = time.monotonic()
    assert reap(marker) == 1
    assert time.monotonic() - began < REAP_SECONDS / 2
    assert child.status() == psutil.STATUS_ZOMBIE


def test_only_what_carries_the_very_mark_is_killed(child: psutil.Process, marker: str) -> None:
    """Another run's process, and our own, are left alone."""
    assert reap(f"{marker}x") == 0
    assert reap(marker.rpartition("/")[0]) == 0
    assert child.status() != psutil.STATUS_ZOMBIE
    assert os.getpid() in psutil.pids()
