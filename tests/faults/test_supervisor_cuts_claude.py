"""The same on the real Claude Code: a supervisor killed once at every step there is a name for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordination.rehearsal.model_server import ModelServer
from coordination.testing.account import violations
from coordination.testing.stage import FILES, PASSES, Stage, passed, supervise_forked, with_claude

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(90)]

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
LANDED = {"greeter.py": WARMER}

# Each step once, at the places of a task's life where most hangs on it; those in one line are cut in one life.
LIVES: Sequence[Sequence[str]] = (
    (
        "begin@nothing:",
        "judge:before@nothing:",
        "spawn:before@RunPlanned:T.1.work",
        "RunEnded:before@RunStarted:T.3.review",
    ),
    (
        "begun@nothing:",
        "judge:after@TaskSubmitted:T",
        "spawn:after@RunPlanned:T.1.work",
        "RunEnded:after@RunEnded:T.1.work",
    ),
    (
        "integration@nothing:",
        "swept@TaskSubmitted:T",
        "RunStarted:before@RunPlanned:T.1.work",
        "decided@TaskApproved:T",
    ),
    ("recovered@nothing:", "request:before@RunPlanned:T.1.work", "decide@RunStarted:T.3.review"),
    (
        "sweep@nothing:",
        "RunStarted:after@RunStarted:T.1.work",
        "request:after@RunPlanned:T.3.review",
        "snapshot@TaskMerged:T",
    ),
)


def call(name: str, **arguments: Any) -> list[dict[str, Any]]:
    """A tool call of the model."""
    return [{"type": "tool_use", "name": name, "input": arguments}]


PAUSE = [{"delay_seconds": 0.4}]  # so that a run is seen to have started before it ends, also on a busy machine
SCRIPTS = [
    {
        "contains": ["# Task T"],
        "steps": [
            [*PAUSE, *call("Read", file_path="{cwd}/greeter.py")],
            call("Write", file_path="{cwd}/greeter.py", content=WARMER),
            [{"type": "text", "text": "It is warmer now."}],
        ],
    },
    {
        "contains": ["# Review of task T"],
        "steps": [
            [*PAUSE, *call("StructuredOutput", commit="{commit}", verdict="approve", summary="Fine.", findings=[])]
        ],
    },
]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    """The scripted model."""
    with ModelServer(SCRIPTS) as running:
        yield running


@pytest.fixture
def stage(server: ModelServer) -> Iterator[Stage]:
    """One task that is worked on, gated, reviewed and landed by Claude Code."""
    settings = {
        "gates": {"default": ["unit"], "unit": list(PASSES)},
        "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 1.0},
        "retry": {"backoff_seconds": 0.05},
    }
    with tempfile.TemporaryDirectory(prefix="s.") as directory:
        made = with_claude(Stage(Path(directory), settings=settings, url=server.url)).build()
        made.drop(id="T", prompt="Make it warmer.", review="always")
        yield made
        made.close()


def test_these_are_all_the_steps_there_are(stage: Stage) -> None:
    """A life without a cut passes every step that is cut below, and no other step."""
    assert supervise_forked(stage, "") == 0
    assert violations(stage, "T", LANDED) == []
    # a run that is over before it is first looked at is told of in one batch
    steps = {cut.partition("@")[0].replace("RunStarted+RunEnded", "RunEnded") for cut in passed(stage)}
    assert steps == {cut.partition("@")[0] for cuts in LIVES for cut in cuts}


@pytest.mark.parametrize("cuts", LIVES, ids=lambda cuts: "+".join(cut.partition("@")[0] for cut in cuts))
def test_a_supervisor_killed_at_a_step_asks_no_agent_twice(
    stage: Stage, server: ModelServer, cuts: Sequence[str]
) -> None:
    """Cut at these steps, the task lands once, and each run began one conversation with the model."""
    before = stage.users()
    assert [(cut, supervise_forked(stage, cut)) for cut in cuts] == [(cut, -9) for cut in cuts]
    assert supervise_forked(stage, "") == 0
    assert violations(stage, "T", LANDED) == []
    assert stage.users() == before
    begun = [request.session for request in server.requests if request.step == 0]
    agents = [event["run"] for event in stage.events("RunPlanned") if event.get("role")]
    assert len(begun) == len(set(begun)) == len(agents) == 2
