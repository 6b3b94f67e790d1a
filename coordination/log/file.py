"""How do many processes share one log in a directory? The default engine; its format is in docs/log-format.md.

Writers take turns at ``append.lock``. Whoever has the turn believes the shared page or recovers, compares, writes one
line, syncs it, says so on the page. Readers take no lock: they verify every line by its checksum, and the page only
tells them how far the disk is known to be.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import Conflict, NotFound, OutcomeUnknown, Refused
from coordination.locks import Turns
from coordination.log import Upto, frames, recovery, segments
from coordination.log.frames import Header, Previous
from coordination.log.page import BYTES, Head, Page, Reading
from coordination.log.places import Places
from coordination.log.segments import PAGE, Chain, Position

SEGMENT_BYTES = 64 << 20
_LOCK = "append.lock"
_PAUSE_SECONDS = 0.0005
_PAUSE_SECONDS_MAX = 0.02


def connect(url: str) -> FileLog:
    """Connect to ``file:<directory>``. Raises NotFound when no log was created there, LogDamaged."""
    return FileLog(Path(url.partition(":")[2]))


def create(directory: Path, *, env: Env = REAL) -> None:
    """Make an empty log; fine when one is there. Raises LogDamaged when there was one and it is not whole."""
    files.make_directory(directory, env=env)
    turns = Turns(directory / _LOCK, env=env)
    try:
        with turns:
            _create_unless_there(directory, env)
    finally:
        turns.close()


class FileLog:
    """One connection. Threads may share it; it must not cross a fork."""

    def __init__(self, directory: Path, *, env: Env = REAL, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._directory = directory
        self._env = env
        self._segment_bytes = segment_bytes
        self._pid = env.pid()
        self._start = env.process_start(self._pid) or 0
        self._turns = Turns(directory / _LOCK, env=env)
        self._seeing = threading.RLock()  # over what follows; never waited for while another process is
        self._chain = segments.load(directory, env=env)
        self._places = Places()
        self._page: Page | None = None
        self._epoch = self._chain.epoch
        self._tail: tuple[int, int] | None = None  # segment and descriptor; only in our turn

    @property
    def uuid(self) -> str:
        """Which log this is."""
        return self._chain.last.header.log

    @property
    def epoch(self) -> int:
        """The epoch that ``read`` saw last."""
        return self._epoch

    @property
    def durable(self) -> int:
        """The highest sequence number known to be on the disk."""
        with self._seeing:
            return self._proven(self._look())

    def read(self, after: int, *, upto: Upto) -> Iterable[tuple[int, bytes]]:
        """The batches after number ``after``, each verified; what is torn above the watermark is the end."""
        with self._seeing:
            reading = self._look()
            self._epoch = self._chain.epoch
            if reading is not None and self._speaks_of(reading) and reading.head.seq <= after and not reading.marked:
                return ()
            proven = self._proven(reading)
            start = self._places.before(after, self._chain)
            chain = self._chain
        verified = self._verified(chain, start, proven, proven if upto == "durable" else None)
        return ((seq, payload) for seq, payload in verified if seq > after)

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Wait until ``durable`` is beyond ``after``."""
        deadline = self._env.monotonic() + timeout_seconds
        pause = _PAUSE_SECONDS
        while self.durable <= after:
            left = deadline - self._env.monotonic()
            if left <= 0:
                return False
            self._env.sleep(min(pause, left))
            pause = min(2 * pause, _PAUSE_SECONDS_MAX)
        return True

    def append(self, payload: bytes, *, after: int) -> int:
        """Append one batch after batch ``after``, durable on return; see the protocol for what it raises."""
        frames.check_payload(payload)
        self._refuse_after_fork()
        with self._turns:
            page, head = self._settled()
            if head.epoch != self._epoch or head.seq != after:
                decided = f"decided after batch {after} in epoch {self._epoch}"
                message = f"{decided}, but the log's head is {head.seq} in epoch {head.epoch}"
                raise Conflict(message, head=head.seq)
            page.begin(self._start)
            with self._outcome_unknown():
                if head.offset >= self._segment_bytes:
                    head = self._roll(page, head)
                new = self._write(page, head, payload)
            page.advance(new)
            page.clear()
            self._move_on(head, new)
            return new.seq

    def settle(self) -> None:
        """Recover if that is needed; afterwards the head is durable."""
        self._refuse_after_fork()
        with self._turns:
            self._settled()

    def close(self) -> None:
        """Give back descriptors and memory."""
        self._turns.close()
        with self._seeing:
            self._let_go_of_page()
            self._let_go_of_tail()

    # reading

    def _look(self) -> Reading | None:
        """Bring the chain up to date and return what the page says. Page first: the files are at least that new."""
        page = self._page_to_read()
        reading = None if page is None else page.read()
        if reading is None or not self._speaks_of(reading):
            self._chain = segments.load(self._directory, env=self._env, known=self._chain)
        return reading

    def _speaks_of(self, reading: Reading) -> bool:
        newest = self._chain.last.header
        same = reading.head.epoch == newest.epoch and reading.head.segment == newest.segment
        return same and reading.this_boot

    def _proven(self, reading: Reading | None) -> int:
        """How far the disk is known to be. Without a page of this boot only the lines can tell."""
        if reading is not None and reading.this_boot:
            return reading.head.durable
        end = self._places.newest(self._chain)
        for position, _ in segments.scan(self._chain, end, env=self._env):
            self._places.passed(position)
            end = position
        _check_reached(self._chain, end, max(end.durable, 0 if reading is None else reading.head.durable))
        return end.durable

    def _verified(self, chain: Chain, start: Position, proven: int, last: int | None) -> Iterator[tuple[int, bytes]]:
        end = start
        for position, line in (
            () if last is not None and start.seq >= last else segments.scan(chain, start, env=self._env)
        ):
            with self._seeing:
                self._places.passed(position)
            end = position
            yield line.seq, line.payload
            if end.seq == last:
                break
        _check_reached(chain, end, max(proven, end.durable) if last is None else last)
        with self._seeing:
            self._places.ended(end)

    def _page_to_read(self) -> Page | None:
        if self._page is not None and not self._page.current:
            self._let_go_of_page()
        if self._page is None:
            try:
                descriptor = self._env.open_existing(self._directory / PAGE)
            except FileNotFoundError:
                return None
            self._page = self._mapped(descriptor)
        return self._page

    def _mapped(self, descriptor: int) -> Page | None:
        if self._env.size(descriptor) >= BYTES:
            return Page(self._directory / PAGE, descriptor, self.uuid, self._env)
        self._env.close(descriptor)
        return None

    # writing, in our turn

    def _settled(self) -> tuple[Page, Head]:
        """Where the next line goes, by a page that we may believe or by recovery."""
        try:
            page = self._page_to_write()
            head = self._believed(page)
            if head is None:
                head = recovery.recover(self._directory, page, self._start, env=self._env)
        except OSError as error:
            needs = f"{self._directory}: the log needs recovery, which failed: {error}"
            raise Refused(f"{needs}. Nothing was appended; remove the cause and try again") from error
        return page, head

    def _believed(self, page: Page) -> Head | None:
        reading = page.read()
        if reading is None or reading.marked or not reading.this_boot or reading.head.durable != reading.head.seq:
            return None
        try:
            size = self._env.size(self._tail_of(reading.head.segment))
        except FileNotFoundError:
            return None  # recovery will say so
        return reading.head if size == reading.head.offset else None

    def _write(self, page: Page, head: Head, payload: bytes) -> Head:
        line, checksum = frames.encode_line(
            payload, seq=head.seq + 1, durable=head.durable, segment=head.segment, previous_sum=head.sum
        )
        descriptor = self._tail_of(head.segment)
        taken = self._env.write(descriptor, line, head.offset)
        if taken != len(line):
            raise OSError(errno.ENOSPC, f"the system took {taken} of {len(line)} bytes")
        self._sync(page, descriptor)
        return msgspec.structs.replace(
            head, offset=head.offset + len(line), seq=head.seq + 1, sum=checksum, durable=head.seq + 1
        )

    def _sync(self, page: Page, descriptor: int) -> None:
        page.mark("syncing")  # killed between a failed sync and the poison: this mark tells
        try:
            self._env.sync_data(descriptor)
        except OSError:
            page.mark("poison")
            self._let_go_of_tail()
            raise

    def _roll(self, page: Page, head: Head) -> Head:
        """Close the segment and go on in a new one of the same epoch. Killed here, the next recovers."""
        self._sync(page, self._tail_of(head.segment))
        previous = Previous(segment=head.segment, last_seq=head.seq, sum=frames.written(head.sum))
        header = Header(
            log=self.uuid,
            segment=head.segment + 1,
            epoch=head.epoch,
            first_seq=head.seq + 1,
            durable=head.seq,
            previous=previous,
        )
        return recovery.publish_segment(self._directory, header, (), env=self._env)

    @contextmanager
    def _outcome_unknown(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = (
                f"{self._directory}: appending failed: {error}. The batch may or may not be there: read to find out"
            )
            raise OutcomeUnknown(message) from error

    def _move_on(self, head: Head, new: Head) -> None:
        with self._seeing:
            position = Position(segment=new.segment, offset=new.offset, seq=new.seq, sum=new.sum, durable=head.durable)
            self._places.passed(position)

    def _tail_of(self, number: int) -> int:
        """The descriptor of a segment, opened anew when another file has its name. Raises OSError."""
        path = segments.path_of(self._directory, number)
        if self._tail is not None and (self._tail[0] != number or not self._env.same_file(self._tail[1], path)):
            self._let_go_of_tail()
        if self._tail is None:
            self._tail = (number, self._env.open_existing(path))
        return self._tail[1]

    def _page_to_write(self) -> Page:
        with self._seeing:
            page = self._page_to_read()
            if page is None:
                page = self._page = _new_page(self._directory, self.uuid, self._env)
            return page

    def _let_go_of_page(self) -> None:
        if self._page is not None:
            self._page.close()
            self._page = None

    def _let_go_of_tail(self) -> None:
        if self._tail is not None:
            (_, descriptor), self._tail = self._tail, None
            self._env.close(descriptor)

    def _refuse_after_fork(self) -> None:
        if self._env.pid() != self._pid:
            message = f"{self._directory}: this connection was made before a fork and shares its lock: connect again"
            raise Refused(message)


def _create_unless_there(directory: Path, env: Env) -> None:
    try:
        segments.load(directory, env=env)
    except NotFound:
        header = Header(log=env.uuid(), segment=1, epoch=1, first_seq=1, durable=0, previous=None)
        head = recovery.publish_segment(directory, header, (), env=env)
        page = _new_page(directory, header.log, env)
        page.set_up(head)
        page.close()


def _new_page(directory: Path, log: str, env: Env) -> Page:
    descriptor = env.open_write(directory / PAGE)
    # written, not only resized: a store into a hole of a full disk would be a signal instead of an error
    try:
        files.write_fully(descriptor, bytes(BYTES), 0, env=env)
    except BaseException:
        env.close(descriptor)
        raise
    return Page(directory / PAGE, descriptor, log, env)


def _check_reached(chain: Chain, end: Position, watermark: int) -> None:
    if end.seq < watermark:
        what = f"this line is missing or not valid, but batches up to {watermark} were acknowledged"
        raise segments.damaged(chain.segments[end.segment - 1].path, end.offset, end.seq + 1, what)
