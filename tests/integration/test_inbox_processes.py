"""Does each file end exactly once when several processes sweep at once, and when one is killed at any gesture?"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import coordination
from coordination.env import Env
from coordination.inbox import Fate, Inbox
from coordination.model import taskfile

GOOD = b'{"prompt": "Do it."}'
FILES = 200


class FileLedger:
    """A judge whose log is a file of lines ``<ticket> <task>``, shared by processes under a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def judge(self, data: bytes, ticket: str, _source: str) -> str:
        submission = taskfile.parse(taskfile.decode(data), roles=(), gates=())
        with self._path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            known = self.tasks()
            if ticket not in known:
                known[ticket] = submission.id or f"t{len(known) + 1}"
                file.write(f"{ticket} {known[ticket]}\n")
            return known[ticket]

    def tasks(self) -> dict[str, str]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return {line.split()[0]: line.split()[1] for line in lines}


class Killed(Env):
    """Kills its process, for good, before the n-th gesture that changes something. Its clock runs a second a look."""

    def __init__(self, gestures: int) -> None:
        self._left = gestures
        self._looks = 0

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def monotonic(self) -> float:
        self._looks += 1
        return float(self._looks)

    def rename(self, old: Path, new: Path) -> None:
        self._count()
        super().rename(old, new)

    def create(self, path: Path) -> int:
        self._count()
        return super().create(path)

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        self._count()
        return super().write(descriptor, data, offset)

    def sync(self, descriptor: int) -> None:
        self._count()
        super().sync(descriptor)


def _sweep_until_empty(root: Path, env: Env) -> None:
    inbox, ledger = Inbox(root / "inbox", time.time, env=env), FileLedger(root / "ledger")
    inbox.recover(ledger.tasks().get, ledger.judge)
    while inbox.pending():
        inbox.sweep(ledger.judge)


def _killed_at(root: Path, gestures: int) -> bool:
    """Fork a process that is killed at that gesture. Whether it was, or came to its end before."""
    child = os.fork()
    if child == 0:
        _sweep_until_empty(root, Killed(gestures))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _main(mode: str, root: Path) -> None:
    """What a child process does: compete with another one, or kill its own children at every gesture."""
    if mode == "compete":
        inbox, ledger = Inbox(root / "inbox", time.time), FileLedger(root / "ledger")
        sys.stdin.read(1)  # both begin at once
        print(json.dumps([r.file for r in inbox.sweep(ledger.judge) if r.fate is Fate.ACCEPTED]))  # noqa: T201
        return
    gestures, killed = 0, True
    while killed:
        gestures += 1
        case = root / str(gestures)
        _drop_mixed(case / "inbox")
        killed = _killed_at(case, gestures)
        _sweep_until_empty(case, Killed(0))
    print(json.dumps(gestures))  # noqa: T201


def _drop_mixed(directory: Path) -> None:
    Inbox(directory, time.time).prepare()
    (directory / "good.json").write_bytes(GOOD)
    (directory / "bad.json").write_bytes(b'{"prompt": ""}')
    (directory / "half.json").write_bytes(GOOD[:9])
    (directory / "link.json").symlink_to("/etc/passwd")
    os.mkfifo(directory / "pipe.json")


def _child(mode: str, root: Path) -> subprocess.Popen[str]:
    package = str(Path(coordination.__file__).parents[1])
    command = [sys.executable, __file__, mode, str(root)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": package}
    )


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One directory for each gesture a process was killed at, after the next process came to its end."""
    root = tmp_path_factory.mktemp("cuts")
    output, _ = _child("cuts", root).communicate()
    return [root / str(gestures + 1) for gestures in range(json.loads(output))]


def test_a_process_is_killed_at_every_gesture(cases: list[Path]) -> None:
    """Five files take more than thirty gestures; fewer would mean that the cuts missed them."""
    assert len(cases) > 30


def test_after_a_kill_at_any_gesture_each_file_has_exactly_one_end(cases: list[Path]) -> None:
    """Accepted once with one line in the log, or rejected once with one reason; nothing is left between."""
    for case in cases:
        inbox = case / "inbox"
        rejected = [path.name for path in (inbox / "rejected").glob("[!.]*")]
        reasons = sorted(name.split(".")[0] for name in rejected if name.endswith(".error.json"))
        moved = sorted(name.split(".")[0] for name in rejected if not name.endswith(".error.json"))
        tasks = FileLedger(case / "ledger").tasks()
        assert [path.name for path in (inbox / "accepted").iterdir()] == [f"t1.{ticket}.json" for ticket in tasks], case
        assert len(tasks) == 1, case
        assert reasons == moved == ["bad", "half", "link", "pipe"], case
        assert list((inbox / ".taken").iterdir()) == [], case


def test_two_processes_accept_each_file_once(tmp_path: Path) -> None:
    """Two sweeps over the same 200 files at once: every file is one task, and none is two."""
    inbox = Inbox(tmp_path / "inbox", time.time)
    inbox.prepare()
    for number in range(FILES):
        (inbox.directory / f"{number}.json").write_text(json.dumps({"prompt": "x", "id": f"task-{number}"}))
    children = [_child("compete", tmp_path) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("x")
        child.stdin.flush()
    accepted = [json.loads(child.communicate()[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    wanted = {f"{number}.json": 1 for number in range(FILES)}
    assert Counter(accepted[0] + accepted[1]) == wanted
    assert Counter(FileLedger(tmp_path / "ledger").tasks().values()) == {f"task-{n}": 1 for n in range(FILES)}
    assert len(list(inbox.accepted_directory.iterdir())) == FILES
    assert list(inbox.rejected_directory.iterdir()) == []
    assert (inbox.pending(), inbox.taken()) == ([], [])


def test_a_writer_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    """A real process that writes a file in pieces, slower than we sweep, has it accepted whole."""
    inbox, ledger = Inbox(tmp_path / "inbox", time.time), FileLedger(tmp_path / "ledger")
    inbox.prepare()
    path = inbox.directory / "slow.json"
    script = "import sys\nwith open(sys.argv[1], 'wb', 0) as f:\n for line in sys.stdin: f.write(bytes.fromhex(line))"
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    fates: list[Fate] = []
    for place in range(0, len(GOOD), 5):
        writer.stdin.write(GOOD[place : place + 5].hex() + "\n")
        writer.stdin.flush()
        while not path.exists() or path.stat().st_size < min(place + 5, len(GOOD)):
            assert writer.poll() is None
        fates += [receipt.fate for receipt in inbox.sweep(ledger.judge)]
    writer.communicate()
    assert fates == [Fate.WAITING] * 3 + [Fate.ACCEPTED]
    assert list(ledger.tasks().values()) == ["t1"]


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]))
