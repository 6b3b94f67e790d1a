"""Nobody who descends from a run outlives it, however he hides; and nobody else is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from coordination import kin

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives orphans away")

# a child that leaves its session and its environment behind, and whose parents all end at once
FLEES = "env -i setsid sh -c 'sleep {seconds} & echo > fled; sleep {seconds}' & exit 0"
ENDS = """
import json, pathlib, subprocess, sys
from coordination import kin
assert kin.adopt_orphans() and kin.adopting()
spared = subprocess.Popen(["sleep", "86302"])
subprocess.run(["sh", "-c", sys.argv[1]], check=True)
while not pathlib.Path("fled").exists():
    pass
ended = kin.end_orphans([spared.pid])
left = kin.children()
alive = spared.poll() is None
spared.kill(); spared.wait()
print(json.dumps({"ended": ended, "left": left, "spared": [spared.pid], "alive": alive}))
"""


def sleeping(seconds: int) -> list[int]:
    """Living processes that sleep for exactly so long."""
    wanted = ["sleep", str(seconds)]
    return [process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == wanted]


def test_whoever_fled_is_ended_and_collected_and_the_spared_live(tmp_path: Path) -> None:
    """Two sleepers and their shell, in another session without our environment, are gone, and no zombie is left."""
    command = [sys.executable, "-c", ENDS, FLEES.format(seconds=86301)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ended"] >= 2
    assert told["left"] == told["spared"]
    assert told["alive"]
    assert sleeping(86301) == []


def test_who_did_not_ask_is_given_nobody_and_ends_nobody() -> None:
    """The tests themselves have children that are not theirs to kill."""
    assert not kin.adopting()
    child = subprocess.Popen(["sleep", "86303"])
    try:
        assert child.pid in kin.children()
        assert kin.end_orphans() == 0
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
