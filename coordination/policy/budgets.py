"""How much money is left under the caps of the day, of a role and of all, once every live run has its share.

A run's budget is reserved in the batch that plans it, and at most one run of an agent is planned at a time, so parallel
runs cannot promise the same dollar twice. The program stops *after* the answer that used up its budget, so each live
run is counted with its budget and one answer of declared cost; only the newest run's own answer is not. So all runs
together exceed a cap by at most one answer, if no answer costs more than was declared.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from coordination.model.facts import Facts
from coordination.model.money import Money, day_of
from coordination.model.roles import Role
from coordination.model.runs import Limits
from coordination.model.state import Task
from coordination.policy import Hold, Policy
from coordination.settings import Settings


class Budgets(Policy[Money]):
    """Caps are absolute: what is spent and what is promised never exceed them together."""

    name = "budgets"

    def initial(self) -> Money:
        """Nothing was spent."""
        return Money()

    def admit(self, memory: Money, facts: Facts, task: Task) -> Hold | None:
        """Hold a task when no role that takes it has enough left for a run."""
        tight = [_tightest(memory, facts, role) for role in facts.takers(task.spec)]
        if not tight or any(left is None or left[0] >= facts.settings.money.run_min_usd for left in tight):
            return None
        left, cap = min(found for found in tight if found is not None)
        promised = f", {memory.promised(0.0):.2f} USD are promised to runs" if memory.reserved else ""
        return Hold(reason=f"the cap {cap} leaves {max(0.0, left):.2f} USD{promised}")

    def limit(self, memory: Money, facts: Facts, task: Task, role: Role) -> Limits | None:
        """What the caps leave for one more run."""
        del task
        tight = _tightest(memory, facts, role)
        return None if tight is None else Limits(timeout_seconds=float("inf"), budget_usd=max(0.0, tight[0]))


def _tightest(money: Money, facts: Facts, role: Role) -> tuple[float, str] | None:
    """What the tightest cap leaves for a run of that role, and which it is; None without caps."""
    return min(_left(money, facts, role), default=None)


def _left(money: Money, facts: Facts, role: Role) -> Iterator[tuple[float, str]]:
    caps, today = facts.settings.money, max(day_of(facts.now), money.day)
    promised = money.promised(caps.response_usd)
    if caps.total_usd is not None:
        yield caps.total_usd - money.spent_usd - promised, f"of {caps.total_usd:.2f} USD in total"
    if caps.day_usd is not None:
        yield caps.day_usd - money.spent_on(today) - promised, f"of {caps.day_usd:.2f} USD a day (UTC)"
    override = facts.settings.roles.get(role.name)
    if override is not None and override.day_usd is not None:
        left = override.day_usd - money.spent_on(today, role.name) - money.promised(caps.response_usd, role.name)
        yield left, f"of {override.day_usd:.2f} USD a day (UTC) for {role.name}"


def uncapped(settings: Settings) -> Settings:
    """The same settings without any cap: what is left then are the budgets of the tasks."""
    roles = {name: replace(override, day_usd=None) for name, override in settings.roles.items()}
    return replace(settings, money=replace(settings.money, total_usd=None, day_usd=None), roles=roles)


def left_for_ever(money: Money, facts: Facts) -> float:
    """What the cap in total leaves for all that is still to come, promised or not; infinity without one."""
    total = facts.settings.money.total_usd
    return float("inf") if total is None else max(0.0, total - money.spent_usd)


policy = Budgets()
