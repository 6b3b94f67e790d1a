"""What set-up lends to a workspace never becomes a commit or a kept tree, and a gate leaves nothing to the next one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from coordination.errors import Refused
from coordination.model.runs import WorkspaceRequest
from coordination.workspaces import Workspaces

BRANCH = "coordination/task/T"


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, check=True, timeout=30)
    return done.stdout.decode().strip("\n")


class Lent:
    """A workspace of a task with a file and a directory that are lent to it, and work of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = git(root, "rev-parse", "HEAD")
        self.workspaces = Workspaces(root / ".git", root / ".coordination", private=("odd [*] name.env", "made"))
        self.workspaces.exclude()
        self.path = self.workspaces.ensure(WorkspaceRequest(name="T", base=self.base, branch=BRANCH))
        (self.path / "odd [*] name.env").write_text("secret")
        (self.path / "made").mkdir(exist_ok=True)
        (self.path / "made" / "thing").write_text("secret")
        self.workspaces.note_set_up(self.path)

    def commit(self) -> str | None:
        return self.workspaces.commit(self.path, "Work", {"Coordination-Task": "T"}, branch=BRANCH, base=self.base)

    def objects(self) -> str:
        """Names of everything that the repository holds, reachable or not by a branch."""
        return git(self.root, "rev-list", "--all", "--objects", "--reflog")


@pytest.fixture
def lent(repository: Path) -> Lent:
    return Lent(repository)


def test_lent_files_are_no_change_and_no_work(lent: Lent) -> None:
    """A workspace with nothing else in it has nothing to commit, and nothing to keep."""
    assert lent.workspaces.changes(lent.path) == ()
    assert lent.commit() is None
    assert lent.workspaces.preserve(lent.path, "T") is None


def test_lent_files_are_not_committed_with_the_rest(lent: Lent) -> None:
    """Not when git was told not to ignore them, and not when they were staged."""
    (lent.path / ".gitignore").write_text("!*\n")
    (lent.path / "work").write_text("work")
    git(lent.path, "add", "--all", "--force")
    commit = lent.commit()
    assert commit is not None
    assert git(lent.root, "ls-tree", "-r", "--name-only", commit).split() == [".gitignore", "README.md", "work"]
    assert "made" not in lent.objects()


def test_a_run_that_committed_lent_files_by_itself_is_refused(lent: Lent) -> None:
    """Its history has them: taking them out at its end would not help."""
    git(lent.path, "add", "--all", "--force")
    git(lent.path, "commit", "-q", "-m", "mine")
    (lent.path / "work").write_text("work")
    with pytest.raises(Refused, match=r"committed made/thing, odd .* name.env, which"):
        lent.commit()


def test_a_name_that_the_repository_has_itself_is_like_any_other(repository: Path) -> None:
    """Then nothing is lent under it, and work on it is work."""
    (repository / "made").mkdir()
    (repository / "made" / "thing").write_text("public")
    git(repository, "add", "--all")
    git(repository, "commit", "-q", "-m", "made")
    lent = Lent(repository)
    assert lent.workspaces.tracked(lent.path, ("made", "odd [*] name.env")) == ("made",)
    assert lent.workspaces.changes(lent.path) == ("made/thing",)
    commit = lent.commit()
    assert commit is not None
    assert git(repository, "show", f"{commit}:made/thing") == "secret"


def test_lent_files_are_never_kept(lent: Lent) -> None:
    """Not as they are, and not as they were staged; what else is there is kept, and what was left out is named."""
    (lent.path / ".gitignore").write_text("ignored\n")
    (lent.path / "ignored").write_text("kept")
    (lent.path / "work").write_text("staged")
    (lent.path / ".env.local").write_text("secret")
    git(lent.path, "add", "--all", "--force")
    (lent.path / "work").write_text("kept")
    ref = lent.workspaces.preserve(lent.path, "T")
    assert ref is not None
    assert git(lent.root, "ls-tree", "-r", "--name-only", ref).split() == [".gitignore", "README.md", "ignored", "work"]
    assert git(lent.root, "show", f"{ref}^2:work") == "staged"
    for secret in ("made", "odd [*] name.env", ".env.local"):
        assert secret not in lent.objects()
        assert secret in git(lent.root, "log", "-1", "--format=%B", ref)


def test_lent_files_stay_while_a_workspace_is_cleaned_for_a_merge(lent: Lent) -> None:
    """They are lent once for the life of a workspace."""
    (lent.root / "other").write_text("theirs")
    git(lent.root, "add", "--all")
    git(lent.root, "commit", "-q", "-m", "theirs")
    (lent.path / "left").write_text("left")
    lent.workspaces.bring_in(lent.path, git(lent.root, "rev-parse", "HEAD"), "T")
    assert (lent.path / "other").exists()
    assert not (lent.path / "left").exists()
    assert (lent.path / "odd [*] name.env").read_text() == "secret"
    assert (lent.path / "made" / "thing").exists()
    assert lent.workspaces.is_set_up(lent.path)


def test_a_repository_within_what_is_lent_is_nobodys(lent: Lent) -> None:
    """Packages are fetched as repositories, too."""
    git(lent.path / "made", "init", "-q")
    (lent.path / "work").write_text("work")
    assert lent.commit() is not None


def test_a_workspace_that_is_made_anew_is_not_set_up(lent: Lent) -> None:
    """Nor is one that was cleaned of everything."""
    lent.workspaces.remove("T", "T")
    path = lent.workspaces.ensure(WorkspaceRequest(name="T", base=lent.base, branch=BRANCH))
    assert not lent.workspaces.is_set_up(path)
    detached = WorkspaceRequest(name="G", commit=lent.base)
    path = lent.workspaces.ensure(detached)
    lent.workspaces.note_set_up(path)
    assert not lent.workspaces.is_set_up(lent.workspaces.ensure(detached))


def test_a_gates_tree_is_exact_again_whatever_was_done_to_it(repository: Path) -> None:
    """Files changed, removed, hidden from git, made; a directory that is closed; another commit checked out."""
    workspaces = Workspaces(repository / ".git", repository / ".coordination")
    first = git(repository, "rev-parse", "HEAD")
    (repository / "second").write_text("second")
    (repository / "README.md").chmod(0o755)
    git(repository, "add", "--all")
    git(repository, "commit", "-q", "-m", "second")
    commit = git(repository, "rev-parse", "HEAD")
    path = workspaces.ensure(WorkspaceRequest(name="G", commit=commit))
    before = git(path, "ls-files", "--stage", "-v")
    git(path, "update-index", "--assume-unchanged", "README.md")
    git(path, "update-index", "--skip-worktree", "second")
    (path / "README.md").write_text("hidden")
    (path / "second").unlink()
    (path / "closed").mkdir()
    (path / "closed" / "file").write_text("x")
    (path / "closed").chmod(0)
    git(path, "branch", "-q", "mine", first)
    git(path, "symbolic-ref", "HEAD", "refs/heads/mine")
    workspaces.make_exact(path, commit)
    assert git(path, "rev-parse", "HEAD") == commit
    assert git(path, "ls-files", "--stage", "-v") == before
    assert sorted(entry.name for entry in path.iterdir()) == [".git", "README.md", "second"]
    assert (path / "README.md").read_text() == "A repository.\n"
    assert (path / "second").read_text() == "second"
    assert git(repository, "rev-parse", "mine") == first, "no branch is moved by it"


def test_two_commits_with_the_same_files_have_the_same_tree(repository: Path) -> None:
    """What a gate's pass is found by."""
    workspaces = Workspaces(repository / ".git", repository / ".coordination")
    trees = []
    for change in ("a", "b", ""):
        (repository / "file").write_text(change or "a")
        git(repository, "add", "--all")
        git(repository, "commit", "-q", "-m", "next")
        trees.append(workspaces.tree(git(repository, "rev-parse", "HEAD")))
    assert trees[0] == trees[2] != trees[1]


def test_lent_files_that_git_ignores_are_in_nobodys_way(lent: Lent) -> None:
    """As most are: git fails to add anything beside what it ignores, if that is named outright."""
    (lent.path / ".gitignore").write_text("*.env\nmade\n.coordination\n")
    (lent.path / ".coordination").mkdir()
    (lent.path / ".coordination" / "thing").write_text("x")
    (lent.path / "made.txt").write_text("work")
    (lent.path / "odd x name.txt").write_text("work")
    commit = lent.commit()
    assert commit is not None
    listed = git(lent.root, "ls-tree", "-r", "--name-only", commit).splitlines()
    assert listed == [".gitignore", "README.md", "made.txt", "odd x name.txt"]
    assert lent.workspaces.changes(lent.path) == ()
