"""What must every agent backend do alike? A suite for whoever writes one.

A backend is tried through a *stage*: it makes the runner and turns a ``Part`` (what the agent is to do) into a request
whose agent does just that. A test module needs no more than::

    @pytest.mark.parametrize("check", runner_conformance.CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check, tmp_path):
        with MyStage() as stage:
            check(stage, tmp_path)

Every check fails by AssertionError, saying what was expected of the backend.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from coordination.agents import Runner
from coordination.model.reviews import REVIEW_SCHEMA
from coordination.model.runs import AgentRequest, Ending, Limits, Outcome

ENDLESS_SECONDS = 60.0
SOON_SECONDS = 30.0
COMMIT = "c" * 40  # what a review is about


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent is to do, in this order."""

    write: dict[str, str] = {}  # path (relative to the workspace, or absolute) -> content
    endless: bool = False  # then nothing more, for at least a minute
    fail: bool = False  # end badly
    answer: dict[str, Any] | None = None  # in the form the request asks for
    report: str = "done"


class Stage(Protocol):
    """What a backend's author provides."""

    @property
    def runner(self) -> Runner:
        """The runner under test."""
        ...

    def request(self, part: Part, request: AgentRequest) -> AgentRequest:
        """Complete a request so that its agent plays ``part``: prompt, environment, options, model."""
        ...


Check = Callable[[Stage, Path], None]


def _request(directory: Path, **fields: Any) -> AgentRequest:
    for name in ("workspace", "run", "session", "home"):
        (directory / name).mkdir(exist_ok=True)
    blank: dict[str, Any] = {
        "run": "T.1.work",
        "task": "T",
        "role": "green",
        "backend": "",
        "prompt": "",
        "instructions": "You are being checked.",
        "model": "",
        "writes": True,
        "limits": Limits(timeout_seconds=ENDLESS_SECONDS),
        "session": str(uuid.uuid4()),
        "directory": str(directory / "workspace"),
        "run_directory": str(directory / "run"),
        "config_directory": str(directory / "session"),
        "environment": {"HOME": str(directory / "home"), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    }
    return AgentRequest(**(blank | fields))


def _played(stage: Stage, part: Part, request: AgentRequest, seen: list[Mapping[str, Any]] | None = None) -> Outcome:
    watched: list[Mapping[str, Any]] = [] if seen is None else seen
    return stage.runner.run(stage.request(part, request), progress=watched.append, stopping=lambda: "")


def a_write_lands_in_the_workspace(stage: Stage, directory: Path) -> None:
    """A file written below the workspace is there, and the outcome carries the last words."""
    request = _request(directory)
    outcome = _played(stage, Part(write={"deep/er/hello.txt": "hello\n"}, report="I said hello."), request)
    assert outcome.ending is Ending.SUCCEEDED, outcome
    assert (directory / "workspace/deep/er/hello.txt").read_text() == "hello\n"
    assert outcome.report == "I said hello."
    assert outcome.session == request.session


def a_write_outside_is_refused(stage: Stage, directory: Path) -> None:
    """Neither an absolute path nor dots nor a symbolic link leads a write out of the workspace."""
    outside = directory / "outside"
    outside.mkdir()
    request = _request(directory)
    (directory / "workspace/link").symlink_to(outside)
    paths = [str(outside / "absolute"), "../outside/dots", "link/through"]
    outcome = _played(stage, Part(write=dict.fromkeys(paths, "x")), request)
    assert list(outside.iterdir()) == []
    assert len(outcome.denials) == len(paths), outcome.denials


def git_is_not_written(stage: Stage, directory: Path) -> None:
    """What belongs to git is out of bounds, also inside the workspace."""
    request = _request(directory)
    outcome = _played(stage, Part(write={".git/hooks/pre-commit": "x", "sub/.git": "x"}), request)
    assert not (directory / "workspace/.git").exists()
    assert not (directory / "workspace/sub/.git").exists()
    assert outcome.denials, outcome


def a_role_that_does_not_write_cannot(stage: Stage, directory: Path) -> None:
    """A request without the right to write changes nothing, whatever its agent tries."""
    request = _request(directory, writes=False, role="blue")
    (directory / "workspace/kept.txt").write_text("old")
    _played(stage, Part(write={"kept.txt": "new", "made.txt": "new"}), request)
    assert (directory / "workspace/kept.txt").read_text() == "old"
    assert [path.name for path in (directory / "workspace").iterdir()] == ["kept.txt"]


def a_failure_is_an_outcome(stage: Stage, directory: Path) -> None:
    """A run that goes wrong is reported with a code and a reason, not raised."""
    outcome = _played(stage, Part(fail=True), _request(directory))
    assert outcome.ending in {Ending.FAILED, Ending.LIMITED, Ending.CRASHED}, outcome
    assert outcome.code, outcome
    assert outcome.reason, outcome


def a_verdict_comes_in_its_form(stage: Stage, directory: Path) -> None:
    """A review's verdict and findings arrive as data."""
    finding = {"message": "off by one", "file": "a.py", "line": 3, "severity": "blocker"}
    answer = {"commit": COMMIT, "verdict": "reject", "summary": "wrong", "findings": [finding]}
    request = _request(directory, writes=False, role="red", commit=COMMIT, schema=REVIEW_SCHEMA)
    outcome = _played(stage, Part(answer=answer), request)
    assert outcome.ending is Ending.SUCCEEDED, outcome
    assert (outcome.verdict, outcome.judged) == ("reject", COMMIT)
    assert [msgspec.to_builtins(found) for found in outcome.findings] == [finding]
    assert outcome.report == "wrong"


def a_missing_verdict_is_a_failure(stage: Stage, directory: Path) -> None:
    """Who is asked for a verdict and gives none has failed; silence is no approval."""
    outcome = _played(stage, Part(), _request(directory, writes=False, schema=REVIEW_SCHEMA))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, ""), outcome


def a_malformed_verdict_is_a_failure(stage: Stage, directory: Path) -> None:
    """A verdict of another form counts as none."""
    answer = {"commit": COMMIT, "verdict": "APPROVED!", "summary": "", "findings": []}
    outcome = _played(stage, Part(answer=answer), _request(directory, writes=False, schema=REVIEW_SCHEMA))
    assert (outcome.ending, outcome.verdict) == (Ending.FAILED, ""), outcome


def a_stop_is_honoured(stage: Stage, directory: Path) -> None:
    """Asked to stop, or told to, an endless run ends soon, as stopped, keeping what was written."""
    for wish in ("ask", "kill"):
        place = directory / wish
        place.mkdir()
        written = place / "workspace/begun.txt"
        request = stage.request(Part(write={"begun.txt": "x"}, endless=True), _request(place))
        started = time.monotonic()
        seen: list[Mapping[str, Any]] = []
        outcome = stage.runner.run(
            request,
            progress=seen.append,
            stopping=lambda: wish if written.exists() else "",  # noqa: B023
        )
        assert outcome.ending is Ending.STOPPED, outcome
        assert time.monotonic() - started < SOON_SECONDS
        assert written.exists()


def a_timeout_is_honoured(stage: Stage, directory: Path) -> None:
    """An endless run ends when its time is up, as timed out."""
    request = _request(directory, limits=Limits(timeout_seconds=2.0))
    started = time.monotonic()
    outcome = _played(stage, Part(endless=True), request)
    assert outcome.ending is Ending.TIMED_OUT, outcome
    assert 2.0 <= time.monotonic() - started < SOON_SECONDS


def progress_only_grows(stage: Stage, directory: Path) -> None:
    """Turns, tokens, cost and time never go back, and the last file is named as the workspace sees it."""
    seen: list[Mapping[str, Any]] = []
    _played(stage, Part(write={"a.txt": "x", "b.txt": "y"}), _request(directory), seen)
    assert seen
    for key in ("turns", "tokens_output", "cost_usd", "at"):
        values = [now[key] for now in seen]
        assert values == sorted(values), (key, values)
    assert "b.txt" in {now["file"] for now in seen}


def a_transcript_is_kept(stage: Stage, directory: Path) -> None:
    """What happened is in the run directory, readable by its owner alone where the backend makes the file."""
    _played(stage, Part(), _request(directory))
    assert (directory / "run/transcript.jsonl").stat().st_size > 0


def any_text_passes(stage: Stage, directory: Path) -> None:
    """Long text, quotes, line breaks and signs beyond ASCII arrive unchanged."""
    text = "».\u2028\x7f \\ \" ' ``\n\t☃ 漢 🜚\n" * 20_000
    outcome = _played(stage, Part(write={"long.txt": text}, report="☃ \\n «end»"), _request(directory))
    assert (directory / "workspace/long.txt").read_bytes().decode() == text
    assert outcome.report == "☃ \\n «end»"


CHECKS: tuple[Check, ...] = (
    a_write_lands_in_the_workspace,
    a_write_outside_is_refused,
    git_is_not_written,
    a_role_that_does_not_write_cannot,
    a_failure_is_an_outcome,
    a_verdict_comes_in_its_form,
    a_missing_verdict_is_a_failure,
    a_malformed_verdict_is_a_failure,
    a_stop_is_honoured,
    a_timeout_is_honoured,
    progress_only_grows,
    a_transcript_is_kept,
    any_text_passes,
)
