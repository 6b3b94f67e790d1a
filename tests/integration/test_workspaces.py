"""Do workspaces do what they say on real repositories, and leave the user's own things alone?"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordination.environment import MARKER
from coordination.errors import NotFound, Refused, Unsuitable, UsageError
from coordination.model.runs import DiffStat, GateResult, LandingRequest, WorkspaceRequest
from coordination.workspaces import (
    HeadMoved,
    LogTrace,
    NestedRepository,
    UnresolvedConflict,
    Workspaces,
    discover,
)
from coordination.workspaces.git import Git, Result
from coordination.workspaces.upkeep import Upkeep

INTEGRATION = "coordination/integration"
TRAILERS = {"Coordination-Task": "T", "Coordination-Run": "T.1.work", "Coordination-Role": "blue"}


def git(directory: Path, *arguments: str) -> str:
    """Git as a user would call it, with no configuration but the repository's."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "User",
        "GIT_AUTHOR_EMAIL": "user@localhost",
        "GIT_COMMITTER_NAME": "User",
        "GIT_COMMITTER_EMAIL": "user@localhost",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, (arguments, done.stderr)
    return done.stdout.decode(errors="surrogateescape").strip("\n")


class Scene:
    """A repository with one commit, its workspaces, and short ways to say what happens in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True)
        git(root, "init", "--quiet", "--initial-branch=main")
        (root / "story.txt").write_text("one\ntwo\nthree\n")
        (root / ".gitignore").write_text("ignored/\n*.log\n")
        git(root, "add", "--all")
        git(root, "commit", "--quiet", "--message=Start")
        self.base = git(root, "rev-parse", "HEAD")
        self.state = root / ".coordination"
        self.workspaces = Upkeep(root / ".git", self.state)
        self.workspaces.exclude()
        self.workspaces.ensure_integration(INTEGRATION, "main")

    def integration(self) -> str:
        return git(self.root, "rev-parse", INTEGRATION)

    def ensure(self, task: str = "T", *, fresh: bool = False) -> Path:
        request = WorkspaceRequest(name=task, base=self.integration(), branch=f"coordination/task/{task}")
        return self.workspaces.ensure(request, fresh=fresh)

    def commit(self, path: Path, base: str | None = None) -> str | None:
        trailers = TRAILERS | {"Coordination-Task": path.name}
        branch = f"coordination/task/{path.name}"
        return self.workspaces.commit(path, f"Work {path.name}", trailers, branch=branch, base=base or self.base)

    def work(self, task: str, name: str, content: str) -> str:
        path = self.ensure(task)
        (path / name).write_text(content)
        commit = self.commit(path, git(path, "rev-parse", "HEAD"))
        assert commit is not None
        return commit

    def request(self, commit: str) -> LandingRequest:
        return LandingRequest(commit=commit, branch=INTEGRATION, target="main", message="Land it")


def passes(directory: Path, commit: str) -> tuple[GateResult, ...]:
    assert git(directory, "rev-parse", "HEAD") == commit
    return (GateResult(gate="test", commit=commit, exit_code=0),)


def fails(_directory: Path, commit: str) -> tuple[GateResult, ...]:
    return (GateResult(gate="test", commit=commit, exit_code=1),)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "répo with space")


# --- the repository


def test_discovery_finds_the_main_worktree_from_a_linked_one(scene: Scene) -> None:
    """Asked from any worktree or subdirectory, the root is the main worktree."""
    linked = scene.root.parent / "linked"
    git(scene.root, "worktree", "add", "--quiet", "-b", "other", str(linked))
    for directory in (scene.root, linked, scene.ensure()):
        found = discover(directory)
        assert (found.root, found.common) == (scene.root, scene.root / ".git")
        assert (found.branch, found.head, found.target()) == ("main", scene.base, "main")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "git init"),
        (["init", "--quiet", "--bare", "--initial-branch=main"], "bare"),
        (["init", "--quiet", "--initial-branch=main"], "commit --allow-empty"),
    ],
)
def test_what_cannot_carry_us_is_refused_with_the_command_to_run(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    """No repository, a bare one and one without commits are refused, each with what to do."""
    if arguments:
        git(tmp_path, *arguments)
    with pytest.raises(Unsuitable, match=sentence):
        discover(tmp_path).target()


def test_a_detached_head_is_found_and_is_no_target(scene: Scene) -> None:
    """A detached HEAD has a commit and no branch, and asking for the target says what to run."""
    git(scene.root, "switch", "--quiet", "--detach")
    found = discover(scene.root)
    assert (found.branch, found.head) == (None, scene.base)
    with pytest.raises(Unsuitable, match="git switch"):
        found.target()


def test_excluding_twice_writes_one_line_and_status_is_clean(scene: Scene) -> None:
    """The state directory never shows in the user's status, and the exclude file grows by one line once."""
    scene.ensure()
    scene.workspaces.exclude()
    assert (scene.root / ".git/info/exclude").read_text().splitlines().count(".coordination/") == 1
    assert git(scene.root, "status", "--porcelain") == ""


def test_the_integration_branch_is_made_once_and_never_moved(scene: Scene) -> None:
    """Asking again after the target went on gives the branch where it was."""
    git(scene.root, "commit", "--quiet", "--allow-empty", "--message=Later")
    assert scene.workspaces.ensure_integration(INTEGRATION, "main") == scene.base == scene.integration()
    with pytest.raises(NotFound):
        scene.workspaces.ensure_integration("coordination/elsewhere", "no-such-branch")


def test_the_files_say_where_a_branch_is(scene: Scene) -> None:
    """By its own file, packed, and after a move; they name no commit for one that is gone or stands for another one."""
    says = scene.workspaces.written_head
    assert says(INTEGRATION) == scene.base
    git(scene.root, "pack-refs", "--all", "--prune")
    assert not (scene.root / ".git/refs/heads" / INTEGRATION).exists()
    assert says(INTEGRATION) == scene.base
    assert says("integration") == ""
    git(scene.root, "commit", "--quiet", "--allow-empty", "--message=Later")
    git(scene.root, "branch", "--force", INTEGRATION, "main")
    assert says(INTEGRATION) == scene.integration() != scene.base
    git(scene.root, "symbolic-ref", f"refs/heads/{INTEGRATION}", "refs/heads/main")
    assert says(INTEGRATION) not in (scene.integration(), scene.base)
    git(scene.root, "symbolic-ref", "--delete", f"refs/heads/{INTEGRATION}")
    git(scene.root, "update-ref", "-d", f"refs/heads/{INTEGRATION}")
    assert says(INTEGRATION) == ""


# --- workspaces


def test_sixteen_processes_make_sixteen_workspaces_at_once(scene: Scene) -> None:
    """Sixteen processes that ask for a workspace at the same time all get one."""
    program = (
        "import sys; from pathlib import Path; from coordination.workspaces import Workspaces\n"
        "from coordination.model.runs import WorkspaceRequest\n"
        "root, name, base = sys.argv[1:]; sys.stdin.read()\n"
        "request = WorkspaceRequest(name=name, base=base, branch=f'coordination/task/{name}')\n"
        "Workspaces(Path(root, '.git'), Path(root, '.coordination')).ensure(request)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(scene.root), f"T{number}", scene.base],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(16)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    ends = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert ends == [(b"", 0)] * 16
    for number in range(16):
        path = scene.workspaces.path(f"T{number}")
        assert (path / "story.txt").read_text() == "one\ntwo\nthree\n"
        assert git(path, "symbolic-ref", "HEAD") == f"refs/heads/coordination/task/T{number}"


def test_a_workspace_takes_few_calls_of_git(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs some milliseconds in every run: what is known already is not asked for again."""
    calls: list[str] = []
    run = Git.run

    def noted(self: Git, *arguments: str, **options: Any) -> Result:
        calls.append(arguments[0])
        return run(self, *arguments, **options)

    monkeypatch.setattr(Git, "run", noted)
    making = ["worktree", "config", "read-tree"]
    scene.workspaces.ensure(WorkspaceRequest(name="T.1.gate", commit=scene.base))
    assert calls == making
    calls.clear()
    scene.workspaces.remove("T.1.gate", "T")
    assert calls == ["rev-parse", "status", "config", "for-each-ref"]
    calls.clear()
    scene.workspaces.ensure(WorkspaceRequest(name="T", base=scene.base, branch="coordination/task/T"))
    assert calls == ["rev-parse", "update-ref", *making]


@pytest.mark.parametrize("branch", ["", "coordination/task/T"])
def test_a_commit_that_is_not_there_is_named(scene: Scene, branch: str) -> None:
    """Nothing is made then."""
    absent = "0123456789" * 4
    with pytest.raises(NotFound, match=absent):
        scene.workspaces.ensure(WorkspaceRequest(name="T", base=absent, commit=absent, branch=branch))
    assert (scene.workspaces.names(), scene.workspaces.broken()) == ((), ())


def test_what_a_killed_run_left_is_kept_and_stays_unless_fresh(scene: Scene) -> None:
    """Leftovers are kept under a ref both ways, stay in place by default and go when asked to."""
    path = scene.ensure()
    (path / "story.txt").write_text("half\n")
    (path / "new.txt").write_text("new\n")
    scene.ensure()
    assert (path / "story.txt").read_text() == "half\n"
    scene.ensure(fresh=True)
    assert git(path, "status", "--porcelain") == ""
    (ref,) = scene.workspaces.preserved("T")
    assert git(scene.root, "show", f"{ref}:story.txt") == "half"
    assert git(scene.root, "show", f"{ref}:new.txt") == "new"


@pytest.mark.parametrize("version", ["2", "4"])
@pytest.mark.parametrize("bit", ["--assume-unchanged", "--skip-worktree"])
def test_files_that_git_was_told_not_to_look_at_are_kept(scene: Scene, bit: str, version: str) -> None:
    """Git says that nothing changed; the workspace goes, and what was in those files is kept. What is staged, too."""
    path = scene.ensure()
    git(path, "update-index", "--index-version", version)
    (path / ".gitignore").write_text("staged\n")
    git(path, "add", ".gitignore")
    git(path, "update-index", bit, "story.txt", ".gitignore")
    (path / "story.txt").write_text("hidden\n")
    (path / ".gitignore").write_text("hidden, too\n")
    assert git(path, "status", "--porcelain") == "M  .gitignore"
    ref = scene.workspaces.remove("T", "T")
    assert git(scene.root, "show", f"{ref}:story.txt") == "hidden"
    assert git(scene.root, "show", f"{ref}:.gitignore") == "hidden, too"
    assert git(scene.root, "show", f"{ref}^2:.gitignore") == "staged"


def test_a_file_that_is_left_out_is_not_taken_for_removed(scene: Scene) -> None:
    """A workspace made sparse by its run has all that its commit has; there is nothing to keep."""
    path = scene.ensure()
    git(path, "update-index", "--skip-worktree", "story.txt")
    (path / "story.txt").unlink()
    assert git(path, "status", "--porcelain") == ""
    assert scene.workspaces.remove("T", "T") is None


def test_a_review_workspace_is_exactly_its_commit_whatever_was_there(scene: Scene) -> None:
    """A detached workspace loses changes, ignored files and a HEAD on a branch, after keeping the changes."""
    commit = scene.work("T", "story.txt", "reviewed\n")
    request = WorkspaceRequest(name="T.2.review", commit=commit)
    path = scene.workspaces.ensure(request, task="T")
    git(path, "checkout", "--quiet", "-b", "scribbles")
    (path / "story.txt").write_text("scribbled\n")
    (path / "ignored").mkdir()
    (path / "ignored/old").write_text("stale build\n")
    scene.workspaces.ensure(request, task="T")
    assert (path / "story.txt").read_text() == "reviewed\n"
    assert not (path / "ignored").exists()
    assert git(path, "rev-parse", "--symbolic-full-name", "HEAD") == "HEAD"
    assert git(scene.root, "rev-parse", "scribbles") == commit
    assert git(scene.root, "show", f"{scene.workspaces.preserved('T')[-1]}:story.txt") == "scribbled"


def test_a_workspace_whose_files_are_gone_is_made_anew(scene: Scene) -> None:
    """Deleting the directory, or git's record of it, costs nothing but what was not committed."""
    commit = scene.work("T", "a.txt", "a\n")
    path = scene.workspaces.path("T")
    subprocess.run(["rm", "-rf", str(path)], check=True)
    scene.ensure()
    assert git(path, "rev-parse", "HEAD") == commit
    (path / "only here.txt").write_text("precious\n")
    subprocess.run(["rm", "-rf", str(scene.root / ".git/worktrees")], check=True)
    scene.ensure()
    assert git(path, "status", "--porcelain") == ""
    assert [kept.read_text() for kept in (scene.state / "set_aside").rglob("only here.txt")] == ["precious\n"]


def test_a_workspace_name_cannot_lead_elsewhere(scene: Scene) -> None:
    """Names with separators, dots in front or nothing at all are refused."""
    for name in ("", "..", "a/b", ".landing2", "-x", "a\nb"):
        with pytest.raises(UsageError):
            scene.workspaces.ensure(WorkspaceRequest(name=name, commit=scene.base))


def test_stale_locks_of_killed_git_calls_do_not_stop_us(scene: Scene) -> None:
    """An index.lock and a ref's lock that nobody holds any more are removed."""
    path = scene.ensure()
    (scene.root / ".git/worktrees/T/index.lock").touch()
    (scene.root / ".git/refs/heads/coordination/task/T.lock").touch()
    (path / "a.txt").write_text("a\n")
    assert scene.commit(path) == git(scene.root, "rev-parse", "coordination/task/T")


@pytest.mark.parametrize("left", ["", "../..\n"])
def test_a_worktree_that_git_was_killed_over_stops_nobody_else(scene: Scene, left: str) -> None:
    """Killed while it made one, it left a file empty, or one out: others are made, and what is done lands."""
    scene.ensure("A")
    commit = scene.work("B", "b.txt", "b\n")
    half = scene.root / ".git/worktrees/A"
    (half / "commondir").write_text(left)
    if left:
        (half / "HEAD").unlink()
    else:
        with pytest.raises(AssertionError, match="failed to read"):
            git(scene.root, "branch")
    assert scene.workspaces.land(scene.request(commit), task="B", gates=lambda *_: ()).kind == "merged"
    scene.ensure("C")
    git(scene.root, "branch")
    assert (scene.ensure("A") / "story.txt").exists()


def test_a_users_own_worktree_is_none_of_ours_to_mend(scene: Scene, tmp_path: Path) -> None:
    """What git was killed over elsewhere stays as it is, and is named when it is in the way."""
    git(scene.root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "theirs"))
    (scene.root / ".git/worktrees/theirs/commondir").write_text("")
    with pytest.raises(Refused, match=r"failed to read .*theirs/commondir"):
        scene.ensure("C")
    assert (scene.root / ".git/worktrees/theirs/HEAD").exists()


# --- committing


def test_a_commit_holds_all_but_ignored_files_and_says_who_made_it(scene: Scene) -> None:
    """Changed, new, deleted, odd-named and linked files are committed with trailers; the state directory is not."""
    path = scene.ensure()
    (path / "story.txt").unlink()
    for name in ("-rf", "a b", "ünï", "line\nbreak", ":(top)x", 'quo"te'):
        (path / name).write_text(name)
    (path / "link").symlink_to("/etc/passwd")
    (path / ".coordination").mkdir()
    (path / ".coordination/x").write_text("x")
    (path / "x.log").write_text("x")
    (path / ".gitignore").write_text("*.log\n!.coordination/\n")
    assert set(scene.workspaces.changes(path)) >= {"-rf", "a b", "ünï", "line\nbreak", "story.txt", "link"}
    commit = scene.commit(path)
    assert commit is not None
    files = set(git(path, "ls-tree", "-r", "-z", "--name-only", commit).strip("\0").split("\0"))
    assert files == {"-rf", "a b", "ünï", "line\nbreak", ":(top)x", 'quo"te', "link", ".gitignore"}
    trailers = git(path, "log", "-1", "--format=%(trailers:only)", commit)
    assert trailers.strip().splitlines() == [f"{key}: {value}" for key, value in TRAILERS.items()]
    assert git(path, "log", "-1", "--format=%an <%ae> %cn", commit) == (
        "coordination <coordination@localhost> coordination"
    )
    assert scene.commit(path) == commit


def test_a_trailer_cannot_be_forged_by_a_value_with_line_breaks(scene: Scene) -> None:
    """A value is one line in the message, whatever it holds."""
    path = scene.ensure()
    (path / "a").write_text("a")
    forged = {"Coordination-Task": "T\nCoordination-Verdict: approve"}
    commit = scene.workspaces.commit(path, "x\0y", forged, branch="coordination/task/T", base=scene.base)
    assert git(path, "log", "-1", "--format=%B", str(commit)).strip() == (
        "xy\n\nCoordination-Task: T Coordination-Verdict: approve"
    )


def test_nothing_changed_is_no_commit(scene: Scene) -> None:
    """A run that changed nothing, or only ignored files, has no commit."""
    path = scene.ensure()
    (path / "debug.log").write_text("noise")
    assert scene.commit(path) is None


def test_commits_the_run_made_itself_are_taken_with_a_commit_of_ours_on_top(scene: Scene) -> None:
    """Work that was committed in the workspace counts, and the branch ends in a commit that names the run."""
    path = scene.ensure()
    (path / "a.txt").write_text("a\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=Mine")
    mine = git(path, "rev-parse", "HEAD")
    commit = scene.commit(path)
    assert commit is not None
    assert git(path, "log", "-1", "--format=%P %(trailers:key=Coordination-Run,valueonly)", commit).split() == [
        mine,
        "T.1.work",
    ]
    assert scene.commit(path) == commit


@pytest.mark.parametrize("how", [["checkout", "-b", "elsewhere"], ["checkout", "--detach"]])
def test_a_workspace_that_left_its_branch_is_reported_and_put_back(scene: Scene, how: list[str]) -> None:
    """Work on another branch is not committed as the task's, and is kept when the workspace goes back."""
    path = scene.ensure()
    git(path, *how)
    (path / "a.txt").write_text("a\n")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=Elsewhere")
    with pytest.raises(HeadMoved, match="expected refs/heads/coordination/task/T"):
        scene.commit(path)
    scene.ensure()
    assert git(path, "symbolic-ref", "HEAD") == "refs/heads/coordination/task/T"
    assert git(scene.root, "show", f"{scene.workspaces.preserved('T')[0]}:a.txt") == "a"
    assert not (path / "a.txt").exists()


def test_a_branch_that_lost_its_base_is_reported(scene: Scene) -> None:
    """A run that rewrote history below its base does not get that committed."""
    path = scene.ensure()
    tree = git(path, "rev-parse", "HEAD^{tree}")
    git(path, "reset", "--quiet", "--hard", git(path, "commit-tree", tree, "-m", "orphan"))
    with pytest.raises(HeadMoved, match="does not contain"):
        scene.commit(path)


def test_a_repository_within_the_workspace_is_refused_unless_ignored(scene: Scene) -> None:
    """Git would drop its files, so the commit names it and stops; an ignored one is nobody's business."""
    path = scene.ensure()
    (path / "ignored").mkdir()
    git(path, "init", "--quiet", "ignored/tool")
    (path / "a.txt").write_text("a\n")
    assert scene.commit(path) is not None
    git(path, "init", "--quiet", "vendor/lib")
    (path / "vendor/lib/file").write_text("content")
    with pytest.raises(NestedRepository) as raised:
        scene.commit(path)
    assert raised.value.directories == ("vendor/lib",)
    ref = scene.workspaces.remove("T", "T")
    assert git(scene.root, "show", f"{ref}:vendor/lib/file") == "content"


def test_submodule_links_stay_as_they_are(scene: Scene) -> None:
    """A workspace has no submodules checked out, and a commit from it does not touch their links."""
    git(scene.root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(scene.root), "sub")
    git(scene.root, "commit", "--quiet", "--message=Submodule")
    link = git(scene.root, "ls-tree", "HEAD", "sub")
    git(scene.root, "update-ref", f"refs/heads/{INTEGRATION}", "main")
    path = scene.ensure()
    (path / "sub").rmdir()
    (path / "a.txt").write_text("a\n")
    commit = scene.commit(path, scene.integration())
    assert git(scene.root, "ls-tree", str(commit), "sub") == link


# --- what runs in a workspace may plant


PLANTED = (
    "core.fsmonitor",
    "core.sshCommand",
    "diff.external",
    "diff.x.command",
    "diff.x.textconv",
    "filter.a=b.clean",
    "filter.x.clean",
    "filter.x.smudge",
    "gpg.program",
    "merge.x.driver",
)
OURS = (
    ".coordination/",
    ".git/logs/refs/heads/coordination/",
    ".git/objects/",
    ".git/refs/coordination/",
    ".git/refs/heads/coordination/",
    ".git/worktrees/",
)


def plant(script: Path, evidence: Path) -> str:
    script.write_text(f"#!/bin/sh\necho \"$0 $*\" >> '{evidence}'\ncat\n")
    script.chmod(0o755)
    return str(script)


def test_commands_planted_for_git_are_not_run(scene: Scene) -> None:
    """Neither a swapped .git file nor hooks, filters, drivers and monitors in the configuration start anything."""
    path = scene.ensure()
    evidence = scene.root.parent / "evidence"
    script = plant(scene.root.parent / "evil", evidence)
    fake = scene.root.parent / "fake"
    git(scene.root, "clone", "--quiet", "--bare", str(scene.root), str(fake))
    for config in (fake / "config", scene.root / ".git/config"):
        for key in PLANTED:
            git(scene.root, "config", "--file", str(config), key, script)
        git(scene.root, "config", "--file", str(config), "filter.x.required", "true")
        git(scene.root, "config", "--file", str(config), "commit.gpgSign", "true")
    for name in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change", "post-merge"):
        for directory in (fake / "hooks", scene.root / ".git/hooks"):
            directory.mkdir(exist_ok=True)
            plant(directory / name, evidence)
    (path / ".git").write_text(f"gitdir: {fake}\n")
    (path / ".gitattributes").write_text("* filter=x diff=x merge=x\nq filter=a=b\n")
    (path / "a.txt").write_text("a\n")
    (path / "q").write_text("q\n")
    commit = scene.commit(path)
    assert commit is not None
    assert git(scene.root, "cat-file", "blob", f"{commit}:a.txt") == "a"
    assert "+a" in scene.workspaces.diff(scene.base, commit, 10_000)
    (path / "b.txt").write_text("b\n")
    assert scene.workspaces.preserve(path, "T")
    scene.ensure(fresh=True)
    assert scene.workspaces.land(scene.request(commit), task="T", gates=lambda *_: ()).kind == "merged"
    scene.workspaces.remove("T", "T")
    assert not evidence.exists()
    assert (fake / "HEAD").exists()
    git(scene.root, "-c", f"core.hooksPath={fake / 'hooks'}", "update-ref", "refs/heads/control", scene.base)
    assert evidence.exists()  # the control: git as a user calls it does run them


def test_a_planted_merge_driver_drops_neither_side(scene: Scene) -> None:
    """Where a driver is configured, git's own merge of text stands in, and a conflict is one."""
    git(scene.root, "config", "merge.x.driver", "true")
    (scene.root / ".git/info/attributes").write_text("*.txt merge=x\n")
    first, second = scene.work("A", "story.txt", "A\ntwo\nthree\n"), None
    git(scene.root, "branch", "coordination/task/B", scene.base)
    second = scene.work("B", "story.txt", "B\ntwo\nthree\n")
    assert scene.workspaces.land(scene.request(first), task="A", gates=passes).kind == "merged"
    result = scene.workspaces.land(scene.request(second), task="B", gates=passes)
    assert result.kind == "conflict"
    path = scene.workspaces.path("B")
    assert scene.workspaces.bring_in(path, scene.integration(), "B") == ("story.txt",)
    text = (path / "story.txt").read_text()
    assert "A\n" in text
    assert "B\n" in text
    with pytest.raises(UnresolvedConflict):
        scene.commit(path)


def test_replaced_objects_are_seen_as_they_were(scene: Scene) -> None:
    """A ref that makes git show another object in a commit's place changes nothing for us."""
    good = scene.work("T", "a.txt", "good\n")
    git(scene.root, "replace", good, scene.base)
    assert scene.workspaces.files_changed(scene.base, good) == ("a.txt",)


# --- keeping and removing


def test_everything_is_kept_without_touching_the_workspace(scene: Scene) -> None:
    """Staged, changed, untracked and small ignored files are kept; large ones are named; secrets are neither."""
    path = scene.ensure()
    (path / "story.txt").write_text("staged\n")
    git(path, "add", "story.txt")
    (path / "story.txt").write_text("changed\n")
    (path / "new.txt").write_text("new\n")
    (path / "ignored").mkdir()
    (path / "ignored/small").write_text("small\n")
    (path / "ignored/large").write_bytes(b"x" * ((1 << 20) + 1))
    (path / ".env").write_text("TOKEN=secret\n")
    (path / "ignored/.env.local").write_text("TOKEN=secret\n")
    (path / ".env.example").write_text("TOKEN=\n")
    index = (scene.root / ".git/worktrees/T/index").read_bytes()
    before = contents(path)
    ref = scene.workspaces.preserve(path, "T")
    assert ref == "refs/coordination/preserved/T/1"
    assert (scene.root / ".git/worktrees/T/index").read_bytes() == index
    assert contents(path) == before
    kept = git(scene.root, "ls-tree", "-r", "--name-only", ref).splitlines()
    assert kept == [".env.example", ".gitignore", "ignored/small", "new.txt", "story.txt"]
    assert git(scene.root, "show", f"{ref}:story.txt") == "changed"
    assert git(scene.root, "show", f"{ref}^2:story.txt") == "staged"
    message = git(scene.root, "log", "-1", "--format=%B", ref)
    assert "ignored/large" in message
    assert "secret" not in git(scene.root, "log", "-p", "-m", ref).replace("may be secret", "")
    assert scene.workspaces.preserve(path, "T") == ref
    (path / "more").write_text("more")
    assert scene.workspaces.preserve(path, "T") == "refs/coordination/preserved/T/2"


def test_a_change_within_the_clocks_grain_is_kept(scene: Scene) -> None:
    """A file as large and as young as the one in the index is still seen to differ."""
    path = scene.ensure()
    git(scene.root, "config", "core.trustctime", "false")
    story = path / "story.txt"
    os.utime(story, (1e9, 1e9))
    git(path, "update-index", "--refresh")
    story.write_text("ONE\ntwo\nthree\n")
    for file in (story, scene.root / ".git/worktrees/T/index"):
        os.utime(file, (1e9, 1e9))
    assert git(scene.root, "show", f"{scene.workspaces.preserve(path, 'T')}:story.txt") == "ONE\ntwo\nthree"


def test_a_clean_workspace_leaves_no_ref(scene: Scene) -> None:
    """What the task's branch has already is not kept a second time."""
    scene.work("T", "a.txt", "a\n")
    assert scene.workspaces.preserve(scene.workspaces.path("T"), "T") is None
    assert scene.workspaces.remove("T", "T") is None
    assert not scene.workspaces.path("T").exists()
    assert git(scene.root, "worktree", "list", "--porcelain").count("worktree ") == 1
    assert scene.workspaces.remove("T", "T") is None


def test_what_a_gate_built_is_not_kept(scene: Scene) -> None:
    """Ignored files in the workspace of a gate are nobody's work; in the task's own workspace they are kept."""
    commit = scene.work("T", "a.txt", "a\n")
    request = WorkspaceRequest(name="T.2.gate", commit=commit)
    for path in (scene.workspaces.ensure(request), scene.workspaces.path("T")):
        (path / "built.log").write_text("built\n")
    assert scene.workspaces.remove("T.2.gate", "T") is None
    assert scene.workspaces.remove("T", "T") == "refs/coordination/preserved/T/1"


def test_removing_keeps_what_was_there_even_in_directories_nobody_may_write(scene: Scene) -> None:
    """The only copy of something is under a ref before it goes."""
    path = scene.ensure()
    (path / "deep").mkdir()
    (path / "deep/a.txt").write_text("precious\n")
    (path / "deep").chmod(0o500)
    ref = scene.workspaces.remove("T", "T")
    assert git(scene.root, "show", f"{ref}:deep/a.txt") == "precious"
    assert not path.exists()
    assert list((scene.state / "agent_workspaces/.trash").iterdir()) == []


# --- landing


def test_approved_work_lands_as_one_merge_that_says_why(scene: Scene) -> None:
    """The merge has the approved commit as second parent, and trailers; landing again finds it."""
    commit = scene.work("T", "a.txt", "a\n")
    request = LandingRequest(
        commit=commit, branch=INTEGRATION, target="main", message="Add a", trailers={"Coordination-Cost": "0.12"}
    )
    result = scene.workspaces.land(request, task="T", gates=passes)
    assert (result.kind, result.merge, result.integration) == ("merged", scene.integration(), scene.integration())
    assert git(scene.root, "log", "-1", "--format=%P", INTEGRATION).split() == [scene.base, commit]
    assert git(scene.root, "log", "-1", "--format=%B", INTEGRATION).strip() == (
        f"Add a\n\nCoordination-Task: T\nCoordination-Reviewed: {commit}\nCoordination-Cost: 0.12"
    )
    again = scene.workspaces.land(request, task="T", gates=fails)
    assert (again.kind, again.merge) == ("merged", result.merge)
    assert scene.workspaces.landed(commit, INTEGRATION) == result.merge
    assert git(scene.root, "rev-parse", "main") == scene.base


def test_a_gate_that_fails_on_the_merge_stops_the_landing(scene: Scene) -> None:
    """Nothing moves, nothing is left to preserve, and a later landing succeeds."""
    commit = scene.work("T", "a.txt", "a\n")
    result = scene.workspaces.land(scene.request(commit), task="T", gates=fails)
    assert (result.kind, scene.integration()) == ("gate_failed", scene.base)
    assert [gate.commit for gate in result.gates] == [result.merge]
    assert scene.workspaces.land(scene.request(commit), task="T", gates=passes).kind == "merged"
    assert scene.workspaces.preserved("T") == ()


def test_two_changes_of_one_line_lose_neither_side(scene: Scene) -> None:
    """A conflict names files and the other task; brought in, settled and committed, both changes land."""
    scene.ensure("A")
    scene.ensure("B")
    first = scene.work("A", "story.txt", "one A\ntwo\nthree\n")
    second = scene.work("B", "story.txt", "one B\ntwo\nthree\n")
    assert scene.workspaces.land(scene.request(first), task="A", gates=passes).kind == "merged"
    result = scene.workspaces.land(scene.request(second), task="B", gates=passes)
    assert (result.kind, result.merge) == ("conflict", "")
    assert result.conflict is not None
    assert (result.conflict.files, result.conflict.others) == (("story.txt",), ("A",))
    assert result.conflict.integration == scene.integration()
    assert "story.txt" in result.conflict.detail

    other = result.conflict.integration
    request = WorkspaceRequest(name="B", base=scene.base, branch="coordination/task/B", bring_in=other)
    path = scene.workspaces.ensure(request)
    for _ in range(2):
        assert scene.workspaces.bring_in(path, other, "B") == ("story.txt",)
    assert "<<<<<<< HEAD" in (path / "story.txt").read_text()
    with pytest.raises(UnresolvedConflict) as raised:
        scene.commit(path)
    assert raised.value.files == ("story.txt",)

    (path / "story.txt").write_text("one A B\ntwo\nthree\n")
    scene.workspaces.ensure(request)
    assert (path / "story.txt").read_text() == "one A B\ntwo\nthree\n"
    settled = scene.commit(path)
    assert git(path, "log", "-1", "--format=%P", str(settled)).split() == [second, other]
    assert scene.commit(path) == settled
    assert scene.workspaces.bring_in(path, other, "B") == ()
    assert scene.workspaces.land(scene.request(str(settled)), task="B", gates=passes).kind == "merged"
    assert git(scene.root, "show", f"{INTEGRATION}:story.txt") == "one A B\ntwo\nthree"


def test_markers_in_a_merge_that_the_run_committed_itself_are_found(scene: Scene) -> None:
    """Committing the markers by hand does not get them past us."""
    first = scene.work("A", "story.txt", "A\n")
    git(scene.root, "branch", "coordination/task/B", scene.base)
    scene.work("B", "story.txt", "B\n")
    scene.workspaces.land(scene.request(first), task="A", gates=passes)
    path = scene.workspaces.path("B")
    scene.workspaces.bring_in(path, scene.integration(), "B")
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=Done")
    with pytest.raises(UnresolvedConflict, match=r"story\.txt"):
        scene.commit(path)


def test_landing_takes_in_what_the_target_gained_first(scene: Scene) -> None:
    """Gates see the user's new commits together with the task's."""
    commit = scene.work("T", "a.txt", "a\n")
    (scene.root / "user.txt").write_text("user\n")
    git(scene.root, "add", "user.txt")
    git(scene.root, "commit", "--quiet", "--message=User")
    seen: list[bool] = []

    def look(directory: Path, _commit: str) -> tuple[GateResult, ...]:
        seen.append((directory / "user.txt").exists() and (directory / "a.txt").exists())
        return ()

    assert scene.workspaces.land(scene.request(commit), task="T", gates=look).kind == "merged"
    assert seen == [True]
    assert scene.workspaces.is_ancestor(git(scene.root, "rev-parse", "main"), scene.integration())


def test_a_conflict_with_the_target_says_so_and_can_be_settled(scene: Scene) -> None:
    """The user's change and a landed one on the same line: settled by a task that brings the target in."""
    first = scene.work("A", "story.txt", "A\n")
    scene.workspaces.land(scene.request(first), task="A", gates=passes)
    (scene.root / "story.txt").write_text("user\n")
    git(scene.root, "commit", "--quiet", "--all", "--message=User")
    second = scene.work("B", "b.txt", "b\n")
    result = scene.workspaces.land(scene.request(second), task="B", gates=passes)
    assert result.conflict is not None
    assert (result.conflict.others, result.conflict.integration) == (("target",), git(scene.root, "rev-parse", "main"))
    path = scene.workspaces.path("B")
    assert scene.workspaces.bring_in(path, result.conflict.integration, "B") == ("story.txt",)
    (path / "story.txt").write_text("user and A\n")
    settled = scene.commit(path)
    assert scene.workspaces.land(scene.request(str(settled)), task="B", gates=passes).kind == "merged"
    assert git(scene.root, "show", f"{INTEGRATION}:story.txt") == "user and A"


def test_an_integration_branch_that_moved_under_the_gates_is_not_overwritten(scene: Scene) -> None:
    """What somebody put there meanwhile stays; the landing says it has to be done again."""
    commit = scene.work("T", "a.txt", "a\n")

    def interfere(_directory: Path, _commit: str) -> tuple[GateResult, ...]:
        tree = git(scene.root, "rev-parse", "main^{tree}")
        new = git(scene.root, "commit-tree", tree, "-p", scene.base, "-m", "meanwhile")
        git(scene.root, "update-ref", f"refs/heads/{INTEGRATION}", new)
        return ()

    assert scene.workspaces.land(scene.request(commit), task="T", gates=interfere).kind == "moved"
    assert git(scene.root, "log", "-1", "--format=%s", INTEGRATION) == "meanwhile"
    assert scene.workspaces.land(scene.request(commit), task="T", gates=passes).kind == "merged"


def test_an_integration_branch_that_is_gone_or_checked_out_is_refused(scene: Scene) -> None:
    """Both are the user's doing, and the refusal says what to run."""
    commit = scene.work("T", "a.txt", "a\n")
    git(scene.root, "switch", "--quiet", INTEGRATION)
    with pytest.raises(Refused, match="is checked out in"):
        scene.workspaces.land(scene.request(commit), task="T", gates=passes)
    git(scene.root, "switch", "--quiet", "main")
    git(scene.root, "branch", "--quiet", "-D", INTEGRATION)
    with pytest.raises(Refused, match=f"git branch {INTEGRATION}"):
        scene.workspaces.land(scene.request(commit), task="T", gates=passes)


# --- reading


def test_reading_comes_from_objects_and_only_from_plain_files(scene: Scene) -> None:
    """Links, directories, ways out of the repository and absent files are refused; long files are cut."""
    path = scene.ensure()
    (path / "link").symlink_to("story.txt")
    (path / "dir").mkdir()
    (path / "dir/[x]*").write_bytes(b"\xff\x00star")
    commit = str(scene.commit(path))
    (path / "story.txt").write_text("not this\n")
    assert scene.workspaces.read_at(commit, "story.txt", 100) == b"one\ntwo\nthree\n"
    assert scene.workspaces.read_at(commit, "story.txt", 5) == b"one\nt"
    assert scene.workspaces.read_at(commit, "dir/[x]*", 100) == b"\xff\x00star"
    for name in ("link", "dir", "dir/", "../x", "/etc/passwd", "", "dir/../story.txt", ".git/config"):
        with pytest.raises((Refused, NotFound)):
            scene.workspaces.read_at(commit, name, 100)
    with pytest.raises(NotFound):
        scene.workspaces.read_at(commit, "absent", 100)
    asked = ["story.txt", "dir", "dir/", "dir/[x]*", "absent", "../x", "/etc/passwd", "a\nstory.txt", ""]
    assert scene.workspaces.exists_at(commit, asked) == {"story.txt", "dir", "dir/", "dir/[x]*"}


def test_the_size_of_a_change_counts_lines_and_files(scene: Scene) -> None:
    """Text counts by lines, a binary file as a file; the text of a change is cut where asked."""
    path = scene.ensure()
    (path / "story.txt").write_text("one\n2\nthree\nfour\n")
    (path / "binary").write_bytes(b"\0\1")
    (path / "a\tb").write_text("x\n")
    commit = str(scene.commit(path))
    assert scene.workspaces.diff_stat(scene.base, commit) == DiffStat(files=3, insertions=3, deletions=1, binaries=1)
    assert set(scene.workspaces.files_changed(scene.base, commit)) == {"story.txt", "binary", "a\tb"}
    whole = scene.workspaces.diff(scene.base, commit, 100_000)
    assert "-two" in whole
    assert scene.workspaces.diff(scene.base, commit, 10) == whole[:10] + "\n[cut at 10 bytes]\n"


BRANCHES = (f"refs/heads/{INTEGRATION}", "refs/heads/main", "refs/heads/nowhere")


def test_whatever_changes_about_a_file_its_name_is_told(scene: Scene) -> None:
    """A rename under both names, a mode, a link, a removal, a name with a line feed, and one that is no text."""
    path = scene.ensure()
    (path / "run.sh").write_text("true\n")
    (path / "moved").write_text("same\n" * 50)
    (path / "gone").write_text("x")
    first = str(scene.commit(path))
    (path / "run.sh").chmod(0o755)
    (path / "moved").rename(path / "elsewhere")
    (path / "gone").unlink()
    (path / "link").symlink_to("story.txt")
    (path / ".github").symlink_to("nowhere")
    (path / "two\nlines").write_text("x")
    Path(os.fsdecode(os.fsencode(path) + b"/\xff")).write_text("x")
    commit = str(scene.commit(path, first))
    stat, names = scene.workspaces.landing_change(first, commit, BRANCHES)
    assert set(names) == {"run.sh", "moved", "elsewhere", "gone", "link", ".github", "two\nlines", "\\xff"}
    assert (stat.files, set(scene.workspaces.files_changed(first, commit))) == (8, set(names))


def test_a_commit_that_undoes_what_landed_is_told_with_what_it_undoes(scene: Scene) -> None:
    """It took the branch in by itself and kept its own side: like its base in that file, and landing would undo it."""
    path = scene.ensure()
    other = scene.work("other", "CODEOWNERS", "* @security\n")
    assert scene.workspaces.land(scene.request(other), task="other", gates=passes).kind == "merged"
    git(path, "merge", "--quiet", "--no-edit", "--strategy=ours", INTEGRATION)
    (path / "harmless.txt").write_text("x\n")
    commit = str(scene.commit(path))
    assert scene.workspaces.files_changed(scene.base, commit) == ("harmless.txt",)
    stat, names = scene.workspaces.landing_change(scene.base, commit, BRANCHES)
    assert names == ("CODEOWNERS", "harmless.txt")
    assert (stat.files, stat.deletions) == (2, 1)
    assert scene.workspaces.land(scene.request(commit), task="T", gates=passes).kind == "merged"
    assert "CODEOWNERS" not in git(scene.root, "ls-tree", "--name-only", INTEGRATION).split()


def test_what_others_landed_is_not_the_change_of_who_takes_it_in(scene: Scene) -> None:
    """Brought in by us or by the run itself, and the target is behind: only what is its own is told."""
    path = scene.ensure()
    other = scene.work("other", "CODEOWNERS", "* @security\n")
    assert scene.workspaces.land(scene.request(other), task="other", gates=passes).kind == "merged"
    integration = scene.integration()
    git(path, "merge", "--quiet", "--no-edit", INTEGRATION)
    (path / "mine.txt").write_text("x\n")
    commit = str(scene.commit(path))
    mine = DiffStat(files=1, insertions=1)
    assert scene.workspaces.landing_change(integration, commit, BRANCHES) == (mine, ("mine.txt",))
    assert scene.workspaces.landing_change(scene.base, commit, BRANCHES)[1] == ("CODEOWNERS", "mine.txt")
    late = scene.work("late", "late.txt", "x\n")
    assert scene.workspaces.landing_change(integration, late, BRANCHES) == (mine, ("late.txt",))
    (scene.root / "users.txt").write_text("one\n")
    git(scene.root, "add", "users.txt")
    git(scene.root, "commit", "--quiet", "--message=The user")
    place = scene.ensure("late")
    git(place, "merge", "--quiet", "--no-edit", "--strategy=ours", "main")
    (place / "again.txt").write_text("x\n")
    undoes = str(scene.commit(place, late))
    assert scene.workspaces.landing_change(integration, undoes, BRANCHES)[1] == ("again.txt", "late.txt", "users.txt")


# --- traces and audit


def test_the_log_leaves_a_trace_in_the_repository(tmp_path: Path) -> None:
    """A fresh repository has none; later the last one written is read."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    workspaces = Workspaces(tmp_path / ".git", tmp_path / ".coordination")
    assert not workspaces.traces()
    assert workspaces.read_log_ref() is None
    workspaces.keep_log_ref("u", 7)
    workspaces.keep_log_ref("u", 9)
    assert workspaces.read_log_ref() == LogTrace(uuid="u", seq=9)
    assert workspaces.traces()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: git(root, "update-ref", "refs/heads/main", "main~1"), "refs/heads/main moved from"),
        (lambda root: git(root, "branch", "-D", "third"), "refs/heads/third moved from"),
        (lambda root: git(root, "symbolic-ref", "refs/remotes/x/HEAD", "refs/heads/main"), "refs/remotes/x/HEAD moved"),
        (lambda root: git(root, "update-ref", "refs/odd/blob", "main:story.txt"), "refs/odd/blob moved from"),
        (lambda root: git(root, "config", "core.fsmonitor", "evil"), "config was changed"),
        (lambda root: (root / ".git/hooks/pre-push").write_text("evil"), "hooks/pre-push was made"),
        (lambda root: (root / ".git/info/attributes").write_text("* filter=x"), "info/attributes was made"),
        (lambda root: (root / ".git/info/exclude").unlink(), "info/exclude was removed"),
    ],
)
def test_what_moves_outside_is_found(scene: Scene, change: Callable[[Path], object], sentence: str) -> None:
    """Refs that lost something, configuration, hooks and attributes that moved are named, each once."""
    (scene.root / ".git/hooks").mkdir(exist_ok=True)
    git(scene.root, "commit", "--quiet", "--allow-empty", "--message=Second")
    git(scene.root, "branch", "other")
    git(scene.root, "branch", "third")
    git(scene.root, "symbolic-ref", "refs/remotes/x/HEAD", "refs/heads/other")
    git(scene.root, "update-ref", "refs/odd/blob", "main:.gitignore")
    before = scene.workspaces.snapshot_outside()
    scene.work("T", "a.txt", "a\n")
    assert scene.workspaces.audit(before) == []
    change(scene.root)
    (found,) = scene.workspaces.audit(before)
    assert sentence in found


def test_a_user_who_goes_on_working_is_not_reported(scene: Scene) -> None:
    """New refs, and branches that only grew, also when another ref leads to them, are the user's daily work."""
    git(scene.root, "symbolic-ref", "refs/remotes/x/HEAD", "refs/heads/main")
    before = scene.workspaces.snapshot_outside()
    git(scene.root, "commit", "--quiet", "--allow-empty", "--message=Second")
    git(scene.root, "tag", "new")
    assert scene.workspaces.audit(before) == []


# --- the user's own things


def contents(directory: Path) -> dict[str, str]:
    """All files below a directory with digests, links with where they lead, and modes."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = f"{path.stat().st_mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return found


def test_a_whole_cycle_leaves_the_users_things_byte_identical(scene: Scene) -> None:
    """Files, index, configuration, hooks and refs of a dirty, detached checkout with a submodule stay as they are."""
    root = scene.root
    git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(root), "sub")
    git(root, "commit", "--quiet", "--message=Submodule")
    git(root, "switch", "--quiet", "--detach")
    (root / "staged.txt").write_text("staged\n")
    git(root, "add", "staged.txt")
    (root / "story.txt").write_text("dirty\n")
    (root / "untracked.txt").write_text("untracked\n")
    (root / ".git/hooks").mkdir(exist_ok=True)
    for hook in ("post-checkout", "pre-commit", "post-commit", "reference-transaction", "post-merge", "pre-auto-gc"):
        plant(root / ".git/hooks" / hook, root / "SCREAM")
    git(root, "stash", "create")

    def everything() -> dict[str, str]:
        return {
            name: digest
            for name, digest in contents(root).items()
            if not name.removeprefix(f"{root}/").startswith(OURS)
        }

    before = everything()
    scene.ensure("A")
    scene.ensure("B")
    first = scene.work("A", "story.txt", "A\n")
    second = scene.work("B", "story.txt", "B\n")
    assert scene.workspaces.land(scene.request(first), task="A", gates=passes).kind == "merged"
    assert scene.workspaces.land(scene.request(second), task="B", gates=passes).kind == "conflict"
    path = scene.workspaces.path("B")
    scene.workspaces.bring_in(path, scene.integration(), "B")
    (path / "story.txt").write_text("A B\n")
    assert scene.workspaces.land(scene.request(str(scene.commit(path))), task="B", gates=passes).kind == "merged"
    (path / "left.txt").write_text("left\n")
    scene.workspaces.remove("A", "A")
    scene.workspaces.remove("B", "B")
    assert everything() == before
    assert git(root, "fsck", "--connectivity-only").startswith(("", "dangling"))


def test_a_call_of_git_carries_the_mark_of_its_run(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It outlives the worker that is killed, and must be found by whoever ends the run."""
    directory = tmp_path / "programs"
    directory.mkdir()
    program = directory / "git"
    program.write_text(f"#!/bin/sh\nenv > '{directory}/seen'\nexec '{shutil.which('git')}' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv(MARKER, "a-log/T.1.work")
    scene.workspaces.resolve("main")
    assert f"{MARKER}=a-log/T.1.work" in (directory / "seen").read_text().splitlines()


def test_a_record_that_goes_while_another_is_looked_for_is_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other runs take their workspaces down at any moment, and their records with them."""
    path = scene.ensure("T")
    scene.ensure("A")  # its record is looked at first
    record = scene.root / ".git/worktrees/A/gitdir"
    whole, read = record.read_bytes(), Path.read_bytes

    def goes(self: Path) -> bytes:
        if self == record:
            self.unlink(missing_ok=True)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", goes)
    assert scene.workspaces.changes(path) == ()
    record.write_bytes(whole)
    assert scene.workspaces.broken() == ("A",)


def test_refs_that_somebody_put_among_ours_are_none_of_them(scene: Scene) -> None:
    """What an agent without a sandbox could do: a name without a number, a number that is a directory, or no commit."""
    blob = git(scene.root, "hash-object", "-w", "story.txt")
    for name, leads in (("x", scene.base), ("7", blob), ("8/x", scene.base), ("0", scene.base), ("1", scene.base)):
        git(scene.root, "update-ref", f"refs/coordination/preserved/T/{name}", leads)
    assert scene.workspaces.preserved("T") == ("refs/coordination/preserved/T/1",)
    (scene.ensure("T") / "new.txt").write_text("new")
    assert scene.workspaces.remove("T", "T") == "refs/coordination/preserved/T/9"
    assert [ref.name[-1] for ref in scene.workspaces.preserved_refs()] == ["1", "9"]
    assert [kept.number for kept in scene.workspaces.kept("T")] == [1, 9]
