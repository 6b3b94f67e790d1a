"""What does an ending mean, what is done about it, and how often? One table, read by policies and by people.

A run's ``code`` is the structured signal behind its end; prose is never looked at. Every code belongs to one *kind*.
A kind says how the next run begins, how often that is tried before somebody has to look (counted for this kind alone,
since a person last decided about the task), and what follows then. Crashes are counted within an hour only, as
supervisors of processes do: one every night is bad luck, four in a row are not.
"""

from __future__ import annotations

from enum import StrEnum

from coordination.model.runs import Ending, Outcome, Value


class How(StrEnum):
    """What is done about a run that did not succeed."""

    FRESH = "fresh"  # again, in a new session: going on in the old one may be what is wrong
    RESUME = "resume"  # again, in the same session: what it has read and thought is paid for
    OTHER_MODEL = "other_model"  # again, with the role's fallback model
    SHORTER = "shorter"  # again, without packed context
    WAIT = "wait"  # again when the weather is better; nobody is to blame
    PERSON = "person"
    FAIL = "fail"


class Kind(Value, frozen=True, kw_only=True):
    """One way to end, and its remedy."""

    name: str
    says: str  # one sentence for a person
    how: How
    most: int | None  # how often, before ``then``; None: as often as the task may be tried at all
    within_seconds: float | None = None  # only those that ended so lately count
    then: How = How.PERSON
    codes: tuple[str, ...] = ()


_KINDS = (
    Kind(
        name="turn limit",
        says="the agent used all the turns it was given",
        how=How.RESUME,
        most=2,
        then=How.FAIL,
        codes=("max_turns", "error_max_turns"),
    ),
    Kind(
        name="budget",
        says="the run used all the money it was given",
        how=How.PERSON,
        most=0,
        codes=("budget_exhausted", "error_max_budget_usd"),
    ),
    Kind(
        name="prompt too long",
        says="the conversation no longer fits into the model's context",
        how=How.SHORTER,
        most=1,
        codes=("prompt_too_long",),
    ),
    Kind(
        name="refusal",
        says="the model refused the request",
        how=How.OTHER_MODEL,
        most=1,
        codes=("refusal",),
    ),
    Kind(
        name="not permitted",
        says="the agent changed nothing, and what it tried was not permitted",
        how=How.FRESH,
        most=1,
        codes=("denied",),
    ),
    Kind(
        name="gave up",
        says="the agent ended with words and without a change",
        how=How.FRESH,
        most=None,
        then=How.FAIL,
        codes=("no_change",),
    ),
    Kind(
        name="produced nothing",
        says="the agent ended well and there is nothing to show for it",
        how=How.FRESH,
        most=None,
        then=How.FAIL,
        codes=("nothing", "unproven"),
    ),
    Kind(
        name="no proper answer",
        says="the agent did not answer in the form that was asked for",
        how=How.FRESH,
        most=2,
        codes=(
            "no_structured_output",
            "structured_output_retry_exhausted",
            "error_max_structured_output_retries",
            "malformed_verdict",
            "malformed_tool_use_exhausted",
        ),
    ),
    Kind(
        name="judged another commit",
        says="the reviewer's verdict is about another commit than it was asked about, and counts for nothing",
        how=How.FRESH,
        most=1,
        codes=("other_commit",),
    ),
    Kind(
        name="authentication",
        says="the service does not accept the key or login",
        how=How.WAIT,
        most=None,
        codes=("authentication_error", "authentication_failed", "permission_error", "oauth_error"),
    ),
    Kind(
        name="billing",
        says="the account has no credit",
        how=How.WAIT,
        most=None,
        codes=("billing_error",),
    ),
    Kind(
        name="model not found",
        says="the service does not know the model",
        how=How.OTHER_MODEL,
        most=1,
        codes=("not_found_error", "model_not_found"),
    ),
    Kind(
        name="usage limit",
        says="the account's usage limit is reached",
        how=How.WAIT,
        most=None,
        codes=("usage_limit_reached",),
    ),
    Kind(
        name="rate limit",
        says="the service asked for fewer requests",
        how=How.WAIT,
        most=50,
        codes=("rate_limit_error", "rate_limit"),
    ),
    Kind(
        name="overloaded",
        says="the service is overloaded",
        how=How.WAIT,
        most=50,
        codes=("overloaded_error", "overloaded"),
    ),
    Kind(
        name="connection",
        says="the service could not be reached",
        how=How.WAIT,
        most=50,
        codes=("connection_failed", "connection_error", "timeout_error", "no_response"),
    ),
    Kind(
        name="service error",
        says="the service failed",
        how=How.RESUME,
        most=None,
        then=How.FAIL,
        codes=("api_error", "server_error", "model_error", "unknown"),
    ),
    Kind(
        name="request not accepted",
        says="the service does not accept the conversation",
        how=How.FRESH,
        most=1,
        codes=("invalid_request_error", "invalid_request", "image_error", "request_too_large", "blocking_limit"),
    ),
    Kind(
        name="stalled",
        says="the agent's stream was silent for too long",
        how=How.RESUME,
        most=2,
        then=How.FAIL,
        codes=("no_output",),
    ),
    Kind(
        name="timed out",
        says="the run took longer than it may",
        how=How.RESUME,
        most=1,
        then=How.FAIL,
        codes=("timed_out", "timeout"),
    ),
    Kind(
        name="out of memory",
        says="the system killed it for want of memory",
        how=How.RESUME,
        most=1,
        codes=("out_of_memory",),
    ),
    Kind(
        name="crashed",
        says="the process ended without an outcome",
        how=How.RESUME,
        most=3,
        within_seconds=3600.0,
        then=How.FAIL,
        codes=("worker_died", "worker_error", "aborted_streaming", "aborted_tools", "error_during_execution"),
    ),
    Kind(
        name="set-up failed",
        says="the run could not be prepared",
        how=How.FRESH,
        most=1,
        codes=(
            *("unsuitable", "spawn_failed", "initialize_failed", "turn_setup_failed", "request", "directory_lost"),
            *("no_start", "Unsuitable", "NotFound", "setup_failed"),
        ),
    ),
    Kind(
        name="settings not applied",
        says="Claude Code ignored our settings, so nothing was asked of it",
        how=How.FRESH,
        most=1,
        codes=("settings_not_applied",),
    ),
    Kind(
        name="branch astray",
        says="the integration branch is not where it could be landed on",
        how=How.WAIT,
        most=50,
        codes=("astray",),
    ),
    Kind(
        name="changed what it may not",
        says="a run that only reads changed the tree",
        how=How.FRESH,
        most=1,
        codes=("tree_changed",),
    ),
    Kind(
        name="superseded",
        says="the outcome came from a worker that had been replaced",
        how=How.FRESH,
        most=None,
        then=How.FAIL,
        codes=("superseded", "malformed_outcome", "foreign_outcome", "unproven_commit"),
    ),
)

STOPPED = Kind(name="stopped", says="we ended it; nobody is to blame", how=How.WAIT, most=None)
CRASHED = next(kind for kind in _KINDS if kind.name == "crashed")
WEATHER = Kind(name="limited", says="the service did not let it work", how=How.WAIT, most=50)
OTHER = Kind(name="failed", says="it did not succeed", how=How.FRESH, most=None, then=How.FAIL)
SUCCEEDED = Kind(name="done", says="it did what was asked", how=How.FRESH, most=0)
KINDS = (SUCCEEDED, STOPPED, *_KINDS, WEATHER, OTHER)
PERSONAL = frozenset({"authentication", "billing"})
"""Weather that only a person can change."""

_BY_CODE = {code: kind for kind in _KINDS for code in kind.codes}
_OF_ENDING = {
    Ending.SUCCEEDED: SUCCEEDED,
    Ending.STOPPED: STOPPED,
    Ending.CRASHED: CRASHED,
    Ending.LIMITED: WEATHER,
}


def is_weather(code: str) -> bool:
    """Whether a run that ended with this code is to wait for better weather."""
    kind = _BY_CODE.get(code)
    return kind is not None and kind.how is How.WAIT


def kind_of(outcome: Outcome) -> Kind:
    """The kind of an outcome: by its code, else by its ending. What we stopped is nothing else, whatever it said."""
    if outcome.ending in (Ending.SUCCEEDED, Ending.STOPPED):
        return _OF_ENDING[outcome.ending]
    return _BY_CODE.get(outcome.code) or _OF_ENDING.get(outcome.ending, OTHER)
