"""Does a repeat finish what a kill cut short, at every gesture of every verb, with real git?

A gesture is whatever changes the world: a git call, a file written, made, renamed or removed. A forked child does one
step and dies before its first gesture, then before its second, and so on until the step ends uncut; after each death
the step is done again in full and everything it promises is checked.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordination import worker
from coordination.errors import LockHeld
from coordination.model.runs import (
    Ending,
    GateCommand,
    GateResult,
    LandingRequest,
    Limits,
    MemberRequest,
    Outcome,
    Pooling,
    Purpose,
    RunRequest,
    WorkspaceRequest,
)
from coordination.workspaces import Workspaces
from coordination.workspaces.upkeep import Upkeep

INTEGRATION = "coordination/integration"
CUT, BROKEN = 9, 70
GESTURES = {"subprocess.Popen", "os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=directory, capture_output=True, check=True, timeout=60
    ).stdout.decode()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A repository at a fixed place, so that a copy of it can be put back before each cut."""

    root: Path

    @property
    def workspaces(self) -> Upkeep:
        return Upkeep(self.root / ".git", self.root / ".coordination")

    def rev(self, name: str) -> str:
        return git(self.root, "rev-parse", name).strip()

    def ensure(self, task: str, *, fresh: bool = False) -> Path:
        request = WorkspaceRequest(name=task, base=self.rev("main"), branch=f"coordination/task/{task}")
        return self.workspaces.ensure(request, fresh=fresh)

    def commit(self, task: str) -> str | None:
        path = self.workspaces.path(task)
        trailers = {"Coordination-Task": task}
        branch = f"coordination/task/{task}"
        return self.workspaces.commit(path, f"Work {task}", trailers, branch=branch, base=self.rev("main"))

    def land(self, task: str) -> str:
        commit = self.rev(f"coordination/task/{task}")
        request = LandingRequest(commit=commit, branch=INTEGRATION, target="main", message=f"Land {task}")
        return self.workspaces.land(request, task=task, gates=_passes).kind

    def preserved(self, task: str, name: str) -> set[str]:
        refs = self.workspaces.preserved(task)
        held = [ref for ref in refs if name in git(self.root, "ls-tree", "-r", "--name-only", ref).splitlines()]
        return {git(self.root, "show", f"{ref}:{name}") for ref in held}


def _passes(_directory: Path, commit: str) -> tuple[GateResult, ...]:
    return (GateResult(gate="test", commit=commit, exit_code=0),)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """Where syncing costs nothing, if there is such a place: processes die here, power does not fail."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shared) as directory:
        yield Path(directory)


@pytest.fixture
def scene(memory: Path) -> Scene:
    root = memory / "repo"
    root.mkdir()
    git(root, "init", "--quiet", "--initial-branch=main", "--template=")
    (root / "story.txt").write_text("one\ntwo\n")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message=Start")
    made = Scene(root=root)
    made.workspaces.exclude()
    made.workspaces.ensure_integration(INTEGRATION, "main")
    return made


def cut_everywhere(
    scene: Scene,
    step: Callable[[], object],
    check: Callable[[], None],
    *,
    repeat: Callable[[], object] | None = None,
    which: range = range(1, 1000),
) -> int:
    """Cut the step before its first, second, … gesture; after each, repeat and check. Returns how many there were."""
    template = scene.root.with_name("template")
    shutil.copytree(scene.root, template, symlinks=True)
    for number in which:
        ended = _in_child(step, number)
        assert ended in (0, CUT), f"the step failed by itself at gesture {number}"
        if ended == CUT:
            (repeat or step)()
        check()
        if ended == 0:
            return number - 1
        shutil.rmtree(scene.root)
        shutil.copytree(template, scene.root, symlinks=True)
    raise AssertionError("a step of a thousand gestures")


def _in_child(step: Callable[[], object], number: int) -> int:
    child = os.fork()
    if child == 0:
        _arm(number)
        try:
            step()
        except BaseException:  # noqa: BLE001  a forked child must not go on as a second test run
            traceback.print_exc()
            os._exit(BROKEN)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _arm(number: int) -> None:
    left = number

    def gesture(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in GESTURES:
            left -= 1
            if left == 0:
                os._exit(CUT)

    sys.addaudithook(gesture)


def test_making_a_workspace(scene: Scene) -> None:
    """However it was cut, the workspace is there, clean, on its branch at the base, and git knows no other."""

    def check() -> None:
        path = scene.workspaces.path("T")
        assert git(path, "status", "--porcelain", "--branch") == "## coordination/task/T\n"
        assert scene.rev("coordination/task/T") == scene.rev("main")
        assert git(scene.root, "worktree", "list", "--porcelain").count("worktree ") == 2
        assert scene.workspaces.preserved("T") == ()

    assert cut_everywhere(scene, lambda: scene.ensure("T"), check) >= 5


def test_making_a_used_workspace_fresh(scene: Scene) -> None:
    """However it was cut, the workspace is clean and the only copy of what was there is kept."""
    path = scene.ensure("T")
    git(path, "checkout", "--quiet", "--detach")
    (path / "story.txt").write_text("changed\n")
    (path / "new.txt").write_text("new\n")
    (path / ".git").unlink()
    (path / ".git").symlink_to("elsewhere")

    def check() -> None:
        assert git(path, "status", "--porcelain", "--branch") == "## coordination/task/T\n"
        assert "changed\n" in scene.preserved("T", "story.txt")  # a cut between two steps of the reset keeps more
        assert scene.preserved("T", "new.txt") == {"new\n"}

    assert cut_everywhere(scene, lambda: scene.ensure("T", fresh=True), check) >= 10


def test_committing(scene: Scene) -> None:
    """However it was cut, the work is one commit on the branch."""
    path = scene.ensure("T")
    (path / "story.txt").write_text("changed\n")
    (path / "new.txt").write_text("new\n")

    def check() -> None:
        assert git(scene.root, "log", "--format=%s", "main..coordination/task/T") == "Work T\n"
        assert git(scene.root, "show", "coordination/task/T:new.txt") == "new\n"
        assert git(path, "status", "--porcelain") == ""

    assert cut_everywhere(scene, lambda: scene.commit("T"), check) >= 5


def _conflict(scene: Scene) -> Path:
    for task in ("A", "B"):
        (scene.ensure(task) / "story.txt").write_text(f"{task}\ntwo\n")
        scene.commit(task)
    assert scene.land("A") == "merged"
    return scene.workspaces.path("B")


def test_bringing_in_the_other_side(scene: Scene) -> None:
    """However it was cut, both sides are in the file and the merge is under way."""
    path = _conflict(scene)
    other = scene.rev(INTEGRATION)

    def check() -> None:
        assert scene.workspaces.bring_in(path, other, "B") == ("story.txt",)
        assert "A\n" in (path / "story.txt").read_text()
        assert "B\n" in (path / "story.txt").read_text()
        assert git(path, "rev-parse", "MERGE_HEAD").strip() == other

    assert cut_everywhere(scene, lambda: scene.workspaces.bring_in(path, other, "B"), check) >= 5


def test_committing_a_settled_conflict(scene: Scene) -> None:
    """However it was cut, there is one commit with both parents and no merge is under way."""
    path = _conflict(scene)
    other, before = scene.rev(INTEGRATION), scene.rev("coordination/task/B")
    scene.workspaces.bring_in(path, other, "B")
    (path / "story.txt").write_text("A and B\ntwo\n")

    def check() -> None:
        assert git(scene.root, "log", "-1", "--format=%P", "coordination/task/B").split() == [before, other]
        assert git(scene.root, "show", "coordination/task/B:story.txt") == "A and B\ntwo\n"
        assert not list((scene.root / ".git/worktrees/B").glob("MERGE_*"))

    assert cut_everywhere(scene, lambda: scene.commit("B"), check) >= 8


def test_landing(scene: Scene) -> None:
    """However it was cut, the commit is merged exactly once and nothing that had landed is lost."""
    (scene.ensure("T") / "new.txt").write_text("new\n")
    commit = scene.commit("T")
    (scene.root / "user.txt").write_text("user\n")
    git(scene.root, "add", "--all")
    git(scene.root, "commit", "--quiet", "--message=User")

    def check() -> None:
        merges = git(scene.root, "log", "--first-parent", "--format=%s|%P", INTEGRATION).splitlines()
        assert [line.split("|")[0] for line in merges] == ["Land T", "Take in main", "Start"]
        assert merges[0].split()[-1] == commit
        assert git(scene.root, "ls-tree", "-r", "--name-only", INTEGRATION).split() == [
            "new.txt",
            "story.txt",
            "user.txt",
        ]
        assert scene.workspaces.preserved("T") == ()

    assert cut_everywhere(scene, lambda: scene.land("T"), check) >= 15


@pytest.mark.timeout(180)
def test_landing_several(scene: Scene) -> None:
    """However it was cut, of three that land together two are merged once each, the bad one is not, nothing is lost."""
    commits = {}
    for task in ("A", "B", "C"):
        (scene.ensure(task) / f"{task}.txt").write_text(f"{task}\n")
        commits[task] = str(scene.commit(task))
    (scene.root / "user.txt").write_text("user\n")
    git(scene.root, "add", "--all")
    git(scene.root, "commit", "--quiet", "--message=User")
    others = [MemberRequest(task=task, commit=commits[task], message=f"Land {task}") for task in ("B", "C")]
    request = LandingRequest(
        commit=commits["A"], branch=INTEGRATION, target="main", message="Land A", batch=tuple(others)
    )
    told: dict[str, str] = {}

    def without_b(directory: Path, commit: str, _names: object) -> tuple[GateResult, ...]:
        return (GateResult(gate="test", commit=commit, exit_code=int((directory / "B.txt").exists())),)

    def land() -> None:
        results = scene.workspaces.land_batch(request, task="A", gates=without_b)
        told.update({task: result.kind for task, result in results.items()})

    def check() -> None:
        if told:  # nothing is told by one that was cut; what is told afterwards is told of each
            assert told == {"A": "merged", "B": "gate_failed", "C": "merged"}
        merges = git(scene.root, "log", "--first-parent", "--format=%s|%P", INTEGRATION).splitlines()
        assert [line.split("|")[0] for line in merges] == ["Land C", "Land A", "Take in main", "Start"]
        assert [line.split()[-1] for line in merges[:2]] == [commits[task] for task in ("C", "A")]
        assert git(scene.root, "ls-tree", "-r", "--name-only", INTEGRATION).split() == [
            *("A.txt", "C.txt", "story.txt", "user.txt")
        ]
        assert git(scene.root, "show", "coordination/task/B:B.txt") == "B\n"
        told.clear()

    assert cut_everywhere(scene, land, check) >= 40


@pytest.mark.timeout(600)
def test_a_worker_that_lands_several(scene: Scene, tier: int, figure: Callable[..., None]) -> None:
    """However the worker was cut, another one lands each once, tells what became of each, and clears up after them."""
    commits = {}
    for task in ("A", "B", "C"):
        (scene.ensure(task) / f"{task}.txt").write_text(f"{task}\n")
        commits[task] = str(scene.commit(task))
    gate = GateCommand(name="unit", argv=("test", "!", "-e", "B.txt"))
    others = [MemberRequest(task=task, commit=commits[task], gates=("unit",)) for task in ("B", "C")]
    landing = LandingRequest(
        commit=commits["A"], branch=INTEGRATION, target="main", gates=("unit",), batch=tuple(others)
    )
    told: list[Outcome] = []

    def land() -> None:
        number = len(list((scene.root / ".coordination").glob("runs/*"))) + 1
        directory = scene.root / f".coordination/runs/A.{number}.landing"
        directory.mkdir(parents=True)
        request = RunRequest(
            run=directory.name,
            task="A",
            purpose=Purpose.LANDING,
            token=number,
            repository=str(scene.root / ".git"),
            state_directory=str(scene.root / ".coordination"),
            workspace=WorkspaceRequest(name=directory.name),
            limits=Limits(),
            gates=(gate,),
            landing=landing,
        )
        told.append(worker.work(request, directory, worker.Stop(directory / "stop.json")))

    def check() -> None:
        for outcome in told:
            assert (outcome.ending, outcome.commit) == (Ending.SUCCEEDED, scene.rev(f"{INTEGRATION}^"))
            failed, merged = outcome.batch
            assert (failed.task, failed.kind, merged.task, merged.kind) == ("B", "gate_failed", "C", "merged")
            assert "gate 'unit' exited 1" in failed.reason
            assert merged.merge == scene.rev(INTEGRATION)
        merges = git(scene.root, "log", "--first-parent", "--format=%s|%P", INTEGRATION).splitlines()
        assert [line.split("|")[0] for line in merges] == ["Land C", "Land A", "Start"]
        assert [line.split()[-1] for line in merges[:2]] == [commits["C"], commits["A"]]
        assert scene.workspaces.names() == ("B",)
        told.clear()

    every = 1 if tier == 2 else 9
    gestures = cut_everywhere(scene, land, check, which=range(1, 1000, every))
    figure("landing", "gestures of a worker that lands several, each cut", gestures // every, note=f"every {every}")
    assert gestures >= 60


def test_making_the_branch_again(scene: Scene) -> None:
    """However it was cut, the branch that somebody removed is where it was, and what was on it is kept."""
    (scene.ensure("T") / "new.txt").write_text("new\n")
    scene.commit("T")
    assert scene.land("T") == "merged"
    merge = scene.rev(INTEGRATION)
    scene.workspaces.remember(merge)
    git(scene.root, "update-ref", "-d", f"refs/heads/{INTEGRATION}")

    def again() -> None:
        standing = scene.workspaces.standing(INTEGRATION, "main", {merge: "T"})
        assert standing.head or standing.again
        if standing.again:
            scene.workspaces.ensure_integration(INTEGRATION, "main", start=standing.again)
        scene.workspaces.remember(scene.rev(INTEGRATION))

    def check() -> None:
        assert scene.rev(INTEGRATION) == scene.rev("refs/coordination/landed") == merge

    assert cut_everywhere(scene, again, check) >= 5


def test_removing(scene: Scene) -> None:
    """However it was cut, the workspace is gone, git has forgotten it, and what was in it is kept."""
    (scene.ensure("T") / "new.txt").write_text("new\n")

    def check() -> None:
        assert not scene.workspaces.path("T").exists()
        assert git(scene.root, "worktree", "list", "--porcelain").count("worktree ") == 1
        assert not list((scene.root / ".git").glob("worktrees/*"))
        assert list((scene.root / ".coordination/agent_workspaces/.trash").iterdir()) == []
        assert scene.preserved("T", "new.txt") == {"new\n"}

    assert cut_everywhere(scene, lambda: scene.workspaces.remove("T", "T"), check) >= 10


def _recycling(scene: Scene) -> Workspaces:
    pooling = Pooling(trees=2, bytes=1 << 30, files_min=1)
    return Workspaces(scene.root / ".git", scene.root / ".coordination", pooling=pooling)


def _used(scene: Scene) -> WorkspaceRequest:
    """A workspace with work in it that no branch has, and another commit that is asked for next."""
    (scene.root / "later.txt").write_text("later\n")
    git(scene.root, "add", "--all")
    git(scene.root, "rm", "--quiet", "story.txt")
    git(scene.root, "commit", "--quiet", "--message=Later")
    path = scene.workspaces.ensure(WorkspaceRequest(name="T", commit=scene.rev("main~1")))
    (path / "story.txt").write_text("changed\n")
    (path / "new.txt").write_text("new\n")
    (path / "deep").mkdir()
    (path / "deep/er.txt").write_text("deeper\n")
    return WorkspaceRequest(name="U", commit=scene.rev("main"))


def _check_recycled(scene: Scene, path: Path, names: set[str]) -> None:
    assert {entry.name for entry in path.iterdir()} == {".git", *names}
    assert git(path, "status", "--porcelain", "--ignored") == ""
    assert git(path, "ls-files").split() == sorted(names)
    assert "changed\n" in scene.preserved("T", "story.txt")
    assert scene.preserved("T", "new.txt") == {"new\n"}
    assert scene.preserved("T", "deep/er.txt") == {"deeper\n"}
    assert git(scene.root, "worktree", "list", "--porcelain").count("worktree ") == 2
    assert [entry.name for entry in (scene.root / ".git/worktrees").iterdir()] == [path.name]
    assert list((scene.root / ".coordination/agent_workspaces/.trash").iterdir()) == []


@pytest.mark.timeout(300)
def test_passing_a_tree_on(scene: Scene, tier: int, seed: int) -> None:
    """However it was cut: all of the one workspace is kept, nothing of it is in the other one, nothing is left over."""
    wanted = _used(scene)
    workspaces = _recycling(scene)

    def step() -> None:
        workspaces.remove("T", "T")
        workspaces.ensure(wanted)

    def check() -> None:
        _check_recycled(scene, workspaces.path("U"), {"later.txt"})
        # a repeat that had nothing to take has not looked; whoever gives or takes next removes what was left
        workspaces.remove("U", "U")
        pool = scene.root / ".coordination/pool"
        assert {entry.name for entry in pool.iterdir()} <= {"1", "2"}

    which = range(1, 1000) if tier > 1 else range(1 + seed % 3, 1000, 3)  # every day another third of them
    assert cut_everywhere(scene, step, check, which=which) >= 30


def test_a_workspace_that_is_wanted_again_while_its_tree_is_passed_on(scene: Scene, tier: int, seed: int) -> None:
    """However its removal was cut, it is made again, and holds its commit and nothing else."""
    _used(scene)
    workspaces = _recycling(scene)
    again = WorkspaceRequest(name="T", commit=scene.rev("main~1"))

    def check() -> None:
        _check_recycled(scene, workspaces.ensure(again), {"story.txt"})

    which = range(1, 1000) if tier > 1 else range(1 + seed % 3, 1000, 3)
    cuts = cut_everywhere(scene, lambda: workspaces.remove("T", "T"), check, repeat=lambda: None, which=which)
    assert cuts >= 20


def test_a_landing_waits_for_another_and_says_so(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two landings do not share the workspace: the second is refused while the first runs its gates."""
    monkeypatch.setattr("coordination.workspaces.landing.LOCK_SECONDS", 0.05)
    (scene.ensure("T") / "new.txt").write_text("new\n")
    scene.commit("T")

    def refused() -> None:
        with pytest.raises(LockHeld):
            scene.land("T")

    def meanwhile(_directory: Path, _commit: str) -> tuple[GateResult, ...]:
        assert _in_child(refused, 10**6) == 0
        return ()

    request = LandingRequest(commit=scene.rev("coordination/task/T"), branch=INTEGRATION, message="Land T")
    assert scene.workspaces.land(request, task="T", gates=meanwhile).kind == "merged"
