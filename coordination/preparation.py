"""How is a fresh workspace made ready? Files are copied into it, commands run in it, and what they made is kept.

What is kept is found again by what the commands are and what the files named as its key hold. It is copied in and out
(cheaply where the file system can), never linked, so that whoever works with it cannot change it for others. A
workspace has another path than the one it was made in: files of text that name that path are given the new one.

Nothing is written through a link of the workspace, nor read through one of the main worktree: commits, and so links in
them, are the agents'. Nobody else works in a workspace while it is made ready.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path, PurePosixPath

import msgspec

from coordination import files
from coordination.errors import SetUpFailed
from coordination.model.runs import SetUp, Value
from coordination.sandbox import Ended

Perform = Callable[[Sequence[str]], Ended]
"""Runs one command in the workspace, in a sandbox where one works."""

KEPT_MAX = 8
COPY_BYTES_MAX = 16 << 20
_MENTION_BYTES_MAX = 1 << 20
_SAID_MAX = 4000
_COPY_SECONDS = 600.0
_FORMAT = 1


class _Kept(Value, frozen=True, kw_only=True):
    """``kept.json`` of one entry: which directories are in it, and which of their files name the path they stood at."""

    format: int
    key: str
    workspace: str
    directories: tuple[str, ...]
    mentions: tuple[tuple[str, ...], ...]  # for each directory, paths within it


def prepare(
    setup: SetUp, workspace: Path, *, tracked: Collection[str], perform: Perform, cache: Path, keep: Callable[[], bool]
) -> None:
    """Make the workspace ready. ``keep``: whether what was made is all there is, and may be given to others.

    Raises SetUpFailed.
    """
    for name in setup.copy:
        if name in tracked:
            raise SetUpFailed(f"[setup] copy names {name}, which git tracks here: expected a file that it does not")
        _copied(Path(setup.root), workspace, name)
    key = _key(setup, workspace) if setup.keep and not set(setup.keep) & set(tracked) else ""
    if key and _restored(cache / key, key, workspace):
        return
    for argv in setup.commands:
        ended = perform(argv)
        if ended.code:
            said = ended.output[-_SAID_MAX:]
            raise SetUpFailed(f"set-up command {' '.join(argv)!r} exited {ended.code}:\n{said}")
    if key and keep() and _key(setup, workspace) == key:  # else the commands changed what tells what they made
        _kept(cache, key, setup, workspace)


def described(setup: SetUp) -> str:
    """Names what is done before a gate runs, with what the copied files hold; "" for nothing."""
    if not (setup.commands or setup.copy):
        return ""
    copies = {name: _digest(Path(setup.root), name) for name in setup.copy}
    return _hashed([setup.commands, copies, setup.network, setup.keep, setup.key])


# -- copied files ------------------------------------------------------------------------------------------------------


def _copied(root: Path, workspace: Path, name: str) -> None:
    """Copy one file from the main worktree; one that is not there is not missed."""
    try:
        content, mode = _read(root, name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SetUpFailed(
            f"[setup] copy: {root / name} cannot be copied: {error.strerror}. Expected a file of at most "
            f"{COPY_BYTES_MAX >> 20} MiB, and no link on the way to it"
        ) from error
    *above, last = PurePosixPath(name).parts
    try:
        directory = _entered(workspace, above, make=True)
        try:
            if _there(last, directory):
                os.unlink(last, dir_fd=directory)  # of a set-up that was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(last, flags, mode & 0o700, dir_fd=directory), "wb") as copy:
                copy.write(content)
        finally:
            os.close(directory)
    except OSError as error:
        raise SetUpFailed(
            f"[setup] copy: {name} cannot be written into the workspace: {error.strerror}. Expected directories, "
            "and no link, on the way to it"
        ) from error


def _digest(root: Path, name: str) -> str:
    import hashlib  # OpenSSL comes with it, and most runs set nothing up

    try:
        return hashlib.sha256(_read(root, name)[0]).hexdigest()
    except OSError:
        return ""


def _read(root: Path, name: str) -> tuple[bytes, int]:
    """A file's content and mode, without following a link below ``root``. Raises OSError."""
    *above, last = PurePosixPath(name).parts
    directory = _entered(root, above)
    try:
        # without waiting: what is no plain file may never be opened by the other side
        descriptor = os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > COPY_BYTES_MAX:
            raise OSError(0, "it is no plain file, or too large")
        return opened.read(COPY_BYTES_MAX), status.st_mode


def _entered(root: Path, parts: Sequence[str], *, make: bool = False) -> int:
    """A descriptor of the directory ``parts`` below ``root``, none of them a link. Raises OSError."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(root, flags)
    for part in parts:
        above = directory
        try:
            if make and not _there(part, above):
                os.mkdir(part, dir_fd=above)
            directory = os.open(part, flags | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return directory


def _there(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


# -- what is kept ------------------------------------------------------------------------------------------------------


def _key(setup: SetUp, workspace: Path) -> str:
    copies = {name: _digest(workspace, name) for name in setup.copy}
    held = {name: _digest(workspace, name) for name in setup.key}
    return _hashed([_FORMAT, setup.commands, setup.network, setup.keep, copies, held])


def _hashed(value: object) -> str:
    import hashlib

    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _restored(entry: Path, key: str, workspace: Path) -> bool:
    """Whether what was kept under that key stands in the workspace now; if not, nothing of it does."""
    try:
        held = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    done: list[Path] = []
    try:
        kept = msgspec.json.decode(files.read(entry / "kept.json"), type=_Kept)
        if (kept.format, kept.key) != (_FORMAT, key):
            return False
        os.utime(entry)  # it is of use: not the next to go
        for number, name in enumerate(kept.directories):
            target = _place(workspace, name)
            if target is None or os.path.lexists(target) or not _copy_tree(entry / str(number), target, done):
                break
            for mention in kept.mentions[number]:
                _rename_within(target / mention, kept.workspace, str(workspace))
        else:
            # it is moved away before it is removed: if it is still in its place, the copies are whole
            if os.path.samestat(os.fstat(held), entry.stat()):
                return True
    except (OSError, msgspec.MsgspecError, ValueError):
        pass
    finally:
        os.close(held)
    for target in done:
        shutil.rmtree(target, ignore_errors=True)
    return False


def _kept(cache: Path, key: str, setup: SetUp, workspace: Path) -> None:
    """Keep what the commands made. Only time is saved by it, so that what goes wrong ends nothing."""
    files.make_directory(cache)
    scratch = cache / f".{key}.{os.getpid()}.tmp"
    try:
        scratch.mkdir(mode=0o700)
        directories: list[str] = []
        mentions: list[tuple[str, ...]] = []
        for name in setup.keep:
            source = _place(workspace, name, make=False)
            if source is None or source.is_symlink() or not source.is_dir():
                continue
            if not _copy_tree(source, scratch / str(len(directories)), []):
                return
            directories.append(name)
            mentions.append(tuple(_mentions(source, str(workspace))))
        kept = _Kept(
            format=_FORMAT,
            key=key,
            workspace=str(workspace),
            directories=tuple(directories),
            mentions=tuple(mentions),
        )
        files.publish(scratch / "kept.json", msgspec.json.encode(kept))
        os.sync()  # all of it, or a power cut leaves a whole name for empty files
        if directories:
            if (cache / key).exists():
                _removed(cache / key)  # another one's, or it could not be used
            scratch.rename(cache / key)
        _bound(cache)
    except (OSError, ValueError):  # a name that is no text
        return
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _bound(cache: Path) -> None:
    """Remove what was of use longest ago, and what a killed worker left half made."""
    entries = sorted((path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    whole = [path for path in entries if not path.name.startswith(".")]
    left = [path for path in entries if path.name.startswith(".") and not _alive(path)]
    for path in [*left, *whole[:-KEPT_MAX]]:
        _removed(path)


def _removed(entry: Path) -> None:
    """Out of its place first, whole: who copies from it just now sees that it went."""
    gone = entry.with_name(f".{entry.name.strip('.')}.{os.getpid()}.gone")
    entry.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _alive(scratch: Path) -> bool:
    """Whether the process that makes it, or removes it, may still be there."""
    number = scratch.name.split(".")[-2]
    return number.isdigit() and Path(f"/proc/{number}").exists()


def _place(workspace: Path, name: str, *, make: bool = True) -> Path | None:
    """Where a directory of that name is or goes; None when a link or a file is on the way."""
    *above, last = PurePosixPath(name).parts
    try:
        os.close(_entered(workspace, above, make=make))
    except OSError:
        return None
    return workspace.joinpath(*above, last)


def _copy_tree(source: Path, target: Path, done: list[Path]) -> bool:
    """Copy a directory with its links as links; whether all of it was. ``done`` gets what was begun."""
    done.append(target)
    command = ["cp", "-a", "--reflink=auto", "--", str(source), str(target)]
    try:
        copied = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COPY_SECONDS, check=False
        )
        if copied.returncode == 0:
            return True
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target, symlinks=True)  # another kind of cp
    except (OSError, shutil.Error, subprocess.TimeoutExpired):
        shutil.rmtree(target, ignore_errors=True)
        return False
    return True


def _mentions(directory: Path, path: str) -> list[str]:
    """The files of text that name a path, relative to the directory."""
    wanted, found = os.fsencode(path), []
    for where, _, names in os.walk(directory):
        for name in names:
            file = Path(where, name)
            status = file.lstat()
            if stat.S_ISREG(status.st_mode) and len(wanted) <= status.st_size <= _MENTION_BYTES_MAX:
                content = file.read_bytes()
                if wanted in content and b"\0" not in content:
                    found.append(os.path.relpath(file, directory))
    return found


def _rename_within(file: Path, old: str, new: str) -> None:
    """Give a file another path for the one it names; a new file, as the old one may not be writable."""
    content, mode = file.read_bytes(), stat.S_IMODE(file.lstat().st_mode)
    file.unlink()
    file.write_bytes(content.replace(os.fsencode(old), os.fsencode(new)))
    file.chmod(mode)
