"""How does the real Claude Code do a run? One process over stream-json, fenced, watched, and judged by its signals.

::

    worker ── stdin: initialize, prompt, answers ──▶ claude ── stdout is the FILE transcript.jsonl ──▶ tailed here

What must hold:

* The environment is exactly the request's and ours; nothing is inherited. Settings, hooks and servers of the user
  or of the repository are not loaded.
* The prompt is sent only after the program has answered ``initialize`` (the fence is armed) *and* our SessionStart
  hook has fired (our settings were not dropped, which happens silently and wholly when one value is not liked).
* Every tool call passes the fence, which fails closed: no answer, a late answer or an error means no.
* The end is the exit of the process, not its first result. What is left of its group is killed before it is reaped,
  because after that its id may belong to somebody else.
* The ending is read from ``is_error``, ``terminal_reason`` and the API's own codes; never from prose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordination.agents import Progress, Stopping
from coordination.agents.claude.heard import Heard, Tail, decoded
from coordination.agents.claude.invocation import Options, options_from, prepare
from coordination.agents.claude.program import find_binary, sandbox_works
from coordination.agents.claude.record import complete
from coordination.agents.claude.session import Session
from coordination.errors import Unsuitable
from coordination.model.runs import AgentRequest, Ending, Outcome, RunRequest, Usage

__all__ = ["ClaudeRunner", "create", "find_binary", "sandbox_works", "spent"]


def create(options: Mapping[str, Any]) -> ClaudeRunner:
    """Make the runner. Raises UsageError for an option of the wrong type."""
    return ClaudeRunner(options_from(options))


def spent(run_directory: Path) -> Usage | None:
    """What a run that died had spent, by its transcript and the program's record; None when it is gone. Raises OSError.

    The transcript is durable before the program is started: where it never was, nothing was asked of anybody.
    """
    try:
        with (run_directory / "transcript.jsonl").open("rb") as transcript:
            heard = Heard(canary="")
            for line in Tail(transcript).lines():
                heard.hear(decoded(line))
    except FileNotFoundError:
        return Usage() if (run_directory / "request.json").exists() else None
    request = _request(run_directory)
    if request is not None:
        complete(heard, request, options_from(request.options).response_usd)
    return msgspec.structs.replace(heard.usage, estimated=True)


def _request(run_directory: Path) -> AgentRequest | None:
    """What the run was asked; None when that is not there to be read."""
    try:
        return msgspec.json.decode((run_directory / "request.json").read_bytes(), type=RunRequest).agent
    except (OSError, msgspec.MsgspecError):
        return None


class ClaudeRunner:
    """Runs requests on the Claude Code program."""

    def __init__(self, options: Options) -> None:
        """Hold the settings; a request's own options go before them."""
        self._options = options

    def run(self, request: AgentRequest, *, progress: Progress, stopping: Stopping) -> Outcome:
        """Run to the end of the program's process. What the world does becomes an outcome."""
        started_at = time.time()
        try:
            options = options_from(msgspec.to_builtins(self._options) | request.options)
            invocation = prepare(request, options)
        except Unsuitable as error:
            outcome = Outcome(ending=Ending.FAILED, code="unsuitable", reason=str(error), session=request.session)
        else:
            outcome = Session(request, options, invocation, progress, stopping).run()
        return msgspec.structs.replace(outcome, started_at=started_at, ended_at=time.time())
