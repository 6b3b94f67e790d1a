"""Does garbage collection free room and never lose a byte that has not landed: in any state, beside runs, after kills?

With real git. What is searched for afterwards are marked bytes: each file that a task wrote holds words of its own, and
every word must still be in an object that some ref reaches, or in a file of a workspace.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from coordination import cli, locks
from coordination.coordinator import Coordinator, initialise, locate
from coordination.errors import Refused
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import Ending, LandingRequest, Outcome, Purpose, WorkspaceRequest
from coordination.model.state import State
from coordination.planning.keeping import DAY_SECONDS
from coordination.supervisor import collecting, requests
from coordination.supervisor.collecting import Collector, Done, collect, survey
from coordination.testing.stage import Stage
from coordination.workspaces import Workspaces
from tests.integration.test_workspaces_killed import Scene, cut_everywhere, git, memory, scene

__all__ = ["memory", "scene"]

STATES = ("queued", "running", "waiting", "failed", "cancelled", "merged", "squashed", "done", "dependency_failed")
OURS = "coordination/integration"


class World:
    """A repository whose tasks stand where we say, since when we say, with what we say."""

    def __init__(self, root: Path) -> None:
        self.root, self.ago = root, 0.0
        if not (root / ".coordination/log").exists():
            initialise(locate(root))
        self.coordinator = Coordinator(locate(root), now=lambda: time.time() - self.ago)
        self.workspaces = self.coordinator.workspaces
        self.workspaces.ensure_integration(OURS, "main")

    def task(self, name: str, status: str, *, days: float, files: dict[str, str] | None = None) -> None:
        """A task in a state since so many days; with files, its branch has a commit of them."""
        self.ago = days * DAY_SECONDS
        self.coordinator.submit({"id": name, "prompt": "x", "kind": "search" if status == "done" else "implement"})
        commit = self.work(name, files) if files else ""
        for event in self._events(name, status, commit):
            self.coordinator.transact(partial(_said, event))
        self.ago = 0.0

    def work(self, name: str, files: dict[str, str]) -> str:
        """A commit on the task's branch, in its workspace."""
        path = self.workspace(name)
        write(path, files)
        branch, base = f"coordination/task/{name}", git(self.root, "merge-base", "main", "HEAD").strip()
        trailers = {"Coordination-Task": name}
        return self.workspaces.commit(path, f"Work {name}", trailers, branch=branch, base=base) or ""

    def workspace(self, name: str) -> Path:
        base = git(self.root, "rev-parse", "main").strip()
        return self.workspaces.ensure(WorkspaceRequest(name=name, base=base, branch=f"coordination/task/{name}"))

    def _events(self, name: str, status: str, commit: str) -> Iterator[e.AnyEvent]:
        run = f"{name}.1.work"
        planned = e.RunPlanned(task=name, run=run, purpose=Purpose.WORK, base=commit)
        ended = e.RunEnded(task=name, run=run, outcome=Outcome(ending=Ending.SUCCEEDED, commit=commit))
        approved = e.TaskApproved(task=name, evidence=e.Evidence(commit=commit))
        match status:
            case "running":
                yield planned
            case "waiting":
                yield from (planned, ended, e.TaskEscalated(task=name, reason="?"))
            case "failed" | "squashed":
                yield from (planned, ended, e.TaskFailed(task=name, reason="x"))
            case "cancelled":
                yield from (planned, ended, e.TaskCancelled(task=name))
            case "dependency_failed":
                yield e.DependencyFailed(task=name, chain=(), reason="x")
            case "done":
                yield from (planned, ended, e.TaskDone(task=name, evidence=e.Evidence(commit=""), report="x"))
            case "merged":
                yield from (planned, ended, approved, e.TaskMerged(task=name, commit=commit, merge=self.landed(commit)))
        if status == "squashed":
            self.squash(name, commit)

    def landed(self, commit: str) -> str:
        if not commit:
            return ""
        request = LandingRequest(commit=commit, branch=OURS)
        return self.workspaces.land(request, task="x", gates=lambda _directory, _commit: ()).merge

    def squash(self, name: str, commit: str) -> None:
        """Let the user bring a task's work in by hand, as one commit of his own."""
        if commit:
            tree = git(self.root, "merge-tree", "--write-tree", "main", commit).strip()
            new = git(self.root, "commit-tree", tree, "-p", "main", "-m", f"By hand: {name}").strip()
            git(self.root, "update-ref", "refs/heads/main", new)

    def session(self, name: str) -> Path:
        """What Claude Code keeps of the first run's session."""
        run = self.coordinator.state().tasks[name].runs[0]
        path = self.coordinator.home.state / "sessions" / requests.session_of(self.coordinator, run)
        write(path, {"projects/x/session.jsonl": "said\n" * 1000})
        return path

    def transcript(self, name: str) -> Path:
        directory = self.coordinator.run_directory(f"{name}.1.work")
        write(directory, {"transcript.jsonl": "said\n" * 1000, "outcome.json": "{}\n"})
        return directory / "transcript.jsonl"

    def words(self) -> set[str]:
        """All that can still be read: in objects that refs reach or that are staged, and in workspaces."""
        names = [line.split(" ")[0] for line in git(self.root, "rev-list", "--objects", "--all").splitlines()]
        for name in self.workspaces.names():
            staged = git(self.workspaces.path(name), "ls-files", "--stage").splitlines()
            names += [line.split()[1] for line in staged]
        read = subprocess.run(
            ["git", "cat-file", "--batch"],
            cwd=self.root,
            input="\n".join(names).encode(),
            capture_output=True,
            check=True,
        )
        below = (path for path in (self.root / ".coordination/agent_workspaces").rglob("*") if path.is_file())
        text = [read.stdout.decode(errors="replace"), *(path.read_text(errors="replace") for path in below)]
        return {word for part in text for word in part.split()}

    def collect(self, **how: bool) -> dict[tuple[str, str], Done]:
        """Apply; what went, and what could not."""
        done = [one for one in collect(self.coordinator, **how) if isinstance(one, Done)]
        return {(one.verdict.found.kind, one.verdict.found.name): one for one in done}


def _said(event: e.AnyEvent, _state: State) -> list[e.AnyEvent]:
    return [event]


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)


@pytest.fixture
def world(repository: Path) -> World:
    (repository / ".gitignore").write_text("*.log\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message=Ignore")
    return World(repository)


# -- in any state ----------------------------------------------------------------------------------------------------


def random_world(world: World, dice: Random) -> set[str]:
    """Tasks in all states and ages, with all that can be lost; the words that must not be."""
    words: set[str] = set()

    def word(*parts: str) -> str:
        words.add("_".join(parts))
        return "_".join(parts) + "\n"

    for number in range(7):
        name, status = f"T{number}", dice.choice(STATES)
        files = {f"{name}.txt": word(name, "committed")} if status != "done" and dice.random() < 0.8 else None
        world.task(name, status, days=dice.choice((0.0, 13.0, 15.0, 91.0)), files=files)
        if dice.random() < 0.6:
            path = world.workspace(name)
            if dice.random() < 0.4:
                git(path, "checkout", "--quiet", "--detach")
                write(path, {"lonely.txt": word(name, "on", "no", "branch")})
                git(path, "add", "--all")
                git(path, "commit", "--quiet", "--message=Lonely")
            write(path, {"README.md": word(name, "changed"), "new/deep.txt": word(name, "untracked")})
            write(path, {"some.log": word(name, "ignored")})
            if dice.random() < 0.5:
                write(path, {"staged.txt": word(name, "staged")})
                git(path, "add", "staged.txt")
                write(path, {"staged.txt": word(name, "and", "changed", "again")})
        if dice.random() < 0.4 and world.workspaces.path(name).is_dir():
            world.workspaces.remove(name, name)
        if dice.random() < 0.3 and world.coordinator.state().tasks[name].runs:
            world.session(name)
            world.transcript(name)
    return words


@pytest.mark.timeout(1500)
def test_no_byte_that_has_not_landed_is_lost(world: World, tier: int, tmp_path: Path) -> None:
    """Of tasks in any state and of any age every word is still reachable, and a second time nothing is left to go."""
    template = tmp_path / "template"
    shutil.copytree(world.root, template, symlinks=True)
    for seed in range(150 if tier > 1 else 4):
        shutil.rmtree(world.root)
        shutil.copytree(template, world.root, symlinks=True)
        made = World(world.root)
        words = random_world(made, Random(seed))
        keep = (("days", 14.0), ("gib", 0.000001 if seed % 2 else 20.0))
        made.coordinator.home.settings_file.write_text(
            '[git]\ntarget = "main"\n[keep]\n' + "".join(f"{name} = {value:f}\n" for name, value in keep)
        )
        assert words <= made.words(), f"seed {seed}: the words are there before"
        going = {(one.found.kind, one.found.name) for one in survey(made.coordinator) if one.goes}
        done = made.collect()
        assert set(done) == going, f"seed {seed}"
        assert {name: one.why for name, one in done.items() if not one.gone} == {}, f"seed {seed}"
        assert words - made.words() == set(), f"seed {seed}"
        alive = {task.id for task in made.coordinator.state().tasks.values() if not task.status.ended}
        assert not alive & {one.verdict.found.task for one in done.values()}, f"seed {seed}"
        assert {kind for kind, _ in made.collect()} <= {"kept"}, f"seed {seed}: but for what was kept just now"


# -- each thing ------------------------------------------------------------------------------------------------------


def everything(world: World) -> dict[str, Any]:
    found = (path for path in world.root.rglob("*") if path.is_file() and "objects" not in path.parts)
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in found if path.suffix != ".lock"}


def full(world: World) -> None:
    """One of each thing that goes."""
    world.task("merged", "merged", days=20, files={"merged.txt": "merged\n"})
    write(world.workspace("merged"), {"late.txt": "late\n"})
    world.task("failed", "failed", days=20, files={"failed.txt": "failed\n"})
    write(world.workspace("failed"), {"dirty.txt": "dirty\n"})
    world.task("squashed", "squashed", days=20, files={"squashed.txt": "squashed\n"})
    world.workspaces.remove("squashed", "squashed")
    world.task("empty", "failed", days=20)
    write(world.workspace("empty"), {"README.md": "changed\n"})
    world.workspaces.remove("empty", "empty")
    git(world.root, "update-ref", "refs/coordination/preserved/empty/2", "main")
    for name in ("merged", "failed"):
        world.session(name)
        world.transcript(name)


def coord(world: World, *arguments: str, code: int = 0) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = cli.run(["-C", str(world.root), *arguments])
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() + (err.getvalue() if code else "")


def test_it_says_what_goes_and_why_and_changes_nothing(world: World) -> None:
    """Each thing with its reason; only ``--apply`` does it, and then there is nothing left."""
    full(world)
    before = everything(world)
    row = json.loads(coord(world, "gc", "--json"))
    said = coord(world, "gc")
    assert everything(world) == before
    goes = {(one["kind"], one["name"].removeprefix("refs/heads/coordination/task/")) for one in row["goes"]}
    assert {name for kind, name in goes if kind == "workspace"} == {"merged", "failed"}
    assert {name for kind, name in goes if kind == "branch"} == {"merged", "squashed", "empty"}
    assert {name for kind, name in goes if kind == "transcript"} == {"merged.1.work", "failed.1.work"}
    assert len([kind for kind, _ in goes if kind == "session"]) == 2
    stays = {one["name"]: one["why"] for one in row["stays"]}
    assert "nowhere else" in stays["refs/heads/coordination/task/failed"]
    assert "nowhere else" in stays["refs/coordination/preserved/empty/1"]
    assert "workspace failed" in said
    assert "kept under a ref" in said
    assert "Nothing was changed. `coord gc --apply` does this" in said

    assert "Gone: " in coord(world, "gc", "--apply")
    assert not list((world.root / ".coordination/agent_workspaces").glob("[a-z]*"))
    assert not list((world.root / ".coordination/sessions").iterdir())
    assert not (world.root / ".coordination/runs/merged.1.work/transcript.jsonl").exists()
    assert (world.root / ".coordination/runs/merged.1.work/outcome.json").exists()
    assert {"late", "dirty", "failed", "squashed", "changed"} <= world.words()
    (kept,) = world.workspaces.kept("squashed")
    assert kept.commits == 1
    assert "squashed" in git(world.root, "show", f"{kept.ref}:squashed.txt")


def test_what_set_up_printed_goes_like_what_a_gate_printed(world: World) -> None:
    """It is printed before each gate, and may be long."""
    world.task("merged", "merged", days=20, files={"merged.txt": "merged\n"})
    directory = world.coordinator.run_directory("merged.1.work")
    write(directory, {"setup.log": "said\n" * 1000, "gate.log": "said\n", "outcome.json": "{}\n"})
    coord(world, "gc", "--apply")
    assert [path.name for path in directory.iterdir()] == ["outcome.json"]


def test_show_says_whether_the_work_of_a_task_has_landed(world: World) -> None:
    """Also when somebody brought it in by hand, and the task itself failed."""
    full(world)
    found = {
        name: json.loads(coord(world, "show", name, "--json"))["branch"] for name in ("merged", "failed", "squashed")
    }
    assert {name: branch["landed"] for name, branch in found.items()} == {
        "merged": "merged",
        "failed": None,
        "squashed": "same",
    }
    assert f"coordination/task/failed at {found['failed']['commit'][:12]}: not landed" in coord(world, "show", "failed")
    assert ": landed in other commits (same)" in coord(world, "show", "squashed")
    world.task("none", "queued", days=0)
    assert json.loads(coord(world, "show", "none", "--json"))["branch"] is None


def test_only_a_persons_word_lets_go_of_what_is_nowhere_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And only when it is old enough; then it is gone."""
    world.task("T", "failed", days=100)
    git(world.root, "switch", "--quiet", "--detach")
    write(world.root, {"only.txt": "only here\n"})
    git(world.root, "add", "--all")
    for days, number in ((95, 1), (85, 2)):
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{int(time.time() - days * DAY_SECONDS)} +0000")
        git(world.root, "commit", "--quiet", "--allow-empty", f"--message=Of {days} days ago")
        git(world.root, "update-ref", f"refs/coordination/preserved/T/{number}", "HEAD")
    git(world.root, "switch", "--quiet", "main")
    assert world.collect() == {}
    assert world.collect(alone=True) == {}
    assert list(world.collect(forget=True)) == [("kept", "refs/coordination/preserved/T/1")]
    assert world.workspaces.preserved("T") == ("refs/coordination/preserved/T/2",)


def test_an_agent_only_looks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a run nothing is let go of."""
    full(world)
    monkeypatch.setenv("COORDINATION_RUN", "log/T.1.work")
    assert "T.1.work" in coord(world, "gc", "--apply", code=4)
    coord(world, "gc")


def test_two_at_once_do_not_meet(world: World) -> None:
    """The second is told to wait."""
    with world.workspaces.sweeping():
        assert "locked by another process" in coord(world, "gc", "--apply", code=4)


# -- beside runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["workspace", "branch", "kept", "session"])
def test_what_a_run_needs_after_all_stays(world: World, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is taken up again between the look and the deed keeps everything: asked under the run's own lock."""
    world.task("T", "failed", days=20)
    path = world.workspace("T")
    write(path, {"dirty.txt": "dirty\n"})
    session = world.session("T")
    if kind != "workspace":
        world.workspaces.remove("T", "T")
        monkeypatch.setenv("GIT_COMMITTER_DATE", f"{int(time.time() - 20 * DAY_SECONDS)} +0000")
        old = git(world.root, "commit-tree", "main^{tree}", "-p", "main", "-m", "Old").strip()
        git(world.root, "update-ref", "refs/coordination/preserved/T/2", old)
        git(world.root, "update-ref", "-d", "refs/coordination/preserved/T/1")
    (one,) = [one for one in survey(world.coordinator) if one.goes and one.found.kind == kind]
    refs = git(world.root, "for-each-ref")

    became: list[Done] = []
    coordinator = Coordinator(locate(world.root))
    with world.coordinator.workspaces._place.locked("workspaces"):
        thread = threading.Thread(target=lambda: became.append(collecting._gone(coordinator, one)))
        if kind == "session":
            world.coordinator.transact(lambda state: commands.retry(state, "T"))
        thread.start()
        if kind != "session":
            world.coordinator.transact(lambda state: commands.retry(state, "T"))
    thread.join(30)
    assert not became[0].gone
    assert "no longer at its end" in became[0].why
    assert git(world.root, "for-each-ref") == refs
    assert session.is_dir()
    assert (kind == "workspace") == path.is_dir()


def test_a_session_in_use_stays(world: World) -> None:
    """Whoever holds its lock goes on with it."""
    world.task("T", "failed", days=20)
    path = world.session("T")
    held = locks.hold(Path(f"{path}.lock"))
    assert held is not None
    with held:
        (done,) = world.collect().values()
    assert (done.gone, "in use" in done.why) == (False, True)
    assert path.is_dir()
    assert {kind for kind, _ in world.collect()} == {"session"}
    assert list(path.parent.iterdir()) == [], "its lock has gone with it"


def test_a_branch_that_somebody_has_checked_out_stays(world: World, tmp_path: Path) -> None:
    """In a worktree of the user's, say; it goes when that has gone."""
    world.task("T", "failed", days=20)
    world.workspace("T")
    world.workspaces.remove("T", "T")
    git(world.root, "worktree", "add", "-q", str(tmp_path / "mine"), "coordination/task/T")
    ((name, done),) = world.collect().items()
    assert name == ("branch", "refs/heads/coordination/task/T")
    assert (done.gone, "checked out" in done.why) == (False, True)
    git(world.root, "worktree", "remove", str(tmp_path / "mine"))
    assert world.collect()[name].gone


def test_a_task_that_begins_again_finds_its_branch_made_anew(world: World) -> None:
    """What went is made again when it is needed."""
    world.task("T", "failed", days=20)
    world.workspace("T")
    assert {kind for kind, _ in world.collect()} == {"workspace", "branch"}
    path = world.workspace("T")
    assert git(path, "status", "--porcelain", "--branch") == "## coordination/task/T\n"


def test_a_workspace_that_is_needed_is_not_removed(world: World) -> None:
    """``remove`` asks under its lock, and says why it did not."""
    world.workspace("T")
    with pytest.raises(Refused, match="T stays: somebody works there"):
        world.workspaces.remove("T", "T", lambda: "somebody works there")
    assert world.workspaces.path("T").is_dir()


# -- after kills -----------------------------------------------------------------------------------------------------


def squashed(world: World) -> None:
    world.task("T", "squashed", days=20, files={"T.txt": "squashed\n"})
    world.workspaces.remove("T", "T")


def left_behind(world: World) -> None:
    world.task("T", "merged", days=20, files={"T.txt": "merged\n"})
    write(world.workspace("T"), {"late.txt": "late\n"})


def talked(world: World) -> None:
    world.task("T", "failed", days=20)
    world.session("T")
    world.transcript("T")


CUT: dict[str, tuple[Callable[[World], None], set[str]]] = {
    "squashed branch": (squashed, {"squashed"}),
    "workspace and branch": (left_behind, {"late", "merged"}),
    "session and transcript": (talked, set()),
    "all": (full, {"late", "dirty", "failed", "squashed", "changed"}),
}


@pytest.mark.timeout(1500)
@pytest.mark.parametrize(("made", "words"), CUT.values(), ids=CUT)
def test_its_death_at_every_gesture(scene: Scene, tier: int, made: Callable[[World], None], words: set[str]) -> None:
    """However it was cut, a repeat lets go of the rest, and every word is still there."""
    if made is full and tier == 1:
        pytest.skip("five minutes: --tier 2")
    git(scene.root, "update-ref", "-d", f"refs/heads/{OURS}")  # else there was a log, and it is lost
    world = World(scene.root)
    made(world)
    world.coordinator.store.log.close()

    def step() -> None:
        World(scene.root).collect()

    def check() -> None:
        again = World(scene.root)
        left = [one.found.name for one in survey(again.coordinator) if one.goes and one.found.kind != "kept"]
        assert left == []
        assert words <= again.words()
        assert again.workspaces.names() == ()
        again.coordinator.store.log.close()

    assert cut_everywhere(scene, step, check) >= 3


# -- by itself -------------------------------------------------------------------------------------------------------

SETTINGS = {"agents": {"backend": "scripted"}, "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.5}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path, settings=SETTINGS).build()
    yield made
    made.close()


def test_a_supervisor_at_rest_clears_up_behind_a_landing_that_was_killed(stage: Stage) -> None:
    """The workspace of a task that has landed goes by itself, and is kept under a ref; that of a failed one stays."""
    action = {"write": {"new.txt": "new"}}
    stage.drop(id="T", review="never", prompt=f"Do it.\n```script\n{json.dumps(action)}\n```")
    failing = json.dumps(action | {"ending": "failed"})
    stage.drop(id="F", review="never", attempts_max=1, prompt=f"Do it.\n```script\n{failing}\n```")
    stage.run(code=1)
    workspaces = Workspaces(stage.repository / ".git", stage.state)
    base = stage.git("rev-parse", "main").strip()
    made = workspaces.ensure(WorkspaceRequest(name="T", base=base, branch="coordination/task/T"))
    (made / "late.txt").write_text("late")
    supervisor = stage.start()
    stage.wait_for(lambda: not made.exists() and workspaces.preserved("T"), "end of the workspace")
    (kept,) = workspaces.preserved("T")
    assert stage.git("show", f"{kept}:late.txt") == "late"
    assert workspaces.path("F").is_dir()
    stage.coord("stop")
    assert supervisor.wait(30) == 0


def test_a_collector_begins_rarely_and_is_gone_when_told(world: World) -> None:
    """Only when something new is left over or a day is over; not when the settings say no."""
    collector = Collector(world.coordinator)
    collector.look(resting=True)
    assert collector.pid() is None, "nothing is left over, and the first day begins"
    world.task("T", "merged", days=0, files={"new.txt": "new\n"})
    world.workspace("T")
    collector.look(resting=True)
    assert collector.pid() is None, "it looked just now"

    collector = Collector(world.coordinator)
    collector.look(resting=False)
    assert collector.pid() is None, "a run is under way"
    collector.look(resting=True)
    assert collector.pid() is not None
    collector.look(resting=False)
    collector.end()
    assert collector.pid() is None

    world.coordinator.home.settings_file.write_text('[git]\ntarget = "main"\n[keep]\nby_itself = false\n')
    collector = Collector(World(world.root).coordinator)
    collector.look(resting=True)
    assert collector.pid() is None
