"""Is a workspace whose tree was another's before in nothing different from one that is made from nothing?

Two portraits are compared: of a workspace that was made anew, and of one at the same place and commit that came out of
the pool after something hostile had happened in the workspace whose tree it was.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.model.runs import Pooling, WorkspaceRequest
from coordination.workspaces import Workspaces
from tests.integration.test_workspaces import git

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody else says which processes are in a directory")

POOLING = Pooling(trees=2, bytes=1 << 30, files_min=1)
NOT_TEXT = os.fsdecode(b"not\xfftext")


class Scene:
    """A repository with some of everything in it, and its workspaces with and without a pool."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        git(root, "init", "--quiet", "--initial-branch=main", "--template=")
        for name in ("a.txt", "deep/b.txt", "deep/er/c.txt", "with space/d.txt", "line\nbreak", NOT_TEXT):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"one\ntwo\n" + os.fsencode(name))
        (root / "run.sh").write_text("#!/bin/sh\n")
        (root / "run.sh").chmod(0o755)
        (root / "link").symlink_to("a.txt")
        (root / ".gitignore").write_text("ignored/\n*.log\n")
        (root / ".gitattributes").write_text("* text=auto\n*.bin filter=large -text\n")
        (root / "pointer.bin").write_text("version 1\n")
        git(root, "add", "--all")
        git(root, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
        git(root, "commit", "--quiet", "--message=First")
        self.first = git(root, "rev-parse", "HEAD")
        (root / "deep/b.txt").write_text("changed\n")
        (root / "new.txt").write_text("new\n")
        (root / "deep/er/c.txt").unlink()
        git(root, "add", "--all", "--", "deep", "new.txt")
        git(root, "commit", "--quiet", "--message=Second")
        self.second = git(root, "rev-parse", "HEAD")
        self.state = root / ".coordination"
        self.plain = Workspaces(root / ".git", self.state)
        self.pooled = Workspaces(root / ".git", self.state, pooling=POOLING)
        self.plain.exclude()
        git(root, "branch", "coordination/integration")

    def ensure(self, name: str, commit: str = "", *, pooled: bool = True) -> Path:
        workspaces = self.pooled if pooled else self.plain
        return workspaces.ensure(WorkspaceRequest(name=name, commit=commit or self.second))

    def directory(self, name: str) -> Path:
        return self.root / ".git/worktrees" / name

    def pool(self) -> list[str]:
        place = self.state / "pool"
        return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []

    def fresh(self, name: str, commit: str = "") -> dict[str, Any]:
        """What a workspace made from nothing looks like."""
        path = self.ensure(name, commit, pooled=False)
        made = portrait(path, self.directory(name))
        self.plain.remove(name, name.partition(".")[0])
        return made


def portrait(path: Path, directory: Path) -> dict[str, Any]:
    """All that can be told of a workspace but times, inodes and devices."""
    return {
        "tree": {str(entry.relative_to(path)): _look(entry) for entry in _below(path)},
        "git": {
            str(entry.relative_to(directory)): _look(entry, logged=True)
            for entry in _below(directory)
            if entry.name != "index"
        },
        "from the future": [name for name in _below(path) if name.lstat().st_mtime > time.time() + 60],
        "extensions": _extensions(directory / "index"),
        "status": git(path, "status", "--porcelain=v2", "--branch", "--ignored", "--untracked-files=all"),
        "stages": git(path, "ls-files", "--stage", "-z"),
        "bits": git(path, "ls-files", "-v", "-z"),
        "known": _known(git(path, "ls-files", "--debug")),
        "settings": git(path, "config", "--list", "--show-origin"),
        "refs": git(path, "for-each-ref"),
        "resolved": git(path, "ls-files", "--resolve-undo"),
    }


def _known(told: str) -> str:
    """What the index knows of each file, but of a submodule's empty directory."""
    return re.sub(r"(ctime|mtime|dev|ino): \S+\s*", "", re.sub(r"(?m)^sub\n(  .*\n)*", "sub\n", told))


def _below(directory: Path) -> Iterator[Path]:
    yield directory
    for where, directories, names in os.walk(directory):
        yield from (Path(where, name) for name in (*directories, *names))


def _look(path: Path, *, logged: bool = False) -> tuple[Any, ...]:
    status = path.lstat()
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in _attributes(path)]
    content: object = None
    if path.is_symlink():
        content = os.fsencode(path.readlink())
    elif path.is_file():
        content = path.read_bytes()
        if logged:
            content = re.sub(rb"> \d+ [+-]\d+", b"> then", content)
    links = 0 if path.is_dir() else status.st_nlink
    return oct(status.st_mode), links, status.st_uid, status.st_gid, attributes, content


def _attributes(path: Path) -> list[str]:
    return sorted(name for name in os.listxattr(path, follow_symlinks=False) if not name.startswith("security."))


def _extensions(index: Path) -> tuple[int, set[bytes]]:
    """The version of an index, and which optional parts it has."""
    data = index.read_bytes()
    return struct.unpack(">I", data[4:8])[0], {
        kind for kind in (b"TREE", b"REUC", b"link", b"UNTR", b"FSMN", b"sdir") if kind in data
    }


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "the repository")


def _same_size(path: Path, _scene: Scene) -> None:
    """Other content of the same length, and the times as they were."""
    file = path / "a.txt"
    status = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _lying_index(path: Path, scene: Scene) -> None:
    """An index that has the changed file's times and size beside the old content's name: git sees no change."""
    old = git(path, "rev-parse", "HEAD:a.txt")
    (path / "a.txt").write_text("something else\n")
    os.utime(path / "a.txt", (1_000_000_000, 1_000_000_000))  # else it is as young as the index, and looked at
    git(path, "add", "a.txt")
    new = git(path, "rev-parse", ":a.txt")
    index = scene.directory(path.name) / "index"
    data = index.read_bytes()[:-20].replace(bytes.fromhex(new), bytes.fromhex(old))
    index.write_bytes(data + hashlib.sha1(data).digest())  # noqa: S324 - what git uses
    assert git(path, "status", "--porcelain") == "", "the control: git is fooled"


def _bits(path: Path, _scene: Scene) -> None:
    """Bits of the index that let git look away."""
    git(path, "update-index", "--assume-unchanged", "a.txt")
    git(path, "update-index", "--skip-worktree", "deep/b.txt")
    (path / "a.txt").write_text("hidden\n")
    (path / "deep/b.txt").write_text("hidden too\n")
    assert git(path, "status", "--porcelain") == ""


def _line_ends(path: Path, _scene: Scene) -> None:
    """Line ends that git would store as they were, so it sees no change."""
    (path / "a.txt").write_bytes((path / "a.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert git(path, "diff", "--stat") == ""


def _state_of_git(path: Path, scene: Scene) -> None:
    """A merge under way, locks, refs and settings of this worktree alone, a sparse checkout."""
    directory = scene.directory(path.name)
    git(path, "checkout", "--quiet", "-b", "elsewhere", scene.first)
    git(path, "merge", "--quiet", "--no-commit", "--no-ff", scene.second)
    git(path, "update-ref", "refs/worktree/mine", "HEAD")
    git(path, "update-ref", "refs/bisect/bad", "HEAD")
    (directory / "config.worktree").write_text("[core]\n\tsparseCheckout = true\n")
    (directory / "info").mkdir(exist_ok=True)
    (directory / "info/sparse-checkout").write_text("/deep/\n")
    for name in ("index.lock", "HEAD.lock", "ORIG_HEAD", "CHERRY_PICK_HEAD", "rebase-apply", "FETCH_HEAD"):
        (directory / name).touch()


def _planted(path: Path, _scene: Scene) -> None:
    """Repositories and files of git's where git itself does not look for them."""
    git(path, "init", "--quiet", "nested")
    git(path, "init", "--quiet", "ignored/nested")
    git(path, "init", "--quiet", "deep")
    (path / "with space/.git").write_text("gitdir: /nowhere\n")
    (path / "sub/.git").write_text("gitdir: /nowhere\n")
    (path / "sub/file").touch()
    (path / ".git").unlink()
    git(path, "init", "--quiet", ".")
    (path / "x.log").touch()


def _modes(path: Path, _scene: Scene) -> None:
    """Modes, of which git sees one."""
    (path / "a.txt").chmod(0o600)
    (path / "run.sh").chmod(0o4755)
    (path / "deep").chmod(0o777)
    (path / "with space").chmod(0o2755)
    (path / "new.txt").chmod(0o666)


def _links(path: Path, scene: Scene) -> None:
    """A second name through which the file could be written later, and a directory that is a link."""
    os.link(path / "a.txt", scene.root / "second name")
    (path / "a.txt").write_bytes((path / "a.txt").read_bytes())  # both of its times move, as if git had written it
    (path / "with space").rename(scene.root / "theirs")
    (path / "with space").symlink_to(scene.root / "theirs")
    (path / "link").unlink()
    (path / "link").symlink_to("/etc/passwd")


def _attached(path: Path, _scene: Scene) -> None:
    """Attributes, and times that confuse who builds by them."""
    try:
        os.setxattr(path / "a.txt", "user.mine", b"x")
        os.setxattr(path / "deep", "user.mine", b"x")
    except OSError:
        pytest.skip("no attributes on this filesystem")
    (path / "a.txt").write_bytes((path / "a.txt").read_bytes())
    os.utime(path / "new.txt", (4_000_000_000, 4_000_000_000))


def _kinds(path: Path, _scene: Scene) -> None:
    """A file where a directory was, a directory where a file was, and what is neither."""
    for name in ("deep/b.txt", "new.txt", "run.sh"):
        (path / name).unlink()
    (path / "deep").rmdir()
    (path / "deep").write_text("a file\n")
    (path / "new.txt").mkdir()
    (path / "new.txt/inside").touch()
    os.mkfifo(path / "run.sh")
    (path / "empty/er").mkdir(parents=True)
    (path / "sub").rmdir()
    (path / "locked").mkdir()
    (path / "locked/file").touch()
    (path / "locked").chmod(0)


def _nothing(_path: Path, _scene: Scene) -> None:
    """Nothing at all."""


HOSTILE = (
    _nothing,
    _same_size,
    _lying_index,
    _bits,
    _line_ends,
    _state_of_git,
    _planted,
    _modes,
    _links,
    _attached,
    _kinds,
)


@pytest.mark.parametrize("commit", ["first", "second"])
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda act: act.__name__.strip("_"))
def test_a_recycled_workspace_is_as_a_fresh_one(
    scene: Scene, hostile: Callable[[Path, Scene], None], commit: str
) -> None:
    """Whatever was done in the one whose tree it was: byte for byte, modes, git's own directory, what git says."""
    wanted = getattr(scene, commit)
    expected = scene.fresh("N.1.gate", wanted)
    path = scene.ensure("T.1.gate")
    inode = path.stat().st_ino
    hostile(path, scene)
    scene.pooled.remove("T.1.gate", "T")
    for ref in git(scene.root, "for-each-ref", "--format=%(refname)").split():
        if ref not in ("refs/heads/main", "refs/heads/coordination/integration"):
            git(scene.root, "update-ref", "-d", ref)
    assert scene.pool() == ["1"]
    again = scene.ensure("N.1.gate", wanted)
    assert again.stat().st_ino == inode, "it came from the pool"
    assert portrait(again, scene.directory("N.1.gate")) == expected
    assert scene.pool() == []


def test_what_was_in_a_workspace_is_kept_before_its_tree_is_recycled(scene: Scene) -> None:
    """Also what a run put into the directory of a submodule, which is a link in the commit."""
    path = scene.ensure("T")
    git(path, "init", "--quiet", "sub")
    (path / "sub/file").write_text("in the submodule\n")
    (path / "a.txt").write_text("changed\n")
    (path / "ignored").mkdir()
    (path / "ignored/built").write_text("built\n")
    ref = scene.pooled.remove("T", "T")
    assert scene.pool() == ["1"]
    for name, content in (("sub/file", "in the submodule"), ("a.txt", "changed"), ("ignored/built", "built")):
        assert git(scene.root, "show", f"{ref}:{name}") == content


def _no_more_than_two(scene: Scene) -> Pooling:
    for name in ("A", "B"):
        scene.ensure(name)
    for name in ("A", "B"):
        scene.pooled.remove(name, name)
    assert scene.pool() == ["1", "2"]
    return POOLING


def _off(_scene: Scene) -> Pooling:
    return Pooling()


def _too_small_to_be_worth_it(_scene: Scene) -> Pooling:
    return Pooling(trees=2, bytes=1 << 30, files_min=100)


def _too_large(_scene: Scene) -> Pooling:
    return Pooling(trees=2, bytes=10_000)


def _line_ends_by_attribute(scene: Scene) -> Pooling:
    (scene.root / "deep/er").mkdir(exist_ok=True)
    (scene.root / "deep/er/.gitattributes").write_text("*.txt eol=CRLF\n")
    git(scene.root, "add", "deep/er/.gitattributes")
    git(scene.root, "commit", "--quiet", "--message=Third")
    scene.second = git(scene.root, "rev-parse", "HEAD")
    return POOLING


def _line_ends_by_setting(scene: Scene) -> Pooling:
    git(scene.root, "config", "core.autocrlf", "true")
    return POOLING


def _attributes_of_the_repository(scene: Scene) -> Pooling:
    (scene.root / ".git/info/attributes").write_text("* text\n")
    return POOLING


@pytest.mark.parametrize(
    "why",
    [
        _no_more_than_two,
        _off,
        _too_small_to_be_worth_it,
        _too_large,
        _line_ends_by_attribute,
        _line_ends_by_setting,
        _attributes_of_the_repository,
    ],
    ids=lambda why: why.__name__.strip("_"),
)
def test_a_tree_is_not_kept(scene: Scene, why: Callable[[Scene], Pooling]) -> None:
    """Where there is no room or no use, and where git writes other bytes than a commit has. The workspace goes."""
    scene.ensure("C")
    pooling = why(scene)
    scene.ensure("T", pooled=False)
    before = scene.pool()
    Workspaces(scene.root / ".git", scene.state, pooling=pooling).remove("T", "T")
    assert scene.pool() == before
    assert scene.plain.names() == ("C",)
    assert list((scene.state / "agent_workspaces/.trash").iterdir()) == []


def test_fewer_trees_are_kept_when_the_settings_say_so(scene: Scene) -> None:
    """The oldest goes first; with none wanted all go; who was told nothing leaves them alone."""
    _no_more_than_two(scene)
    scene.plain.remove("A", "A")
    assert scene.pool() == ["1", "2"]
    for trees, left in ((1, ["2"]), (0, [])):
        fewer = Pooling(trees=trees, bytes=1 << 30, files_min=1)
        scene.ensure("T", pooled=False)
        Workspaces(scene.root / ".git", scene.state, pooling=fewer).remove("T", "T")
        assert scene.pool() == left


@pytest.mark.parametrize("commit", ["first", "second"])
def test_what_the_user_has_checked_out_in_part_is_recycled_whole(scene: Scene, commit: str) -> None:
    """The settings of the user's own worktree are the repository's for whoever asks there."""
    git(scene.root, "sparse-checkout", "set", "--no-cone", "/deep/")
    inode = scene.ensure("T").stat().st_ino
    scene.pooled.remove("T", "T")
    path = scene.ensure("U", getattr(scene, commit))
    assert path.stat().st_ino == inode
    assert {line[0] for line in git(path, "ls-files", "-t").splitlines()} == {"H"}
    assert git(path, "status", "--porcelain", "--ignored") == ""


def test_a_tree_of_which_little_is_left_is_not_kept(scene: Scene) -> None:
    """Where something else touches every file, the pool would write them all again each time."""
    path = scene.ensure("T")
    for file in _below(path):
        os.utime(file, (1_000_000_000, 1_000_000_000), follow_symlinks=False)
    scene.pooled.remove("T", "T")
    assert scene.pool() == []


@pytest.mark.parametrize("how", ["directory", "file", "mapping"])
def test_a_tree_in_which_a_process_lives_is_not_kept(scene: Scene, how: str) -> None:
    """What it could still write would be in another task's workspace."""
    path = scene.ensure("T")
    program = (
        "import mmap, os, sys\n"
        "how, path = sys.argv[1:]\n"
        "if how == 'directory': os.chdir(path)\n"
        "else: opened = open(path + '/a.txt', 'r+b')\n"
        "if how == 'mapping': mapped = mmap.mmap(opened.fileno(), 0); os.closerange(3, 99)\n"
        "print('ready', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, how, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        scene.pooled.remove("T", "T")
        process.communicate()
    assert scene.pool() == []
    scene.ensure("T")
    scene.pooled.remove("T", "T")
    assert scene.pool() == ["1"], "the control: without the process it is kept"


def _other_content(scene: Scene, tree: Path) -> None:
    _same_size(tree, scene)


def _one_file_more(_scene: Scene, tree: Path) -> None:
    (tree / "deep/more.log").touch()


def _a_repository_in_it(_scene: Scene, tree: Path) -> None:
    git(tree / "deep", "init", "--quiet")


def _another_setting(scene: Scene, _tree: Path) -> None:
    git(scene.root, "config", "core.eol", "crlf")


def _another_seal(scene: Scene, _tree: Path) -> None:
    (scene.state / "pool/1/seal.json").write_text('{"commit": 7}')


def _another_mask(_scene: Scene, _tree: Path) -> None:
    os.umask(0o077)


@pytest.mark.parametrize(
    "change",
    [_other_content, _one_file_more, _a_repository_in_it, _another_setting, _another_seal, _another_mask],
    ids=lambda change: change.__name__.strip("_"),
)
def test_a_kept_tree_that_is_not_as_it_was_left_is_not_taken(
    scene: Scene, change: Callable[[Scene, Path], None]
) -> None:
    """A change of its files, or of what decides how files are written: a workspace is made from nothing."""
    scene.ensure("T")
    scene.pooled.remove("T", "T")
    tree = scene.state / "pool/1/tree"
    inode = tree.stat().st_ino
    mask = os.umask(0o022)
    try:
        change(scene, tree)
        path = scene.ensure("U")
    finally:
        os.umask(mask)
    assert path.stat().st_ino != inode
    assert git(path, "status", "--porcelain", "--ignored") == ""
    assert scene.pool() == []


def test_attributes_that_change_between_two_commits_are_not_overlooked(scene: Scene) -> None:
    """Files that are the same in both commits have other line ends in the second."""
    scene.ensure("T")
    scene.pooled.remove("T", "T")
    _line_ends_by_attribute(scene)
    (scene.root / ".gitattributes").write_text("* eol=crlf\n")
    git(scene.root, "commit", "--quiet", "--all", "--message=Fourth")
    path = scene.ensure("U", git(scene.root, "rev-parse", "HEAD"))
    assert (path / "a.txt").read_bytes().startswith(b"one\r\ntwo\r\n")


def test_the_user_sees_nothing_of_it(scene: Scene) -> None:
    """Neither as a worktree, nor in the status, nor as a workspace; and it can be put right by nobody."""
    scene.ensure("T")
    scene.pooled.remove("T", "T")
    assert scene.pool() == ["1"]
    assert git(scene.root, "worktree", "list", "--porcelain").count("worktree ") == 1
    git(scene.root, "worktree", "prune")
    assert git(scene.root, "status", "--porcelain").splitlines() == [" D sub"]
    assert (scene.plain.names(), scene.plain.broken()) == ((), ())


def test_two_processes_do_not_get_one_tree(scene: Scene) -> None:
    """Each gets a workspace of its own: one the tree that is kept, the others new ones."""
    scene.ensure("T")
    scene.pooled.remove("T", "T")
    program = (
        "import sys; from pathlib import Path; from coordination.workspaces import Workspaces\n"
        "from coordination.model.runs import Pooling, WorkspaceRequest\n"
        "root, name, commit = sys.argv[1:]; sys.stdin.read()\n"
        "pooling = Pooling(trees=2, bytes=1 << 30, files_min=1)\n"
        "workspaces = Workspaces(Path(root, '.git'), Path(root, '.coordination'), pooling=pooling)\n"
        "workspaces.ensure(WorkspaceRequest(name=name, commit=commit)); workspaces.remove(name, name)\n"
        "print(workspaces.ensure(WorkspaceRequest(name=name, commit=commit)).stat().st_ino)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(scene.root), f"T{number}", scene.second],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(4)
    ]
    ends = [(process.communicate(timeout=60), process.returncode) for process in started]
    assert [(said[1], code) for said, code in ends] == [(b"", 0)] * 4
    assert len({said[0] for said, _ in ends}) == 4
    for number in range(4):
        assert git(scene.pooled.path(f"T{number}"), "status", "--porcelain", "--ignored") == ""


@pytest.mark.parametrize("fresh", [False, True])
def test_an_index_that_a_run_removed_costs_nothing_that_was_in_the_files(scene: Scene, *, fresh: bool) -> None:
    """Git's own way out of a broken index is to remove it; what stands in the files is kept and goes on."""
    request = WorkspaceRequest(name="T", base=scene.second, branch="coordination/task/T")
    path = scene.pooled.ensure(request)
    (path / "a.txt").write_text("the only copy\n")
    (path / "new.txt").unlink()
    (scene.directory("T") / "index").unlink()
    path = scene.pooled.ensure(request, fresh=fresh)
    assert (path / "a.txt").read_bytes() == (b"one\ntwo\na.txt" if fresh else b"the only copy\n")
    assert (path / "new.txt").exists()
    (ref,) = scene.pooled.preserved("T")
    assert git(scene.root, "show", f"{ref}:a.txt") == "the only copy"


def test_a_workspace_that_an_earlier_version_made_in_part_is_made_whole(scene: Scene) -> None:
    """It said nothing of whether the files were all there: what is missing is not taken for removed."""
    path = scene.pooled.path("T")
    git(scene.root, "branch", "coordination/task/T")
    how = ("--no-checkout", "--lock", "--reason", "kept by coordination")
    git(scene.root, "worktree", "add", "--quiet", *how, str(path), "coordination/task/T")
    (path / "run.sh").write_text("#!/bin/sh\n")
    (path / "run.sh").chmod(0o755)
    scene.pooled.ensure(WorkspaceRequest(name="T", base=scene.second, branch="coordination/task/T"))
    assert git(path, "status", "--porcelain", "--ignored") == ""
    assert scene.pooled.preserved("T") == ()
