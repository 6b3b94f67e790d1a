"""How is the program's process held: started, spoken to, waited for, signalled, reaped?"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordination import files
from coordination.model.runs import AgentRequest

JSON = Any


class Process:
    """The program's process: it leads a session of its own, reads from a pipe that never blocks us."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], request: AgentRequest) -> None:
        """Start it. Raises OSError."""
        directory = Path(request.run_directory)
        self.transcript = _opened(directory / "transcript.jsonl", os.O_RDONLY | os.O_CREAT, "rb")
        # an earlier try's lines stay as evidence; only what comes after them is ours
        self.transcript.seek(0, os.SEEK_END)
        try:
            files.sync_directory(directory)  # from now on there may be something to pay for
            self._child = self._spawned(arguments, environment, request)
        except OSError:
            self.transcript.close()
            raise
        assert self._child.stdin is not None
        self._stdin = self._child.stdin
        os.set_blocking(self._stdin.fileno(), False)
        self._exit = os.pidfd_open(self._child.pid) if hasattr(os, "pidfd_open") else -1
        self._unsaid = b""
        self._closing = False

    def say(self, message: Mapping[str, JSON]) -> None:
        """Queue a message; it is written as fast as it is read."""
        if not self._closing:
            self._unsaid += json.dumps(message).encode() + b"\n"
            self._write()

    def say_no_more(self) -> None:
        """Close stdin once everything queued is written."""
        self._closing = True
        self._write()

    def rest(self, seconds: float) -> None:
        """Wait, at most until it exits or reads on."""
        exits = [self._exit] if self._exit >= 0 else []
        reads = [self._stdin] if self._unsaid and not self._stdin.closed else []
        select.select(exits, reads, [], seconds)
        self._write()

    def exited(self) -> bool:
        """Whether it is over; it is not reaped yet, so its id is still its own."""
        if not hasattr(os, "waitid"):
            return self._child.poll() is not None
        if self._child.returncode is not None:
            return True
        return os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def ask(self, number: int) -> None:
        """Signal the program alone: it ends its own children."""
        if not self.exited():
            os.kill(self._child.pid, number)

    def kill(self) -> None:
        """Kill its whole group, if any of it is left."""
        if self._child.returncode is None:
            try:
                os.killpg(self._child.pid, signal.SIGKILL)
            except ProcessLookupError:
                return
            except PermissionError:  # macOS says so of a group of zombies
                return

    def reap(self) -> int:
        """Kill what is left of the group, wait, close everything; return the exit code, negative for a signal."""
        self.kill()
        code = self._child.wait()
        self._unsaid = b""
        self._close_stdin()
        if self._exit >= 0:
            os.close(self._exit)
            self._exit = -1
        return code

    def _spawned(
        self, arguments: Sequence[str], environment: Mapping[str, str], request: AgentRequest
    ) -> subprocess.Popen[bytes]:
        directory = Path(request.run_directory)
        with (
            _opened(directory / "transcript.jsonl", os.O_WRONLY | os.O_APPEND, "ab") as output,
            _opened(directory / "stderr.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab") as errors,
        ):
            return subprocess.Popen(
                list(arguments),
                cwd=request.directory,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def _write(self) -> None:
        try:
            while self._unsaid and not self._stdin.closed:
                self._unsaid = self._unsaid[os.write(self._stdin.fileno(), self._unsaid) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._unsaid = b""
        if self._closing:
            self._close_stdin()

    def _close_stdin(self) -> None:
        if not self._stdin.closed:
            self._stdin.close()


def lacks_of_memory() -> int:
    """How often the system has killed for want of memory since it started; 0 where it does not say (proc_vmstat(5))."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(count) for name, _, count in (line.partition(" ") for line in lines) if name == "oom_kill"), 0)


def _opened(path: Path, flags: int, mode: str) -> Any:
    return os.fdopen(os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), mode)
