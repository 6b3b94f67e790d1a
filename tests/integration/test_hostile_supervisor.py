"""Whatever is done to its files, runs and branches: the supervisor goes on, loses nothing and runs nothing twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from watchdog.events import FileSystemEvent

from coordination import locks
from coordination.coordinator import Coordinator
from coordination.supervisor import Supervisor
from coordination.supervisor.wakeups import Wakeups
from coordination.testing.account import replayed
from coordination.testing.stage import FILES, PASSES, Stage
from coordination.worker import REPORT_MAX

JSON = Any

pytestmark = pytest.mark.timeout(90)

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
DOES_IT = {"write": {"greeter.py": WARMER}, "report": "warmer", "cost_usd": 0.01}
INTEGRATION = "coordination/integration"
SCRIPTED: Mapping[str, JSON] = {
    "agents": {"backend": "scripted"},
    "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.3},
    "retry": {"backoff_seconds": 0.05},
}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Stages with the scripted backend."""
    made: list[Stage] = []

    def one(gate: list[str] | None = None, **settings: JSON) -> Stage:
        tables = {**SCRIPTED, "gates": {"default": ["unit"], "unit": gate or list(PASSES)}}
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


def held(stage: Stage, run: str = "T.1.work") -> Any:
    """The worker of a run, once it has begun."""
    stage.wait_for_event("RunStarted", run=run)
    return stage.wait_for(lambda: stage.worker(run), "worker")


# -- what a worker leaves ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [b"", b"\xff\xfe{", b"[]"])
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


def test_a_stop_that_was_only_wished_does_not_excuse_a_later_crash(make: Callable[..., Stage]) -> None:
    """A supervisor that dies between the wish and the signal leaves ``stop.json``; the next one takes it back."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 30})
    supervisor = stage.start()
    held(stage)
    supervisor.kill()
    supervisor.wait()
    wish = stage.state / "runs/T.1.work/stop.json"
    wish.write_text('{"why": "the supervisor stops"}')
    stage.start()
    stage.wait_for(lambda: not wish.exists(), "the wish to be taken back")
    assert stage.kill_worker("T.1.work")
    assert stage.wait_for_event("RunEnded", run="T.1.work")["outcome"]["ending"] == "crashed"
    assert stage.wait_for_event("TaskRequeued", task="T")["reason"]["kind"] == "failure"


def removed(directory: Path) -> None:
    """Remove it although its worker writes into it just now."""
    while directory.exists():
        shutil.rmtree(directory, ignore_errors=True)


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
    removed(stage.state / "runs/T.1.work")
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


# -- workers that do not begin ----------------------------------------------------------------------------------------


def early(stage: Stage, run: str = "T.1.work") -> list[int]:
    """Stop the worker of a run as soon as there is one, before it has begun."""
    found = stage.processes_of_runs(run)
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found


@pytest.mark.parametrize("force", [False, True])
def test_a_worker_that_hangs_before_it_begins_does_not_keep_the_supervisor_from_stopping(
    make: Callable[..., Stage], *, force: bool
) -> None:
    """Stopped in its tracks before it took its lock: ``coord stop`` ends it, and the task is not harmed."""
    stage = make()
    drop(stage)
    supervisor = stage.start()
    stage.wait_for(lambda: early(stage), "worker")
    assert not (stage.state / "runs/T.1.work/worker.json").exists(), "stopped too late for this test"
    stage.coord("stop", *(["--force"] if force else []), "--timeout", "20")
    assert supervisor.wait(5) in (0, -9)
    assert stage.processes_of_runs() == []
    stage.run()
    assert status(stage) == "merged"
    assert stage.show("T")["attempts"] == 0


def test_a_process_that_keeps_the_lock_of_a_run_it_does_not_begin_is_ended_by_a_stop(
    make: Callable[..., Stage],
) -> None:
    """It signed the lock, so it is known by name, and it holds up nobody's end."""
    stage = make()
    drop(stage)
    lock = stage.state / "runs/T.1.work/worker.lock"
    lock.parent.mkdir()
    keeps = "import signal, sys; from coordination import locks; from pathlib import Path\n"
    keeps += "held = locks.hold(Path(sys.argv[1])); print(flush=True); signal.pause()"
    argv = [sys.executable, "-P", "-c", keeps, str(lock)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env=stage.environment) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        supervisor = stage.start()
        stage.wait_for_event("RunPlanned", run="T.1.work")
        stage.coord("stop", "--timeout", "20")
        assert supervisor.wait(5) == 0
        assert keeper.wait(5) == -signal.SIGKILL
    stage.run()
    assert status(stage) == "merged"


# -- the user's hand in the repository --------------------------------------------------------------------------------


def test_an_integration_branch_that_the_user_removed_comes_back_with_all_that_landed(
    make: Callable[..., Stage],
) -> None:
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
    stage.wait_for((stage.state / "runs/T.1.work/outcome.json").exists, "outcome")
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


# -- gates ------------------------------------------------------------------------------------------------------------


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


def test_a_gate_hears_the_signals_that_are_not_for_us(make: Callable[..., Stage]) -> None:
    """What we do not want to hear is not ignored by a project's own tests of Ctrl-C and of a closed terminal."""
    hears = (
        "import signal as s\n"
        "assert s.getsignal(s.SIGINT) is s.default_int_handler, s.getsignal(s.SIGINT)\n"
        "assert s.getsignal(s.SIGHUP) is s.SIG_DFL and s.getsignal(s.SIGTERM) is s.SIG_DFL"
    )
    stage = make([sys.executable, "-c", hears])
    drop(stage)
    stage.run()
    assert status(stage) == "merged"


def test_a_gate_that_prints_without_end_fills_no_memory_and_no_log(make: Callable[..., Stage]) -> None:
    """A hundred megabytes of what is not even UTF-8: the log keeps the end of it."""
    noisy = "import os\nfor _ in range(100): os.write(1, b'\\xff' * (1 << 20))\nraise SystemExit(3)"
    stage = make([sys.executable, "-c", noisy], limits={"attempts_max": 1})
    drop(stage)
    stage.run(code=1)
    assert status(stage) == "failed"
    assert sum(path.stat().st_size for path in (stage.state / "log").glob("*.jsonl")) < 1 << 20


# -- what an agent leaves ---------------------------------------------------------------------------------------------


def test_a_long_report_is_cut_on_its_way_into_the_log(make: Callable[..., Stage]) -> None:
    """What an agent says without end ends in its transcript; the log keeps the beginning and the task goes on."""
    stage = make()
    drop(stage, {**DOES_IT, "report": "x" * 200_000})
    stage.run()
    assert status(stage) == "merged"
    ended = stage.wait_for_event("RunEnded", run="T.1.work")
    assert len(ended["outcome"]["report"]) == REPORT_MAX


def test_no_secret_of_the_supervisors_environment_is_written_anywhere(make: Callable[..., Stage]) -> None:
    """Neither a credential nor any other variable stands in a file, and every file is for its owner only."""
    stage = make()
    stage.environment |= {"DATABASE_PASSWORD": "planted-one", "ANTHROPIC_API_KEY": "planted-two"}
    drop(stage, review="always")
    stage.run()
    assert status(stage) == "merged"
    for path in (entry for entry in stage.state.rglob("*") if entry.is_file() and not entry.is_symlink()):
        assert b"planted-" not in path.read_bytes(), path
    runs = list((stage.state / "runs").rglob("*"))
    assert {str(path): oct(path.stat().st_mode & 0o777) for path in runs if path.stat().st_mode & 0o077} == {}


# -- stopping and cancelling ------------------------------------------------------------------------------------------


def test_a_worker_that_was_stopped_in_its_tracks_does_not_outlive_a_cancellation(make: Callable[..., Stage]) -> None:
    """SIGSTOP hears no SIGTERM: after its grace it is killed, and the task may be retried."""
    stage = make(supervisor={"poll_seconds": 0.05, "stop_grace_seconds": 3.0})  # two commands fit into it
    drop(stage, {**DOES_IT, "sleep_seconds": 1.0})
    supervisor = stage.start()
    worker = held(stage)
    os.kill(worker.pid, signal.SIGSTOP)
    stage.coord("cancel", "T")
    stage.coord("retry", "T", code=4)
    ended = stage.wait_for_event("RunEnded", run="T.1.work")
    assert ended["outcome"]["ending"] == "stopped"
    assert not locks.alive(worker)
    stage.coord("retry", "T")
    stage.wait_for_event("TaskMerged", task="T")
    assert supervisor.poll() is None


def test_a_cancellation_while_a_gate_runs_ends_the_gate(make: Callable[..., Stage]) -> None:
    """The gate's process is gone when the run has ended, and nothing lands."""
    stage = make([sys.executable, "-c", "import time; time.sleep(60)"])
    drop(stage)
    stage.start()
    held(stage, "T.2.gate")
    stage.coord("cancel", "T")
    stage.wait_for_event("RunEnded", run="T.2.gate")
    assert stage.processes_of_runs() == []
    assert status(stage) == "cancelled"
    assert stage.git("rev-parse", INTEGRATION) == stage.git("rev-parse", "main")


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_log_damaged_under_a_running_supervisor_ends_it_with_code_5_and_no_further_effect(
    make: Callable[..., Stage], how: str
) -> None:
    """It says where the damage is, and starts nothing on facts that it cannot trust."""
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 1.0})
    supervisor = stage.start()
    held(stage)
    segment = min((stage.state / "log").glob("*.jsonl"))
    kept = segment.with_suffix(".kept")
    shutil.copy2(segment, kept)
    if how == "gone":
        segment.unlink()
    else:
        os.truncate(segment, segment.stat().st_size - 40)
    code = supervisor.wait(30)
    kept.replace(segment)  # for what clears up
    assert (code, str(segment) in stage.said()) == (5, True), stage.said()
    assert sorted(path.name for path in (stage.state / "runs").iterdir()) == ["T.1.work"]


def test_a_clock_that_jumps_a_week_ahead_ends_no_run(
    make: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop that slept: how long a run has taken is not told by the wall clock."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "made-up")
    stage = make()
    drop(stage, {**DOES_IT, "sleep_seconds": 1.0})
    ahead_seconds = [0.0]
    coordinator = Coordinator(stage.home, now=lambda: time.time() + ahead_seconds[0])
    supervisor = threading.Thread(target=Supervisor(coordinator, once=True).run)
    supervisor.start()
    held(stage)
    ahead_seconds[0] = 7 * 86400.0
    supervisor.join(timeout=40)
    assert stage.events("RunEnded", run="T.1.work")[0]["outcome"]["ending"] == "succeeded"
    assert status(stage) == "merged"


# -- what else may be found -------------------------------------------------------------------------------------------


def test_a_scratch_directory_that_somebody_removed_is_nothing_to_clear(make: Callable[..., Stage]) -> None:
    """With nothing to do there is nobody who makes it anew."""
    stage = make()
    (stage.state / "scratch").rmdir()
    stage.run()


def test_an_inbox_removed_under_a_running_supervisor_is_made_again(make: Callable[..., Stage]) -> None:
    """Taking the inbox away costs what was in it, and neither the supervisor nor later tasks."""
    stage = make()
    supervisor = stage.start()
    stage.wait_for_event("SupervisorStarted")
    # in one move: a slower removal would race the directories that are made again
    (stage.state / "inbox").rename(stage.directory / "inbox")
    stage.wait_for(lambda: (stage.state / "inbox").is_dir() or supervisor.poll() is not None, "inbox")
    assert supervisor.poll() is None, stage.said()
    drop(stage)
    stage.wait_for_event("TaskMerged", task="T")


def test_a_gate_that_digs_deep_is_cleared_away(make: Callable[..., Stage]) -> None:
    """Two thousand directories in each other neither cost its verdict nor stay for ever."""
    digs = "import os\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')\nopen('f', 'w').close()"
    stage = make([sys.executable, "-c", digs])
    drop(stage)
    try:
        stage.run()
        assert status(stage) == "merged"
        assert not (stage.state / "agent_workspaces/T.2.gate").exists()
        assert list((stage.state / "agent_workspaces/.trash").iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", stage.state / "agent_workspaces"], check=True)  # too deep for what clears up here


def test_without_notifications_it_looks_by_itself(tmp_path: Path) -> None:
    """A directory that cannot be watched does not keep the supervisor from starting."""
    wakeups = Wakeups([tmp_path, tmp_path / "absent"])
    wakeups.start()
    wakeups.wake()
    wakeups.wait(10.0)
    wakeups.stop()
    assert not wakeups.watching


def test_the_end_of_a_run_is_told_and_not_looked_for(tmp_path: Path) -> None:
    """A supervisor that looks by itself once an hour goes on at once: file, end of the run, file, end of the run."""
    stage = Stage(tmp_path, settings={**SCRIPTED, "supervisor": {"poll_seconds": 3600.0}}).build()
    try:
        stage.start()
        stage.wait_for_event("IntegrationCreated")
        for task in ("first", "second"):
            script = json.dumps({"sleep_seconds": 0.5, "report": "Nothing there."})
            stage.drop(id=task, kind="search", prompt=f"Look.\n\n```script\n{script}\n```\n")
            stage.wait_for_event("TaskDone", task=task)
    finally:
        stage.close()


def test_a_file_that_is_taken_does_not_hold_back_the_next(tmp_path: Path) -> None:
    """A move to a directory below is told as one move: the library sees both ends, and does not wait for the other."""
    taken = tmp_path / ".taken"
    taken.mkdir()
    told: list[tuple[str, str]] = []

    class Recording(Wakeups):
        def on_any_event(self, event: FileSystemEvent) -> None:
            told.append((event.event_type, os.fsdecode(event.dest_path)))
            super().on_any_event(event)

    wakeups = Recording([tmp_path])
    wakeups.start()
    try:
        (tmp_path / "T.json").write_text("{}")
        (tmp_path / "T.json").rename(taken / "T.json")
        deadline = time.monotonic() + 20
        while not any(kind in ("moved", "deleted") for kind, _ in told) and time.monotonic() < deadline:
            wakeups.wait(0.1)
    finally:
        wakeups.stop()
    assert ("moved", str(taken / "T.json")) in told


def test_a_place_with_a_long_odd_name_is_as_good_as_any(tmp_path: Path) -> None:
    """Spaces, quotes, signs beyond ASCII and more than a socket's path could hold."""
    stage = Stage(tmp_path / ("ein langer Weg, 'mit' \"Zeichen\" - ü 漢字 " * 3), settings=SCRIPTED).build()
    try:
        drop(stage, {**DOES_IT, "report": "\x1b[2Jwarmer\x1b]0;x\x07 with escapes"})
        stage.run()
        assert status(stage) == "merged"
        for command in (["status"], ["show", "T"], ["tasks"]):
            assert "\x1b" not in stage.coord(*command)
    finally:
        stage.close()


def test_a_place_whose_name_is_no_text_is_refused(tmp_path: Path) -> None:
    """Paths stand in requests and in the log, which are UTF-8."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xff"))
    stage = Stage(odd, settings=SCRIPTED)
    stage.make_repository()
    argv = [sys.executable, "-P", "-m", "coordination", "-C", str(stage.repository), "init"]
    done = subprocess.run(argv, env=stage.environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 4
    assert b"UTF-8" in done.stderr
