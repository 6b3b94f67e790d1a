"""Whatever is killed while the user's checkout is brought forward: does a repeat finish it, and is every byte there?

Our own process is cut at each of its gestures. Git itself is killed while it writes the n-th file, by a filter that the
repository names: half of the files are new then, one is cut off or gone, and the index is locked.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from coordination.workspaces.upkeep import Bringing
from tests.integration.test_workspaces_killed import INTEGRATION, Scene, cut_everywhere, git, memory, scene

__all__ = ["memory", "scene"]

OLD = {"story.txt": "one\ntwo\n", "a.txt": "a\n", "goes.txt": "goes\n", "thing": "a file\n", "place/within.txt": "x\n"}
NEW = {"story.txt": "one\ntwo\nthree\n", "a.txt": "a, and more\n", "thing/within.txt": "now within\n", "place": "y\n",
       "new/deep.txt": "new\n", "z.txt": "z\n"}  # fmt: skip


@pytest.fixture
def ahead(scene: Scene) -> Scene:
    """The integration branch is ahead of main; the files of both go through a filter of the user's."""
    commit(scene, OLD | {".gitattributes": "* filter=known\n.gitattributes -filter\n"})
    git(scene.root, "switch", "-q", "-c", "ahead")
    for name in OLD:
        (scene.root / name).unlink()
    (scene.root / "place").rmdir()
    commit(scene, NEW)
    git(scene.root, "branch", "-q", "-f", INTEGRATION, "ahead")
    git(scene.root, "switch", "-q", "main")
    git(scene.root, "branch", "-q", "-D", "ahead")
    git(scene.root, "update-index", "--refresh")
    return scene


def commit(scene: Scene, files: dict[str, str]) -> None:
    for name, text in files.items():
        (scene.root / name).parent.mkdir(parents=True, exist_ok=True)
        (scene.root / name).write_text(text)
    git(scene.root, "add", "--all")
    git(scene.root, "commit", "--quiet", "--message=Files")


def bring(scene: Scene) -> Bringing:
    return scene.workspaces.bring(scene.root, target="main", integration=INTEGRATION)


def brought(scene: Scene) -> None:
    assert git(scene.root, "rev-parse", "main") == git(scene.root, "rev-parse", INTEGRATION)
    assert git(scene.root, "status", "--porcelain") == ""
    assert files(scene) == NEW
    assert not (scene.root / ".coordination/land.json").exists()


def files(scene: Scene) -> dict[str, str]:
    own = (".git", ".coordination", ".gitattributes")
    found = (path for path in scene.root.rglob("*") if path.is_file())
    named = {str(path.relative_to(scene.root)): path for path in found}
    return {name: path.read_text() for name, path in named.items() if name.split("/")[0] not in own}


def test_our_own_death_at_every_gesture(ahead: Scene) -> None:
    """However it was cut, a repeat has brought everything, and says so or that there was nothing left to do."""

    def check() -> None:
        assert bring(ahead).state in ("nothing", "landed")
        brought(ahead)

    assert cut_everywhere(ahead, lambda: bring(ahead), check) >= 15


def deadly(scene: Scene, number: int) -> None:
    """Let the filter kill git when it writes the n-th file, and do nothing from then on."""
    count = scene.root.with_name("count")
    count.unlink(missing_ok=True)
    smudge = scene.root.with_name("smudge")
    smudge.write_text(
        f"#!/bin/sh\necho >> '{count}'\n[ $(wc -l < '{count}') -eq {number} ] && kill -9 $PPID && exit 1\ncat\n"
    )
    smudge.chmod(0o755)
    git(scene.root, "config", "filter.known.smudge", str(smudge))
    git(scene.root, "config", "filter.known.clean", "cat")


@pytest.mark.parametrize("number", range(1, len(NEW) + 1))
def test_gits_death_while_it_writes_a_file(ahead: Scene, number: int) -> None:
    """The lock that is left is named; once it is gone a repeat takes back what was written, and brings everything."""
    deadly(ahead, number)
    found = bring(ahead)
    assert (found.state, found.unfinished) == ("refused", True)
    assert f"rm {ahead.root}/.git/index.lock" in found.remedy
    assert git(ahead.root, "rev-parse", "main") != git(ahead.root, "rev-parse", INTEGRATION)
    assert bring(ahead) == found, "as long as the lock is there"
    looked = ahead.workspaces.survey_checkout(ahead.root, target="main", integration=INTEGRATION)
    assert (looked.state, looked.reason) == ("ready", "a `coord land` was killed here: it is put right first")
    (ahead.root / ".git/index.lock").unlink()
    assert bring(ahead).state == "landed"
    brought(ahead)


def test_what_was_changed_since_stays_and_is_named(ahead: Scene) -> None:
    """A file that is neither old nor new, nor the beginning of the new one, is the user's."""
    deadly(ahead, 4)
    assert bring(ahead).state == "refused"
    (ahead.root / ".git/index.lock").unlink()
    (ahead.root / "a.txt").write_text("the user wrote this\n")
    before = files(ahead)
    found = bring(ahead)
    assert (found.state, found.paths, found.unfinished) == ("refused", ("a.txt",), True)
    assert "were changed since" in found.reason
    assert files(ahead) == before
    git(ahead.root, "checkout", "HEAD", "--", "a.txt")  # as it says
    assert bring(ahead).state == "landed"
    brought(ahead)


def test_a_file_that_was_cut_off_is_taken_for_what_git_was_writing(ahead: Scene) -> None:
    """A kill in the midst of a write leaves the beginning of a file."""
    deadly(ahead, 4)
    bring(ahead)
    (ahead.root / ".git/index.lock").unlink()
    (ahead.root / "a.txt").write_text(NEW["a.txt"][:7])
    assert bring(ahead).state == "landed"
    brought(ahead)


def test_a_death_between_the_index_and_the_branch(ahead: Scene) -> None:
    """All files and the index are new, and the branch is old: it is moved, and files of the user stay as they are."""
    (ahead.root / ".coordination").mkdir(exist_ok=True)
    old, new = (git(ahead.root, "rev-parse", name).strip() for name in ("main", INTEGRATION))
    (ahead.root / ".coordination/land.json").write_text(f'{{"target":"main","old":"{old}","new":"{new}"}}')
    git(ahead.root, "read-tree", "-m", "-u", "main", INTEGRATION)
    assert git(ahead.root, "status", "--porcelain") != ""
    found = bring(ahead)
    assert (found.state, found.old, found.new) == ("landed", old, new)
    brought(ahead)


def test_a_note_of_something_that_is_over_means_nothing(ahead: Scene) -> None:
    """The user went on by hand: the branch is elsewhere, and what the note says is no longer to be finished."""
    old, new = (git(ahead.root, "rev-parse", name).strip() for name in ("main", INTEGRATION))
    (ahead.root / ".coordination").mkdir(exist_ok=True)
    (ahead.root / ".coordination/land.json").write_text(f'{{"target":"main","old":"{old}","new":"{new}"}}')
    (ahead.root / "story.txt").write_text("mine\n")
    git(ahead.root, "commit", "--quiet", "--all", "--message=By hand")
    (ahead.root / "a.txt").write_text("mine\n")
    before = files(ahead)
    assert bring(ahead).state == "refused"
    assert files(ahead) == before
    assert not (ahead.root / ".coordination/land.json").exists()


def test_the_filters_of_the_user_are_used_and_the_hooks_are_not(ahead: Scene, tmp_path: Path) -> None:
    """Files are as the user's own merge would make them; no hook of the repository runs."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[filter "known"]\n\tsmudge = "tr a-z A-Z"\n\tclean = "tr A-Z a-z"\n')
    hooks = ahead.root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-merge", "post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> '{tmp_path}/hooked'\n")
        (hooks / name).chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_DIR", str(tmp_path))  # of whatever calls us, such as a hook: it must lead nowhere
        for name in ("XDG_CONFIG_HOME", "GIT_CONFIG_GLOBAL"):
            patch.delenv(name, raising=False)
        assert bring(ahead).state == "landed"
    assert (ahead.root / "z.txt").read_text() == "Z\n"
    assert not (tmp_path / "hooked").exists()
    assert git(ahead.root, "rev-parse", "main") == git(ahead.root, "rev-parse", INTEGRATION)


def test_how_the_user_likes_to_merge_is_left_out(ahead: Scene) -> None:
    """Options for ``git merge`` on that branch would make something else of it, such as a squash."""
    for key, value in (("branch.main.mergeOptions", "--squash"), ("merge.ff", "false"), ("merge.autoStash", "true")):
        git(ahead.root, "config", key, value)
    assert bring(ahead).state == "landed"
    brought(ahead)
