"""A supervisor killed by SIGKILL at every step it takes: whoever comes next brings the task to the same end."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordination.testing.account import acts, replayed, violations
from coordination.testing.stage import FILES, Late, Stage, passed, supervise_forked

LIVES = 12
ALONE = 24  # lives at most for cuts that were missed before
WARMER = FILES["greeter.py"].replace("Hello", "Good day")
LANDED = {"greeter.py": WARMER, "README.md": FILES["README.md"]}


GATE = """
import os, time
with open({told!r}, "a") as told:
    told.write(os.environ["COORDINATION_RUN"].rpartition("/")[2] + chr(10))
time.sleep(0.15)
"""
WORKS = {"write": {"greeter.py": WARMER}, "report": "warmer", "cost_usd": 0.01, "sleep_seconds": 0.3}


def stage_with_task(directory: Path, work: Mapping[str, Any] = WORKS) -> Stage:
    """One task that is worked on, gated, reviewed and landed by scripts; every act of a gate is written down."""
    gate = GATE.format(told=str(directory / "gates.txt"))
    settings = {
        "gates": {"default": ["unit"], "unit": [sys.executable, "-S", "-c", gate], "cache": False},
        "agents": {"backend": "scripted", "sandbox": "off"},  # it writes to a file of ours
        "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 1.0},
        "retry": {"backoff_seconds": 0.05},
    }
    stage = Stage(directory, settings=settings).build()
    review = {"verdict": "approve", "report": "fine", "sleep_seconds": 0.3}
    script = json.dumps({"by_purpose": {"work": work, "review": review}})
    stage.drop(id="T", review="always", prompt=f"Make it warmer.\n```script\n{script}\n```")
    return stage


Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of stages whose processes end with the test, however it ends."""
    with ExitStack() as stack:

        def made(work: Mapping[str, Any] = WORKS) -> Stage:
            stage = stage_with_task(tmp_path, work)
            stack.callback(stage.close)
            return stage

        yield made


def live(directory: Path, cuts: Sequence[str]) -> tuple[list[str], list[str]]:
    """One task's life under supervisors that are cut one after the other: (what is wrong, cuts not come to)."""
    stage = stage_with_task(directory)
    before = stage.users()
    try:
        missed = [cut for cut in cuts if supervise_forked(stage, cut) != -9]
        code = supervise_forked(stage, "")
        wrong = violations(stage, "T", LANDED)
    except Late as late:
        return [str(late)], []
    finally:
        stage.close()
    wrong += ["the user's part of the repository changed"] if stage.users() != before else []
    wrong += [f"the last supervisor exited {code}"] if code else []
    return wrong, missed


@pytest.mark.timeout(170)
def test_a_supervisor_killed_at_any_step_loses_doubles_and_forgets_nothing(tmp_path: Path) -> None:
    """Cut at every step of a task's whole life, it lands exactly once, and no run has two workers or two acts."""
    first = stage_with_task(tmp_path / "first")
    assert supervise_forked(first, "") == 0
    assert violations(first, "T", LANDED) == []
    cuts = passed(first)
    assert len(cuts) > 70

    def one(number: int, chosen: Sequence[str]) -> tuple[Sequence[str], list[str], list[str]]:
        directory = tmp_path / str(number)
        wrong, missed = live(directory, chosen)
        if not wrong:
            shutil.rmtree(directory)
        return chosen, wrong, missed

    lives = [cuts[number::LIVES] for number in range(LIVES)]
    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(one, range(LIVES), lives))
        left = [cut for _, _, missed in ended for cut in missed]
        # a life that was cut before, or a busy machine, may pass a step by: then one is cut there alone
        while left and len(ended) < LIVES + ALONE:
            first_number = len(ended)
            again = list(pool.map(one, range(first_number, first_number + len(left)), [[cut] for cut in left]))
            ended += again
            left = [cut for _, _, missed in again for cut in missed]
    found = {tuple(chosen): wrong for chosen, wrong, _ in ended if wrong}
    assert found == {}
    assert left == []


def test_a_supervisor_killed_over_a_dead_worker_counts_one_failure(make: Make) -> None:
    """The worker dies, and so do the supervisors that find it: one end, one failure, one new run that lands."""
    stage = make({"match": [{"contains": ["did not count"], "do": WORKS}], "do": {"exit": 9}})
    assert supervise_forked(stage, "spawn:after@RunPlanned:T.1.work") == -9
    stage.wait_for(lambda: died(stage, "T.1.work"), "death of the worker")
    cuts = (
        "reaped@RunPlanned:T.1.work",
        "RunStarted+RunEnded:before@RunPlanned:T.1.work",
        "RunStarted+RunEnded:after@RunEnded:T.1.work",
        "decided@RunPlanned:T.2.work",
    )
    assert [(cut, supervise_forked(stage, cut)) for cut in cuts] == [(cut, -9) for cut in cuts]
    assert supervise_forked(stage, "") == 0
    assert violations(stage, "T", LANDED) == []
    assert [event["outcome"]["code"] for event in stage.events("RunEnded", run="T.1.work")] == ["worker_died"]
    assert [event["reason"]["kind"] for event in stage.events("TaskRequeued")] == ["failure"]
    assert [event["run"] for event in stage.events("RunPlanned", purpose="work")] == ["T.1.work", "T.2.work"]


@pytest.mark.parametrize("step", ["stop:before", "stop:after"])
def test_a_supervisor_killed_while_it_stops_a_cancelled_run_leaves_it_to_the_next(make: Make, step: str) -> None:
    """Whoever comes next ends the run: stopped once, cancelled once, and nothing of it lives."""
    stage = make({"sleep_seconds": 60})
    supervisor = stage.start(cut=f"{step}@TaskCancelled:T")
    stage.wait_for_event("RunStarted", run="T.1.work")
    stage.coord("cancel", "T")
    assert supervisor.wait(20) == -9
    assert supervise_forked(stage, "") == 0
    assert [event["outcome"]["ending"] for event in stage.events("RunEnded")] == ["stopped"]
    assert len(stage.events("TaskCancelled")) == 1
    assert stage.processes_of_runs() == []
    assert list(replayed(stage)) == []


@pytest.mark.parametrize("step", ["stop:before", "stop:after"])
def test_a_supervisor_killed_while_it_stops_counts_no_failure(make: Make, step: str) -> None:
    """It was asked to stop, not the next one: that one goes on, and the task has used up no attempt."""
    stage = make({**WORKS, "sleep_seconds": 2.0})
    supervisor = stage.start(cut=f"{step}@RunStarted:T.1.work")
    stage.wait_for_event("RunStarted", run="T.1.work")
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == -9
    assert supervise_forked(stage, "") == 0
    assert violations(stage, "T", LANDED) == []
    assert {event["reason"]["kind"] for event in stage.events("TaskRequeued")} <= {"stopped"}
    assert stage.show("T")["attempts"] == 0


@pytest.mark.parametrize("cut", ["", "revoked@TaskCancelled:T"])
def test_a_run_that_never_began_is_given_up_once(make: Make, cut: str) -> None:
    """Planned, then cancelled while no supervisor runs: it is given up on disk, never begun, and ends as stopped."""
    stage = make()
    assert supervise_forked(stage, "decided@RunPlanned:T.1.work") == -9
    stage.coord("cancel", "T")
    assert not cut or supervise_forked(stage, cut) == -9
    assert supervise_forked(stage, "") == 0
    assert [event["outcome"]["code"] for event in stage.events("RunEnded")] == ["revoked"]
    assert stage.events("RunStarted") == []
    assert not (stage.state / "runs/T.1.work/worker.json").exists()
    assert list(replayed(stage)) == []


def died(stage: Stage, run: str) -> bool:
    """Whether the run's worker has begun and is gone."""
    directory = stage.state / "runs" / run
    return (directory / "worker.json").exists() and stage.worker(run) is None


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    stage = stage_with_task(tmp_path_factory.mktemp("landed"))
    assert supervise_forked(stage, "") == 0
    return stage


def test_a_history_without_faults_is_found_without_faults(landed: Stage) -> None:
    """The checker is silent on a clean history, in which every run acted once."""
    assert violations(landed, "T", LANDED) == []
    assert acts(landed, ["T.1.work"]) == {"T.1.work": 1, "T.2.gate": 1, "T.4.landing": 1}


def second_merge(stage: Stage) -> None:
    tree = stage.git("rev-parse", "coordination/integration^{tree}").strip()
    reviewed = stage.git("rev-parse", "coordination/integration^2").strip()
    again = stage.git("commit-tree", tree, "-p", "coordination/integration", "-p", reviewed, "-m", "again").strip()
    stage.git("update-ref", "refs/heads/coordination/integration", again)


def second_act(stage: Stage) -> None:
    transcript = stage.state / "runs/T.1.work/transcript.jsonl"
    transcript.write_text(transcript.read_text() * 2)


def second_gate(stage: Stage) -> None:
    told = stage.directory / "gates.txt"
    told.write_text(told.read_text() + "T.2.gate\n")


def other_worker(stage: Stage) -> None:
    worker = stage.state / "runs/T.3.review/worker.json"
    worker.write_text(json.dumps({**json.loads(worker.read_text()), "pid": 1}))


def lost_receipt(stage: Stage) -> None:
    next((stage.state / "inbox/accepted").iterdir()).unlink()


def wrong_digest(stage: Stage) -> None:
    note = stage.state / "supervisor.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "digest": "0" * 64}))


def edited_line(stage: Stage) -> None:
    segment = next((stage.state / "log").glob("*.jsonl"))
    header, *lines = segment.read_text().splitlines()
    doubled = next(line for line in lines if "RunStarted" in line)
    segment.write_text("\n".join([header, *lines, doubled, ""]))


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        (second_merge, "merges of the reviewed commit"),
        (second_act, "T.1.work acted 2 times"),
        (second_gate, "T.2.gate acted 2 times"),
        (other_worker, "T.3.review: the log has worker"),
        (lost_receipt, "receipts []"),
        (wrong_digest, "the log replays to"),
    ],
)
def test_a_planted_fault_is_found(landed: Stage, tmp_path: Path, plant: Any, complaint: str) -> None:
    """The checker sees what it is there for."""
    stage = copied(landed, tmp_path)
    plant(stage)
    found = violations(stage, "T", LANDED)
    assert any(complaint in sentence for sentence in found), found


def test_a_run_that_the_log_says_started_twice_is_found(landed: Stage, tmp_path: Path) -> None:
    """A doubled line counts, whatever the package's own reading would say of it."""
    stage = copied(landed, tmp_path)
    edited_line(stage)
    started = [event["run"] for event in stage.events("RunStarted")]
    assert started.count("T.1.work") == 2


def copied(stage: Stage, directory: Path) -> Stage:
    """The same history elsewhere, to be spoiled."""
    shutil.copytree(stage.directory, directory / "copy", symlinks=True)
    copy = Stage(directory / "copy", settings=stage.settings)
    note = copy.state / "repository.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "common": str(copy.repository / ".git")}))
    return copy
