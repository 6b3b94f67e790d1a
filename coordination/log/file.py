"""How do many processes share one log in a directory? The default engine; its format is in docs/log-format.md.

Writers take turns at ``append.lock``. Whoever has the turn believes the shared page or recovers, compares, writes one
line and says so on the page. Becoming durable is a second matter, see ``log.commit``: one sync serves all who wait.
Readers take no lock: they verify every line by its checksum, and the page only tells them how far they may read and
how far the disk is known to be.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import REAL, Env
from coordination.errors import Conflict, LockHeld, LogDamaged, NotFound, OutcomeUnknown, Refused
from coordination.log import Upto, frames, recovery, segments
from coordination.log.commit import Attempt, Commit
from coordination.log.frames import Header, Previous
from coordination.log.names import Names
from coordination.log.page import Head, Page, Reading, Sleeping, create_page, open_page
from coordination.log.places import Places
from coordination.log.segments import PAGE, Batches, Chain, Position
from coordination.log.tail import Tail
from coordination.log.turns import OURS, Bell, Turns

SEGMENT_BYTES = 64 << 20
_APPEND_LOCK = "append.lock"
_AT_ONCE_BYTES = 1 << 17
_UNSEEN_SECONDS = 0.001  # between two looks where there is no bell to sleep on


def connect(url: str, *, ours: bool = False) -> FileLog:
    """Connect to ``file:<directory>``. Raises NotFound when no log was created there, LogDamaged."""
    return FileLog(Path(url.partition(":")[2]), ours=ours)


def create(directory: Path, *, env: Env = REAL) -> None:
    """Make an empty log; fine when one is there. Raises LogDamaged when there was one and it is not whole."""
    files.ensure_directory(directory, env=env)
    turns = Turns(directory / _APPEND_LOCK, env=env)
    try:
        with turns:
            _create_unless_there(directory, env)
    finally:
        turns.close()


class FileLog:
    """One connection. Threads may share it; it must not cross a fork.

    ``ours`` says that this process may be killed when it was stopped while it kept others from writing.
    """

    def __init__(
        self, directory: Path, *, env: Env = REAL, segment_bytes: int = SEGMENT_BYTES, ours: bool = False
    ) -> None:
        self._directory = directory
        self._env = env
        self._segment_bytes = segment_bytes
        self._pid = env.pid()
        self._seeing = threading.RLock()  # over what follows; never waited for while another process is
        self._chain = segments.load(directory, env=env)
        self._ours = ours
        self._badge: int | None = None  # the file that says so, open
        self._places = Places()
        self._pages: list[Page] = []  # the last one is mapped under its name; threads may still sleep on older ones
        self._epoch = self._chain.epoch
        self._seen: tuple[Page, int] | None = None  # a page that was held against the files, and its generation then
        self._names = Names(directory, env=env)
        self._window = Tail(directory, self._names, env=env)
        self._turns = Turns(
            directory / _APPEND_LOCK,
            env=env,
            bell=lambda: self._bell("append"),
        )
        self._tail = Tail(directory, self._turns.names, env=env)  # only in the append turn
        self._commit = Commit(
            directory,
            bell=lambda: self._bell("sync"),
            env=env,
        )

    @property
    def uuid(self) -> str:
        """Which log this is."""
        return self._chain.last.header.log

    @property
    def epoch(self) -> int:
        """The epoch that ``read`` saw last."""
        return self._epoch

    @property
    def base(self) -> int:
        """The last batch that was taken away with old segments: ``read`` starts behind it."""
        return self._chain.base

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
            speaks = reading is not None and self._speaks_of(reading)
            if reading is not None and speaks and reading.head.seq <= after:
                return ()
            proven = self._proven(reading)
            if after < self._chain.base:
                raise _taken_away(self._chain, after)
            start = self._places.before(after, self._chain)
            last = proven if upto == "durable" else None
            end = reading.head.offset if reading is not None and speaks else None
            chain = self._chain
            if end is not None and start.segment == chain.last.header.segment and end - start.offset <= _AT_ONCE_BYTES:
                return self._at_once(start, after, proven, last, end)
        return self._verified(chain, start, after, proven, last, end)

    def wait(self, after: int, timeout_seconds: float) -> bool:
        """Wait until ``durable`` is beyond ``after``."""
        deadline = self._env.monotonic() + timeout_seconds
        while True:
            bell = self._bell("durable")
            heard = 0 if bell is None else bell.heard()  # before looking, or we might sleep through the ringing
            if self.durable > after:
                return True
            left = deadline - self._env.monotonic()
            if left <= 0:
                return False
            if bell is None:
                self._env.sleep(min(left, _UNSEEN_SECONDS))
            else:
                bell.sleep(heard, left)

    def append(self, payload: bytes, *, after: int, again: Callable[[], bytes] | None = None) -> int:
        """Append one batch after batch ``after``, durable on return; see the protocol for what it raises."""
        frames.check_payload(payload)
        self._ready()
        with self._turns:
            page, reading = self._settled()
            head = reading.head
            if head.epoch != self._epoch or head.seq != after:
                payload = self._decided_again(head, after, again)
            page.mark("dirty")
            try:
                head = self._write(page, reading, payload)
            except OSError as error:
                raise _unknown(self._directory, error) from error
            page.clear("dirty")
        with self._seeing:
            self._places.passed(
                Position(segment=head.segment, offset=head.offset, seq=head.seq, sum=head.sum, durable=reading.durable)
            )
        self._become_durable(page, head)
        return head.seq

    def settle(self) -> None:
        """Recover if that is needed, and sync what was only written; afterwards the head is durable."""
        self._ready()
        with self._turns:
            page, reading = self._settled()
        try:
            self._become_durable(page, reading.head)
        except Conflict:
            return  # somebody recovered meanwhile: what was not taken over is void, everything else durable

    def close(self) -> None:
        """Give back descriptors and memory."""
        self._turns.close()
        self._commit.close()
        if self._badge is not None:
            self._env.close(self._badge)
            self._badge = None
        with self._seeing:
            for page in self._pages:
                page.close()
            self._pages.clear()
            self._window.close()
        self._tail.close()

    # reading

    def _look(self) -> Reading | None:
        """Bring the chain up to date and return what the page says. Page first: the files are at least that new."""
        self._names.look()
        page = self._page(self._names)
        reading = None if page is None else page.read()
        if reading is None or not self._speaks_of(reading):
            self._chain = segments.load(self._directory, env=self._env, known=self._chain)
        if page is None or reading is None or not reading.this_boot:
            return reading
        # held against the files once, and again when it goes backwards: then somebody put an old one back
        fine = self._seen is not None and self._seen[0] is page and self._seen[1] <= reading.generation
        if not fine and not self._fits(page, reading):
            return msgspec.structs.replace(reading, fits=False)
        self._seen = page, reading.generation
        return reading

    def _fits(self, page: Page, reading: Reading) -> bool:
        """Whether the files say no more than the page; if they do, somebody is writing, or put an old page back."""
        head = reading.head
        try:
            if self._speaks_of(reading) and self._env.size(self._window.descriptor(head.segment)) <= head.offset:
                return True
        except FileNotFoundError:
            return True  # whoever reads it will say so
        again = page.read()
        # the mark stands from before a line, or a segment, is written until the page has heard of it
        return again is None or again.dirty or again.poisoned or again.generation != reading.generation

    def _speaks_of(self, reading: Reading) -> bool:
        newest = self._chain.last.header
        same = reading.head.epoch == newest.epoch and reading.head.segment == newest.segment
        return same and reading.this_boot and reading.fits

    def _proven(self, reading: Reading | None) -> int:
        """How far the disk is known to be. Without a page of this boot only the lines can tell."""
        vouched = reading.durable if reading is not None and reading.this_boot else 0
        if reading is not None and reading.this_boot and reading.fits:
            return vouched
        end = self._places.newest(self._chain)
        for position, _ in segments.scan(self._chain, end, env=self._env):
            self._places.passed(position)
            end = position
        # lines behind a bad one may say that it was on the disk when they were written: then it is no torn end
        promised = frames.promised(segments.remainder(self._chain, end, env=self._env))
        _check_reached(self._chain, end, max(end.durable, promised, 0 if reading is None else reading.durable))
        return max(end.durable, vouched)

    def _verified(
        self, chain: Chain, start: Position, after: int, proven: int, last: int | None, end: int | None
    ) -> Iterator[tuple[int, bytes]]:
        position = start
        for behind, batches in segments.scan(chain, start, env=self._env, last=last, end=end):
            with self._seeing:
                self._places.passed(behind)
            position = behind
            yield from batches if batches[0][0] > after else [batch for batch in batches if batch[0] > after]
        _check_reached(chain, position, max(proven, position.durable) if last is None else last)
        with self._seeing:
            self._places.ended(position)

    def _at_once(self, start: Position, after: int, proven: int, last: int | None, end: int) -> Batches:
        """What stands between ``start`` and byte ``end`` of the newest segment: what most reads want, in one go."""
        try:
            data = self._env.read(self._window.descriptor(start.segment), end - start.offset, start.offset)
        except FileNotFoundError as error:
            raise segments.damaged(self._chain.last.path, 0, 0, "this segment is missing") from error
        position, batches = segments.taken(data, start, last)
        _check_reached(self._chain, position, max(proven, position.durable) if last is None else last)
        self._places.passed(position)
        self._places.ended(position)
        return batches if start.seq == after else [batch for batch in batches if batch[0] > after]

    def _page(self, names: Names) -> Page | None:
        """The page, if there is one; whoever removes it makes everybody look for a new one."""
        if self._pages and self._pages[-1].current(names):
            return self._pages[-1]
        page = open_page(self._directory / PAGE, self.uuid, self._env)
        if page is not None:
            self._pages.append(page)
        return page

    def _bell(self, sleeping: Sleeping) -> Bell | None:
        return self._pages[-1].bells[sleeping] if self._pages else None

    # writing, in the append turn

    def _settled(self) -> tuple[Page, Reading]:
        """Where the next line goes, by a page that we may believe or by recovery."""
        try:
            page = self._page_to_write()
            reading = page.read()
            if reading is None or not self._believed(reading):
                with self._commit.turns:
                    reading = recovery.recover(self._directory, page, env=self._env)
                for sleeping in (0, 1):
                    page.ring_round(sleeping)
            return page, reading
        except OSError as error:
            needs = f"{self._directory}: the log needs recovery, which failed: {error}"
            raise Refused(f"{needs}. Nothing was appended; remove the cause and try again") from error

    def _believed(self, reading: Reading) -> bool:
        left_in_order = reading.this_boot and not reading.dirty and not reading.poisoned
        return left_in_order and self._tail.follows(reading.head)

    def _decided_again(self, head: Head, after: int, again: Callable[[], bytes] | None) -> bytes:
        if again is None:
            decided = f"decided after batch {after} in epoch {self._epoch}"
            raise Conflict(f"{decided}, but the log's head is {head.seq} in epoch {head.epoch}", head=head.seq)
        payload = again()
        frames.check_payload(payload)
        return payload

    def _write(self, page: Page, reading: Reading, payload: bytes) -> Head:
        head = reading.head if reading.head.offset < self._segment_bytes else self._roll(page, reading.head)
        line, checksum = frames.encode_line(
            payload, seq=head.seq + 1, durable=reading.durable, segment=head.segment, previous_sum=head.sum
        )
        descriptor = self._tail.descriptor(head.segment)
        taken = self._env.write(descriptor, line, head.offset)
        if taken != len(line):
            raise OSError(errno.ENOSPC, f"the system took {taken} of {len(line)} bytes")
        offset = head.offset + len(line)
        new = Head(epoch=head.epoch, segment=head.segment, offset=offset, seq=head.seq + 1, sum=checksum)
        page.advance(new)
        return new

    def _roll(self, page: Page, head: Head) -> Head:
        """Close the segment and go on in a new one of the same epoch. Killed here, the next recovers."""
        if self._commit.sync_all(page, head.epoch) == "refused":
            message = f"{self._directory}: the log must be recovered before it can grow; nothing was appended"
            raise Conflict(message, head=head.seq)
        previous = Previous(segment=head.segment, last_seq=head.seq, sum=frames.written(head.sum))
        header = Header(
            log=self.uuid,
            segment=head.segment + 1,
            epoch=head.epoch,
            first_seq=head.seq + 1,
            durable=head.seq,
            previous=previous,
        )
        new = recovery.publish_segment(self._directory, header, (), env=self._env)
        page.advance(new)
        return new

    # becoming durable, in no turn

    def _become_durable(self, page: Page, mine: Head) -> None:
        """Return when a sync of our epoch covers our batch. Raises OutcomeUnknown; Conflict: it is void for ever."""
        patience = self._commit.turns.patience()
        under_way = page.syncing  # then it is of no use to try for the turn before that round is over
        while not page.covers(mine.epoch, mine.seq):
            heard = page.heard()  # before trying, or we might sleep through the ringing
            attempt = "busy" if under_way and page.syncing else self._try_sync(page, mine.epoch)
            under_way = False
            if attempt == "refused":
                self._recover_first()
                if self._taken_over(mine):
                    return
                page = self._pages[-1]
            elif attempt == "busy" and not page.covers(mine.epoch, mine.seq):
                page.sleep_until_round(mine.seq, heard)
                self._look_after(patience)

    def _try_sync(self, page: Page, epoch: int) -> Attempt:
        try:
            return self._commit.try_sync(page, epoch)
        except OSError as error:
            raise _unknown(self._directory, error) from error

    def _look_after(self, patience: Iterator[None]) -> None:
        try:
            next(patience)
        except LockHeld as error:  # our line is written, and who keeps the turn may yet make it durable
            raise _unknown(self._directory, error) from error

    def _recover_first(self) -> None:
        try:
            with self._turns:
                self._settled()
        except Refused as error:
            raise _unknown(self._directory, error) from error

    def _taken_over(self, mine: Head) -> bool:
        """Whether a recovery took our batch over; False when there was none, Conflict when it left it behind."""
        with self._seeing:
            self._chain = segments.load(self._directory, env=self._env, known=self._chain)
            newer = [segment for segment in self._chain.segments if segment.header.epoch > mine.epoch]
        if not newer:
            return False
        # a segment covers what it was published with, and what is above that is no longer there for anybody
        if newer[0].header.durable < mine.seq:
            message = f"{self._directory}: batch {mine.seq} was cut off by a recovery before it was durable"
            raise Conflict(message, head=newer[0].header.durable)
        return True

    def _page_to_write(self) -> Page:
        with self._seeing:
            page = self._page(self._turns.names)
            if page is None:
                # whoever made the segments may not have come to this, and a page alone means that they were lost
                self._env.sync_directory(self._directory)
                page = create_page(self._directory / PAGE, self.uuid, self._env)
                self._pages.append(page)
            return page

    def _ready(self) -> None:
        """Before every turn: refuse what must not write, and say that we are ours."""
        if self._env.pid() != self._pid:
            message = f"{self._directory}: this connection was made before a fork and shares its lock: connect again"
            raise Refused(message)
        if self._ours and self._badge is None:
            try:
                self._badge = self._env.open_write(self._directory / OURS)
            except OSError:
                return  # a full disk: then we cannot be freed when we are stopped, and what we write will say why


def _create_unless_there(directory: Path, env: Env) -> None:
    try:
        chain = segments.load(directory, env=env)
    except NotFound:
        header = Header(log=env.uuid(), segment=1, epoch=1, first_seq=1, durable=0, previous=None)
    else:
        if len(chain.segments) > 1 or env.is_file(directory / PAGE):
            return
        # who made it did not finish, and when he failed to sync the directory, another sync may succeed without it
        header = chain.last.header
        if segments.remainder(chain, chain.last.start, env=env):
            return  # whatever stands there, and be it damaged, is not ours to write over
    head = recovery.publish_segment(directory, header, (), env=env)
    page = create_page(directory / PAGE, header.log, env)
    page.set_up(head)
    page.close()


def _check_reached(chain: Chain, end: Position, watermark: int) -> None:
    if end.seq < watermark:
        what = f"this line is missing or not valid, but batches up to {watermark} were acknowledged"
        segment = chain.get(end.segment) or chain.last
        raise segments.damaged(segment.path, end.offset, end.seq + 1, what)


def _taken_away(chain: Chain, after: int) -> LogDamaged:
    first = chain.segments[0]
    what = f"the log begins here: batches {after + 1} to {chain.base} are not in this directory any more"
    return segments.damaged(first.path, 0, chain.base, what)


def _unknown(directory: Path, error: Exception) -> OutcomeUnknown:
    message = f"{directory}: appending failed: {error}. The batch may or may not be there: read to find out"
    return OutcomeUnknown(message)
