"""Nobody who descends from a run outlives it, however he hides; and nobody else is touched."""

from __future__ import annotations

import json
import os
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


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("env -u MARK {asks}", "above"),
        ("env -i setsid {asks}", "above"),
        ("env MARK=own {asks}", "above"),
        ("env -i sh -c 'env MARK=nearer sh -c \"env -i {asks}; true\"; true'", "nearer"),
    ],
)
def test_an_ancestor_is_found_by_what_it_was_started_with(tmp_path: Path, call: str, found: str) -> None:
    """Whatever the processes between have made of their environment; what we carry ourselves is another question."""
    (tmp_path / "asks.py").write_text("from coordination import kin\nprint(kin.carried_above('MARK'))\n")
    command = ["sh", "-c", f"{call.format(asks=f'{sys.executable} {tmp_path}/asks.py')}; true"]
    marked = {"MARK": "above", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=marked, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == f"{found}\n", done.stderr


def test_an_ancestor_that_dies_while_it_is_looked_at_hides_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first parent is gone when it is asked for; whoever is given us then is asked instead, and not for ever."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    parents = iter([gone.pid, gone.pid, os.getpid()])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    assert kin.carried_above("PATH") == os.environ["PATH"]
    monkeypatch.setattr(os, "getppid", lambda: gone.pid)
    assert kin.carried_above("PATH") == "?"


def test_who_descends_from_nobody_with_it_is_free() -> None:
    """Up to the first process of all, that of others included."""
    assert kin.carried_above("NOBODY_EVER_CARRIED_THIS") == ""
