"""Does the installed program do what we rely on? It is started as for a run, and never asked anything: no cost.

All our arguments and settings are given to it, with a made-up key and an address where nobody listens. A program that
does not know one of our flags ends at once; one that drops our settings never shows the canary.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from coordination.agents.claude.heard import Heard, Tail, decoded
from coordination.agents.claude.invocation import Options, arguments, environment, prepare, settings
from coordination.agents.claude.process import Process
from coordination.agents.claude.session import initialization
from coordination.model.runs import AgentRequest, Limits

_SECONDS_MAX = 60.0
_NOBODY = "http://127.0.0.1:9"


def version(binary: str, path: str) -> str:
    """What the program says of itself; "" when it says nothing. Raises OSError, subprocess.TimeoutExpired."""
    with tempfile.TemporaryDirectory(prefix="coordination-") as home:
        asked = {"HOME": home, "PATH": path, "CLAUDE_CONFIG_DIR": home, "DISABLE_AUTOUPDATER": "1"}
        done = subprocess.run(
            [binary, "--version"], env=asked, cwd=home, capture_output=True, text=True, timeout=30, check=False
        )
    return done.stdout.strip() if done.returncode == 0 else ""


def probe(binary: str, path: str) -> str:
    """Why the program cannot be driven as we need it; "" when it can. Raises Unsuitable, OSError."""
    with tempfile.TemporaryDirectory(prefix="coordination-") as directory:
        return _probed(_request(Path(directory), path), binary)


def _request(directory: Path, path: str) -> AgentRequest:
    for name in ("home", "workspace", "run", "config", "tmp"):
        (directory / name).mkdir(mode=0o700)
    variables = {"HOME": str(directory / "home"), "PATH": path, "TMPDIR": str(directory / "tmp")}
    return AgentRequest(  # noqa: S604 - ``shell`` is a field of ours
        run="probe",
        task="probe",
        role="probe",
        backend="claude",
        prompt="",
        instructions="",
        model="haiku",
        writes=True,
        shell=True,
        limits=Limits(turns_max=1, budget_usd=0.01),
        session=str(uuid.uuid4()),
        directory=str(directory / "workspace"),
        run_directory=str(directory / "run"),
        config_directory=str(directory / "config"),
        environment={**variables, "ANTHROPIC_API_KEY": "made-up", "ANTHROPIC_BASE_URL": _NOBODY},
    )


def _probed(request: AgentRequest, binary: str) -> str:
    options, canary = Options(binary=binary), f"coordination-settings-{uuid.uuid4()}"
    invocation = prepare(request, options)
    role = Path(request.run_directory) / "role.md"
    role.write_text("", encoding="utf-8")
    temporary = request.environment["TMPDIR"]
    chosen = settings(request, canary, temporary, sandboxed=invocation.sandboxed)
    process = Process(arguments(request, invocation, role, chosen), environment(request, options, temporary), request)
    heard = Heard(canary)
    try:
        with process.transcript:
            ended = _listened(process, heard)
    finally:
        process.ask(signal.SIGTERM)
        process.reap()
    if heard.initialized and heard.settings_applied:
        return ""
    said = (Path(request.run_directory) / "stderr.log").read_text(encoding="utf-8", errors="replace").strip()[-300:]
    if heard.initialized is False:
        return f"it refuses our hooks: {heard.complaint}"
    if ended:
        return f"it does not start with our arguments: {said or 'it says nothing'}"
    lacking = "it ignores our settings" if heard.initialized else "it does not answer"
    return f"{lacking} within {_SECONDS_MAX:.0f} seconds: {said or 'it says nothing'}"


def _listened(process: Process, heard: Heard) -> bool:
    """Listen until all is known, or nothing more can be; whether the program ended by itself before that."""
    process.say(initialization(Options()))
    tail, deadline = Tail(process.transcript), time.monotonic() + _SECONDS_MAX
    while time.monotonic() < deadline:
        exited = process.exited()
        for line in tail.lines():
            heard.hear(decoded(line))
        if exited or heard.initialized is False or (heard.initialized and heard.settings_applied):
            return exited
        process.rest(0.02)
    return False


def named(credentials: Mapping[str, str]) -> str:
    """Which credential the program would use, by name; "" for none."""
    order = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN")
    return next((name for name in order if credentials.get(name)), "")
