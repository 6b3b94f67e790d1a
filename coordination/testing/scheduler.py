"""Who goes on next? Processes of a simulated world as greenlets; any gesture may be the last one before another's turn.

Dice decide, so that a seed decides. Time passes by gestures, and leaps to the next deadline when everybody waits.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from greenlet import getcurrent, greenlet

from coordination.testing.world import Fate, Fault, Killed, SimulatedEnv, SimulatedWorld, Stuck

_LEAP = 0.02  # how often time leaps to a deadline although somebody could go on
Script = Callable[[SimulatedEnv], None]


class Actor:
    """A process and what it does."""

    def __init__(self, name: str, env: SimulatedEnv, script: Script) -> None:
        self.name = name
        self.env = env
        self.script = script
        self.greenlet: greenlet | None = None
        self.ready: Callable[[], bool] | None = None  # what it waits for
        self.until: float | None = None

    def can_go_on(self, now: float) -> bool:
        """Whether it neither waits nor was stopped."""
        if self.env.stopped:
            return False
        return self.ready is None or self.ready() or (self.until is not None and self.until <= now)


class Scheduler(Fate):
    """Runs actors until each has come to its end. ``patience`` is how many gestures one mostly makes in a row."""

    watching = True

    def __init__(self, world: SimulatedWorld, dice: Random, *, patience: float, gestures_max: int) -> None:
        self.world = world
        self.dice = dice
        self.gestures = 0
        self.actors: list[Actor] = []
        self.continuing: list[tuple[float, SimulatedEnv]] = []  # when a stopped process goes on
        self._patience = patience
        self._gestures_max = gestures_max
        self._turn_ends = 0
        self._hub = getcurrent()
        world.fate = self

    def start(self, name: str, script: Script) -> Actor:
        """Let a new process begin."""
        actor = Actor(name, self.world.process(), script)
        actor.greenlet = greenlet(self._live)
        self.actors.append(actor)
        return actor

    def run(self) -> None:
        """Until nobody is left. Raises Stuck when everybody waits for ever, or there is no end to it."""
        while actor := self._next():
            self._turn_ends = self.gestures + 1 + int(self.dice.expovariate(1 / self._patience))
            assert actor.greenlet is not None
            actor.greenlet.switch(actor)
            self.after_turn()
            self._bury()

    def stop(self, env: SimulatedEnv, seconds: float) -> None:
        """As SIGSTOP, and SIGCONT after that long; at once when everybody else waits for ever."""
        env.stopped = True
        self.continuing.append((self.world.time + seconds, env))

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:  # noqa: ARG002 - see below
        """Perhaps let others go on first."""
        self.gestures += 1
        if self.gestures >= self._turn_ends or env.stopped:
            self._hub.switch()
        return None

    def block(self, env: SimulatedEnv, ready: Callable[[], bool], until: float | None) -> None:
        """Let others go on until it is ready, or the time has come."""
        actor = next(actor for actor in self.actors if actor.env is env)
        actor.ready, actor.until = ready, until
        self._hub.switch()
        actor.ready = actor.until = None

    def after_turn(self) -> None:
        """Somebody made some gestures, and nobody does now."""

    def died(self, actor: Actor) -> None:
        """It was killed."""

    def failed(self, actor: Actor, error: Exception) -> None:  # noqa: ARG002 - for subclasses
        """What it does raised an error."""
        raise error

    def _live(self, actor: Actor) -> None:
        try:
            actor.script(actor.env)
        except Killed:
            return
        except Exception as error:  # noqa: BLE001 - for the subclass to judge
            self.failed(actor, error)
        self.world.kill(actor.env)
        self.actors.remove(actor)

    def _next(self) -> Actor | None:
        while self.actors:
            if self.gestures > self._gestures_max:
                raise Stuck(f"no end after {self.gestures} gestures: {self._told()}")
            ready = [actor for actor in self.actors if actor.can_go_on(self.world.time)]
            if ready and self.dice.random() >= _LEAP:
                return self.dice.choice(ready)
            if not self._leap() and not ready:
                raise Stuck(f"everybody waits for ever: {self._told()}")
        return None

    def _leap(self) -> bool:
        """Let time pass until the next deadline; whether there was one."""
        deadlines = [actor.until for actor in self.actors if actor.until is not None and not actor.env.stopped]
        deadlines += [moment for moment, _ in self.continuing]
        if not deadlines:
            return False
        self.world.time = max(self.world.time, min(deadlines))
        for moment, env in self.continuing:
            if moment <= self.world.time:
                env.stopped = False
        self.continuing = [(moment, env) for moment, env in self.continuing if moment > self.world.time]
        return True

    def _bury(self) -> None:
        for actor in [actor for actor in self.actors if not actor.env.alive]:
            self.actors.remove(actor)
            if actor.greenlet:  # it began, and is not over
                actor.greenlet.throw(Killed)
            self.died(actor)

    def _told(self) -> str:
        return ", ".join(f"{actor.name}{' (stopped)' if actor.env.stopped else ''}" for actor in self.actors)
