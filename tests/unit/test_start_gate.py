"""Only so many start together, and nobody is kept out for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from coordination import locks
from coordination.agents.claude.gate import StartGate

HOLDS = (
    "import sys, time; from pathlib import Path; from coordination import locks; "
    "held = locks.hold(Path(sys.argv[1])); print(held is not None, flush=True); time.sleep(60)"
)


def never() -> str:
    return ""


def entered(directory: Path, slots: int) -> StartGate:
    gate = StartGate(str(directory), slots)
    gate.enter(never, 5.0)
    return gate


def busy(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("start.*.lock") if locks.held(path))


def test_the_next_one_starts_when_one_has_started(tmp_path: Path) -> None:
    """Two slots hold two; the third waits until one of them leaves."""
    first, second = entered(tmp_path, 2), entered(tmp_path, 2)
    assert busy(tmp_path) == ["start.0.lock", "start.1.lock"]
    third: list[StartGate] = []
    waiting = threading.Thread(target=lambda: third.append(entered(tmp_path, 2)))
    waiting.start()
    waiting.join(0.1)
    assert third == []
    second.leave()
    waiting.join(5.0)
    assert len(third) == 1
    for gate in (first, *third):
        gate.leave()
        gate.leave()
    assert busy(tmp_path) == []


def test_a_slot_is_free_again_however_its_holder_ends(tmp_path: Path) -> None:
    """A process that is killed while it starts keeps nobody out."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "start.0.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        holder.kill()
    entered(tmp_path, 1).leave()


def test_who_is_to_stop_does_not_wait(tmp_path: Path) -> None:
    """And after a bounded time one starts without a slot: slow is better than never."""
    held = entered(tmp_path, 1)
    StartGate(str(tmp_path), 1).enter(lambda: "ask", 60.0)
    StartGate(str(tmp_path), 1).enter(never, 0.05)
    held.leave()


def test_without_a_directory_the_gate_is_open() -> None:
    """What has no state directory has nobody to share with."""
    gate = StartGate("", 1)
    gate.enter(never, 60.0)
    gate.leave()
