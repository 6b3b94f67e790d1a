"""How does a file dropped into the inbox become a task, exactly once, or a refusal with its reason?

Every file walks one way, each step a rename, and whatever cuts it, the next start goes on from there::

    inbox/<name> ──take──▶ inbox/.taken/<ticket>.<name> ──judge──▶ the log has the ticket
                                   │                                  └─accept──▶ inbox/accepted/<task>.<ticket>.json
                                   └──refused──▶ inbox/rejected/<name>.<ticket>.error.json   (published first)
                                                 inbox/rejected/<name>.<ticket>.json         (then the file itself)

What must hold:

* The move to ``.taken`` is durable before anything is judged; or a power cut would bring the file back under its old
  name, and it would be submitted again under another ticket.
* A ticket found in the log is accepted; one with an error file is rejected; any other is judged. No ticket can be
  both, because the judge refuses before it appends.
* The judge is idempotent by ticket, so two that judge the same ticket agree.
* Nothing that is not a regular file of ours with one name is ever opened; what is opened is judged by its descriptor.
* A file that does not parse may still be being written: it is left alone until it was unchanged for a second.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import Rejected, Unsuitable
from coordination.model import taskfile

BYTES_MAX = 1 << 20
QUIET_SECONDS = 1.0
_NAME_BYTES_MAX = 150  # a name in ``rejected`` carries it, a ticket and an ending, and must stay below 255

_TAKEN = re.compile(r"[0-9a-f]{16}\..+", re.DOTALL)

Judge = Callable[[bytes, str, str], str]
"""Takes the bytes, the ticket and the file's name; returns the task's id once the log has it, or raises Rejected."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was taken: which, and under what name it came (shortened when it was very long)."""

    id: str
    name: str

    @property
    def source(self) -> str:
        """The name as text that can be written down; bytes that are not UTF-8 are escaped."""
        return os.fsencode(self.name).decode("utf-8", "backslashreplace")


class Fate(StrEnum):
    """What a sweep did with a file."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    WAITING = "waiting"  # does not parse and changed within the last second
    SKIPPED = "skipped"  # the system did not let us, or somebody else was faster; looked at again next time


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """One file's fate. ``reason`` is a sentence for a person; ``field`` is set when one field is to blame."""

    file: str
    fate: Fate
    ticket: str = ""
    task: str = ""
    reason: str = ""
    field: str = ""


class _Sight(msgspec.Struct, frozen=True, kw_only=True):
    """How a file looked, and since when (monotonic seconds) it looks so."""

    look: tuple[int, ...]
    since: float


class Inbox:
    """One inbox directory. ``now`` gives seconds since the epoch, for error files only."""

    def __init__(self, directory: Path, now: Callable[[], float], *, env: Env = REAL) -> None:
        self.directory = directory
        self.taken_directory = directory / ".taken"
        self.accepted_directory = directory / "accepted"
        self.rejected_directory = directory / "rejected"
        self._now = now
        self._env = env
        self._sights: dict[str, _Sight] = {}
        # Taken by us and not finished, because the judge or the disk failed: the next sweep begins with them.
        self._unfinished: dict[str, Ticket] = {}

    # ---- the two verbs of a supervisor -------------------------------------------------------------------------------

    def recover(self, ticket_in_log: Callable[[str], str | None], judge: Judge) -> list[Receipt]:
        """Finish what an earlier process had taken: at start, before the first sweep.

        ``ticket_in_log`` gives the task a ticket became, or None. Raises what the judge raises, but Rejected.
        """
        self.prepare()
        receipts = []
        self._unfinished |= {ticket.id: ticket for ticket in self.taken()}
        self._sync_taken()
        for ticket in list(self._unfinished.values()):
            task = ticket_in_log(ticket.id)
            receipts.append(self._settle(ticket, judge) if task is None else self._finish(ticket, task))
        return receipts

    def sweep(self, judge: Judge) -> list[Receipt]:
        """Take, judge and file away everything that is ready. One bad file never stops the others.

        Raises what the judge raises, but Rejected; the files it did not get to are judged by the next sweep.
        """
        self.prepare()
        receipts = self._take_ready()
        return receipts + [self._settle(ticket, judge) for ticket in list(self._unfinished.values())]

    # ---- the steps ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the directories, for the owner only. Raises Unsuitable when one is a link or not ours."""
        for directory in (self.directory, self.taken_directory, self.accepted_directory, self.rejected_directory):
            files.make_directory(directory, env=self._env)
            status = directory.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
                raise Unsuitable(f"{directory}: expected a directory of this user, found something else; move it away")

    def pending(self) -> list[str]:
        """Names of candidates, oldest first."""
        names = [name for name in self._env.list_directory(self.directory) if _is_candidate(name)]
        return sorted(names, key=lambda name: (_modified(self.directory / name), name))

    def ready(self, name: str) -> bool:
        """Whether a file may be judged: it parses, or was unchanged for a second. Remembers what it saw.

        Raises FileNotFoundError when it is gone, and OSError.
        """
        path = self.directory / name
        look, seen, clock = _look(path), self._sights.get(name), self._env.monotonic()
        if seen is not None and seen.look == look:
            return clock - seen.since >= QUIET_SECONDS
        try:
            taskfile.decode(self._read(path))
        except Rejected:
            self._sights[name] = _Sight(look=look, since=clock)
            return False
        return True

    def take(self, name: str) -> Ticket:
        """Move a file out of the senders' reach, under a ticket of its own. Raises FileNotFoundError if it is gone."""
        ticket = Ticket(id=self._env.random_hex(8), name=_short(name))
        self._env.rename(self.directory / name, self._taken(ticket))
        return ticket

    def taken(self) -> list[Ticket]:
        """What was taken and not filed away, oldest first."""
        names = [name for name in self._env.list_directory(self.taken_directory) if _TAKEN.fullmatch(name)]
        names.sort(key=lambda name: (_modified(self.taken_directory / name), name))
        return [Ticket(id=identity, name=rest) for identity, _, rest in (name.partition(".") for name in names)]

    def read(self, ticket: Ticket) -> bytes:
        """The bytes of a taken file. Raises Rejected for what is not a small regular file of ours; OSError."""
        return self._read(self._taken(ticket))

    def accept(self, ticket: Ticket, task: str) -> None:
        """File away what became a task. May be repeated."""
        self._move(ticket, self.accepted_directory / f"{task}.{ticket.id}.json")

    def reject(self, ticket: Ticket, error: Rejected) -> None:
        """Say why, then file away. May be repeated; the first reason stays."""
        if not self._env.is_file(self._error_file(ticket)):
            files.publish_json(self._error_file(ticket), self._explained(ticket, error), env=self._env)
        self._move(ticket, self.rejected_directory / f"{ticket.name}.{ticket.id}.json")

    # ---- inside ------------------------------------------------------------------------------------------------------

    def _take_ready(self) -> list[Receipt]:
        names = self.pending()
        present = set(names)
        self._sights = {name: sight for name, sight in self._sights.items() if name in present}
        receipts = []
        for name in names:
            try:
                if self.ready(name):
                    ticket = self.take(name)
                    self._unfinished[ticket.id] = ticket
                else:
                    receipts.append(Receipt(file=_text(name), fate=Fate.WAITING, reason="may still be being written"))
            except OSError as error:
                receipts.append(_skipped(_text(name), error))
        self._sync_taken()
        return receipts

    def _sync_taken(self) -> None:
        """Make the moves to ``.taken`` durable: asked once for all of them, before any is judged."""
        if self._unfinished:
            # the new names first: better twice after a power cut than nowhere
            self._sync(self.taken_directory, self.directory)

    def _settle(self, ticket: Ticket, judge: Judge) -> Receipt:
        """Bring a taken file to its end: accepted or rejected."""
        try:
            if self._env.is_file(self._error_file(ticket)):
                # refused before, and cut before the move; asking again might end the other way
                return self._refused(ticket, Rejected("refused earlier; see the error file"))
            data = self.read(ticket)
        except Rejected as error:
            return self._refused(ticket, error)
        except FileNotFoundError as error:
            self._unfinished.pop(ticket.id, None)
            return _skipped(ticket.source, error, ticket.id)
        except OSError as error:
            return _skipped(ticket.source, error, ticket.id)
        try:
            task = judge(data, ticket.id, ticket.source)
        except Rejected as error:
            return self._refused(ticket, error)
        return self._finish(ticket, task)

    def _finish(self, ticket: Ticket, task: str) -> Receipt:
        try:
            self.accept(ticket, task)
        except OSError as error:
            return _skipped(ticket.source, error, ticket.id)
        self._unfinished.pop(ticket.id, None)
        return Receipt(file=ticket.source, fate=Fate.ACCEPTED, ticket=ticket.id, task=task)

    def _refused(self, ticket: Ticket, error: Rejected) -> Receipt:
        try:
            self.reject(ticket, error)
        except OSError as failure:
            return _skipped(ticket.source, failure, ticket.id)
        self._unfinished.pop(ticket.id, None)
        return Receipt(file=ticket.source, fate=Fate.REJECTED, ticket=ticket.id, reason=error.reason, field=error.field)

    def _read(self, path: Path) -> bytes:
        # asked before opening, because opening a device or a pipe can already do something
        _check_ours(path.lstat())
        try:
            descriptor = self._env.open_read(path)
        except PermissionError as error:
            raise Rejected(
                "the file cannot be read by us", expected="a readable file", found="no permission"
            ) from error
        try:
            # and again of what was opened, because it may have been swapped in between
            _check_ours(os.fstat(descriptor))
            data = self._read_bounded(descriptor)
        finally:
            self._env.close(descriptor)
        _check_size(len(data))
        return data

    def _read_bounded(self, descriptor: int) -> bytes:
        """All bytes, or one more than we take: not by the size it had, because it may grow while we read."""
        data = b""
        while block := self._env.read(descriptor, BYTES_MAX + 1 - len(data), len(data)):
            data += block
        return data

    def _move(self, ticket: Ticket, target: Path) -> None:
        try:
            self._env.rename(self._taken(ticket), target)
        except FileNotFoundError:
            # done already, by us before a cut or by another process that recovered the same ticket
            if not os.path.lexists(target):
                raise
        self._sync(target.parent, self.taken_directory)

    def _sync(self, *directories: Path) -> None:
        for directory in directories:
            files.sync_directory(directory, env=self._env)

    def _taken(self, ticket: Ticket) -> Path:
        return self.taken_directory / f"{ticket.id}.{ticket.name}"

    def _error_file(self, ticket: Ticket) -> Path:
        return self.rejected_directory / f"{ticket.name}.{ticket.id}.error.json"

    def _explained(self, ticket: Ticket, error: Rejected) -> dict[str, str]:
        at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        explained = {
            "file": ticket.source,
            "reason": error.reason,
            "field": error.field,
            "expected": error.expected,
            "found": error.found,
        }
        # a judge may quote what it was given; what cannot be written as UTF-8 must not keep the reason from people
        return {key: text.encode("utf-8", "backslashreplace").decode() for key, text in explained.items()} | {"at": at}


def _is_candidate(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _modified(path: Path) -> int:
    """When it was last written, in nanoseconds; 0 when it is gone, which taking it will find out again."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _look(path: Path) -> tuple[int, ...]:
    status = path.lstat()
    return (status.st_mode, status.st_dev, status.st_ino, status.st_nlink, status.st_size, status.st_mtime_ns)


def _check_ours(status: os.stat_result) -> None:
    found = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    if found != _REGULAR:
        raise Rejected(f"not a file but {found}", expected=_REGULAR, found=found)
    if status.st_uid != os.geteuid():
        raise Rejected("the file belongs to another user", expected=f"user {os.geteuid()}", found=f"{status.st_uid}")
    if status.st_nlink != 1:
        raise Rejected("the file has other names", expected="one hard link", found=f"{status.st_nlink}")
    _check_size(status.st_size)


def _check_size(size: int) -> None:
    if size > BYTES_MAX:
        raise Rejected("the file is too large", expected=f"at most {BYTES_MAX} bytes", found=f"{size} bytes or more")


_REGULAR = "a regular file"
_KINDS = {
    stat.S_IFREG: _REGULAR,
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def _short(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _NAME_BYTES_MAX else encoded[:_NAME_BYTES_MAX].decode("utf-8", "ignore")


def _text(name: str) -> str:
    return Ticket(id="", name=name).source


def _skipped(file: str, error: OSError, ticket: str = "") -> Receipt:
    return Receipt(file=file, fate=Fate.SKIPPED, ticket=ticket, reason=f"{type(error).__name__}: {error}")
