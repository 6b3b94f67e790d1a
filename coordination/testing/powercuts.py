"""What do our log, SQLite and a bare rename leave behind when the power goes? Counted on a real ext4.

::

    python -m coordination.testing.powercuts WORKLOAD [--states N] [--seed S] [--keep DIRECTORY]
    python -m coordination.testing.powercuts --again FILE

plays a workload on a filesystem that is recorded (``coordination.testing.blocks``), cuts it in N places, mounts what is
left, and compares with what the workload's own processes said, as it happened: *asked* before a gesture, *done* once it
was acknowledged. One line of JSON tells how many states there were and how many of them lost something. The first that
did are kept as files, and ``--again`` mounts that very state again: the processes of a workload race, so a seed repeats
the search, not the recording.

``log`` must never lose anything and ``sqlite-wal`` does not either. The others do: ``sqlite-delete``, ``rename`` and
our log with one kind of sync left out. They are the positive controls; when they lose nothing it is the laboratory that
is broken. Needs what ``blocks`` needs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sqlite3
import stat
import sys
import tempfile
import time
import traceback
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, Protocol

import msgspec

from coordination.env import Env
from coordination.errors import Conflict, CoordinationError, NotFound, OutcomeUnknown
from coordination.log import file as file_log
from coordination.log.file import FileLog
from coordination.store import Snapshot, SnapshotDirectory
from coordination.testing import blocks, linux
from coordination.testing.blocks import Cut, Recording

_MODULE = "coordination.testing.powercuts"
_STATES_EACH = 100  # of one recording; then another is made
_NESTED, _STATES_NESTED = 4, 12  # so many of a recording's states are recorded again, and cut so often
_BEFORE = -1  # the position of what was said before a recording began
_PATIENCE_SECONDS = 30
_SHOWN = 5


# ---- what was said while it happened ---------------------------------------------------------------------------------


class Word(msgspec.Struct, frozen=True, array_like=True):
    """Something was asked for, or done, when so many gestures had reached the disk."""

    what: Literal["asked", "done"]
    name: str
    position: int


class Scribe:
    """Writes down what processes say, outside of the filesystem that is recorded. Crosses forks."""

    def __init__(self, path: Path, position: Callable[[], int]) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._position = position

    def asked(self, name: str) -> None:
        """Say so before it is asked for."""
        self._say(Word("asked", name, self._position()))

    def done(self, name: str) -> None:
        """Say so after it was acknowledged."""
        self._say(Word("done", name, self._position()))

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def _say(self, word: Word) -> None:
        os.write(self._descriptor, msgspec.json.encode(word) + b"\n")  # one call, so lines of many do not mix


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What had been asked for and what had been acknowledged at a cut, with the positions."""

    asked: Mapping[str, int]
    done: Mapping[str, int]


def expected_at(words: Sequence[Word], position: int) -> Expected:
    """What a cut at this position must and may show."""
    # asked when n gestures had reached the disk: gesture n is the first that can show it
    asked = {word.name: word.position for word in words if word.what == "asked" and word.position < position}
    done = {word.name: word.position for word in words if word.what == "done" and word.position <= position}
    return Expected(asked=asked, done=done)


# ---- workloads -------------------------------------------------------------------------------------------------------


class Workload(Protocol):
    """Something that writes, and knows what must be there again."""

    def play(self, root: Path, scribe: Scribe, dice: Random) -> None:
        """Write beneath ``root``, saying what is asked for and what is done."""
        ...

    def faults(self, root: Path, expected: Expected) -> list[str]:
        """After a cut: what is wrong beneath ``root``, one sentence each."""
        ...


class Boot(Env):
    """The real world in another boot: what a page of shared memory said before does not count."""

    def __init__(self, number: int) -> None:
        self._number = number

    def boot_id(self) -> str:
        """Another one than that of the machine, and of every other number."""
        return f"boot {self._number} of a recorded disk"


class Dying(Boot):
    """Whose process ends in the middle of the nth gesture of a kind: half a line written, or a sync not reported."""

    def __init__(self, number: int, *, kind: str, nth: int) -> None:
        super().__init__(number)
        self._kind = kind
        self._left = nth

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write, or half of it at the end."""
        if self._last("write"):
            super().write(descriptor, data[: len(data) // 2], offset)
            os._exit(0)
        return super().write(descriptor, data, offset)

    def sync_data(self, descriptor: int) -> None:
        """Sync; at the end nobody hears of it."""
        super().sync_data(descriptor)
        if self._last("sync"):
            os._exit(0)

    def rename(self, old: Path, new: Path) -> None:
        """Rename; at the end the directory is not synced."""
        super().rename(old, new)
        if self._last("rename"):
            os._exit(0)

    def _last(self, kind: str) -> bool:
        self._left -= kind == self._kind
        return self._left == 0


class WithoutSync(Boot):
    """Says that it synced a segment, and did not."""

    def sync_data(self, descriptor: int) -> None:
        """Nothing."""


class WithoutFileSync(Boot):
    """Publishes files under their names before their bytes are on the disk."""

    def sync(self, descriptor: int) -> None:
        """Nothing, but for directories."""
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            super().sync(descriptor)


class WithoutDirectorySync(Boot):
    """Does not make names durable."""

    def sync_directory(self, path: Path) -> None:
        """Nothing."""


class SharedLog:
    """Ours: two writers, one that dies, and one that saves snapshots, in small segments, over two boots."""

    segment_bytes = 4000
    batches_each = 6
    snapshots_each = 2

    def __init__(self, boot: Callable[[int], Env] = Boot) -> None:
        self._boot = boot

    def play(self, root: Path, scribe: Scribe, dice: Random) -> None:
        """Each boot begins with a recovery, and so does whoever comes after a death."""
        scribe.asked("create")
        file_log.create(root / "log", env=self._boot(1))
        scribe.done("create")
        for boot in (1, 2):
            dying = Dying(boot, kind=dice.choice(["write", "sync", "rename"]), nth=dice.randint(1, 4))
            _fork_all(
                partial(self._write, root, f"a{boot}", self._boot(boot), scribe, blind=False),
                partial(self._write, root, f"b{boot}", self._boot(boot), scribe, blind=True),
                partial(self._write, root, f"c{boot}", dying, scribe, blind=True),
                partial(self._save, root, self._boot(boot), scribe),
            )

    def faults(self, root: Path, expected: Expected) -> list[str]:
        """In a new boot: nothing acknowledged is missing, nothing is there that nobody asked for, and it goes on."""
        try:
            return self._read_again(root, expected)
        except (CoordinationError, OSError) as error:
            return [f"{type(error).__name__}: {error}"]

    def connect(self, root: Path, env: Env) -> FileLog:
        """The log beneath ``root``."""
        return FileLog(root / "log", env=env, segment_bytes=self.segment_bytes)

    def _write(self, root: Path, writer: str, env: Env, scribe: Scribe, *, blind: bool) -> None:
        with closing(self.connect(root, env)) as log:
            for number in range(self.batches_each):
                _append(log, f"batch {writer} {number}", scribe, blind=blind)

    def _save(self, root: Path, env: Env, scribe: Scribe) -> None:
        snapshots = SnapshotDirectory(root / "snapshots", env=env)
        with closing(self.connect(root, env)) as log:
            for _ in range(self.snapshots_each):
                log.wait(log.durable, 1.0)
                seq = log.durable
                scribe.asked(f"snapshot {seq}")
                snapshots.save(_snapshot(log, seq))
                scribe.done(f"snapshot {seq}")

    def _read_again(self, root: Path, expected: Expected) -> list[str]:
        env = Boot(9)
        try:
            log = self.connect(root, env)
        except NotFound:
            if "create" in expected.done:
                return ["the log is gone"]
            file_log.create(root / "log", env=env)
            log = self.connect(root, env)
        with closing(log):
            durable, head = list(log.read(0, upto="durable")), list(log.read(0, upto="head"))
            log.settle()
            settled = list(log.read(0, upto="durable"))
            log.append(_payload("batch afterwards"), after=len(settled))
            last = _newest_snapshot(root, log)
        with closing(self.connect(root, env)) as log:
            again = list(log.read(0, upto="durable"))
        faults = _compared([payload for _, payload in settled], expected)
        if [seq for seq, _ in again] != list(range(1, len(settled) + 2)) or again[:-1] != settled:
            faults.append("reading once more gives something else")
        if settled[: len(durable)] != durable or settled != head:
            faults.append(
                f"recovery made {len(settled)} batches of {len(durable)} durable and {len(head)} readable ones"
            )
        return faults + _compared_snapshot(last, len(settled), expected)


class RecoveredLog(SharedLog):
    """Ours after a cut: its recovery and what is appended then are cut once more."""

    def play(self, root: Path, scribe: Scribe, dice: Random) -> None:  # noqa: ARG002 - others throw dice
        """What was readable once recovery has returned is a promise like any other."""
        file_log.create(root / "log", env=Boot(3))
        scribe.done("create")
        with closing(self.connect(root, Boot(3))) as log:
            log.settle()
            for _, payload in log.read(0, upto="durable"):
                scribe.done(_name(payload))
            for number in range(self.batches_each):
                _append(log, f"batch recovered {number}", scribe, blind=False)


class Sqlite:
    """One table, one row a transaction, synchronous=FULL."""

    rows = 30

    def __init__(self, journal: str) -> None:
        self._journal = journal

    def play(self, root: Path, scribe: Scribe, dice: Random) -> None:  # noqa: ARG002 - others throw dice
        """Insert rows."""
        with closing(sqlite3.connect(root / "rows", isolation_level=None)) as connection:
            connection.execute(f"PRAGMA journal_mode={self._journal}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE said (name TEXT)")
            for number in range(self.rows):
                scribe.asked(f"row {number}")
                connection.execute("INSERT INTO said VALUES (?)", (f"row {number}",))
                scribe.done(f"row {number}")

    def faults(self, root: Path, expected: Expected) -> list[str]:
        """Rows that are missing or were never asked for."""
        try:
            with closing(sqlite3.connect(root / "rows", isolation_level=None)) as connection:
                made = connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)
                names = [name for (name,) in connection.execute("SELECT name FROM said")] if made else []
        except sqlite3.Error as error:
            return [f"{type(error).__name__}: {error}"]
        return _differences(names, expected)


class BareRename:
    """A new file renamed over the old one, never synced; now and then somebody else syncs a file of his own."""

    times = 30

    def play(self, root: Path, scribe: Scribe, dice: Random) -> None:
        """Replace the file again and again."""
        for number in range(self.times):
            scribe.asked(f"value {number}")
            (root / "new").write_text(f"value {number}")
            (root / "new").rename(root / "value")
            scribe.done(f"value {number}")
            if dice.random() < 0.5:
                _sync_own_file(root / "other")

    def faults(self, root: Path, expected: Expected) -> list[str]:
        """An older value than the last one that was acknowledged."""
        done = [*expected.done]
        try:
            found = (root / "value").read_text()
        except FileNotFoundError:
            found = "nothing"
        last = done[-1] if done else "nothing"
        late = [name for name in expected.asked if name not in expected.done]
        return [] if found in (last, *late) else [f"found {found!r}, acknowledged was {last!r}"]


WORKLOADS: Mapping[str, Workload] = {
    "log": SharedLog(),
    "log-recovered": RecoveredLog(),
    "sqlite-wal": Sqlite("WAL"),
    "log-without-sync": SharedLog(WithoutSync),
    "log-without-file-sync": SharedLog(WithoutFileSync),
    "log-without-directory-sync": SharedLog(WithoutDirectorySync),
    "sqlite-delete": Sqlite("DELETE"),
    "rename": BareRename(),
}
_AFTER_A_CUT = {"log": "log-recovered"}


def _payload(name: str) -> bytes:
    """A batch whose bytes follow from its name, of 20 to 2000 bytes."""
    return json.dumps({"name": name, "fill": "." * (zlib.crc32(name.encode()) % 2000)}).encode()


def _name(payload: bytes) -> str:
    """Whose batch this is; what is not as it was made is named for its bytes, which nobody asked for."""
    name = str(json.loads(payload).get("name"))
    return name if payload == _payload(name) else f"bytes {payload[:80]!r}"


def _append(log: FileLog, name: str, scribe: Scribe, *, blind: bool) -> None:
    """``blind``: after whatever is there, which lets many share one sync."""
    scribe.asked(name)
    payload = _payload(name)
    while not _appended(log, payload, blind=blind):
        pass
    scribe.done(name)


def _appended(log: FileLog, payload: bytes, *, blind: bool) -> bool:
    head = log.durable
    for seq, _ in log.read(head, upto="head"):
        head = seq
    try:
        log.append(payload, after=head, again=(lambda: payload) if blind else None)
    except Conflict:  # also when a recovery left our line behind
        return False
    except OutcomeUnknown:  # whoever synced for us died
        log.settle()
        return any(found == payload for _, found in log.read(0, upto="durable"))
    return True


def _snapshot(log: FileLog, seq: int) -> Snapshot:
    return Snapshot(projection="core", version=1, seq=seq, log=log.uuid, state=b'{"last":%d}' % seq)


def _newest_snapshot(root: Path, log: FileLog) -> int:
    snapshots = SnapshotDirectory(root / "snapshots", env=Boot(9))
    found = snapshots.newest("core", 1, log=log.uuid, seq_max=log.durable)
    return 0 if found is None else found.seq


def _compared_snapshot(found: int, head: int, expected: Expected) -> list[str]:
    last = max((int(name.split()[1]) for name in expected.done if name.startswith("snapshot ")), default=0)
    return [] if last <= found <= head else [f"the newest snapshot is of batch {found}, acknowledged was {last}"]


def _compared(payloads: list[bytes], expected: Expected) -> list[str]:
    names = [_name(payload) for payload in payloads]
    batches = Expected(
        asked={name: at for name, at in expected.asked.items() if name.startswith("batch ")},
        done={name: at for name, at in expected.done.items() if name.startswith("batch ")},
    )
    faults = _differences(names, batches)
    latest = -1
    for name in names:
        if batches.done.get(name, latest) < latest:
            faults.append(f"{name} stands behind one that was asked for after it was done")
        latest = max(latest, batches.asked.get(name, -1))
    return faults


def _differences(names: list[str], expected: Expected) -> list[str]:
    """Names that are missing, were never asked for, or are there twice."""
    faults = [f"lost: {name}" for name in expected.done if name not in names]
    faults += [f"never asked for: {name}" for name in names if name not in expected.asked]
    return faults + [f"twice: {name}" for name in {*names} if names.count(name) > 1]


def _sync_own_file(path: Path) -> None:
    with path.open("a") as file:
        file.write(".")
        file.flush()
        os.fsync(file.fileno())


def _fork_all(*plays: Callable[[], None]) -> None:
    """Do all at once, each in a child; raises RuntimeError when one fails."""
    children = [_forked(play) for play in plays]
    failed = [child for child in children if os.waitpid(child, 0)[1] != 0]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(children)} processes of the workload failed; see standard error")


def _forked(play: Callable[[], None]) -> int:
    parent = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        linux.end_with_parent(parent)
        signal.alarm(_PATIENCE_SECONDS)
        play()
        code = 0
    except BaseException:  # noqa: BLE001 - the boundary of a process
        traceback.print_exc()
    finally:
        os._exit(code)


# ---- the search ------------------------------------------------------------------------------------------------------


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """One workload, recorded."""

    workload: str
    recording: Recording
    words: tuple[Word, ...]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What one cut left, and what is wrong with it."""

    played: Played
    cut: Cut
    faults: tuple[str, ...]


def states(workload: str, seed: int, directory: Path) -> Iterator[State]:
    """States without end. Raises OSError when a disk cannot be recorded or mounted again."""
    dice = Random(seed)
    blank = blocks.blank()
    while True:
        played = play(workload, blank, (), directory, dice)
        yield from _cut(played, blocks.draw(played.recording, dice, _STATES_EACH), directory)
        if workload in _AFTER_A_CUT:
            yield from _cut_again(played, _AFTER_A_CUT[workload], directory, dice)


def play(workload: str, before: bytes, words: tuple[Word, ...], directory: Path, dice: Random) -> Played:
    """Record one run of a workload. ``words``: what is true before it begins."""
    direct = dice.random() < 0.5
    with (
        blocks.record(before, directory, direct=direct) as disk,
        closing(Scribe(directory / "words", disk.position)) as scribe,
    ):
        WORKLOADS[workload].play(disk.root, scribe, dice)
    said = [msgspec.json.decode(line, type=Word) for line in (directory / "words").read_bytes().splitlines()]
    return Played(workload=workload, recording=disk.recording, words=(*words, *said))


def look(played: Played, cut: Cut, image: bytearray, directory: Path) -> State:
    """Mount an image again and compare it with what was said."""
    expected = expected_at(played.words, cut.position)
    with blocks.image_mounted(image, directory) as root:
        faults = WORKLOADS[played.workload].faults(root, expected)
    return State(played=played, cut=cut, faults=tuple(faults))


def _cut(played: Played, cuts: list[Cut], directory: Path) -> Iterator[State]:
    for cut, image in blocks.images(played.recording, cuts):
        yield look(played, cut, image, directory)


def _cut_again(played: Played, workload: str, directory: Path, dice: Random) -> Iterator[State]:
    """Cuts in what happens after a cut."""
    for cut, image in blocks.images(played.recording, blocks.draw(played.recording, dice, _NESTED)):
        expected = expected_at(played.words, cut.position)
        words = [Word("asked", name, _BEFORE) for name in expected.asked]
        words += [Word("done", name, _BEFORE) for name in expected.done]
        again = play(workload, bytes(image), tuple(words), directory, dice)
        yield from _cut(again, blocks.draw(again.recording, dice, _STATES_NESTED), directory)


class Example(msgspec.Struct, kw_only=True):
    """A state that lost something, and the command that looks at it again."""

    workload: str
    position: int
    faults: tuple[str, ...]
    command: str = ""


class Told(msgspec.Struct, kw_only=True):
    """What a search found."""

    workload: str
    seed: int
    recordings: int = 0
    acknowledged: int = 0  # in them
    unflushed: int = 0  # of these, without a flush between the asking and the answer: 0, or flushes do not reach us
    states: dict[str, int] = {}
    losing: int = 0
    examples: list[Example] = []
    seconds: float = 0.0


def search(workload: str, count: int, seed: int, keep: Path | None) -> Told:
    """Look at so many states; in ``keep`` the first ones that lost something are kept."""
    begun = time.monotonic()
    told = Told(workload=workload, seed=seed)
    played = None
    with _scratch() as directory:
        for state in itertools.islice(states(workload, seed, directory), count):
            told.states[state.played.workload] = told.states.get(state.played.workload, 0) + 1
            if state.played is not played:
                played = state.played
                told.recordings += 1
                told.acknowledged += sum(word.what == "done" and word.position != _BEFORE for word in played.words)
                told.unflushed += len(unflushed(played))
            if state.faults:
                told.losing += 1
                if told.losing <= _SHOWN:
                    file = keep / f"{workload}-{seed}-{told.losing}.state" if keep else None
                    told.examples.append(_example(state, file))
    told.seconds = round(time.monotonic() - begun, 1)
    return told


def again(file: Path) -> Example:
    """Look at a state that was kept."""
    kept = msgspec.msgpack.decode(zlib.decompress(file.read_bytes()), type=State)
    with _scratch() as directory:
        (state,) = _cut(kept.played, [kept.cut], directory)
    return Example(workload=state.played.workload, position=state.cut.position, faults=state.faults)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A directory in memory, in our mount namespace: whoever kills us leaves an empty one on the disk, no images."""
    with tempfile.TemporaryDirectory() as directory:
        linux.mount("scratch", Path(directory), "tmpfs", "mode=0700")
        try:
            yield Path(directory)
        finally:
            linux.unmount(Path(directory), lazily=True)


def unflushed(played: Played) -> list[str]:
    """What was acknowledged although no flush reached the disk between the asking and the answer."""
    flushes = [n for n, gesture in enumerate(played.recording.gestures) if gesture.flushes]
    asked = {word.name: word.position for word in played.words if word.what == "asked"}
    done = {word.name: word.position for word in played.words if word.what == "done" and word.name in asked}
    return [name for name, end in done.items() if end != _BEFORE and not _any(flushes, asked[name], end)]


def _any(numbers: list[int], start: int, end: int) -> bool:
    return bisect_left(numbers, start) < bisect_left(numbers, end)


def _example(state: State, file: Path | None) -> Example:
    faults = state.faults[:_SHOWN]
    example = Example(workload=state.played.workload, position=state.cut.position, faults=faults)
    if file is not None:
        file.write_bytes(zlib.compress(msgspec.msgpack.encode(state), 1))
        example.command = f"{sys.executable} -m {_MODULE} --again {file}"
    return example


def main(arguments: list[str]) -> int:
    """Search or look again; one line of JSON on standard output."""
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}")
    parser.add_argument("workload", nargs="?", choices=[name for name in WORKLOADS if name != "log-recovered"])
    parser.add_argument("--states", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--again", type=Path)
    given = parser.parse_args(arguments)
    if given.again is None and given.workload is None:
        parser.error("which workload? Or --again FILE")
    if reason := linux.missing():
        parser.error(reason)
    linux.live_apart()
    told = again(given.again) if given.again else search(given.workload, given.states, given.seed, given.keep)
    sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
    return 0


if __name__ == "__main__":
    linux.end_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
