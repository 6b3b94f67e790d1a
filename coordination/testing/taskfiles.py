"""What can somebody drop into an inbox, by mistake or to do harm, and was each of these files dealt with exactly once?

``drops(dice, count)`` makes task files of every kind we could think of: valid ones, valid ones with one thing wrong,
bytes that are not JSON, bytes that were flipped, cut or spliced, names and kinds of files that nobody should drop, the
same task again and another task under the same id. Each says what must become of it, where that is known. ``place``
puts them into a directory, and ``violations`` compares what has become of them with the contract: a file ends in
``accepted`` and its ticket in the log, or in ``rejected`` with the reason beside it, never both, never neither.
``violations`` follows files by their inode and reads error files and the log's lines itself::

    placed = place(drops(Random(seed), 500), inbox.directory, elsewhere)
    receipts = inbox.sweep(judge) + ...
    assert violations(inbox.directory, placed, receipts, payloads_of_the_log) == []
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any

from coordination.env import Env
from coordination.inbox import BYTES_MAX, Fate, Receipt
from coordination.model.taskfile import DEPTH_MAX, PROMPT_BYTES_MAX

GATES = ("unit", "types")
"""The gates that the judge must know."""


class Must(StrEnum):
    """What must become of a file."""

    ACCEPT = "accepted"
    REJECT = "rejected"
    EITHER = "accepted or rejected"  # of bytes changed at random nobody knows it beforehand
    IGNORE = "ignored"  # not a name that an inbox looks at


class Kind(StrEnum):
    """What stands under the name."""

    FILE = "file"
    LINK = "symbolic link to a good file"
    DANGLING = "symbolic link to nothing"
    LINK_TO_DEVICE = "symbolic link to a device"
    HARD_LINK = "good file with another name elsewhere"
    FIFO = "named pipe"
    SOCKET = "socket"
    DIRECTORY = "directory"
    FULL_DIRECTORY = "directory with a good file in it"
    DEVICE = "device"  # only root can make one
    FOREIGN = "good file of another user"  # the same


@dataclass(frozen=True, kw_only=True)
class Drop:
    """One file: its name, its bytes, what must become of it; ``field`` is the one to blame, where that is known."""

    name: str
    data: bytes
    must: Must
    what: str
    kind: Kind = Kind.FILE
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A drop that was put down, and its inode there."""

    drop: Drop
    inode: int


class WatchingEnv(Env):
    """The real world with a clock of its own; notes what was opened that nobody may open. Syncs only when asked to."""

    def __init__(self, *, syncs: bool) -> None:
        self.clock = 0.0
        self.opened: list[str] = []
        self._syncs = syncs

    def monotonic(self) -> float:
        """The clock, which stands still until it is set."""
        return self.clock

    def open_read(self, path: Path) -> int:
        """Open, and note what is not a regular file with one name."""
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            self.opened.append(path.name)
        return super().open_read(path)

    def sync(self, descriptor: int) -> None:
        """Sync, or save the time."""
        if self._syncs:
            super().sync(descriptor)


# ---- files that can be dropped ---------------------------------------------------------------------------------------

_TEXTS = ("Do it.", "é ☃ 𝄞", "a\nb\n", "\u0000", "\u001b[31mred\u001b]0;title\u0007", "\u202egnp.exe", "x" * 5000)

_RIGHT: Mapping[str, Sequence[Any]] = {
    "title": ("T", "", "x" * 200, "é ☃", "<b>&amp;</b>", "$(id); `id`"),
    "kind": ("search", "plan", "implement", "fix", "refactor", "test", "document", "review", "audit"),
    "role": ("auto",),
    "priority": (-100, 0, 100, 3.0, -0.0),
    "after": ([], ["nobody-yet"], ["nobody-yet", "another_1"]),
    "gates": ([], ["unit"], ["types", "unit"]),
    "paths": ([], ["src/**"], ["docs", "a b/ü.md", "..."]),
    "base": ("main", "release/1.0", "0" * 40),
    "review": ("auto", "always", "never"),
    "budget_usd": (1, 0.5, 1e6),
    "timeout_seconds": (1, 0.5, 86400),
    "turns_max": (1, 3.0, 2**40),
    "attempts_max": (1, 3.0),
    "context": ([], ["README.md"]),
    "labels": ({}, {"a": "b", "": "", "\u001b[31m": "\u0000"}),
    "version": (1, 1.0),
}

_NO_COUNT: Sequence[Any] = (0, -1, 1.5, True, "1", None, [], {}, 1e300)
_NO_AMOUNT: Sequence[Any] = (0, -1, -0.0, True, "1", None, [], {})
_NO_PATHS: Sequence[Any] = (
    "src",
    [1],
    [""],
    [" "],
    ["/etc/passwd"],
    ["../x"],
    ["a/../../b"],
    ["a\u0000"],
    ["a\nb"],
    [["a"]],
    None,
    {},
)
WRONG: Mapping[str, Sequence[Any]] = {
    "prompt": (None, True, 1, "", [], {}, ["Do it."], "x" * (PROMPT_BYTES_MAX + 1), "é" * (PROMPT_BYTES_MAX // 2 + 1)),
    "id": ("", "a b", "-x", ".x", "../x", "x" * 65, "é", "x\n", "x\u0000", "$(id)", "a/b", 1, None, True, [], {}),
    "title": (1, None, [], "x" * 201, "a\nb", "\u001b[31m", "\u202e", "\u2028", "\u0085"),
    "kind": ("implment", "", "IMPLEMENT", " fix", None, 1, ["fix"], {}),
    "role": ("nobody-has-this-role", "", "AUTO", "../green", None, 1, []),
    "priority": (101, -101, 1.5, "1", True, None, [], 2**62, 1e300),
    "after": ("x", [1], ["a", "A"], ["a b"], ["x", None], [["x"]], None, {}),
    "gates": (["nope"], "unit", [1], ["unit", "unit"], ["rm -rf /"], [["unit"]], None, {}),
    "paths": _NO_PATHS,
    "base": ("", "-x", "a..b", "a b", "a\u0000", "refs/heads/x.lock", "@{-1}", 1, None, []),
    "review": ("maybe", "", True, None, 1),
    "budget_usd": _NO_AMOUNT,
    "timeout_seconds": _NO_AMOUNT,
    "turns_max": _NO_COUNT,
    "attempts_max": _NO_COUNT,
    "context": _NO_PATHS,
    "labels": ([], {"a": 1}, {"a": None}, {"a": {}}, {"a": ["b"]}, "x", None),
    "version": (2, 0, 1.5, "1", True, None, []),
}
_UNKNOWN = ("promt", "Prompt", "command", "env", "PATH", "__proto__", "", " ", "\u0000", "\u001b[31m", "é", "x" * 5000)

# %s is one member of a valid object, so that each text has one thing wrong
NOT_JSON: Mapping[str, str | bytes] = {
    "nothing": "",
    "blanks": " \t\r\n ",
    "no object": '["prompt"]',
    "a string": '"prompt"',
    "null": "null",
    "a number": "1",
    "cut": '{%s, "title": "x',
    "comma at the end": "{%s,}",
    "no quotes": "{prompt: 1}",
    "single quotes": "{'prompt': 'x'}",
    "a comment": "{%s} // fine",
    "two objects": "{%s}{%s}",
    "two lines": "{%s}\n{%s}",
    "raw control character": '{%s, "title": "\x01"}',
    "raw line feed": '{%s, "title": "a\nb"}',
    "NaN": '{%s, "budget_usd": NaN}',
    "Infinity": '{%s, "budget_usd": Infinity}',
    "-Infinity": '{%s, "priority": -Infinity}',
    "too large a number": '{%s, "budget_usd": 1e999}',
    "too small a number": '{%s, "budget_usd": -1e999}',
    "a huge integer": '{%s, "turns_max": ' + "9" * 10_000 + "}",
    "an integer of 65 bits": '{%s, "turns_max": 18446744073709551616}',
    "leading zero": '{%s, "priority": 01}',
    "plus": '{%s, "priority": +1}',
    "hexadecimal": '{%s, "priority": 0x10}',
    "no digit before the dot": '{%s, "budget_usd": .5}',
    "key twice": '{%s, "title": "a", "title": "b"}',
    "key twice, once escaped": '{%s, "title": "a", "titl\\u0065": "b"}',
    "inner key twice": '{%s, "labels": {"a": "b", "a": "c"}}',
    "high surrogate": '{%s, "title": "\\ud800"}',
    "low surrogate": '{%s, "labels": {"a": "\\udfff"}}',
    "surrogate in a key": '{%s, "labels": {"\\ud800": "a"}}',
    "bad escape": '{%s, "title": "\\x41"}',
    "deep lists": '{%s, "after": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "deep objects": '{%s, "labels": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
    "unclosed depth": "[" * 500_000,
    "a little too deep": '{%s, "after": ' + "[" * DEPTH_MAX + "]" * DEPTH_MAX + "}",
    "byte order mark": b"\xef\xbb\xbf{%s}",
    "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
    "UTF-16 without mark": '{"prompt": "x"}'.encode("utf-16-le"),
    "UTF-32": '{"prompt": "x"}'.encode("utf-32"),
    "Latin-1": b'{%s, "title": "\xe9"}',
    "overlong UTF-8": b'{%s, "title": "\xc0\xaf"}',
    "surrogate in UTF-8": b'{%s, "title": "\xed\xa0\x80"}',
    "NUL at the end": b"{%s}\0",
    "NULs": bytes(4096),
    "gzip": b"\x1f\x8b\x08\x00" + bytes(range(256)),
    "too large": b"{%s}" + b" " * BYTES_MAX,
    "no prompt": "{}",
}

_ODD_NAMES: Sequence[Callable[[str], str]] = (
    lambda n: f"é☃𝄞 {n}.json",
    lambda n: f"a b\tc {n}.json",
    lambda n: f"line\nfeed {n}.json",
    lambda n: f"\x1b[31m{n}\x1b]0;x\x07.json",
    lambda n: f"\u202e{n}.json",
    lambda n: f"-rf {n}.json",
    lambda n: f"$(touch x);`id`|{n}.json",
    lambda n: f"{n}.error.json",
    lambda n: f"{n}.0123456789abcdef.json",
    lambda n: f"0123456789abcdef.{n}.json",
    lambda n: f"{n}..json",
    lambda n: f"{n}\\..\\x.json",
    lambda n: f"{n}%2e%2e%2f.json",
    lambda n: f"{n}{'x' * (250 - len(n))}.json",
    lambda n: f"{n}{'☃' * ((250 - len(n)) // 3)}.json",
    lambda n: os.fsdecode(b"\xff\xfe" + n.encode() + b"\xed\xa0\x80.json"),
    lambda n: os.fsdecode(n.encode() + b"\xff" * (250 - len(n)) + b".json"),
)
_IGNORED_NAMES: Sequence[Callable[[str], str]] = (
    lambda n: f".{n}.json",
    lambda n: f"..{n}.json",
    lambda n: f"{n}.json.tmp",
    lambda n: f"{n}.JSON",
    lambda n: f"{n}.json ",
    lambda n: f"{n}.json\n",
    lambda n: f"{n}",
)
_ROOT_MAKES = (Kind.DEVICE, Kind.FOREIGN)


def drops(dice: Random, count: int) -> list[Drop]:
    """At least ``count`` files of all kinds, in the order in which they are to be dropped; names and ids are unique."""
    made: list[Drop] = []
    makers, weights = zip(*_MAKERS, strict=True)
    while len(made) < count:
        (make,) = dice.choices(makers, weights)
        made += make(dice, f"k{len(made)}-{dice.getrandbits(40):010x}")
    return made


def _right(dice: Random, name: str) -> list[Drop]:
    return [_file(name, _value(dice, name), Must.ACCEPT, "a good task")]


def _wrong(dice: Random, name: str) -> list[Drop]:
    field = dice.choice([*WRONG])
    wrong = dice.choice(WRONG[field])
    value = _value(dice, name) | {field: wrong}
    return [_file(name, value, Must.REJECT, f"{field} is {wrong!r:.60}", field=field)]


def _unknown(dice: Random, name: str) -> list[Drop]:
    field = dice.choice(_UNKNOWN)
    return [_file(name, _value(dice, name) | {field: "x"}, Must.REJECT, f"unknown field {field!r:.60}")]


def _not_json(dice: Random, name: str) -> list[Drop]:
    what = dice.choice([*NOT_JSON])
    text = NOT_JSON[what]
    data = text if isinstance(text, bytes) else text.encode()
    return [Drop(name=f"{name}.json", data=data.replace(b"%s", b'"prompt": "x"'), must=Must.REJECT, what=what)]


def _changed(dice: Random, name: str) -> list[Drop]:
    data = bytearray(_bytes(_value(dice, name)))
    for _ in range(dice.choice([1, 1, 2, 8])):
        _change(dice, data)
    return [Drop(name=f"{name}.json", data=bytes(data), must=Must.EITHER, what="bytes changed at random")]


def _change(dice: Random, data: bytearray) -> None:
    at, to = sorted(dice.randint(0, len(data)) for _ in range(2))
    match dice.randrange(6):
        case 0 if at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        case 1 if at < len(data):
            data[at] = dice.choice(b'\0\n"\\{}[]:,0-.eE\x80\xff')
        case 2:
            data[at:at] = dice.randbytes(dice.choice([1, 4, 100]))
        case 3:
            del data[at:to]
        case 4:
            data[at:at] = data[at:to]
        case _:
            del data[at:]


def _named(dice: Random, name: str) -> list[Drop]:
    odd = dice.choice(_ODD_NAMES)(name)
    made = dice.choice([_right, _wrong, _not_json])(dice, name)
    return [replace(drop, name=odd, what=f"{drop.what}, under a name of its own kind") for drop in made]


def _ignored(dice: Random, name: str) -> list[Drop]:
    (drop,) = dice.choice([_right, _not_json])(dice, name)
    return [replace(drop, name=dice.choice(_IGNORED_NAMES)(name), must=Must.IGNORE)]


def _kind(dice: Random, name: str) -> list[Drop]:
    kinds = [kind for kind in Kind if kind is not Kind.FILE and (os.geteuid() == 0 or kind not in _ROOT_MAKES)]
    kind = dice.choice(kinds)
    return [replace(_right(dice, name)[0], kind=kind, must=Must.REJECT, what=kind.value)]


def _again(dice: Random, name: str) -> list[Drop]:
    value = _value(dice, name) | {"id": name}
    backwards = dict(reversed(value.items()))
    spread = json.dumps(backwards, indent=2, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    again = Drop(name=f"{name}-again.json", data=spread, must=Must.ACCEPT, what="the same task again")
    return [_file(name, value, Must.ACCEPT, "a task"), again]


def _other(dice: Random, name: str) -> list[Drop]:
    value = _value(dice, name) | {"id": name}
    other = value | {"prompt": "Something else."}
    return [
        _file(name, value, Must.ACCEPT, "a task"),
        _file(f"{name}-other", other, Must.REJECT, "another task under the same id", field="id"),
    ]


def _circle(dice: Random, name: str) -> list[Drop]:
    names = [f"{name}-{number}" for number in range(dice.randint(1, 4))]
    values = [
        {"prompt": "x", "id": one, "after": [following]}
        for one, following in zip(names, [*names[1:], names[0]], strict=True)
    ]
    made = [_file(one, value, Must.ACCEPT, "a task") for one, value in zip(names, values, strict=True)]
    return [*made[:-1], replace(made[-1], must=Must.REJECT, what="it closes a circle", field="after")]


Maker = Callable[[Random, str], list[Drop]]
_MAKERS: Sequence[tuple[Maker, int]] = (
    (_right, 4),
    (_wrong, 8),
    (_unknown, 1),
    (_not_json, 6),
    (_changed, 12),
    (_named, 3),
    (_ignored, 1),
    (_kind, 2),
    (_again, 2),
    (_other, 2),
    (_circle, 1),
)


def _value(dice: Random, name: str) -> dict[str, Any]:
    """A good task; its id, when it has one, is the name."""
    fields = dice.sample([*_RIGHT], dice.randint(0, 5))
    value = {"prompt": dice.choice(_TEXTS)} | {field: dice.choice(_RIGHT[field]) for field in fields}
    return value | ({"id": name} if dice.random() < 0.5 else {})


def _bytes(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8")


def _file(name: str, value: Mapping[str, Any], must: Must, what: str, *, field: str | None = None) -> Drop:
    return Drop(name=f"{name}.json", data=_bytes(value), must=must, what=what, field=field)


# ---- putting them down -----------------------------------------------------------------------------------------------


def place(made: Iterable[Drop], directory: Path, elsewhere: Path) -> list[Placed]:
    """Put drops into a directory, each a moment younger than the one before; what they refer to is ``elsewhere``."""
    placed = []
    for number, drop in enumerate(made):
        path = directory / drop.name
        _put(drop, path, elsewhere)
        moment = (1_700_000_000 + number) * 10**9
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
        placed.append(Placed(drop=drop, inode=path.lstat().st_ino))
    return placed


def _put(drop: Drop, path: Path, elsewhere: Path) -> None:
    other = elsewhere / f"{len([*elsewhere.iterdir()])}.json"
    match drop.kind:
        case Kind.FILE | Kind.FOREIGN:
            path.write_bytes(drop.data)
            if drop.kind is Kind.FOREIGN:
                os.chown(path, 12345, 12345)
        case Kind.LINK:
            other.write_bytes(drop.data)
            path.symlink_to(other)
        case Kind.DANGLING:
            path.symlink_to(other)
        case Kind.LINK_TO_DEVICE:
            path.symlink_to("/dev/zero")
        case Kind.HARD_LINK:
            other.write_bytes(drop.data)
            path.hardlink_to(other)
        case Kind.FIFO:
            os.mkfifo(path, 0o600)
        case Kind.SOCKET:
            _bind(path)
        case Kind.DIRECTORY:
            path.mkdir()
        case Kind.FULL_DIRECTORY:
            path.mkdir()
            (path / "task.json").write_bytes(drop.data)
        case Kind.DEVICE:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero


def _bind(path: Path) -> None:
    """A socket under a path of any length: its name is short, seen from its directory."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with closing(socket.socket(socket.AF_UNIX)) as bound:
            bound.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


# ---- what has become of them -----------------------------------------------------------------------------------------

_ACCEPTED = re.compile(r"(?P<task>.+)\.(?P<ticket>[0-9a-f]{16})\.json")
_REJECTED = re.compile(r"(?P<name>.+)\.(?P<ticket>[0-9a-f]{16})\.json", re.DOTALL)
_ERROR = re.compile(r".+\.(?P<ticket>[0-9a-f]{16})\.error\.json", re.DOTALL)
_ERROR_KEYS = {"file", "reason", "field", "expected", "found", "at"}
_NAME_BYTES_KEPT = 150


@dataclass(frozen=True, kw_only=True)
class _Inbox:
    """All there is to see afterwards."""

    places: Mapping[int, Sequence[Path]]  # by inode
    receipts: Mapping[str, Receipt]  # by ticket
    events: Mapping[str, Mapping[str, Any]]  # TaskSubmitted by ticket
    tasks: Mapping[str, Mapping[str, Any]]  # the same by task
    errors: Mapping[str, Path]  # by ticket


def violations(
    directory: Path, placed: Sequence[Placed], receipts: Sequence[Receipt], payloads: Iterable[bytes]
) -> list[str]:
    """What is not as the contract says, a sentence each.

    ``receipts``: of all sweeps since the files were placed, until none can be still being written. ``payloads``: the
    log's batches.
    """
    found, faults = _seen(directory, receipts, payloads)
    for one in placed:
        faults += [f"{one.drop.what} ({one.drop.name!r}): {fault}" for fault in _faults(directory, one, found)]
    tickets = {
        match["ticket"] for path in (directory / "accepted").iterdir() if (match := _ACCEPTED.fullmatch(path.name))
    }
    faults += [f"the log has ticket {ticket}, but no file is accepted under it" for ticket in {*found.events} - tickets]
    rejected = {path.name for path in (directory / "rejected").iterdir()}
    for path in found.errors.values():
        if path.name.removesuffix(".error.json") + ".json" not in rejected:
            faults.append(f"{path.name!r} explains a file that is not there")
    return faults


def _seen(directory: Path, receipts: Sequence[Receipt], payloads: Iterable[bytes]) -> tuple[_Inbox, list[str]]:
    faults = [f"left behind: {path}" for path in (directory / ".taken").iterdir()]
    faults += [f"left behind: {path}" for path in (directory / "rejected").glob(".*.tmp")]
    faults += [f"not settled: {receipt}" for receipt in receipts if receipt.fate not in (Fate.ACCEPTED, Fate.REJECTED)]
    counted = Counter(receipt.ticket for receipt in receipts)
    faults += [f"{count} receipts for ticket {ticket}" for ticket, count in counted.items() if count > 1]
    places: dict[int, list[Path]] = {}
    for where in (directory, directory / "accepted", directory / "rejected"):
        for path in where.iterdir():
            places.setdefault(path.lstat().st_ino, []).append(path)
    submitted = list(_submitted(payloads))
    found = _Inbox(
        places=places,
        receipts={receipt.ticket: receipt for receipt in receipts},
        events={event["ticket"]: event for event in submitted},
        tasks={event["task"].lower(): event for event in submitted},
        errors={
            match["ticket"]: directory / "rejected" / match[0] for match in _matches(_ERROR, directory / "rejected")
        },
    )
    if len(found.events) != len(submitted) or len(found.tasks) != len(submitted):
        faults.append("a ticket or a task is in the log twice")
    return found, faults


def _matches(pattern: re.Pattern[str], directory: Path) -> list[re.Match[str]]:
    return [match for path in directory.iterdir() if (match := pattern.fullmatch(path.name))]


def _submitted(payloads: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for payload in payloads:
        for event in json.loads(payload)["events"]:
            if event["type"] == "TaskSubmitted":
                yield event


def _faults(directory: Path, one: Placed, found: _Inbox) -> Iterator[str]:
    places = found.places.get(one.inode, ())
    if len(places) != 1:
        yield f"it is in {len(places)} places: {[str(path) for path in places]}"
        return
    (path,) = places
    if one.drop.kind is Kind.FILE and path.read_bytes() != one.drop.data:
        yield "its bytes were changed"
    where = path.parent
    if one.drop.must is Must.IGNORE or where == directory:
        if one.drop.must is not Must.IGNORE or path.name != one.drop.name:
            yield f"neither accepted nor rejected: {path}"
    elif where == directory / "accepted":
        yield from _accepted(path, one.drop, found)
    else:
        yield from _rejected(path, one.drop, found)


def _accepted(path: Path, drop: Drop, found: _Inbox) -> Iterator[str]:
    match = _ACCEPTED.fullmatch(path.name)
    if match is None:
        yield f"accepted as {path.name!r}, which is no name of a task and a ticket"
        return
    task, ticket = match["task"], match["ticket"]
    if drop.must is Must.REJECT:
        yield f"accepted as {task}"
    if ticket in found.errors:
        yield "accepted and rejected"
    receipt = found.receipts.get(ticket)
    if receipt is None or (receipt.fate, receipt.task) != (Fate.ACCEPTED, task):
        yield f"accepted, but its receipt is {receipt}"
    event = found.events.get(ticket) or found.tasks.get(task.lower())
    if event is None or event["task"] != task:
        yield f"accepted as {task}, but the log has no such task"
        return
    given = _object(drop.data)
    if given.get("prompt") != event["spec"]["prompt"]:
        yield "the log has another prompt"
    if any(unicodedata.category(character) == "Cc" for character in event["spec"]["title"]):
        yield f"its title controls terminals: {event['spec']['title']!r}"
    first = path.with_name(f"{task}.{event['ticket']}.json")  # itself, or the one whose task this is again
    if first != path and (given.get("id") != task or _object(first.read_bytes()) != given):
        yield f"accepted as {task}, whose content is another"


def _object(data: bytes) -> Mapping[str, Any]:
    """What Python's own reader makes of it; nothing, when that is no object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _rejected(path: Path, drop: Drop, found: _Inbox) -> Iterator[str]:
    match = _REJECTED.fullmatch(path.name)
    if match is None:
        yield f"rejected as {path.name!r}, which is no name and ticket"
        return
    ticket = match["ticket"]
    if ticket in found.events:
        yield "rejected, but the log has its ticket"
    if ticket not in found.errors:
        yield "rejected without a reason"
        return
    error = json.loads(found.errors[ticket].read_bytes())
    if drop.must is Must.ACCEPT:
        yield f"rejected: {error}"
    if set(error) != _ERROR_KEYS or not all(isinstance(text, str) for text in error.values()) or not error["reason"]:
        yield f"its error file is {error}"
        return
    datetime.fromisoformat(error["at"])
    if drop.field is not None and error["field"] != drop.field:
        yield f"blamed on {error['field']!r}, not on {drop.field!r}: {error['reason']}"
    name = os.fsencode(drop.name)
    if len(name) <= _NAME_BYTES_KEPT and error["file"] != name.decode("utf-8", "backslashreplace"):
        yield f"its error file names {error['file']!r}"
    receipt = found.receipts.get(ticket)
    told = None if receipt is None else (receipt.fate, receipt.file, receipt.field)
    if told != (Fate.REJECTED, error["file"], error["field"]):
        yield f"rejected, but its receipt is {receipt}"
