"""May it go? What has not ended or is nowhere else stays, whatever its age; the rest goes by age or by its size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from coordination.model.runs import Purpose
from coordination.model.state import Run, State, Task
from coordination.model.tasks import ENDED, Status, TaskSpec
from coordination.planning.keeping import DAY_SECONDS, Found, Kind, Verdict, idle, judge
from coordination.settings import Keep

NOW = 1_700_000_000.0
KEEP = Keep(days=14.0, gib=0.0, preserved_days=90.0)
GIB = 1 << 30


def days_ago(days: float) -> float:
    return NOW - days * DAY_SECONDS


def state(*tasks: Task) -> State:
    return State(tasks={task.id: task for task in tasks}, keys={task.id.lower(): task.id for task in tasks})


def task(status: Status = Status.MERGED, *, name: str = "T", changed: float = 20.0, live: bool = False) -> Task:
    run = Run(id=f"{name}.1.work", task=name, purpose=Purpose.WORK, token=1, planned_at=0.0)
    spec = TaskSpec(prompt="x", title="x")
    runs = (run,) if live else ()
    at = days_ago(changed)
    return Task(
        id=name, spec=spec, digest="", seq=1, index=0, submitted_at=0.0, status=status, runs=runs, changed_at=at
    )


def found(
    kind: Kind, *, age: float = 20.0, content: str = "", unneeded: str = "", size: int = 0, name: str = "x"
) -> Found:
    return Found(
        kind=kind, name=name, task="T", at=days_ago(age), content=content, unneeded=unneeded, bytes=size, commit="c"
    )


def verdict(one: Found, of: Task, keep: Keep = KEEP, *, alone: bool = False, forget: bool = False) -> Verdict:
    (only,) = judge([one], state(of), keep, NOW, alone=alone, forget=forget)
    return only


RULES: dict[str, tuple[Found, Status, bool, bool, str]] = {
    # found, status, goes if a person asks, goes by itself, said
    "workspace of a merged task": (found("workspace", age=0, unneeded="over"), Status.MERGED, True, True, "over"),
    "young workspace of a failed task": (found("workspace", age=13), Status.FAILED, False, False, "to be looked at"),
    "old workspace of a failed task": (found("workspace"), Status.FAILED, True, False, "kept under a ref"),
    "young transcript": (found("transcript", age=13), Status.MERGED, False, False, "kept until 2023-11-15"),
    "old transcript": (found("transcript"), Status.MERGED, True, True, "T is merged since 2023-10-25"),
    "old session": (found("session"), Status.CANCELLED, True, True, "T is cancelled"),
    "young branch that landed": (found("branch", age=1, content="merged"), Status.MERGED, False, False, "kept until"),
    "old branch that landed": (found("branch", content="merged"), Status.MERGED, True, False, "all of it has landed"),
    "old branch that was squashed": (found("branch", content="same"), Status.FAILED, True, False, "kept under a ref"),
    "branch that is nowhere else": (found("branch", age=9999), Status.FAILED, False, False, "nowhere else"),
    "old ref that landed": (found("kept", content="same"), Status.MERGED, True, False, "all of it has landed"),
    "young ref that landed": (found("kept", age=1, content="same"), Status.MERGED, False, False, "kept until"),
    "ref that is nowhere else": (found("kept", age=89), Status.MERGED, False, False, "is nowhere else"),
    "old ref that is nowhere else": (found("kept", age=91), Status.MERGED, False, False, "--apply --forget"),
}  # fmt: skip


@pytest.mark.parametrize(("one", "status", "asked", "by_itself", "said"), RULES.values(), ids=RULES)
def test_each_rule(one: Found, status: Status, asked: bool, by_itself: bool, said: str) -> None:
    """Whether it goes when a person asks, whether by itself, and why."""
    when_asked = verdict(one, task(status))
    assert (when_asked.goes, verdict(one, task(status), alone=True).goes) == (asked, by_itself)
    assert said in when_asked.why


def test_a_person_may_let_go_of_what_is_nowhere_else_when_it_is_old_enough() -> None:
    """Only with a word for it, only after its days, and never by itself."""
    assert verdict(found("kept", age=91), task(), forget=True).goes
    assert not verdict(found("kept", age=89), task(), forget=True).goes
    assert not verdict(found("kept", age=91), task(), alone=True, forget=True).goes
    assert not verdict(found("branch", age=9999), task(), forget=True).goes


def test_what_was_set_aside_and_what_nobody_knows_stays() -> None:
    """It is not ours to judge."""
    assert not verdict(found("aside", age=9999), task()).goes
    assert not verdict(replace(found("session", age=9999), task="U"), task()).goes
    assert "knows no such task" in verdict(replace(found("branch"), task=""), task()).why


def test_beyond_the_quota_the_oldest_go_first() -> None:
    """Until there is room again and no further; workspaces of tasks that ended badly only if a person asks."""
    some = [found("transcript", age=age, size=GIB, name=f"{age}") for age in (3, 5, 1, 4)]
    keep = replace(KEEP, gib=2.0)
    verdicts = judge(some, state(task()), keep, NOW)
    assert [one.found.name for one in verdicts if one.goes] == ["5", "4"]
    assert "more than 2 GiB is used" in verdicts[1].why
    looked_into = [found("workspace", age=2, size=5 * GIB)]
    assert judge(looked_into, state(task(Status.FAILED)), keep, NOW)[0].goes
    assert not judge(looked_into, state(task(Status.FAILED)), keep, NOW, alone=True)[0].goes
    assert not judge([found("branch", age=2, size=5 * GIB)], state(task()), keep, NOW)[0].goes
    assert not judge(some, state(task()), replace(KEEP, gib=0.0), NOW)[0].goes, "0 is no limit"


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Found], State, Keep]:
    """Anything at all, of tasks in any state."""
    status, live = draw(st.sampled_from(list(Status))), draw(st.booleans())
    one = st.builds(
        Found,
        kind=st.sampled_from(("workspace", "session", "transcript", "branch", "kept", "aside")),
        name=st.text(max_size=3),
        task=st.sampled_from(("T", "t", "nobody", "")),
        bytes=st.integers(0, 3 * GIB),
        at=st.floats(-1e12, 1e12),
        content=st.sampled_from(("", "merged", "same", "squashed", "rebased")),
    )
    days = st.floats(0, 1000)
    keep = st.builds(Keep, days=days, gib=st.floats(0, 3), preserved_days=days)
    return draw(st.lists(one, max_size=8)), state(task(status, live=live)), draw(keep)


@given(worlds(), st.booleans(), st.booleans())
def test_what_must_stay_stays(world: tuple[list[Found], State, Keep], alone: bool, forget: bool) -> None:
    """Of tasks that have not ended everything; of others what is nowhere else, unless a person says so."""
    some, known, keep = world
    verdicts = judge(some, known, keep, NOW, alone=alone, forget=forget)
    assert [one.found for one in verdicts] == some
    assert all(one.why for one in verdicts)
    for one in _going(verdicts):
        assert idle(known, one.task)
        assert known.tasks["T"].status in ENDED
        assert one.kind != "aside"
        if one.kind == "branch":
            assert one.content
        if one.kind == "kept":
            assert one.content or (forget and NOW - one.at >= keep.preserved_days * DAY_SECONDS)
        if alone:
            assert one.kind in ("session", "transcript", "workspace")


@given(worlds())
def test_a_quota_is_met_or_nothing_is_left_to_go(world: tuple[list[Found], State, Keep]) -> None:
    """What still stays beyond it is of tasks that have not ended, or takes no room of this kind."""
    some, known, keep = world
    verdicts = judge(some, known, keep, NOW)
    on_disk = [
        one.found for one in verdicts if not one.goes and one.found.kind in ("workspace", "session", "transcript")
    ]
    if keep.gib and sum(one.bytes for one in on_disk) > keep.gib * GIB:
        assert not any(idle(known, one.task) and one.bytes for one in on_disk)


def _going(verdicts: Sequence[Verdict]) -> list[Found]:
    return [one.found for one in verdicts if one.goes]
