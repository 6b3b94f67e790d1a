"""A cap holds, however many runs go side by side: what is spent and what is promised stay below it together."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coordination import views
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome, Usage
from coordination.model.tasks import Kind, TaskSpec
from coordination.policy import shipped
from coordination.settings import LimitSettings, MoneySettings, RoleSettings, Settings
from coordination.testing.strategies import EPOCH, World, facts

DAY = 86_400.0


def world(money: MoneySettings, *, tasks: int = 8, slots: int = 5, budget: float = 4.0, **roles: Any) -> World:
    """Tasks that each could spend the budget, and slots for several."""
    overrides = {"green": RoleSettings(slots=slots, **roles), "red": RoleSettings(slots=slots)}
    settings = Settings(limits=LimitSettings(budget_usd=budget), money=money, roles=overrides)
    made = World(facts=facts(settings))
    for number in range(tasks):
        made.submit(f"T{number}", TaskSpec(prompt="do it", title="It", kind=Kind.IMPLEMENT))
    made.decide()
    return made


def budgets(made: World) -> list[float]:
    return [run.limits.budget_usd or 0.0 for run in made.state.live_runs()]


def ended(cost: float) -> Outcome:
    return Outcome(ending=Ending.FAILED, code="no_change", usage=Usage(cost_usd=cost, turns=1))


def test_ten_dollars_and_five_that_could_each_spend_four() -> None:
    """Two get all they may have, the third what is left but for the answers of the others, and two wait."""
    made = world(MoneySettings(total_usd=10.0, response_usd=0.5))
    assert budgets(made) == [4.0, 4.0, 1.0]
    held = views.waiting(made.state, made.facts, shipped(), made.state.find("T3"))
    assert held == ["the cap of 10.00 USD in total leaves 0.00 USD, 9.00 USD are promised to runs"]


def test_what_a_run_did_not_use_is_free_again() -> None:
    """A run that cost less than it reserved gives the rest back."""
    made = world(MoneySettings(total_usd=10.0, response_usd=0.5))
    made.end("T0", ended(0.25))
    made.wait(100.0)
    assert made.state.money.spent_usd == 0.25
    assert len(budgets(made)) == 4 - 1
    assert sum(budgets(made)) + 0.5 * (len(budgets(made)) - 1) <= 10.0 - 0.25


def test_a_day_is_over_at_midnight() -> None:
    """Under a daily cap what was spent yesterday counts no longer; in total it does for ever."""
    made = world(MoneySettings(day_usd=4.0, response_usd=0.5), slots=1, budget=8.0)
    made.end("T0", ended(3.99))
    made.wait(100.0)
    assert budgets(made) == []
    held = views.waiting(made.state, made.facts, shipped(), made.state.find("T1"))
    assert held[0].startswith("the cap of 4.00 USD a day (UTC) leaves 0.01 USD")
    made.wait(DAY)
    assert budgets(made) == [4.0]
    assert made.state.money.spent_on(views.moment(EPOCH)[:10]) == 3.99  # type: ignore[index]


def test_a_role_has_a_cap_of_its_own() -> None:
    """What Green may spend a day does not hold Blue."""
    made = world(MoneySettings(response_usd=0.5), day_usd=5.0)
    assert budgets(made) == [4.0, 0.5]
    made.submit("S", TaskSpec(prompt="look", title="Look", kind=Kind.SEARCH))
    made.decide()
    assert made.state.find("S").live


def test_one_run_of_an_agent_is_planned_a_step() -> None:
    """Or two of the same step would be weighed against the same dollars."""
    made = world(MoneySettings())
    starts = [sum(1 for record in batch.records if hasattr(record.event, "purpose")) for batch in made.batches]
    assert max(starts) == 1


def test_spending_is_told_by_role_and_model() -> None:
    """And what a merged task cost on average, once there is one."""
    made = world(MoneySettings(total_usd=100.0))
    made.end("T0", ended(1.5))
    row = views.status(made.state, made.facts, shipped(), seq=1, supervisor={})["money"]
    assert row["by_role"] == {"green": 1.5}
    assert row["by_model"] == {"sonnet": 1.5}
    assert (row["spent_usd"], row["today_usd"], row["a_merged_task_usd"]) == (1.5, 1.5, None)
    assert row["caps"] == {"total_usd": 100.0, "day_usd": None}


def landed(made: World, task: str, *, work: Usage, review: Usage, model: str = "") -> None:
    """A task goes its way from its work to the merge."""
    made.end(task, Outcome(ending=Ending.SUCCEEDED, base="b", commit="c", usage=work, model=model))
    made.end(task, Outcome(ending=Ending.SUCCEEDED, verdict="approve", usage=review))
    made.end(task, Outcome(ending=Ending.SUCCEEDED, commit="m"))


def test_what_a_merged_task_cost_is_told_by_role_and_model() -> None:
    """The parts add up to the whole; who failed is no part of it, and what was assumed is labelled where it was."""
    made = world(MoneySettings(), tasks=3)
    landed(made, "T0", work=Usage(cost_usd=1.0), review=Usage(cost_usd=0.5))
    landed(made, "T1", work=Usage(cost_usd=0.4, estimated=True), review=Usage(cost_usd=0.1), model="unheard-of")
    made.end("T2", ended(2.0))
    row = views.status(made.state, made.facts, shipped(), seq=1, supervisor={})["money"]
    assert row["a_merged_task"] == [
        {"role": "green", "model": "sonnet", "runs": 1, "usd": 0.5, "estimated": False},
        {"role": "red", "model": "opus", "runs": 2, "usd": 0.3, "estimated": False},
        {"role": "green", "model": "unheard-of", "runs": 1, "usd": 0.2, "estimated": True},
    ]
    assert (row["a_merged_task_usd"], row["a_merged_task_estimated"]) == (1.0, True)
    assert sum(part["usd"] for part in row["a_merged_task"]) == pytest.approx(row["a_merged_task_usd"])


def test_a_price_that_had_to_be_assumed_is_labelled_where_a_run_is_told() -> None:
    """Also in the sentence about its end."""
    made = world(MoneySettings(), tasks=1)
    made.end("T0", Outcome(ending=Ending.CRASHED, usage=Usage(cost_usd=0.5, estimated=True)))
    (told,) = [record for batch in made.batches for record in batch.records if isinstance(record.event, e.RunEnded)]
    row = e.described(told)
    assert ", about 0.5000 USD" in views.narrated(row["type"], row)


@pytest.mark.parametrize("days", [-1.0, 0.0, 1.0])
def test_a_clock_that_went_back_opens_no_day_again(days: float) -> None:
    """What was spent on the latest day stays spent on it."""
    made = world(MoneySettings(day_usd=4.0), slots=1)
    made.end("T0", ended(3.99))
    made.facts = replace(made.facts, now=made.facts.now + days * DAY)
    made.decide()
    made.wait(100.0)
    assert bool(budgets(made)) == (days > 0)


@given(
    cap=st.sampled_from([0.2, 1.0, 5.0, 10.0]),
    response=st.sampled_from([0.0, 0.1, 0.5]),
    budget=st.sampled_from([0.1, 0.5, 4.0]),
    dice=st.lists(st.tuples(st.integers(0, 7), st.floats(0.0, 1.0), st.booleans()), max_size=40),
)
def test_no_order_of_things_exceeds_a_cap_by_more_than_one_answer(
    cap: float, response: float, budget: float, dice: list[tuple[int, float, bool]]
) -> None:
    """Runs end in any order, spend all they may, and each may add one answer of the declared cost."""
    made = world(MoneySettings(total_usd=cap, response_usd=response), budget=budget)
    for pick, share, beyond in dice:
        live = made.state.live_runs()
        worst = made.state.money.spent_usd + sum(run.limits.budget_usd or 0.0 for run in live) + response * len(live)
        assert worst <= cap + response + 1e-9
        if not live:
            break
        run = live[pick % len(live)]
        allowed = run.limits.budget_usd or 0.0
        made.end(run.task, ended(allowed * share + (response if beyond else 0.0)))
        made.wait(400.0)
    assert made.state.money.spent_usd <= cap + response + 1e-9
