"""How opinions combine, and that each shipped policy has the one it should."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from coordination.model import events as e
from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import Ending, Limits, Outcome, Purpose
from coordination.model.state import Run, Task
from coordination.model.tasks import TaskSpec
from coordination.policy import (
    VETO,
    Hold,
    Judgement,
    Policies,
    Policy,
    Rank,
    Remedy,
    Verdict,
    shipped,
    tightest,
)
from coordination.testing.strategies import ROLES, facts

TASK = Task(id="A", spec=TaskSpec(prompt="do it", title="It"), digest="", seq=1, index=0, submitted_at=0.0)
ENDED = Run(
    id="A.1.work",
    task="A",
    purpose=Purpose.WORK,
    token=1,
    planned_at=0.0,
    outcome=Outcome(ending=Ending.FAILED, reason="no"),
)
GREEN = ROLES["green"]


class Opinionated(Policy[int]):
    """Says what it was made with."""

    def __init__(self, name: str, **answers: Any) -> None:
        self.name = name
        self._answers = answers

    def initial(self) -> int:
        return 7

    def admit(self, memory: int, facts: Facts, task: Task) -> Hold | None:
        return Hold(reason=f"{self._answers['hold']} {memory}") if "hold" in self._answers else None

    def score(self, memory: int, facts: Facts, task: Task, role: Role) -> float:
        return float(self._answers.get("score", 0.0))

    def limit(self, memory: int, facts: Facts, task: Task, role: Role) -> Limits | None:
        return self._answers.get("limit")

    def judge(self, memory: int, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict | None:
        return self._answers.get("verdict")

    def remedy(self, memory: int, facts: Facts, task: Task, run: Run) -> Remedy | None:
        return self._answers.get("remedy")


def test_any_hold_holds_and_each_gives_its_reason() -> None:
    """Two of three hold; memory is each policy's own, or its initial one."""
    both = Policies([Opinionated("b", hold="B"), Opinionated("quiet"), Opinionated("a", hold="A")])
    assert both.holds(facts(memories={"b": 9}), TASK) == ["A 7", "B 9"]
    assert Policies([Opinionated("quiet")]).holds(facts(), TASK) == []


@pytest.mark.parametrize("others", [1.0, 1e308, float("inf")])
def test_a_veto_outweighs_every_score(others: float) -> None:
    """Whatever others give, the role is not open."""
    policies = Policies([Opinionated("a", score=VETO), Opinionated("b", score=others), Opinionated("c", score=others)])
    assert not policies.score(facts(), TASK, GREEN) > VETO


def test_the_tightest_limit_wins_field_by_field() -> None:
    """Time from one, money from another; what nobody limits keeps its default."""
    one = Limits(timeout_seconds=10.0, budget_usd=5.0)
    other = Limits(timeout_seconds=20.0, budget_usd=1.0)
    policies = Policies([Opinionated("a", limit=one), Opinionated("b", limit=other), Opinionated("c")])
    assert policies.limits(facts(), TASK, GREEN) == Limits(timeout_seconds=10.0, budget_usd=1.0)
    assert tightest([]) == Limits()


@pytest.mark.parametrize(
    ("mild", "strict"),
    [(Judgement(n), Judgement(n + 1)) for n in range(len(Judgement) - 1)],
    ids=str,
)
def test_the_strictest_judgement_wins(mild: Judgement, strict: Judgement) -> None:
    """Accept < review < gate < again < reject < person, whoever says it."""
    answers = [Verdict(judgement=mild, reason="z"), Verdict(judgement=strict, reason="a")]
    for first, second in (answers, answers[::-1]):
        policies = Policies([Opinionated("a", verdict=first), Opinionated("b", verdict=second)])
        assert policies.verdict(facts(), TASK, []).judgement is strict


def test_the_strictest_remedy_wins() -> None:
    """Again < retry < person < fail; between equals the longer delay."""
    answers = [
        Remedy(rank=Rank.RETRY, reason="x", delay_seconds=9.0),
        Remedy(rank=Rank.PERSON, reason="x", delay_seconds=1.0),
        Remedy(rank=Rank.PERSON, reason="a", delay_seconds=2.0),
        Remedy(rank=Rank.AGAIN, reason="z"),
    ]
    policies = Policies(Opinionated(str(n), remedy=answer) for n, answer in enumerate(answers))
    assert policies.remedy(facts(), TASK, ENDED) == answers[2]


def test_silence_of_all_means_a_person() -> None:
    """No policy's absence approves, repeats or starts anything."""
    silent = Policies([Opinionated("a")])
    assert silent.verdict(facts(), TASK, []).judgement is Judgement.PERSON
    assert silent.remedy(facts(), TASK, ENDED).rank is Rank.PERSON


def test_everyone_who_judged_is_quoted() -> None:
    """What stands in the evidence is all reasons, not the winner's alone."""
    policies = Policies(
        [
            Opinionated("a", verdict=Verdict(judgement=Judgement.ACCEPT, reason="fine")),
            Opinionated("b"),
            Opinionated("c", verdict=Verdict(judgement=Judgement.ACCEPT, reason="good")),
        ]
    )
    assert policies.reasons(facts(), TASK, []) == ["fine", "good"]


def test_a_policy_with_no_opinion_is_silent_everywhere() -> None:
    """The base class holds nothing, scores 0 and says nothing."""
    quiet: Policy[None] = Policy()
    known = facts()
    assert quiet.admit(None, known, TASK) is None
    assert quiet.score(None, known, TASK, GREEN) == 0.0
    assert quiet.limit(None, known, TASK, GREEN) is None
    assert quiet.judge(None, known, TASK, []) is None
    assert quiet.remedy(None, known, TASK, ENDED) is None
    assert quiet.fold(None, e.Record(seq=1, index=0, at=0.0, event=e.CoordinationPaused())) is None


def test_the_shipped_policies_are_found_and_have_names_of_their_own() -> None:
    """Every module of the package is one; two with one name would share a memory."""
    names = [policy.name for policy in shipped()._members]
    assert {"allowances", "bounds", "gating", "retries", "reviewing", "routing"} <= set(names)
    assert len(set(names)) == len(names)


def test_an_approval_of_another_commit_is_none() -> None:
    """Even when it is put before the policy: a review counts for the commit it names, and for no other."""
    (reviewing,) = (policy for policy in shipped()._members if policy.name == "reviewing")
    task = replace(TASK, commit="c2")
    approval = Outcome(ending=Ending.SUCCEEDED, verdict="approve")
    review = replace(ENDED, purpose=Purpose.REVIEW, commit="c1", outcome=approval)
    for commit, judgement in (("c1", Judgement.REVIEW), ("c2", Judgement.ACCEPT)):
        said = reviewing.judge(None, facts(), task, [replace(review, commit=commit)])
        assert said is not None
        assert said.judgement is judgement


def test_equal_judgements_that_ask_for_other_gates_have_one_winner() -> None:
    """Which of two is called first by name decides nothing."""
    answers = [Verdict(judgement=Judgement.GATE, reason="gates", gates=(gate,)) for gate in ("unit", "types")]
    said = {
        Policies([Opinionated("a", verdict=first), Opinionated("b", verdict=second)]).verdict(facts(), TASK, [])
        for first, second in (answers, answers[::-1])
    }
    assert len(said) == 1
