"""Has everybody the same state: who held it while it grew, folds anew, starts from a snapshot, is another process?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import hypothesis
import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from coordination.log.file import FileLog, create
from coordination.model import events as e
from coordination.model import state
from coordination.model.state import Core, State
from coordination.store import Snapshot, SnapshotDirectory, Store, replay, snapshot, transact
from coordination.testing.strategies import EPOCH, Batch, History, histories

# a history that fails is shown whole, however long it is
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
SEGMENT_BYTES = 3000  # so that a history rolls often
Digests = dict[int, str]
Ask = Callable[[Path, Path], tuple[int, str]]

# Another process, with a store of its own that it keeps: says where it is and what it holds.
_OTHER = """
import json, sys
from pathlib import Path
from coordination.log.file import FileLog
from coordination.model.state import Core
from coordination.store import SnapshotDirectory, Store
held = {}
for line in sys.stdin:
    log, snapshots = json.loads(line)
    if log not in held:
        held = {log: Store(FileLog(Path(log)), Core(), SnapshotDirectory(Path(snapshots)), now=float)}
    seq = held[log].refresh_seq()
    print(json.dumps([seq, held[log].digest()]), flush=True)
"""


@pytest.fixture(scope="module")
def ask_other() -> Iterator[Ask]:
    """What another process sees of a log: the number of the last batch, and the digest of its state then."""
    command = [sys.executable, "-c", _OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        answers = process.stdout
        assert answers is not None

        def ask(log: Path, snapshots: Path) -> tuple[int, str]:
            print(json.dumps([str(log), str(snapshots)]), file=process.stdin, flush=True)
            seq, digest = json.loads(answers.readline())
            return seq, digest

        yield ask
        process.stdin.close()


class World:
    """One log with its snapshots, and the store that writes it."""

    def __init__(self, directory: Path, dice: Random) -> None:
        self.log = directory / "log"
        self.dice = dice
        self.snapshots = SnapshotDirectory(directory / "snapshots")
        self.now = EPOCH
        create(self.log)
        self.store = Store(self.connect(), Core(), self.snapshots, now=lambda: self.now)

    def connect(self) -> FileLog:
        return FileLog(self.log, segment_bytes=SEGMENT_BYTES)

    def append(self, batch: Batch) -> None:
        """As its writer did."""
        self.now = batch.records[0].at
        events = [record.event for record in batch.records]
        self.store.transact(lambda _state: events)

    def anew(self, *, snapshots: bool = False) -> Store[State]:
        """A store that knows nothing yet."""
        return Store(self.connect(), Core(), self.snapshots if snapshots else None, now=float)

    def disturb(self) -> None:
        """Between two batches: nothing, a snapshot, or a loss of the page, after which a writer recovers."""
        happening = self.dice.random()
        if happening < 0.15:
            self.store.snapshot()
            self.decoy()
        elif happening < 0.25:
            (self.log / "page").unlink()

    def decoy(self) -> None:
        """A snapshot that must not be believed: of the past, of the future, of another log, version or kind, rotten."""
        seq, core = self.store.seq, Core()
        wrong = core.dump(State(integration="wrong"))
        lie = Snapshot(projection=core.name, version=core.version, seq=seq, log=self.store.log.uuid, state=wrong)
        kind = self.dice.choice(
            ["newer", "foreign", "other version", "other projection", "old format", "rotten", "not core"]
        )
        changes: dict[str, dict[str, object]] = {
            "newer": {"seq": seq + 1000},
            "foreign": {"log": "another", "seq": seq + 1},
            "other version": {"version": core.version + 1},
            "other projection": {"projection": "budget"},
        }
        told = msgspec.structs.replace(lie, **changes.get(kind, {"seq": seq + 2}))
        data = snapshot.encode(told)
        if kind == "old format":
            data = b'{"projection":"core","version":2,"seq":%d,"state":{},"digest":"","sum":""}\n' % told.seq
        elif kind == "rotten":
            data = data.replace(b'"integration":"wrong"', b'"integration":"rotte"')
        elif kind == "not core":
            data = snapshot.encode(msgspec.structs.replace(told, seq=seq, state=b'{"tasks":[]}'))
        (self.snapshots.path / f"{told.projection}-{told.version}-{told.seq}.json").write_bytes(data)


@contextmanager
def a_world(dice: Random) -> Iterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        world = World(Path(directory), dice)
        yield world
        world.store.log.close()


def agree(history: History, world: World, ask_other: Ask) -> Digests:
    """Grow the log batch by batch; at every one ask everybody. The digest after each batch."""
    digests: Digests = {}
    keeping_up = world.anew(snapshots=True)
    for seq, batch in enumerate(history.batches, 1):
        world.disturb()
        world.append(batch)
        digests[seq] = world.store.digest()
        everybody = {
            "kept up": (keeping_up.refresh_seq(), keeping_up.digest()),
            "another process": ask_other(world.log, world.snapshots.path),
            "from a snapshot": _of(world.anew(snapshots=True)),
            "from the log's bytes": _of(world.anew()),
        }
        assert everybody == dict.fromkeys(everybody, (seq, digests[seq])), f"after batch {seq}"
    return digests


def _of(store: Store[State]) -> tuple[int, str]:
    told = store.refresh_seq(), store.digest()
    store.log.close()
    return told


def from_every_snapshot(world: World, digests: Digests) -> int:
    """Save the state after every batch, take each up from its file, and fold on to the end; how many were compared."""
    batches = [(seq, e.decode(seq, payload)) for seq, payload in world.store.log.read(0, upto="head")]
    core, compared = Core(), 0
    saved = SnapshotDirectory(world.log.parent / "every")
    held = core.initial()
    for seq, records in [(0, []), *batches]:
        for record in records:
            held = core.fold(held, record)
        whole = Snapshot(
            projection=core.name, version=core.version, seq=seq, log=world.store.log.uuid, state=core.dump(held)
        )
        saved.save(whole)
        begun = snapshot.start(world.store.log, core, saved, seq_max=seq)
        assert begun is not None
        assert begun.seq == seq
        taken_up = begun.state
        for later, following in batches[seq:]:
            for record in following:
                taken_up = core.fold(taken_up, record)
            assert snapshot.digest(core.dump(taken_up)) == digests[later], f"snapshot {seq}, then up to {later}"
            compared += 1
    return compared


def search(seed: int, examples: int, ask_other: Ask) -> Counter[str]:
    """Play so many histories; what was compared. Raises AssertionError where two do not agree."""
    counts: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )
    @given(histories(turns_max=30), st.integers(0, 2**32))
    def play(history: History, chance: int) -> None:
        with a_world(Random(chance)) as world:
            digests = agree(history, world, ask_other)
            moment = replay(world.store.log, Core(), world.snapshots, digests_at=set(digests))
            assert moment.digests == digests
            counts["pairs"] += from_every_snapshot(world, digests)
            counts["batches"] += len(digests)
            counts["recoveries"] += world.store.log.epoch - 1

    play()
    return counts


def test_everybody_has_the_same_state_at_every_batch(
    tier: int, seed: int, figure: Callable[..., None], ask_other: Ask
) -> None:
    """Held, folded anew, from any snapshot and its tail, elsewhere, after any recovery: one digest a batch."""
    try:
        counts = search(seed, 12 if tier == 1 else 600, ask_other)
    except BaseException as error:
        error.add_note(f"again: python -m pytest tests/properties/test_replay.py --tier {tier} --seed {seed}")
        raise
    assert counts["recoveries"], "no recovery came in between: nothing was shown about it"
    note = f"{counts['recoveries']} recoveries"
    figure("replay", "batches after which everybody had one digest", counts["batches"], note=note)
    figure("replay", "snapshots and tails that gave the digest of the log", counts["pairs"])


# ---- positive controls: each of these must be found ------------------------------------------------------------------


def folded_by_process(patch: pytest.MonkeyPatch) -> None:
    honest = state._MEANINGS[e.RunPlanned]

    def planted(now: State, record: e.Record, event: e.RunPlanned) -> None:
        honest(now, record, event)
        now.mint += os.getpid()

    patch.setattr(state, "_MEANINGS", state._MEANINGS | {e.RunPlanned: planted})


def loaded_out_of_order(patch: pytest.MonkeyPatch) -> None:
    honest = Core.load

    def planted(core: Core, dump: bytes) -> State:
        now = honest(core, dump)
        now.open = dict(sorted(now.open.items(), reverse=True))
        return now

    patch.setattr(Core, "load", planted)


def newer_believed(patch: pytest.MonkeyPatch) -> None:
    honest = snapshot.start
    patch.setattr(transact, "start", lambda *told, seq_max: honest(*told, seq_max=seq_max + 10_000))


def foreign_believed(patch: pytest.MonkeyPatch) -> None:
    honest = SnapshotDirectory.read

    def planted(directory: SnapshotDirectory, projection: str, version: int, seq: int) -> Snapshot | None:
        found = honest(directory, projection, version, seq)
        own = honest(directory, projection, version, min(directory._saved(projection, version)))
        return found and own and msgspec.structs.replace(found, log=own.log)

    patch.setattr(SnapshotDirectory, "read", planted)


def rotten_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(snapshot, "digest", lambda _dump: "0" * 64)


@pytest.mark.parametrize(
    "plant", [folded_by_process, loaded_out_of_order, newer_believed, foreign_believed, rotten_believed]
)
def test_what_is_planted_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, ask_other: Ask
) -> None:
    """A dependence on the process, a load that loses order, and every kind of belief in a wrong snapshot."""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match=r"after batch|snapshot"):
        search(seed=1, examples=60, ask_other=ask_other)
