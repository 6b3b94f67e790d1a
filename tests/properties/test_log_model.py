"""Any history of appends, crashes, reboots and torn ends leaves what a plain list of acknowledged batches says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from shutil import rmtree

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from coordination.env import Env
from coordination.errors import Conflict, OutcomeUnknown, Refused
from coordination.log.file import FileLog, create


class World(Env):
    """A machine that reboots, and a disk that fails or takes only a part when told to."""

    def __init__(self) -> None:
        self.boots = 0
        self.failing_syncs = 0
        self.bytes_taken: int | None = None

    def boot_id(self) -> str:
        return f"boot-{self.boots}"

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        if self.bytes_taken is None:
            return super().write(descriptor, data, offset)
        taken, self.bytes_taken = data[: self.bytes_taken], None
        super().write(descriptor, taken, offset)
        raise OSError(28, "No space left on device")

    def sync_data(self, descriptor: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(5, "Input/output error")

    def sync(self, descriptor: int) -> None:
        """Nothing here looks at the disk below the page cache, so waiting for it would only cost time."""


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp()) / "log"
        self.world = World()
        self.acknowledged: list[bytes] = []
        self.doubtful: bytes | None = None  # the one batch that may or may not be there
        self.logs: list[FileLog] = []

    @initialize(segment_bytes=st.sampled_from([1, 200, 1000, 1 << 20]))
    def start(self, segment_bytes: int) -> None:
        create(self.directory, env=self.world)
        self.segment_bytes = segment_bytes
        self.logs = [self.connected() for _ in range(3)]

    def connected(self) -> FileLog:
        return FileLog(self.directory, env=self.world, segment_bytes=self.segment_bytes)

    def learn(self, log: FileLog) -> int:
        """Read the head, and settle what became of a doubtful batch."""
        found = [payload for _, payload in log.read(0, upto="head")]
        if self.doubtful is not None and len(found) > len(self.acknowledged):
            assert found[-1] == self.doubtful
        else:
            assert found == self.acknowledged
        assert found[: len(self.acknowledged)] == self.acknowledged
        return len(found)

    @rule(which=st.integers(0, 2), text=st.text(max_size=40))
    def append(self, which: int, text: str) -> None:
        self.try_append(self.logs[which], text)

    @rule(which=st.integers(0, 2), cut=st.integers(0, 60))
    def disk_full(self, which: int, cut: int) -> None:
        self.world.bytes_taken = cut
        self.try_append(self.logs[which], "full")
        self.world.bytes_taken = None

    @rule(which=st.integers(0, 2))
    def failed_sync(self, which: int) -> None:
        self.world.failing_syncs = 1
        self.try_append(self.logs[which], "sync")
        self.world.failing_syncs = 0

    def try_append(self, log: FileLog, text: str) -> None:
        payload = b'{"text":"%b","n":%d}' % (text.encode("utf-8", "replace").hex().encode(), len(self.acknowledged))
        for _ in range(4):
            head = self.learn(log)
            try:
                log.append(payload, after=head)
            except Conflict:
                continue
            except OutcomeUnknown:
                if self.doubtful is None or head == len(self.acknowledged):
                    self.doubtful = payload
                else:  # the older doubtful batch was there when this one was decided
                    self.acknowledged.append(self.doubtful)
                    self.doubtful = payload
                return
            except Refused:  # a full disk may also stop a recovery
                return
            if head > len(self.acknowledged):
                assert self.doubtful is not None
                self.acknowledged.append(self.doubtful)
            self.acknowledged.append(payload)
            self.doubtful = None
            return
        raise AssertionError("conflicts without end")

    @rule()
    def reboot(self) -> None:
        for log in self.logs:
            log.close()
        self.world.boots += 1
        self.logs = [self.connected() for _ in range(3)]

    @rule(which=st.integers(0, 2))
    def reconnect(self, which: int) -> None:
        self.logs[which].close()
        self.logs[which] = self.connected()

    @rule()
    def lose_the_page(self) -> None:
        (self.directory / "page").unlink(missing_ok=True)

    @rule(junk=st.binary(min_size=1, max_size=30))
    def torn_end(self, junk: bytes) -> None:
        tail = max(self.directory.glob("*.jsonl"))
        with tail.open("ab") as file:
            file.write(junk.replace(b"\n", b" "))

    @rule(which=st.integers(0, 2))
    def settle(self, which: int) -> None:
        log = self.logs[which]
        log.settle()
        found = [payload for _, payload in log.read(0, upto="durable")]
        assert len(found) == self.learn(log)
        self.acknowledged, self.doubtful = found, None

    @invariant()
    def everybody_agrees(self) -> None:
        for log in self.logs:
            head = self.learn(log)
            durable = log.durable
            assert durable <= head
            assert [seq for seq, _ in log.read(0, upto="durable")] == list(range(1, log.durable + 1))
            assert durable >= len(self.acknowledged) - 1

    def teardown(self) -> None:
        for log in self.logs:
            log.close()
        rmtree(self.directory.parent)


Histories.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestHistories = Histories.TestCase
