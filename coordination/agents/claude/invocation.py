"""With which tools, environment, settings and arguments is Claude Code started for a request?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from coordination.agents.claude import record
from coordination.agents.claude.fence import READ_TOOLS, WRITE_TOOLS, own_words, within
from coordination.agents.claude.program import find_binary, sandbox_works
from coordination.errors import Unsuitable, UsageError
from coordination.model.runs import AgentRequest
from coordination.temporary import made

JSON = Any

OUTSIDE_TOOLS = frozenset(  # they reach other sessions, other processes or later times: past every limit of a run
    {
        *("Agent", "ListAgents", "SendMessage", "Task", "TaskStop", "Workflow"),
        *("CronCreate", "CronDelete", "CronList", "Monitor", "ScheduleWakeup"),
        *("EnterWorktree", "ExitWorktree"),
    }
)

TEMPORARY_BYTES_MAX = 64  # a socket's path holds 103 at most (macOS), and the program adds up to 36


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the settings may say about this backend. Keys meant for others are ignored."""

    binary: str = ""
    shell_without_sandbox: bool = False
    start_seconds: float = 60.0  # until the program answers; a cold start on a busy machine takes a while
    canary_seconds: float = 10.0  # from that answer until our settings show
    no_output_seconds: float = 600.0
    result_grace_seconds: float = 10.0
    stop_grace_seconds: float = 10.0
    fence_seconds: float = 30.0
    retries_max: int = 4
    api_timeout_seconds: float = 120.0
    stream_idle_seconds: float = 60.0
    response_usd: float = 0.0  # what is owed for an answer that was on its way to a program that died
    start_gate: str = ""  # directory of the slots in which programs start; "": as many at once as like
    start_slots: int = 1
    start_wait_seconds: float = 60.0


def options_from(options: Mapping[str, Any]) -> Options:
    """Read the options. Raises UsageError for one of the wrong type."""
    try:
        return msgspec.convert(dict(options), Options)
    except msgspec.ValidationError as error:
        raise UsageError(f"options of the agent backend 'claude': {error}") from error


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out before anything is started."""

    binary: str
    tools: tuple[str, ...]
    sandboxed: bool  # whether its shell, if it has one, is in a sandbox
    resumed: bool = False  # whether the session has begun


def prepare(request: AgentRequest, options: Options) -> Invocation:
    """Find the program and decide the tools. Raises Unsuitable when this environment cannot carry the request."""
    binary = find_binary(options.binary, request.environment.get("PATH", ""))
    tools, sandboxed = _tools(request, options)
    return Invocation(binary=binary, tools=tools, sandboxed=sandboxed, resumed=_conversation_exists(request))


def _tools(request: AgentRequest, options: Options) -> tuple[tuple[str, ...], bool]:
    """Return the tools the role may really have, and whether its shell is sandboxed. Raises Unsuitable."""
    named = [tool.partition("(")[0].strip() for tool in request.tools]
    wanted = named or [*READ_TOOLS, *(WRITE_TOOLS if request.writes else ()), *(["Bash"] if request.shell else [])]
    shell = request.shell and "Bash" in wanted
    sandboxed = shell and request.sandbox != "off" and sandbox_works(request.environment.get("PATH", ""))
    if shell and request.sandbox == "require" and not sandboxed:
        raise Unsuitable("settings require a sandbox for commands, and none works here: install bubblewrap and socat")
    refused = set(OUTSIDE_TOOLS)
    if not request.writes:
        refused |= set(WRITE_TOOLS)
    if not (sandboxed or (shell and options.shell_without_sandbox)):
        refused.add("Bash")
    return tuple(dict.fromkeys(tool for tool in wanted if tool not in refused)), sandboxed


@contextlib.contextmanager
def temporary(request: AgentRequest) -> Iterator[str]:
    """Give the run a temporary directory of its own: the program's default is shared by all of a user's sessions.

    The sandbox keeps sockets in it, whose paths must be short; a request's long one is replaced for the time.
    """
    asked = request.environment.get("TMPDIR") or str(Path(request.run_directory) / "tmp")
    if len(asked.encode()) <= TEMPORARY_BYTES_MAX:
        Path(asked).mkdir(mode=0o700, parents=True, exist_ok=True)
        yield asked
        return
    with made(request.run_directory) as short:
        yield short


def environment(request: AgentRequest, options: Options, temporary: str) -> dict[str, str]:
    """Return the whole environment of the program: the request's, and what makes the program behave."""
    return {
        **request.environment,
        "TMPDIR": temporary,
        "CLAUDE_CODE_TMPDIR": temporary,
        "CLAUDE_CONFIG_DIR": request.config_directory,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
        "CLAUDE_CODE_MAX_RETRIES": str(options.retries_max),
        "API_TIMEOUT_MS": str(int(options.api_timeout_seconds * 1000)),
        "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": str(int(options.stream_idle_seconds * 1000)),
    }


def settings(request: AgentRequest, canary: str, temporary: str, *, sandboxed: bool) -> dict[str, JSON]:
    """Return the settings; ``canary`` is what the program's hook says once they are in force."""
    # the canary speaks on stderr: what a SessionStart hook prints on stdout is shown to the model
    hook = {"hooks": [{"type": "command", "command": f"echo {canary} >&2"}]}
    settings: dict[str, JSON] = {
        "autoMemoryEnabled": False,
        "crossSessionInbound": "hold",
        "hooks": {"SessionStart": [hook]},
    }
    if sandboxed:
        settings["sandbox"] = _sandbox(request, temporary)
    return settings


def _sandbox(request: AgentRequest, temporary: str) -> dict[str, JSON]:
    own = [request.directory, temporary]
    readable = [*own, str(own_words(request))]
    # what surrounds the workspace is read-only in the sandbox anyway, and naming it would close the workspace too
    deny_write = [path for path in request.deny_write if not any(within(place, path) for place in own)]
    return {
        "enabled": True,
        "failIfUnavailable": True,
        # the sandbox cannot make the workspace itself read-only: for those who may not write, the program allows
        # only commands it knows to be reading
        "autoAllowBashIfSandboxed": request.writes,
        "allowUnsandboxedCommands": False,
        "filesystem": {"denyWrite": deny_write, "denyRead": list(request.deny_read), "allowRead": readable},
    }


def arguments(
    request: AgentRequest, invocation: Invocation, role_file: Path, settings: Mapping[str, JSON]
) -> list[str]:
    """Return the command line. The prompt is not in it: it goes by stdin."""
    tools = invocation.tools
    arguments = [
        invocation.binary,
        "-p",
        "--verbose",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
    ]
    arguments += ["--setting-sources", "", "--strict-mcp-config", "--settings", json.dumps(settings)]
    arguments += ["--permission-mode", "acceptEdits" if request.writes else "default", "--permission-prompts", "none"]
    arguments += ["--tools", ",".join(tools), "--append-system-prompt-file", str(role_file)]
    if "Bash" in tools and request.writes:
        # within the sandbox, or with a person's word in the settings, there is nobody to ask about a command
        arguments += ["--allowedTools", "Bash"]
    if invocation.resumed:
        # a resumed session keeps its first role text unless told to look again
        arguments += ["--resume", request.session, "--system-prompt-snapshot", "off"]
    elif request.session:
        arguments += ["--session-id", request.session]
    if request.model:
        arguments += ["--model", request.model]
    if request.fallback_model:
        arguments += ["--fallback-model", request.fallback_model]
    if request.schema is not None:
        arguments += ["--json-schema", json.dumps(request.schema)]
    if request.limits.turns_max is not None:
        arguments += ["--max-turns", str(request.limits.turns_max)]
    if request.limits.budget_usd is not None:
        arguments += ["--max-budget-usd", str(request.limits.budget_usd)]
    return arguments


def _conversation_exists(request: AgentRequest) -> bool:
    """Whether the session has begun. Truer than ``request.resume``: a run that died may or may not have begun one."""
    return bool(record.find(request.config_directory, request.session))
