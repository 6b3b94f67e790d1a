"""Does ``coord repair`` find damage in a real state directory, mend it, and keep its hands off everything else?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from coordination import locks
from coordination.cli import run
from coordination.store import SnapshotDirectory, read_snapshot

Say = Callable[..., str]


@pytest.fixture
def state(repository: Path) -> Path:
    """The state directory of a coordination with three tasks, of which one is cancelled."""
    assert run(["-C", str(repository), "init"]) == 0
    for task in ("T1", "T2", "T3"):
        assert run(["-C", str(repository), "submit", "--id", task, "--title", task, f"do {task}"]) == 0
    assert run(["-C", str(repository), "cancel", "T3"]) == 0
    return repository / ".coordination"


@pytest.fixture
def coord(state: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """A command that must exit with ``code``; all that it said."""

    def say(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        found = run(["-C", str(state.parent), *arguments])
        said = capsys.readouterr()
        assert found == code, f"{arguments} exited {found}: {said.out}{said.err}"
        return said.out + said.err

    return say


def newest(state: Path) -> Path:
    return max((state / "log").glob("*.jsonl"))


def change(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


def contents(state: Path) -> dict[str, bytes]:
    return {str(path.relative_to(state)): path.read_bytes() for path in sorted(state.rglob("*")) if path.is_file()}


def damage(state: Path) -> None:
    """The batch that submitted T2."""
    change(newest(state), b'"title":"T2"', b'"title":"T\xff"')


def test_a_whole_log_needs_nothing(coord: Say) -> None:
    """Exit code 0, with and without --apply."""
    assert "Nothing to do" in coord("repair")
    assert "Nothing to do" in coord("repair", "--apply")


def test_from_damage_to_work_again(coord: Say, state: Path) -> None:
    """Refused and explained, found, repaired after a backup, and then nothing is wrong without a word."""
    damage(state)
    assert "Run: coord repair" in coord("status", code=5)
    before = contents(state)
    found = coord("repair", code=1)
    assert contents(state) == before
    assert "Lost: 2. Doubtful: none." in found
    assert "T2" in found
    assert "--apply" in found
    row = json.loads(coord("repair", "--json", code=1))
    assert (row["whole"], row["lost"], row["tasks"], row["applied"]) == (False, [[2, 2]], ["T2"], False)

    done = coord("repair", "--apply")
    assert "Everything as it was before" in done
    (backup,) = (state / "repair").iterdir()
    assert (backup / newest(state).name).exists() is False
    for name, data in before.items():
        if name.startswith("log/") and not name.endswith("page"):
            assert (state / name).read_bytes() == data
            assert (backup / Path(name).name).read_bytes() == data
    assert coord("repair").startswith("The log is whole: 4 batches")

    status = json.loads(coord("status", "--json"))
    assert status["paused"]
    assert any("T2" in warning for warning in status["warnings"])
    tasks = [json.loads(line) for line in coord("tasks", "--json").splitlines()]
    assert {row["task"]: row["state"] for row in tasks} == {"T1": "queued", "T3": "cancelled"}
    coord("submit", "--id", "T2", "--title", "T2", "do T2")
    coord("resume")
    assert "same" in coord("replay", "--verify")
    assert json.loads(coord("show", "T2", "--json"))["state"] == "queued"


def test_a_task_in_doubt_waits_for_a_person(coord: Say, state: Path) -> None:
    """The batch that cancelled T3 is lost: T3 is not queued again by itself, it asks."""
    change(newest(state), b'"type":"TaskCancelled"', b'"type":"TaskC_ncelled"')
    coord("repair", "--apply")
    (asking,) = json.loads(coord("status", "--json"))["needs_person"]
    assert asking["task"] == "T3"
    assert "batch 4 of the log is lost" in asking["reason"]
    coord("retry", "T3")
    assert json.loads(coord("show", "T3", "--json"))["state"] == "queued"


def test_what_nothing_proves_must_be_a_batch_of_events(coord: Say, state: Path) -> None:
    """Batch 2 is destroyed and so cannot prove batch 3, which is JSON and no batch: kept, it would stop every fold."""
    path = newest(state)
    line = next(raw for raw in path.read_bytes().split(b"\n") if raw.startswith(b'{"seq":2,'))
    change(path, line, bytes(len(line)))
    change(path, b'"task":"T3","spec"', b'"tusk":"T3","spec"')
    assert "Lost: 2-3. Doubtful: none." in coord("repair", "--apply")
    status = json.loads(coord("status", "--json"))
    assert any("T3" in warning for warning in status["warnings"])


def test_replay_repair_is_the_same(coord: Say, state: Path) -> None:
    """`coord replay --repair` repairs."""
    damage(state)
    assert "Repaired" in coord("replay", "--repair")
    coord("status")


def test_a_live_supervisor_is_named_and_left_alone(coord: Say, state: Path) -> None:
    """Looking is allowed, repairing is not: exit code 4, and no byte is changed."""
    program = "from coordination.locks import hold; from pathlib import Path; import sys\n"
    program += "held = hold(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    lock = state / "locks" / "supervisor.lock"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program, str(lock)], text=True, **pipes) as holder:  # type: ignore[call-overload]
        assert holder.stdout.readline() == "held\n"
        damage(state)
        before = contents(state)
        said = coord("repair", "--apply", code=4)
        assert f"pid {holder.pid}" in said
        assert "coord stop" in said
        coord("repair", code=1)
        assert contents(state) == before
        holder.stdin.close()
    assert not locks.held(lock)
    assert "Repaired" in coord("repair", "--apply")


def test_an_agent_may_look_and_not_repair(coord: Say, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person decides."""
    damage(state)
    monkeypatch.setenv("COORDINATION_RUN", "log/T1.1.work")
    coord("repair", code=1)
    assert "only a person" in coord("repair", "--apply", code=4)


def test_nothing_left_is_said_to_be_so(coord: Say, state: Path) -> None:
    """Exit code 5 and what to do; never an empty log."""
    for path in (state / "log").glob("*.jsonl"):
        path.write_bytes(bytes(100))
    assert "put the directory back from a copy" in coord("repair", code=5)
    assert "put the directory back from a copy" in coord("repair", "--apply", code=5)
    for path in (state / "log").glob("*.jsonl"):
        path.unlink()
    assert "put the directory back from a copy" in coord("repair", code=5)
    assert not (state / "repair").exists()


# ---- snapshots -------------------------------------------------------------------------------------------------------


@pytest.fixture
def snapshot(state: Path) -> Path:
    """One of the newest state."""
    from coordination.coordinator import Coordinator, locate

    coordinator = Coordinator(locate(state.parent))
    coordinator.store.snapshot()
    coordinator.store.log.close()
    (path,) = (state / "snapshots").glob("*.json")
    return path


def forged(path: Path) -> None:
    """Whole, and not what the log says."""
    found = read_snapshot(path)
    state = found.state.replace(b'"merged":0', b'"merged":7')
    assert state != found.state
    SnapshotDirectory(path.parent).save(msgspec.structs.replace(found, state=state))


def rotten(path: Path) -> None:
    change(path, b'"merged":0', b'"merged":1')


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("spoil", [forged, rotten, cut])
def test_a_bad_snapshot_is_moved_aside(coord: Say, state: Path, snapshot: Path, spoil: Callable[[Path], None]) -> None:
    """It is found, kept in quarantine, and not used any more; the log is left alone."""
    assert "Nothing to do" in coord("repair")
    spoil(snapshot)
    bad, log = snapshot.read_bytes(), contents(state / "log")
    assert snapshot.name in coord("repair", code=1)
    assert snapshot.read_bytes() == bad
    coord("repair", "--apply")
    (moved,) = (state / "snapshots" / ".quarantine").iterdir()
    assert (moved.read_bytes(), snapshot.exists()) == (bad, False)
    assert contents(state / "log") == log
    assert "Nothing to do" in coord("repair")
    assert json.loads(coord("status", "--json"))["merged"] == 0


def test_a_snapshot_knows_of_batches_that_the_log_has_lost(coord: Say, state: Path, snapshot: Path) -> None:
    """A log that was cut, without its page, would look whole to itself."""
    path = newest(state)
    lines = path.read_bytes().rstrip(b"\n").split(b"\n")
    path.write_bytes(b"\n".join(lines[:-2]) + b"\n")
    (state / "log" / "page").unlink()
    assert "Lost: 3-4." in coord("repair", code=1)
    coord("repair", "--apply")
    assert not snapshot.exists()
    assert "Nothing to do" in coord("repair")


# ---- killed ----------------------------------------------------------------------------------------------------------

SUICIDE = """
import os, shutil, signal, sys
from pathlib import Path
from coordination import repair
from coordination.env import Env
from coordination.errors import LogDamaged
from coordination.log import connect

class Cut(Env):
    left = -1

def counted(name):
    real = getattr(Env, name)
    def gesture(self, *arguments):
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return real(self, *arguments)
    return gesture

for name in ("open_write", "open_existing", "create", "write", "sync", "rename", "make_directory", "sync_directory",
             "store", "store_many", "try_lock", "list_directory", "close"):
    setattr(Cut, name, counted(name))

def log_of(state):
    log = connect(f"file:{state / 'log'}")
    try:
        return list(log.read(0, upto="head"))
    finally:
        log.close()

original, place, kills = Path(sys.argv[1]), Path(sys.argv[2]), 0
while True:
    state = place / str(kills)
    shutil.copytree(original, state)
    child = os.fork()
    if child == 0:
        env = Cut()
        env.left = kills
        repair.mend(state, {}, 1.0, env=env)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    for path in (original / "log").glob("*.jsonl"):
        assert (state / "log" / path.name).read_bytes() == path.read_bytes(), (kills, path.name)
    repair.mend(state, {}, 2.0)
    assert repair.examine(state, {}).whole, kills
    batches = log_of(state)
    assert [seq for seq, _ in batches] == [1, 2, 3, 4]
    assert b"BatchLost" in batches[1][1], (kills, batches)
    assert not list((state / "snapshots").glob("*.json")), kills
    backups = [backup for backup in (state / "repair").iterdir() if (backup / "manifest.json").exists()]
    assert any((backup / path.name).read_bytes() == path.read_bytes()
               for backup in backups for path in (original / "log").glob("*.jsonl")), kills
    shutil.rmtree(state)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    kills += 1
print(kills)
"""


def test_killed_at_every_gesture_a_second_try_ends_the_same(state: Path, snapshot: Path, tmp_path: Path) -> None:
    """Kill -9 of a real process: nothing of the old log is ever changed, and repair is simply run again."""
    damage(state)
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", SUICIDE, str(state), str(tmp_path / "killed")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=55, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
