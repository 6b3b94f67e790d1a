"""What would happen to the log on another machine, with several processes, when everything fails that can?

A ``SimulatedWorld`` is a machine in memory: a filesystem that forgets what was not synced (``disk``), processes, record
locks, shared pages, clocks, a boot. ``world.process()`` is a new process's view of it and takes the place of the real
``Env``::

    world = SimulatedWorld(seed=7)
    create(Path("/log"), env=world.process())
    log = FileLog(Path("/log"), env=world.process())
    log.append(b'{"n":1}', after=0)
    world.power_cut()
    assert list(FileLog(Path("/log"), env=world.process()).read(0, upto="durable")) == [(1, b'{"n":1}')]

Every gesture first asks the world's ``fate`` what becomes of it: a test's fate can let others run, kill, fail or cut.
The same seed and the same fate give the same history, to the last byte. Simplifications: no symbolic links, no
permissions, no moving of directories, an exclusive lock is on the whole file.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple, NoReturn, cast
from uuid import UUID

from coordination.env import Env
from coordination.testing.disk import WORD, Directory, File, Node, chance_content, chance_names

DAY_SECONDS = 86_400.0
_GESTURE_SECONDS = 1e-6
_WALL_SECONDS = 1_700_000_000.0
_LOW_HALF = 0xFFFFFFFF
_FIRST_DESCRIPTOR = 3
_EARLY = 0.2  # how often it is too early to tell whether names changed


class Killed(BaseException):
    """A simulated process ended here. Nothing that it does afterwards has an effect."""


class Stuck(Exception):
    """A process waits for what nobody will do."""


class Fault(NamedTuple):
    """What becomes of one gesture.

    ``kill``: the process ends in the middle. ``error``: the gesture fails with ``code``. ``short``: a write takes a
    part. ``split``: a write is seen half done by others before it goes on.
    """

    kind: Literal["kill", "error", "short", "split"]
    code: int = errno.EIO
    share: float = 0.0  # of the bytes or words that are done before, 0 to 1
    dropped: bool = False  # a failed sync: the cache shows at once what the disk has; of a directory: it is forgotten


class Fate:
    """What happens in the world while a process does something. This one: nothing, and there is nobody else."""

    watching = False  # whether looks at shared words are asked for as well

    def step(self, env: SimulatedEnv, gesture: str, about: object) -> Fault | None:
        """Asked before every gesture that others could notice; ``about`` is its path, descriptor or word."""

    def block(self, env: SimulatedEnv, ready: Callable[[], bool], until: float | None) -> None:
        """Let the others run until ``ready()`` or the world's time is ``until``. Raises Stuck when it never will be."""
        if ready():
            return
        if until is None:
            raise Stuck(f"process {env.number} waits for ever")
        env.world.time = max(env.world.time, until)


class _Open:
    """An open description: what a descriptor stands for."""

    __slots__ = ("node", "writable")

    def __init__(self, node: Node, *, writable: bool) -> None:
        self.node = node
        self.writable = writable


class SimulatedWorld:
    """One machine. ``seed`` decides what its dice show and what a power cut leaves."""

    def __init__(self, seed: int = 0) -> None:
        self.dice = Random(seed)
        self.fate = Fate()
        self.time = 0.0  # true seconds since the world began; never jumps
        self.boots = 1
        self.trace: list[tuple[int, str, str]] | None = None  # set to a list to record process, gesture, subject
        self.gestures_left = sys.maxsize  # when they are used up, whoever makes one is stuck
        self.monotonic_shift = 0.0
        self.wall_shift = 0.0
        self.processes: list[SimulatedEnv] = []  # those alive
        self.directories: dict[str, Directory] = {"": Directory(1)}
        self.sleepers: list[_Sleeper] = []
        self._starts = 0
        self._numbers_made = 1
        self._numbers_free: list[int] = []

    def process(self) -> SimulatedEnv:
        """Start a process. It gets the lowest number that is free, as small machines reuse theirs fast."""
        self._starts += 1
        taken = {env.number for env in self.processes}
        number = next(number for number in range(100, 101 + len(taken)) if number not in taken)
        env = SimulatedEnv(self, number, self._starts)
        self.processes.append(env)
        return env

    def kill(self, env: SimulatedEnv) -> None:
        """End a process: its descriptors are closed, its locks free, its memory gone."""
        if env.alive:
            env.alive = False
            self.processes.remove(env)
            self.sleepers = [sleeper for sleeper in self.sleepers if sleeper.env is not env]
            for held in list(env.descriptors.values()):
                self.close(held)
            env.descriptors.clear()

    def power_cut(
        self,
        content: Callable[[File], bytearray] | None = None,
        names: Callable[[Directory], dict[str, Node]] | None = None,
    ) -> None:
        """End everybody, lose what was not on the disk, boot again.

        ``content`` and ``names`` say what arrived of the changes to a file and to a directory; default: chance.
        """
        for env in list(self.processes):
            self.kill(env)
        files = self.files()
        for directory in self.directories.values():
            directory.restart(names(directory) if names else chance_names(directory, self.dice))
        for file in files:
            file.restart(content(file) if content else chance_content(file, self.dice))
        self._forget_unnamed()
        self.boots += 1
        self.sleepers = []

    def copy(self, seed: int) -> SimulatedWorld:
        """The machine as it would be if all its processes were killed now, going on apart from this one."""
        twin = SimulatedWorld(seed)
        twin.time, twin.boots, twin._starts = self.time, self.boots, self._starts
        twin._numbers_made = self._numbers_made
        twins: dict[int, Node] = {id(file): file.copy() for file in self.files()}
        twins |= {id(directory): Directory(directory.number) for directory in self.directories.values()}
        for path, directory in self.directories.items():
            other = cast("Directory", twins[id(directory)])
            other.entries = {name: twins[id(node)] for name, node in directory.entries.items()}
            other.disk = {name: twins[id(node)] for name, node in directory.disk.items()}
            other.changed = directory.changed
            other.changes = [(old, new, node and twins[id(node)]) for old, new, node in directory.changes]
            twin.directories[path] = other
        return twin

    def files(self) -> list[File]:
        """Every file that has a name, or may have one again after a power cut; in the order of their first names."""
        found: dict[int, File] = {}
        for directory in self.directories.values():
            named = [*directory.entries.values(), *directory.disk.values()]
            for node in (*named, *(node for _, _, node in directory.changes)):
                if isinstance(node, File):
                    found[id(node)] = node
        return list(found.values())

    def now(self) -> float:
        """What the wall clock shows, in seconds since 1970. It jumps."""
        return _WALL_SECONDS + self.time + self.wall_shift

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards; forwards, as after a machine's sleep, the monotonic one as well."""
        self.wall_shift += seconds
        self.monotonic_shift += max(0.0, seconds)

    def close(self, held: _Open | SimulatedEnv) -> None:
        """Give an open description back, and its lock with it."""
        if isinstance(held, _Open) and isinstance(held.node, File):
            if held.node.holder is held:
                held.node.holder = None
            held.node.opened -= 1
            self.free(held.node)

    def free(self, file: File) -> None:
        """Let the next file have this one's number, once nobody can reach it."""
        if not file.links and not file.opened:
            self._numbers_free.append(file.number)

    def new_number(self) -> int:
        """For a file or directory that is being made."""
        if self._numbers_free:
            return self._numbers_free.pop()
        self._numbers_made += 1
        return self._numbers_made

    def holder_of(self, file: File) -> SimulatedEnv | None:
        """The process that has this file locked."""
        holds = (env for env in self.processes if file.holder is not None and file.holder in env.descriptors.values())
        return next(holds, None)

    def _forget_unnamed(self) -> None:
        """What no directory on the disk names is gone; who was numbered twice gets a number of its own."""
        reached: dict[str, Directory] = {}
        pending = [("", self.directories[""])]
        while pending:
            path, directory = pending.pop()
            reached[path] = directory
            below = directory.entries.items()
            pending += [(f"{path}/{name}", node) for name, node in below if isinstance(node, Directory)]
        self.directories = reached
        self._numbers_free = []
        numbers: set[int] = set()
        for file in self.files():
            names = (node is file for directory in reached.values() for node in directory.entries.values())
            file.links = sum(names)
            if file.number in numbers:
                file.number = self.new_number()
            numbers.add(file.number)


class _Sleeper:
    """Who waits for a word of shared memory to be woken."""

    __slots__ = ("at", "env", "woken")

    def __init__(self, env: SimulatedEnv, at: tuple[int, int]) -> None:
        self.env = env
        self.at = at
        self.woken = False


class SharedWords:
    """A mapped file's words. Stands in for a memoryview: each look is a moment at which others may have stored.

    A slice is a copy, and words of it may be older than others: nobody reads several words at once.
    """

    __slots__ = ("_env", "_size", "file")

    def __init__(self, env: SimulatedEnv, file: File, size: int) -> None:
        self._env = env
        self._size = size
        self.file: File | None = file

    def __len__(self) -> int:
        return self._size // WORD

    def __getitem__(self, at: int | slice) -> int | memoryview:
        if isinstance(at, slice):
            begin, end, step = at.indices(len(self))
            assert step == 1, "a page is read in one direction"
            return self._words(begin, end)
        file = self.mapped()
        self._env.look(at)
        word = file.cache[at * WORD : (at + 1) * WORD]
        if len(word) < WORD:
            self._env.die()  # SIGBUS
        return int.from_bytes(word, sys.byteorder)

    def tolist(self) -> list[int]:
        """All words, one after the other."""
        return self._words(0, len(self)).tolist()

    def tobytes(self) -> bytes:
        """The same as bytes."""
        return self._words(0, len(self)).tobytes()

    def mapped(self) -> File:
        """The file underneath. Raises ValueError when it was given back."""
        if self.file is None:
            raise ValueError("operation forbidden on released memoryview object")
        return self.file

    def _words(self, begin: int, end: int) -> memoryview:
        file = self.mapped()
        fault = self._env.look(begin)
        if len(file.cache) < end * WORD:
            self._env.die()  # SIGBUS
        words = bytes(file.cache[begin * WORD : end * WORD])
        if fault is not None and fault.kind == "split":
            seen = round((end - begin) * fault.share) * WORD
            self._env.look(end)
            words = words[:seen] + bytes(file.cache[begin * WORD + seen : end * WORD])
        return memoryview(words).cast("Q")


class SimulatedEnv(Env):
    """One process's view of a simulated world; once it is killed, whatever it tries raises Killed.

    Giving back (``close``, ``unmap``, ``unlock``) is silent in a killed process, which has given back everything.
    What nobody else can notice or influence (giving back, clocks, dice, its own number) asks no fate.
    """

    description_locks = True

    def __init__(self, world: SimulatedWorld, number: int, start: int) -> None:
        self.world = world
        self.number = number
        self.alive = True
        self.stopped = False
        self.descriptors: dict[int, _Open | SimulatedEnv] = {}
        self._start = start

    def gesture(self, what: str, about: object) -> Fault | None:
        """Ask the world's fate what becomes of this. Raises Killed."""
        world = self.world
        if not self.alive:
            raise Killed
        if world.trace is not None:
            world.trace.append((self.number, what, str(about)))
        world.time += _GESTURE_SECONDS
        world.gestures_left -= 1
        if world.gestures_left < 0:
            raise Stuck("there is no end to it")
        fault = world.fate.step(self, what, about)
        if not self.alive:
            raise Killed
        if fault is not None and fault.kind == "kill" and what != "write":  # a write knows how far it came
            self.die()
        return fault

    def look(self, at: int) -> Fault | None:
        """As ``gesture``, for one look at shared words: there are many, and they matter only when others can act."""
        if self.world.fate.watching or not self.alive:
            return self.gesture("look", at)
        return None

    def file_behind(self, descriptor: object) -> File | None:
        """The file that a descriptor of this process stands for."""
        held = self.descriptors.get(descriptor) if isinstance(descriptor, int) else None
        return held.node if isinstance(held, _Open) and isinstance(held.node, File) else None

    def die(self) -> NoReturn:
        """End here."""
        self.world.kill(self)
        raise Killed

    # files

    def open_read(self, path: Path) -> int:
        """Open an existing file or directory for reading."""
        self._refuse(self.gesture("open_read", path))
        return self._opened(self._node(path), writable=False)

    def open_write(self, path: Path) -> int:
        """Open for reading and writing; make it when it is not there."""
        self._refuse(self.gesture("open_write", path))
        directory, name = self._place(path)
        return self._opened(directory.entries.get(name) or self._made(directory, name), writable=True)

    def open_existing(self, path: Path) -> int:
        """Open for reading and writing what must be there."""
        self._refuse(self.gesture("open_existing", path))
        return self._opened(self._node(path), writable=True)

    def create(self, path: Path) -> int:
        """Make a file that must not exist yet."""
        self._refuse(self.gesture("create", path))
        directory, name = self._place(path)
        if name in directory.entries:
            _fail(errno.EEXIST, path)
        return self._opened(self._made(directory, name), writable=True)

    def close(self, descriptor: int) -> None:
        """Give the descriptor back; locks held through it go with it."""
        if self.alive:
            self.world.close(self._held(descriptor))
            del self.descriptors[descriptor]

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read at most ``size`` bytes at ``offset`` from the cache."""
        self._refuse(self.gesture("read", descriptor))
        return bytes(self._file(descriptor).cache[offset : offset + size])

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        """Write at ``offset`` into the cache: all, a part, or nothing."""
        fault = self.gesture("write", descriptor)
        file = self._file(descriptor, writing=True)
        if fault is None:
            file.change((offset, bytes(data)))
            return len(data)
        return self._write_badly(file, bytes(data), offset, fault)

    def size(self, descriptor: int) -> int:
        """Length of the file in bytes."""
        self._refuse(self.gesture("size", descriptor))
        return len(self._file(descriptor).cache)

    def resize(self, descriptor: int, size: int) -> None:
        """Set the length of the file."""
        self._refuse(self.gesture("resize", descriptor))
        self._file(descriptor, writing=True).change((size, None))

    def sync(self, descriptor: int) -> None:
        """Bytes and metadata to the disk; a file's name is not among them."""
        self._sync("sync", descriptor)

    def sync_data(self, descriptor: int) -> None:
        """Bytes to the disk."""
        self._sync("sync_data", descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Put ``old`` in the place of ``new``, atomically, within one directory."""
        self._refuse(self.gesture("rename", f"{old} {new}"))
        directory, source = self._place(old)
        target_directory, target = self._place(new)
        node, replaced = self._node(old), directory.entries.get(target)
        assert directory is target_directory, "the log renames within one directory"
        assert isinstance(node, File), "the log renames files"
        if isinstance(replaced, Directory):
            _fail(errno.EISDIR, new)
        if replaced is not node:
            directory.change((source, target, node))
            self._unlinked(replaced)

    def unlink(self, path: Path) -> None:
        """Remove a name."""
        self._refuse(self.gesture("unlink", path))
        directory, name = self._place(path)
        node = self._node(path)
        if isinstance(node, Directory):
            _fail(errno.EISDIR, path)
        directory.change((name, None, None))
        self._unlinked(node)

    def make_directory(self, path: Path) -> None:
        """Make one directory."""
        self._refuse(self.gesture("make_directory", path))
        parent, name = self._place(path)
        if name in parent.entries:
            _fail(errno.EEXIST, path)
        made = self.world.directories[str(path)] = Directory(self.world.new_number())
        parent.change((None, name, made))

    def list_directory(self, path: Path) -> list[str]:
        """Names in a directory, sorted."""
        self._refuse(self.gesture("list_directory", path))
        return sorted(self._directory(path).entries)

    def sync_directory(self, path: Path) -> None:
        """Make names durable. A failure forgets them or, as a journal would, keeps them for the next sync."""
        fault = self.gesture("sync_directory", path)
        directory = self._directory(path)
        if fault is not None and fault.dropped:
            directory.forget(chance_names(directory, self.world.dice))
        self._refuse(fault)
        directory.sync()

    def is_file(self, path: Path) -> bool:
        """Whether a regular file stands there."""
        return isinstance(self._found("is_file", path), File)

    def is_directory(self, path: Path) -> bool:
        """Whether a directory stands there."""
        return isinstance(self._found("is_directory", path), Directory)

    def file_id(self, descriptor: int) -> tuple[int, int]:
        """Which file is open. Its number is given to another one as soon as nobody has it open and it has no name."""
        self.gesture("file_id", descriptor)
        return 1, self._file(descriptor).number

    def file_id_at(self, path: Path | str) -> tuple[int, int] | None:
        """Which file has this name now."""
        node = self._found("file_id_at", path)
        return None if node is None else (1, node.number)

    def names_stamp(self, directory: Path | str) -> tuple[int, int, int] | None:
        """What changes with any name in a directory; now and then it is too early to tell."""
        node = self._found("names_stamp", directory)
        if not isinstance(node, Directory):
            return None
        early = self.world.dice.random() < _EARLY
        return None if early else (1, node.number, node.changed)

    # locks

    def lock(self, descriptor: int) -> None:
        """Wait for the exclusive lock of an open file, for ever if need be."""
        self._refuse(self.gesture("lock", descriptor))
        file, held = self._lockable(descriptor)
        while file.holder not in (None, held):
            self._block(lambda: file.holder is None, None)
        file.holder = held

    def try_lock(self, descriptor: int) -> bool:
        """Take the exclusive lock if nobody has it."""
        self._refuse(self.gesture("try_lock", descriptor))
        file, held = self._lockable(descriptor)
        if file.holder not in (None, held):
            return False
        file.holder = held
        return True

    def unlock(self, descriptor: int) -> None:
        """Let the lock go."""
        if self.alive:
            self.gesture("unlock", descriptor)
            file, held = self._lockable(descriptor)
            if file.holder is held:
                file.holder = None

    def locked(self, descriptor: int) -> bool:
        """Whether somebody else has the lock."""
        self.gesture("locked", descriptor)
        return self._file(descriptor).holder not in (None, self._held(descriptor))

    # shared memory

    def map_shared(self, descriptor: int, size: int) -> memoryview:
        """The file's first bytes as words; a ``SharedWords`` in truth. Touching what the file does not have kills."""
        self._refuse(self.gesture("map_shared", descriptor))
        file = self._file(descriptor, writing=True)
        if size > len(file.cache):
            raise ValueError("mmap length is greater than file size")
        file.mapped = True
        file.opened += 1
        return cast("memoryview", SharedWords(self, file, size))

    def unmap(self, words: memoryview) -> None:
        """Give the mapping back."""
        shared = cast("SharedWords", words)
        if self.alive and shared.file is not None:
            shared.file.opened -= 1
            self.world.free(shared.file)
        shared.file = None

    def store(self, words: memoryview, index: int, value: int) -> None:
        """Store one word of a shared page."""
        file = cast("SharedWords", words).mapped()
        self._refuse(self.gesture("store", index))
        self._store(file, index, value)

    def store_many(self, words: memoryview, index: int, values: Sequence[int]) -> None:
        """Store words one after the other; anything may happen between two of them."""
        file = cast("SharedWords", words).mapped()
        for at, value in enumerate(values, index):
            self._refuse(self.gesture("store_many", at))
            self._store(file, at, value)

    def wait_word(self, words: memoryview, index: int, value: int, timeout_seconds: float) -> None:
        """Sleep while the low half of a word is that of ``value``, until ``wake`` or the time is over."""
        fault = self.gesture("wait_word", index)
        self._refuse(fault)
        file = cast("SharedWords", words).mapped()
        if (_word(file, index) ^ value) & _LOW_HALF or (fault is not None and fault.kind == "split"):
            return  # split: early, for no reason
        sleeper = _Sleeper(self, (id(file), index))
        self.world.sleepers.append(sleeper)
        self._block(lambda: sleeper.woken, self.world.time + max(0.0, timeout_seconds))
        if sleeper in self.world.sleepers:
            self.world.sleepers.remove(sleeper)

    def wake(self, words: memoryview, index: int, sleepers: int) -> int:
        """Wake at most that many of those who sleep on this word; how many it were."""
        self._refuse(self.gesture("wake", index))
        at = (id(cast("SharedWords", words).mapped()), index)
        woken = [sleeper for sleeper in self.world.sleepers if sleeper.at == at][:sleepers]
        for sleeper in woken:
            sleeper.woken = True
            self.world.sleepers.remove(sleeper)
        return len(woken)

    # clocks and dice

    def monotonic(self) -> float:
        """The world's time. Jumps forwards when the machine slept."""
        self.world.time += _GESTURE_SECONDS
        return self.world.time + self.world.monotonic_shift

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self._refuse(self.gesture("sleep", seconds))
        self._block(lambda: False, self.world.time + max(0.0, seconds))

    def random_hex(self, size: int) -> str:
        """Random bytes as hexadecimal digits; the same in every run of the seed."""
        return self.world.dice.randbytes(size).hex()

    def uuid(self) -> str:
        """A random UUID; the same in every run of the seed."""
        return str(UUID(bytes=self.world.dice.randbytes(16), version=4))

    # processes

    def pid(self) -> int:
        """Our process id."""
        return self.number

    def boot_id(self) -> str:
        """What changes with every power cut."""
        return f"boot-{self.world.boots}"

    def process_start(self, pid: int) -> int | None:
        """When a living process started: a number of its own."""
        env = self._process(pid)
        return None if env is None else env._start  # noqa: SLF001 - its own kind

    def process_stopped(self, pid: int) -> bool:
        """Whether that process was stopped by a signal."""
        self._refuse(self.gesture("process_stopped", pid))
        env = self._process(pid)
        return env is not None and env.stopped

    def lock_holder(self, path: Path) -> int | None:
        """Which process has a file open through which it holds the lock of ``path``."""
        node = self._found("lock_holder", path)
        env = self.world.holder_of(node) if isinstance(node, File) else None
        return None if env is None else env.number

    def has_open(self, pid: int, path: Path) -> bool:
        """Whether that process has a file open that is ``path`` now."""
        node, env = self._found("has_open", path), self._process(pid)
        held = () if env is None else env.descriptors.values()
        return node is not None and any(isinstance(one, _Open) and one.node is node for one in held)

    def open_process(self, pid: int) -> int:
        """A descriptor that means this very process."""
        self._refuse(self.gesture("open_process", pid))
        env = self._process(pid)
        if env is None:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return self._numbered(env)

    def signal_process(self, process: int, number: int) -> None:
        """Signal the process behind a descriptor: kill, stop, continue; others have no effect."""
        self._refuse(self.gesture("signal_process", number))
        env = self._held(process)
        assert isinstance(env, SimulatedEnv), "a descriptor made by open_process"
        if not env.alive:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if number == signal.SIGKILL:
            self.world.kill(env)
        elif number in (signal.SIGSTOP, signal.SIGCONT):
            env.stopped = number == signal.SIGSTOP
        if not self.alive:
            raise Killed

    # what becomes of gestures

    def _refuse(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "error":
            _fail(fault.code)

    def _write_badly(self, file: File, data: bytes, offset: int, fault: Fault) -> int:
        if fault.kind == "error":
            _fail(fault.code)
        taken = min(int(len(data) * fault.share), len(data) - 1)
        if taken > 0:
            file.change((offset, data[:taken]))
        if fault.kind == "kill":
            self.die()
        if fault.kind == "split":
            self._refuse(self.gesture("write on", taken))
            file.change((offset + max(taken, 0), data[max(taken, 0) :]))
            return len(data)
        return max(taken, 0)

    def _sync(self, what: str, descriptor: int) -> None:
        fault = self.gesture(what, descriptor)
        file = self._file(descriptor)
        if fault is not None and fault.kind == "error":
            file.forget(chance_content(file, self.world.dice), dropped=fault.dropped)
        self._refuse(fault)
        file.sync()

    def _block(self, ready: Callable[[], bool], until: float | None) -> None:
        self.world.fate.block(self, ready, until)
        if not self.alive:
            raise Killed

    # what names and descriptors stand for

    def _place(self, path: Path) -> tuple[Directory, str]:
        parent, _, name = str(path).rpartition("/")
        directory = self.world.directories.get(parent)
        if directory is None:
            _fail(errno.ENOTDIR if isinstance(self._peek(parent), File) else errno.ENOENT, path)
        return directory, name

    def _peek(self, path: str) -> Node | None:
        parent, _, name = path.rpartition("/")
        if not name:
            return self.world.directories[""]
        directory = self.world.directories.get(parent)
        return None if directory is None else directory.entries.get(name)

    def _found(self, what: str, path: Path | str) -> Node | None:
        self._refuse(self.gesture(what, path))
        return self._peek(str(path))

    def _node(self, path: Path) -> Node:
        node = self._peek(str(path))
        if node is None:
            self._place(path)  # says which part is missing
            _fail(errno.ENOENT, path)
        return node

    def _directory(self, path: Path) -> Directory:
        node = self._node(path)
        if not isinstance(node, Directory):
            _fail(errno.ENOTDIR, path)
        return node

    def _made(self, directory: Directory, name: str) -> File:
        file = File(self.world.new_number())
        directory.change((None, name, file))
        file.links = 1
        return file

    def _unlinked(self, node: Node | None) -> None:
        if isinstance(node, File):
            node.links -= 1
            self.world.free(node)

    def _opened(self, node: Node, *, writable: bool) -> int:
        if isinstance(node, File):
            node.opened += 1
        elif writable:
            _fail(errno.EISDIR)
        return self._numbered(_Open(node, writable=writable))

    def _numbered(self, held: _Open | SimulatedEnv) -> int:
        descriptor = _FIRST_DESCRIPTOR
        while descriptor in self.descriptors:
            descriptor += 1
        self.descriptors[descriptor] = held
        return descriptor

    def _held(self, descriptor: int) -> _Open | SimulatedEnv:
        held = self.descriptors.get(descriptor)
        if held is None:
            _fail(errno.EBADF)
        return held

    def _file(self, descriptor: int, *, writing: bool = False) -> File:
        held = self.descriptors.get(descriptor)
        if not isinstance(held, _Open) or (writing and not held.writable):
            _fail(errno.EBADF)
        if not isinstance(held.node, File):
            _fail(errno.EISDIR)
        return held.node

    def _lockable(self, descriptor: int) -> tuple[File, object]:
        return self._file(descriptor, writing=True), self.descriptors[descriptor]

    def _process(self, pid: int) -> SimulatedEnv | None:
        return next((env for env in self.world.processes if env.number == pid), None)

    def _store(self, file: File, index: int, value: int) -> None:
        if len(file.cache) < (index + 1) * WORD:
            self.die()  # SIGBUS
        file.change((index * WORD, value.to_bytes(WORD, sys.byteorder)))


def _word(file: File, index: int) -> int:
    return int.from_bytes(file.cache[index * WORD : (index + 1) * WORD], sys.byteorder)


def _fail(code: int, about: Iterable[str] | Path | None = None) -> NoReturn:
    raise OSError(code, os.strerror(code), *(() if about is None else (str(about),)))
