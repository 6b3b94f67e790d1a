"""Whatever is done to its files, runs and branches: the supervisor goes on, loses nothing and runs nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordination import locks
from coordination.testing.account import replayed
from coordination.testing.stage import FILES, PASSES, Stage

JSON = Any

pytestmark = pytest.mark.timeout(90)

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
DOES_IT = {"write": {"greeter.py": WARMER}, "report": "warmer", "cost_usd": 0.01}
INTEGRATION = "coordination/integration"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Stages with the scripted backend."""
    made: list[Stage] = []

    def one(gate: list[str] | None = None, **settings: JSON) -> Stage:
        tables = {
            "gates": {"default": ["unit"], "unit": gate or list(PASSES)},
            "agents": {"backend": "scripted"},
            "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.3},
            "retry": {"backoff_seconds": 0.05},
        }
        stage = Stage(tmp_path / f"stage {len(made)}", settings={**tables, **settings}).build()
        made.append(stage)
        return stage

    yield one
    for stage in made:
        stage.close()


def drop(stage: Stage, script: Mapping[str, JSON] = DOES_IT, task: str = "T", **fields: JSON) -> None:
    """A task whose work is that script."""
    body = json.dumps({"by_purpose": {"work": script, "review": {"verdict": "approve"}}})
    stage.drop(**{"id": task, "review": "never", "prompt": f"Do it.\n```script\n{body}\n```", **fields})


def status(stage: Stage, task: str = "T") -> str:
    """What has become of a task."""
    return str(stage.show(task)["state"])


def held(stage: Stage, run: str = "T.1.work") -> locks.Identity:
    """The worker of a run, once it has begun."""
    stage.wait_for_event("RunStarted", run=run)
    return stage.wait_for(lambda: stage.worker(run), "worker")


# -- what a worker leaves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [b"", b"\xff\xfe{", b"[]", b'{"run": "T.1.work"', b'"\\ud800"'])
@pytest.mark.parametrize("name", ["outcome.json", "worker.json", "progress.json", "stop.json"])
def test_a_file_of_a_run_that_is_not_what_it_should_be_ends_that_run_only(
    make: Callable[..., Stage], name: str, left: bytes
) -> None:
    """Damaged while no supervisor looks, it costs the run, never the supervisor."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 30})
    supervisor = stage.start()
    worker = held(stage)
    supervisor.kill()
    supervisor.wait()
    os.kill(worker.pid, signal.SIGKILL)
    stage.wait_for(lambda: stage.worker("T.1.work") is None, "end of the worker")
    (stage.state / "runs/T.1.work" / name).write_bytes(left)
    supervisor = stage.start()
    ended = stage.wait_for_event("RunEnded", run="T.1.work")
    assert ended["outcome"]["ending"] in ("crashed", "stopped")
    stage.wait_for_event("RunStarted", run="T.2.work")
    assert supervisor.poll() is None


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_directory_removed_under_a_live_run_gives_it_no_second_worker(
    make: Callable[..., Stage], *, restart: bool
) -> None:
    """Its lock is gone with it; what the log has begun is never begun again."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 4.0})
    supervisor = stage.start("--once")
    worker = held(stage)
    if restart:
        supervisor.kill()
        supervisor.wait()
    shutil.rmtree(stage.state / "runs/T.1.work")
    if restart:
        supervisor = stage.start("--once")
    stage.wait_for_event("RunEnded", run="T.1.work")
    assert not locks.alive(worker)
    assert supervisor.wait(60) == 0
    assert status(stage) == "merged"
    assert len(stage.events("RunStarted", run="T.1.work")) == 1
    assert list(replayed(stage)) == []


def test_an_outcome_that_cannot_be_written_as_json_is_written_all_the_same(make: Callable[..., Stage]) -> None:
    """Half a surrogate pair in what an agent said does not cost the run."""
    stage = make()
    drop(stage, {**DOES_IT, "report": "cut off in the middle of a sign: \ud83d"})
    stage.run()
    assert status(stage) == "merged"


# -- workers that do not begin -------------------------------------------------------------------------------------------


def stopped_before(stage: Stage, directory: Path, where: str) -> None:
    """Make every first worker of a run stop itself at a point of its start, as SIGSTOP would."""
    site = directory / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'coordination.worker' in ' '.join(sys.orig_argv) and sys.orig_argv[-1].endswith('T.1.work'):\n"
        + (
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            if where == "start"
            else "    from coordination import files\n"
            "    files.read = lambda *a, **k: os.kill(os.getpid(), signal.SIGSTOP)\n"
        )
    )
    stage.environment["PYTHONPATH"] = str(site)


@pytest.mark.parametrize("where", ["start", "locked"])
@pytest.mark.parametrize("force", [False, True])
def test_a_worker_that_hangs_before_it_begins_does_not_keep_the_supervisor_from_stopping(
    make: Callable[..., Stage], tmp_path: Path, where: str, *, force: bool
) -> None:
    """Stopped in its tracks before or after it took its lock: ``coord stop`` ends it, and the task is not harmed."""
    stage = make(environment={"pass": ["PYTHONPATH"]})
    stopped_before(stage, tmp_path, where)
    drop(stage)
    supervisor = stage.start()
    stage.wait_for_event("RunPlanned", run="T.1.work")
    stage.wait_for(lambda: any(stopped(pid) for pid in stage.processes_of_runs("T.1.work")), "stopped worker")
    stage.coord("stop", *(["--force"] if force else []), "--timeout", "20")
    assert supervisor.wait(5) in (0, -9)
    assert stage.processes_of_runs() == []
    stage.run()
    assert status(stage) == "merged"
    assert stage.show("T")["attempts"] == 0


def stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal."""
    try:
        return ") T" in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


# -- the user's hand in the repository -----------------------------------------------------------------------------------


def test_an_integration_branch_that_the_user_removed_comes_back_with_all_that_landed(make: Callable[..., Stage]) -> None:
    """It is made anew where the log knows it to have been, not at the target."""
    stage = make()
    drop(stage)
    stage.run()
    before = stage.git("rev-parse", INTEGRATION)
    stage.git("branch", "-D", INTEGRATION)
    drop(stage, {"write": {"other.py": "OTHER = 1\n"}, "report": "x"}, task="U")
    stage.run()
    stage.git("merge-base", "--is-ancestor", before.strip(), INTEGRATION)
    assert stage.git("show", f"{INTEGRATION}:greeter.py") == WARMER
    assert status(stage, "U") == "merged"


def test_a_task_branch_that_the_user_removed_costs_the_run_and_not_the_supervisor(make: Callable[..., Stage]) -> None:
    """The claim of a commit that is on no branch is not believed; the task is done again."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 1.0})
    supervisor = stage.start()
    held(stage)
    supervisor.kill()
    supervisor.wait()
    stage.wait_for(lambda: (stage.state / "runs/T.1.work/outcome.json").exists(), "outcome")
    stage.wait_for(lambda: stage.worker("T.1.work") is None, "end of the worker")
    stage.git("update-ref", "-d", "refs/heads/coordination/task/T")
    stage.run()
    assert stage.events("RunEnded", run="T.1.work")[0]["outcome"]["code"] == "unproven_commit"
    assert status(stage) == "merged"


def test_a_gate_taken_out_of_the_settings_leaves_its_task_to_a_person(make: Callable[..., Stage]) -> None:
    """The next supervisor neither falls over it nor lands the task without it."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 1.0}, gates=["unit"])
    supervisor = stage.start()
    held(stage)
    supervisor.kill()
    supervisor.wait()
    text = stage.home.settings_file.read_text()
    stage.home.settings_file.write_text("\n".join(line for line in text.splitlines() if "unit" not in line))
    stage.run(code=1)
    assert status(stage) == "waiting_for_person"


# -- gates ---------------------------------------------------------------------------------------------------------------


def test_a_gate_that_leaves_repositories_and_odd_files_in_its_checkout_passes_all_the_same(
    make: Callable[..., Stage],
) -> None:
    """Its verdict is its exit code; what it built in its own checkout is nobody's work."""
    built = (
        "import os, subprocess\n"
        "os.makedirs('sub'); subprocess.run(['git', 'init', '-q', 'sub'], check=True)\n"
        "os.mkfifo('pipe'); os.symlink('/etc/passwd', 'link'); open(b'odd\\n\\xff', 'w').close()\n"
    )
    stage = make([sys.executable, "-c", built])
    drop(stage)
    stage.run()
    assert status(stage) == "merged"


def test_what_a_gate_leaves_running_is_reaped(make: Callable[..., Stage]) -> None:
    """A daemon in a session of its own lives no longer than the gate's run."""
    daemon = "import subprocess; subprocess.Popen(['setsid', 'sleep', '300'], start_new_session=True)"
    stage = make([sys.executable, "-c", daemon])
    drop(stage)
    stage.run()
    assert status(stage) == "merged"
    assert stage.processes_of_runs() == []


def test_a_gate_that_prints_without_end_fills_no_memory_and_no_log(make: Callable[..., Stage]) -> None:
    """A hundred megabytes of what is not even UTF-8: the log keeps the end of it."""
    noisy = "import os\nfor _ in range(100): os.write(1, b'\\xff' * (1 << 20))\nraise SystemExit(3)"
    stage = make([sys.executable, "-c", noisy], limits={"attempts_max": 1})
    drop(stage)
    stage.run(code=1)
    assert status(stage) == "failed"
    assert sum(path.stat().st_size for path in (stage.state / "log").glob("*.jsonl")) < 1 << 20


# -- what an agent leaves ------------------------------------------------------------------------------------------------


def test_a_report_of_ten_megabytes_does_not_get_into_the_log(make: Callable[..., Stage]) -> None:
    """The log grows with facts, not with what an agent says."""
    stage = make()
    marker = {"write": {"greeter.py": WARMER}, "report": "x" * 200_000}
    drop(stage, marker)
    stage.run()
    assert status(stage) == "merged"


def test_no_secret_of_the_supervisors_environment_is_written_anywhere(make: Callable[..., Stage]) -> None:
    """Neither a credential nor any other variable stands in a file, and every file is for its owner only."""
    stage = make()
    stage.environment |= {"DATABASE_PASSWORD": "planted-one", "ANTHROPIC_API_KEY": "planted-two"}
    drop(stage, review="always")
    stage.run()
    assert status(stage) == "merged"
    for path in (entry for entry in stage.state.rglob("*") if entry.is_file() and not entry.is_symlink()):
        assert b"planted-" not in path.read_bytes(), path
    runs = [entry for entry in (stage.state / "runs").rglob("*")]
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in runs if path.stat().st_mode & 0o077} == {}


