"""Whether the account that a run would use is in bad weather, and until when.

Times are clamped: what the service says about the end of a usage limit counts only if it lies ahead and is not absurd;
otherwise, and for storms of rate limits and overload, the wait doubles each time up to a bound. The jitter keeps
several coordinators on one account from coming back in step; it is derived, so that everybody computes the same.
"""

from __future__ import annotations

import zlib
from datetime import UTC, datetime

from coordination.model.accounts import Account
from coordination.model.facts import Facts
from coordination.model.state import Task
from coordination.policy import Hold, Policy

RESET_MAX_SECONDS = 8 * 24 * 3600.0  # the longest window is a week
UNKNOWN_SECONDS = 300.0  # a usage limit without a believable end: first wait, doubling
UNKNOWN_MAX_SECONDS = 3600.0
MARGIN_SECONDS = 1.0  # behind the reset, or the probe comes a moment too early
_JITTER = 0.25
_DOUBLINGS_MAX = 32
_USAGE = "usage limit"


class Weather(Policy[dict[str, Account]]):
    """Bad weather is everybody's: nothing starts until it is over, then one run tries, then the others follow."""

    name = "weather"

    def initial(self) -> dict[str, Account]:
        """Fine everywhere."""
        return {}

    def admit(self, memory: dict[str, Account], facts: Facts, task: Task) -> Hold | None:
        """Hold a task when every account it could use is parked, tried by another run, or warned and busy."""
        names = {name for role in facts.takers(task.spec) if (name := facts.account(role))}
        reasons = [_against(name, memory[name], facts) if name in memory else "" for name in sorted(names)]
        return Hold(reason=reasons[0]) if reasons and all(reasons) else None


def until(account: Account, facts: Facts) -> float:
    """When the next run may use the account: an instant; 0 in fine weather, infinity when only a person can help."""
    if not account.kind:
        return 0.0
    if account.personal:
        return float("inf")
    doublings = min(max(account.storms - 1, 0), _DOUBLINGS_MAX)
    if account.kind == _USAGE:
        if account.since < account.resets_at <= account.since + RESET_MAX_SECONDS:
            return account.resets_at + MARGIN_SECONDS
        return account.since + min(UNKNOWN_MAX_SECONDS, UNKNOWN_SECONDS * 2.0**doublings)
    retry = facts.settings.retry
    wait = min(retry.backoff_max_seconds, retry.backoff_seconds * 2.0**doublings)
    share = zlib.crc32(account.met_by.encode()) / 0xFFFFFFFF
    return account.since + wait * (1.0 + _JITTER * (2.0 * share - 1.0))


def _against(name: str, account: Account, facts: Facts) -> str:
    """Why no run may use the account now; empty when one may."""
    if account.kind:
        said = f"{account.kind} of {name!r} ({account.said})"
        end = until(account, facts)
        if account.personal:
            return f"{said}: put it right, then `coord resume`"
        if account.since <= facts.now < end:  # a clock that went back parks nobody: the probe will see
            return f"{said}: parked until {_moment(end)}"
        if account.probe:
            return f"{said}: {account.probe} tries whether it is over"
    if facts.now < account.warned_until and account.live:
        used = f"{account.warned:.0%} of a usage window of {name!r} is used up"
        return f"{used}: one run at a time until {_moment(account.warned_until)}"
    return ""


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


policy = Weather()
