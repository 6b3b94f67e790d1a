"""Does everything come back that was kept, somewhere new, and is what is in a branch under other commits recognised?"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordination import cli
from coordination.coordinator import initialise, locate
from coordination.model.runs import WorkspaceRequest
from coordination.workspaces.containment import identity
from coordination.workspaces.upkeep import Upkeep
from tests.integration.test_workspaces_killed import Scene as CutScene
from tests.integration.test_workspaces_killed import cut_everywhere, git, memory
from tests.integration.test_workspaces_killed import scene as cut

__all__ = ["cut", "memory"]

LATER = "written later\n"


class Scene:
    """A repository with coordination and one task, whose workspace was taken down with something in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".gitignore").write_text("*.log\n")
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "story.txt").write_text("".join(f"line {number}\n" for number in range(40)))
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message=Story")
        initialise(locate(root))
        self.workspaces = Upkeep(root / ".git", root / ".coordination")
        self.coord("submit", "--id", "T", "--kind", "implement", "Do it.")

    def coord(self, *arguments: str, code: int = 0) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            found = cli.run(["-C", str(self.root), *arguments])
        assert found == code, out.getvalue() + err.getvalue()
        return out.getvalue() + (err.getvalue() if code else "")

    def json(self, *arguments: str) -> Any:
        return json.loads(self.coord(*arguments, "--json"))

    def workspace(self) -> Path:
        branch = "coordination/task/T"
        return self.workspaces.ensure(WorkspaceRequest(name="T", base=self.rev("main"), branch=branch))

    def rev(self, name: str) -> str:
        return git(self.root, "rev-parse", name).strip()


@pytest.fixture
def scene(repository: Path) -> Scene:
    return Scene(repository)


def lose(scene: Scene) -> None:
    """Everything that can be lost with a workspace: changed, staged, removed, untracked, ignored, and commits."""
    path = scene.workspace()
    git(path, "checkout", "--quiet", "--detach")
    (path / "committed.txt").write_text("on no branch\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=On no branch")
    (path / "story.txt").write_text("changed\n")
    (path / "staged.txt").write_text("staged\n")
    git(path, "add", "staged.txt")
    (path / "new").mkdir()
    (path / "new/untracked.txt").write_text("untracked\n")
    (path / "ignored.log").write_text("ignored, and new\n")
    (path / "link").symlink_to("/nowhere")
    (path / "run.sh").chmod(0o755)
    (path / "README.md").unlink()
    (path / ".env").write_text("SECRET=1\n")
    assert scene.workspaces.remove("T", "T") == "refs/coordination/preserved/T/1"
    assert not path.exists()


BACK = {
    "story.txt": "changed\n",
    "staged.txt": "staged\n",
    "new/untracked.txt": "untracked\n",
    "ignored.log": "ignored, and new\n",
    "committed.txt": "on no branch\n",
    "run.sh": "#!/bin/sh\n",
    ".gitignore": "*.log\n",
}


def files(directory: Path) -> dict[str, str]:
    found = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    named = {str(path.relative_to(directory)): path.read_text() for path in found}
    return {name: text for name, text in named.items() if not name.startswith(".git/") and name != ".git"}


def test_what_is_kept_is_told_with_the_command_that_brings_it_back(scene: Scene) -> None:
    """When, of which workspace, which files and how large, commits on no branch, and what was not kept."""
    assert scene.json("restore", "T", "--list")["kept"] == []
    assert "Nothing is kept of T" in scene.coord("restore", "t", "--list")
    lose(scene)
    (kept,) = scene.json("restore", "T", "--list")["kept"]
    assert (kept["ref"], kept["number"], kept["workspace"]) == ("refs/coordination/preserved/T/1", 1, "T")
    assert (kept["files"], kept["commits"]) == (7, 1)
    assert kept["bytes"] == len("changed\nstaged\nuntracked\nignored, and new\n/nowhere#!/bin/sh\n") == 60
    assert kept["left_out"] == [".env"]
    assert kept["at"].endswith("Z")
    shown = scene.coord("show", "T")
    assert (
        "7 files (60 bytes) in no commit: README.md, ignored.log, link, new/untracked.txt, run.sh and 2 more" in shown
    )
    assert "1 commits on no branch; not kept: 1" in shown
    assert "coord restore T --ref 1 --to DIRECTORY" in shown
    assert scene.json("show", "T")["kept"] == [kept]


def test_it_comes_back_as_files(scene: Scene, tmp_path: Path) -> None:
    """All of them, as they were, in a directory of its own that no git knows; nothing else changes."""
    lose(scene)
    before = _users(scene)
    place = tmp_path / "back"
    said = scene.coord("restore", "T", "--to", str(place))
    assert files(place) == BACK
    assert (place / "link").readlink() == Path("/nowhere")
    assert (place / "run.sh").stat().st_mode & 0o111
    assert not (place / "README.md").exists()
    assert ".env" in said
    assert _users(scene) == before


def _users(scene: Scene) -> list[str]:
    """What nobody asked to be changed."""
    asked = (["for-each-ref"], ["worktree", "list"], ["status", "--porcelain", "--ignored"], ["diff", "HEAD"])
    return [git(scene.root, *arguments) for arguments in asked]


def test_it_comes_back_as_a_branch(scene: Scene) -> None:
    """With the commits that were on no branch below it; the checkout stays where it is."""
    lose(scene)
    head = git(scene.root, "symbolic-ref", "HEAD")
    scene.coord("restore", "T", "--branch", "again")
    assert git(scene.root, "show", "again:new/untracked.txt") == "untracked\n"
    assert git(scene.root, "log", "-1", "--format=%s", "again~1").strip() == "On no branch"
    assert git(scene.root, "symbolic-ref", "HEAD") == head
    assert git(scene.root, "status", "--porcelain") == ""
    assert scene.json("restore", "T", "--list")["kept"][0]["commits"] == 0, "now they are on a branch"


def test_it_comes_back_as_a_worktree(scene: Scene, tmp_path: Path) -> None:
    """On a new branch, in a new directory, where git works as ever."""
    lose(scene)
    scene.coord("restore", "T", "--to", str(tmp_path / "tree"), "--branch", "again")
    assert git(tmp_path / "tree", "status", "--porcelain", "--branch") == "## again\n"
    assert files(tmp_path / "tree") == BACK


def test_an_older_one_can_be_chosen(scene: Scene, tmp_path: Path) -> None:
    """By its number; without one the newest comes."""
    lose(scene)
    (scene.workspace() / "story.txt").write_text(LATER)
    scene.workspaces.remove("T", "T")
    for option, text in (([], LATER), (["--ref", "1"], "changed\n"), (["--ref", "2"], LATER)):
        place = tmp_path / "_".join(["back", *option])
        scene.coord("restore", "T", "--to", str(place), *option)
        assert (place / "story.txt").read_text() == text
    assert "there are: 1, 2" in scene.coord("restore", "T", "--ref", "3", "--branch", "x", code=3)


def test_nothing_that_exists_is_touched(scene: Scene, tmp_path: Path) -> None:
    """Not a directory, not even an empty one, not a file or a link, not a branch; and nothing goes among our own."""
    lose(scene)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for taken in (tmp_path / "empty", tmp_path / "link", scene.root, scene.root / "story.txt"):
        assert "is there already" in scene.coord("restore", "T", "--to", str(taken), code=4)
    for ours in (scene.root / ".git/new", scene.root / ".coordination/runs/new"):
        assert "name another directory" in scene.coord("restore", "T", "--to", str(ours), code=4)
    assert "is no directory" in scene.coord("restore", "T", "--to", str(tmp_path / "no/such"), code=4)
    refs = git(scene.root, "for-each-ref")
    assert "already" in scene.coord("restore", "T", "--branch", "main", code=4)
    assert "already" in scene.coord("restore", "T", "--branch", "main", "--to", str(tmp_path / "new"), code=4)
    for name in ("coordination/task/U", "a b", "-x", "main/below"):
        assert scene.coord("restore", "T", f"--branch={name}", code=4 if name == "main/below" else 2)
    assert "--to DIRECTORY or --branch NAME" in scene.coord("restore", "T", code=2)
    assert git(scene.root, "for-each-ref") == refs
    assert list((tmp_path / "empty").iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_a_person_restores_and_never_an_agent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside a run only looking is allowed; of unknown tasks nothing is known."""
    assert scene.coord("restore", "nobody", "--list", code=3)
    assert "nothing is kept of T" in scene.coord("restore", "T", "--branch", "x", code=3)
    lose(scene)
    monkeypatch.setenv("COORDINATION_RUN", "log/T.1.work")
    assert "T.1.work" in scene.coord("restore", "T", "--branch", "x", code=4)
    scene.coord("restore", "T", "--list")


def test_a_directory_comes_whole_or_not_at_all(cut: CutScene, tmp_path: Path) -> None:
    """However it was cut, and a repeat brings it."""
    place = tmp_path / "back"
    path = cut.ensure("T")
    (path / "new.txt").write_text("new\n")
    kept = cut.workspaces.remove("T", "T")
    assert kept
    commit = cut.rev(kept)

    def step() -> None:
        if not place.exists():
            cut.workspaces.restore(commit, cut.root, directory=place, branch="")
        assert files(place) == {"new.txt": "new\n", "story.txt": "one\ntwo\n"}

    def check() -> None:
        assert list(tmp_path.iterdir()) == [place]
        shutil.rmtree(place)

    assert cut_everywhere(cut, step, check) >= 5


# -- what is in a branch under other commits -------------------------------------------------------------------------


def commit(scene: Scene, **changes: str | None) -> None:
    for name, text in changes.items():
        path = scene.root / f"{name}.txt"
        path.write_text(text) if text is not None else path.unlink()
    git(scene.root, "add", "--all")
    git(scene.root, "commit", "--quiet", "--message=A change")


def story(**changed: str) -> str:
    return "".join(changed.get(f"line{number}", f"line {number}\n") for number in range(40))


def start(scene: Scene) -> None:
    git(scene.root, "switch", "--quiet", "--create", "work")
    commit(scene, story=story(line3="three\n"), new="new\n")
    commit(scene, story=story(line3="three\n", line30="thirty\n"))
    git(scene.root, "switch", "--quiet", "main")


def merged(scene: Scene) -> None:
    git(scene.root, "merge", "--quiet", "--no-ff", "--message=Merge", "work")


def squashed(scene: Scene) -> None:
    git(scene.root, "merge", "--quiet", "--squash", "work")
    git(scene.root, "commit", "--quiet", "--message=Squashed")


def squashed_then_changed(scene: Scene) -> None:
    commit(scene, other="before\n")
    squashed(scene)
    commit(scene, story=story(line3="drei\n", line30="dreissig\n"), new="neu\n")


def picked(scene: Scene) -> None:
    commit(scene, other="before\n")
    git(scene.root, "cherry-pick", "main..work")
    commit(scene, story=story(line3="drei\n", line30="dreissig\n"), new="neu\n")


def nothing(scene: Scene) -> None:
    commit(scene, other="else\n")


def half_picked(scene: Scene) -> None:
    git(scene.root, "cherry-pick", "work~1")


def other_blanks(scene: Scene) -> None:
    commit(scene, story=story(line3="three\n", line30=" thirty\n"), new="new\n")
    commit(scene, story=story(line3="3\n", line30="30\n"))


def same_lines_differently(scene: Scene) -> None:
    commit(scene, story=story(line3="drei\n", line30="thirty\n"), new="new\n")


def forged(scene: Scene) -> None:
    """A file that looks like a commit of a log, behind a lone carriage return, takes nobody in."""
    commit(scene, other=f"x\r{'a' * 40}\rdiff --git a/new.txt b/new.txt\r\n")


def unrelated(scene: Scene) -> None:
    git(scene.root, "switch", "--quiet", "--orphan", "orphan")
    commit(scene, story=story(line3="three\n", line30="thirty\n"), new="new\n")
    git(scene.root, "branch", "--quiet", "--force", "main", "orphan")
    git(scene.root, "switch", "--quiet", "main")


CONTAINED: dict[str, tuple[Callable[[Scene], None], str]] = {
    "merged": (merged, "merged"),
    "squashed": (squashed, "same"),
    "squashed, and changed since": (squashed_then_changed, "squashed"),
    "picked one by one, and changed since": (picked, "rebased"),
    "not at all": (nothing, ""),
    "the first of two": (half_picked, ""),
    "with other blanks": (other_blanks, ""),
    "the same lines with other words": (same_lines_differently, ""),
    "a forged log": (forged, ""),
    "no common history": (unrelated, ""),
}


@pytest.mark.parametrize(("done", "how"), CONTAINED.values(), ids=CONTAINED)
def test_whether_a_branch_has_a_change(scene: Scene, done: Callable[[Scene], None], how: str) -> None:
    """By ancestry, by what a merge would add, or by its patches; anything else is not contained."""
    start(scene)
    done(scene)
    assert scene.workspaces.contained(scene.rev("work"), scene.rev("main")) == how


def test_a_patch_is_what_it_does() -> None:
    """Neither line numbers nor object names make a difference; blanks, modes and names do."""
    patch = b"diff --git a/x b/x\nindex 11..22 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ def f\n a\n-b\n+c\n"
    moved = patch.replace(b"11..22", b"33..44").replace(b"-1,2 +1,2 @@ def f", b"-9,2 +8,2 @@ def g")
    assert identity(patch) == identity(moved) == identity(b"\n" + patch + b"\n")
    for was, now in ((b"+c", b"+ c"), (b"+c", b"+c\r"), (b"b/x", b"b/y"), (b" a\n", b" a\n \n")):
        assert identity(patch.replace(was, now)) != identity(patch)
