"""Does the commit pass? Runs one configured command on a clean checkout and keeps what it printed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from coordination.env import private
from coordination.model.runs import GateCommand, GateResult

OUTPUT_MAX = 16 * 1024
TIMED_OUT = 124  # as timeout(1) has it
NOT_RUNNABLE = 127  # as the shell has it


def run(gate: GateCommand, *, commit: str, directory: Path, log: Path, environment: Mapping[str, str]) -> GateResult:
    """Run the gate's argv in ``directory``, never through a shell; its output goes to the file ``log``.

    A command that cannot be started counts as exit code 127, one that outlives its timeout as 124; both kill
    nothing but the process group we started.
    """
    began = time.monotonic()
    with open(log, "ab", opener=private) as output:
        start = output.tell()
        try:
            process = subprocess.Popen(
                list(gate.argv),
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"gate {gate.name!r} cannot be started: {error}\n".encode())
            output.flush()
            return _result(gate, commit, NOT_RUNNABLE, began, log, start)
        code = _wait(process, gate.timeout_seconds, log)
    return _result(gate, commit, code, began, log, start)


def _wait(process: subprocess.Popen[bytes], timeout_seconds: float, log: Path) -> int:
    try:
        code = process.wait(timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        process.wait()
        with log.open("ab") as output:
            output.write(f"\n(killed after {timeout_seconds:g} s)\n".encode())
        return TIMED_OUT
    # What it left running in its group would hold the checkout open.
    _kill_group(process.pid)
    return 128 - code if code < 0 else code


def _kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _result(gate: GateCommand, commit: str, code: int, began: float, log: Path, start: int) -> GateResult:
    with log.open("rb") as written:
        size = written.seek(0, os.SEEK_END)
        written.seek(max(start, size - OUTPUT_MAX))
        tail = written.read(OUTPUT_MAX)
    text = tail.decode("utf-8", "replace")
    return GateResult(
        gate=gate.name, commit=commit, exit_code=code, seconds=round(time.monotonic() - began, 3), output=text
    )
