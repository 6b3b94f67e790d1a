"""Limits are weather: everybody's, for as long as they last, and nobody's fault."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordination import views
from coordination.model import commands
from coordination.model.runs import Ending, GateResult, Outcome, Purpose, Usage
from coordination.model.tasks import Status, TaskSpec
from coordination.policy import shipped
from coordination.testing.strategies import EPOCH, ROLES, World, facts

SERVED = Usage(cost_usd=0.1, turns=3)


def storm(tasks: int = 4, slots: int = 4) -> World:
    """So many tasks under way on one account, and two more that wait for a slot."""
    roles = ROLES | {"green": replace(ROLES["green"], slots=slots)}
    made = World(facts=facts(roles=roles))
    for number in range(tasks + 2):
        made.submit(f"T{number}", TaskSpec(prompt="do it", title="It"))
    made.decide()
    assert len(made.state.live_runs()) == min(tasks + 2, slots)
    return made


def limited(code: str = "usage_limit_reached", **fields: Any) -> Outcome:
    return Outcome(ending=Ending.LIMITED, code=code, reason="you have hit your limit", **fields)


def done() -> Outcome:
    return Outcome(ending=Ending.SUCCEEDED, commit="c1", base="b1", usage=SERVED)


def lives(made: World) -> list[str]:
    return [run.task for run in made.state.live_runs() if run.account]


def held(made: World, task: str) -> str:
    return "; ".join(views.waiting(made.state, made.facts, shipped(), made.state.find(task)))


def test_one_limit_parks_everybody_until_the_reset_and_costs_no_attempt() -> None:
    """The first to meet it parks all; what runs may fall too; nothing starts before the instant that was named."""
    made = storm()
    for number in range(4):
        made.end(f"T{number}", limited(resets_at=EPOCH + 3600.0))
        made.wait(1.0)
    assert lives(made) == []
    assert all(task.attempts == 0 and task.status is Status.QUEUED for task in made.state.tasks.values())
    assert "parked until" in held(made, "T4")
    made.wait(3590.0)
    assert lives(made) == []
    made.wait(20.0)
    assert len(lives(made)) == 1


def test_one_probe_then_the_rest() -> None:
    """Half open: while one run tries, nobody else starts; its success opens the account to all."""
    made = storm()
    for number in range(4):
        made.end(f"T{number}", limited(resets_at=EPOCH + 100.0))
    made.wait(102.0)
    (probe,) = lives(made)
    made.wait(1000.0)
    assert lives(made) == [probe]
    other = next(task for task in made.state.tasks if task != probe)
    assert f"{probe}.2.work tries whether it is over" in held(made, other)
    made.end(probe, done())
    assert len(lives(made)) == 4
    assert not made.state.accounts["claude"].kind


def test_a_probe_that_meets_the_limit_parks_again() -> None:
    """Its failure is one more storm, and the next probe waits for the new instant."""
    made = storm(tasks=1, slots=1)
    made.end("T0", limited(resets_at=EPOCH + 100.0))
    made.wait(102.0)
    (probe,) = lives(made)
    made.end(probe, limited(resets_at=EPOCH + 5000.0))
    made.wait(4000.0)
    assert lives(made) == []
    made.wait(1000.0)
    assert len(lives(made)) == 1
    assert made.state.accounts["claude"].storms == 2


def test_a_probe_that_never_reached_the_service_says_nothing() -> None:
    """Its crash neither opens the account nor keeps it closed: another one tries."""
    made = storm(tasks=1, slots=1)
    made.end("T0", limited(resets_at=EPOCH + 100.0))
    made.wait(102.0)
    (probe,) = lives(made)
    made.end(probe, Outcome(ending=Ending.CRASHED, code="signal:9"))
    made.wait(0.5)
    assert made.state.accounts["claude"].kind == "usage limit"
    assert len(lives(made)) == 1


def test_many_that_fall_in_one_storm_are_one_storm() -> None:
    """Eight workers that meet the same overload do not double the wait eight times."""
    made = storm(tasks=8, slots=8)
    for number in range(8):
        made.end(f"T{number}", limited("overloaded_error"))
    assert made.state.accounts["claude"].storms == 1
    made.wait(8.0)
    assert len(lives(made)) == 1


def test_storms_back_off_and_are_forgotten() -> None:
    """Each further storm doubles the wait, within a quarter of jitter, up to the most; a success forgets them."""
    made = storm(tasks=1, slots=1)
    for expected in (5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        (running,) = lives(made)
        made.end(running, limited("rate_limit_error"))
        waited = 0.0
        while not lives(made):
            made.wait(0.5)
            waited += 0.5
        assert expected * 0.75 <= waited <= expected * 1.25 + 0.5
    (running,) = lives(made)
    made.end(running, done())
    assert made.state.accounts["claude"].storms == 0


@pytest.mark.parametrize(
    ("resets_at", "seconds"),
    [(0.0, 300.0), (EPOCH - 50.0, 300.0), (EPOCH + 4e8, 300.0), (EPOCH + 7 * 86400.0, 7 * 86400.0)],
    ids=["missing", "past", "absurd", "a week"],
)
def test_a_reset_that_cannot_be_is_clamped(resets_at: float, seconds: float) -> None:
    """A bounded wait takes the place of what nobody could believe."""
    made = storm(tasks=1, slots=1)
    met = made.facts.now
    made.end("T0", limited(resets_at=resets_at))
    made.wait(met + seconds - 2.0 - made.facts.now)
    assert lives(made) == []
    made.wait(4.0)
    assert len(lives(made)) == 1


@pytest.mark.parametrize("code", ["authentication_error", "billing_error"])
def test_what_only_a_person_can_put_right_asks_for_one(code: str) -> None:
    """No time opens it; `coord resume` lets one run try, and its success all others."""
    made = storm(tasks=2, slots=2)
    for number in range(2):
        made.end(f"T{number}", limited(code))
    made.wait(30 * 86400.0)
    assert lives(made) == []
    assert "`coord resume`" in held(made, "T2")
    assert made.ask(lambda state: commands.resume(state, None))
    made.decide()
    assert lives(made)
    assert all(task.attempts == 0 for task in made.state.tasks.values())


def test_a_warning_slows_down_before_the_wall() -> None:
    """When the service warns, runs go one at a time until the window ends; what runs is left alone."""
    made = storm(tasks=4)
    warned = replace(done(), warned=0.92, resets_at=EPOCH + 500.0)
    made.end("T0", warned)
    assert len(lives(made)) == 3
    assert "92% of a usage window" in held(made, "T4")
    for number in (1, 2, 3):
        made.end(f"T{number}", replace(warned))
    assert len(lives(made)) == 1
    made.wait(600.0)
    assert len(lives(made)) == 2, "all that are left"


def test_a_review_waits_for_the_weather_too() -> None:
    """The commit stays; Red is asked about it again when the account is open, and no attempt is used up."""
    made = storm(tasks=1, slots=1)
    made.end("T0", done())
    made.end("T0", Outcome(ending=Ending.SUCCEEDED, gates=(GateResult(gate="unit", commit="c1", exit_code=0),)))
    review = made.live("T0")
    assert review.purpose is Purpose.REVIEW
    made.end("T0", limited(resets_at=EPOCH + 100.0))
    assert lives(made) == ["T1"], "planned before the limit was met, and left alone"
    made.end("T1", limited(resets_at=EPOCH + 100.0))
    made.wait(50.0)
    assert lives(made) == []
    made.wait(60.0)
    assert lives(made) == ["T0"], "what is further along goes first"
    again = made.live("T0")
    assert (again.purpose, again.commit) == (Purpose.REVIEW, "c1")
    assert made.state.find("T0").attempts == 0


def test_a_clock_that_went_back_parks_nobody_for_longer() -> None:
    """A day back: the probe tries at once, instead of a day later."""
    made = storm(tasks=1, slots=1)
    made.end("T0", limited("overloaded_error"))
    made.wait(-86400.0)
    assert len(lives(made)) == 1


def test_after_a_clock_that_went_back_storms_are_waited_out_as_before() -> None:
    """The probe that tries at once meets the same overload: the next one waits, and does not follow at once."""
    made = storm(tasks=1, slots=1)
    made.end("T0", limited("overloaded_error"))
    made.wait(-365 * 86400.0)
    for _ in range(3):
        (probe,) = lives(made)
        made.end(probe, limited("overloaded_error"))
        assert lives(made) == []
        made.wait(200.0)


def test_status_says_why_and_until_when() -> None:
    """One row an account, with the service's words, the instant, and who tries."""
    made = storm(tasks=1, slots=1)
    made.end("T0", limited(resets_at=EPOCH + 100.0))
    row = views.status(made.state, made.facts, shipped(), seq=1, supervisor={})
    (limit,) = row["limits"]
    assert limit["account"] == "claude"
    assert limit["kind"] == "usage limit"
    assert limit["said"] == "you have hit your limit"
    assert limit["until"] == views.moment(EPOCH + 101.0)
    assert not limit["needs_person"]
