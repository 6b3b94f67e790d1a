"""How did the run end? Read from structured signals only, never from prose."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordination.agents.claude.heard import Heard
from coordination.agents.claude.invocation import Options
from coordination.model import endings, reviews
from coordination.model.runs import AgentRequest, Ending, Outcome

JSON = Any

COMPLETED = "completed"
_USAGE_LIMIT = "usage_limit_reached"
_OF_STATUS = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
_TELLING = frozenset({"billing_error", "model_not_found"})  # of the program's own words; the service says less


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an ending is judged by."""

    request: AgentRequest
    options: Options
    heard: Heard
    prompted: bool  # whether the agent was asked anything at all
    cause: str  # why we ended it; "" when it ended by itself
    exit_code: int  # negative: a signal
    memory_lacked: bool = False  # the system killed something for want of memory meanwhile


def judged(ended: Ended) -> Outcome:
    """Say how a run ended and what it cost."""
    request, heard = ended.request, ended.heard
    usage = heard.usage
    if ended.prompted and (ended.cause or not heard.results):
        # it owes an unknown sum for what was under way, even when no answer was heard
        usage = msgspec.structs.replace(usage, estimated=True)
    return msgspec.structs.replace(
        _judgement(ended),
        usage=usage,
        model=heard.model or request.model,
        session=heard.session or request.session,
        denials=tuple(heard.denials.values()),
        warned=heard.warned,
        resets_at=heard.resets_at if heard.warned or heard.rejected else 0.0,
    )


def _judgement(ended: Ended) -> Outcome:
    result = ended.heard.results[-1] if ended.heard.results else None
    if result is not None and _succeeded(result):
        # also when we had begun to end it: the work was finished before the word arrived
        return _success(ended, result)
    if ended.cause:
        return _ended_by_us(ended)
    return _crash(ended) if result is None else _failure(ended, result)


def _ended_by_us(ended: Ended) -> Outcome:
    request, options = ended.request, ended.options
    ending, reason = {
        "stopped": (Ending.STOPPED, "the run was asked to stop"),
        "timed_out": (Ending.TIMED_OUT, f"longer than {request.limits.timeout_seconds:g} seconds"),
        "no_output": (Ending.TIMED_OUT, f"silent for {options.no_output_seconds:g} seconds"),
        "no_start": (Ending.CRASHED, f"no sign of life within {options.start_seconds:g} seconds"),
        "initialize_failed": (Ending.FAILED, f"Claude Code refused to arm the fence: {ended.heard.complaint}"),
        "settings_not_applied": (Ending.FAILED, "Claude Code did not apply our settings, so nothing was asked"),
    }[ended.cause]
    return Outcome(ending=ending, code=ended.cause, reason=reason)


def _crash(ended: Ended) -> Outcome:
    last = _last_words(Path(ended.request.run_directory) / "stderr.log")
    most = ended.request.limits.turns_max
    if ended.exit_code > 0 and most is not None and ended.heard.turns >= most:
        return Outcome(ending=Ending.FAILED, code="max_turns", reason=f"ended without a word after {most} turns")
    if ended.exit_code == -signal.SIGKILL and ended.memory_lacked:
        return Outcome(ending=Ending.CRASHED, code="out_of_memory", reason="killed by the system for want of memory")
    code = f"signal:{-ended.exit_code}" if ended.exit_code < 0 else f"exit:{ended.exit_code}"
    reason = f"Claude Code ended without a result ({code}){': ' if last else ''}{last}"
    return Outcome(ending=Ending.CRASHED, code=code, reason=reason)


def _failure(ended: Ended, result: Mapping[str, JSON]) -> Outcome:
    said, code = _words(result), _code(ended.heard, result)
    if endings.is_weather(code):
        return Outcome(ending=Ending.LIMITED, code=code, reason=said)
    return Outcome(ending=Ending.FAILED, code=code, reason=said, report=str(result.get("result") or ""))


def _code(heard: Heard, result: Mapping[str, JSON]) -> str:
    """The most telling signal of a result that is none: what ended the run, else what the service said, else how."""
    terminal = str(result.get("terminal_reason") or result.get("startup_failure_reason") or "")
    if result.get("stop_reason") == "refusal":
        return "refusal"
    if terminal not in {"", "api_error"}:
        return terminal
    if heard.rejected and terminal:
        return _USAGE_LIMIT
    said = str(result.get("api_error") or result.get("api_error_type") or "")
    status = result.get("api_error_status")
    if heard.trouble in _TELLING and said != _USAGE_LIMIT:
        return heard.trouble
    if not said and status is None and "api_error_status" in result:
        return "no_response"  # it waited in vain for an answer
    return said or _OF_STATUS.get(status or 0) or terminal or str(result.get("subtype", ""))


def _success(ended: Ended, result: Mapping[str, JSON]) -> Outcome:
    results, schema = ended.heard.results, ended.request.schema
    report = next((text for each in reversed(results) if (text := str(each.get("result") or ""))), "")
    if schema is None:
        return Outcome(ending=Ending.SUCCEEDED, code=COMPLETED, report=report)
    answer = result.get("structured_output")
    if answer is None:
        reason = "the agent did not give its answer in the form that was asked for"
        return Outcome(ending=Ending.FAILED, code="no_structured_output", reason=reason, report=report)
    if "verdict" not in schema.get("properties", {}):
        return Outcome(ending=Ending.SUCCEEDED, code=COMPLETED, report=json.dumps(answer))
    return _reviewed(answer)


def _succeeded(result: Mapping[str, JSON]) -> bool:
    # "success" is also the subtype of API failures, and a clean is_error can carry a dead terminal_reason
    return result.get("is_error") is False and result.get("terminal_reason") == COMPLETED


def _words(result: Mapping[str, JSON]) -> str:
    errors = result.get("errors")
    listed = "; ".join(map(str, errors)) if isinstance(errors, list) else ""
    return (listed or str(result.get("result") or "")).strip()[:500] or "Claude Code reported an error without words"


def _reviewed(answer: JSON) -> Outcome:
    try:
        review = reviews.parse(answer)
    except ValueError as error:
        return Outcome(ending=Ending.FAILED, code="malformed_verdict", reason=str(error), report=json.dumps(answer))
    return Outcome(
        ending=Ending.SUCCEEDED,
        code=COMPLETED,
        verdict=review.verdict,
        judged=review.commit,
        findings=review.findings,
        report=review.summary,
    )


def _last_words(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()[-300:]
    except OSError:
        return ""
