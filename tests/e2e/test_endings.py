"""Every way in which a run of the real Claude Code can end: what it is taken for, and what becomes of the task.

The model server plays the fault, or somebody does something to the processes of the run. Each row says which codes the
work and review runs must end with, one after the other, and where that leaves the task. Those that tell most run every
time; the rest on demand (``--tier 2``).
"""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest

from coordination import confinement
from tests.e2e.lines import call, case, hang, read, say, verdict, write

pytestmark = pytest.mark.e2e
JSON = Any

WARMER = 'GREETING = "Good day"\n\n\ndef greet(name: str) -> str:\n    return f"{GREETING}, {name}!"\n'
WRITES = write("greeter.py", WARMER)
DONE = say("Done.")
DOES_IT = [WRITES, DONE]
FIRST = "# Task T"
AGAIN = "What happened before"  # in the prompt of a new session after a failure
GOING_ON = "ended before you had finished"  # in that of a run that goes on in the same session
WAITS = [read("greeter.py"), hang()]
WITHOUT = """
for argument in "$@"; do
  shift
  case "$skip$argument" in
    --settings) skip=yes ;;
    yes*) skip= ;;
    *) set -- "$@" "$argument" ;;
  esac
done
exec "$CLAUDE" "$@"
"""
GREEN_AND_OTHER = {"roles.green": {"fallback_model": "haiku"}}


def error(status: int, kind: str, message: str = "no", **more: JSON) -> dict[str, JSON]:
    return {"status": status, "type": kind, "message": message, **more}


def usage_limit(seconds: float, scale: int = 1) -> dict[str, JSON]:
    return limited(str(int((time.time() + seconds) * scale)))


def limited(reset: str | None) -> dict[str, JSON]:
    headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    if reset is not None:
        headers["anthropic-ratelimit-unified-reset"] = reset
    return error(429, "rate_limit_error", headers=headers)


def warned(reset_seconds: float) -> dict[str, JSON]:
    head = "anthropic-ratelimit-unified-"
    reset = str(int(time.time() + reset_seconds))
    said = {"status": "allowed_warning", "reset": reset, "representative-claim": "five_hour", "5h-status": "allowed"}
    said |= {"5h-reset": reset, "5h-utilization": "0.93", "5h-surpassed-threshold": "0.9"}
    return {"headers": {f"{head}{name}": value for name, value in said.items()}}


# -- what somebody does to the processes of a run ----------------------------------------------------------------------


def agent(scene: Any, run: str) -> psutil.Process:
    """The Claude Code of a run: the child of its worker that is named so."""
    children = psutil.Process(scene.worker(run).pid).children()
    (found,) = (child for child in children if child.name() == "claude" and child.status() != psutil.STATUS_ZOMBIE)
    return found


def signals(number: int) -> Callable[[Any, str], None]:
    def deed(scene: Any, run: str) -> None:
        agent(scene, run).send_signal(number)

    return deed


def signals_worker(number: int) -> Callable[[Any, str], None]:
    def deed(scene: Any, run: str) -> None:
        psutil.Process(scene.worker(run).pid).send_signal(number)

    return deed


def kills_both(scene: Any, run: str) -> None:
    program = agent(scene, run)
    scene.kill_worker(run)
    program.kill()


def loses_sessions(scene: Any, run: str) -> None:
    """The conversations are gone before the next run goes on with one."""
    signals(signal.SIGKILL)(scene, run)
    shutil.rmtree(scene.state / "sessions")
    (scene.state / "sessions").mkdir(mode=0o700)


def forges_an_outcome(scene: Any, run: str) -> None:
    """Somebody publishes an outcome of another run in its name, and the worker dies."""
    request = json.loads((scene.state / "runs" / run / "request.json").read_text())
    claim = {"run": run, "token": request["token"] - 1, "outcome": {"ending": "succeeded", "commit": "0" * 40}}
    signals_worker(signal.SIGSTOP)(scene, run)
    (scene.state / "runs" / run / "outcome.json").write_text(json.dumps(claim))
    scene.kill_worker(run)


def writes_nonsense(scene: Any, run: str) -> None:
    """The outcome is no outcome."""
    signals_worker(signal.SIGSTOP)(scene, run)
    (scene.state / "runs" / run / "outcome.json").write_text('{"outcome": [')
    scene.kill_worker(run)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault: what the model does, what the task says, and what must come of it."""

    first: Any = field(default_factory=lambda: DOES_IT)
    again: Any = None
    going_on: Any = None
    review: Any = None
    codes: tuple[str, ...] = ("completed",)
    state: str = "merged"
    attempts: int = 0
    exit: int = 0
    how: tuple[str, ...] = ()  # of the runs after the first: resumed, fresh, lean, or the model
    task: dict[str, JSON] = field(default_factory=dict)
    settings: dict[str, JSON] = field(default_factory=dict)
    free: bool = False  # whether it may cost nothing
    login: bool = False  # a subscription instead of a key
    url: str = ""
    limits: tuple[str, ...] = ()  # what status says of the account at the end
    arguments: tuple[str, ...] = ()
    deed: Callable[[Any, str], None] | None = None  # done to the first run while its agent waits for an answer
    program: str = ""  # a shell script in the place of Claude Code, which it finds in $CLAUDE
    warned: bool = False  # whether a run was told that the limit is near
    needs: str = ""  # what the system must be able to limit


def parked(first: Any) -> Row:
    """A usage limit whose end is not waited for here."""
    return Row(
        first=first,
        codes=("usage_limit_reached",),
        state="queued",
        exit=1,
        login=True,
        free=True,
        limits=("usage limit",),
        arguments=("--no-wait",),
    )


def went_on(code: str, deed: Callable[[Any, str], None], **more: Any) -> Row:
    """Somebody does something to the first run, and the next one goes on in its session."""
    return Row(
        first=WAITS,
        going_on=DOES_IT,
        codes=(code, "completed"),
        attempts=1,
        how=("resumed",),
        deed=deed,
        **more,
    )


ROWS: dict[str, Row] = {
    "done": Row(),
    "gave up": Row(
        first=[say("I cannot.")], again=DOES_IT, codes=("no_change", "completed"), attempts=1, how=("fresh",)
    ),
    "gave up for good": Row(
        first=[say("I cannot.")], again=[say("No.")], codes=("no_change",) * 3, state="failed", attempts=3, exit=1
    ),
    "produced nothing": Row(
        first=[say("")] * 3, again=DOES_IT, codes=("nothing", "completed"), attempts=1, how=("fresh",)
    ),
    "not permitted": Row(
        first=[call("Write", file_path="/etc/not-of-this-task", content="x"), say("I could not.")],
        again=DOES_IT,
        codes=("denied", "completed"),
        attempts=1,
        how=("fresh",),
    ),
    "turn limit": Row(
        first=[read("greeter.py")] * 5,
        going_on=DOES_IT,
        codes=("max_turns", "completed"),
        attempts=1,
        how=("resumed",),
        task={"turns_max": 2},
    ),
    "turn limit again and again": Row(
        first=[read("greeter.py")] * 5,
        going_on=[read("greeter.py")] * 5,
        codes=("max_turns",) * 3,
        state="failed",
        attempts=3,
        exit=1,
        task={"turns_max": 1},
    ),
    "budget": Row(
        first=[read("greeter.py")] * 5,
        codes=("budget_exhausted",),
        state="waiting_for_person",
        exit=1,
        task={"budget_usd": 0.0001},
    ),
    "prompt too long": Row(
        first=[[error(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")]],
        again=DOES_IT,
        codes=("prompt_too_long", "completed"),
        attempts=1,
        how=("lean",),
    ),
    "refusal": Row(
        first=[[*say("no"), {"stop_reason": "refusal"}]] * 3,
        again=[[*say("no"), {"stop_reason": "refusal"}]] * 3,
        codes=("refusal",) * 2,
        state="waiting_for_person",
        attempts=1,
        exit=1,
    ),
    "refusal, another model": Row(
        first=[[*say("no"), {"stop_reason": "refusal"}]] * 3,
        again=DOES_IT,
        codes=("refusal", "completed"),
        attempts=1,
        how=("haiku",),
        settings=GREEN_AND_OTHER,
    ),
    "a review without its form": Row(
        review=[say("Looks good.")] * 3,
        codes=("completed", *("no_structured_output",) * 3),
        state="waiting_for_person",
        exit=1,
        task={"review": "always"},
    ),
    "a review in the wrong form": Row(
        review=[call("StructuredOutput", nothing=1)] * 8,
        codes=("completed", *("structured_output_retry_exhausted",) * 3),
        state="waiting_for_person",
        exit=1,
        task={"review": "always"},
    ),
    "authentication": Row(
        first=[[error(401, "authentication_error")]],
        codes=("authentication_error",),
        state="queued",
        exit=1,
        free=True,
        limits=("authentication",),
    ),
    "permission": Row(
        first=[[error(403, "permission_error")]],
        codes=("permission_error",),
        state="queued",
        exit=1,
        free=True,
        limits=("authentication",),
    ),
    "billing": Row(
        first=[[error(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API")]],
        codes=("billing_error",),
        state="queued",
        exit=1,
        free=True,
        limits=("billing",),
    ),
    "model not found": Row(
        first=[[error(404, "not_found_error", "model: sonnet")]],
        codes=("model_not_found",) * 2,
        state="waiting_for_person",
        attempts=1,
        exit=1,
        free=True,
    ),
    "overloaded": Row(
        first=[[error(529, "overloaded_error", times=1), *WRITES], DONE],
        codes=("overloaded_error", "completed"),
        how=("resumed",),
    ),
    "rate limit": Row(
        first=[[error(429, "rate_limit_error", times=1), *WRITES], DONE],
        codes=("rate_limit_error", "completed"),
        how=("resumed",),
    ),
    "service error": Row(
        first=[[error(500, "api_error", times=2), *WRITES], DONE],
        codes=("api_error", "completed"),
        attempts=1,
        how=("resumed",),
    ),
    "request not accepted": Row(
        first=[[error(400, "invalid_request_error")]],
        again=DOES_IT,
        codes=("invalid_request_error", "completed"),
        attempts=1,
        how=("fresh",),
    ),
    "request too large": Row(
        first=[[error(413, "request_too_large")]],
        again=DOES_IT,
        codes=("image_error", "completed"),
        attempts=1,
        how=("fresh",),
    ),
    "no connection": Row(
        codes=("connection_failed",),
        url="http://127.0.0.1:9",
        state="queued",
        exit=1,
        free=True,
        limits=("connection",),
        settings={"retry": {"backoff_seconds": 300.0}},
        arguments=("--no-wait",),
    ),
    "no answer": Row(
        first=[hang()],
        going_on=DOES_IT,
        codes=("no_response", "completed"),
        how=("resumed",),
        settings={"agents": {"api_timeout_seconds": 1.0, "retries_max": 0}},
    ),
    "stalled": Row(
        first=[[*say("Well"), {"delay_seconds": 60.0}]],
        going_on=DOES_IT,
        codes=("no_output", "completed"),
        attempts=1,
        how=("resumed",),
        settings={"agents": {"no_output_seconds": 5.0, "retries_max": 0}},
    ),
    "timed out": Row(
        first=[read("greeter.py"), hang()],
        going_on=DOES_IT,
        codes=("timed_out", "completed"),
        attempts=1,
        how=("resumed",),
        task={"timeout_seconds": 3.0},
    ),
    "cut off and continued": Row(first=[[*say("I will"), {"stop_reason": "max_tokens"}], *DOES_IT]),
    "overloaded within a run": Row(
        first=[[error(529, "overloaded_error", times=1), *WRITES], DONE], settings={"agents": {"retries_max": 2}}
    ),
    "usage limit": Row(
        first=lambda: [[usage_limit(8.0) | {"times": 1}, *WRITES], DONE],
        codes=("usage_limit_reached", "completed"),
        how=("resumed",),
        login=True,
    ),
    "usage limit far away": parked(lambda: [[usage_limit(5 * 3600.0)]]),
    "usage limit in milliseconds": Row(
        first=lambda: [[usage_limit(8.0, 1000) | {"times": 1}, *WRITES], DONE],
        codes=("usage_limit_reached", "completed"),
        how=("resumed",),
        login=True,
    ),
    "usage limit without an end": parked([[limited(None)]]),
    "usage limit that ended long ago": parked(lambda: [[usage_limit(-7 * 24 * 3600.0)]]),
    "usage limit for ten years": parked(lambda: [[usage_limit(10 * 365 * 24 * 3600.0)]]),
    "warned of a limit": Row(
        first=lambda: [[warned(3600.0), *WRITES], [warned(3600.0), *DONE]], login=True, warned=True
    ),
    "connection broken before an answer": Row(
        first=[[{"drop": True}]], going_on=DOES_IT, codes=("connection_failed", "completed"), how=("resumed",)
    ),
    "connection broken within an answer": Row(
        first=[[*say("I will"), {"drop": True}]],
        going_on=DOES_IT,
        codes=("connection_failed", "completed"),
        how=("resumed",),
    ),
    "a page instead of an answer": Row(
        first=[[{"status": 502, "body": "<html><h1>Bad gateway</h1></html>", "times": 2}, *WRITES], DONE],
        codes=("api_error", "completed"),
        attempts=1,
        how=("resumed",),
    ),
    "nonsense instead of an answer": Row(
        first=[[{"status": 200, "body": "nonsense", "times": 2}, *WRITES], DONE],
        codes=("no_response", "completed"),
        how=("resumed",),
    ),
    "agent killed": went_on("signal:9", signals(signal.SIGKILL)),
    "agent terminated": went_on("exit:143", signals(signal.SIGTERM)),
    "agent crashed": went_on("signal:11", signals(signal.SIGSEGV)),
    "agent stopped": went_on("no_output", signals(signal.SIGSTOP), settings={"agents": {"no_output_seconds": 5.0}}),
    "worker killed": went_on("worker_died", signals_worker(signal.SIGKILL)),
    "worker terminated": went_on("signal:15", signals_worker(signal.SIGTERM)),
    "worker stopped": went_on("timeout", signals_worker(signal.SIGSTOP), task={"timeout_seconds": 15.0}),
    "worker and agent killed": went_on("worker_died", kills_both),
    "session lost": Row(
        first=WAITS,
        again=DOES_IT,
        going_on=DOES_IT,
        codes=("signal:9", "completed"),
        attempts=1,
        how=("resumed",),
        deed=loses_sessions,
    ),
    "an outcome of somebody else": Row(
        first=WAITS,
        again=DOES_IT,
        codes=("superseded", "completed"),
        attempts=1,
        how=("fresh",),
        deed=forges_an_outcome,
    ),
    "an outcome that is none": Row(
        first=WAITS,
        again=DOES_IT,
        codes=("malformed_outcome", "completed"),
        attempts=1,
        how=("fresh",),
        deed=writes_nonsense,
    ),
    "out of memory": Row(
        codes=("out_of_memory",) * 2,
        state="waiting_for_person",
        attempts=1,
        exit=1,
        free=True,
        settings={"agents": {"memory_gib": 0.1}},
        needs="memory",
    ),
    "too many processes": Row(
        codes=("signal:6",) * 3,
        state="failed",
        attempts=3,
        exit=1,
        free=True,
        settings={"agents": {"processes_max": 4}},
        needs="processes",
    ),
    "hangs after its result": Row(program='"$CLAUDE" "$@"; exec sleep 600'),
    "settings not applied": Row(
        program=WITHOUT, codes=("settings_not_applied",) * 2, state="waiting_for_person", attempts=1, exit=1, free=True
    ),
    "ends without a word": Row(program="exit 3", codes=("exit:3",) * 3, state="failed", attempts=3, exit=1, free=True),
    "never begins": Row(
        program="exec sleep 600",
        codes=("no_output",) * 3,
        state="failed",
        attempts=3,
        exit=1,
        free=True,
        settings={"agents": {"no_output_seconds": 2.0}},
    ),
    "result lost": Row(
        program='"$CLAUDE" "$@" | grep --line-buffered -v \'"type":"result"\'',
        codes=("no_output",) * 3,
        state="failed",
        attempts=3,
        exit=1,
        settings={"agents": {"no_output_seconds": 3.0}},
    ),
    "babbles": Row(program='echo "Welcome {"; echo "[1, 2"; exec "$CLAUDE" "$@"'),
}
ALWAYS = {
    *("gave up", "not permitted", "turn limit", "budget", "prompt too long", "refusal, another model"),
    *("a review without its form", "billing", "overloaded", "no connection", "stalled", "usage limit"),
    *("warned of a limit", "agent killed", "out of memory"),
}


def scripts(row: Row) -> list[dict[str, JSON]]:
    """What the model says, the most special prompt first."""
    found = [("# Review", row.review or [verdict("approve", "Fine.")]), (GOING_ON, row.going_on)]
    found += [(AGAIN, row.again), (FIRST, row.first() if callable(row.first) else row.first)]
    return [case(text, steps=steps) for text, steps in found if steps is not None]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ROWS)
def test_what_a_run_ends_with_decides_what_follows(name: str, make: Any, tier: int) -> None:
    """Classification, remedy, final state, attempts and money, row by row."""
    if tier == 1 and name not in ALWAYS:
        pytest.skip("one of the rows that run on demand: --tier 2")
    row = ROWS[name]
    if row.needs and row.needs not in confinement.works():
        pytest.skip(f"the {row.needs} of a run cannot be limited here")
    agents = {"retries_max": 0, **row.settings.get("agents", {})}
    scene = make(scripts(row), settings={**row.settings, "agents": agents})
    if row.login:
        scene.environment |= {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up"}
        del scene.environment["ANTHROPIC_API_KEY"]
    if row.url:
        scene.environment["ANTHROPIC_BASE_URL"] = row.url
    if row.program:
        stand_in(scene, row.program)
    scene.drop(id="T", prompt="Make it warmer.", **{"review": "never", **row.task})

    supervisor = scene.start("--once", *row.arguments)
    if row.deed is not None:
        scene.wait_for(lambda: any(request.step == 1 for request in scene.asked(FIRST)), "agent that waits")
        scene.wait_for_event("RunStarted", run="T.1.work")
        row.deed(scene, "T.1.work")
    assert supervisor.wait(90) == row.exit, scene.said()

    asked = [event for event in scene.events("RunEnded") if event["run"].endswith((".work", ".review"))]
    assert tuple(event["outcome"]["code"] for event in asked) == row.codes
    task = scene.show("T")
    assert (task["state"], task["attempts"]) == (row.state, row.attempts)
    assert row.free or task["cost_usd"] > 0
    planned = [event for event in scene.events("RunPlanned") if event["purpose"] == "work"]
    assert tuple(began(event) for event in planned[1:])[: len(row.how)] == row.how
    assert tuple(limit["kind"] for limit in json.loads(scene.coord("status", "--json"))["limits"]) == row.limits
    assert any(event["outcome"].get("warned") for event in asked) == row.warned
    ended = [run["explained"]["kind"] for run in task["runs"] if run["outcome"]["code"] in row.codes]
    assert all(ended), "each ending is explained"


def stand_in(scene: Any, text: str) -> None:
    """Put a script in the place of Claude Code."""
    program = scene.directory / "claude"
    program.write_text(f"#!/bin/sh\nCLAUDE={scene.environment['COORDINATION_CLAUDE']}\n{text}\n")
    program.chmod(0o755)
    scene.environment["COORDINATION_CLAUDE"] = str(program)


def began(planned: dict[str, JSON]) -> str:
    if planned.get("lean"):
        return "lean"
    if planned["model"] == "haiku":
        return "haiku"
    return "resumed" if planned.get("continues") else "fresh"
