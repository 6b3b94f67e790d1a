"""How much processor time does the coordinator add to a run of the real Claude Code?

One task: a question that the scripted model answers with one sentence. Counted is what the supervisor's process takes
(all its threads) from before it prepares the run until the outcome is durable, and the whole life of the worker's
process. Not counted: git, which both call (worktrees, looking up commits), and the program itself; they are processes
of their own. Measured against that is the program's own processor time, with all that it starts: the very same request,
once more, in a process that runs nothing else. The two take turns.

The supervisor is the real loop in a process of its own; it tells the steps it comes to (its ``mark``), and there its
clock is read, and its child's: between the worker's end and the moment when it is waited for, both are still to be had.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from coordination import environment, files, kin
from coordination.agents import create
from coordination.coordinator import Coordinator, locate
from coordination.model.runs import AgentRequest, Ending, RunRequest
from coordination.rehearsal.model_server import ModelServer
from coordination.supervisor import Supervisor
from coordination.testing.stage import Stage, with_claude
from tests.benchmarks import starts
from tests.benchmarks.measuring import in_child

RUNS = 3
_SCRIPTS = {"s": [[{"type": "text", "text": "It says hello."}]]}
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat behind the command's name, in ticks


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Seconds of processor time of one run."""

    supervisor: float = 0.0
    worker: float = 0.0
    program: float = 0.0  # the same request, alone


def missing() -> str:
    """Why it cannot be measured here; "" when it can."""
    return starts.missing() if sys.platform.startswith("linux") else "processes are looked at through Linux's /proc"


def measure(directory: Path, runs: int = RUNS) -> list[Spent]:
    """So many runs, each followed by its request alone. Raises RuntimeError when one does not succeed."""
    with ModelServer(_SCRIPTS) as server, tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name:
        stage = with_claude(Stage(Path(name), url=server.url)).build()
        return [_measured(stage, f"T{number}") for number in range(runs)]


def _measured(stage: Stage, task: str) -> Spent:
    stage.drop(id=task, kind="search", prompt="[[script s]]\nWhat does it say?")
    spent = in_child(lambda: _supervised(stage.repository, stage.environment))
    if not stage.events("TaskDone", task=task):
        raise RuntimeError(f"expected {task} to be done, found {stage.events('RunEnded', task=task)}")
    return replace(spent, program=in_child(lambda: _alone(stage, f"{task}.1.work")))


# ---- in a process of its own -----------------------------------------------------------------------------------------


def _supervised(repository: Path, variables: Mapping[str, str]) -> Spent:
    os.environ.clear()
    os.environ.update(variables)
    kin.adopt_orphans()
    meter = _Meter()
    Supervisor(Coordinator(locate(repository)), once=True, mark=meter).run()
    return Spent(supervisor=meter.supervisor, worker=meter.worker)


class _Meter:
    """The ``mark`` of a supervisor that has one run at a time."""

    def __init__(self) -> None:
        self.supervisor = self.worker = self._began = 0.0

    def __call__(self, step: str) -> None:
        if step == "request:before":
            self._began = time.process_time()
        elif step.endswith("RunEnded:before"):
            self.worker += sum(_seconds(child) for child in kin.children())
        elif step.endswith("RunEnded:after"):
            self.supervisor += time.process_time() - self._began


def _seconds(child: int) -> float:
    """What a child took itself, once it has ended; it can still be waited for after this."""
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    fields = Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    ticks = (int(fields[_USER]) + int(fields[_SYSTEM])) / os.sysconf("SC_CLK_TCK")
    # ticks are rounded down; this is not, but knows the first thread only (a worker has others for moments)
    precise = 0.0
    with contextlib.suppress(OSError):
        precise = int(Path(f"/proc/{child}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
    return max(ticks, precise)


def _alone(stage: Stage, run: str) -> float:
    before = _of_children()
    asked = _again(stage, run)
    outcome = create(asked.backend, asked.options).run(asked, progress=lambda _: None, stopping=lambda: "")
    if outcome.ending is not Ending.SUCCEEDED:
        raise RuntimeError(f"expected a run that succeeds, found {outcome}")
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _again(stage: Stage, run: str) -> AgentRequest:
    """The run's request in directories of its own, in an environment like that of the run."""
    asked = msgspec.json.decode(files.read(stage.state / "runs" / run / "request.json"), type=RunRequest).agent
    assert asked is not None
    place = stage.directory / "alone" / run
    for name in ("home", "tmp", "workspace", "run", "config"):
        (place / name).mkdir(parents=True)
    variables = environment.build(
        stage.environment, (), home=str(place / "home"), scratch=str(place / "tmp"), marker=f"alone/{run}"
    )
    return msgspec.structs.replace(
        asked,
        session=str(uuid.uuid4()),
        directory=str(place / "workspace"),
        run_directory=str(place / "run"),
        config_directory=str(place / "config"),
        environment=variables,
    )
