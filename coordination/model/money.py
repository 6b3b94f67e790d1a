"""What was spent and what is promised, folded from runs. In US dollars; a day is a day of UTC.

A run reserves its budget in the batch that plans it, so the sum of what was spent and what is promised is known before
anything is spawned. When it ends, what it cost takes the place of what it reserved.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from msgspec.structs import replace

from coordination.model.runs import Usage, Value


class Reservation(Value, frozen=True, kw_only=True):
    """What a live run may still cost."""

    role: str
    usd: float


class Money(Value, frozen=True, kw_only=True):
    """All of it, at one moment."""

    spent_usd: float = 0.0
    estimated: bool = False  # whether anything of it had to be assumed
    by_role: dict[str, float] = {}
    by_model: dict[str, float] = {}
    day: str = ""  # the latest day on which anything was spent, as 2026-01-31
    day_usd: float = 0.0  # spent on it
    day_by_role: dict[str, float] = {}
    reserved: dict[str, Reservation] = {}  # by run

    def promised(self, beyond_usd: float, role: str = "") -> float:
        """What live runs may still cost, each so much more than its budget: all, or those of one role."""
        return sum(each.usd + beyond_usd for each in self.reserved.values() if role in ("", each.role))

    def spent_on(self, day: str, role: str = "") -> float:
        """What was spent on that day: in all, or by one role. 0 for a day that is not the latest."""
        if day != self.day:
            return 0.0
        return self.day_by_role.get(role, 0.0) if role else self.day_usd


def day_of(at: float) -> str:
    """The day of an instant."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def reserved(money: Money, run: str, role: str, usd: float) -> Money:
    """A run was planned that may cost so much."""
    return replace(money, reserved=money.reserved | {run: Reservation(role=role, usd=usd)})


def settled(money: Money, run: str, role: str, model: str, usage: Usage, at: float) -> Money:
    """A run has ended and cost this."""
    left = {name: each for name, each in money.reserved.items() if name != run}
    cost = usage.cost_usd
    if not cost:
        return replace(money, reserved=left)
    today = max(day_of(at), money.day)  # a clock that went back opens no day again
    fresh = today != money.day
    return replace(
        money,
        spent_usd=money.spent_usd + cost,
        estimated=money.estimated or usage.estimated,
        by_role=_added(money.by_role, role, cost),
        by_model=_added(money.by_model, model, cost),
        day=today,
        day_usd=cost if fresh else money.day_usd + cost,
        day_by_role=_added({} if fresh else money.day_by_role, role, cost),
        reserved=left,
    )


def _added(sums: Mapping[str, float], name: str, cost: float) -> dict[str, float]:
    return {**sums, name: sums.get(name, 0.0) + cost}
