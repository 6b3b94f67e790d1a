"""A decision is made on fresh facts, written once, and true before it is acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import pytest

from coordination.env import Env
from coordination.errors import LogDamaged, OutcomeUnknown
from coordination.log import Log
from coordination.log.file import FileLog, create
from coordination.model.events import AnyEvent, CoordinationPaused, Record
from coordination.store import SnapshotDirectory, Store

Reasons = list[str]


class Said:
    """The reasons in order; changes its state in place, as a projection may."""

    name = "said"
    version = 1

    def __init__(self) -> None:
        self.folded = 0

    def initial(self) -> Reasons:
        return []

    def fold(self, state: Reasons, record: Record) -> Reasons:
        self.folded += 1
        assert isinstance(record.event, CoordinationPaused)
        if record.event.reason == "poison":
            state.append("half")
            raise ZeroDivisionError
        state.append(f"{record.event.reason}@{record.seq}.{record.index}")
        return state

    def dump(self, state: Reasons) -> bytes:
        return msgspec.json.encode(state)

    def load(self, dump: bytes) -> Reasons:
        return msgspec.json.decode(dump, type=list[str])


class Boots(Env):
    """A machine that can be rebooted, and whose disk can fail."""

    boot = "first"
    broken = False

    def boot_id(self) -> str:
        return self.boot

    def sync_data(self, descriptor: int) -> None:
        if self.broken:
            raise OSError(5, "Input/output error")
        super().sync_data(descriptor)


@pytest.fixture
def env() -> Boots:
    return Boots()


@pytest.fixture
def log(tmp_path: Path, env: Boots) -> FileLog:
    create(tmp_path / "log", env=env)
    return FileLog(tmp_path / "log", env=env)


def say(*reasons: str) -> Sequence[AnyEvent]:
    return [CoordinationPaused(reason=reason) for reason in reasons]


def say_again(reason: str, _: Reasons) -> Sequence[AnyEvent]:
    return say(reason)


def store_on(log: Log, snapshots: SnapshotDirectory | None = None) -> Store[Reasons]:
    return Store(log, Said(), snapshots, lambda: 1_700_000_000.25)


def again(log: FileLog, env: Env) -> FileLog:
    return FileLog(log._directory, env=env)


def test_events_become_facts_in_order(log: FileLog) -> None:
    """The transaction gives the state after its own batch, its number and its events; others then see the same."""
    store = store_on(log)
    assert store.transact(lambda _: say("a", "b")).state == ["a@1.0", "b@1.1"]
    transaction = store.transact(lambda state: say(f"after {len(state)}"))
    assert transaction.seq == store.seq == store.durable == 2
    assert transaction.events == tuple(say("after 2"))
    assert store.state == store_on(log).refresh() == ["a@1.0", "b@1.1", "after 2@2.0"]
    assert [record.at for record in store.follow(1)] == [1_700_000_000.25]
    assert store.log is log


def test_a_decision_is_made_again_when_the_head_moved(log: FileLog, env: Boots) -> None:
    """Who was overtaken decides on the new facts; both batches are there once."""
    store, other = store_on(log), store_on(again(log, env))
    seen: list[Reasons] = []

    def decide(state: Reasons) -> Sequence[AnyEvent]:
        seen.append(list(state))
        if len(seen) == 1:
            other.transact(lambda _: say("overtaking"))
        return say("mine")

    assert store.transact(decide).state == ["overtaking@1.0", "mine@2.0"]
    assert seen == [[], ["overtaking@1.0"]]


def test_no_events_append_nothing(log: FileLog) -> None:
    """Deciding that nothing is to be done leaves the log as it is."""
    store = store_on(log)
    store.transact(lambda _: say("a"))
    transaction = store.transact(lambda _: ())
    assert (transaction.seq, transaction.state, transaction.events) == (None, ["a@1.0"], ())
    assert store.refresh_seq() == 1


def test_no_events_still_wait_for_the_facts_to_be_durable(log: FileLog, env: Boots) -> None:
    """After a reboot the newest batch is unproven; a decision on it returns only when it was made durable."""
    store_on(log).transact(lambda _: say("a"))
    env.boot = "second"
    later = store_on(again(log, env))
    assert later.refresh() == ["a@1.0"]
    assert later.durable == 0
    assert later.transact(lambda _: ()).state == ["a@1.0"]
    assert later.durable == 1
    assert later.log.epoch == 2


def test_a_recovery_makes_the_state_be_folded_again(log: FileLog, env: Boots) -> None:
    """When the log was recovered under us, what was folded above the watermark is dropped and read anew."""
    store = store_on(log)
    store.transact(lambda _: say("a"))
    env.boot = "second"
    other = store_on(again(log, env))
    other.transact(lambda _: say("b"))
    assert store.transact(lambda state: say(f"saw {len(state)}")).state == ["a@1.0", "b@2.0", "saw 2@3.0"]


def test_a_recovery_while_deciding_nothing_is_noticed(log: FileLog, env: Boots) -> None:
    """An empty decision on facts of an older epoch is made again on those of the new one."""
    store = store_on(log)
    store.transact(lambda _: say("a"))
    asked: list[int] = []

    def decide(state: Reasons) -> Sequence[AnyEvent]:
        asked.append(len(state))
        if len(asked) == 1:
            (log._directory / "page").unlink()
            store_on(again(log, env)).transact(lambda _: say("b"))
        return ()

    assert store.transact(decide).state == ["a@1.0", "b@2.0"]
    assert asked == [1, 2]


def test_an_unknown_outcome_comes_through_and_is_learnt_by_refreshing(log: FileLog, env: Boots) -> None:
    """After a failed sync nothing is claimed; the next refresh says what is there."""
    store = store_on(log)
    store.transact(lambda _: say("a"))
    env.broken = True
    with pytest.raises(OutcomeUnknown):
        store.transact(lambda _: say("b"))
    assert store.durable == 1
    env.broken = False
    assert store.transact(lambda state: () if len(state) == 2 else say("again")).state == ["a@1.0", "b@2.0"]
    assert store.durable == 2


def test_what_deciding_raises_comes_through(log: FileLog) -> None:
    """An error of the decision leaves log and state as they were."""
    store = store_on(log)
    store.transact(lambda _: say("a"))
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda _: say(str(1 // 0)))
    assert store.transact(lambda _: say("b")).state == ["a@1.0", "b@2.0"]


def test_a_fold_that_breaks_leaves_no_half_state(log: FileLog) -> None:
    """A projection that fails in the middle fails again the next time, instead of going on with half a batch."""
    store = store_on(log)
    with pytest.raises(ZeroDivisionError):
        store.transact(lambda _: say("a", "poison"))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            store.refresh()


def test_a_state_that_broke_while_catching_up_is_not_shown(log: FileLog, env: Boots) -> None:
    """Another one's batch that cannot be folded leaves nothing behind that could be taken for the state."""
    store, other = store_on(log), store_on(again(log, env))
    store.transact(lambda _: say("a"))
    with pytest.raises(ZeroDivisionError):
        other.transact(lambda _: say("poison"))
    for look in (store.refresh, lambda: store.state, lambda: store.seq, store.digest):
        with pytest.raises(ZeroDivisionError):
            look()


def test_a_batch_that_is_none_of_ours_is_damage(log: FileLog) -> None:
    """Bytes with a valid checksum that are not events are refused, never skipped."""
    log.append(b'{"at":"2026-11-21T12:00:00Z","events":[{"type":"Unheard"}]}', after=0)
    with pytest.raises(LogDamaged, match="not a batch"):
        store_on(log).refresh()


def test_a_snapshot_saves_folding(log: FileLog, tmp_path: Path) -> None:
    """Starting from a snapshot folds only what came later and gives the same state and digest."""
    snapshots = SnapshotDirectory(tmp_path / "snapshots")
    store = store_on(log, snapshots)
    assert store.snapshot_seq == 0
    for reason in "abc":
        store.transact(partial(say_again, reason))
    assert store.snapshot() == store.snapshot_seq == 3
    store.transact(lambda _: say("d"))
    counting = Said()
    later = Store(log, counting, snapshots, lambda: 0.0)
    assert later.state == store.state
    assert counting.folded == 1
    assert later.digest() == store.digest() == store_on(log).digest()


def test_a_snapshot_that_cannot_be_loaded_is_passed_over(log: FileLog, tmp_path: Path) -> None:
    """A state that its own projection does not understand any more is folded from the log instead."""
    snapshots = SnapshotDirectory(tmp_path / "snapshots")
    store = store_on(log, snapshots)
    store.transact(lambda _: say("a"))

    class Strange(Said):
        def dump(self, state: Reasons) -> bytes:
            return b'{"not":"a list"}'

    Store(log, Strange(), snapshots, lambda: 0.0).snapshot()
    assert store_on(log, snapshots).refresh() == ["a@1.0"]


def test_a_snapshot_is_of_durable_facts_only(log: FileLog, env: Boots, tmp_path: Path) -> None:
    """Saving after a reboot first makes the newest batch durable."""
    store_on(log).transact(lambda _: say("a"))
    env.boot = "second"
    store = store_on(again(log, env), SnapshotDirectory(tmp_path / "snapshots"))
    assert store.snapshot() == 1
    assert store.durable == 1
    assert store_on(log).snapshot() == 1, "without a directory it only says where it is"


def test_following_gets_what_comes_later(log: FileLog, env: Boots) -> None:
    """A follower gives what is there, waits for more, and ends when nothing comes."""
    store, other = store_on(log), store_on(again(log, env))
    store.transact(lambda _: say("a"))
    records = other.follow(0, patience_seconds=20.0)
    assert next(records).seq == 1
    writer = threading.Timer(0.05, lambda: store.transact(lambda _: say("b")))
    writer.start()
    assert next(records).seq == 2
    writer.join()
    assert list(other.follow(2)) == []
    assert list(other.follow(2, patience_seconds=0.01)) == []
    assert [record.seq for record in other.follow(0)] == [1, 2]
