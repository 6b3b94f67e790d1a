"""The user's own repository round a whole run on the real Claude Code: nothing in it is touched, whatever its state."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from coordination.testing.stage import FILES, Stage
from tests.e2e.lines import case, read, say, verdict, write

pytestmark = pytest.mark.timeout(90)

WARMER = FILES["greeter.py"].replace("Hello", "Good day")
HOOKS = ("pre-commit", "post-commit", "post-checkout", "post-merge", "reference-transaction", "prepare-commit-msg")


def make_untidy(stage: Stage) -> None:
    """A stash, a submodule, staged, changed, deleted, ignored and untracked files, hooks that leave a trace."""
    git = stage.git
    (stage.repository / "greeter.py").write_text("stashed\n")
    git("stash", "push", "-q", "-m", "for later")
    other = stage.directory / "other"
    subprocess.run(["git", "init", "-q", str(other)], check=True)
    subprocess.run(["git", "-C", str(other), "commit", "-q", "--allow-empty", "-m", "other"], check=True)
    git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(other), "module")
    (stage.repository / ".gitignore").write_text("ignored.txt\n")
    (stage.repository / "deleted.txt").write_text("to be deleted\n")
    git("add", "-A")
    git("commit", "-q", "-m", "second")
    (stage.repository / "deleted.txt").unlink()
    (stage.repository / "README.md").write_text("changed, not staged\n")
    (stage.repository / "staged.py").write_text("staged = True\n")
    git("add", "staged.py")
    (stage.repository / "staged.py").write_text("staged = 'and changed again'\n")
    (stage.repository / "ignored.txt").write_text("ignored\n")
    (stage.repository / "untracked").mkdir()
    (stage.repository / "untracked/file").write_text("untracked\n")
    (stage.repository / "untracked/file").chmod(0o755)
    (stage.repository / "link").symlink_to("README.md")
    for name in HOOKS:
        hook = stage.repository / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\necho {name} >> '{stage.directory}/hooked'\n")
        hook.chmod(0o755)
    git("config", "user.name", "The User")
    git("config", "core.fsmonitor", f"{stage.directory}/monitor")


def test_a_whole_run_leaves_the_users_checkout_as_it_was(make: Any) -> None:
    """Index, files, HEAD, config, hooks, submodule, refs, stash and status are the same to the byte; no hook ran."""
    scripts = [
        case("# Task T", steps=[read("greeter.py"), write("greeter.py", WARMER), say("Warmer.")]),
        case("# Review of task T", steps=[verdict("approve", "Fine.")]),
    ]
    scene = make(scripts)
    make_untidy(scene)
    # detached after init: the target is known by name, and HEAD is the user's
    scene.git("-c", "core.hooksPath=/dev/null", "switch", "-q", "--detach")
    hooked = scene.directory / "hooked"
    hooked.unlink(missing_ok=True)
    scene.before = scene.users()
    assert "hooked" not in str(scene.before["files"])
    scene.drop(id="T", prompt="Make it warmer.", review="always")
    scene.run()
    assert not hooked.exists()
    assert different(scene.before, scene.users()) == {}
    assert scene.show("T")["state"] == "merged"
    assert scene.git("show", "coordination/integration:greeter.py") == WARMER
    assert scene.git("show", "main:greeter.py") == FILES["greeter.py"]


@pytest.mark.parametrize(
    ("touch", "where"),
    [
        (lambda root: (root / "README.md").write_text("x"), "files"),
        (lambda root: (root / "untracked/file").chmod(0o644), "files"),
        (lambda root: append(root / ".git/config"), "git"),
        (lambda root: append(root / ".git/hooks/pre-commit"), "git"),
        (lambda root: (root / ".git/index").chmod(0o640), "git"),
        (lambda root: (root / ".git/refs/heads/new").write_bytes((root / ".git/refs/heads/main").read_bytes()), "refs"),
        (lambda root: append(root / ".git/modules/module/HEAD"), "modules"),
    ],
)
def test_the_comparison_sees_every_touch(tmp_path: Path, touch: Any, where: str) -> None:
    """Each part of the comparison finds what is planted there."""
    stage = Stage(tmp_path)
    stage.make_repository()
    make_untidy(stage)
    before = stage.users()
    assert different(before, stage.users()) == {}
    touch(stage.repository)
    assert where in different(before, stage.users())


def append(path: Path) -> None:
    """Add a line that changes nothing for git."""
    with path.open("ab") as file:
        file.write(b"\n")


def different(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What is not the same."""
    return {key: (one[key], other[key]) for key in one if one[key] != other[key]}
