"""How is git called? Here and nowhere else, and with nothing of the surroundings let in.

What runs in a workspace may rewrite the workspace's ``.git`` file, plant drivers in configuration files and leave
locks behind. So every call

* names GIT_DIR, GIT_COMMON_DIR and GIT_WORK_TREE, and never asks a directory which repository it belongs to;
* gets an environment made from nothing: no user's or system's configuration, no prompt, no transport, no replaced
  objects, an identity of our own;
* overrides every setting through which a repository can start a command: hooks, fsmonitor, signing, and by name the
  filters and merge drivers its configuration defines. A filter does nothing; a merge driver becomes git's own merge
  of text, because one that does nothing would silently drop the other side;
* takes paths literally, and two that differ in case for two where they are; and ends within a time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

from coordination.environment import MARKER
from coordination.errors import Conflict, GitFailed, Unsuitable

TIMEOUT_SECONDS = 300.0
_SETTINGS = {
    "advice.detachedHead": "false",
    "checkout.workers": "0",  # one a core
    "commit.gpgSign": "false",
    "core.checkStat": "default",
    "core.fsmonitor": "false",
    "core.fsync": "committed",  # a merge that the log speaks of must survive a power cut
    "core.fsyncMethod": "batch",
    "core.hooksPath": os.devnull,
    "core.filesRefLockTimeout": "3000",
    "core.ignoreStat": "false",
    "core.quotePath": "false",
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",  # of the user's checkout; a workspace is whole
    "core.splitIndex": "false",
    "core.trustctime": "true",
    "core.untrackedCache": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "merge.autoStash": "false",
    "merge.verifySignatures": "false",
    "rerere.enabled": "false",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
    "worktree.useRelativePaths": "false",
}
_TEXT_MERGE = "git merge-file -q --marker-size=%L -L HEAD -L base -L theirs %A %O %B"
# All others may start a driver; ``write-tree`` for one does, to look again at files as young as the index.
_READS_NO_FILES = frozenset(
    {"cat-file", "commit-tree", "config", "for-each-ref", "ls-tree", "merge-base", "rev-list", "rev-parse",
     "symbolic-ref", "update-ref"}
)  # fmt: skip
_NAME, _ADDRESS = "coordination", "coordination@localhost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """How a call ended."""

    code: int
    out: bytes

    @property
    def text(self) -> str:
        """The output as a path or a name: bytes that are not UTF-8 survive a way there and back."""
        return os.fsdecode(self.out).strip("\n")

    @property
    def names(self) -> list[str]:
        """The output as a list that NUL separates."""
        return [name for name in os.fsdecode(self.out).split("\0") if name]


class Git:
    """Calls on one repository, one work tree and one index. Cheap; make one for each thing to be done."""

    def __init__(
        self, common: Path, *, directory: Path | None = None, tree: Path | None = None, private: Sequence[str] = ()
    ) -> None:
        self.common = common
        self.directory = directory or common
        # without a tree the common directory stands in: it holds no attributes and no files of anybody
        self.tree = tree or common
        self.private = tuple(private)
        self.index: Path | None = None
        self._guards: dict[str, str] | None = None

    def at(self, directory: Path, tree: Path, private: Sequence[str] = ()) -> Git:
        """Another work tree of the same repository, whose configuration is not asked for again."""
        other = Git(self.common, directory=directory, tree=tree, private=(*self.private, *private))
        other._guards = self._guards
        return other

    def with_index(self, index: Path) -> Git:
        """The same place with another index, which leaves the real one alone."""
        other = Git(self.common, directory=self.directory, tree=self.tree, private=self.private)
        other.index, other._guards = index, self._drivers()
        return other

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        accept: Collection[int] = (0,),
        magic: bool = False,
        date: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Result:
        """Run to the end. Raises GitFailed for an exit code that is not accepted. ``magic``: paths may be patterns."""
        settings = _SETTINGS if arguments[0] in _READS_NO_FILES else _SETTINGS | self._drivers()
        environment = self._environment(settings, magic=magic)
        if date:
            environment |= {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
        try:
            done = subprocess.run(
                [_program(), *arguments],
                input=stdin,
                capture_output=True,
                cwd=self.tree,
                env=environment,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failed(arguments, -1, f"no end within {timeout_seconds} s") from error
        if done.returncode not in accept:
            raise self._failed(arguments, done.returncode, done.stderr.decode(errors="replace").strip())
        return Result(code=done.returncode, out=done.stdout)

    def text(self, *arguments: str) -> str:
        """What a call prints, as a name."""
        return self.run(*arguments).text

    def beginning(self, *arguments: str, bytes_max: int) -> tuple[bytes, bool]:
        """The first ``bytes_max`` bytes that a call prints, and whether there was more."""
        with subprocess.Popen(
            [_program(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.tree,
            env=self._environment(_SETTINGS | self._drivers()),
        ) as process:
            out = _read_within(process, bytes_max + 1)
        if len(out) <= bytes_max and process.returncode != 0:
            raise self._failed(arguments, process.returncode, "")
        return out[:bytes_max], len(out) > bytes_max

    def commit_at(self, name: str) -> str | None:
        """The commit a name stands for, as full hex; None when there is none."""
        found = self.run(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", accept=(0, 1, 128)
        )
        return found.text if found.code == 0 else None

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        """Whether the one is contained in the other; a commit contains itself."""
        return self.run("merge-base", "--is-ancestor", ancestor, descendant, accept=(0, 1)).code == 0

    def set_ref(self, name: str, new: str, old: str | None = None, *, reason: str) -> None:
        """Move a ref of ours. ``old`` "" means it must not exist, None that it does not matter. Raises Conflict."""
        expected = [] if old is None else [old]
        lock = self.common / f"{name}.lock"
        before = _stamp(lock)
        try:
            self.run("update-ref", "-m", f"coordination: {reason}", name, new, *expected)
        except GitFailed as error:
            found = self.commit_at(name) or ""
            if old is not None and found != old:
                raise Conflict(f"{name} is at {found or 'nothing'}, expected {old or 'nothing'}", head=0) from error
            # git waited for that lock in vain and it is the same as before we asked: its process is dead
            if before is None or _stamp(lock) != before:
                raise
            lock.unlink(missing_ok=True)
            self.run("update-ref", "-m", f"coordination: {reason}", name, new, *expected)

    def drop_ref(self, name: str, old: str) -> None:
        """Remove a ref of ours that is at ``old``. Raises Conflict when it is not."""
        try:
            self.run("update-ref", "-d", name, old)
        except GitFailed as error:
            found = self.commit_at(name) or ""
            if found != old:
                raise Conflict(f"{name} is at {found or 'nothing'}, expected {old}", head=0) from error
            raise

    def make_commit(self, tree: str, parents: Sequence[str], message: str, *, dated_like: str | None = None) -> str:
        """Write a commit object; nothing points to it yet."""
        named = [argument for parent in parents for argument in ("-p", parent)]
        text = message.replace("\0", "").encode(errors="replace")
        date = self.text("log", "-1", "--format=%cI", dated_like) if dated_like else ""
        return self.run("commit-tree", tree, *named, "-F", "-", stdin=text, date=date).text

    def _drivers(self) -> dict[str, str]:
        if self._guards is None:
            listed = self.run("config", "--list", "--name-only", "-z", "--includes").names
            self._guards = dict(item for key in listed for item in _harmless(key))
        return self._guards

    def _environment(self, settings: Mapping[str, str], *, magic: bool = False) -> dict[str, str]:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            "XDG_CONFIG_HOME": "/nonexistent",
            "LC_ALL": "C",
            "GIT_DIR": str(self.directory),
            "GIT_COMMON_DIR": str(self.common),
            "GIT_WORK_TREE": str(self.tree),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_SYSTEM": os.devnull,
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "false",
            "GIT_PAGER": "cat",
            "GIT_LITERAL_PATHSPECS": "0" if magic else "1",
            "GIT_AUTHOR_NAME": _NAME,
            "GIT_AUTHOR_EMAIL": _ADDRESS,
            "GIT_COMMITTER_NAME": _NAME,
            "GIT_COMMITTER_EMAIL": _ADDRESS,
        }
        if not folds_case(self.common):  # then two names that differ in case are two, whatever the repository says
            settings = {**settings, "core.ignoreCase": "false"}
        environment["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings.items()):
            environment[f"GIT_CONFIG_KEY_{number}"] = key
            environment[f"GIT_CONFIG_VALUE_{number}"] = value
        if self.index is not None:
            environment["GIT_INDEX_FILE"] = str(self.index)
        if MARKER in os.environ:  # a call outlives the worker that is killed: whoever ends the run must find it
            environment[MARKER] = os.environ[MARKER]
        return environment

    def _failed(self, arguments: Sequence[str], code: int, stderr: str) -> GitFailed:
        call = " ".join(arguments[:2])
        return GitFailed(f"git {call} in {self.tree} failed with {code}: {stderr}", code=code, stderr=stderr)


def clear_locks(directory: Path) -> None:
    """Remove what a git call killed half-way left in a work tree's own directory, once no call of ours lives there."""
    left = [lock for name in ("index.lock", "HEAD.lock") if (lock := directory / name).exists()]
    if not left:
        return
    resting = threading.Event()
    for _ in range(1000):
        if not _calls_alive(directory):
            break
        resting.wait(0.01)
    else:
        raise GitFailed(f"git still works in {directory} and holds {left[0]}: wait for it", code=-1, stderr="")
    for lock in left:
        lock.unlink(missing_ok=True)


def _calls_alive(directory: Path) -> bool:
    """Whether a git process started by us for this directory lives: killing us does not kill it (Linux only)."""
    wanted = b"GIT_DIR=" + os.fsencode(directory)
    processes = Path("/proc")
    if not processes.is_dir():
        return False
    for entry in processes.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and wanted in _environment_of(entry).split(b"\0"):
            return True
    return False


def _environment_of(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it ended, or is not ours
        return b""


def _harmless(key: str) -> list[tuple[str, str]]:
    """What must stand in a driver's place so that it starts nothing."""
    section, _, rest = key.partition(".")
    name, _, variable = rest.rpartition(".")
    if section == "filter" and variable in {"clean", "smudge", "process"}:
        return [(key, ""), (f"filter.{name}.required", "false")]
    if section == "merge" and variable == "driver":
        return [(key, _TEXT_MERGE)]
    return []


def _read_within(process: subprocess.Popen[bytes], bytes_max: int) -> bytes:
    timer = threading.Timer(TIMEOUT_SECONDS, process.kill)
    timer.start()
    try:
        pipe: IO[bytes] | None = process.stdout
        assert pipe is not None, "asked for a pipe"
        out = pipe.read(bytes_max)
        if len(out) == bytes_max:
            process.kill()  # more than was asked for: the rest is not wanted
    finally:
        timer.cancel()
    return out


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino, status.st_mtime_ns


def _program() -> str:
    return _on_path(os.environ.get("PATH", os.defpath))


@lru_cache(1)
def folds_case(common: Path) -> bool:
    """Whether the filesystem takes two names that differ in case only for one."""
    return (common / "CoNfIg").exists()


@lru_cache(1)
def _on_path(path: str) -> str:
    found = shutil.which("git", path=path)
    if found is None:
        raise Unsuitable("git is not on PATH: install git 2.38 or newer")
    return found
