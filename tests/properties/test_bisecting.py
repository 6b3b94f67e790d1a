"""Whoever is bad, and in whatever company: what is good lands, what is bad goes back, and nothing lands untested."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from coordination.workspaces.bisecting import Chain, Fate, settle


@dataclass
class Fake:
    """A branch as the list of those on it; ``passing`` says of such a list whether its gates pass."""

    passing: Callable[[Sequence[str]], bool]
    clashes: frozenset[frozenset[str]] = frozenset()
    stop_after: int = 10**6
    branch: list[str] = field(default_factory=list)
    taken: int = 10**6  # after so many moves somebody else moves the branch
    tested: dict[tuple[str, ...], bool] = field(default_factory=dict)
    tests: int = 0
    states: list[tuple[str, ...]] = field(default_factory=list)

    def chain(self, tasks: Sequence[str]) -> Chain:
        chain: list[str] = []
        conflicting, postponed = [], []
        for task in tasks:
            if self._clash(task, self.branch):
                conflicting.append(task)
            elif self._clash(task, chain):
                postponed.append(task)
            else:
                chain.append(task)
        return Chain(tasks=chain, conflicting=conflicting, postponed=postponed)

    def passes(self, chain: Chain, count: int) -> bool:
        state = (*self.branch, *chain.tasks[:count])
        self.tests += 1
        self.tested[state] = self.passing(state)
        return self.tested[state]

    def moves(self, chain: Chain, count: int) -> bool:
        if len(self.states) >= self.taken:
            return False
        self.branch += chain.tasks[:count]
        self.states.append(tuple(self.branch))
        return True

    def stopping(self) -> bool:
        return self.tests >= self.stop_after

    def _clash(self, task: str, others: Sequence[str]) -> bool:
        return any(frozenset((task, other)) in self.clashes for other in others)


def names(count: int) -> list[str]:
    return [f"t{number}" for number in range(count)]


def without(bad: frozenset[str]) -> Callable[[Sequence[str]], bool]:
    return lambda state: not bad & set(state)


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[str], frozenset[str]]:
    tasks = names(draw(st.integers(1, 20)))
    return tasks, frozenset(draw(st.sets(st.sampled_from(tasks))))


pairs = st.sets(st.sampled_from([frozenset(pair) for pair in combinations(names(10), 2)]), max_size=6).map(frozenset)


@given(batches())
def test_the_good_land_in_their_order_and_exactly_the_bad_go_back(batch: tuple[list[str], frozenset[str]]) -> None:
    """For every number and every set of bad ones; what lands was tested as it landed."""
    tasks, bad = batch
    fake = Fake(without(bad))
    fates = settle(tasks, fake)
    assert fates == {task: Fate.FAILED if task in bad else Fate.MERGED for task in tasks}
    assert fake.branch == [task for task in tasks if task not in bad]
    assert all(fake.tested[state] for state in fake.states)


@given(pairs, st.integers(1, 10))
def test_who_breaks_it_only_in_company_goes_back_and_the_company_stays(
    poison: frozenset[frozenset[str]], count: int
) -> None:
    """Of two that fail together the later one goes back, and only if the earlier one landed."""
    tasks = names(count)
    fake = Fake(lambda state: not any(pair <= set(state) for pair in poison))
    fates = settle(tasks, fake)
    assert fake.branch == [task for task in tasks if fates[task] is Fate.MERGED]
    assert all(fake.tested[state] for state in fake.states)
    for task in tasks:
        before = [other for other in fake.branch if tasks.index(other) < tasks.index(task)]
        spoiled = any(frozenset((task, other)) in poison for other in before)
        assert fates[task] is (Fate.FAILED if spoiled else Fate.MERGED)


@given(pairs, st.sets(st.sampled_from(names(10))).map(frozenset), st.integers(1, 10))
def test_a_conflict_is_one_only_with_what_landed(
    clashes: frozenset[frozenset[str]], bad: frozenset[str], count: int
) -> None:
    """Who conflicts with one that goes back lands; who conflicts with one that landed is told so, never both lost."""
    tasks = names(count)
    fake = Fake(without(bad), clashes)
    fates = settle(tasks, fake)
    assert all(fake.tested[state] for state in fake.states)
    assert sorted(fake.branch) == sorted(task for task in tasks if fates[task] is Fate.MERGED)
    for task in tasks:
        conflicts = any(frozenset((task, other)) in clashes for other in fake.branch)
        fitting = Fate.FAILED if task in bad else Fate.CONFLICT if conflicts else Fate.MERGED
        assert fates[task] is fitting or (fates[task], conflicts) == (Fate.CONFLICT, True)


@given(batches(), st.integers(0, 30), st.integers(0, 4), st.randoms(use_true_random=False))
def test_stopped_overtaken_or_flaky_nothing_lands_untested_and_nobody_is_forgotten(
    batch: tuple[list[str], frozenset[str]], stop_after: int, taken: int, dice: Random
) -> None:
    """Whatever the gates say and whenever it ends, the branch has only what passed, and each has one fate."""
    tasks, _ = batch
    fake = Fake(lambda _state: dice.random() < 0.6, stop_after=stop_after, taken=taken)
    fates = settle(tasks, fake)
    assert set(fates) == set(tasks)
    assert all(fake.tested[state] for state in fake.states)
    assert fake.branch == [task for task in tasks if fates[task] is Fate.MERGED]


@given(st.integers(2, 20))
def test_what_fails_without_anybody_blames_the_first_and_leaves_the_others(count: int) -> None:
    """The branch itself fails: one goes back to look at it, nobody else loses anything."""
    tasks = names(count)
    fates = settle(tasks, Fake(lambda _state: False))
    assert list(fates.values()) == [Fate.FAILED] + [Fate.LEFT] * (count - 1)


@given(batches())
@settings(max_examples=200)
def test_the_number_of_tests_is_bounded(batch: tuple[list[str], frozenset[str]]) -> None:
    """One when nothing is bad; for each bad one a search of its own; never more than twice one by one, and a little."""
    tasks, bad = batch
    fake = Fake(without(bad))
    settle(tasks, fake)
    steps = math.ceil(math.log2(len(tasks))) if len(tasks) > 1 else 0
    assert fake.tests <= (1 if not bad else (len(bad) + 1) * (steps + 3))
    assert fake.tests <= 3 * len(tasks) + steps
    if len(tasks) == 1:
        assert fake.tests == 1
