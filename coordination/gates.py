"""Does the commit pass? Runs one configured command on a clean checkout and keeps what it printed.

A gate that fails is run again, from a clean checkout: if it passes then, it has passed, and says that it was flaky and
what it printed when it failed. A gate that passed at the first try is remembered by the files it passed on and by what
exactly was run; the same on the same files is not run again. Failures and flaky passes are never remembered.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from coordination import files
from coordination.model.runs import GateCommand, GateResult, GateTry, Value
from coordination.sandbox import NOT_RUNNABLE, OUTPUT_MAX, PLAIN, TIMED_OUT, Ended, Walls
from coordination.sandbox import run as run_command

__all__ = ["NOT_RUNNABLE", "OUTPUT_MAX", "TIMED_OUT", "Passes", "judge", "run"]

PASSES_MAX = 1000
PASS_SECONDS_MAX = 7 * 24 * 3600.0  # the programs of the machine change, and no key knows them all
_PASS_BYTES_MAX = 256 * 1024


def run(
    gate: GateCommand,
    *,
    commit: str,
    directory: Path,
    log: Path,
    environment: Mapping[str, str],
    walls: Walls = PLAIN,
    temporary: Path | None = None,
) -> GateResult:
    """Run the gate's argv once in ``directory``; see ``sandbox.run``."""
    ended = run_command(
        gate.argv,
        name=f"gate {gate.name!r}",
        directory=directory,
        log=log,
        environment=environment,
        timeout_seconds=gate.timeout_seconds,
        walls=walls,
        temporary=temporary,
    )
    return _result(gate, commit, ended)


def judge(gate: GateCommand, attempt: Callable[[], GateResult], *, again: Callable[[], bool]) -> GateResult:
    """The result of a gate that may be run again when it fails, as long as ``again`` allows it.

    A command that cannot be started is not tried again: it will not be there the next time either.
    """
    failures: list[GateTry] = []
    while True:
        result = attempt()
        if result.passed or len(failures) >= gate.reruns or result.exit_code == NOT_RUNNABLE or not again():
            return replace(result, failures=tuple(failures), flaky=result.passed and bool(failures))
        failures.append(GateTry(exit_code=result.exit_code, seconds=result.seconds, output=result.output))


class _Pass(Value, frozen=True, kw_only=True):
    """What a file of the cache says: a gate passed at the first try."""

    key: str
    gate: str
    tree: str
    commit: str
    run: str
    at: float
    seconds: float = 0.0
    output: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """The gates that passed, one small file each, below a directory that no command of a run can write to.

    All of it may vanish or rot at any time: what cannot be read, or is not what its name says, is not there.
    """

    directory: Path

    def find(self, key: str, gate: str, tree: str, commit: str) -> GateResult | None:
        """The result for this commit of a gate that passed before on the same files."""
        kept = self._read(key)
        if kept is None or (kept.key, kept.gate, kept.tree) != (key, gate, tree):
            return None
        if not 0 <= time.time() - kept.at < PASS_SECONDS_MAX:
            return None
        return GateResult(gate=gate, commit=commit, exit_code=0, output=kept.output, cached=kept.run)

    def note(self, key: str, tree: str, run: str, result: GateResult) -> None:
        """Remember a clean pass; forget what was remembered when it is anything else."""
        path = self._path(key)
        with contextlib.suppress(OSError):  # only time would be saved
            if not result.passed or result.flaky:
                files.discard(path)
                return
            files.make_directory(self.directory)
            kept = _Pass(
                key=key,
                gate=result.gate,
                tree=tree,
                commit=result.commit,
                run=run,
                at=time.time(),
                seconds=result.seconds,
                output=result.output,
            )
            files.publish(path, msgspec.json.encode(kept))
            self._bound()

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}.json"

    def _read(self, key: str) -> _Pass | None:
        try:
            status = self._path(key).lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_size > _PASS_BYTES_MAX:
                return None
            return msgspec.json.decode(files.read(self._path(key)), type=_Pass)
        except (OSError, msgspec.MsgspecError, ValueError):
            return None

    def _bound(self) -> None:
        """Remove the oldest of too many."""
        found = [entry for entry in os.scandir(self.directory) if entry.name.endswith(".json")]
        if len(found) <= PASSES_MAX:
            return
        for entry in sorted(found, key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)[:-PASSES_MAX]:
            Path(entry.path).unlink(missing_ok=True)


def key(gate: GateCommand, *, tree: str, environment: Mapping[str, str], sandboxed: bool, set_up: str) -> str:
    """Names what exactly was run on which files: the same name, the same result. ``set_up`` digests what was before."""
    import hashlib  # OpenSSL comes with it, and most runs judge nothing

    told = {
        "gate": gate.name,
        "argv": gate.argv,
        "network": gate.network,
        "tree": tree,
        "environment": dict(environment),
        "sandboxed": sandboxed,
        "set_up": set_up,
    }
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()


def _result(gate: GateCommand, commit: str, ended: Ended) -> GateResult:
    return GateResult(gate=gate.name, commit=commit, exit_code=ended.code, seconds=ended.seconds, output=ended.output)
