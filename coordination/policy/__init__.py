"""Opinions: what a policy may answer, and how answers combine without regard to order.

A policy is a projection with opinions; silence (``None`` or 0) is the default everywhere. A policy module is one
file that exports ``policy``; it knows no other policy. Combination is commutative and associative: any Hold holds,
scores are summed, the tightest limit wins, the strictest verdict and remedy win. When every policy is silent about a
commit, a person decides: no policy's absence approves anything.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from enum import IntEnum
from functools import cache
from typing import Any, Generic, TypeVar, cast

from msgspec.structs import replace

from coordination.model.endings import How
from coordination.model.events import Record
from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import Limits, Rule, Value
from coordination.model.state import Run, State, Task

M = TypeVar("M")
VETO = float("-inf")


class Hold(Value, frozen=True, kw_only=True):
    """Do not start it now."""

    reason: str


class Judgement(IntEnum):
    """What is to be done with a commit, mildest first."""

    ACCEPT = 0
    CONFIRM = 1  # nothing is wrong with it, and a person has to say so: asked when nobody wants anything else
    REVIEW = 2
    GATE = 3
    AGAIN = 4  # back to the queue as a failure
    REJECT = 5  # back to the queue as a rejected round
    PERSON = 6


class Verdict(Value, frozen=True, kw_only=True):
    """A policy's judgement of the present commit."""

    judgement: Judgement
    reason: str
    gates: tuple[str, ...] = ()  # with GATE: which are still to be run
    rules: tuple[Rule, ...] = ()  # what it rests on; recorded with what follows


class Rank(IntEnum):
    """What to do after a run that did not succeed, mildest first."""

    AGAIN = 0  # same run once more, no counter
    RETRY = 1  # back to the queue, an attempt is used up
    PERSON = 2
    FAIL = 3


class Remedy(Value, frozen=True, kw_only=True):
    """A policy's answer to a run that did not succeed."""

    rank: Rank
    reason: str
    delay_seconds: float = 0.0
    how: How = How.FRESH  # how the next run begins


class Policy(Generic[M]):
    """Base of policies: a named memory and five silent answers."""

    name = ""
    version = 1

    def initial(self) -> M:
        """Memory before anything happened."""
        return cast(M, None)

    def fold(self, memory: M, record: Record) -> M:
        """Take one record into the memory."""
        del record
        return memory

    def admit(self, memory: M, facts: Facts, task: Task) -> Hold | None:
        """Whether a queued task may start. Asked once for all that are alike in priority, role and kind."""

    def score(self, memory: M, facts: Facts, task: Task, role: Role) -> float:
        """How well a role suits; ``VETO`` forbids."""
        del memory, facts, task, role
        return 0.0

    def limit(self, memory: M, facts: Facts, task: Task, role: Role) -> Limits | None:
        """What a run may use."""

    def judge(self, memory: M, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict | None:
        """What to do with the commit of the present try."""

    def remedy(self, memory: M, facts: Facts, task: Task, run: Run) -> Remedy | None:
        """What to do after a run that did not succeed."""


class Policies:
    """Several policies that answer as one."""

    def __init__(self, members: Iterable[Policy[Any]]) -> None:
        self._members = sorted(members, key=lambda policy: policy.name)

    def _memory(self, facts: Facts, policy: Policy[Any]) -> Any:
        return facts.memories.get(policy.name, policy.initial())

    def holds(self, facts: Facts, task: Task) -> list[str]:
        """Reasons of all who hold it."""
        answers = (policy.admit(self._memory(facts, policy), facts, task) for policy in self._members)
        return [hold.reason for hold in answers if hold is not None]

    def score(self, facts: Facts, task: Task, role: Role) -> float:
        """Sum of all scores."""
        return sum(policy.score(self._memory(facts, policy), facts, task, role) for policy in self._members)

    def limits(self, facts: Facts, task: Task, role: Role) -> Limits:
        """The tightest of all limits."""
        answers = [policy.limit(self._memory(facts, policy), facts, task, role) for policy in self._members]
        return tightest([limits for limits in answers if limits is not None])

    def verdict(self, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict:
        """The strictest of all verdicts; when all are silent, a person's."""
        given = self._verdicts(facts, task, runs)
        silent = Verdict(judgement=Judgement.PERSON, reason="no policy has an opinion: a person decides")
        return max(given, key=lambda said: (said.judgement, said.reason, said.gates, repr(said.rules)), default=silent)

    def reasons(self, facts: Facts, task: Task, runs: Sequence[Run]) -> list[str]:
        """What every policy that judged has to say; recorded with an approval."""
        return [verdict.reason for verdict in self._verdicts(facts, task, runs) if verdict.reason]

    def rules(self, facts: Facts, task: Task, runs: Sequence[Run]) -> tuple[Rule, ...]:
        """Every rule that any of them went by."""
        return tuple(rule for verdict in self._verdicts(facts, task, runs) for rule in verdict.rules)

    def _verdicts(self, facts: Facts, task: Task, runs: Sequence[Run]) -> list[Verdict]:
        answers = (policy.judge(self._memory(facts, policy), facts, task, runs) for policy in self._members)
        return [verdict for verdict in answers if verdict is not None]

    def remedy(self, facts: Facts, task: Task, run: Run) -> Remedy:
        """The strictest of all remedies; when all are silent, a person's."""
        answers = [policy.remedy(self._memory(facts, policy), facts, task, run) for policy in self._members]
        given = [remedy for remedy in answers if remedy is not None]
        silent = Remedy(rank=Rank.PERSON, reason="no policy has a remedy: a person decides")
        return max(given, key=lambda r: (r.rank, r.delay_seconds, r.reason, r.how), default=silent)


def informed(state: State, facts: Facts) -> Facts:
    """The facts with what the policies remember: it is folded with the state, so that all of it is of one moment."""
    return replace(facts, memories={"weather": state.accounts, "budgets": state.money})


def tightest(limits: Sequence[Limits]) -> Limits:
    """The smallest of each; what nobody limits keeps its default."""
    budgets = [limit.budget_usd for limit in limits if limit.budget_usd is not None]
    turns = [limit.turns_max for limit in limits if limit.turns_max is not None]
    return Limits(
        timeout_seconds=min([limit.timeout_seconds for limit in limits], default=Limits().timeout_seconds),
        budget_usd=min(budgets, default=None),
        turns_max=min(turns, default=None),
    )


@cache
def shipped() -> Policies:
    """The policies of this package, one module each, in no particular order."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    return Policies(importlib.import_module(f"{__name__}.{name}").policy for name in names)
