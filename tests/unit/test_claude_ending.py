"""What the Claude backend makes of the signals it hears: endings, limits, costs."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from coordination.agents.claude import spent
from coordination.agents.claude.ending import Ended, judged
from coordination.agents.claude.heard import Heard, Tail, decoded
from coordination.agents.claude.invocation import Options
from coordination.model.reviews import REVIEW_SCHEMA
from coordination.model.runs import AgentRequest, Ending, Outcome, Usage

DONE = {"type": "result", "subtype": "success", "is_error": False, "terminal_reason": "completed", "result": "done"}
FAILED = {"type": "result", "subtype": "success", "is_error": True, "terminal_reason": "api_error"}


def ended(*messages: dict[str, Any], cause: str = "", code: int = 0, schema: Any = None) -> Outcome:
    heard = Heard("canary")
    for message in messages:
        heard.hear(message)
    request = AgentRequest(
        run="T.1.work",
        task="T",
        role="green",
        backend="claude",
        prompt="",
        instructions="",
        model="sonnet",
        session="session",
        run_directory="/nowhere",
        schema=schema,
    )
    return judged(Ended(request=request, options=Options(), heard=heard, prompted=True, cause=cause, exit_code=code))


def assistant(identity: str, *, text: str = "", model: str = "claude-sonnet-5-5", **usage: int) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "assistant", "message": {"id": identity, "model": model, "usage": usage, "content": content}}


@pytest.mark.parametrize(
    ("result", "ending", "code"),
    [
        (DONE, Ending.SUCCEEDED, "completed"),
        (DONE | {"is_error": True}, Ending.FAILED, "completed"),
        (DONE | {"terminal_reason": "hook_stopped"}, Ending.FAILED, "hook_stopped"),
        (DONE | {"terminal_reason": "tool_deferred"}, Ending.FAILED, "tool_deferred"),
        (DONE | {"terminal_reason": None}, Ending.FAILED, "success"),
        (FAILED, Ending.FAILED, "api_error"),
        (FAILED | {"api_error_status": None}, Ending.LIMITED, "no_response"),
        (FAILED | {"api_error": "connection_failed"}, Ending.LIMITED, "connection_failed"),
        (FAILED | {"api_error_status": 401}, Ending.LIMITED, "authentication_error"),
        (FAILED | {"api_error_status": 429}, Ending.LIMITED, "rate_limit_error"),
        (FAILED | {"api_error_status": 529}, Ending.LIMITED, "overloaded_error"),
        (FAILED | {"stop_reason": "refusal", "api_error_status": None}, Ending.FAILED, "refusal"),
        (FAILED | {"api_error_type": "overloaded_error"}, Ending.LIMITED, "overloaded_error"),
        (FAILED | {"api_error": "usage_limit_reached"}, Ending.LIMITED, "usage_limit_reached"),
        (FAILED | {"terminal_reason": "blocking_limit"}, Ending.FAILED, "blocking_limit"),
        (FAILED | {"terminal_reason": "prompt_too_long", "api_error_status": 400}, Ending.FAILED, "prompt_too_long"),
        (FAILED | {"result": "You've hit your usage limit. rate_limit 429"}, Ending.FAILED, "api_error"),
        (
            {"type": "result", "is_error": True, "subtype": "error_during_execution"},
            Ending.FAILED,
            "error_during_execution",
        ),
    ],
)
def test_the_ending_is_decided_on_structured_signals(result: dict[str, Any], ending: Ending, code: str) -> None:
    """Neither the subtype nor what is said in words decides."""
    outcome = ended(result)
    assert (outcome.ending, outcome.code) == (ending, code)


@pytest.mark.parametrize(
    ("cause", "ending"),
    [("stopped", Ending.STOPPED), ("timed_out", Ending.TIMED_OUT), ("no_output", Ending.TIMED_OUT)],
)
def test_what_we_ended_is_ours_unless_it_was_finished(cause: str, ending: Ending) -> None:
    """An interrupted run ends as what we did; a run that finished meanwhile has succeeded."""
    interrupted = FAILED | {"terminal_reason": "aborted_tools"}
    assert ended(interrupted, cause=cause).ending is ending
    assert ended(cause=cause, code=-9).ending is ending
    assert ended(DONE, cause=cause).ending is Ending.SUCCEEDED


def test_the_last_of_several_results_counts_and_the_last_words_stay() -> None:
    """One process may give several results; its report is the last that says something."""
    assert ended(DONE, FAILED).ending is Ending.FAILED
    later = ended(FAILED, DONE, DONE | {"result": ""})
    assert (later.ending, later.report) == (Ending.SUCCEEDED, "done")


@pytest.mark.parametrize(
    ("limit", "limited"),
    [
        ({"status": "rejected"}, True),
        ({"status": "allowed_warning", "utilization": 0.99}, False),
        ({"status": "rejected", "isUsingOverage": True, "overageStatus": "allowed"}, False),
        ({"status": "rejected", "isUsingOverage": True, "overageStatus": "rejected"}, True),
    ],
)
def test_only_a_rejection_is_a_usage_limit(limit: dict[str, Any], *, limited: bool) -> None:
    """A warning is none, and neither is a window that is used up while overage is allowed."""
    outcome = ended({"type": "rate_limit_event", "rate_limit_info": limit}, FAILED)
    assert (outcome.ending is Ending.LIMITED) == limited


def test_a_rejection_does_not_spoil_a_success() -> None:
    """A run that finished has succeeded, whatever the account's windows say by then."""
    assert (
        ended({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected"}}, DONE).ending is Ending.SUCCEEDED
    )


@pytest.mark.parametrize(
    ("named", "expected"),
    [(60.0, 60.0), (7 * 24 * 3600.0, 7 * 24 * 3600.0), (-60.0, None), (400 * 24 * 3600.0, None)],
)
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_reset_time_is_believed_in_reason(named: float, expected: float | None, scale: int) -> None:
    """Seconds or milliseconds, in the window's own entry before the top; nonsense becomes unknown."""
    instant = int(time.time()) + named
    top = {"status": "rejected", "rateLimitType": "five_hour", "resetsAt": 1}
    window = {"unifiedWindows": {"five_hour": {"resetsAt": instant * scale}, "seven_day": {"resetsAt": 2}}}
    outcome = ended({"type": "rate_limit_event", "rate_limit_info": top | window}, FAILED)
    assert outcome.resets_at == (0.0 if expected is None else instant)


def test_the_bill_sums_what_each_result_adds() -> None:
    """Totals of the program count earlier runs too, so only the differences are taken."""
    entry = {
        "costUSD": 0.25,
        "inputTokens": 1,
        "cacheReadInputTokens": 2,
        "cacheCreationInputTokens": 4,
        "outputTokens": 8,
    }
    more = {"total_cost_usd": 99.0, "model_usage_since_last_result": {"a": entry, "b": entry}}
    usage = ended(DONE | more, DONE | more).usage
    assert (usage.cost_usd, usage.input_tokens, usage.output_tokens, usage.estimated) == (1.0, 28, 32, False)


def test_what_a_dead_run_said_is_priced_by_the_list() -> None:
    """Blocks of one message are counted once; the text's length stands in for the unfinished count."""
    usage = ended(
        assistant("a", text="x" * 400, input_tokens=1_000_000, output_tokens=1),
        assistant("a", text="x" * 400, input_tokens=1_000_000, output_tokens=1),
        code=-9,
    ).usage
    assert usage.estimated
    assert (usage.turns, usage.input_tokens, usage.output_tokens) == (1, 1_000_000, 201)
    assert usage.cost_usd == pytest.approx(2.0 + 201 * 10 / 1_000_000)


def test_an_unknown_model_is_taken_for_the_dearest() -> None:
    """An estimate errs upwards; a price the program only assumed is marked as such."""
    usage = ended(assistant("a", model="somebody/else", input_tokens=1_000_000), code=1).usage
    assert usage.cost_usd == pytest.approx(8.0)
    entry = {"costUSD": 1.0, "costBasis": "unknown"}
    assert ended(DONE | {"model_usage_since_last_result": {"m": entry}}).usage.estimated


def test_errors_of_the_program_itself_are_no_turns() -> None:
    """Its synthetic messages cost nothing and say nothing for the agent."""
    assert ended(assistant("a", model="<synthetic>", input_tokens=5), FAILED).usage.turns == 0


@pytest.mark.parametrize("answer", [{}, {"verdict": "maybe"}, {"verdict": "approve", "findings": [{}]}, "approve", 7])
def test_a_malformed_verdict_is_no_approval(answer: Any) -> None:
    """Only an answer in its exact form counts."""
    outcome = ended(DONE | {"structured_output": answer}, schema=REVIEW_SCHEMA)
    assert (outcome.ending, outcome.code, outcome.verdict) == (Ending.FAILED, "malformed_verdict", "")


def test_any_other_schema_answers_with_its_json() -> None:
    """A schema without a verdict is not ours to read; its answer is the report."""
    outcome = ended(DONE | {"structured_output": {"n": 1}}, schema={"properties": {"n": {}}})
    assert (outcome.ending, json.loads(outcome.report)) == (Ending.SUCCEEDED, {"n": 1})


def test_lines_are_read_as_they_grow() -> None:
    """A line counts once it is complete, however the writes were cut."""
    file = io.BytesIO()
    tail = Tail(file)
    got: list[bytes] = []
    for piece in (b'{"a"', b": 1}", b"\n\n{", b"}\nx\ny"):
        place = file.tell()
        file.write(piece)
        file.seek(place)
        got += tail.lines()
    assert got == [b'{"a": 1}', b"", b"{}", b"x"]


@pytest.mark.parametrize("line", [b"", b"\xff", b"{", b"[]", b"1", b"null", b"[" * 100_000])
def test_what_is_no_message_says_nothing(line: bytes) -> None:
    """Noise is an empty message, never an error."""
    assert decoded(line) == {}


def test_denials_are_named_once_a_call() -> None:
    """The fence's word, the program's and the result's are about one call."""
    denied = {"type": "system", "subtype": "permission_denied", "tool_use_id": "1", "tool_name": "Bash"}
    listed = [
        {"tool_use_id": "1", "tool_name": "Bash"},
        {"tool_use_id": "2", "tool_name": "Read", "tool_input": {"file_path": "/x"}},
    ]
    assert ended(denied, DONE | {"permission_denials": listed}).denials == ("Bash: needs an approval", "Read /x")


def test_a_run_that_died_before_its_agent_was_asked_owes_nothing(tmp_path: Path) -> None:
    """No transcript beside the request: the program was never started. Where all is gone, nothing can be told."""
    assert spent(tmp_path) is None
    (tmp_path / "request.json").touch()
    assert spent(tmp_path) == Usage()
    said = {"id": "1", "model": "claude-sonnet-5-5", "usage": {"input_tokens": 500_000}, "content": []}
    (tmp_path / "transcript.jsonl").write_text(json.dumps({"type": "assistant", "message": said}) + "\n")
    found = spent(tmp_path)
    assert found is not None
    assert (found.cost_usd, found.estimated) == (1.0, True)


def test_a_run_that_was_killed_owes_what_the_programs_own_record_says(tmp_path: Path) -> None:
    """Aloud an answer has put out one token when it begins; the record has the hundred thousand of its end."""
    record = tmp_path / "session" / "projects" / "here" / "s.jsonl"
    record.parent.mkdir(parents=True)
    agent = {"run": "T.1.work", "task": "T", "role": "green", "backend": "claude", "prompt": "", "instructions": ""}
    agent |= {"model": "sonnet", "session": "s", "config_directory": str(tmp_path / "session")}
    asked = {"run": "T.1.work", "task": "T", "purpose": "work", "token": 1, "repository": "", "state_directory": ""}
    asked |= {"workspace": {"name": "T"}, "limits": {}, "agent": agent}
    (tmp_path / "request.json").write_text(json.dumps(asked))

    def line(identity: str, output: int) -> str:
        usage = {"input_tokens": 0, "output_tokens": output}
        said = {"id": identity, "model": "claude-sonnet-5-5", "usage": usage, "content": []}
        return json.dumps({"type": "assistant", "message": said}) + "\n"

    (tmp_path / "transcript.jsonl").write_text(line("2", 1))
    record.write_text(line("1", 7) + "no message\n" + line("2", 100_000) + '{"type": "assist')
    found = spent(tmp_path)
    assert found is not None
    assert (found.cost_usd, found.output_tokens, found.estimated) == (1.0, 100_000, True)


INIT: dict[str, Any] = {"type": "system", "subtype": "init", "model": "claude-sonnet-5-5"}
TOOL: dict[str, Any] = {"type": "user", "message": {"role": "user", "content": []}}


def answer(identity: str) -> dict[str, Any]:
    usage = {"input_tokens": 0, "output_tokens": 100_000}
    return {"type": "assistant", "message": {"id": identity, "model": "sonnet", "usage": usage, "content": []}}


@pytest.mark.parametrize(
    ("said", "recorded", "owed"),
    [
        ([], [], 0.0),
        ([INIT], [], 5.0),
        ([INIT, answer("1")], [], 1.0 + 5.0),
        ([INIT, answer("1")], ["1"], 1.0),
        ([INIT, answer("1"), TOOL], ["1"], 1.0 + 5.0),
        ([INIT, answer("1"), TOOL, answer("2"), TOOL], ["1"], 2.0 + 2 * 5.0),
        ([INIT, answer("1"), TOOL, answer("2")], ["1", "2"], 2.0),
        ([INIT, answer("1"), DONE | {"model_usage_since_last_result": {"s": {"costUSD": 1.0}}}], ["1"], 1.0),
    ],
    ids=["not asked", "asked", "in the midst of it", "heard", "asked again", "not written", "heard again", "told"],
)
def test_an_answer_on_its_way_to_a_program_that_died_is_owed(said: Any, recorded: Any, owed: float) -> None:
    """Whoever dies between a question and the end of its answer may owe one answer more than was heard; nobody else."""
    heard = Heard("canary")
    for message in said:
        heard.hear(message)
    if heard.owing:
        heard.complete({identity: answer(identity)["message"]["usage"] for identity in recorded}, 5.0)
    assert heard.usage.cost_usd == pytest.approx(owed)
