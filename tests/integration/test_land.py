"""Does ``coord land`` bring what landed to the user's branch, and is nothing touched whenever something is in its way?

With real git. Every refused state is compared byte for byte before and after: files, index, refs, everything.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordination import cli
from coordination.coordinator import Coordinator
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome, Purpose
from coordination.model.state import State
from coordination.testing.stage import Stage

SETTINGS = {"agents": {"backend": "scripted"}, "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.5}}
INTEGRATION = "coordination/integration"
FILES = {
    "README.md": "# Greeter\n",
    "greeter.py": "GREETING = 'Hello'\n",
    "old.txt": "goes\n",
    "becomes_directory": "a file\n",
    "becomes_file/within.txt": "in a directory\n",
    ".gitignore": "ignored*\nbecomes_file/ignored\n",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which two tasks have landed; each test works on a copy."""
    directory = tmp_path_factory.mktemp("built")
    stage = Stage(directory, settings=SETTINGS, files=FILES).build()
    changes = {"greeter.py": "GREETING = 'Good day'\n", "new/deep/file.txt": "new\n", "ignored_by_now.txt": "kept\n"}
    stage.drop(id="A", review="never", title="Say good day", prompt=script(write=changes))
    stage.run()
    worktree = directory / "by hand"  # what no scripted agent can do: removing, and files that become directories
    stage.git("worktree", "add", "-q", str(worktree), "-b", "hand", INTEGRATION)
    for name in ("old.txt", "becomes_directory", "becomes_file"):
        subprocess.run(["git", "rm", "-q", "-r", name], cwd=worktree, check=True)
    (worktree / "becomes_directory").mkdir()
    (worktree / "becomes_directory/within.txt").write_text("now a directory\n")
    (worktree / "becomes_file").write_text("now a file\n")
    (worktree / "ignored_too.txt").write_text("kept, too\n")
    (worktree / "link").symlink_to("README.md")
    subprocess.run(["git", "add", "-A", "-f"], cwd=worktree, check=True)
    stage_commit(stage, worktree, "By hand")
    stage.git("worktree", "remove", "--force", str(worktree))
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", "hand")
    stage.git("branch", "-q", "-D", "hand")
    stage.drop(id="B", review="never", title="Say more", prompt=script(write={"more.txt": "more\n"}))
    stage.run()
    stage.close()
    return directory


def stage_commit(stage: Stage, directory: Path, message: str) -> None:
    identity = ["-c", "user.name=user", "-c", "user.email=user@localhost"]
    subprocess.run(["git", *identity, "commit", "-q", "-m", message], cwd=directory, check=True)


@pytest.fixture
def stage(built: Path, tmp_path: Path) -> Iterator[Stage]:
    """The user's repository before anything of it is on the user's branch."""
    directory = tmp_path / "stage"
    shutil.copytree(built, directory, symlinks=True)
    made = Stage(directory, settings=SETTINGS, files=FILES)
    note = made.state / "repository.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"common": str(made.repository / ".git")}))
    made.git("update-index", "--refresh")
    yield made
    made.close()


def script(**actions: Any) -> str:
    return f"Do it.\n```script\n{json.dumps(actions)}\n```"


def coord(stage: Stage, *arguments: str, code: int = 0) -> str:
    """A command in this process; what it prints. Much sooner than in one of its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", stage.environment["HOME"])
        found = cli.run(["-C", str(stage.repository), *arguments])
    assert found == code, out.getvalue() + err.getvalue()
    return out.getvalue() + (err.getvalue() if code else "")


def land(stage: Stage, *options: str, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(coord(stage, "land", "--json", *options, code=code).splitlines()[0]))


def everything(stage: Stage) -> dict[str, Any]:
    """All that there is in the repository, byte for byte, but what ``coord`` itself keeps of its own work."""
    found: dict[str, Any] = {}
    for where, directories, names in os.walk(stage.repository):
        # objects that nothing names, such as a merge that was only tried, mean nothing to git
        directories[:] = [name for name in directories if name not in (".coordination", "objects")]
        for name in (*names, *directories):
            path = Path(where, name)
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
            found[str(path.relative_to(stage.repository))] = (path.lstat().st_mode, content)
    return found


def test_it_brings_files_and_branch_and_names_each_task(stage: Stage) -> None:
    """Checkout, index and branch are as ``git merge --ff-only`` leaves them; a second time there is nothing to do."""
    new = stage.git("rev-parse", INTEGRATION).strip()
    (stage.repository / "README.md").write_text("changed, and not in the way\n")
    (stage.repository / "untracked.txt").write_text("mine\n")
    foretold = land(stage, "--dry-run")
    assert (foretold["state"], foretold["how"], foretold["new"]) == ("ready", "checkout", new)
    assert stage.git("rev-parse", "main").strip() == foretold["old"] != new

    done = land(stage)
    assert done == foretold | {"state": "landed"}
    assert [(task["task"], task["title"]) for task in done["tasks"]] == [("A", "Say good day"), ("B", "Say more")]
    assert done["diff"]["files"] == 10
    assert [step["subject"] for step in done["commits"]] == ["Land A: Say good day", "By hand", "Land B: Say more"]
    assert stage.git("rev-parse", "main", "HEAD").split() == [new, new]
    assert stage.git("symbolic-ref", "HEAD").strip() == "refs/heads/main"
    assert stage.git("status", "--porcelain").splitlines() == [" M README.md", "?? untracked.txt"]
    assert (stage.repository / "untracked.txt").read_text() == "mine\n"
    assert (stage.repository / "link").readlink() == Path("README.md")
    assert "Fast-forward" in stage.git("reflog", "-1", "main")

    assert land(stage)["state"] == "nothing"
    stage.commit("after.txt", "the user goes on\n")
    assert land(stage)["state"] == "nothing"


def test_it_says_in_words_what_landed(stage: Stage) -> None:
    """Task by task, and what is of no task."""
    said = stage.coord("land")
    assert "A  Say good day" in said
    assert "B  Say more" in said
    assert "By hand" in said
    assert "2 tasks, 3 commits: 10 files" in said
    assert "main went from" in said
    assert "Nothing to do: main has everything that landed" in stage.coord("land")


def other_branch(stage: Stage) -> None:
    stage.git("switch", "-q", "-c", "other")


def test_a_branch_that_is_checked_out_nowhere_moves_alone(stage: Stage) -> None:
    """No file and no index changes when another branch is checked out, dirty or not."""
    other_branch(stage)
    (stage.repository / "greeter.py").write_text("in the way, if this were main\n")
    before = everything(stage)
    done = land(stage)
    assert (done["state"], done["how"]) == ("landed", "branch")
    assert stage.git("rev-parse", "main").strip() == done["new"]
    moved = {name for name, found in everything(stage).items() if before.get(name) != found}
    assert moved == {".git/refs/heads/main", ".git/logs/refs/heads/main"}


# -- what stands in the way ------------------------------------------------------------------------------------------


def write(name: str, text: str = "mine\n") -> Callable[[Stage], None]:
    def touch(stage: Stage) -> None:
        path = stage.repository / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return touch


def staged(stage: Stage) -> None:
    write("greeter.py", "staged\n")(stage)
    stage.git("add", "greeter.py")
    stage.git("show", "HEAD:greeter.py")


def staged_and_put_back(stage: Stage) -> None:
    staged(stage)
    write("greeter.py", FILES["greeter.py"])(stage)


def removed(stage: Stage) -> None:
    (stage.repository / "becomes_directory").unlink()
    (stage.repository / "becomes_directory").mkdir()
    write("becomes_directory/mine.txt")(stage)


def link_in_the_way(stage: Stage) -> None:
    (stage.repository / "new").symlink_to(stage.directory)


def link_for_a_directory(stage: Stage) -> None:
    stage.git("update-ref", "refs/heads/main", INTEGRATION)  # where becomes_directory is one
    stage.git("reset", "-q", "--hard")
    base = stage.git("rev-parse", "HEAD").strip()
    (stage.repository / "becomes_directory/more.txt").write_text("more\n")
    stage.git("add", "-A")
    stage.git("commit", "-q", "-m", "More")
    stage.git("update-ref", f"refs/heads/{INTEGRATION}", "HEAD")
    stage.git("reset", "-q", "--hard", base)
    shutil.rmtree(stage.repository / "becomes_directory")
    (stage.repository / "becomes_directory").symlink_to(stage.directory)


def mailing(stage: Stage) -> None:
    patch = stage.directory / "patch"
    patch.write_text("From x\nFrom: x <x@y>\nSubject: x\n\n---\n--- a/nothing\n+++ b/nothing\n@@ -1 +1 @@\n-x\n+y\n")
    subprocess.run(["git", "am", "-q", str(patch)], cwd=stage.repository, check=False, capture_output=True)


def assumed_unchanged(stage: Stage) -> None:
    stage.git("update-index", "--assume-unchanged", "greeter.py")
    write("greeter.py", "hidden from git status\n")(stage)


def intended(stage: Stage) -> None:
    write("more.txt")(stage)
    stage.git("add", "--intent-to-add", "more.txt")


def diverged(stage: Stage) -> None:
    stage.commit("users.txt", "on main only\n")


def detached(stage: Stage) -> None:
    stage.git("switch", "-q", "--detach")


def elsewhere(stage: Stage) -> None:
    other_branch(stage)
    stage.git("worktree", "add", "-q", str(stage.directory / "another"), "main")


def merging(stage: Stage) -> None:
    stage.git("switch", "-q", "-c", "side", "main")
    stage.commit("side.txt", "x\n")
    stage.git("switch", "-q", "main")
    stage.git("merge", "-q", "--no-ff", "--no-commit", "side")


def rebasing(stage: Stage) -> None:
    stage.commit("one.txt", "x\n")
    subprocess.run(
        ["git", "-c", "sequence.editor=sed -i s/^pick/edit/", "rebase", "-q", "-i", "HEAD~1"],
        cwd=stage.repository,
        env=os.environ | {"GIT_COMMITTER_NAME": "u", "GIT_COMMITTER_EMAIL": "u@localhost"},
        check=True,
        capture_output=True,
    )
    stage.git("update-ref", "refs/heads/main", "main~1")  # else it is diverged as well


def bisecting(stage: Stage) -> None:
    stage.git("bisect", "start")


def bisecting_elsewhere(stage: Stage) -> None:
    other_branch(stage)
    stage.git("worktree", "add", "-q", str(stage.directory / "another"), "main")
    subprocess.run(["git", "bisect", "start"], cwd=stage.directory / "another", check=True, capture_output=True)
    subprocess.run(["git", "switch", "-q", "--detach"], cwd=stage.directory / "another", check=True)


def conflicted(stage: Stage) -> None:
    write("README.md", "stashed\n")(stage)
    stage.git("stash", "push", "-q")
    stage.git("commit", "-q", "--allow-empty", "-m", "x")
    stage.git("update-ref", "refs/heads/main", "main~1")
    blob = stage.git("hash-object", "-w", "README.md").strip()
    entries = "".join(f"100644 {blob} {number}\tREADME.md\n" for number in (1, 2, 3))
    subprocess.run(
        ["git", "update-index", "--index-info"],
        cwd=stage.repository,
        input=f"0 {'0' * 40}\tREADME.md\n{entries}".encode(),
        check=True,
    )


def locked(stage: Stage) -> None:
    (stage.repository / ".git/index.lock").touch()


def no_integration(stage: Stage) -> None:
    stage.git("update-ref", "-d", f"refs/heads/{INTEGRATION}")


def no_target(stage: Stage) -> None:
    other_branch(stage)
    stage.git("branch", "-q", "-D", "main")


REFUSED: dict[str, tuple[Callable[[Stage], None], str, tuple[str, ...]]] = {
    "a changed file": (write("greeter.py"), "greeter.py", ("greeter.py",)),
    "a changed file that is to go": (write("old.txt"), "old.txt", ("old.txt",)),
    "a staged change": (staged, "greeter.py", ("greeter.py",)),
    "a staged change, the file as it was": (staged_and_put_back, "greeter.py", ("greeter.py",)),
    "an intended file": (intended, "more.txt", ("more.txt",)),
    "an untracked file": (write("more.txt"), "more.txt", ("more.txt",)),
    "an untracked file that is the same": (write("more.txt", "more\n"), "more.txt", ("more.txt",)),
    "an ignored file": (write("ignored_too.txt"), "ignored_too.txt", ("ignored_too.txt",)),
    "a file in the place of a directory": (write("new"), "new", ("new",)),
    "a directory in the place of a file": (write("more.txt/mine"), "more.txt/mine", ("more.txt/mine",)),
    "an ignored file in a directory that goes": (write("becomes_file/ignored"), "ignored", ("becomes_file/ignored",)),
    "a link in the place of a directory": (link_in_the_way, "new", ("new",)),
    "a link where a directory was": (link_for_a_directory, "becomes_directory", ("becomes_directory",)),
    "patches from mails": (mailing, "am is under way", ()),
    "a directory where a file was": (removed, "becomes_directory", ("becomes_directory",)),
    "a change that git was told to overlook": (assumed_unchanged, "greeter.py", ("greeter.py",)),
    "a target with commits of its own": (diverged, "1 commit(s)", ()),
    "a detached HEAD": (detached, "detached", ()),
    "the target in another worktree": (elsewhere, "another worktree", ()),
    "a merge": (merging, "merge is under way", ()),
    "a rebase": (rebasing, "rebase is under way", ()),
    "a bisect": (bisecting, "bisect is under way", ()),
    "a bisect in another worktree": (bisecting_elsewhere, "bisect is under way", ()),
    "conflicts": (conflicted, "conflicts are not settled", ("README.md",)),
    "git at work": (locked, "index.lock", ()),
    "no integration branch": (no_integration, "coord start", ()),
    "no target": (no_target, "there is no branch main", ()),
}


@pytest.mark.parametrize(("touch", "said", "paths"), REFUSED.values(), ids=REFUSED)
def test_what_stands_in_the_way_is_named_and_nothing_is_changed(
    stage: Stage, touch: Callable[[Stage], None], said: str, paths: tuple[str, ...]
) -> None:
    """Exit code 4, what and where, what to do; every byte of the repository is as before."""
    touch(stage)
    before = everything(stage)
    looked = land(stage, "--dry-run", code=4)
    assert everything(stage) == before
    found = land(stage, code=4)
    assert everything(stage) == before
    assert (found["state"], found["unfinished"]) == ("refused", False)
    assert said in found["reason"] + found["remedy"]
    assert found["remedy"]
    assert tuple(found["paths"]) == paths
    assert looked == found
    assert said in coord(stage, "land", code=4)
    assert not (stage.state / "land.json").exists()


def test_what_is_in_the_target_in_commits_of_its_own_has_landed(stage: Stage) -> None:
    """A squash, as hosts make it of a pull request: nothing is left to bring, and nobody is told to merge."""
    tree = stage.git("rev-parse", f"{INTEGRATION}^{{tree}}").strip()
    squash = stage.git("commit-tree", tree, "-p", "main", "-m", "Squashed").strip()
    stage.git("reset", "-q", "--hard", squash)
    found = land(stage)
    assert (found["state"], found["tasks"]) == ("nothing", [])
    assert "commits of its own" in found["reason"]


def test_a_person_lands_and_never_an_agent(stage: Stage) -> None:
    """Inside a run it is refused; looking is not."""
    stage.environment["COORDINATION_RUN"] = f"{stage.uuid}/A.1.work"
    assert "A.1.work" in stage.coord("land", code=4)
    assert json.loads(stage.coord("land", "--dry-run", "--json"))["state"] == "ready"


def test_while_a_task_lands_it_waits_unless_told(stage: Stage) -> None:
    """What lands just now belongs to what a person expects; ``--now`` brings what is there."""
    coordinator = Coordinator(stage.home)
    coordinator.submit({"id": "C", "prompt": "x"})
    commit = stage.git("rev-parse", "main").strip()
    for number, purpose in ((1, Purpose.WORK), (2, Purpose.LANDING)):
        run = f"C.{number}.{purpose}"
        events: list[e.AnyEvent] = [e.RunPlanned(task="C", run=run, purpose=purpose, commit=commit)]
        if purpose is Purpose.WORK:
            ended = Outcome(ending=Ending.SUCCEEDED, commit=commit)
            events.append(e.RunEnded(task="C", run=run, outcome=ended))
            events.append(e.TaskApproved(task="C", evidence=e.Evidence(commit=commit)))
        for event in events:
            coordinator.transact(partial(_said, event))
    before = everything(stage)
    found = land(stage, code=4)
    assert everything(stage) == before
    assert "C.2.landing is under way" in found["reason"]
    assert "coord land --now" in found["remedy"]
    assert land(stage, "--dry-run", "--now")["state"] == "ready"
    assert land(stage, "--now")["state"] == "landed"


def _said(event: e.AnyEvent, _state: State) -> list[e.AnyEvent]:
    return [event]


# -- pull requests ---------------------------------------------------------------------------------------------------

GH = """#!/bin/sh
printf '%s\\n' "$@" >> '{said}'
echo . >> '{said}'
case "$2" in
list) cat '{open}' 2> /dev/null || echo '[]' ;;
create) cat >> '{said}'; echo 'Creating pull request'; echo https://example.org/pull/1 ;;
esac
"""


@pytest.fixture
def host(stage: Stage) -> Stage:
    """A remote on this disk, and a ``gh`` that writes down what it is asked."""
    directory = stage.directory / "bin"
    directory.mkdir()
    (directory / "gh").write_text(GH.format(said=stage.directory / "said", open=stage.directory / "open"))
    (directory / "gh").chmod(0o755)
    stage.environment["PATH"] = f"{directory}:{stage.environment['PATH']}"
    subprocess.run(["git", "init", "-q", "--bare", str(stage.directory / "remote.git")], check=True)
    stage.git("remote", "add", "upstream", str(stage.directory / "remote.git"))
    return stage


def pushed(stage: Stage) -> list[str]:
    return stage.git("ls-remote", "upstream").split()


def test_a_pull_request_is_pushed_and_opened_and_nothing_moves_here(host: Stage) -> None:
    """The integration branch goes to the remote, as a dry run said before; main and the checkout stay."""
    before = everything(host)
    foretold = host.coord("land", "--pr", "--dry-run")
    assert "Would push coordination/integration to upstream and open a pull request into main" in foretold
    assert not (host.directory / "said").exists() or "create" not in (host.directory / "said").read_text()
    assert pushed(host) == []

    said = host.coord("land", "--pr")
    assert "Pull request opened: https://example.org/pull/1" in said
    assert pushed(host) == [host.git("rev-parse", INTEGRATION).strip(), f"refs/heads/{INTEGRATION}"]
    asked = (host.directory / "said").read_text().split("\n.\n")
    assert asked[0].split("\n") == [
        *["pr", "list", "--base", "main", "--head", "coordination/integration", "--state", "open"],
        "--json",
        "url",
    ]
    assert asked[1].split("\n")[:8] == [
        *("pr", "create", "--base", "main", "--head", "coordination/integration", "--title", "Land 2 tasks")
    ]
    assert "- `A` Say good day (+" in asked[2]
    assert "- `B` Say more (+" in asked[2]
    moved = {name for name, found in everything(host).items() if before.get(name) != found}
    assert {name for name in moved if not name.startswith((".git/refs/remotes", ".git/logs/refs/remotes"))} == set()


def test_a_pull_request_that_is_open_is_updated(host: Stage) -> None:
    """A repeat pushes what came since and opens no second one."""
    (host.directory / "open").write_text('[{"url":"https://example.org/pull/7"}]')
    found = json.loads(host.coord("land", "--pr", "--json"))
    assert found["pull_request"]["state"] == "updated"
    assert found["pull_request"]["url"] == "https://example.org/pull/7"
    assert "create" not in (host.directory / "said").read_text()
    assert [task["task"] for task in found["tasks"]] == ["A", "B"]


def test_the_users_own_pre_push_hook_decides(host: Stage) -> None:
    """What looks at what leaves the machine is not left out."""
    hook = host.repository / ".git/hooks/pre-push"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no secrets, please' >&2; exit 1\n")
    hook.chmod(0o755)
    assert "no secrets, please" in host.coord("land", "--pr", code=4)
    assert pushed(host) == []
    assert not (host.directory / "said").exists()


def test_without_gh_or_a_remote_nothing_is_pushed(stage: Stage) -> None:
    """Both are named with what to do, before anything leaves the machine."""
    stage.environment["PATH"] = f"{stage.directory}/bin:/usr/bin:/bin"
    if shutil.which("gh", path=stage.environment["PATH"]) is None:
        assert "https://cli.github.com" in stage.coord("land", "--pr", code=4)
    (stage.directory / "bin").mkdir()
    (stage.directory / "bin/gh").write_text("#!/bin/sh\nexit 1\n")
    (stage.directory / "bin/gh").chmod(0o755)
    assert "remote add origin" in stage.coord("land", "--pr", code=4)
