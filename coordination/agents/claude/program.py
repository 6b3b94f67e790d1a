"""Where is the Claude Code program, and can its sandbox work here?"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from coordination.errors import Unsuitable


def find_binary(option: str, path: str) -> str:
    """Find the program: as configured, else on ``path``, else the one bundled with the agent SDK.

    Raises Unsuitable when it is nowhere, or when the configured one cannot be executed.
    """
    if option:
        configured = shutil.which(option, path=path)
        if configured is None:
            raise Unsuitable(f"the configured Claude Code program {option!r} is not there or not executable")
        return str(Path(configured).absolute())
    found = shutil.which("claude", path=path) or _bundled()
    if not found:
        raise Unsuitable(
            f"no Claude Code program: expected 'claude' on PATH ({path or 'empty'}) or the package claude-agent-sdk "
            "installed; set COORDINATION_CLAUDE to the program's path"
        )
    return found


def _bundled() -> str:
    spec = importlib.util.find_spec("claude_agent_sdk")  # finds without importing: the import costs a second
    if spec is None or spec.origin is None:
        return ""
    binary = Path(spec.origin).parent / "_bundled" / "claude"
    return str(binary) if os.access(binary, os.X_OK) else ""


@functools.cache
def sandbox_works(path: str) -> bool:
    """Whether the program's sandbox can work here: its tools are there, and namespaces are allowed to us."""
    if sys.platform == "darwin":
        return shutil.which("sandbox-exec", path=path) is not None
    bwrap = shutil.which("bwrap", path=path)
    true = shutil.which("true", path=path)
    if bwrap is None or true is None or shutil.which("socat", path=path) is None:
        return False
    probe = [bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--unshare-pid", "--unshare-net", true]
    try:
        return subprocess.run(probe, env={}, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
