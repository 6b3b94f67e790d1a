"""What each ending leads to: how the next run begins, how often, and what follows then."""

from __future__ import annotations

from collections import Counter

import pytest
from msgspec.structs import replace

from coordination.model import commands, endings
from coordination.model.endings import KINDS, How, is_weather, kind_of
from coordination.model.runs import Ending, GateResult, Outcome, Purpose
from coordination.model.state import Run
from coordination.model.tasks import Kind, Status, TaskSpec
from coordination.testing.strategies import ROLES, World, facts

FALLBACK = "the other model"
CODES = [code for kind in KINDS for code in kind.codes]


def world() -> World:
    """A task under way; its role names another model, for those that the first one refuses."""
    roles = ROLES | {"green": replace(ROLES["green"], fallback_model=FALLBACK)}
    made = World(facts=facts(roles=roles))
    made.submit("A", TaskSpec(prompt="do it", title="It", kind=Kind.IMPLEMENT, attempts_max=20))
    made.decide()
    return made


def outcome(code: str) -> Outcome:
    return Outcome(ending=Ending.LIMITED if is_weather(code) else Ending.FAILED, code=code, reason="so it went")


def began(run: Run) -> str:
    """How a run began, in one word."""
    if run.lean:
        return "shorter"
    if run.model == FALLBACK:
        return "other model"
    return "resumed" if run.continues else "fresh"


def test_a_code_means_one_thing() -> None:
    """No code belongs to two kinds, and each kind says in words what it is."""
    assert max(Counter(CODES).values()) == 1
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert all(kind.says and kind.then in (How.PERSON, How.FAIL) for kind in KINDS)
    assert {kind.name for kind in KINDS} >= endings.PERSONAL


@pytest.mark.parametrize(
    ("ending", "code", "name"),
    [
        (Ending.SUCCEEDED, "max_turns", "done"),
        (Ending.STOPPED, "max_turns", "stopped"),
        (Ending.FAILED, "max_turns", "turn limit"),
        (Ending.CRASHED, "signal:9", "crashed"),
        (Ending.CRASHED, "out_of_memory", "out of memory"),
        (Ending.LIMITED, "something new", "limited"),
        (Ending.FAILED, "something new", "failed"),
        (Ending.TIMED_OUT, "", "failed"),
    ],
)
def test_the_ending_decides_where_the_code_does_not(ending: Ending, code: str, name: str) -> None:
    """A success is one whatever its code, and a code that nobody knows is judged by the ending."""
    assert kind_of(Outcome(ending=ending, code=code)).name == name


REMEDIES = {
    "max_turns": (["resumed"] * 2, Status.FAILED),
    "budget_exhausted": ([], Status.WAITING_FOR_PERSON),
    "prompt_too_long": (["shorter"], Status.WAITING_FOR_PERSON),
    "refusal": (["other model"], Status.WAITING_FOR_PERSON),
    "denied": (["fresh"], Status.WAITING_FOR_PERSON),
    "other_commit": (["fresh"], Status.WAITING_FOR_PERSON),
    "no_change": (["fresh"] * 19, Status.FAILED),
    "nothing": (["fresh"] * 19, Status.FAILED),
    "no_structured_output": (["fresh"] * 2, Status.WAITING_FOR_PERSON),
    "not_found_error": (["other model"], Status.WAITING_FOR_PERSON),
    "rate_limit_error": (["resumed"] * 50, Status.WAITING_FOR_PERSON),
    "overloaded_error": (["resumed"] * 50, Status.WAITING_FOR_PERSON),
    "connection_failed": (["resumed"] * 50, Status.WAITING_FOR_PERSON),
    "api_error": (["resumed"] * 19, Status.FAILED),
    "invalid_request_error": (["fresh"], Status.WAITING_FOR_PERSON),
    "no_output": (["resumed"] * 2, Status.FAILED),
    "timed_out": (["resumed"], Status.FAILED),
    "out_of_memory": (["resumed"], Status.WAITING_FOR_PERSON),
    "worker_died": (["resumed"] * 19, Status.FAILED),  # more than an hour apart; see below
    "spawn_failed": (["fresh"], Status.WAITING_FOR_PERSON),
    "settings_not_applied": (["fresh"], Status.WAITING_FOR_PERSON),
    "astray": (["resumed"] * 50, Status.WAITING_FOR_PERSON),
    "tree_changed": (["fresh"], Status.WAITING_FOR_PERSON),
    "unproven_commit": (["fresh"] * 19, Status.FAILED),
}


@pytest.mark.parametrize("code", REMEDIES)
def test_an_ending_that_comes_again_and_again_is_bounded(code: str) -> None:
    """Each kind has its own way to go on and its own end; only what somebody is to blame for uses up attempts."""
    ways, last = REMEDIES[code]
    made = world()
    for way in ways:
        made.end("A", outcome(code))
        made.wait(4000.0)
        assert began(made.live("A")) == way
        if way == "resumed":
            assert made.live("A").continues == "A.1.work"
    made.end("A", outcome(code))
    made.wait(4000.0)
    task = made.state.find("A")
    assert task.status is last
    assert not task.live
    failed = last is Status.FAILED  # counts the last one too
    assert task.attempts == (0 if is_weather(code) else len(ways) + failed)
    assert kind_of(outcome(code)).says in task.reason or "attempt 20 of 20" in task.reason


@pytest.mark.parametrize("code", ["worker_died", "worker_error", "worker_exit:1", "signal:11"])
def test_of_crashes_in_a_row_the_fourth_is_the_last(code: str) -> None:
    """Three restarts within an hour, then the task has failed and says so; whatever its attempts would allow."""
    made = world()
    for _ in range(3):
        made.end("A", Outcome(ending=Ending.CRASHED, code=code, reason="so it went"))
        made.wait(400.0)
        assert began(made.live("A")) == "resumed"
    made.end("A", Outcome(ending=Ending.CRASHED, code=code, reason="so it went"))
    task = made.state.find("A")
    assert (task.status, task.attempts, len(task.runs)) == (Status.FAILED, 4, 4)
    assert "crashed, 4 times" in task.reason


def test_crashes_of_long_ago_are_forgotten() -> None:
    """Three in a row and a fourth an hour later: it goes on."""
    made = world()
    for pause in (400.0, 400.0, 3700.0, 400.0):
        made.end("A", Outcome(ending=Ending.CRASHED, code="worker_died", reason="so it went"))
        made.wait(pause)
        assert began(made.live("A")) == "resumed"


def test_every_kind_with_a_code_has_its_row() -> None:
    """Nothing is added to the table without saying here what it leads to; weather for ever is tried elsewhere."""
    tried = {kind_of(outcome(code)).name for code in REMEDIES}
    for_ever = {"usage limit", "authentication", "billing"}
    assert tried | for_ever == {kind.name for kind in KINDS if kind.codes}


def test_a_person_that_decides_begins_the_count_anew() -> None:
    """After `coord retry` the same ending is borne as often as at first."""
    made = world()
    for _ in range(2):
        made.end("A", outcome("spawn_failed"))
        made.wait(4000.0)
    assert made.state.find("A").status is Status.WAITING_FOR_PERSON
    made.ask(lambda state: commands.retry(state, "A"))
    made.decide()
    made.end("A", outcome("spawn_failed"))
    made.wait(4000.0)
    assert began(made.live("A")) == "fresh"


def test_the_first_of_a_chain_owns_the_session() -> None:
    """A run that goes on after one that went on names the run that began, also after a stop."""
    made = world()
    made.end("A", outcome("max_turns"))
    made.wait(4000.0)
    made.end("A", Outcome(ending=Ending.STOPPED))
    made.wait(1.0)
    assert (made.live("A").id, made.live("A").continues) == ("A.3.work", "A.1.work")


def test_a_rejected_commit_is_worked_on_in_a_new_session() -> None:
    """What a reviewer said is told at length; the old conversation would only argue."""
    made = world()
    made.end("A", Outcome(ending=Ending.SUCCEEDED, commit="c1", base="b1"))
    passed = (GateResult(gate="unit", commit="c1", exit_code=0),)
    made.end("A", Outcome(ending=Ending.SUCCEEDED, gates=passed))
    assert made.live("A").purpose is Purpose.REVIEW
    made.end("A", Outcome(ending=Ending.SUCCEEDED, verdict="reject", report="wrong"))
    assert began(made.live("A")) == "fresh"
    assert made.live("A").purpose is Purpose.WORK


@pytest.mark.parametrize("code", ["refusal", "not_found_error"])
def test_without_another_model_a_person_is_asked_at_once(code: str) -> None:
    """There is nothing to change, so trying again would only cost."""
    made = World(facts=facts())
    made.submit("A", TaskSpec(prompt="do it", title="It"))
    made.decide()
    made.end("A", outcome(code))
    assert made.state.find("A").status is Status.WAITING_FOR_PERSON
