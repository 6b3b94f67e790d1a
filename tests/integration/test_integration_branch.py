"""What people do to the integration branch is noticed and explained, never overwritten, and costs no task anything."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coordination.coordinator import Coordinator
from coordination.model.runs import Purpose
from coordination.supervisor import Supervisor
from coordination.testing.account import doubled, replayed
from coordination.testing.stage import PASSES, Stage, supervise_forked

INTEGRATION = "coordination/integration"
REF = f"refs/heads/{INTEGRATION}"
SEEN = "refs/coordination/landed"

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[], Stage]]:
    """A stage with the scripted backend, ended with the test."""
    with ExitStack() as stack:

        def made() -> Stage:
            settings = {
                "agents": {"backend": "scripted"},
                "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.3},
                "retry": {"backoff_seconds": 0.05},
                "gates": {"default": ["unit"], "unit": list(PASSES)},
            }
            stage = Stage(tmp_path, settings=settings).build()
            stack.callback(stage.close)
            return stage

        yield made


def drop(stage: Stage, task: str, **fields: Any) -> None:
    """A task that writes a file named after it."""
    work = {"write": {f"{task}.py": f"name = '{task}'\n"}, "report": "written"}
    script = json.dumps({"by_purpose": {"work": work}})
    stage.drop(**{"id": task, "review": "never", "prompt": f"Write it.\n```script\n{script}\n```", **fields})


def head(stage: Stage) -> str:
    return stage.git("rev-parse", "--verify", REF).strip()


def warnings(stage: Stage) -> list[str]:
    return list(json.loads(stage.coord("status", "--json"))["warnings"])


def on_branch(stage: Stage) -> set[str]:
    return set(stage.git("ls-tree", "--name-only", REF).split())


def foreign(stage: Stage, parent: str) -> str:
    """A commit that somebody makes on top of ``parent``."""
    tree = stage.git("rev-parse", f"{parent}^{{tree}}").strip()
    return stage.git("commit-tree", tree, "-p", parent, "-m", "Foreign").strip()


def sound(stage: Stage) -> list[str]:
    return [*doubled(stage), *replayed(stage)]


def test_a_branch_that_was_rewound_is_left_alone_and_explained_until_it_is_right_again(
    make: Callable[[], Stage],
) -> None:
    """Nothing lands and nothing starts from it; status says what is missing and what to run, and that helps."""
    stage = make()
    drop(stage, "first")
    stage.run()
    before, base = head(stage), stage.git("rev-parse", "main").strip()
    supervisor = stage.start()
    stage.wait_for(lambda: len(stage.events("SupervisorStarted")) == 2, "a supervisor")
    stage.git("update-ref", REF, base)
    drop(stage, "second")
    stage.wait_for_event("TaskSubmitted", task="second")
    (warning, *_) = stage.wait_for(lambda: warnings(stage), "a warning")
    assert f"branch {INTEGRATION} was moved by somebody" in warning
    assert "first" in warning
    (why,) = stage.show("second")["waiting"]
    assert why == warning
    assert head(stage) == base
    assert stage.events("RunPlanned", task="second") == []
    command = warning[warning.index("git branch --force") :].partition(";")[0]
    stage.git(*command.split()[1:])
    assert head(stage) == before
    stage.wait_for_event("TaskMerged", task="second")
    assert warnings(stage) == []
    stage.coord("stop")
    assert supervisor.wait(10) == 0
    assert {"first.py", "second.py"} <= on_branch(stage)
    assert sound(stage) == []


def test_a_branch_that_is_rewound_while_a_task_waits_to_land_does_not_get_it(make: Callable[[], Stage]) -> None:
    """Found by a supervisor that starts later: approved work waits, the exit code and the last words say for what."""
    stage = make()
    drop(stage, "first")
    stage.run()
    drop(stage, "second")
    assert supervise_forked(stage, "decided@RunPlanned:second.3.landing") == -9
    before, base = head(stage), stage.git("rev-parse", "main").strip()
    stage.git("update-ref", REF, base)
    stage.run(code=1)
    assert "no longer contains what has landed" in stage.said()
    assert head(stage) == base
    assert stage.show("second")["state"] == "approved"
    stage.git("update-ref", REF, before)
    stage.run()
    assert stage.show("second")["state"] == "merged"
    assert stage.show("second")["returns"] == 0
    assert sound(stage) == []


def test_foreign_commits_on_top_are_kept_and_landed_on(make: Callable[[], Stage]) -> None:
    """Somebody committed on the branch: that is his right, and nothing of it is lost."""
    stage = make()
    drop(stage, "first")
    stage.run()
    commit = foreign(stage, head(stage))
    stage.git("update-ref", REF, commit)
    drop(stage, "second")
    stage.run()
    assert warnings(stage) == []
    stage.git("merge-base", "--is-ancestor", commit, REF)
    assert {"first.py", "second.py"} <= on_branch(stage)
    assert sound(stage) == []


def test_a_branch_that_was_removed_comes_back_with_everything_seen_on_it_and_says_so(
    make: Callable[[], Stage],
) -> None:
    """Also what somebody had put on top; the log, the one who follows along and the status before all tell."""
    stage = make()
    drop(stage, "first")
    stage.run()
    commit = foreign(stage, head(stage))
    stage.git("update-ref", REF, commit)
    drop(stage, "second", after=["nobody"])
    stage.run(code=1)  # it is seen
    assert stage.git("rev-parse", SEEN).strip() == commit
    stage.git("update-ref", "-d", REF)
    assert "`coord start` makes it again" in warnings(stage)[0]
    stage.run(code=1)
    assert head(stage) == commit
    (restored,) = stage.events("IntegrationRestored")
    assert (restored["branch"], restored["commit"]) == (INTEGRATION, commit)
    assert f"{INTEGRATION} was gone and is made again at {commit[:12]}" in stage.said()
    assert sound(stage) == []


@pytest.mark.parametrize("step", ["restored:before", "restored:after"])
def test_a_supervisor_killed_while_it_makes_the_branch_again_loses_nothing(
    make: Callable[[], Stage], step: str
) -> None:
    """Whoever comes next finds the branch as it was, and goes on."""
    stage = make()
    drop(stage, "first")
    stage.run()
    before = head(stage)
    stage.git("update-ref", "-d", REF)
    assert supervise_forked(stage, f"{step}@TaskMerged:first") == -9
    assert head(stage) == before
    drop(stage, "second")
    stage.run()
    assert {"first.py", "second.py"} <= on_branch(stage)
    assert len(stage.events("IntegrationRestored")) == int(step == "restored:after")
    assert sound(stage) == []


def test_a_branch_that_was_removed_with_all_traces_is_not_made_again(make: Callable[[], Stage]) -> None:
    """What the log knows to have landed is nowhere: that is said, and nobody begins anew without it."""
    stage = make()
    drop(stage, "first")
    stage.run()
    for name in stage.git("for-each-ref", "--format=%(refname)", "refs/heads/coordination", SEEN).split():
        stage.git("update-ref", "-d", name)
    for record in (stage.repository / ".git/worktrees").iterdir():
        shutil.rmtree(record)  # the workspace of landings is on it, too
    stage.git("reflog", "expire", "--expire=now", "--all")
    stage.git("gc", "-q", "--prune=now")
    drop(stage, "second")
    stage.run(code=1)
    assert stage.git("for-each-ref", REF) == ""
    assert f"branch {INTEGRATION} is gone, and no commit is known" in warnings(stage)[0]
    assert stage.events("RunPlanned", task="second") == []
    stage.git("branch", INTEGRATION, "main")  # it lacks the same
    stage.run(code=1)
    assert "no longer contains" in warnings(stage)[0]


def test_a_branch_that_cannot_be_made_again_ends_no_supervisor(make: Callable[[], Stage]) -> None:
    """Its file holds what is no commit: it is said, and what does not need the branch goes on."""
    stage = make()
    drop(stage, "first")
    stage.run()
    (stage.repository / ".git" / REF).write_text("garbage\n")
    drop(stage, "second")
    stage.run(code=1)
    assert f"cannot make branch {INTEGRATION}" in stage.said()
    assert stage.events("RunPlanned", task="second") == []
    (stage.repository / ".git" / REF).unlink()
    stage.run()
    assert {"first.py", "second.py"} <= on_branch(stage)
    assert sound(stage) == []


def test_a_branch_that_is_checked_out_waits_for_the_one_who_looks_at_it(make: Callable[[], Stage]) -> None:
    """No person is asked about the task; when he switches away it lands by itself, and his files are untouched."""
    stage = make()
    drop(stage, "first")
    stage.run()
    stage.git("switch", "-q", INTEGRATION)
    before = head(stage)
    drop(stage, "second")
    supervisor = stage.start()
    ended = stage.wait_for_event("RunEnded", run="second.3.landing")
    assert ended["outcome"]["code"] == "astray"
    assert "is checked out in" in warnings(stage)[0]
    assert "switch --detach" in stage.show("second")["waiting"][0]
    drop(stage, "third")  # work goes on
    stage.wait_for_event("TaskApproved", task="third")
    assert head(stage) == before
    stage.git("switch", "-q", "main")
    stage.wait_for_event("TaskMerged", task="second")
    stage.wait_for_event("TaskMerged", task="third")
    stage.coord("stop")
    assert supervisor.wait(10) == 0
    assert len(stage.events("RunPlanned", purpose="landing", task="second")) == 2
    assert (stage.show("second")["attempts"], stage.show("second")["returns"]) == (0, 0)
    assert sound(stage) == []


def test_a_branch_that_is_another_name_for_the_users_moves_nothing_of_his(make: Callable[[], Stage]) -> None:
    """A symbolic ref would have our merge put on the user's own branch."""
    stage = make()
    drop(stage, "first")
    stage.run()
    stage.git("branch", "mine", INTEGRATION)
    stage.git("symbolic-ref", REF, "refs/heads/mine")
    before = stage.git("rev-parse", "mine")
    drop(stage, "second")
    stage.run(code=1)
    assert stage.git("rev-parse", "mine") == before
    assert "another name for refs/heads/mine" in warnings(stage)[0]
    stage.git("symbolic-ref", "--delete", REF)
    stage.run()
    assert stage.git("rev-parse", "mine") == before
    assert {"first.py", "second.py"} <= on_branch(stage)
    assert sound(stage) == []


def test_a_merge_is_credited_only_if_the_supervisor_finds_it_on_the_branch(make: Callable[[], Stage]) -> None:
    """The worker landed it and said so; somebody took it off before anybody looked: it is landed again, once."""
    stage = make()
    drop(stage, "T")
    assert supervise_forked(stage, "spawn:after@RunPlanned:T.3.landing") == -9
    stage.wait_for((stage.state / "runs/T.3.landing/outcome.json").exists, "outcome")
    stage.wait_for(lambda: stage.worker("T.3.landing") is None, "end of the worker")
    said = json.loads((stage.state / "runs/T.3.landing/outcome.json").read_text())["outcome"]["commit"]
    assert head(stage) == said
    stage.git("update-ref", REF, "main")
    stage.run()
    ended = stage.events("RunEnded", run="T.3.landing")[0]["outcome"]
    assert (ended["ending"], ended["code"]) == ("crashed", "unproven_landing")
    (merged,) = stage.events("TaskMerged")
    assert merged["merge"] == head(stage) != said
    assert sound(stage) == []


def test_a_claim_with_another_commit_is_not_credited(make: Callable[[], Stage]) -> None:
    """A merge that is on the branch and took in something else is no evidence for this task."""
    stage = make()
    drop(stage, "first")
    stage.run()
    drop(stage, "T")
    assert supervise_forked(stage, "spawn:after@RunPlanned:T.3.landing") == -9
    outcome = stage.state / "runs/T.3.landing/outcome.json"
    stage.wait_for(outcome.exists, "outcome")
    stage.wait_for(lambda: stage.worker("T.3.landing") is None, "end of the worker")
    claim = json.loads(outcome.read_text())
    (other,) = stage.events("TaskMerged", task="first")
    claim["outcome"]["commit"] = other["merge"]
    outcome.write_text(json.dumps(claim))
    stage.run()
    assert stage.events("RunEnded", run="T.3.landing")[0]["outcome"]["code"] == "unproven_landing"
    (merged,) = stage.events("TaskMerged", task="T")
    assert stage.git("rev-parse", f"{merged['merge']}^2").strip() == merged["commit"]
    assert sound(stage) == []


def test_a_branch_that_is_rewound_just_after_a_merge_was_proven_is_noticed(
    make: Callable[[], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the proof and the event: the branch is where it was before, and still it lacks what is now merged."""
    stage = make()
    drop(stage, "T")
    base = stage.git("rev-parse", "main").strip()
    coordinator = Coordinator(stage.home)

    def rewind(step: str) -> None:
        runs = coordinator.state().tasks["T"].runs if step.endswith("RunEnded:after") else ()
        if any(run.purpose is Purpose.LANDING and run.succeeded for run in runs):
            stage.git("update-ref", REF, base)

    said: list[str] = []
    for name, value in stage.environment.items():
        monkeypatch.setenv(name, value)
    supervisor = threading.Thread(target=Supervisor(coordinator, once=True, mark=rewind, complain=said.append).run)
    supervisor.start()
    supervisor.join(60)
    assert not supervisor.is_alive()
    assert stage.show("T")["state"] == "merged"
    assert "no longer contains what has landed: T" in said[0]


def test_the_status_says_it_without_a_supervisor(make: Callable[[], Stage]) -> None:
    """Whoever looks in the morning is told, and a look writes nothing."""
    stage = make()
    drop(stage, "first")
    stage.run()
    stage.git("update-ref", REF, "main")
    before = stage.git("for-each-ref")
    assert "no longer contains what has landed: first" in stage.coord("status")
    assert stage.git("for-each-ref") == before
