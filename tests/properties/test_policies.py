"""Do opinions combine without regard to who is asked first, and in which groups?"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.model.facts import Facts
from coordination.model.roles import Role
from coordination.model.runs import Limits, Purpose
from coordination.model.state import Run, Task
from coordination.model.tasks import TaskSpec
from coordination.policy import Hold, Policies, Policy, Remedy, Verdict, shipped, tightest
from coordination.testing import strategies
from coordination.testing.strategies import ROLES, History, facts, values

TASK = Task(id="A", spec=TaskSpec(prompt="do it", title="It"), digest="", seq=1, index=0, submitted_at=0.0)
RUN = Run(id="A.1.work", task="A", purpose=Purpose.WORK, token=1, planned_at=0.0)
FACTS = facts()


class Says(msgspec.Struct, frozen=True):
    """Five answers."""

    hold: Hold | None
    score: int
    limits: Limits | None
    verdict: Verdict | None
    remedy: Remedy | None


class Speaker(Policy[None]):
    """Gives the answers it was made with."""

    def __init__(self, name: str, says: Says) -> None:
        self.name = name
        self._says = says

    def admit(self, memory: None, facts: Facts, task: Task) -> Hold | None:
        return self._says.hold

    def score(self, memory: None, facts: Facts, task: Task, role: Role) -> float:
        return float(self._says.score)

    def limit(self, memory: None, facts: Facts, task: Task, role: Role) -> Limits | None:
        return self._says.limits

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict | None:
        return self._says.verdict

    def remedy(self, memory: None, facts: Facts, task: Task, run: Run) -> Remedy | None:
        return self._says.remedy


answers = st.builds(
    Says,
    hold=st.none() | values(Hold),
    score=st.integers(-100, 100),
    limits=st.none() | values(Limits),
    verdict=st.none() | values(Verdict),
    remedy=st.none() | values(Remedy),
)
SILENT = Says(hold=None, score=0, limits=None, verdict=None, remedy=None)


def together(says: Sequence[Says], names: Sequence[str] = "abcdefgh") -> tuple[object, ...]:
    """All five answers of these speakers as one."""
    policies = Policies(Speaker(name, said) for name, said in zip(names, says, strict=False))
    role = ROLES["green"]
    return (
        sorted(policies.holds(FACTS, TASK)),
        policies.score(FACTS, TASK, role),
        policies.limits(FACTS, TASK, role),
        policies.verdict(FACTS, TASK, []),
        policies.remedy(FACTS, TASK, RUN),
    )


@given(st.lists(answers, max_size=4), st.randoms(use_true_random=False))
def test_order_and_names_do_not_matter(says: list[Says], dice: Random) -> None:
    """Any permutation of the same opinions gives the same five answers."""
    shuffled = list(says)
    dice.shuffle(shuffled)
    assert together(shuffled) == together(says)


@given(st.lists(answers, max_size=3), st.integers(0, 3))
def test_silence_changes_nothing(says: list[Says], place: int) -> None:
    """A policy without an opinion is as good as none, wherever it stands."""
    assert together([*says[:place], SILENT, *says[place:]]) == together(says)


@given(st.lists(answers, min_size=2, max_size=4), st.integers(1, 3))
def test_groups_do_not_matter(says: list[Says], cut: int) -> None:
    """The strictest of two groups' strictest is the strictest of all; likewise the tightest limits."""
    left, right = says[:cut], says[cut:]
    limits = [said.limits for said in says if said.limits is not None]
    halves = [[said.limits for said in half if said.limits is not None] for half in (left, right)]
    assert tightest([tightest(half) for half in halves if half]) == tightest(limits)
    verdicts = [Policies([Speaker("a", s) for s in half]).verdict(FACTS, TASK, []) for half in (left, right) if half]
    if all(said.verdict is not None for said in says):
        joined = [Says(hold=None, score=0, limits=None, verdict=verdict, remedy=None) for verdict in verdicts]
        assert together(joined)[3] == together(says)[3]


@given(st.lists(answers, min_size=1, max_size=4), answers)
def test_one_more_opinion_never_makes_it_milder(says: list[Says], more: Says) -> None:
    """Adding a policy to some that have spoken can only hold, tighten and be stricter."""
    few = Policies(Speaker(str(n), said) for n, said in enumerate(says))
    many = Policies(Speaker(str(n), said) for n, said in enumerate([*says, more]))
    assert len(many.holds(FACTS, TASK)) >= len(few.holds(FACTS, TASK))
    if any(said.verdict is not None for said in says):
        assert many.verdict(FACTS, TASK, []).judgement >= few.verdict(FACTS, TASK, []).judgement
    if any(said.remedy is not None for said in says):
        assert many.remedy(FACTS, TASK, RUN).rank >= few.remedy(FACTS, TASK, RUN).rank
    if any(said.limits is not None for said in says):
        role = ROLES["green"]
        before, after = few.limits(FACTS, TASK, role), many.limits(FACTS, TASK, role)
        assert after.timeout_seconds <= before.timeout_seconds
        assert before.budget_usd is None or (after.budget_usd is not None and after.budget_usd <= before.budget_usd)


@settings(max_examples=25)
@given(strategies.histories())
def test_the_shipped_policies_are_functions(history: History) -> None:
    """Asked twice, and in another order, about every task of a history, they answer the same."""
    members = shipped()._members
    backwards = Policies(reversed(members))
    for task in history.state.tasks.values():
        assert backwards.holds(history.facts, task) == shipped().holds(history.facts, task)
        assert backwards.verdict(history.facts, task, task.present) == shipped().verdict(
            history.facts, task, task.present
        )
        for run in task.runs:
            assert backwards.remedy(history.facts, task, run) == shipped().remedy(history.facts, task, run)
