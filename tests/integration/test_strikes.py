"""Do the blows of our own tests meet whom they are meant for?"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from coordination.environment import MARKER
from coordination.testing.strikes import everybody

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="read from /proc")

# a worker in the moment before a child of its becomes another program: both look alike
FORKED = """
import os, sys
child = os.fork()
if child:
    print(child, flush=True)
    os.waitpid(child, 0)
else:
    sys.stdin.read()
"""


def test_a_child_that_is_no_other_program_yet_is_not_taken_for_the_worker() -> None:
    """A storm killed the git of a worker for the worker itself, and blamed the workspace that was kept."""
    stage = cast("Any", SimpleNamespace(environment={}, uuid="6f0a"))
    environment = os.environ | {MARKER: "6f0a/A.1.work"}
    with subprocess.Popen(
        [sys.executable, "-c", FORKED, "coordination.worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        child = int(parent.stdout.readline())
        found = everybody(stage)
        parent.stdin.close()
    assert child != parent.pid
    assert found == {"A.1.work": {"worker": parent.pid}}
