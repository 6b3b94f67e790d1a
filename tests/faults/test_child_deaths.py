"""Children that die in every way: a few new tries, then the task has failed and says so, and nothing is left of them.

The supervisor, the workers and git are real; the program that a worker drives is one that dies as its task's name
says, takes the worker along, or leaves others behind. What is left is looked for by descent, not by any mark.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from coordination.testing.account import Demand, doubled, left_behind, lost, stands
from coordination.testing.remains import Family, descriptors, leaked, zombies
from coordination.testing.stage import Stage

JSON = Any

ATTEMPTS = 3  # the default
RESTARTS_MAX = 3
SECONDS = {1: 0.0, 2: 270.0}  # how long one round after the other is begun

# What stands for Claude Code. Its run's name says how it ends: "agent-SEGV-0.2.work" by that signal.
PROGRAM = """#!/bin/sh
run=${COORDINATION_RUN##*/}
signal=${run#*-}; signal=${signal%%-*}
lives() { setsid sleep 86331 </dev/null >/dev/null 2>&1 & env -i setsid sleep 86331 </dev/null >/dev/null 2>&1 & }
case $run in
exit-*) exit "$signal" ;;
agent-*) kill -s "$signal" $$ ;;
worker-*) kill -s "$signal" $PPID ;;
leaves-*) lives; kill -s "$signal" $$ ;;
flees-*) lives; kill -s "$signal" $PPID ;;
esac
exec sleep 86331
"""

# Kills the worker that asks for the tree of its agent's work: the agent has ended, the outcome is not written.
GIT = """#!/bin/sh
case " $* " in
*" write-tree "*)
  run=$(tr '\\0' '\\n' </proc/$PPID/environ | sed -n 's,^COORDINATION_RUN=.*/,,p')
  case $run in late-*) grep -q '"phase":"commit"' {runs}/$run/progress.json && kill -s KILL $PPID ;; esac
esac
exec {git} "$@"
"""

PUPPET = """---
name: puppet
description: Does what a script says.
writes: true
slots: 4
backend: scripted
---
Do what the script says.
"""

PLAYED: Mapping[str, JSON] = {
    "late": {"write": {"done.txt": "done"}, "report": "done"},
    "played-0": {"write": {"half.txt": "half"}, "exit": 0},
    "played-7": {"exit": 7},
}
DIES = (
    *("exit-0", "exit-1", "exit-127"),
    *(f"agent-{name}" for name in ("KILL", "SEGV", "ABRT", "TERM", "HUP")),
    *(f"worker-{name}" for name in ("KILL", "SEGV", "ABRT", "TERM", "HUP")),
    *("leaves-KILL", "leaves-TERM", "flees-KILL", "flees-SEGV"),
    "unborn",
)
KINDS = (*DIES, *PLAYED)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """A stage on which everything dies."""
    made: list[Stage] = []

    def one(**limits: JSON) -> Stage:
        settings = {
            "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.3},
            "retry": {"backoff_seconds": 0.02},
            "roles.green": {"slots": 6},
            "limits": limits,
        }
        stage = Stage(tmp_path, settings=settings).build()
        made.append(stage)
        programs = tmp_path / "programs"
        git = shutil.which("git")
        for name, text in (("claude", PROGRAM), ("git", GIT.format(runs=stage.state / "runs", git=git))):
            programs.mkdir(exist_ok=True)
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        stage.environment["PATH"] = f"{programs}:{stage.environment['PATH']}"
        (stage.state / "roles/puppet").mkdir()
        (stage.state / "roles/puppet/ROLE.md").write_text(PUPPET)
        return stage

    yield one
    for stage in made:
        stage.close()


def drop(stage: Stage, kind: str, number: int) -> str:
    """A task whose every run dies in that way; its name."""
    task = f"{kind}-{number}"
    script = f"\n```script\n{json.dumps(PLAYED[kind])}\n```" if kind in PLAYED else ""
    if kind == "unborn":
        for turn in range(1, 12):  # a worker that cannot read what it is asked dies before it has begun
            directory = stage.state / "runs" / f"{task}.{turn}.work"
            directory.mkdir()
            (directory / "request.json").write_text("{")
    role = "puppet" if kind in PLAYED else "green"
    stage.drop(id=task, review="never", role=role, prompt=f"Do it.{script}")
    return task


def all_over(stage: Stage, tasks: Sequence[str]) -> Callable[[], bool]:
    """Whether none of them will be tried again."""

    def asked() -> bool:
        where = stands(stage.events())
        return all(where.get(task) in ("failed", "waiting_for_person", "merged") for task in tasks)

    return asked


@pytest.mark.timeout(600)
def test_whatever_dies_is_tried_again_a_few_times_and_leaves_nothing(
    make: Callable[..., Stage], tier: int, figure: Callable[..., None]
) -> None:
    """Three deaths and the task has failed; no process, dead child, descriptor or second end is left by any."""
    stage = make()
    with Family(lambda: [process.pid for process in stage.processes]) as family:
        supervisor = stage.start()
        tasks = [drop(stage, kind, 0) for kind in ("agent-KILL", "late")]  # one of each backend, to come to rest
        stage.wait_for(all_over(stage, tasks), "end of the first")
        at_rest = descriptors(supervisor.pid)
        until = time.monotonic() + SECONDS[tier]
        for number in range(1, 1000):
            fresh = [drop(stage, kind, number) for kind in KINDS]
            tasks += fresh
            stage.wait_for(all_over(stage, fresh), "end of all", 120.0)
            if time.monotonic() >= until:
                break
        wrong = [
            *leaked(at_rest, descriptors(supervisor.pid)),
            *zombies(supervisor.pid),
            *(f"process {number} of a run" for number in stage.processes_of_runs()),
        ]
        assert supervisor.poll() is None, stage.said()
        stage.coord("stop")
        assert supervisor.wait(20) == 0
        wrong += family.left()
    wrong += [*lost(stage, [Demand(task=task, ends=frozenset({"failed"})) for task in tasks])]
    wrong += [*doubled(stage), *left_behind(stage)]

    planned = Counter(event["task"] for event in stage.events("RunPlanned"))
    wrong += [f"{task} was begun {planned[task]} times" for task in tasks if planned[task] != ATTEMPTS]
    told = Counter(event["task"] for event in stage.events("TaskFailed"))
    wrong += [f"{task}: TaskFailed {told[task]} times" for task in tasks if told[task] != 1]
    ended = stage.events("RunEnded")
    wrong += [
        f"{event['run']} {event['outcome']['ending']}" for event in ended if event["outcome"]["ending"] != "crashed"
    ]
    codes = Counter(event["outcome"]["code"] for event in ended)
    note = ", ".join(f"{code} {count}" for code, count in sorted(codes.items()))
    figure("G12", f"deaths of children, in {len(KINDS)} ways", len(ended), violations=len(wrong), note=note)
    assert wrong == []
    assert len(ended) >= 50


def test_a_crash_is_tried_again_three_times_however_many_attempts_there_are(make: Callable[..., Stage]) -> None:
    """Somebody who allows ten attempts does not want a worker that always dies to be begun ten times in a row."""
    stage = make(attempts_max=10)
    tasks = [drop(stage, kind, 0) for kind in ("worker-KILL", "worker-TERM", "agent-SEGV", "exit-1", "unborn", "late")]
    stage.run(code=1)
    planned = Counter(event["task"] for event in stage.events("RunPlanned"))
    assert {task: planned[task] for task in tasks if planned[task] > 1 + RESTARTS_MAX} == {}
    assert {stands(stage.events())[task] for task in tasks} == {"failed"}
