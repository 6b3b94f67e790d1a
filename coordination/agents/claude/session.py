"""How does one run of the program go, from its start to its outcome?"""

from __future__ import annotations

import functools
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordination.agents import Progress, Stopping
from coordination.agents.claude.ending import Ended, judged
from coordination.agents.claude.fence import Fence, own_words, within
from coordination.agents.claude.gate import StartGate
from coordination.agents.claude.heard import Heard, Tail, decoded
from coordination.agents.claude.invocation import Invocation, Options, arguments, environment, settings, temporary
from coordination.agents.claude.process import Process, lacks_of_memory
from coordination.agents.claude.record import complete
from coordination.env import private
from coordination.model.runs import AgentRequest, Ending, Outcome

JSON = Any


class Session:
    """One run of the program, from its start to its outcome."""

    def __init__(
        self,
        request: AgentRequest,
        options: Options,
        invocation: Invocation,
        progress: Progress,
        stopping: Stopping,
    ) -> None:
        self._request = request
        self._options = options
        self._invocation = invocation
        self._progress = progress
        self._stopping = stopping
        self._canary = f"coordination-settings-{uuid.uuid4()}"
        self._heard = Heard(self._canary)
        self._fence = Fence(request, invocation.tools)
        self._cause = ""  # why we end it, when we do
        self._prompted = False
        self._tokens_shown = 0
        self._cost_shown_usd = 0.0
        self._gate = StartGate(options.start_gate, options.start_slots)
        self._rungs: list[tuple[float, Callable[[], None]]] = []  # of the stop ladder: when, what

    def run(self) -> Outcome:
        """Start, converse, end, judge."""
        with temporary(self._request) as directory:
            return self._run(directory)

    def _run(self, temporary: str) -> Outcome:
        leftovers = [path for path in self._leftovers() if not path.exists()]
        lacked = lacks_of_memory()
        try:
            self._gate.enter(self._stopping, self._options.start_wait_seconds)
            self._process = self._start(temporary)
        except OSError as error:
            self._gate.leave()
            return Outcome(
                ending=Ending.FAILED, code="spawn_failed", reason=f"cannot start {self._invocation.binary}: {error}"
            )
        try:
            with self._process.transcript:
                self._converse()
        finally:
            self._gate.leave()
            code = self._process.reap()
            _remove_empty(leftovers)
        complete(self._heard, self._request, self._options.response_usd)
        return judged(
            Ended(
                request=self._request,
                options=self._options,
                heard=self._heard,
                prompted=self._prompted,
                cause=self._cause,
                exit_code=code,
                memory_lacked=lacks_of_memory() > lacked,
            )
        )

    def _start(self, temporary: str) -> Process:
        request, invocation = self._request, self._invocation
        own_words(request).mkdir(
            mode=0o700, parents=True, exist_ok=True
        )  # what is not there cannot be opened to a sandbox
        role_file = Path(request.run_directory) / "role.md"
        with open(role_file, "w", encoding="utf-8", opener=private) as stream:
            stream.write(request.instructions)
        chosen = settings(request, self._canary, temporary, sandboxed=invocation.sandboxed)
        variables = environment(request, self._options, temporary)
        return Process(arguments(request, invocation, role_file, chosen), variables, request)

    def _leftovers(self) -> Sequence[Path]:
        # the sandbox makes these in the workspace and leaves them; innermost first
        claude = Path(self._request.directory) / ".claude"
        return [claude / ".cc-writes", claude] if self._invocation.sandboxed else []

    def _converse(self) -> None:
        self._began = self._last_output = time.monotonic()
        self._initialized_at = 0.0
        self._process.say(initialization(self._options))
        tail = Tail(self._process.transcript)
        pause_seconds = 0.0
        while True:
            exited = self._process.exited()  # asked before reading, or the last lines would be missed
            heard = self._hear(tail)
            if exited:
                return
            self._prompt_when_safe()
            self._watch()
            pause_seconds = 0.005 if heard else min(0.05, pause_seconds * 1.5 + 0.001)
            self._process.rest(pause_seconds)

    def _hear(self, tail: Tail) -> bool:
        heard = False
        for line in tail.lines():
            heard = True
            message = decoded(line)
            if message.get("type") == "control_request":
                self._answer(message)
                continue
            self._heard.hear(message)
            match message.get("type"):
                case "assistant":
                    self._report_progress()
                case "result":
                    self._report_progress()
                    self._after_result()
        if heard:
            self._last_output = time.monotonic()
        if self._heard.model:
            self._gate.leave()  # it says with which model it begins: it has started
        return heard

    def _answer(self, message: Mapping[str, JSON]) -> None:
        identity = message.get("request_id")
        match message.get("request"):
            case {"subtype": "hook_callback", "input": dict() as call}:
                response = {"subtype": "success", "request_id": identity, "response": self._judged(call)}
            case _:
                response = {"subtype": "error", "request_id": identity, "error": "nobody answers this here"}
        self._process.say({"type": "control_response", "response": response})

    def _judged(self, call: Mapping[str, JSON]) -> dict[str, JSON]:
        tool, arguments = str(call.get("tool_name", "")), call.get("tool_input")
        objection = self._fence.objection(tool, arguments if isinstance(arguments, dict) else {})
        if not objection:
            return {}
        self._heard.deny(str(call.get("tool_use_id")), f"{tool}: {objection}")
        decision = {"permissionDecision": "deny", "permissionDecisionReason": objection}
        return {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}

    def _prompt_when_safe(self) -> None:
        heard = self._heard
        if self._prompted or self._cause or heard.initialized is None:
            return
        now = time.monotonic()
        self._initialized_at = self._initialized_at or now
        if not heard.initialized:
            self._end("initialize_failed")
        elif heard.settings_applied:
            self._prompted = True
            going_on = self._invocation.resumed and self._request.continuation
            self._process.say(_prompt(going_on or self._request.prompt))
        elif now > self._initialized_at + self._options.canary_seconds:
            self._end("settings_not_applied")

    def _after_result(self) -> None:
        self._process.say_no_more()
        if not self._rungs:
            # some never exit after their last word: the ladder waits for them
            self._climb(time.monotonic() + self._options.result_grace_seconds, asking=False)

    def _watch(self) -> None:
        now = time.monotonic()
        wish = self._stopping()
        if wish == "kill":
            self._cause = self._cause or "stopped"
            self._process.kill()
        elif not self._cause and not self._heard.results:
            if wish:
                self._end("stopped")
            elif now > self._began + self._request.limits.timeout_seconds:
                self._end("timed_out")
            elif not self._prompted and now > self._began + self._options.start_seconds:
                self._end("no_start")
            elif now > self._last_output + self._options.no_output_seconds:
                self._end("no_output")
        while self._rungs and now >= self._rungs[0][0]:
            self._rungs.pop(0)[1]()

    def _end(self, cause: str) -> None:
        self._cause = cause
        self._climb(time.monotonic(), asking=True)

    def _climb(self, start: float, *, asking: bool) -> None:
        """Plan the ladder: ask, wait, SIGTERM, wait, SIGKILL."""
        grace = self._options.stop_grace_seconds
        asks = [(start, self._interrupt)] if asking else []
        start += grace if asking else 0.0
        terminate = functools.partial(self._process.ask, signal.SIGTERM)
        self._rungs = [*asks, (start, terminate), (start + grace, self._process.kill)]

    def _interrupt(self) -> None:
        if self._prompted:
            self._process.say({"type": "control_request", "request_id": "stop", "request": {"subtype": "interrupt"}})
        else:
            self._process.say_no_more()

    def _report_progress(self) -> None:
        heard, usage = self._heard, self._heard.usage
        directory = self._request.directory
        file = os.path.relpath(heard.file, directory) if within(heard.file, directory) else heard.file
        # a bill may be lower than the estimate before it; what is shown only grows
        self._tokens_shown = max(self._tokens_shown, usage.output_tokens)
        self._cost_shown_usd = max(self._cost_shown_usd, usage.cost_usd)
        now = {"tool": heard.tool, "file": file, "turns": heard.turns, "at": time.time()}
        self._progress(now | {"tokens_output": self._tokens_shown, "cost_usd": self._cost_shown_usd})


def initialization(options: Options) -> dict[str, JSON]:
    """The first message to the program: it arms the fence."""
    hook = {"matcher": "*", "hookCallbackIds": ["fence"], "timeout": options.fence_seconds, "onFailure": "block"}
    request = {"subtype": "initialize", "hooks": {"PreToolUse": [hook]}}
    return {"type": "control_request", "request_id": "initialize", "request": request}


def _prompt(text: str) -> dict[str, JSON]:
    # client_composed: a leading slash is no command, an @path is no attachment
    message = {"role": "user", "content": text}
    head = {"type": "user", "message": message, "parent_tool_use_id": None, "session_id": "default"}
    return {**head, "uuid": str(uuid.uuid4()), "client_composed": True}


def _remove_empty(directories: Sequence[Path]) -> None:
    for directory in directories:
        try:
            directory.rmdir()
        except OSError:
            # not there, or something is in it: then it is the agent's, and stays
            continue
