"""Which snapshots the log contradicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordination.env import Env
from coordination.model.events import CoordinationPaused, Record, encode
from coordination.store import Snapshot, SnapshotDirectory, checking

ENV = Env()


class Counts:
    """How many batches there were."""

    name, version = "counts", 3

    def initial(self) -> int:
        return 0

    def fold(self, state: int, _record: Record) -> int:
        return state + 1

    def dump(self, state: int) -> bytes:
        return msgspec.json.encode(state)

    def load(self, dump: bytes) -> int:
        return msgspec.json.decode(dump, type=int)


def batches(after: int) -> Iterator[tuple[int, bytes]]:
    """A log of nine."""
    return ((seq, encode([CoordinationPaused()], 1.0)) for seq in range(after + 1, 10))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def save(directory: Path, seq: int, state: int, **other: Any) -> None:
    said: dict[str, Any] = {"projection": "counts", "version": 3, "log": "ours"} | other
    snapshot = Snapshot(seq=seq, state=msgspec.json.encode(state), **said)
    name = f"{snapshot.projection}-{snapshot.version}-{seq}.json"
    elsewhere = SnapshotDirectory(directory.with_name("elsewhere"))
    elsewhere.save(snapshot)
    directory.mkdir(exist_ok=True)
    (elsewhere.path / name).rename(directory / name)


def suspects(directory: Path, *, base: int = 0) -> dict[int, str]:
    found = checking.kept(directory, env=ENV)
    return {suspect.seq: suspect.what for suspect in checking.check(found, Counts(), batches, base=base, log="ours")}


def test_only_what_the_log_contradicts_is_suspect(directory: Path) -> None:
    """The right one is not; a wrong one, one that is not whole and one that is beyond the log are."""
    save(directory, 2, 2)
    save(directory, 4, 5)
    save(directory, 6, 6)
    save(directory, 12, 12)
    path = directory / "counts-3-6.json"
    path.write_bytes(path.read_bytes()[:-3])
    found = suspects(directory)
    assert found.keys() == {4, 6, 12}
    assert "not what the log says" in found[4]
    assert "not whole" in found[6]
    assert "does not reach" in found[12]


def test_what_is_never_used_is_left_alone(directory: Path) -> None:
    """Other versions, other projections, other logs: nobody starts from them here."""
    save(directory, 2, 77, version=2)
    save(directory, 3, 77, projection="other")
    save(directory, 4, 77, log="theirs")
    assert suspects(directory) == {}
    assert checking.covered(checking.kept(directory, env=ENV)) == {"ours": 3, "theirs": 4}


def test_where_the_beginning_was_taken_away_the_earliest_is_believed(directory: Path) -> None:
    """There is nothing older to compare it with; the next ones are compared with what follows from it."""
    save(directory, 5, 105)
    save(directory, 7, 107)
    save(directory, 9, 9)
    assert suspects(directory, base=4).keys() == {9}


def test_no_snapshot_is_no_suspect(directory: Path) -> None:
    """Not even a directory is needed, and the log is not read."""
    assert suspects(directory) == {}


def test_suspects_are_moved_and_never_over_one_another(directory: Path) -> None:
    """The same name twice in quarantine is two files."""
    for state in (1, 2):
        save(directory, 4, state)
        suspect = checking.check(checking.kept(directory, env=ENV), Counts(), batches, base=0, log="ours")
        (moved,) = checking.move_aside(suspect, env=ENV)
        assert moved.parent == directory / checking.QUARANTINE
    assert len(list((directory / checking.QUARANTINE).iterdir())) == 2
    assert list(directory.glob("*.json")) == []
