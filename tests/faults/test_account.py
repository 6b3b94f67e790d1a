"""Can the checker of many tasks fail? Each thing it looks for is planted once, and found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.environment import MARKER
from coordination.testing.account import Demand, doubled, left_behind, lost, overspent
from coordination.testing.remains import Family, descriptors, leaked, zombies
from coordination.testing.stage import PASSES, Stage

INTEGRATION = "coordination/integration"
CAP_USD, RESPONSE_USD = 3.0, 0.5
DEMANDS = [
    *(Demand(task=name, content={f"{name}.txt": f"{name}\n"}) for name in ("A", "B")),
    Demand(task="C", ends=frozenset({"failed"})),
]
Plant = Callable[[Stage], None]


def checked(stage: Stage) -> list[str]:
    """Everything that is asked of many tasks."""
    return [
        *lost(stage, DEMANDS),
        *doubled(stage),
        *overspent(stage, CAP_USD, RESPONSE_USD),
        *left_behind(stage),
    ]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two tasks that landed and one that failed, as it was to; all of them cost something."""
    settings = {
        "gates": {"default": ["unit"], "unit": list(PASSES)},
        "agents": {"backend": "scripted"},
        "supervisor": {"poll_seconds": 0.05},
        "limits": {"budget_usd": 0.5},
        "money": {"total_usd": CAP_USD, "response_usd": RESPONSE_USD},
    }
    stage = Stage(tmp_path_factory.mktemp("many"), settings=settings).build()
    for name in ("A", "B", "C"):
        does = {"write": {f"{name}.txt": f"{name}\n"}, "cost_usd": 0.4}
        script = json.dumps(does if name != "C" else {"ending": "failed", "cost_usd": 0.4})
        after = ["A"] if name == "B" else []  # so that it is known whose merge is the newest
        stage.drop(id=name, review="never", attempts_max=1, after=after, prompt=f"Do it.\n```script\n{script}\n```")
    stage.run(code=1)
    yield stage
    stage.close()


@pytest.fixture
def copy(history: Stage, tmp_path: Path) -> Stage:
    """The same history elsewhere, to be spoiled."""
    shutil.copytree(history.directory, tmp_path / "copy", symlinks=True)
    return Stage(tmp_path / "copy", settings=history.settings)


def test_a_history_in_which_nothing_is_wrong_is_found_so(history: Stage) -> None:
    """Silence, before anything is planted."""
    assert checked(history) == []


# -- what is planted ---------------------------------------------------------------------------------------------------


def rewritten(stage: Stage, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """Change the batches of the log; nobody who reads raw lines looks at checksums."""
    segment = min((stage.state / "log").glob("*.jsonl"))
    header, *batches = segment.read_text().splitlines()
    changed = [json.dumps(batch) for batch in change([json.loads(batch) for batch in batches])]
    segment.write_text("\n".join([header, *changed, ""]))


def without(kind: str, task: str) -> Plant:
    """An event that never was."""

    def plant(stage: Stage) -> None:
        def change(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for batch in batches:
                batch["events"] = [e for e in batch["events"] if (e["type"], e.get("task")) != (kind, task)]
            return batches

        rewritten(stage, change)

    return plant


def twice(kind: str, task: str) -> Plant:
    """An event that was there once more."""

    def plant(stage: Stage) -> None:
        def change(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
            again = [e for batch in batches for e in batch["events"] if (e["type"], e.get("task")) == (kind, task)]
            batches[-1]["events"] += again[:1]
            return batches

        rewritten(stage, change)

    return plant


def dearer(stage: Stage) -> None:
    """A run cost more than anybody had left."""

    def change(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ended = [e for batch in batches for e in batch["events"] if e["type"] == "RunEnded" and e["task"] == "B"]
        ended[0]["outcome"]["usage"] = {"cost_usd": 3.5}
        return batches

    rewritten(stage, change)


def promised_too_much(stage: Stage) -> None:
    """A run was planned with money that others had been promised."""

    def change(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
        planned = [e for batch in batches for e in batch["events"] if e["type"] == "RunPlanned" and e.get("account")]
        planned[-1]["limits"]["budget_usd"] = CAP_USD
        return batches

    rewritten(stage, change)


def fallen_back(stage: Stage) -> None:
    """The branch lost its newest merge."""
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", f"{INTEGRATION}~1")


def written_over(stage: Stage) -> None:
    """What a task wrote is on the branch no more as it was written."""
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=stage.repository,
        input="another\n",
        text=True,
        capture_output=True,
        check=True,
        timeout=30,
    ).stdout.strip()
    environment = os.environ | {"GIT_INDEX_FILE": str(stage.directory / "index")}
    for arguments in (["read-tree", INTEGRATION], ["update-index", "--cacheinfo", f"100644,{blob},A.txt"]):
        subprocess.run(["git", *arguments], cwd=stage.repository, env=environment, check=True, timeout=30)
    written = subprocess.run(
        ["git", "write-tree"],
        cwd=stage.repository,
        env=environment,
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
    )
    commit = stage.git("commit-tree", written.stdout.strip(), "-p", INTEGRATION, "-m", "over").strip()
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", commit)


def merged_again(stage: Stage) -> None:
    """The newest work is merged once more."""
    words = stage.git("log", "-1", "--format=%B", INTEGRATION)
    tree, reviewed = f"{INTEGRATION}^{{tree}}", f"{INTEGRATION}^2"
    again = stage.git("commit-tree", tree, "-p", INTEGRATION, "-p", reviewed, "-m", words).strip()
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", again)


def merged_by_nobody(stage: Stage) -> None:
    """A merge that names no task."""
    tree, reviewed = f"{INTEGRATION}^{{tree}}", f"{INTEGRATION}^2"
    again = stage.git("commit-tree", tree, "-p", INTEGRATION, "-p", reviewed, "-m", "mine").strip()
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", again)


def acted_again(stage: Stage) -> None:
    """A run's agent did everything twice."""
    transcript = stage.state / "runs/A.1.work/transcript.jsonl"
    transcript.write_text(transcript.read_text() * 2)


def left_in_the_inbox(stage: Stage) -> None:
    """A task that nobody ever looked at."""
    stage.drop(id="D", prompt="Do it.")


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        (without("TaskSubmitted", "A"), "A: TaskSubmitted 0 times"),
        (twice("TaskSubmitted", "A"), "A: TaskSubmitted 2 times"),
        (without("TaskMerged", "A"), "A is under way, not merged"),
        (without("TaskFailed", "C"), "C is under way, not failed"),
        (fallen_back, "B.txt is not on coordination/integration"),
        (written_over, "A.txt is 'another\\n', not 'A\\n'"),
        (left_in_the_inbox, "left in the inbox"),
        (twice("TaskMerged", "A"), "A: TaskMerged 2 times"),
        (without("TaskMerged", "A"), "A: a merge commit, and no TaskMerged"),
        (merged_again, "B: 2 merge commits"),
        (merged_by_nobody, "says of no task that it is its own"),
        (fallen_back, "B: the log has merge and commit"),
        (twice("RunPlanned", "A"), "A.1.work planned 2 times"),
        (twice("RunStarted", "A"), "A.1.work started 2 times"),
        (twice("RunEnded", "A"), "A.1.work ended 2 times"),
        (without("RunEnded", "A"), "A.1.work never ended"),
        (acted_again, "A.1.work acted 2 times"),
        (dearer, "USD are spent, above 3 by more than 0.5"),
        (promised_too_much, "promised, above 3"),
    ],
)
def test_what_is_wrong_with_many_tasks_is_found(copy: Stage, plant: Plant, complaint: str) -> None:
    """One sentence at least says so."""
    plant(copy)
    found = checked(copy)
    assert any(complaint in sentence for sentence in found), found


# -- what is left ------------------------------------------------------------------------------------------------------

WAITS = [sys.executable, "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]


def test_a_process_with_the_mark_of_a_run_is_found(history: Stage) -> None:
    """Whoever its parent is."""
    environment = {**os.environ, MARKER: f"{history.uuid}/A.1.work"}
    with subprocess.Popen(WAITS, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert any(str(process.pid) in sentence for sentence in left_behind(history))
        process.kill()


# It leaves a child behind: in another session, with an empty environment, and without a parent.
LEAVES = "import subprocess, sys; subprocess.Popen(['sleep', '86321'], start_new_session=True, env={})"


def test_a_process_that_hides_is_found_by_its_descent_and_ended() -> None:
    """Without the mark, without a parent: it is ours all the same, and does not outlive the block."""
    with Family() as family:
        subprocess.run([sys.executable, "-S", "-c", LEAVES], check=True, timeout=30)
        (said,) = family.left()
        assert "sleep 86321" in said
    assert not [said for said in Family().left() if "86321" in said]  # other tests have children of their own


def test_those_who_are_spared_or_were_there_before_are_not_left_over() -> None:
    """Only what came while the block lasted, and is nobody's."""
    with subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as before:
        spared: list[int] = []
        with (
            Family(lambda: spared) as family,
            subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as known,
        ):
            assert len(family.left()) == 1
            spared.append(known.pid)
            assert family.left() == []
            known.kill()
        assert before.poll() is None
        before.kill()


# It holds a file open once, twice and so on, and has a dead child at the end; each line on stdin is the next step.
HOLDS = """
import os, sys, subprocess
held = []
print(flush=True)
for line in sys.stdin:
    if line == "open\\n":
        held.append(open("/dev/zero"))
    else:
        held.append(subprocess.Popen(["true"]))
        os.waitid(os.P_PID, held[-1].pid, os.WEXITED | os.WNOWAIT)
    print(flush=True)
"""


def test_a_descriptor_and_a_dead_child_that_are_kept_are_found() -> None:
    """Each that is open more often than before, by name; each child that is not collected, by number."""
    argv = [sys.executable, "-S", "-c", HOLDS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def step(what: str) -> None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{what}\n")
            process.stdin.flush()
            process.stdout.readline()

        process.stdout.readline()
        before = descriptors(process.pid)
        assert leaked(before, descriptors(process.pid)) == []
        step("open")
        step("open")
        assert leaked(before, descriptors(process.pid)) == ["/dev/zero is open 2 times more"]
        assert zombies(process.pid) == []
        step("child")
        (said,) = zombies(process.pid)
        assert f"a child of {process.pid}" in said
        process.kill()
