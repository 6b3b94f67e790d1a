"""How is a run rehearsed without any model? Its prompt carries a script, and this backend does what it says.

The script is a JSON object in a fenced block of the prompt, marked ``script`` as its language. It says what to do
outright, by the run's purpose (the last part of its id), or by what else the prompt contains; the first case that
fits wins::

    {"by_purpose": {"review": <script>, …}, "match": [{"contains": [text, …], "do": <actions>}, …], "do": <actions>}

Actions, in the order they are done; all are optional, and an object without the keys above is the actions themselves::

    write          {path: content, …}   below the workspace; elsewhere is denied, and the denial recorded
    delete         [path, …]            likewise
    sleep_seconds  number               or until stopped or out of time
    exit           number               the worker's process dies at once: no outcome
    cost_usd       number               what the run is said to have cost
    verdict, findings                   of a review; ``report`` is its summary
    commit         text                 what the review says that it judged, instead of what it was asked about
    report         text                 the last words
    ending, code, reason, resets_at     instead of success
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordination.agents import Progress, Stopping
from coordination.env import private
from coordination.model import reviews
from coordination.model.runs import AgentRequest, Ending, Outcome, Usage

JSON = Any

_BLOCK = re.compile(r"^```script\s*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
_STEP_SECONDS = 0.01


def create(options: Mapping[str, Any]) -> ScriptedRunner:  # noqa: ARG001 - the shape all backends share
    """Make the runner; it has no settings."""
    return ScriptedRunner()


def spent(run_directory: Path) -> Usage:  # noqa: ARG001 - the shape all backends share
    """Nothing was paid for; what the script says that it cost is said at the end."""
    return Usage(estimated=True)


class ScriptedRunner:
    """Does what the prompt's script says."""

    def run(self, request: AgentRequest, *, progress: Progress, stopping: Stopping) -> Outcome:
        """Do the script's actions. A script that cannot be read is a failed run, like any other misfortune."""
        started_at = time.time()
        try:
            actions = chosen(request.prompt, request.run.rpartition(".")[2])
        except (ValueError, KeyError, TypeError) as error:
            return _failed("no_script", f"the prompt carries no script that can be played: {error!r}")
        outcome = _Performance(request, actions, progress, stopping).run()
        return _stamped(outcome, request, started_at)


def chosen(prompt: str, purpose: str) -> Mapping[str, JSON]:
    """Find the actions that a prompt asks for. Raises ValueError, KeyError or TypeError when there are none."""
    block = _BLOCK.search(prompt)
    if block is None:
        raise ValueError("expected a fenced block ```script {…} ```")
    # the script itself holds the texts its cases look for, and the prompt may quote it again
    said = _BLOCK.sub("", prompt)
    script = json.loads(block.group(1))
    if not isinstance(script, dict):
        raise TypeError(f"expected the script to be an object, found {type(script).__name__}")
    script = script.get("by_purpose", {}).get(purpose, script)
    for case in script.get("match", []):
        if all(part in said for part in case["contains"]):
            return dict(case["do"])
    structured = {"by_purpose", "match", "do"} & set(script)
    return dict(script["do"] if structured else script)


class _Performance:
    """One run of one script."""

    def __init__(
        self, request: AgentRequest, actions: Mapping[str, JSON], progress: Progress, stopping: Stopping
    ) -> None:
        self._request = request
        self._actions = actions
        self._progress = progress
        self._stopping = stopping
        self._deadline = time.monotonic() + request.limits.timeout_seconds
        self._turns = 0
        self._denials: list[str] = []

    def run(self) -> Outcome:
        """Do everything in order; say how it ended."""
        actions = self._actions
        for path, content in actions.get("write", {}).items():
            self._change("Write", path, content)
        for path in actions.get("delete", []):
            self._change("Delete", path, None)
        interrupted = self._sleep(float(actions.get("sleep_seconds", 0.0)))
        if "exit" in actions:
            os._exit(int(actions["exit"]))
        outcome = interrupted or self._ending()
        usage = Usage(cost_usd=float(actions.get("cost_usd", 0.0)), turns=self._turns)
        self._say("end", "")
        return msgspec.structs.replace(outcome, usage=usage, denials=tuple(self._denials))

    def _change(self, tool: str, path: str, content: str | None) -> None:
        self._turns += 1
        objection = self._objection(path)
        if objection:
            self._denials.append(f"{tool}: {objection}")
        elif content is None:
            Path(self._request.directory, path).unlink(missing_ok=True)
        else:
            target = Path(self._request.directory, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
        self._say(tool, path)

    def _objection(self, path: str) -> str:
        if not self._request.writes:
            return "this role does not write"
        root = Path(self._request.directory).resolve()
        target = (root / path).resolve()
        if not target.is_relative_to(root) or target == root:
            return f"{path} is outside the workspace {root}"
        return f"{path} belongs to git" if ".git" in target.relative_to(root).parts else ""

    def _say(self, tool: str, path: str) -> None:
        line = {"type": "scripted", "tool": tool, "file": path, "turns": self._turns, "at": time.time()}
        told = Path(self._request.run_directory, "transcript.jsonl")
        with open(told, "a", encoding="utf-8", opener=private) as transcript:
            transcript.write(json.dumps(line) + "\n")
        spent = float(self._actions.get("cost_usd", 0.0))
        self._progress({**line, "tokens_output": 0, "cost_usd": spent if tool == "end" else 0.0})

    def _sleep(self, seconds: float) -> Outcome | None:
        end = time.monotonic() + seconds
        while True:
            if self._stopping():
                return Outcome(ending=Ending.STOPPED, code="stopped", reason="the run was asked to stop")
            now = time.monotonic()
            if now >= self._deadline:
                limit = self._request.limits.timeout_seconds
                return Outcome(ending=Ending.TIMED_OUT, code="timed_out", reason=f"longer than {limit:g} seconds")
            if now >= end:
                return None
            time.sleep(min(_STEP_SECONDS, end - now))

    def _ending(self) -> Outcome:
        actions = self._actions
        report = str(actions.get("report", ""))
        if "ending" in actions:
            return Outcome(
                ending=Ending(actions["ending"]),
                code=str(actions.get("code", "scripted")),
                reason=str(actions.get("reason", "the script says so")),
                report=report,
                resets_at=float(actions.get("resets_at", 0.0)),
            )
        if "verdict" not in actions:
            if self._request.schema is not None:
                return _failed("no_structured_output", "the script gives no verdict")
            return Outcome(ending=Ending.SUCCEEDED, code="completed", report=report)
        answer = {
            "commit": actions.get("commit", self._request.commit),
            "verdict": actions["verdict"],
            "summary": report,
            "findings": actions.get("findings", []),
        }
        try:
            review = reviews.parse(answer)
        except ValueError as error:
            return _failed("malformed_verdict", str(error))
        return Outcome(
            ending=Ending.SUCCEEDED,
            code="completed",
            report=review.summary,
            verdict=review.verdict,
            judged=review.commit,
            findings=review.findings,
        )


def _failed(code: str, reason: str) -> Outcome:
    return Outcome(ending=Ending.FAILED, code=code, reason=reason)


def _stamped(outcome: Outcome, request: AgentRequest, started_at: float) -> Outcome:
    return msgspec.structs.replace(
        outcome, model="scripted", session=request.session, started_at=started_at, ended_at=time.time()
    )
