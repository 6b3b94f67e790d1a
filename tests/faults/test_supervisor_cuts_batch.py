"""Several tasks land together, and supervisors and workers die over it: each lands once, and the bad one comes back."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordination.testing.account import Demand, doubled, left_behind, lost, replayed
from coordination.testing.stage import FILES, Late, Stage, passed, supervise_forked

LIVES = 3
ALONE = 12  # lives at most for cuts that were missed before
APPROVED = "@TaskApproved:last"
TASKS = ("one", "two", "three", "four")
INTEGRATION = "coordination/integration"

# Waits, before the tasks are approved, until it may go; fails when three is bad and two is there.
GATE = """
import os, pathlib, signal, sys, time
run = os.environ["COORDINATION_RUN"].rpartition("/")[2]
while run.endswith(".gate") and not pathlib.Path({go!r}).exists():
    time.sleep(0.02)
three = pathlib.Path("three.py")
print("saw", sorted(os.listdir()))
told = pathlib.Path({told!r})
if run.endswith(".landing") and {kills!r} and pathlib.Path("four.py").exists() and not three.exists():
    if not told.exists():
        told.write_text("killed")
        os.kill(os.getppid(), signal.SIGKILL)
sys.exit(three.exists() and "bad" in three.read_text() and pathlib.Path("two.py").exists())
"""


def stage_with_four(directory: Path, *, kills: bool = False) -> Stage:
    """Four tasks that are approved and may land; the third fits the second only when it is done again."""
    go, told = directory / "go", directory / "told"
    gate = GATE.format(go=str(go), told=str(told), kills=kills)
    settings = {
        "gate_slots": 4,
        # it looks at a file outside, and counts as run each time
        "gates": {"default": ["unit"], "unit": [sys.executable, "-S", "-c", gate], "cache": False},
        "agents": {"backend": "scripted", "sandbox": "off"},
        "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 1.0},
        "retry": {"backoff_seconds": 0.05},
        "roles.green": {"slots": 4},
    }
    stage = Stage(directory, settings=settings).build()
    try:
        _approved(stage, go)
    except BaseException:
        stage.close()
        raise
    return stage


def _approved(stage: Stage, go: Path) -> None:
    for task in TASKS:
        again = {"write": {f"{task}.py": "good = 1\n"}, "report": "it fits now"}
        work: Any = {"write": {f"{task}.py": "bad = 1\n" if task == "three" else "x = 1\n"}, "report": "written"}
        script = json.dumps(
            {"by_purpose": {"work": {"match": [{"contains": ["could not be landed"], "do": again}], "do": work}}}
        )
        stage.drop(id=task, review="never", prompt=f"Write it.\n```script\n{script}\n```")
    supervisor = stage.start()
    stage.wait_for(lambda: len(stage.events("RunStarted")) == 2 * len(TASKS), "gates that wait")
    stage.coord("pause")
    go.touch()
    stage.wait_for(lambda: len(stage.events("TaskApproved")) == len(TASKS), "approvals")
    stage.coord("stop")
    assert supervisor.wait(20) == 0
    stage.coord("resume")


def wrong(stage: Stage) -> list[str]:
    """What was lost, doubled or left behind."""
    content = {task: {f"{task}.py": "good = 1\n" if task == "three" else "x = 1\n"} for task in TASKS}
    demands = [Demand(task=task, content={**content[task], "README.md": FILES["README.md"]}) for task in TASKS]
    found = [*lost(stage, demands), *doubled(stage), *left_behind(stage), *replayed(stage)]
    back = [(event["task"], event["reason"]["kind"]) for event in stage.events("TaskRequeued")]
    return found + ([f"came back: {back}"] if back != [("three", "conflict")] else [])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """A maker of stages whose processes end with the test, however it ends."""
    with ExitStack() as stack:

        def made(**options: Any) -> Stage:
            stage = stage_with_four(tmp_path, **options)
            stack.callback(stage.close)
            return stage

        yield made


def test_four_land_together_and_the_third_comes_back_with_the_output(make: Callable[..., Stage]) -> None:
    """One run lands one, two and four; three comes back with what the gate printed, is done again and lands."""
    stage = make()
    stage.run()
    assert wrong(stage) == []
    first = stage.events("RunPlanned", purpose="landing")[0]
    assert [member["task"] for member in first["batch"]] == ["two", "three", "four"]
    merged = {event["task"]: event["seq"] for event in stage.events("TaskMerged")}
    assert merged["one"] == merged["two"] == merged["four"] < merged["three"]
    (back,) = stage.events("TaskRequeued")
    assert "with one, two: gate 'unit' exited 1" in back["reason"]["message"]
    assert "'three.py', 'two.py'" in back["reason"]["message"]
    again = stage.events("RunPlanned", purpose="work", task="three")[-1]
    assert again["bring_in"] == stage.events("TaskMerged", task="four")[0]["merge"]
    assert len(stage.events("RunPlanned", purpose="landing")) == 2
    task = stage.show("three")
    assert (task["attempts"], task["rounds"], task["returns"]) == (0, 0, 1)
    for name in ("one", "two", "four"):
        task = stage.show(name)
        assert (task["attempts"], task["rounds"], task["returns"]) == (0, 0, 0)
        trailers = stage.git("log", "-1", "--format=%(trailers)", task["merge"])
        assert f"Coordination-Task: {name}\n" in trailers
        assert f"Coordination-Reviewed: {task['commit']}\n" in trailers
        assert "Coordination-Gates: unit=passed" in trailers


def test_a_worker_killed_between_two_moves_of_the_branch_loses_and_doubles_nothing(make: Callable[..., Stage]) -> None:
    """Its gate kills it when one and two are on the branch and four is tested: whoever lands next finds them there."""
    stage = make(kills=True)
    stage.run()
    assert (stage.directory / "told").exists()
    codes = [event["outcome"].get("code") for event in stage.events("RunEnded") if event["run"].endswith(".landing")]
    assert codes[0] == "worker_died"
    assert wrong(stage) == []


def test_a_merge_of_another_one_is_not_credited_to_a_member(make: Callable[..., Stage]) -> None:
    """The outcome names four's merge as two's: it is on the branch, but took in something else. Two is found later."""
    stage = make()
    assert supervise_forked(stage, "spawn:after@RunPlanned:one.3.landing") == -9
    outcome = stage.state / "runs/one.3.landing/outcome.json"
    stage.wait_for(outcome.exists, "outcome")
    stage.wait_for(lambda: stage.worker("one.3.landing") is None, "end of the worker")
    claim = json.loads(outcome.read_text())
    two, _, four = claim["outcome"]["batch"]
    assert (two["task"], four["task"]) == ("two", "four")
    right, two["merge"] = two["merge"], four["merge"]
    outcome.write_text(json.dumps(claim))
    stage.run()
    merged = {event["task"]: event for event in stage.events("TaskMerged")}
    assert merged["two"]["merge"] == right
    assert merged["two"]["seq"] > merged["four"]["seq"]
    assert wrong(stage) == []


def live(directory: Path, cuts: Sequence[str]) -> tuple[list[str], list[str]]:
    """One life under supervisors that are cut one after the other: (what is wrong, cuts not come to)."""
    stage = stage_with_four(directory)
    approved = f"@TaskApproved:{stage.events('TaskApproved')[-1]['task']}"  # which of them is the last differs
    cuts = [cut.replace(APPROVED, approved) for cut in cuts]
    try:
        missed = [cut for cut in cuts if supervise_forked(stage, cut) != -9]
        code = supervise_forked(stage, "")
        found = wrong(stage)
    except Late as late:
        return [str(late)], []
    finally:
        stage.close()
    return found + ([f"the last supervisor exited {code}"] if code else []), missed


@pytest.mark.timeout(170)
def test_a_supervisor_killed_at_any_step_of_a_landing_of_several(
    tmp_path: Path, tier: int, figure: Callable[..., None]
) -> None:
    """Cut at every step from the plan to the last of them being merged: once each, and nothing forgotten."""
    first = stage_with_four(tmp_path / "first")
    assert supervise_forked(first, "") == 0
    assert wrong(first) == []
    cuts = passed(first)
    begin = next(number for number, cut in enumerate(cuts) if "@RunPlanned:one" in cut)
    cuts = [re.sub("@TaskApproved:.*", APPROVED, cut) for cut in cuts[:begin]] + list(cuts[begin:])
    if tier == 1:  # what comes before and after are steps of one task, at which others are cut
        end = next(number for number, cut in enumerate(cuts) if "@RunPlanned:three" in cut)
        cuts = cuts[begin:end]
    assert len(cuts) > 10

    def one(number: int, chosen: Sequence[str]) -> tuple[Sequence[str], list[str], list[str]]:
        directory = tmp_path / str(number)
        found, missed = live(directory, chosen)
        if not found:
            shutil.rmtree(directory)
        return chosen, found, missed

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(one, range(LIVES), [cuts[number::LIVES] for number in range(LIVES)]))
        left = [cut for _, _, missed in ended for cut in missed]
        while left and len(ended) < LIVES + ALONE:
            begin = len(ended)
            again = list(pool.map(one, range(begin, begin + len(left)), [[cut] for cut in left]))
            ended += again
            left = [cut for _, _, missed in again for cut in missed]
    figure("landing", "steps of a landing of several at which its supervisor was killed", len(cuts))
    assert {tuple(chosen): found for chosen, found, _ in ended if found} == {}
    assert left == []
