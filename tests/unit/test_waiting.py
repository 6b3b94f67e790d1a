"""Why a task waits, rule by rule."""

from __future__ import annotations

from typing import Any

import pytest

from coordination.model import commands
from coordination.model.tasks import Kind, TaskSpec
from coordination.model.waiting import hindrances, literal_prefix, looks_held, order_key, overlap
from coordination.settings import Priority, Settings
from coordination.testing.strategies import World, facts


def spec(**fields: Any) -> TaskSpec:
    return TaskSpec(prompt="do it", title="It", **fields)


def submitted(**tasks: TaskSpec) -> World:
    made = World(facts=facts(Settings()))
    for name, wanted in tasks.items():
        made.submit(name, wanted)
    return made


def reasons(made: World, task: str) -> list[str]:
    return hindrances(made.state, made.facts, made.state.find(task))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("src/a.py", "src/a.py", True),
        ("src", "src/a.py", True),
        ("src/", "src/a.py", True),
        ("src", "src/", True),
        ("src/a", "src/ab", False),
        ("src/a", "src/ab.py", False),
        ("src/a*", "src/ab", True),
        ("src/a*", "src/b", False),
        ("src/ab*", "src/a", False),
        ("src/*.py", "src", True),
        ("src/*.py", "docs/*.md", False),
        ("**/*.py", "docs", True),
        ("*", "anything/at/all", True),
        ("src/[ab].py", "src/c.py", True),
        ("src/?.py", "src", True),
        ("./src/a.py", "src/a.py", True),
        ("src//a.py", "src", True),
        (".", "src/a.py", True),
        ("docs2", "docs", False),
    ],
)
def test_paths_overlap_when_their_literal_prefixes_nest(left: str, right: str, *, expected: bool) -> None:
    """A directory holds what lies in it, not what begins alike; a wildcard may stand for anything."""
    assert overlap([left], [right]) is expected
    assert overlap([right], [left]) is expected


def test_an_empty_list_overlaps_nothing() -> None:
    """Who expects to touch nothing in particular waits for nobody."""
    assert not overlap([], ["src"])
    assert not overlap(["*"], [])


def test_the_literal_prefix_ends_at_the_first_wildcard() -> None:
    """What follows the first of *, ? and [ says nothing for certain."""
    assert [literal_prefix(glob) for glob in ("a/b*c?d", "a/?x", "[ab]", "a/b")] == ["a/b", "a/", "", "a/b/"]


def test_every_unknown_dependency_is_named() -> None:
    """Two missing ids give two sentences, and the task looks held."""
    made = submitted(A=spec(after=("X", "Y")))
    assert [reason.split(",")[0] for reason in reasons(made, "A")] == ["waits for 'X'", "waits for 'Y'"]
    assert looks_held(made.state, made.state.find("A"))


def test_a_known_dependency_is_named_with_its_state() -> None:
    """Ids compare without case; the id shown is the one it was submitted with."""
    made = submitted(A=spec(), B=spec(after=("a",)))
    assert reasons(made, "B") == ["waits for A (queued)"]
    assert not looks_held(made.state, made.state.find("B"))


def test_pauses_are_named_with_the_way_out() -> None:
    """Both the pause of everything and that of the task say which command ends it."""
    made = submitted(A=spec())
    made.ask(lambda state: commands.pause(state, None))
    made.ask(lambda state: commands.pause(state, "A"))
    said = reasons(made, "A")
    assert "`coord resume` goes on" in said[0]
    assert "`coord resume A` releases it" in said[1]


def test_who_holds_the_paths_is_named() -> None:
    """B is told that A, which runs, holds them; A is not told so of itself."""
    made = submitted(A=spec(paths=("src",)), B=spec(paths=("src/a.py",)))
    made.decide()
    assert reasons(made, "B") == ["its paths overlap those of A, which holds them"]
    assert reasons(made, "A") == []


def test_a_delay_is_told_as_a_time() -> None:
    """The instant, in UTC, while it is still to come."""
    made = submitted(A=spec(kind=Kind.SEARCH))
    made.state.tasks["A"] = type(made.state.tasks["A"])(
        id="A", spec=spec(), digest="", seq=1, index=0, submitted_at=0.0, not_before=made.facts.now + 1.0
    )
    assert reasons(made, "A") == ["tried again at 08:00:01Z"]


def test_without_ageing_priority_is_strict() -> None:
    """Rate 0: however long it waits, the lower priority comes second."""
    made = submitted(A=spec(priority=0))
    made.facts = facts(Settings(priority=Priority(ageing_per_minute=0.0)), now=made.facts.now + 1e8)
    made.submit("B", spec(priority=1))
    first = min(made.state.tasks.values(), key=lambda task: order_key(made.facts, task))
    assert first.id == "B"
