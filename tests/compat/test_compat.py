"""A log and a snapshot that any released version wrote mean the same to this one, for ever."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from coordination import __version__
from coordination.log.file import FileLog
from coordination.model.events import CoordinationPaused
from coordination.model.state import Core, State
from coordination.store import SnapshotDirectory, Store
from coordination.store.snapshot import read
from coordination.testing.history import raw_batches

HERE = Path(__file__).parent
RELEASES = sorted(path.parent for path in HERE.glob("*/expected.json"))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of what a release wrote, and what it said that it means."""
    shutil.copytree(request.param, tmp_path / "frozen")
    return tmp_path / "frozen", json.loads((request.param / "expected.json").read_text())


def store_on(directory: Path, *, snapshots: bool) -> Store[State]:
    saved = SnapshotDirectory(directory / "snapshots") if snapshots else None
    return Store(FileLog(directory / "log"), Core(), saved, lambda: 1_900_000_000.0)


def test_this_release_is_frozen() -> None:
    """What we write now is kept for those who come after."""
    assert (HERE / __version__) in RELEASES


@pytest.mark.parametrize("snapshots", [False, True], ids=["from the log alone", "from the snapshot"])
def test_the_state_is_the_same(frozen: tuple[Path, dict[str, Any]], *, snapshots: bool) -> None:
    """Folding all of it, and going on from the snapshot, give the state that was frozen, to the digest."""
    directory, expected = frozen
    store = store_on(directory, snapshots=snapshots)
    assert store.refresh_seq() == expected["seq"]
    assert store.digest() == expected["digest"]
    assert store.log.uuid == expected["uuid"]
    assert store.snapshot_seq == (expected["snapshot_seq"] if snapshots else 0)


def test_the_snapshot_is_the_one_that_is_used(frozen: tuple[Path, dict[str, Any]]) -> None:
    """Its bytes are whole and of this log, so that going on from it is not folding all of it after all."""
    directory, expected = frozen
    (path,) = (directory / "snapshots").glob("core-*.json")
    snapshot = read(path)
    assert (snapshot.seq, snapshot.log) == (expected["snapshot_seq"], expected["uuid"])
    assert snapshot.version == Core.version, "raise Core.version: an older snapshot is then passed over, not misread"


def test_the_bytes_are_read_alike_by_the_format_page(frozen: tuple[Path, dict[str, Any]]) -> None:
    """A reader that knows nothing but docs/log-format.md finds the same batches."""
    directory, expected = frozen
    log = FileLog(directory / "log")
    payloads = list(log.read(0, upto="head"))
    assert [seq for seq, _ in payloads] == list(range(1, expected["seq"] + 1))
    assert len(raw_batches(directory / "log")) == expected["seq"]


def test_it_goes_on(frozen: tuple[Path, dict[str, Any]]) -> None:
    """A released log is written on by this version, in a further epoch, with nothing of it lost."""
    directory, expected = frozen
    store = store_on(directory, snapshots=True)
    done = store.transact(lambda _: [CoordinationPaused(reason="later")])
    assert done.seq == expected["seq"] + 1
    assert store.log.epoch == expected["epoch"] + 1
    assert store_on(directory, snapshots=False).refresh_seq() == expected["seq"] + 1
