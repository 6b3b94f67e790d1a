"""Freezes a log and a snapshot as this release writes them: ``python tests/compat/freeze.py`` from the checkout.

Run once a release, after which the directory is never written again. The log holds rolled segments, a torn end that a
recovery left behind, a batch lost and replaced by a repair, and lines that only the recovery's segment proves.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from coordination import __version__
from coordination.log.file import FileLog
from coordination.model.events import BatchLost, CoordinationPaused, encode
from coordination.model.state import Core
from coordination.store import SnapshotDirectory, Store
from coordination.testing.histories import write_history

EVENTS, TASKS = 600, 40


def freeze(target: Path) -> None:
    """Write ``log/``, ``snapshots/`` and ``expected.json``. Refuses to overwrite."""
    target.mkdir()
    write_history(target / "log", EVENTS, TASKS, seed=1, segment_bytes=60_000)
    log = FileLog(target / "log", segment_bytes=60_000)
    log.settle()
    store = Store(log, Core(), SnapshotDirectory(target / "snapshots"), lambda: 1_800_000_000.0)
    middle = store.snapshot()
    task = next(iter(store.state.tasks))
    store.transact(lambda _: [CoordinationPaused(reason="for the freeze")])
    with max((target / "log").glob("*.jsonl")).open("r+b") as file:
        data = file.read().rstrip(b"\n") + b"\n"
        file.seek(len(data))
        file.write(b'{"seq":9999,"dura')
    (target / "log" / "page").unlink()
    log.close()
    log = FileLog(target / "log", segment_bytes=60_000)
    store = Store(log, Core(), None, lambda: 1_800_000_001.0)
    log.settle()
    lost = encode([BatchLost(tasks=(task,), evidence="nowhere", reason="damaged for the freeze")], 1_800_000_002.0)
    log.append(lost, after=store.refresh_seq(), again=lambda: lost)
    store.refresh()
    expected = {
        "seq": store.seq,
        "digest": store.digest(),
        "snapshot_seq": middle,
        "epoch": log.epoch,
        "uuid": log.uuid,
    }
    log.close()
    for name in ("page", "append.lock", "sync.lock"):
        (target / "log" / name).unlink(missing_ok=True)
    (target / "expected.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    place = Path(__file__).parent / __version__
    if "--again" in sys.argv:
        shutil.rmtree(place, ignore_errors=True)
    freeze(place)
