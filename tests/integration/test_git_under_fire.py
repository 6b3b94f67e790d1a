"""Repositories as they are found in the wild: does a whole task go from the inbox to merged, and is it refused if not?

The agent is scripted, all the rest is real: supervisor, workers, gates, git. Beside them stands the user, whose
checkout may be in any state; after the task it is the same to the byte.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordination.errors import Refused
from coordination.model.runs import WorkspaceRequest
from coordination.testing.stage import FILES, Stage
from coordination.workspaces import Workspaces

JSON = Any

pytestmark = pytest.mark.timeout(120)

INTEGRATION = "coordination/integration"
WARMER = FILES["greeter.py"].replace("Hello", "Good day")
WHOLE = (sys.executable, "-B", "-c", "import greeter, os; assert os.path.exists('README.md')")
OURS = (
    ".coordination/",
    ".git/logs/refs/coordination/",
    ".git/logs/refs/heads/coordination/",
    ".git/objects/",
    ".git/refs/coordination/",
    ".git/refs/heads/coordination/",
    ".git/worktrees/T",
    ".git/worktrees/U",
    ".git/worktrees/-landing",
)


def settings(**more: Mapping[str, JSON]) -> dict[str, JSON]:
    return {
        "gates": {"default": ["whole"], "whole": list(WHOLE)},
        "agents": {"backend": "scripted"},
        "supervisor": {"poll_seconds": 0.05, "stop_grace_seconds": 0.3},
        "retry": {"backoff_seconds": 0.05},
        **more,
    }


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A repository with one commit, in a path with blanks and letters of other alphabets; not yet initialised."""
    made = Stage(tmp_path / "wild wörk ж", settings=settings())
    made.make_repository()
    yield made
    if (made.state / "log").is_dir():
        made.close()


def drop(stage: Stage, task: str = "T", **write: str) -> None:
    """A task whose agent writes these files (as ``greeter.py`` becomes warmer) and is not reviewed."""
    files = write or {"greeter.py": WARMER}
    body = json.dumps({"by_purpose": {"work": {"write": files, "report": "done"}}})
    stage.drop(id=task, review="never", prompt=f"Do it.\n```script\n{body}\n```")


def merged(stage: Stage, task: str = "T") -> None:
    """Run until nothing is left to do; the task has landed, and nothing of it is left behind."""
    stage.run()
    shown = stage.show(task)
    assert shown["state"] == "merged", shown
    assert Workspaces(stage.repository / ".git", stage.state).names() == ()


def landed(stage: Stage, name: str) -> str:
    """What a file holds on the integration branch."""
    return stage.git("show", f"{INTEGRATION}:{name}")


def picture(stage: Stage) -> dict[str, tuple[int, int, bytes]]:
    """Every file of the user's, in the checkout and below ``.git``: mode, time of its last change, content."""
    found = {}
    for where, directories, names in os.walk(stage.repository):
        links = [name for name in directories if Path(where, name).is_symlink()]
        for name in (*names, *links):
            path = Path(where, name)
            shown = str(path.relative_to(stage.repository))
            if not shown.startswith(OURS):
                status = path.lstat()
                content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
                found[shown] = (status.st_mode, status.st_mtime_ns, content)
    return found


def refs(stage: Stage) -> list[str]:
    """Where the user's refs are, also those of other worktrees of the user's."""
    told = stage.git("for-each-ref", "--format=%(refname) %(objectname) %(symref)").splitlines()
    return [line for line in told if not line.startswith(("refs/coordination/", "refs/heads/coordination/"))]


# -- the user's checkout, in every state it may be in


def _dirty(stage: Stage) -> None:
    """Changed, deleted, and of another mode."""
    (stage.repository / "greeter.py").write_text("GREETING = 'mine'\n")
    (stage.repository / "README.md").unlink()


def _staged(stage: Stage) -> None:
    """Staged, staged and changed again, meant to be added, and renamed."""
    (stage.repository / "greeter.py").write_text("GREETING = 'staged'\n")
    stage.git("add", "greeter.py")
    (stage.repository / "greeter.py").write_text("GREETING = 'and again'\n")
    stage.git("mv", "README.md", "READ ME.md")
    (stage.repository / "intended").write_text("later\n")
    stage.git("add", "--intent-to-add", "intended")


def _untracked(stage: Stage) -> None:
    """Untracked and ignored files, a repository within, links and an empty directory."""
    (stage.repository / ".gitignore").write_text("*.log\n")
    (stage.repository / "x.log").write_text("ignored\n")
    (stage.repository / "new/deep").mkdir(parents=True)
    (stage.repository / "new/file").write_text("new\n")
    (stage.repository / "link").symlink_to("nowhere")
    stage.git("init", "-q", "own")
    (stage.repository / "own/file").write_text("own\n")


def _other_side(stage: Stage) -> None:
    stage.git("switch", "-q", "-c", "topic")
    stage.commit("README.md", "topic\n")
    stage.git("switch", "-q", "main")
    stage.commit("README.md", "main\n")


def _fails(stage: Stage, *arguments: str) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        stage.git(*arguments)


def _merging(stage: Stage) -> None:
    """In the midst of a merge, with a conflict that is half settled."""
    _other_side(stage)
    _fails(stage, "merge", "topic")
    assert (stage.repository / ".git/MERGE_HEAD").exists()
    (stage.repository / "README.md").write_text("half settled\n")


def _rebasing(stage: Stage) -> None:
    """In the midst of a rebase."""
    _other_side(stage)
    stage.git("switch", "-q", "topic")
    _fails(stage, "rebase", "main")
    assert (stage.repository / ".git/rebase-merge").is_dir()


def _picking(stage: Stage) -> None:
    """In the midst of picking a commit, and of looking for a bad one."""
    _other_side(stage)
    stage.git("bisect", "start")
    stage.git("bisect", "bad", "main")
    _fails(stage, "cherry-pick", "topic")
    assert (stage.repository / ".git/CHERRY_PICK_HEAD").exists()


def _detached(stage: Stage) -> None:
    """HEAD is detached, and the branch elsewhere."""
    stage.git("switch", "-q", "--detach")
    stage.commit("mine.txt", "on no branch\n")


def _locked(stage: Stage) -> None:
    """Locks that another git holds, or held when it was killed."""
    for name in ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "refs/heads/main.lock"):
        (stage.repository / ".git" / name).write_text("")


def _hidden(stage: Stage) -> None:
    """A stash, notes, another worktree at work, and bits of the index that let git look away."""
    (stage.repository / "greeter.py").write_text("stashed\n")
    stage.git("stash", "push", "-q", "-m", "for later")
    stage.git("notes", "add", "-m", "a note")
    stage.git("worktree", "add", "-q", "-b", "other", str(stage.directory / "other"))
    (stage.directory / "other/greeter.py").write_text("at work\n")
    stage.git("worktree", "lock", str(stage.directory / "other"))
    stage.git("update-index", "--skip-worktree", "README.md")
    stage.git("update-index", "--assume-unchanged", "greeter.py")
    (stage.repository / "README.md").write_text("hidden\n")
    (stage.repository / "greeter.py").write_text("hidden too\n")


def _sparse(stage: Stage) -> None:
    """Only a part is checked out, in the user's worktree alone."""
    (stage.repository / "part").mkdir()
    stage.commit("part/file.txt", "in the part\n")
    stage.git("sparse-checkout", "set", "--no-cone", "/part/")
    assert not (stage.repository / "README.md").exists()


def _packed(stage: Stage) -> None:
    """Everything packed, refs too, with a commit graph, a monitor, hooks and filters that leave a trace."""
    stage.git("gc", "-q", "--prune=now")
    stage.git("commit-graph", "write", "--reachable")
    trace = f"sh -c 'echo hooked >> \"{stage.directory}/hooked\"; cat'"
    for key in ("core.fsmonitor", "filter.x.clean", "filter.x.smudge", "diff.external", "merge.x.driver"):
        stage.git("config", key, trace)
    (stage.repository / ".git/info").mkdir(exist_ok=True)
    (stage.repository / ".git/info/attributes").write_text("* filter=x merge=x\n")
    (stage.repository / ".git/hooks").mkdir(exist_ok=True)
    for name in ("pre-commit", "post-checkout", "post-index-change", "post-merge", "reference-transaction"):
        hook = stage.repository / ".git/hooks" / name
        hook.write_text(f"#!/bin/sh\n{trace} < /dev/null\n")
        hook.chmod(0o755)


STATES = (
    _dirty,
    _staged,
    _untracked,
    _merging,
    _rebasing,
    _picking,
    _detached,
    _locked,
    _hidden,
    _sparse,
    _packed,
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__.strip("_"))
def test_the_users_checkout_is_the_same_to_the_byte(stage: Stage, state: Callable[[Stage], None]) -> None:
    """In whatever state: files, index, refs, settings, hooks and what is under way are as before; the task landed."""
    stage.initialise()
    state(stage)
    before, refs_before = picture(stage), refs(stage)
    assert {".git/index", ".git/HEAD", ".git/config"} <= set(before)
    drop(stage)
    merged(stage)
    assert landed(stage, "greeter.py") == WARMER
    after = picture(stage)
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == set()
    assert refs(stage) == refs_before
    assert not (stage.directory / "hooked").exists()


def test_a_workspace_is_whole_beside_a_sparse_checkout(stage: Stage) -> None:
    """What the user set for the own worktree does not apply to ours, also for who calls git there."""
    _sparse(stage)
    workspaces = Workspaces(stage.repository / ".git", stage.state)
    path = workspaces.ensure(WorkspaceRequest(name="T", commit=stage.git("rev-parse", "main").strip()))
    stage.git("-C", str(path), "reset", "-q", "--hard")
    assert {"README.md", "greeter.py", "part"} <= {entry.name for entry in path.iterdir()}
    assert {line[0] for line in stage.git("-C", str(path), "ls-files", "-t").splitlines()} == {"H"}
    assert stage.git("config", "core.sparseCheckout") == "true\n"
    _fails(stage, "-C", str(path), "config", "core.sparseCheckout")


# -- repositories of every kind


def _submodule(stage: Stage) -> None:
    other = stage.directory / "other"
    for arguments in (["init", "-q", str(other)], ["-C", str(other), "commit", "-q", "--allow-empty", "-m", "other"]):
        subprocess.run(["git", *arguments], check=True)
    stage.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "module")
    stage.git("commit", "-q", "-m", "A submodule")


def test_a_submodule_stays_where_it_points(stage: Stage) -> None:
    """Its link is what it was, on the branch and in the checkout; work beside it lands."""
    _submodule(stage)
    link = stage.git("ls-tree", "HEAD", "module")
    stage.initialise()
    drop(stage, **{"greeter.py": WARMER, "beside/module.txt": "beside\n"})
    merged(stage)
    assert stage.git("ls-tree", INTEGRATION, "module") == link
    assert landed(stage, "beside/module.txt") == "beside\n"
    assert stage.git("status", "--porcelain") == ""


def test_what_is_written_into_a_submodule_is_not_lost(stage: Stage) -> None:
    """No commit can hold it: instead of landing without it the task says so, and what goes is kept before it goes."""
    _submodule(stage)
    stage.initialise()
    drop(stage, **{"greeter.py": WARMER, "module/file.txt": "in the submodule\n"})
    stage.run(code=1)
    shown = stage.show("T")
    assert shown["state"] == "failed"
    assert "has files in submodules: module" in shown["reason"]
    ref = Workspaces(stage.repository / ".git", stage.state).remove("T", "T")
    assert stage.git("show", f"{ref}:module/file.txt") == "in the submodule\n"
    assert stage.git("show", f"{ref}:greeter.py") == WARMER


def test_pointers_to_large_files_stay_pointers(stage: Stage) -> None:
    """A filter that is required and whose program is not there: neither the old pointer nor a new file is changed."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"
    (stage.repository / ".gitattributes").write_text("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    stage.commit(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    stage.commit("large.bin", pointer)
    for key, value in (("clean", "git-lfs clean -- %f"), ("smudge", "git-lfs smudge -- %f"), ("required", "true")):
        stage.git("config", f"filter.lfs.{key}", value)
    stage.git("config", "filter.lfs.process", "git-lfs filter-process")
    stage.initialise()
    drop(stage, **{"greeter.py": WARMER, "other.bin": "a pointer, or what the agent takes for one\n"})
    merged(stage)
    assert landed(stage, "large.bin") == pointer
    assert landed(stage, "other.bin") == "a pointer, or what the agent takes for one\n"


def test_names_of_every_kind(stage: Stage) -> None:
    """Blanks, line feeds, other alphabets, signs that mean something to git: there before, and written by the agent."""
    odd = (
        "a b",
        "ünï ж",
        "line\nbreak",
        "-rf",
        ":(top)x",
        'quo"te',
        "tab\there",
        "back\\slash",
        "*",
        "dir with blank/ü",
    )
    for name in odd:
        path = stage.repository / "there" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (stage.repository / os.fsdecode(b"there/not\xfftext")).write_text("not text")
    stage.git("add", "-A")
    stage.git("commit", "-q", "-m", "Odd names")
    stage.initialise()
    drop(stage, **{"greeter.py": WARMER}, **{f"new/{name}": name for name in odd})
    merged(stage)
    asked = ["git", "ls-tree", "-r", "-z", "--name-only", INTEGRATION]
    listed = subprocess.run(asked, cwd=stage.repository, check=True, capture_output=True).stdout.split(b"\0")
    assert {f"{place}/{name}".encode() for name in odd for place in ("there", "new")} <= set(listed)
    assert b"there/not\xfftext" in listed


def _clash(stage: Stage) -> None:
    blobs = {name: stage.git("rev-parse", f"HEAD:{name}").strip() for name in ("README.md", "greeter.py")}
    stage.git("update-index", "--add", "--cacheinfo", f"100644,{blobs['README.md']},Notes/One.md")
    stage.git("update-index", "--add", "--cacheinfo", f"100644,{blobs['greeter.py']},notes/one.md")
    stage.git("commit", "-q", "-m", "Two names that differ in case only")
    stage.git("reset", "-q", "--hard")


@pytest.mark.parametrize("ignoring", ["false", "true"])
def test_names_that_differ_in_case_only(stage: Stage, ignoring: str) -> None:
    """Both files are there, are kept apart, and are on the branch afterwards; git may take itself for careless."""
    _clash(stage)
    stage.git("config", "core.ignoreCase", ignoring)
    stage.initialise()
    drop(stage, **{"greeter.py": WARMER, "notes/one.md": "changed\n", "notes/Two.md": "two\n"})
    merged(stage)
    assert landed(stage, "notes/one.md") == "changed\n"
    assert landed(stage, "Notes/One.md") == FILES["README.md"]
    assert landed(stage, "notes/Two.md") == "two\n"


def test_names_that_differ_in_case_only_where_the_filesystem_cannot_tell(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not worked on with one of two files: the refusal names both. (What it says of itself is made up here.)"""
    monkeypatch.setattr("coordination.workspaces.trees.folds_case", lambda _common: True)
    workspaces = Workspaces(stage.repository / ".git", stage.state)
    commit = stage.git("rev-parse", "main").strip()
    assert (workspaces.ensure(WorkspaceRequest(name="T", commit=commit)) / "greeter.py").exists()
    _clash(stage)
    with pytest.raises(Refused, match=r"Notes/One\.md, notes/one\.md differ in case only"):
        workspaces.ensure(WorkspaceRequest(name="U", commit=stage.git("rev-parse", "main").strip()))


def test_a_shallow_clone(tmp_path: Path, stage: Stage) -> None:
    """A clone without history: work lands, takes in what the branch gained, and lands again."""
    for number in range(3):
        stage.commit("README.md", f"{number}\n")
    shallow = Stage(tmp_path / "shallow", settings=settings())
    shallow.make_repository()
    subprocess.run(["rm", "-rf", str(shallow.repository)], check=True)
    source = f"file://{stage.repository}"
    subprocess.run(["git", "clone", "-q", "--depth", "1", source, str(shallow.repository)], check=True)
    assert (shallow.repository / ".git/shallow").exists()
    shallow.initialise()
    drop(shallow)
    merged(shallow)
    shallow.commit("user.txt", "the user's\n")
    drop(shallow, "U", **{"second.txt": "second\n"})
    merged(shallow, "U")
    assert {"user.txt", "second.txt"} <= set(shallow.git("ls-tree", "--name-only", INTEGRATION).split())
    assert landed(shallow, "greeter.py") == WARMER
    assert (shallow.repository / ".git/shallow").exists()
    shallow.close()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bare"], "git clone"),
        ([], "git commit --allow-empty"),
    ],
    ids=["bare", "without commits"],
)
def test_what_cannot_carry_us_is_refused_with_the_command_to_run(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    """Exit code 4, nothing is made, and the command helps."""
    stage = Stage(tmp_path)
    stage.repository.mkdir()
    subprocess.run(["git", "init", "-q", *arguments, str(stage.repository)], check=True)
    before = sorted(stage.repository.rglob("*"))
    assert sentence in stage.coord("init", code=4)
    assert sorted(stage.repository.rglob("*")) == before


def test_locks_that_a_killed_git_left_in_a_workspace(stage: Stage) -> None:
    """What a killed run left is taken over: the locks go, the file that it wrote is there, and the task lands."""
    stage.initialise()
    workspaces = Workspaces(stage.repository / ".git", stage.state)
    base = stage.git("rev-parse", "main").strip()
    path = workspaces.ensure(WorkspaceRequest(name="T", base=base, branch="coordination/task/T"))
    (path / "half.txt").write_text("half\n")
    for name in ("index.lock", "HEAD.lock"):
        (stage.repository / ".git/worktrees/T" / name).write_text("")
    drop(stage)
    merged(stage)
    assert landed(stage, "half.txt") == "half\n"


def test_many_files(stage: Stage, tier: int) -> None:
    """Two tasks on a repository large enough for the pool: both land, and the second one's trees come out of it."""
    count = 20_000 if tier > 1 else 2_500
    for number in range(count):
        path = stage.repository / f"many/{number // 100}/{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    stage.git("add", "-A")
    stage.git("commit", "-q", "-m", "Many files")
    stage.initialise()
    pool = stage.state / "pool"
    drop(stage)
    merged(stage)
    (tree, *_) = sorted(pool.glob("*/tree"))
    inodes = {path.stat().st_ino for path in pool.glob("*/tree")}
    drop(stage, "U", **{"many/0/0.txt": "changed\n"})
    merged(stage, "U")
    assert landed(stage, "many/0/0.txt") == "changed\n"
    assert landed(stage, "greeter.py") == WARMER
    assert tree.is_dir()
    assert inodes & {path.stat().st_ino for path in pool.glob("*/tree")}, "what was warm is in use"
    assert stage.git("worktree", "list").count("\n") == 2, "the user's, and the one in which work lands"


def test_many_processes_at_once(stage: Stage, tier: int) -> None:
    """Each makes a workspace, commits, removes it and makes it again; nobody fails, and each has its own work."""
    stage.initialise()
    number = 50 if tier > 1 else 10
    program = (
        "import sys; from pathlib import Path; from coordination.workspaces import Workspaces\n"
        "from coordination.model.runs import Pooling, WorkspaceRequest\n"
        "root, name, base = sys.argv[1:]; sys.stdin.read()\n"
        "branch = f'coordination/task/{name}'; pooling = Pooling(trees=3, bytes=1 << 30, files_min=1)\n"
        "request = WorkspaceRequest(name=name, base=base, branch=branch)\n"
        "workspaces = Workspaces(Path(root, '.git'), Path(root, '.coordination'), pooling=pooling)\n"
        "path = workspaces.ensure(request); (path / 'mine.txt').write_text(name)\n"
        "workspaces.commit(path, name, {'Coordination-Task': name}, branch=branch, base=base)\n"
        "workspaces.remove(name, name); path = workspaces.ensure(request)\n"
        "assert (path / 'mine.txt').read_text() == name and workspaces.changes(path) == ()\n"
    )
    base = stage.git("rev-parse", "main").strip()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(stage.repository), f"T{one}", base],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for one in range(number)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    ends = [(process.communicate(timeout=110)[1], process.returncode) for process in started]
    assert ends == [(b"", 0)] * number
    for one in range(number):
        assert stage.git("show", f"coordination/task/T{one}:mine.txt") == f"T{one}"
