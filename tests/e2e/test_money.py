"""Money, with the real Claude Code and the prices it knows: a cap over all tasks holds while several runs spend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.lines import case, read, say, write

pytestmark = pytest.mark.e2e

ANSWER_USD = 1.0
COSTS_A_DOLLAR = {"usage": {"output_tokens": 100_000}}  # of Sonnet, at ten dollars a million


def dear(items: list[Any]) -> list[Any]:
    return [COSTS_A_DOLLAR, *items]


def test_five_that_could_each_spend_four_keep_a_cap_of_ten(make: Any) -> None:
    """What is spent never exceeds the cap by more than one declared answer, and who has no money left waits for it."""
    steps = [dear(read("greeter.py")), dear(read("greeter.py")), dear(write("made.py", "x = 1\n")), dear(say("Done."))]
    settings = {
        "limits": {"budget_usd": 4.0},
        "money": {"total_usd": 10.0, "response_usd": ANSWER_USD},
        "roles.green": {"slots": 5},
    }
    scene = make([case("# Task T", steps=steps)], settings=settings)
    for number in range(5):
        scene.drop(id=f"T{number}", prompt="Make it warmer.", review="never")
    assert scene.start("--once", "--no-wait").wait(90) == 1

    ended = scene.events("RunEnded")
    spent = sum(event["outcome"].get("usage", {}).get("cost_usd", 0.0) for event in ended)
    status = json.loads(scene.coord("status", "--json"))
    assert status["money"]["spent_usd"] == pytest.approx(spent, abs=1e-4)
    assert 5.0 < spent <= 10.0 + ANSWER_USD + 0.1  # what is read costs a little, too
    assert status["money"]["promised_usd"] == 0.0
    waiting = [reason for task in status["waiting"] for reason in task["waiting"]]
    assert any("the cap of 10.00 USD in total leaves" in reason for reason in waiting)

    promised: dict[str, float] = {}
    before = 0.0
    for event in scene.events():
        if event["type"] == "RunPlanned" and event.get("account"):
            promised[event["run"]] = event["limits"]["budget_usd"]
        elif event["type"] == "RunEnded":
            promised.pop(event["run"], None)
            before += event["outcome"].get("usage", {}).get("cost_usd", 0.0)
        owed = sum(promised.values()) + ANSWER_USD * max(0, len(promised) - 1)
        assert before + owed <= 10.0 + ANSWER_USD + 0.1


def test_a_budget_of_a_run_ends_it_after_the_answer_that_used_it_up(make: Any) -> None:
    """Declared and true: Claude Code stops after that answer, never in the middle of one."""
    steps = [dear(read("greeter.py"))] * 6
    scene = make([case("# Task T", steps=steps)], settings={"limits": {"budget_usd": 2.5}})
    scene.drop(id="T", prompt="Make it warmer.", review="never")
    scene.run(code=1)
    (ended,) = scene.events("RunEnded", run="T.1.work")
    assert ended["outcome"]["code"] == "budget_exhausted"
    assert 2.5 < ended["outcome"]["usage"]["cost_usd"] <= 2.5 + ANSWER_USD
    assert scene.show("T")["state"] == "waiting_for_person"
