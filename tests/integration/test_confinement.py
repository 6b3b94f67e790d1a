"""What a run may take of the machine: real groups of the kernel, real processes that want more."""

from __future__ import annotations

import fnmatch
import json
import os
import resource
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from coordination import confinement
from coordination.testing.stage import Stage

CONFINED = """
import json, os, subprocess, sys
from coordination import confinement
limits = json.loads(sys.argv[1])
entered = confinement.enter(**limits)
done = subprocess.run([sys.executable, "-c", sys.argv[2]], capture_output=True, text=True, start_new_session=True)
print(json.dumps({"entered": entered, "code": done.returncode, "said": done.stdout + done.stderr}))
"""
EATS = "pages = [b'x' * (1 << 20) for _ in range(400)]; print('ate it all')"
SPAWNS = """
import os, time
made = 0
try:
    for _ in range(50):
        if not os.fork():
            time.sleep(3)
            os._exit(0)
        made += 1
except BlockingIOError:
    print("refused after", made)
"""
WRITES = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open({path!r}, "wb") as file:
    try:
        for _ in range(8):
            file.write(b"x" * (1 << 20))
            file.flush()
    except OSError as error:
        print("refused", error.errno)
"""
RAISES = """
import os, resource
if not os.getuid():
    os.setuid(65534)
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
"""


def confined(program: str, **limits: Any) -> dict[str, Any]:
    group = f"test.{uuid.uuid4()}"
    argv = [sys.executable, "-c", CONFINED, json.dumps({"group": group, **limits}), program]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    confinement.leave(group)
    assert groups(group) == []
    return dict(json.loads(done.stdout))


def groups(name: str) -> list[Path]:
    """Groups of that name, wherever they are. Those of other tests may vanish while we look, which a walk survives."""
    walked = os.walk("/sys/fs/cgroup")
    return [Path(where, each) for where, inside, _ in walked for each in fnmatch.filter(inside, f"coordination.{name}")]


def needs(what: str) -> None:
    if what not in confinement.works():
        pytest.skip(f"the {what} of a run cannot be limited here")


def test_who_wants_more_memory_is_killed_and_nobody_else() -> None:
    """A grandchild in a session of its own is counted; the one that entered goes on and tells."""
    needs("memory")
    told = confined(EATS, memory_bytes=100 << 20)
    assert told == {"entered": ["memory"], "code": -9, "said": ""}
    assert confined(EATS, memory_bytes=1 << 30)["said"] == "ate it all\n"


def test_a_fork_bomb_is_contained() -> None:
    """Of fifty processes only as many are made as fit beside those that are there."""
    needs("processes")
    told = confined(SPAWNS, processes=12)
    assert told["entered"] == ["processes"]
    assert told["said"] == "refused after 10\n"


def test_a_file_cannot_grow_for_ever(tmp_path: Path) -> None:
    """Everywhere, by a limit of the system's."""
    told = confined(WRITES.format(path=str(tmp_path / "file")), file_bytes=2 << 20)
    assert told["said"].startswith("refused")
    assert (tmp_path / "file").stat().st_size == 2 << 20


def test_a_limit_cannot_be_raised_again() -> None:
    """By nobody without privileges; the tests may have some, so the one who tries gives them away first."""
    told = confined(RAISES, file_bytes=2 << 20)
    assert "not allowed to raise" in told["said"]
    assert told["code"] != 0


def test_no_core_is_dumped() -> None:
    """It would hold the key of the service."""
    said = confined("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))")["said"]
    assert said == "(0, 0)\n"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY, "only who asked is limited"


def test_without_a_name_there_is_no_group() -> None:
    """A request of an older supervisor names none, and is not limited."""
    told = confined("print('fine')", group="", memory_bytes=1 << 20, processes=1)
    assert told == {"entered": [], "code": 0, "said": "fine\n"}


def test_a_gate_that_eats_everything_fails_alone(tmp_path: Path) -> None:
    """With a real supervisor and worker: the gate is killed, the task is tried again and fails; no group is left."""
    needs("memory")
    settings = {
        "agents": {"backend": "scripted", "memory_gib": 0.1},
        "gates": {"default": ["eats"], "eats": [sys.executable, "-c", EATS]},
        "retry": {"backoff_seconds": 0.05},
        "supervisor": {"poll_seconds": 0.1},
    }
    stage = Stage(tmp_path, settings=settings).build()
    script = json.dumps({"write": {"new.txt": "new"}, "report": "done"})
    stage.drop(id="T", review="never", attempts_max=1, prompt=f"Do it.\n```script\n{script}\n```")
    try:
        stage.run(code=1)
        (gate, *_) = (event["outcome"] for event in stage.events("RunEnded") if event["run"].endswith(".gate"))
        assert gate["gates"][0]["exit_code"] == 128 + 9
        assert stage.show("T")["state"] == "failed"
        assert groups(f"{stage.uuid}.*") == []
        assert list((stage.state / "scratch").iterdir()) == []
    finally:
        stage.close()
