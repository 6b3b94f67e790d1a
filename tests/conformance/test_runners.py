"""Every backend that ships behaves as the suite says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordination.agents import Runner, create
from coordination.agents.claude import find_binary
from coordination.model.runs import AgentRequest
from coordination.rehearsal.model_server import ModelServer
from coordination.testing import runner_conformance
from coordination.testing.runner_conformance import ENDLESS_SECONDS, Check, Part, Stage


class ScriptedStage:
    @property
    def runner(self) -> Runner:
        return create("scripted", {})

    def request(self, part: Part, request: AgentRequest) -> AgentRequest:
        script: dict[str, Any] = {"write": part.write, "report": part.report}
        if part.endless:
            script["sleep_seconds"] = ENDLESS_SECONDS
        if part.fail:
            script["ending"] = "failed"
        if part.answer is not None:
            answer = dict(part.answer)
            script |= {"report": answer.pop("summary"), **answer}
        prompt = f"Do as you are told.\n```script\n{json.dumps(script)}\n```\n"
        return msgspec.structs.replace(request, backend="scripted", prompt=prompt)


class ClaudeStage:
    def __init__(self, scripts: dict[str, Any], url: str) -> None:
        self._scripts = scripts
        self._url = url

    @property
    def runner(self) -> Runner:
        return create("claude", {"binary": find_binary("", ""), "stop_grace_seconds": 1.0, "retries_max": 0})

    def request(self, part: Part, request: AgentRequest) -> AgentRequest:
        name = f"part{len(self._scripts)}"
        self._scripts[name] = list(_steps(part))
        key = {"ANTHROPIC_API_KEY": "made-up", "ANTHROPIC_BASE_URL": self._url}
        return msgspec.structs.replace(
            request,
            backend="claude",
            model="sonnet",
            prompt=f"[[script {name}]] Do as you are told.",
            environment=request.environment | key,
        )


def _steps(part: Part) -> Iterator[list[dict[str, Any]]]:
    for path, content in part.write.items():
        file = path if path.startswith("/") else f"{{cwd}}/{path}"
        yield [{"type": "tool_use", "name": "Write", "input": {"file_path": file, "content": content}}]
    if part.endless:
        yield [{"hang": True}]
    elif part.fail:
        yield [{"status": 400, "type": "invalid_request_error", "message": "no"}]
    elif part.answer is not None:
        # a wrong form is refused by the program, which asks again a few times
        for _ in range(6):
            yield [{"type": "tool_use", "name": "StructuredOutput", "input": part.answer}]
    for _ in range(2):
        yield [{"type": "text", "text": part.report}]


@contextmanager
def _claude() -> Iterator[Stage]:
    scripts: dict[str, Any] = {}
    with ModelServer({"scripts": scripts}) as server:
        yield ClaudeStage(scripts, server.url)


@pytest.mark.parametrize("check", runner_conformance.CHECKS, ids=lambda check: check.__name__)
def test_the_scripted_backend_conforms(check: Check, tmp_path: Path) -> None:
    """The backend without a model keeps the contract of all backends."""
    check(ScriptedStage(), tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("check", runner_conformance.CHECKS, ids=lambda check: check.__name__)
def test_the_claude_backend_conforms(check: Check, tmp_path: Path) -> None:
    """The real Claude Code, driven by our backend, keeps the contract of all backends."""
    with _claude() as stage:
        check(stage, tmp_path)
