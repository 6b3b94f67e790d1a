"""Does every hostile or malformed file in the inbox end as accepted or as rejected with a reason, whatever it holds?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from uuid import uuid4

import msgspec
import pytest

from coordination import files
from coordination import log as logs
from coordination.coordinator import Coordinator, initialise, locate
from coordination.errors import Rejected
from coordination.inbox import QUIET_SECONDS, Fate, Inbox, Judge, Receipt, Ticket
from coordination.log import Log
from coordination.model.state import Core
from coordination.store import Store
from coordination.testing import taskfiles
from coordination.testing.taskfiles import Drop, Kind, Must, Placed, WatchingEnv

BATCH = 500
SETTINGS = '[gates]\ndefault = []\nunit = ["true"]\ntypes = ["true"]\n'


@dataclass
class Desk:
    """An inbox with a judge and a log, and a clock that is moved on instead of waiting."""

    inbox: Inbox
    env: WatchingEnv
    judge: Judge
    log: Log
    elsewhere: Path

    def take(self, made: list[Drop]) -> list[str]:
        """Drop the files, sweep until nothing can be still being written, compare."""
        self.inbox.prepare()
        placed = taskfiles.place(made, self.inbox.directory, self.elsewhere)
        try:
            receipts = self.sweep()
        except Exception as error:  # noqa: BLE001 - nothing at all may end a sweep
            return [f"the sweep ended: {error!r}"]
        return self.compare(placed, receipts)

    def sweep(self) -> list[Receipt]:
        first = [receipt for receipt in self.inbox.sweep(self.judge) if receipt.fate is not Fate.WAITING]
        self.env.clock += QUIET_SECONDS
        return first + self.inbox.sweep(self.judge)

    def compare(self, placed: list[Placed], receipts: list[Receipt]) -> list[str]:
        payloads = [payload for _, payload in self.log.read(0, upto="durable")]
        faults = taskfiles.violations(self.inbox.directory, placed, receipts, payloads)
        return faults + [f"opened: {name!r}" for name in self.env.opened]


@pytest.fixture
def coordinator(repository: Path) -> Iterator[Coordinator]:
    home = locate(repository)
    initialise(home)
    home.settings_file.write_text(SETTINGS)
    made = Coordinator(home)
    yield made
    made.store.log.close()


@pytest.fixture
def open_desk(coordinator: Coordinator, tmp_path: Path) -> Callable[[], Desk]:
    """A fresh inbox before one coordinator, with a fresh log in memory: for bulk, where nothing must be durable."""
    numbers = itertools.count()

    def made() -> Desk:
        place = tmp_path / f"desk {next(numbers)}"
        elsewhere = place / "elsewhere"
        elsewhere.mkdir(parents=True)
        log = logs.connect(f"memory:{uuid4()}")
        coordinator.store = Store(log, Core(), None, now=coordinator.now)
        env = WatchingEnv(syncs=False)
        return Desk(Inbox(place / "inbox", coordinator.now, env=env), env, coordinator.judge, log, elsewhere)

    return made


@pytest.mark.timeout(1200)
def test_every_file_is_accepted_or_rejected_with_a_reason(
    tier: int, seed: int, open_desk: Callable[[], Desk], figure: Callable[..., None]
) -> None:
    """In bulk: never both, never neither, never an exception; good ones accepted, bad ones blamed on their field."""
    dice = Random(seed)
    wanted = 5_000 if tier == 1 else 100_000
    counted: Counter[Must] = Counter()
    faults: list[str] = []
    while counted.total() - counted[Must.IGNORE] < wanted:
        made = taskfiles.drops(dice, BATCH)
        faults += open_desk().take(made)
        counted.update(drop.must for drop in made)
    note = ", ".join(f"{count} must be {must}" for must, count in sorted(counted.items()))
    figure("G8", "task files in the inbox", counted.total() - counted[Must.IGNORE], violations=len(faults), note=note)
    again = f"python -m pytest tests/laboratory/test_taskfiles.py -k every_file --tier {tier} --seed {seed}"
    assert not faults, (again, len(faults), faults[:10])


def test_the_real_log_and_a_real_inbox_agree_too(
    seed: int, coordinator: Coordinator, tmp_path: Path, figure: Callable[..., None]
) -> None:
    """With every sync and the log of a repository: the same, and a further start finds nothing to do."""
    (tmp_path / "elsewhere").mkdir()
    env = WatchingEnv(syncs=True)
    inbox = Inbox(coordinator.home.state / "inbox", coordinator.now, env=env)
    desk = Desk(inbox, env, coordinator.judge, coordinator.store.log, tmp_path / "elsewhere")
    made = taskfiles.drops(Random(seed), 300)
    faults = desk.take(made)
    figure("G8", "task files, durable", len(made), violations=len(faults))
    assert not faults, (seed, faults[:10])
    head = coordinator.store.refresh_seq()
    restarted = Inbox(inbox.directory, coordinator.now, env=env)
    assert restarted.recover(coordinator.state().tickets.get, coordinator.judge) == []
    assert restarted.sweep(coordinator.judge) == []
    assert coordinator.store.refresh_seq() == head


def test_drops_are_of_every_kind(seed: int) -> None:
    """Each fault, each kind of file and each fate that we know of comes up, under names of their own."""
    made = taskfiles.drops(Random(seed), 5_000)
    assert len({drop.name for drop in made}) == len(made)
    assert {drop.must for drop in made} == {*Must}
    assert {drop.kind for drop in made} >= {*Kind} - {Kind.DEVICE, Kind.FOREIGN}
    assert {drop.field for drop in made} >= {*taskfiles.WRONG}
    assert {drop.what for drop in made} >= {*taskfiles.NOT_JSON}


# ---- the checker finds what is planted -------------------------------------------------------------------------------


@pytest.fixture
def desk(open_desk: Callable[[], Desk]) -> Desk:
    return open_desk()


GOOD = Drop(name="good.json", data=b'{"prompt": "x"}', must=Must.ACCEPT, what="a task")
BAD = Drop(name="bad.json", data=b"{}", must=Must.REJECT, what="no prompt")


def test_nothing_is_found_where_nothing_is_wrong(desk: Desk) -> None:
    """Both fates, and no fault."""
    assert desk.take([GOOD, BAD]) == []


def test_a_judge_that_accepts_and_then_refuses_is_noticed(desk: Desk) -> None:
    """In the log and in ``rejected``: that is both."""
    judge = desk.judge

    def changes_its_mind(data: bytes, ticket: str, source: str) -> str:
        judge(data, ticket, source)
        raise Rejected("after all, no")

    desk.judge = changes_its_mind
    faults = desk.take([GOOD])
    assert any("rejected, but the log has its ticket" in fault for fault in faults)
    assert any("but no file is accepted under it" in fault for fault in faults)


def test_a_judge_that_swallows_is_noticed(desk: Desk) -> None:
    """In ``accepted`` and not in the log: that is neither."""
    desk.judge = lambda _data, _ticket, _source: "t1"
    assert any("but the log has no such task" in fault for fault in desk.take([GOOD]))


def test_a_judge_that_fails_is_noticed(desk: Desk) -> None:
    """What ends a sweep leaves files that are neither."""

    def fails(_data: bytes, _ticket: str, _source: str) -> str:
        raise ValueError("unexpected")

    desk.judge = fails
    assert desk.take([GOOD]) == ["the sweep ended: ValueError('unexpected')"]
    placed = [Placed(drop=GOOD, inode=next(desk.inbox.taken_directory.iterdir()).stat().st_ino)]
    faults = desk.compare(placed, [])
    assert any("it is in 0 places" in fault for fault in faults)
    assert any("left behind" in fault for fault in faults)


def test_a_judge_that_takes_anything_is_noticed(desk: Desk) -> None:
    """A file that must be refused is not accepted unseen."""
    judge = desk.judge
    desk.judge = lambda _data, ticket, source: judge(GOOD.data, ticket, source)
    assert any("accepted as t1" in fault for fault in desk.take([BAD]))


def test_a_judge_that_takes_one_task_for_another_is_noticed(desk: Desk) -> None:
    """The same id with other content is no repetition."""
    judge = desk.judge
    desk.judge = lambda data, ticket, source: "k" if b"other" in data else judge(data, ticket, source)
    first = Drop(name="a.json", data=b'{"prompt": "x", "id": "k"}', must=Must.ACCEPT, what="a task")
    other = Drop(name="b.json", data=b'{"prompt": "x", "id": "k", "title": "other"}', must=Must.EITHER, what="another")
    assert any("whose content is another" in fault for fault in desk.take([first, other]))


@pytest.mark.parametrize(
    ("left_out", "fault"),
    [
        ("reason", "rejected without a reason"),
        ("key", "its error file is"),
        ("move", "it is in 0 places"),
        ("file", "explains a file that is not there"),
    ],
)
def test_an_inbox_that_leaves_a_step_out_is_noticed(left_out: str, fault: str, desk: Desk) -> None:
    """A refusal without its reason, with half of it, or without the file."""

    class Forgetful(Inbox):
        def reject(self, ticket: Ticket, error: Rejected) -> None:
            if left_out == "move":
                files.publish_json(self._error_file(ticket), self._explained(ticket, error))
                return
            super().reject(ticket, error)
            explained = self._error_file(ticket)
            if left_out == "reason":
                explained.unlink()
            elif left_out == "key":
                explained.write_text("{}")
            else:
                explained.with_name(explained.name.replace(".error", "")).unlink()

    desk.inbox = Forgetful(desk.inbox.directory, lambda: 0.0, env=desk.env)
    assert any(fault in found for found in desk.take([BAD]))


def test_an_inbox_that_opens_what_it_must_not_is_noticed(desk: Desk) -> None:
    """A link is to be refused without a look behind it."""

    class Curious(Inbox):
        def read(self, ticket: Ticket) -> bytes:
            with suppress(OSError):
                self._env.close(self._env.open_read(self._taken(ticket)))
            return super().read(ticket)

    desk.inbox = Curious(desk.inbox.directory, lambda: 0.0, env=desk.env)
    link = Drop(name="link.json", data=GOOD.data, must=Must.REJECT, what="a link", kind=Kind.LINK)
    assert any(fault.startswith("opened: ") and "link.json" in fault for fault in desk.take([link]))


def test_a_receipt_that_tells_something_else_is_noticed(desk: Desk) -> None:
    """What a sweep returns is what has happened to the files."""
    desk.inbox.prepare()
    placed = taskfiles.place([GOOD, BAD], desk.inbox.directory, desk.elsewhere)
    receipts = desk.sweep()
    assert desk.compare(placed, receipts) == []
    assert any("its receipt is None" in fault for fault in desk.compare(placed, receipts[:1]))
    assert any("2 receipts" in fault for fault in desk.compare(placed, [*receipts, receipts[0]]))
    swapped = [msgspec.structs.replace(receipt, fate=Fate.SKIPPED) for receipt in receipts]
    assert any("not settled" in fault for fault in desk.compare(placed, swapped))
