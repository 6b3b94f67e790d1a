"""Kills, limits, cancellations and stops, on the real Claude Code: what was under way ends well or begins anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordination.rehearsal.model_server import ModelServer
from coordination.testing.stage import FILES
from tests.e2e.lines import call, case, hang, read, say, write

pytestmark = pytest.mark.timeout(90)

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
DOES_IT = [read("greeter.py"), write("greeter.py", WARMER), say("It is warmer now.")]
HANGS = [write("draft.txt", "half a thought"), hang()]
TASK = {"id": "T", "prompt": "Make it warmer.", "review": "never"}
INTEGRATION = "coordination/integration"
GOING_ON = "ended before you had finished"  # of the prompt that goes on in the same session


def hanging(scene: Any, run: str = "T.1.work") -> list[int]:
    """Wait until the agent of a run hangs, having spent something; the run's processes."""
    progress = scene.state / "runs" / run / "progress.json"

    def hangs() -> bool:
        spent = json.loads(progress.read_text()).get("cost_usd", 0.0) if progress.exists() else 0.0
        return spent > 0 and any(request.step == 1 for request in scene.asked("# Task T"))

    scene.wait_for(hangs, "agent that hangs")
    scene.wait_for_event("RunStarted", run=run)
    found: list[int] = scene.processes_of_runs(run)
    assert len(found) >= 2, "a worker and its Claude Code"
    return found


def test_a_killed_worker_takes_its_agent_along_and_the_task_is_done_by_a_new_run(make: Any) -> None:
    """After kill -9 nothing of the run lives, its spend counts as estimated, and the next run is another one."""
    scene = make([case(GOING_ON, steps=DOES_IT), case("# Task T", steps=HANGS)])
    scene.drop(**TASK)
    supervisor = scene.start("--once")
    before = hanging(scene)
    assert scene.kill_worker("T.1.work")
    outcome = scene.wait_for_event("RunEnded", run="T.1.work")["outcome"]
    assert not set(before) & set(scene.processes_of_runs())
    assert (outcome["ending"], outcome["code"]) == ("crashed", "worker_died")
    assert outcome["usage"]["estimated"]
    assert outcome["usage"]["cost_usd"] > 0
    assert supervisor.wait(60) == 0
    planned = scene.events("RunPlanned", purpose="work")
    works = [event["run"] for event in planned]
    assert works == ["T.1.work", "T.2.work"]
    assert planned[1]["continues"] == "T.1.work", "what it has read is paid for"
    assert [event["run"] for event in scene.events("RunStarted") if event["run"] in works] == works
    task = scene.show("T")
    assert (task["state"], task["attempts"]) == ("merged", 1)
    assert task["cost_usd"] > outcome["usage"]["cost_usd"]
    assert task["cost_estimated"]


def test_what_a_dead_supervisor_and_a_dead_worker_left_is_ended_by_the_next(make: Any) -> None:
    """Both are killed, Claude Code lives on alone: the next supervisor ends it first, then tries the task anew."""
    scene = make([case(GOING_ON, steps=DOES_IT), case("# Task T", steps=HANGS)])
    scene.drop(**TASK)
    supervisor = scene.start()
    before = hanging(scene)
    supervisor.kill()
    assert scene.kill_worker("T.1.work")
    scene.wait_for(lambda: scene.worker("T.1.work") is None, "end of the worker")
    assert set(before) & set(scene.processes_of_runs("T.1.work")), "Claude Code is left alone"
    scene.run()
    assert [event["outcome"]["code"] for event in scene.events("RunEnded", run="T.1.work")] == ["worker_died"]
    planned = scene.events("RunPlanned", run="T.2.work")[0]
    assert planned["seq"] > scene.events("RunEnded", run="T.1.work")[0]["seq"]
    assert scene.show("T")["state"] == "merged"
    assert scene.git("show", f"{INTEGRATION}:greeter.py") == WARMER


def test_a_run_out_of_time_is_ended_and_counts_as_a_failure(make: Any) -> None:
    """A hanging agent is stopped at its limit; with no attempt left the task fails and says why."""
    scene = make([case("# Task T", steps=HANGS)])
    scene.drop(**TASK, timeout_seconds=2.5, attempts_max=1)
    scene.run(code=1)
    ended = scene.events("RunEnded", run="T.1.work")[0]["outcome"]
    assert ended["ending"] == "timed_out"
    failed = scene.events("TaskFailed", task="T")[0]
    assert "T.1.work timed_out" in failed["reason"]
    assert scene.show("T")["attempts"] == 1


def test_a_cancelled_task_stops_at_once_and_keeps_what_it_wrote(make: Any) -> None:
    """Cancel ends the agent, records the run as stopped, and leaves its files where they can be found."""
    scene = make([case("# Task T", steps=HANGS)])
    scene.drop(**TASK)
    supervisor = scene.start("--once")
    hanging(scene)
    scene.coord("cancel", "T", "--reason", "not wanted")
    ended = scene.wait_for_event("RunEnded", run="T.1.work")["outcome"]
    assert ended["ending"] == "stopped"
    assert supervisor.wait(30) == 1
    task = scene.show("T")
    assert (task["state"], task["reason"]) == ("cancelled", "not wanted")
    kept = [scene.state / "agent_workspaces/T/draft.txt"]
    assert [path.read_text() for path in kept] == ["half a thought"]
    assert not scene.events("RunPlanned", run="T.2.work")


def test_a_stop_puts_the_task_back_and_the_next_start_completes_it(make: Any) -> None:
    """``coord stop`` ends the turn, requeues without using up an attempt; a new supervisor goes on from there."""
    scene = make([case("# Task T", steps=HANGS)])
    scene.drop(**TASK)
    supervisor = scene.start()
    hanging(scene)
    scene.coord("stop")
    assert supervisor.wait(10) == 0
    assert scene.events("RunEnded", run="T.1.work")[0]["outcome"]["ending"] == "stopped"
    task = scene.show("T")
    assert (task["state"], task["attempts"]) == ("queued", 0)
    with ModelServer([case(GOING_ON, steps=DOES_IT)]) as other:
        scene.environment["ANTHROPIC_BASE_URL"] = other.url
        scene.run()
    task = scene.show("T")
    assert (task["state"], task["attempts"]) == ("merged", 0)
    assert scene.git("show", f"{INTEGRATION}:greeter.py") == WARMER


def test_a_drain_finishes_what_runs_and_starts_nothing(make: Any) -> None:
    """``coord stop --drain`` lets the running task come to its end; the queued one stays queued."""
    slow = [[{"delay_seconds": 3.0}, *write("greeter.py", WARMER)], say("Done.")]
    scene = make([case("# Task T", steps=slow)], settings={"roles.green": {"slots": 1}})
    scene.drop(**TASK, priority=5)
    scene.drop(id="next", prompt="Another.")
    supervisor = scene.start()
    scene.wait_for_event("RunStarted", run="T.1.work")
    scene.coord("stop", "--drain")
    assert supervisor.wait(10) == 0
    assert scene.show("T")["state"] == "merged"
    assert scene.show("next")["state"] == "queued"
    assert not scene.events("RunPlanned", task="next")


def test_a_forced_stop_leaves_no_process_and_no_secret_of_the_supervisor_anywhere(make: Any) -> None:
    """What stands in the supervisor's environment but on no list reaches no child, log, transcript or file."""
    secret = "sesame-5f1d7c"
    steps = [call("Bash", command="env", description="looks round"), hang()]
    # with a sandbox where there is one; without, the agent sees no less
    scene = make([case("# Task T", steps=steps)], settings={"agents": {"shell_without_sandbox": True}})
    scene.environment |= {"AWS_SECRET_ACCESS_KEY": secret, "COORDINATION_NOTE": secret, "NODE_OPTIONS_NOTE": secret}
    scene.drop(**TASK)
    supervisor = scene.start()
    processes = hanging(scene)
    environments = [Path(f"/proc/{number}/environ").read_text() for number in processes]
    scene.coord("stop", "--force")
    assert supervisor.wait(10) == 0
    assert scene.processes_of_runs() == []
    assert [text for text in environments if secret in text] == []
    looked = json.dumps(scene.asked("# Task T")[-1].body)
    assert "TMPDIR=" in looked, "the agent did see its environment"
    assert secret not in looked
    files = [path for path in scene.state.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    assert scene.show("T")["state"] == "queued"


def test_what_an_agent_hides_does_not_outlive_its_run(make: Any) -> None:
    """A shell command in another session, without our marker in its environment, ends with the run that started it."""
    flees = "env -i setsid sleep 86311 >/dev/null 2>&1 & echo gone"
    steps = [call("Bash", command=flees, description="looks round"), *DOES_IT]
    scene = make([case("# Task T", steps=steps)], settings={"agents": {"shell_without_sandbox": True}})
    scene.drop(**TASK)
    scene.run()
    assert scene.show("T")["state"] == "merged"
    hidden = [process.pid for process in psutil.process_iter(["cmdline"]) if "86311" in (process.info["cmdline"] or [])]
    assert hidden == []
