"""A snapshot is whole, of this log and version and not too new, or it is passed over."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson
import pytest

from coordination.store import Snapshot, SnapshotDirectory, digest

WHOLE = Snapshot(projection="core", version=3, seq=7, log="uuid-1", state={"b": [1, 2], "a": None})


@pytest.fixture
def snapshots(tmp_path: Path) -> SnapshotDirectory:
    return SnapshotDirectory(tmp_path / "snapshots")


def newest(snapshots: SnapshotDirectory, seq_max: int = 100) -> Snapshot | None:
    return snapshots.newest("core", 3, log="uuid-1", seq_max=seq_max)


def test_a_saved_snapshot_comes_back(snapshots: SnapshotDirectory, tmp_path: Path) -> None:
    """State, number and log survive, under a name that says what it is, with the state's digest for comparison."""
    assert newest(snapshots) is None
    snapshots.save(WHOLE)
    found = newest(snapshots)
    assert found is not None
    assert msgspec.structs.asdict(found).items() >= msgspec.structs.asdict(WHOLE).items()
    written = orjson.loads((tmp_path / "snapshots" / "core-3-7.json").read_bytes())
    assert written["digest"] == digest(WHOLE.state)


def test_only_the_two_newest_are_kept(snapshots: SnapshotDirectory, tmp_path: Path) -> None:
    """Older ones go, those of other projections and versions stay."""
    snapshots.save(msgspec.structs.replace(WHOLE, projection="other", seq=1))
    snapshots.save(msgspec.structs.replace(WHOLE, version=2, seq=1))
    for seq in (2, 9, 10, 30):
        snapshots.save(msgspec.structs.replace(WHOLE, seq=seq))
    names = {path.name for path in (tmp_path / "snapshots").iterdir()}
    assert names == {"other-3-1.json", "core-2-1.json", "core-3-10.json", "core-3-30.json"}


def test_what_does_not_fit_is_passed_over(snapshots: SnapshotDirectory) -> None:
    """Newer than allowed, of another log, of another version or another projection: the next older one is taken."""
    snapshots.save(WHOLE)
    snapshots.save(msgspec.structs.replace(WHOLE, seq=9, log="uuid-2"))
    found = newest(snapshots)
    assert found is not None
    assert found.seq == 7
    assert newest(snapshots, seq_max=6) is None
    assert snapshots.newest("core", 4, log="uuid-1", seq_max=100) is None
    assert snapshots.newest("cor", 3, log="uuid-1", seq_max=100) is None


def test_any_flipped_or_missing_byte_makes_it_worthless(snapshots: SnapshotDirectory, tmp_path: Path) -> None:
    """One changed byte, or a cut, and the snapshot is passed over instead of believed."""
    snapshots.save(WHOLE)
    path = tmp_path / "snapshots" / "core-3-7.json"
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 7
        path.write_bytes(flipped)
        assert newest(snapshots) is None, place
        path.write_bytes(whole[:place])
        assert newest(snapshots) is None, place


def test_a_renamed_snapshot_is_not_believed(snapshots: SnapshotDirectory, tmp_path: Path) -> None:
    """The name and what stands inside must agree."""
    snapshots.save(WHOLE)
    (tmp_path / "snapshots" / "core-3-7.json").rename(tmp_path / "snapshots" / "core-3-8.json")
    (tmp_path / "snapshots" / "core-3-9.json").mkdir()
    assert newest(snapshots) is None


def test_equal_values_have_equal_digests() -> None:
    """The order of keys does not matter, everything else does."""
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert len(digest(None)) == 64
