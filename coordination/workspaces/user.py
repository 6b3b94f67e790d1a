"""How is git called in the user's own checkout, and for a push to the user's own remote? Only when a person asks.

Elsewhere nothing of the user's configuration is let in (see ``git``). Here it must be: without the filters of a
repository (Git LFS, line ends) the files of a checkout would be wrong, and without credentials nothing can be pushed.
So these calls get the user's environment and configuration, but

* they name GIT_DIR and GIT_WORK_TREE, and no variable that would lead them elsewhere is handed on;
* in the checkout no hook, no fsmonitor and no submodule is called; a push is the user's own, hooks and all, because
  what looks at what leaves the machine (and brings LFS objects along) must not be left out.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from coordination.errors import GitFailed
from coordination.workspaces.git import Result, _environment_of, _program

TIMEOUT_SECONDS = 1800.0  # a filter may have to fetch what it puts into files
MARK = "COORDINATION_LAND"
"""Carried by every process that changes the checkout: one that outlives us is found by it."""

_SETTINGS = {
    "core.fsmonitor": "false",
    "core.fsync": "committed",
    "core.hooksPath": os.devnull,
    "core.quotePath": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "submodule.recurse": "false",
}
_HANDED_ON = ("GIT_ASKPASS", "GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM",
              "GIT_CONFIG_SYSTEM", "GIT_LFS_", "GIT_PROXY_COMMAND", "GIT_SSH", "GIT_SSL_")  # fmt: skip


class UserGit:
    """Calls on the main worktree, as the user would make them."""

    def __init__(self, common: Path, root: Path) -> None:
        self.common, self.root = common, root

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        accept: Collection[int] = (0,),
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Result:
        """Run in the checkout, without hooks. Raises GitFailed for an exit code that is not accepted."""
        settings = [word for key, value in _SETTINGS.items() for word in ("-c", f"{key}={value}")]
        marked = {MARK: str(self.root)}
        return self._run(settings, arguments, stdin, accept, marked, timeout_seconds)

    def fast_forward(self, branch: str, commit: str) -> None:
        """Bring the checkout, which is on that branch, forward. Raises GitFailed, also for git that did something else.

        What the user would have ``git merge`` do on this branch (a squash, say) is left out.
        """
        plain = ("-c", f"branch.{branch}.mergeOptions=")
        self.run(*plain, "merge", "--ff-only", "--no-overwrite-ignore", "--no-autostash", "--quiet", commit)
        found = self.run("rev-parse", "--verify", f"refs/heads/{branch}").text
        if found != commit:
            raise self._failed(
                ("merge",), 0, f"{branch} is at {found}, expected {commit}: was another one switched to?"
            )

    def push(self, remote: str, refspec: str) -> None:
        """Push as the user would, with the user's hooks. Raises GitFailed."""
        self._run([], ("push", "--porcelain", remote, refspec), b"", (0,), {}, TIMEOUT_SECONDS)

    def remote_of(self, branch: str) -> str:
        """The remote that a branch is kept at: its own, else ``origin``, else the only one; "" when none is meant."""
        own = self.run("config", "--get", f"branch.{branch}.remote", accept=(0, 1)).text
        known = self.run("remote").text.split("\n")
        if own in known:
            return own
        return "origin" if "origin" in known else known[0] if len(known) == 1 else ""

    def calls_alive(self) -> list[int]:
        """Processes that change the checkout for us and outlived who started them (Linux only)."""
        wanted, processes = os.fsencode(f"{MARK}={self.root}"), Path("/proc")
        found = processes.iterdir() if processes.is_dir() else ()
        return [
            int(each.name) for each in found if each.name.isdigit() and wanted in _environment_of(each).split(b"\0")
        ]

    def _run(
        self,
        settings: list[str],
        arguments: tuple[str, ...],
        stdin: bytes,
        accept: Collection[int],
        marked: dict[str, str],
        timeout_seconds: float,
    ) -> Result:
        try:
            done = subprocess.run(
                [_program(), *settings, *arguments],
                input=stdin,
                capture_output=True,
                cwd=self.root,
                env=self._environment() | marked,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(arguments, -1, f"no end within {timeout_seconds} s") from error
        if done.returncode not in accept:
            raise self._failed(arguments, done.returncode, done.stderr.decode(errors="replace").strip())
        return Result(code=done.returncode, out=done.stdout)

    def _environment(self) -> dict[str, str]:
        known = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or _handed_on(key)}
        return known | {
            "LC_ALL": "C",
            "GIT_DIR": str(self.common),
            "GIT_WORK_TREE": str(self.root),
            "GIT_LITERAL_PATHSPECS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "false",
        }

    def _failed(self, arguments: tuple[str, ...], code: int, stderr: str) -> GitFailed:
        call = " ".join(arguments[:2])
        return GitFailed(f"git {call} in {self.root} failed with {code}: {stderr}", code=code, stderr=stderr)


def _handed_on(key: str) -> bool:
    return key.startswith(_HANDED_ON)
