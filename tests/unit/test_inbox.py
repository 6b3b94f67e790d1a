"""Does every step of the inbox do what it says, for every kind of file, and again after a cut at any gesture?"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination.env import Env
from coordination.errors import Rejected, Unsuitable
from coordination.inbox import BYTES_MAX, QUIET_SECONDS, Fate, Inbox, Receipt
from coordination.model import taskfile

GOOD = b'{"prompt": "Do it."}'


class Watched(Env):
    """The real world, but with a clock that stands still and a record of every gesture."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.gestures: list[str] = []

    def monotonic(self) -> float:
        return self.clock

    def rename(self, old: Path, new: Path) -> None:
        self.gestures.append(f"rename to {new.parent.name}")
        super().rename(old, new)

    def sync_directory(self, path: Path) -> None:
        self.gestures.append(f"sync {path.name}")
        super().sync_directory(path)

    def open_read(self, path: Path) -> int:
        self.gestures.append(f"open {path.name}")
        return super().open_read(path)


class Ledger:
    """A judge as the coordinator is one: strict about files, idempotent by ticket."""

    def __init__(self) -> None:
        self.tasks: dict[str, str] = {}
        self.calls: list[tuple[bytes, str, str]] = []

    def judge(self, data: bytes, ticket: str, source: str) -> str:
        self.calls.append((data, ticket, source))
        taskfile.parse(taskfile.decode(data), roles=(), gates=())
        return self.tasks.setdefault(ticket, f"t{len(self.tasks) + 1}")


@pytest.fixture
def env() -> Watched:
    return Watched()


@pytest.fixture
def inbox(tmp_path: Path, env: Watched) -> Inbox:
    made = Inbox(tmp_path / "state" / "inbox", lambda: 1_700_000_000.25, env=env)
    made.prepare()
    return made


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def swept(inbox: Inbox, env: Watched, ledger: Ledger) -> list[Receipt]:
    """What has become of all files once none can be still being written."""
    first = [receipt for receipt in inbox.sweep(ledger.judge) if receipt.fate is not Fate.WAITING]
    env.clock += QUIET_SECONDS
    return first + inbox.sweep(ledger.judge)


def error_file(inbox: Inbox) -> dict[str, Any]:
    (path,) = inbox.rejected_directory.glob("*.error.json")
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def test_a_good_file_is_accepted_under_its_task_and_ticket(inbox: Inbox, ledger: Ledger) -> None:
    """The judge gets bytes, ticket and name; the file ends in ``accepted`` and nowhere else."""
    (inbox.directory / "fix.json").write_bytes(GOOD)
    (receipt,) = inbox.sweep(ledger.judge)
    assert ledger.calls == [(GOOD, receipt.ticket, "fix.json")]
    assert (receipt.file, receipt.fate, receipt.task) == ("fix.json", Fate.ACCEPTED, "t1")
    assert (inbox.accepted_directory / f"t1.{receipt.ticket}.json").read_bytes() == GOOD
    assert (inbox.pending(), inbox.taken()) == ([], [])
    assert list(inbox.rejected_directory.iterdir()) == []


def test_a_bad_file_is_rejected_with_the_reason_beside_it(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """The error file says file, reason, field, expected, found and when; the file itself is kept."""
    (inbox.directory / "bad.json").write_bytes(b'{"promt": "x"}')
    (receipt,) = swept(inbox, env, ledger)
    assert (receipt.fate, receipt.field) == (Fate.REJECTED, "promt")
    assert (inbox.rejected_directory / f"bad.json.{receipt.ticket}.json").read_bytes() == b'{"promt": "x"}'
    assert (inbox.rejected_directory / f"bad.json.{receipt.ticket}.error.json").exists()
    assert error_file(inbox) == {
        "file": "bad.json",
        "reason": receipt.reason,
        "field": "promt",
        "expected": "prompt",
        "found": "promt",
        "at": "2023-11-14T22:13:20.250000Z",
    }
    assert list(inbox.accepted_directory.iterdir()) == []


def test_directories_are_for_the_owner_only(inbox: Inbox) -> None:
    """Nobody else may read prompts or drop files."""
    for directory in (inbox.directory, inbox.taken_directory, inbox.accepted_directory, inbox.rejected_directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_linked_directory_is_refused(tmp_path: Path, inbox: Inbox, ledger: Ledger) -> None:
    """Files are never moved through a link to somewhere else."""
    inbox.accepted_directory.rmdir()
    inbox.accepted_directory.symlink_to(tmp_path)
    with pytest.raises(Unsuitable, match="accepted"):
        inbox.sweep(ledger.judge)


def test_hidden_and_other_names_are_ignored(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """Names that begin with a dot or do not end in .json are somebody's work in progress."""
    for name in (".x.json", ".x.tmp", "x.json.tmp", "x.JSON", "notes.txt", "json"):
        (inbox.directory / name).write_bytes(GOOD)
    assert swept(inbox, env, ledger) == []
    assert len(list(inbox.directory.iterdir())) == 6 + 3


def test_files_are_judged_in_the_order_they_were_written(inbox: Inbox, ledger: Ledger) -> None:
    """Minted ids follow submission, not the alphabet."""
    for moment, name in enumerate(["c", "a", "b"]):
        path = inbox.directory / f"{name}.json"
        path.write_bytes(GOOD)
        os.utime(path, (moment, moment))
    assert [receipt.file for receipt in inbox.sweep(ledger.judge)] == ["c.json", "a.json", "b.json"]


def test_the_move_is_durable_before_the_judge_is_asked(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """Both directories are synced between taking and judging, in the order that cannot lose the file."""
    (inbox.directory / "a.json").write_bytes(GOOD)
    at_judgement: list[str] = []

    def judge(data: bytes, ticket: str, source: str) -> str:
        at_judgement.extend(gesture for gesture in env.gestures if not gesture.startswith("open"))
        return ledger.judge(data, ticket, source)

    env.gestures.clear()
    inbox.sweep(judge)
    assert at_judgement == ["rename to .taken", "sync .taken", "sync inbox"]
    assert env.gestures[-3:] == ["rename to accepted", "sync accepted", "sync .taken"]


# ---- still being written ---------------------------------------------------------------------------------------------


def test_a_half_written_file_is_judged_only_when_it_is_whole(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """A file that grows waits as long as it grows, and is accepted at once when it parses."""
    path = inbox.directory / "slow.json"
    for size in range(1, len(GOOD)):
        path.write_bytes(GOOD[:size])
        assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.WAITING]
        env.clock += QUIET_SECONDS * 0.9
    path.write_bytes(GOOD)
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.ACCEPTED]
    assert len(ledger.calls) == 1


def test_a_file_that_stays_half_is_rejected_after_a_second(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """The second begins when the file was first seen as it is, not when its clock says it was written."""
    path = inbox.directory / "half.json"
    path.write_bytes(GOOD[:9])
    os.utime(path, (1, 1))
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.WAITING]
    env.clock += QUIET_SECONDS * 0.99
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.WAITING]
    env.clock += QUIET_SECONDS * 0.02
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.REJECTED]
    assert "not JSON" in error_file(inbox)["reason"]


def test_growing_counts_as_change_even_if_the_clock_stands_still(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """A file system with coarse times does not make a growing file look finished."""
    path = inbox.directory / "x.json"
    for size in (1, 2, 3):
        path.write_bytes(GOOD[:size])
        os.utime(path, (1, 1))
        assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.WAITING]
        env.clock += QUIET_SECONDS


def test_another_file_of_the_same_name_begins_anew(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """What was remembered of a file is not held against its successor."""
    path = inbox.directory / "x.json"
    path.write_bytes(b"{")
    inbox.sweep(ledger.judge)
    env.clock += QUIET_SECONDS
    path.unlink()
    path.write_bytes(b'{"')
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.WAITING]


# ---- what is not a regular file of ours ------------------------------------------------------------------------------


def _link_outside(path: Path) -> None:
    secret = path.parent.parent / "secret"
    secret.write_bytes(GOOD)
    path.symlink_to(secret)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _hard_link(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(GOOD)
    path.hardlink_to(other)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "symbolic link": (_link_outside, "a symbolic link"),
    "dangling link": (lambda path: path.symlink_to("/nowhere"), "a symbolic link"),
    "link to itself": (lambda path: path.symlink_to(path.name), "a symbolic link"),
    "directory": (lambda path: (path / "full").mkdir(parents=True), "a directory"),
    "pipe": (os.mkfifo, "a named pipe"),
    "socket": (_socket, "a socket"),
    "hard link": (_hard_link, "other names"),
}


@pytest.mark.parametrize(("make", "reason"), ODD.values(), ids=ODD)
def test_what_is_no_plain_file_is_moved_without_being_opened(
    make: Callable[[Path], object], reason: str, inbox: Inbox, env: Watched, ledger: Ledger
) -> None:
    """Links, pipes, directories and the like are refused by what they are; neither we nor the judge look inside."""
    make(inbox.directory / "odd.json")
    kind = stat.S_IFMT((inbox.directory / "odd.json").lstat().st_mode)
    (receipt,) = swept(inbox, env, ledger)
    assert receipt.fate is Fate.REJECTED
    assert reason in error_file(inbox)["reason"]
    assert not [gesture for gesture in env.gestures if "odd.json" in gesture]
    assert ledger.calls == []
    moved = inbox.rejected_directory / f"odd.json.{receipt.ticket}.json"
    assert stat.S_IFMT(moved.lstat().st_mode) == kind
    assert (inbox.pending(), inbox.taken()) == ([], [])


def test_a_link_that_replaces_a_file_at_the_last_moment_is_not_followed(tmp_path: Path, ledger: Ledger) -> None:
    """Swapped between the look and the opening, the target outside is still never read."""
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"prompt": "secret"}')

    class Swapping(Watched):
        def open_read(self, path: Path) -> int:
            path.unlink()
            path.symlink_to(secret)
            return super().open_read(path)

    env = Swapping()
    inbox = Inbox(tmp_path / "inbox", lambda: 0.0, env=env)
    inbox.prepare()
    (inbox.directory / "a.json").write_bytes(GOOD)
    fates = [receipt.fate for receipt in swept(inbox, env, ledger) + swept(inbox, env, ledger)]
    assert fates[-1] is Fate.REJECTED
    assert ledger.calls == []


def test_a_pipe_that_replaces_a_file_at_the_last_moment_does_not_block(tmp_path: Path, ledger: Ledger) -> None:
    """What was opened is judged by its descriptor, and opening never waits for the other end."""

    class Swapping(Watched):
        def open_read(self, path: Path) -> int:
            path.unlink()
            os.mkfifo(path)
            return super().open_read(path)

    env = Swapping()
    inbox = Inbox(tmp_path / "inbox", lambda: 0.0, env=env)
    inbox.prepare()
    (inbox.directory / "a.json").write_bytes(GOOD)
    fates = [receipt.fate for receipt in swept(inbox, env, ledger) + swept(inbox, env, ledger)]
    assert fates[-1] is Fate.REJECTED
    assert ledger.calls == []


def test_a_hard_link_that_replaces_a_file_at_the_last_moment_is_not_read(tmp_path: Path, ledger: Ledger) -> None:
    """A file with a second name outside is refused by what was opened, not only by what was there before."""
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"prompt": "secret"}')

    class Swapping(Watched):
        def open_read(self, path: Path) -> int:
            if path.parent.name == ".taken":
                path.unlink()
                path.hardlink_to(secret)
            return super().open_read(path)

    env = Swapping()
    inbox = Inbox(tmp_path / "inbox", lambda: 0.0, env=env)
    inbox.prepare()
    (inbox.directory / "a.json").write_bytes(GOOD)
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.REJECTED]
    assert ledger.calls == []


def test_a_file_of_another_user_is_refused(
    inbox: Inbox, env: Watched, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what we wrote ourselves is a task of ours."""
    (inbox.directory / "a.json").write_bytes(GOOD)
    inbox.prepare()
    monkeypatch.setattr(inbox, "prepare", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    (receipt,) = swept(inbox, env, ledger)
    assert (receipt.fate, receipt.reason) == (Fate.REJECTED, "the file belongs to another user")


def test_five_megabytes_are_refused(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """A large file is refused for its size, without being read."""
    (inbox.directory / "big.json").write_bytes(b'{"prompt": "' + b"x" * 5_000_000 + b'"}')
    (receipt,) = swept(inbox, env, ledger)
    assert (receipt.fate, error_file(inbox)["found"]) == (Fate.REJECTED, "5000014 bytes or more")
    assert not [gesture for gesture in env.gestures if "big.json" in gesture]


def test_the_size_limit_is_the_last_size_accepted(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """One byte more than a mebibyte is too much, a mebibyte is not."""
    (inbox.directory / "most.json").write_bytes(GOOD.ljust(BYTES_MAX))
    (inbox.directory / "over.json").write_bytes(GOOD.ljust(BYTES_MAX + 1))
    assert {receipt.file: receipt.fate for receipt in swept(inbox, env, ledger)} == {
        "most.json": Fate.ACCEPTED,
        "over.json": Fate.REJECTED,
    }


def test_a_file_that_grows_while_it_is_read_is_still_bounded(tmp_path: Path, ledger: Ledger) -> None:
    """The limit holds for what was read, not only for what was promised."""

    class Growing(Watched):
        def read(self, descriptor: int, size: int, offset: int) -> bytes:
            # once it is taken, and after its size was looked at
            for path in (tmp_path / "inbox" / ".taken").iterdir():
                os.truncate(path, BYTES_MAX * 2)
            return super().read(descriptor, size, offset)

    env = Growing()
    inbox = Inbox(tmp_path / "inbox", lambda: 0.0, env=env)
    inbox.prepare()
    (inbox.directory / "a.json").write_bytes(GOOD)
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.REJECTED]
    assert ledger.calls == []


def test_a_file_we_may_not_read_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    """A file without permissions is not left lying for ever, it is given its reason."""

    class Forbidding(Watched):
        def open_read(self, path: Path) -> int:
            raise PermissionError(13, "Permission denied", str(path))

    env = Forbidding()
    inbox = Inbox(tmp_path / "inbox", lambda: 0.0, env=env)
    inbox.prepare()
    (inbox.directory / "a.json").write_bytes(GOOD)
    assert [receipt.reason for receipt in swept(inbox, env, ledger)] == ["the file cannot be read by us"]


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"a b.json", b"\xff\xfe.json", b"x\n\x1b[2J.json", b"-rf.json", b"a.b.json"])
def test_odd_names_are_kept_on_disk_and_written_as_text(
    name: bytes, inbox: Inbox, env: Watched, ledger: Ledger
) -> None:
    """Whatever bytes a name has, the file goes its way and the source can be written down."""
    (inbox.directory / os.fsdecode(name)).write_bytes(GOOD)
    (inbox.directory / os.fsdecode(b"bad" + name)).write_bytes(b"[]")
    receipts = swept(inbox, env, ledger)
    assert [receipt.fate for receipt in receipts] == [Fate.ACCEPTED, Fate.REJECTED]
    json.dumps(ledger.calls[0][2], ensure_ascii=False).encode()
    rejected = os.fsencode(inbox.rejected_directory) + b"/bad" + name + f".{receipts[1].ticket}.json".encode()
    assert os.path.lexists(rejected)
    assert error_file(inbox)["file"] == (b"bad" + name).decode("utf-8", "backslashreplace")


def test_the_longest_name_still_has_room_for_its_reason(inbox: Inbox, env: Watched, ledger: Ledger) -> None:
    """A name as long as the system allows is shortened, not left lying."""
    name = "é" * 125 + ".json"
    (inbox.directory / name).write_bytes(b"[]")
    (receipt,) = swept(inbox, env, ledger)
    assert receipt.fate is Fate.REJECTED
    assert name.startswith(error_file(inbox)["file"])
    assert len(receipt.file) > 50


def test_the_name_is_known_from_the_ticket_file_alone(inbox: Inbox, tmp_path: Path) -> None:
    """After a restart nothing but the directory is needed to know what was taken."""
    (inbox.directory / "a.b.json").write_bytes(GOOD)
    ticket = inbox.take("a.b.json")
    assert Inbox(inbox.directory, lambda: 0.0).taken() == [ticket]
    assert (ticket.name, ticket.source) == ("a.b.json", "a.b.json")


# ---- when things go wrong --------------------------------------------------------------------------------------------


def test_a_file_that_vanishes_is_skipped_and_the_others_go_on(inbox: Inbox, ledger: Ledger) -> None:
    """One that somebody else took is a receipt, not an error."""

    class Losing(Watched):
        def rename(self, old: Path, new: Path) -> None:
            if old.name == "a.json":
                old.unlink()
            super().rename(old, new)

    losing = Inbox(inbox.directory, lambda: 0.0, env=Losing())
    for name in ("a.json", "b.json"):
        (inbox.directory / name).write_bytes(GOOD)
    fates = {receipt.file: receipt.fate for receipt in losing.sweep(ledger.judge)}
    assert fates == {"a.json": Fate.SKIPPED, "b.json": Fate.ACCEPTED}


def test_what_the_disk_refused_is_tried_again_by_the_next_sweep(inbox: Inbox, ledger: Ledger) -> None:
    """A full disk keeps a file in ``.taken`` only until it has room again, without a restart."""

    class Full(Watched):
        room = False

        def rename(self, old: Path, new: Path) -> None:
            if not self.room and new.parent.name == "accepted":
                raise OSError(28, "No space left on device")
            super().rename(old, new)

    env = Full()
    full = Inbox(inbox.directory, lambda: 0.0, env=env)
    (inbox.directory / "a.json").write_bytes(GOOD)
    assert [receipt.fate for receipt in full.sweep(ledger.judge)] == [Fate.SKIPPED]
    env.room = True
    assert [receipt.fate for receipt in full.sweep(ledger.judge)] == [Fate.ACCEPTED]
    assert len(ledger.tasks) == 1
    assert full.sweep(ledger.judge) == []


def test_what_the_judge_raises_goes_on_and_no_file_is_lost(inbox: Inbox, ledger: Ledger) -> None:
    """A log that is out of order stops the sweep; the next one judges all that were taken."""
    for name in ("a.json", "b.json"):
        (inbox.directory / name).write_bytes(GOOD)

    def broken(_data: bytes, _ticket: str, _source: str) -> str:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        inbox.sweep(broken)
    assert len(inbox.taken()) == 2
    assert [receipt.fate for receipt in inbox.sweep(ledger.judge)] == [Fate.ACCEPTED] * 2


def test_a_ticket_in_the_log_is_accepted_without_being_judged_again(inbox: Inbox, ledger: Ledger) -> None:
    """What the log knows is only filed away."""
    (inbox.directory / "a.json").write_bytes(GOOD)
    ticket = inbox.take("a.json")
    restarted = Inbox(inbox.directory, lambda: 0.0)
    (receipt,) = restarted.recover({ticket.id: "t7"}.get, ledger.judge)
    assert (receipt.fate, receipt.task, ledger.calls) == (Fate.ACCEPTED, "t7", [])
    assert (inbox.accepted_directory / f"t7.{ticket.id}.json").read_bytes() == GOOD


def test_a_refusal_that_was_cut_is_not_judged_again(inbox: Inbox, ledger: Ledger) -> None:
    """Where the reason is published the file is rejected, even if it would be accepted now."""
    (inbox.directory / "a.json").write_bytes(GOOD)
    ticket = inbox.take("a.json")
    error = inbox.rejected_directory / f"a.json.{ticket.id}.error.json"
    error.write_text('{"reason": "no such gate"}')
    (receipt,) = Inbox(inbox.directory, lambda: 0.0).recover(ledger.tasks.get, ledger.judge)
    assert (receipt.fate, ledger.calls) == (Fate.REJECTED, [])
    assert json.loads(error.read_text()) == {"reason": "no such gate"}
    assert list(inbox.accepted_directory.iterdir()) == []


def test_accepting_and_rejecting_twice_changes_nothing(inbox: Inbox) -> None:
    """Both may be repeated, and the first reason stays."""
    for name in ("a.json", "b.json"):
        (inbox.directory / name).write_bytes(GOOD)
    one, other = inbox.take("a.json"), inbox.take("b.json")
    for reason in ("first", "second"):
        inbox.accept(one, "t1")
        inbox.reject(other, Rejected(reason))
    assert len(list(inbox.accepted_directory.iterdir())) == 1
    assert error_file(inbox)["reason"] == "first"


def test_a_reason_that_cannot_be_written_as_text_is_still_given(inbox: Inbox) -> None:
    """A judge that quotes half a character does not keep the reason from people."""
    (inbox.directory / "a.json").write_bytes(GOOD)
    inbox.reject(inbox.take("a.json"), Rejected("bad \ud800", found="\udcff"))
    assert (error_file(inbox)["reason"], error_file(inbox)["found"]) == ("bad \\ud800", "\\udcff")


# ---- cut at every gesture --------------------------------------------------------------------------------------------


class Cut(BaseException):
    """The process is gone. Not an Exception: nobody may catch it."""


class Cutting(Watched):
    """Dies before or after its n-th gesture, and does nothing more, as a killed process."""

    def __init__(self, gestures: int, after: bool) -> None:
        super().__init__()
        self.left = gestures
        self.after = after
        self.dead = False

    def _around(self, gesture: Callable[[], Any]) -> Any:
        if self.dead:
            raise Cut
        self.left -= 1
        self.dead = self.left == 0
        if self.dead and not self.after:
            raise Cut
        result = gesture()
        if self.dead:
            raise Cut
        return result

    def rename(self, old: Path, new: Path) -> None:
        self._around(lambda: super(Cutting, self).rename(old, new))

    def sync_directory(self, path: Path) -> None:
        self._around(lambda: None)  # the system lives on, so what was not synced is there all the same

    def create(self, path: Path) -> int:
        descriptor: int = self._around(lambda: super(Cutting, self).create(path))
        return descriptor

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        taken: int = self._around(lambda: super(Cutting, self).write(descriptor, data, offset))
        return taken

    def sync(self, descriptor: int) -> None:
        self._around(lambda: None)

    def unlink(self, path: Path) -> None:
        self._around(lambda: super(Cutting, self).unlink(path))


def _lives(directory: Path, ledger: Ledger, cuts: tuple[tuple[int, bool], ...]) -> Iterator[bool]:
    """Start once for each cut, and once more to the end; yields whether that life was cut."""
    for gestures, after in (*cuts, (0, False)):
        env = Cutting(gestures, after)
        inbox = Inbox(directory, lambda: 0.0, env=env)
        try:
            inbox.recover(ledger.tasks.get, ledger.judge)
            swept(inbox, env, ledger)
        except Cut:
            yield True
        else:
            yield False


def _check_each_ended_once(directory: Path, ledger: Ledger) -> None:
    accepted = [path.read_bytes() for path in (directory / "accepted").iterdir()]
    names = sorted(path.name.split(".")[0] for path in (directory / "rejected").glob("[!.]*"))
    assert accepted == [GOOD]
    assert len(ledger.tasks) == 1
    assert names == ["bad", "bad", "link", "link"]  # each with its reason
    assert len(list((directory / "rejected").glob("[!.]*.error.json"))) == 2
    assert list((directory / ".taken").iterdir()) == []
    assert not list(directory.glob("*.json"))


def _dropped(directory: Path) -> None:
    Inbox(directory, lambda: 0.0).prepare()
    (directory / "good.json").write_bytes(GOOD)
    (directory / "bad.json").write_bytes(b'{"prompt": ""}')
    (directory / "link.json").symlink_to("/etc/passwd")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_cut_at_any_gesture_leaves_each_file_one_end(tmp_path: Path, after: bool) -> None:
    """Cut once at every gesture, and again at every gesture of the recovery: each file ends exactly once."""
    first, cut = 0, True
    while cut:
        first += 1
        second = 0
        again = True
        while again:
            second += 1
            directory = tmp_path / f"{first}-{second}"
            _dropped(directory)
            ledger = Ledger()
            cut, again, last = _lives(directory, ledger, ((first, after), (second, after)))
            assert not last
            _check_each_ended_once(directory, ledger)
    assert first > 15
