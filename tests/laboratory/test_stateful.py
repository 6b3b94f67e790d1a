"""Any sequence of appends, crashes, power cuts and failures that Hypothesis thinks of leaves what a plain list says."""

from __future__ import annotations

import errno
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from coordination.errors import Conflict, OutcomeUnknown, Refused
from coordination.log.file import FileLog, create
from coordination.testing.aftermath import DIRECTORY, Cut, payload, read
from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld

WRITERS = 3
WHICH = st.integers(0, WRITERS - 1)
SHARES = st.floats(0, 1)


class Once(Fate):
    """The next gesture of a kind has this fault."""

    def __init__(self, gesture: str, fault: Fault) -> None:
        self.gesture = gesture
        self.fault: Fault | None = fault

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        if gesture != self.gesture or self.fault is None:
            return None
        fault, self.fault = self.fault, None
        return fault


class Histories(RuleBasedStateMachine):
    """``known`` is the oracle: what was acknowledged, in order; ``doubtful`` may or may not follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SimulatedWorld()
        self.segment_bytes = 0
        self.known: list[str] = []
        self.doubtful: set[str] = set()
        self.logs: list[FileLog] = []
        self.envs: list[SimulatedEnv] = []
        self.values = 0

    @initialize(segment_bytes=st.sampled_from([1, 200, 1000, 1 << 20]), seed=st.integers(0, 1 << 16))
    def start(self, segment_bytes: int, seed: int) -> None:
        self.world.dice = Random(seed)
        self.segment_bytes = segment_bytes
        self.reboot()

    def reboot(self) -> None:
        """Everybody begins anew."""
        create(DIRECTORY, env=self.world.process())
        self.envs = [self.world.process() for _ in range(WRITERS)]
        self.logs = [self.connected(env) for env in self.envs]

    def connected(self, env: SimulatedEnv) -> FileLog:
        return FileLog(DIRECTORY, env=env, segment_bytes=self.segment_bytes)

    def found(self, log: FileLog, *, durable: bool = False) -> list[str]:
        """What stands there, after holding it against the oracle."""
        values = [value for _, value in read(log, durable=durable)]
        if not durable:
            assert values[: len(self.known)] == self.known
        assert set(values[len(self.known) :]) <= self.doubtful
        assert len(set(values)) == len(values)
        return values

    def append(self, which: int) -> None:
        """As whoever has read before he writes; what became of it goes into the oracle."""
        log = self.logs[which]
        self.values += 1
        value = str(self.values)
        values = self.found(log)
        self.doubtful.add(value)
        try:
            seq = log.append(payload(value, after=len(values), seen=values[-1] if values else None), after=len(values))
        except (Conflict, OutcomeUnknown, Refused) as error:
            if not isinstance(error, OutcomeUnknown):
                self.doubtful.discard(value)
        else:
            assert seq == len(values) + 1
            self.known, self.doubtful = [*values, value], set()

    @rule(which=WHICH)
    def append_after_reading(self, which: int) -> None:
        self.append(which)

    @rule(which=WHICH)
    def append_blindly(self, which: int) -> None:
        self.values += 1
        value = str(self.values)
        self.doubtful.add(value)
        try:
            seq = self.logs[which].append(payload(value), after=0, again=lambda: payload(value))
        except Conflict:  # whoever rolls may find that somebody died while he synced: then nothing was appended
            seq = self.logs[which].append(payload(value), after=0, again=lambda: payload(value))
        values = self.found(self.logs[which])
        assert values[seq - 1 :] == [value]
        self.known, self.doubtful = values, set()

    @rule(which=WHICH, dropped=st.booleans())
    def fail_to_sync(self, which: int, dropped: bool) -> None:
        self.world.fate = Once("sync_data", Fault("error", errno.EIO, dropped=dropped))
        self.append(which)
        self.world.fate = Fate()

    @rule()
    def drop_what_is_clean(self) -> None:
        for file in self.world.files():
            file.evict()

    @rule(which=WHICH, share=SHARES, full=st.booleans())
    def fill_the_disk(self, which: int, share: float, full: bool) -> None:
        self.world.fate = Once("write", Fault("error", errno.ENOSPC) if full else Fault("short", share=share))
        self.append(which)
        self.world.fate = Fate()

    @rule(which=WHICH, gestures=st.integers(1, 60), share=SHARES)
    def die_while_appending(self, which: int, gestures: int, share: float) -> None:
        self.world.fate = Cut(gestures, share)
        try:
            self.append(which)
        except Killed:
            self.reconnect_after(which)
        self.world.fate = Fate()

    @rule(which=WHICH)
    def reconnect(self, which: int) -> None:
        self.world.kill(self.envs[which])
        self.reconnect_after(which)

    def reconnect_after(self, which: int) -> None:
        self.world.fate = Fate()
        self.envs[which] = self.world.process()
        self.logs[which] = self.connected(self.envs[which])

    @rule(which=WHICH)
    def settle(self, which: int) -> None:
        log = self.logs[which]
        log.settle()
        values = self.found(log)
        assert self.found(log, durable=True) == values
        self.known, self.doubtful = values, set()

    @rule()
    def cut_the_power(self) -> None:
        self.world.power_cut()
        self.reboot()

    @rule(gestures=st.integers(1, 80), share=SHARES, power=st.booleans())
    def crash_while_recovering(self, gestures: int, share: float, power: bool) -> None:
        self.world.power_cut()
        self.reboot()
        self.world.fate = Cut(gestures, share)
        try:
            self.append(0)
        except Killed:
            if power:
                self.world.power_cut()
                self.world.fate = Fate()
                self.reboot()
            else:
                self.reconnect_after(0)
        self.world.fate = Fate()

    @rule()
    def lose_the_page(self) -> None:
        env = self.world.process()
        if env.is_file(DIRECTORY / "page"):
            env.unlink(DIRECTORY / "page")
        self.world.kill(env)

    @invariant()
    def everybody_agrees(self) -> None:
        for log in self.logs:
            values = self.found(log)
            assert values[: log.durable] == self.found(log, durable=True)
            assert log.durable <= len(values)


@pytest.mark.timeout(900)
def test_histories(tier: int) -> None:
    """The log holds what the list holds, whatever happens in between."""
    examples, steps = (120, 30) if tier == 1 else (3_000, 50)
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
