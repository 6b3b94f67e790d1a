"""Does ``coord replay`` show any moment of the past, and find out when the log does not bear out what we act on?"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coordination.cli import run
from coordination.cli.replay import Progress
from coordination.coordinator import Coordinator, initialise, locate
from coordination.errors import LogDamaged
from coordination.log import file as file_log
from coordination.model.state import Core
from coordination.store import Snapshot, Store
from coordination.testing import histories


class Place:
    """A repository with a coordination, and ``coord`` in it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.home = locate(root)
        initialise(self.home)
        self.state = self.home.state
        self._capsys = capsys
        self.told = ""

    @property
    def coordinator(self) -> Coordinator:
        """Fresh, as another process would have it."""
        return Coordinator(self.home)

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run ``coord replay``, which must exit so; its stdout. What it said on stderr is ``told``."""
        self._capsys.readouterr()
        found = run(["-C", str(self.root), "replay", *arguments])
        out, self.told = self._capsys.readouterr()
        assert found == code, f"coord replay {arguments} exited {found}: {out}{self.told}"
        assert "Traceback" not in self.told
        return out

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The one JSON object it prints."""
        return json.loads(self(*arguments, "--json", code=code))

    def submit(self, *tasks: str) -> None:
        """One batch a task."""
        for task in tasks:
            self.coordinator.submit({"id": task, "prompt": "do it"})

    def snapshot(self) -> Path:
        """Save the state; the file."""
        store = self.coordinator.store
        seq = store.snapshot()
        return self.state / "snapshots" / f"{Core.name}-{Core.version}-{seq}.json"


@pytest.fixture
def place(repository: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(repository, capsys)


# ---- moments ---------------------------------------------------------------------------------------------------------


def tasks(row: Any) -> list[str]:
    return list(row["state"]["tasks"])


def test_every_batch_is_a_moment(place: Place) -> None:
    """``--at N`` shows the state after batch N, with and without snapshots, and says when that was."""
    place.submit("a", "b")
    place.snapshot()
    place.submit("c")
    times = [record.at for record in place.coordinator.store.follow(0)]
    assert times == sorted(times)
    for seq, known in ((1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"])):
        row = place.json("--at", str(seq))
        assert (row["seq"], tasks(row)) == (seq, known)
        assert row["snapshot"] == (None if seq == 1 else 2), "a snapshot at or before it saves folding"
    assert place.json("--at", "3")["at"] == place.json()["at"]
    assert place.json()["snapshot"] is None, "the log alone"
    assert "begun with the snapshot at seq 2" in place("--at", "3")
    assert "snapshot" not in place()


def test_verifying_a_moment_trusts_no_snapshot(place: Place) -> None:
    """A snapshot that is whole but wrong is shown without ``--verify``, and found with it."""
    place.submit("a", "b")
    wrong = place.coordinator.replay().state
    wrong.integration = "made up"
    whole = Snapshot(
        projection=Core.name,
        version=Core.version,
        seq=2,
        log=place.coordinator.store.log.uuid,
        state=Core().dump(wrong),
    )
    place.coordinator.snapshots.save(whole)
    assert place.json("--at", "2")["state"]["integration"] == "made up"
    row = place.json("--at", "2", "--verify", code=1)
    assert row["state"]["integration"] == ""
    assert row["differs"] == [
        str(place.state / "snapshots" / f"core-{Core.version}-2.json"),
        "the state that commands see",
    ]
    assert place.json()["state"]["integration"] == ""


def test_an_instant_is_a_moment_whatever_its_zone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instant shows all that was appended up to it; without a zone it is local time, with one it is that."""
    for hour, task in enumerate(("a", "b", "c"), 9):
        at = 1_769_817_600.0 + 3600 * hour  # 2026-01-31T00:00:00Z and so many hours
        Coordinator(place.home, now=lambda at=at: at).submit({"id": task, "prompt": "do it"})  # type: ignore[misc]
    for moment in ("2026-01-31T10:00:00Z", "2026-01-31T10:59:59.999999+00:00", "2026-01-31T05:30-05:00"):
        row = place.json("--at", moment)
        assert (row["seq"], tasks(row), row["at"]) == (2, ["a", "b"], "2026-01-31T10:00:00.000000Z")
    for zone, seq in (("UTC0", 2), ("WEST-1", 1), ("EAST5", 3)):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        assert place.json("--at", "2026-01-31T10:30:00")["seq"] == seq, zone
    monkeypatch.undo()
    time.tzset()
    assert place.json("--at", "2026-02-01")["seq"] == 3


NO_MOMENTS = [
    ("0", 3, "nothing had happened at 0: the log begins with batch 1 at 20"),
    ("2000-01-01T00:00:00Z", 3, "nothing had happened at 2000-01-01T00:00:00Z: the log begins with batch 1"),
    ("3", 3, "there is no batch 3: the log ends at batch 2"),
    ("9" * 18, 3, "the log ends at batch 2"),
    ("9" * 5000, 2, "expected a sequence number or a time"),
    ("2999-01-01T00:00:00Z", 2, "lies ahead"),
    ("1.5", 2, "expected a sequence number or a time like 2026-01-31T12:00:00Z"),
    ("=-1", 2, "expected a sequence number or a time"),
    ("", 2, "expected a sequence number or a time"),
    ("٣", 2, "expected a sequence number or a time"),
    ("0001-01-01", 2, "expected a sequence number or a time"),
    ("2026-02-30T00:00:00Z", 2, "expected a sequence number or a time"),
    ("12:00", 2, "expected a sequence number or a time"),
]


def test_what_is_no_moment_says_why(place: Place) -> None:
    """Before the beginning, after the end, ahead of now, or neither a number nor a time: the error says which."""
    place.submit("a", "b")
    for moment, code, told in NO_MOMENTS:
        for more in ((), ("--json",), ("--verify",)):
            assert place(f"--at={moment}", *more, code=code) == ""
            assert told in place.told, moment


def test_an_empty_log_has_no_moments(place: Place) -> None:
    """It replays to nothing, and any moment of it is not there."""
    row = place.json("--verify")
    assert (row["seq"], row["at"], row["counts"]) == (0, None, {})
    place("--at", "0", code=3)
    assert "the log is empty" in place.told
    place("--at", "2020-01-01", code=3)
    assert "the log is empty" in place.told


# ---- a log whose oldest part was taken away --------------------------------------------------------------------------


def test_old_segments_may_be_moved_away_when_a_snapshot_stands_for_them(place: Place) -> None:
    """With the snapshot everything goes on and says so; without it the log is refused, with what to do."""
    log = file_log.FileLog(place.home.log, segment_bytes=1)  # every batch begins a segment
    writer = Store(log, Core(), place.coordinator.snapshots, now=time.time)
    for at, batch in histories.batches(40, 6):
        writer._now = lambda at=at: at  # type: ignore[misc]
        writer.transact(lambda _, batch=batch: batch)  # type: ignore[misc]
    before = place.json("--verify")
    segments = sorted(place.home.log.glob("*.jsonl"))
    covered = place.coordinator.replay(upto_seq=20).state
    uuid = place.coordinator.store.log.uuid
    archive = place.root.parent / "archive"
    archive.mkdir()
    for segment in segments[:15]:
        shutil.move(segment, archive)
    base = place.coordinator.store.log.base
    assert 0 < base < 20

    with pytest.raises(LogDamaged, match=f"batches 1 to {base} were taken away") as caught:
        place.coordinator.state()
    assert caught.value.path == str(place.state / "snapshots")
    place(code=5)
    assert "put the older segments, or the snapshot, back" in place.told

    state = Core().dump(covered)
    too_old = Snapshot(projection=Core.name, version=Core.version, seq=base - 1, log=uuid, state=state)
    place.coordinator.snapshots.save(too_old)
    place(code=5)
    saved = Snapshot(projection=Core.name, version=Core.version, seq=20, log=uuid, state=state)
    place.coordinator.snapshots.save(saved)

    after = place.json("--verify")
    assert (after["seq"], after["digest"], after["snapshot"]) == (before["seq"], before["digest"], 20)
    assert "begun with the snapshot at seq 20" in place("--verify")
    assert place.json("--at", "20")["digest"] == after["checks"][1]["detail"]
    for moment in (str(base), "19", "1"):
        place("--at", moment, code=3)
        assert "the earliest moment that can be shown is batch 20" in place.told
    place("--at", "2020-01-01", code=3)
    assert "before the earliest moment that can be shown, batch 20" in place.told
    assert run(["-C", str(place.root), "log"]) == 0, "what is still there can be read"
    place.submit("goes-on")
    assert place.json("--verify")["seq"] == before["seq"] + 1


# ---- what differs ----------------------------------------------------------------------------------------------------

PLANTED = {
    "a fold that depends on the process": """
import os
honest = state._MEANINGS[events.TaskSubmitted]
def planted(now, record, event):
    honest(now, record, event)
    now.integration = str(os.getpid())
state._MEANINGS[events.TaskSubmitted] = planted
""",
    "a fold that depends on the clock": """
import time
honest = state._MEANINGS[events.TaskSubmitted]
def planted(now, record, event):
    honest(now, record, event)
    now.integration = str(time.time())
state._MEANINGS[events.TaskSubmitted] = planted
""",
    "a fold that depends on the order of a set": """
honest = state._MEANINGS[events.TaskSubmitted]
def planted(now, record, event):
    honest(now, record, event)
    now.integration = "".join({str(number) for number in range(100)})
state._MEANINGS[events.TaskSubmitted] = planted
""",
    "a dump that forgets a field": """
import msgspec
def dump(self, now):
    value = msgspec.json.decode(msgspec.json.encode(now))
    for task in value["tasks"].values():
        task.pop("ticket", None)
    return msgspec.json.encode(value)
state.Core.dump = dump
""",
    "a load that loses the order": """
import msgspec
def load(self, dump):
    now = msgspec.json.decode(dump, type=state.State)
    now.open = dict(sorted(now.open.items(), reverse=True))
    return now
state.Core.load = load
""",
    "a dump that cannot be loaded": """
import msgspec
def dump(self, now):
    value = msgspec.json.decode(msgspec.json.encode(now))
    for task in value["tasks"].values():
        del task["digest"]
    return msgspec.json.encode(value)
state.Core.dump = dump
""",
}
SAVING = """
from coordination.coordinator import Coordinator, locate
from pathlib import Path
coordinator = Coordinator(locate(Path(root)))
for task in ("a", "b"):
    coordinator.accept({"id": task, "prompt": "do it"}, ticket="ticket-" + task)
coordinator.store.snapshot()
"""
VERIFYING = """
from coordination.cli import run
sys.exit(run(["-C", root, "replay", "--verify", "--json"]))
"""


def in_a_process(place: Place, *parts: str) -> subprocess.CompletedProcess[str]:
    head = "import sys\nfrom coordination.model import events, state\nroot = sys.argv[1]\n"
    command = [sys.executable, "-c", head + "".join(parts), str(place.root)]
    environment = os.environ | {"PYTHONHASHSEED": "random"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def test_without_a_planted_bug_nothing_differs(place: Place) -> None:
    """The same gestures with the honest fold exit 0."""
    assert in_a_process(place, SAVING).returncode == 0
    told = in_a_process(place, VERIFYING)
    assert (told.returncode, json.loads(told.stdout)["differs"]) == (0, [])


SAVED = f"core-{Core.version}-2.json"
LIVE = "the state that commands see"
GIVEN_BACK = "the replayed state, dumped and loaded"


@pytest.mark.parametrize(
    ("bug", "differs"),
    [
        ("a fold that depends on the process", [SAVED, LIVE]),
        ("a fold that depends on the clock", [SAVED, LIVE]),
        ("a fold that depends on the order of a set", [SAVED, LIVE]),
        ("a dump that forgets a field", [GIVEN_BACK]),
        ("a load that loses the order", [LIVE, GIVEN_BACK]),
        ("a dump that cannot be loaded", [GIVEN_BACK]),
    ],
)
def test_a_planted_bug_is_caught(place: Place, bug: str, differs: list[str]) -> None:
    """A bug of fold, dump or load, in every process alike, exits 1 and names what differs."""
    saving = in_a_process(place, PLANTED[bug], SAVING)
    assert saving.returncode == 0, saving.stderr
    told = in_a_process(place, PLANTED[bug], VERIFYING)
    assert told.returncode == 1, told.stderr
    assert [Path(name).name for name in json.loads(told.stdout)["differs"]] == differs


def test_snapshots_of_other_kinds_are_told_apart(place: Place) -> None:
    """Of another version, projection or log: not compared. Rotten: differs. None of them is believed or removed."""
    place.submit("a", "b")
    saved = place.snapshot()
    directory = saved.parent
    foreign = Snapshot(projection=Core.name, version=Core.version, seq=1, log="another", state=b"{}")
    place.coordinator.snapshots.save(foreign)
    (directory / "core-1-2.json").write_text('{"projection":"core","version":1,"seq":2,"state":{},"sum":"x"}')
    (directory / "budget-1-2.json").write_text("{}")
    assert place.json("--verify")["differs"] == []
    (directory / f"core-{Core.version}-3.json").write_bytes(saved.read_bytes())  # says 2, and that is so
    rotten = directory / f"core-{Core.version}-9.json"
    rotten.write_bytes(saved.read_bytes().replace(b'"prompt":"do it"', b'"prompt":"do at"'))
    row = place.json("--verify", code=1)
    assert row["differs"] == [str(rotten)]
    found = {Path(check["what"]).name: check["matches"] for check in row["checks"]}
    assert found[f"core-{Core.version}-1.json"] is found["core-1-2.json"] is found["budget-1-2.json"] is None
    assert found[saved.name] is found[LIVE] is True
    assert rotten.exists()


def test_a_note_of_what_never_was_differs(place: Place) -> None:
    """A supervisor that acted on more than the log has is named; one of another version is not compared."""
    place.submit("a")
    note = {"projection": f"core-{Core.version}", "seq": 5, "digest": "d"}
    path = place.state / "supervisor.json"
    path.write_text(json.dumps(note))
    assert place.json("--verify", code=1)["differs"] == [str(path)]
    assert f"DIFFERS: {path} at seq 5: the log ends at 1" in place("--verify", code=1)
    path.write_text(json.dumps(note | {"projection": "core-1"}))
    assert f"not compared: {path} at seq 5: it is of another version: core-1" in place("--verify")
    path.write_text("[]")
    assert place.json("--verify", code=1)["differs"] == [str(path)]


def test_what_is_not_yet_durable_does_not_differ(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut the newest batch waits for a writer to make it durable: not compared, not wrong."""
    monkeypatch.setattr("coordination.cli.replay.SETTLE_SECONDS", 0.0)
    place.submit("a", "b")
    (place.home.log / "page").unlink()
    row = place.json("--verify")
    assert row["seq"] == 1
    assert [check["matches"] for check in row["checks"]] == [None, True]
    place.submit("c")
    assert [check["matches"] for check in place.json("--verify")["checks"]] == [True, True]


# ---- progress --------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_replay_says_how_far_it_is() -> None:
    """On a terminal, after a second, and gone when it is over."""
    now = [0.0]
    stream = Terminal()
    with Progress(stream, clock=lambda: now[0]) as progress:
        progress(10_000, 35_000)
        assert stream.getvalue() == ""
        now[0] = 1.5
        progress(20_000, 35_000)
        assert stream.getvalue() == "\rreplayed 20,000 of 35,000 batches"
    assert stream.getvalue().endswith("\r\x1b[K")


def test_nothing_is_said_where_nobody_looks() -> None:
    """A file or a pipe gets no progress, and a short replay says nothing."""
    now = [0.0]
    for stream, seconds in ((io.StringIO(), 9.0), (Terminal(), 0.5)):
        with Progress(stream, clock=lambda: now[0]) as progress:
            now[0] += seconds
            progress(10_000, 35_000)
        assert stream.getvalue() == ""


def test_replaying_tells_how_far_it_is(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command passes on what the replay tells, and its answer is not mixed with it."""
    place.submit("a", "b")
    monkeypatch.setattr("coordination.store.moments._STEP", 1)
    monkeypatch.setattr("coordination.cli.replay._QUIET_SECONDS", -1.0)
    monkeypatch.setattr("sys.stderr", stream := Terminal())
    assert place.json()["seq"] == 2
    assert stream.getvalue() == "\rreplayed 1 of 2 batches\rreplayed 2 of 2 batches\r\x1b[K"
