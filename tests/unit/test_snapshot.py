"""A snapshot is whole, of this log and version and not too new, or it is passed over."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import orjson
import pytest

from coordination.log.memory import MemoryLog, connect
from coordination.model.state import Core, State
from coordination.store import Snapshot, SnapshotDirectory, digest, read_snapshot, snapshot

WHOLE = Snapshot(projection="core", version=3, seq=7, log="uuid-1", state=b'{"b":[1,2],"a":null}')


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
    assert written["state"] == orjson.loads(WHOLE.state), "any tool can read it"
    assert read_snapshot(tmp_path / "snapshots" / "core-3-7.json") == WHOLE


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
    for place in range(len(whole)):
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


def test_oldest_first_and_only_what_is_wanted(snapshots: SnapshotDirectory) -> None:
    """They come in the order that is asked for, within the batches that are asked for."""
    for seq in (2, 9):
        snapshots.save(msgspec.structs.replace(WHOLE, seq=seq))
    for oldest, found in ((False, [9, 2]), (True, [2, 9])):
        told = snapshots.whole("core", 3, log="uuid-1", seqs=range(20), oldest=oldest)
        assert [saved.seq for saved in told] == found
    assert [saved.seq for saved in snapshots.whole("core", 3, log="uuid-1", seqs=range(3, 10))] == [9]
    assert list(snapshots.whole("core", 3, log="uuid-1", seqs=range(3, 9))) == []


def test_what_others_left_behind_does_not_push_out_what_was_saved(snapshots: SnapshotDirectory, tmp_path: Path) -> None:
    """Files with higher numbers, of another log or rotten, are no reason to remove the one that was just saved."""
    for seq in (50, 60, 70):
        snapshots.save(msgspec.structs.replace(WHOLE, seq=seq, log="uuid-2"))
    (tmp_path / "snapshots" / "core-3-99.json").write_text("rotten")
    snapshots.save(WHOLE)
    found = newest(snapshots)
    assert found is not None
    assert found.seq == 7


OLD = b'{"projection":"core","version":3,"seq":7,"log":"uuid-1","state":{"a":1},"digest":"d","sum":"s"}\n'


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "header"),
        (b"{}", "header"),
        (b"\xff\x00", "header"),
        (OLD, "header"),
        (snapshot.encode(WHOLE).replace(b'"seq":7', b'"seq":8'), "header"),
        (snapshot.encode(WHOLE).replace(b'"b":[1,', b'"b":[2,'), "state"),
        (snapshot.encode(WHOLE)[:-1], "state"),
    ],
    ids=["empty", "an object", "bytes", "the format before", "another number", "another state", "cut"],
)
def test_what_is_no_snapshot_says_so(tmp_path: Path, data: bytes, told: str) -> None:
    """Whatever a file holds: a ValueError that says what is wrong, and the directory passes it over."""
    path = tmp_path / "core-3-7.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told):
        read_snapshot(path)
    assert newest(SnapshotDirectory(tmp_path)) is None


def test_a_header_of_another_format_is_not_believed(tmp_path: Path) -> None:
    """A later format, sound in itself, is passed over and named."""
    head = b'{"format":"coordination-snapshot-2","projection":"core"'
    data = head + b',"sum":"%08x","state":{}}\n' % zlib.crc32(head)
    with pytest.raises(ValueError, match="another format"):
        snapshot.decode(data)


class Shortened(MemoryLog):
    """A log whose first batches were taken away."""

    base = 5


def test_a_log_without_its_beginning_needs_a_snapshot(snapshots: SnapshotDirectory) -> None:
    """It starts at a snapshot that stands for what is gone, and at none below; without one there is no start."""
    log, core = connect("memory:shortened"), Core()
    short = Shortened(log._batches)
    whole = Snapshot(projection=core.name, version=core.version, seq=5, log=log.uuid, state=core.dump(State(mint=9)))
    assert snapshot.start(short, core, None, seq_max=9) is None
    snapshots.save(msgspec.structs.replace(whole, seq=4))
    assert snapshot.start(short, core, snapshots, seq_max=9) is None
    snapshots.save(whole)
    for oldest in (False, True):
        found = snapshot.start(short, core, snapshots, seq_max=9, oldest=oldest)
        assert found is not None
        assert (found.seq, found.state.mint) == (5, 9)
    beginning = snapshot.start(log, core, snapshots, seq_max=3)
    assert beginning == snapshot.Start(state=core.initial(), seq=0)


def test_equal_dumps_have_equal_digests() -> None:
    """Every byte matters."""
    assert digest(b"{}") == digest(msgspec.json.encode({}))
    assert digest(b'{"a":1}') != digest(b'{"a":2}')
    assert len(digest(b"")) == 64
