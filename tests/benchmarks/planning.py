"""How long does one step of planning take, with few tasks in the queue and with many?

A run ends, and the step after it settles that and gives the slot to the next in the queue. What is measured is the
calls of ``plan`` alone, over many such steps; folding and the log have figures of their own.
"""

from __future__ import annotations

import time
from statistics import median

from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome
from coordination.model.state import Core
from coordination.model.tasks import TaskSpec
from coordination.planning.plan import plan
from coordination.policy import shipped
from coordination.testing.strategies import EPOCH, World, facts

STEPS = 200


def step_seconds(queued: int, steps: int = STEPS) -> float:
    """The median time that planning takes from the end of a run until there is nothing more to say."""
    world = _world(queued + steps)
    taken = []
    for _ in range(steps):
        run = world.state.live_runs()[0]
        outcome = Outcome(ending=Ending.FAILED, code="budget_exhausted")
        world.transact(commands.end(world.state, run.id, outcome, token=run.token))
        taken.append(_planned(world))
    return median(taken)


def _planned(world: World) -> float:
    taken = 0.0
    while True:
        begun = time.perf_counter()
        events = plan(world.state, world.facts, shipped())
        taken += time.perf_counter() - begun
        if not events:
            return taken
        world.transact(events)


def _world(tasks: int) -> World:
    world, core = World(facts=facts()), Core()
    for number in range(tasks):
        spec = TaskSpec(prompt="do it", title="It", priority=number % 7)
        event = e.TaskSubmitted(task=f"k{number}", spec=spec, digest="")
        record = e.Record(seq=number + 1, index=0, at=EPOCH - tasks + number, event=event)
        world.state = core.fold(world.state, record)
    world.decide()
    return world
