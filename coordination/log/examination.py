"""Which batches of a log are intact, which are lost, and which nobody can decide about, however it is damaged?

Reads everything and writes nothing. Where the kernel would refuse at the first damage, this goes on: each segment is
salvaged by itself, then the numbers are put together. The newest segment that has a batch proven speaks for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path

import msgspec

from coordination.env import Env
from coordination.errors import LogDamaged, NotFound
from coordination.log import frames, segments
from coordination.log.frames import Header, Previous
from coordination.log.page import Reading, open_page, vouches
from coordination.log.salvage import (
    LINE_BYTES_MIN,
    Believable,
    Salvaged,
    Stretch,
    first_line,
    is_object,
    payload_of,
    salvage,
)
from coordination.log.segments import PAGE

_NAME = re.compile(r"([0-9]{20})\.jsonl")
_UUID = re.compile(rb'"log":"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')
_BLOCK = 1 << 20
_NO_LIMIT = 1 << 62
_SEGMENT_BYTES = 64 << 20  # of a segment that nobody has seen, at most

Placeholder = Callable[[int, bytes | None, bytes], bytes]
"""The payload in place of a missing batch, from its number, the damaged bytes, and the payload before it (b"": none).

The bytes come with the first number of each gap; with the others, and where nothing is left, comes None.
"""

Ranges = list[tuple[int, int]]


class Fate(StrEnum):
    """What became of a batch."""

    INTACT = "intact"
    LOST = "lost"  # it was acknowledged, and its bytes are damaged or gone
    DOUBTFUL = "doubtful"  # nobody can tell whether it was acknowledged, or whether its bytes are right


class Batches(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive numbers with one fate, and where they stand; nowhere: they get placeholders."""

    first: int
    last: int
    fate: Fate
    place: Stretch | None


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """One place in one file, and the batches that suffered from it; 0: none did."""

    path: Path
    offset: int
    length: int
    what: str
    first: int = 0
    last: int = 0


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be known of a log."""

    log: str  # its uuid; "" when nothing tells
    whole: bool  # the kernel can read all of it: there is nothing to mend
    good: Previous | None  # as far as the kernel can read; None: not even the beginning
    next_segment: int
    next_epoch: int
    base: int  # the last batch that was taken away on purpose, because a snapshot covers it; 0: none was
    batches: tuple[Batches, ...]  # from there to the head, without a gap
    damages: tuple[Damage, ...]
    notes: tuple[str, ...]  # what is harmless

    @property
    def head(self) -> int:
        """The highest number that was acknowledged, or may have been."""
        return self.batches[-1].last if self.batches else self.base

    def numbers(self, fate: Fate) -> Ranges:
        """The numbers with that fate."""
        return _joined((batches.first, batches.last) for batches in self.batches if batches.fate is fate)


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """What others know of logs, by uuid, and what they take for a payload."""

    acknowledged: Mapping[str, int] = {}  # the highest number that somebody saw acknowledged
    covered: Mapping[str, int] = {}  # the highest number that a good snapshot includes: up to it files may be gone
    believable: Believable = is_object  # whether a payload that no checksum proves may be one


def examine(directory: Path, *, env: Env, witness: Witness | None = None) -> Examination:
    """Read and judge everything. Raises NotFound when there never was a log, LogDamaged when nothing can be read."""
    witness = witness or Witness()
    names = _names(directory, env)
    headers = {name: _header(directory / name, env) for name in names}
    log = _uuid(directory, headers, {**witness.covered, **witness.acknowledged}, env)
    ours = {name: header for name, header in headers.items() if header is None or header.log == log}
    page = _said(directory, log, env)
    found = _salvaged(directory, ours, page, witness.believable, env)
    if not any(segment.header is not None or segment.stretches for segment in found):
        raise hopeless(directory, "none of its segments holds a header or a batch that can be read")
    foreign = [directory / name for name in names if name not in ours]
    newest = max(int(name[:20]) for name in names)
    return _View(directory, log, found, page, foreign, newest, witness).examination()


def read(examination: Examination, after: int, *, placeholder: Placeholder, env: Env) -> Iterator[tuple[int, bytes]]:
    """The log as it is, or as mending would make it: numbers and payloads after batch ``after``."""
    gaps = {damage.first: damage for damage in examination.damages if damage.first and damage.length}
    before = b""
    for batches in examination.batches:
        first = max(batches.first, after)  # with the one before, which a placeholder may want to see
        if first > batches.last:
            continue
        if batches.place is not None:
            for seq, before in _stored(batches.place, first, batches.last, env):
                if seq > after:
                    yield seq, before
            continue
        for seq in range(max(first, after + 1), batches.last + 1):
            gap = gaps.get(seq)
            before = placeholder(seq, None if gap is None else bytes_of(gap, env), before)
            yield seq, before


def bytes_of(damage: Damage, env: Env) -> bytes:
    """The damaged bytes."""
    descriptor = env.open_read(damage.path)
    try:
        return _read(descriptor, damage.offset, damage.length, env)
    finally:
        env.close(descriptor)


def hopeless(directory: Path, what: str) -> LogDamaged:
    """The error for a log of which nothing is left."""
    message = (
        f"{directory}: {what}. Nothing was changed, and from this alone nothing can be repaired: put the directory "
    )
    message += "back from a copy. To begin anew instead, move it away and run: coord init"
    return LogDamaged(message, path=str(directory))


# ---- the files -------------------------------------------------------------------------------------------------------


def _names(directory: Path, env: Env) -> list[str]:
    try:
        names = env.list_directory(directory)
    except FileNotFoundError as error:
        raise NotFound(f"no log in {directory}: the directory is not there. Run: coord init") from error
    found = [name for name in names if _NAME.fullmatch(name)]
    if not found and vouches(directory / PAGE, env):
        raise hopeless(directory, "every segment is missing, but there was a log: its page is there")
    if not found:
        raise NotFound(f"no log in {directory}: it holds no segment. Run: coord init")
    return found


def _header(path: Path, env: Env) -> Header | None:
    decoded = frames.decode_header(first_line(path, env))
    return None if decoded is None else decoded[0]


def _uuid(directory: Path, headers: Mapping[str, Header | None], known: Mapping[str, int], env: Env) -> str:
    """Which log most of the files belong to, those first that others know; what they know when no file tells."""
    names = Counter(header.log for header in headers.values() if header is not None)
    if not names:
        lines = b"".join(first_line(directory / name, env) for name in headers)
        names = Counter(found[1].decode() for found in _UUID.finditer(lines))
    if not names or not names.keys().isdisjoint(known):
        return max(known, key=lambda name: (names[name], known[name]), default="")
    return max(names, key=lambda name: names[name])


def _said(directory: Path, log: str, env: Env) -> Reading | None:
    page = open_page(directory / PAGE, log, env)
    if page is None:
        return None
    try:
        return page.read()
    finally:
        page.close()


def _salvaged(
    directory: Path, headers: Mapping[str, Header | None], page: Reading | None, believable: Believable, env: Env
) -> list[Salvaged]:
    """One for each segment, oldest first. A file with another's name counts as what it holds."""
    proofs = _proofs(headers.values(), page)

    def salvaged(name: str, number: int) -> Salvaged:
        said = proofs.get(number, {})
        named = int(name[:20])
        return salvage(directory / name, segment=number, named=named, proofs=said, believable=believable, env=env)

    chosen: dict[int, Salvaged] = {}
    for name, header in headers.items():
        if header is not None:
            found = salvaged(name, header.segment)
            chosen[found.segment] = max(found, chosen.get(found.segment, found), key=_worth)
    for name, header in headers.items():
        if header is None:  # which segment it is, its lines tell, because each is chained to that number
            free = {int(other[:20]) for other in headers} - chosen.keys()
            found = max((salvaged(name, number) for number in sorted(free)), key=_worth)
            chosen[found.segment] = found
    return [chosen[number] for number in sorted(chosen)]


def _worth(found: Salvaged) -> tuple[int, bool, bool]:
    """Of two files that may be one segment, or two numbers that a file may have, which is to be believed."""
    return found.sure, found.header is not None, found.named == found.segment


def _proofs(headers: Iterable[Header | None], page: Reading | None) -> dict[int, dict[int, set[int]]]:
    """By segment and number, the checksums that others name: headers that go on from there, and the page."""
    said = [] if page is None else [(page.head.segment, page.head.seq, page.head.sum)]
    ends = [header.previous for header in headers if header is not None and header.previous is not None]
    said += [(end.segment, *_end(end)) for end in ends]
    proofs: dict[int, dict[int, set[int]]] = {}
    for segment, seq, checksum in said:
        proofs.setdefault(segment, {}).setdefault(seq, set()).add(checksum)
    return proofs


def _end(previous: Previous) -> tuple[int, int]:
    return previous.last_seq, int(previous.sum, 16)


def _stored(place: Stretch, first: int, last: int, env: Env) -> Iterator[tuple[int, bytes]]:
    """The batches ``first`` to ``last`` of a stretch. Raises LogDamaged when they are not there any more."""
    descriptor = env.open_read(place.path)
    expected = place.first
    try:
        offset, end, rest = place.offset, place.offset + place.length, b""
        while offset < end:
            block = _read(descriptor, offset, min(_BLOCK, end - offset), env)
            if not block:
                raise segments.damaged(place.path, offset, expected, "it became shorter while it was read")
            offset += len(block)
            lines = (rest + block).split(b"\n")
            rest = lines.pop() if offset < end else b""
            for raw in lines:
                batch = payload_of(raw)
                if batch is None or batch[0] != expected:
                    what = "it changed while it was read"
                    raise segments.damaged(place.path, place.offset, expected, what)
                if first <= expected <= last:
                    yield batch
                expected += 1
    finally:
        env.close(descriptor)


def _read(descriptor: int, offset: int, length: int, env: Env) -> bytes:
    blocks: list[bytes] = []
    while length > 0 and (block := env.read(descriptor, min(length, _BLOCK), offset)):
        blocks.append(block)
        offset, length = offset + len(block), length - len(block)
    return b"".join(blocks)


# ---- what they mean together -----------------------------------------------------------------------------------------


class _Offer(msgspec.Struct, frozen=True, kw_only=True):
    stretch: Stretch
    last: int  # no further
    rank: int  # 0: proven, 1: supported, 2: neither


class _View:
    """All segments side by side."""

    def __init__(
        self,
        directory: Path,
        log: str,
        found: list[Salvaged],
        page: Reading | None,
        foreign: list[Path],
        newest: int,
        witness: Witness,
    ) -> None:
        self._directory, self._log, self._page, self._foreign, self._newest = directory, log, page, foreign, newest
        self._oldest = min(segment.named for segment in found)
        self._segments = {segment.segment: segment for segment in found}
        self._newest_first = found[::-1]
        said = [segment.durable for segment in found]
        covered = witness.covered.get(log, 0)
        self._witness = max([*said, 0 if page is None else page.durable, witness.acknowledged.get(log, 0), covered])
        first = min((stretch.first for segment in found for stretch in segment.stretches if stretch.proven), default=1)
        self._base = first - 1 if self._oldest > 1 and first - 1 <= covered else 0
        self._good = next((segment for segment in self._newest_first if self._readable(segment)), None)
        self._batches = self._decided()

    def examination(self) -> Examination:
        """Put together what is known."""
        good, head = self._good, self._batches[-1].last if self._batches else self._base
        reads_all = good is not None and good.segment == self._newest and good.clean_seq == head
        whole = reads_all and all(entry.place is not None for entry in self._batches)
        segment, epoch = self._next()
        return Examination(
            log=self._log,
            whole=whole,
            good=self._before(),
            next_segment=segment,
            next_epoch=epoch,
            base=self._base,
            batches=tuple(self._batches),
            damages=() if whole else self._damages(),
            notes=tuple(self._notes()),
        )

    def _next(self) -> tuple[int, int]:
        """A segment's number and an epoch that nobody has had."""
        headers = [segment.header for segment in self._newest_first if segment.header is not None]
        said = [] if self._page is None else [self._page.head]
        number = max([self._newest, *self._segments, *(head.segment for head in said)])
        epoch = max([0, *(header.epoch for header in headers), *(head.epoch for head in said)])
        readable = 0 if self._good is None else self._good.segment
        unknown = number - readable - sum(header.segment > readable for header in headers)
        return number + 1, epoch + 1 + unknown  # each of those may have begun an epoch

    def _before(self) -> Previous | None:
        """What a new segment goes on from."""
        if self._good is not None:
            end, checksum = self._good.clean_seq, frames.written(self._good.clean_sum)
            return Previous(segment=self._good.segment, last_seq=end, sum=checksum)
        if self._base:  # the kernel takes this for segments that were taken away, as they were
            return Previous(segment=self._oldest - 1, last_seq=self._base, sum=frames.written(0))
        return None

    # how far the kernel reads

    def _readable(self, segment: Salvaged) -> bool:
        """Whether the kernel gets from the first batch to this segment."""
        while segment.header is not None and segment.sound:
            previous = segment.header.previous
            if previous is None:
                return segment.header.first_seq == 1
            older = self._segments.get(previous.segment)
            if previous.segment < self._oldest:
                return previous.last_seq == self._base > 0
            if older is None or not _follows(segment.header, previous, older):
                return False
            segment = older
        return False

    def _contradicted(self, segment: Salvaged) -> bool:
        """Whether it reads well and yet is not the file that a newer header goes on from."""
        ends = [newer.header.previous for newer in self._newest_first if newer.header is not None]
        here = [_end(end) for end in ends if end is not None and end.segment == segment.segment]
        return any(end[0] <= segment.clean_seq and end not in segment.reached for end in here)

    # which batch is where

    def _decided(self) -> list[Batches]:
        """Every number once: from the newest segment that has it proven, else from one that has it in doubt."""
        offers = self._offers()
        found: list[Batches] = []
        holes = [(self._base + 1, self._top(offers))]
        for rank, fate in ((0, Fate.INTACT), (1, Fate.DOUBTFUL), (2, Fate.DOUBTFUL)):
            for offer in offers:
                if offer.rank == rank:
                    holes, taken = _filled(holes, offer.stretch.first, offer.last)
                    found += [Batches(first=a, last=b, fate=fate, place=offer.stretch) for a, b in taken]
        for fate, first, last in ((Fate.LOST, 1, self._witness), (Fate.DOUBTFUL, self._witness + 1, _NO_LIMIT)):
            _, missing = _filled(holes, first, last)
            found += [Batches(first=a, last=b, fate=fate, place=None) for a, b in missing]
        return sorted(found, key=lambda entry: entry.first)

    def _top(self, offers: list[_Offer]) -> int:
        """The highest number that was acknowledged, or may have been."""
        top = max([self._witness, *(offer.last for offer in offers if offer.rank == 0)])
        for offer in sorted(offers, key=lambda offer: offer.stretch.first):
            # for the lines that may be lost before it, in its file and in those of which nothing is there
            gone = sum(self._gone(number) for number in range(1, offer.stretch.segment))
            room = 1 + (offer.stretch.offset + gone * _SEGMENT_BYTES) // LINE_BYTES_MIN
            if offer.stretch.first <= top + room:
                top = max(top, offer.last)
        return max(top, self._newest_first[0].unfinished)

    def _gone(self, number: int) -> bool:
        segment = self._segments.get(number)
        return segment is None or (segment.header is None and not segment.stretches)

    def _offers(self) -> list[_Offer]:
        """Stretches, newest segment first, each with the last number that it may speak for.

        What is void in an older segment was copied into the newer one, up to the ``durable`` of its header: so far, and
        no further, it can stand in for what is damaged there.
        """
        offers: list[_Offer] = []
        limit = _NO_LIMIT
        for segment in self._newest_first:
            contradicted = self._contradicted(segment)
            for stretch in segment.stretches:
                rank = 0 if stretch.proven and not contradicted else 1 if stretch.supported else 2
                offers.append(_Offer(stretch=stretch, last=min(stretch.last, limit), rank=rank))
            if segment.header is not None:
                limit = min(limit, segment.header.durable)
        return offers

    def _stand_ins(self) -> Ranges:
        """The batches that a newer segment should have and does not."""
        headers = [segment.header for segment in self._newest_first if segment.header is not None]
        found: Ranges = []
        for entry in self._batches:
            if entry.place is not None:
                newer = [header.first_seq for header in headers if header.segment > entry.place.segment]
                first = max(entry.first, min(newer, default=_NO_LIMIT))
                found += [(first, entry.last)] if first <= entry.last else []
        return _joined(found)

    # what is wrong, in words

    def _damages(self) -> tuple[Damage, ...]:
        found = (*self._damaged_files(), *self._damaged_lines(), *self._gaps())
        if found or self._good is None:
            return found
        what = "other bytes stand here than what should follow"
        return (Damage(path=self._good.path, offset=self._good.clean_end, length=0, what=what),)

    def _damaged_files(self) -> Iterator[Damage]:
        for path in self._foreign:
            yield Damage(path=path, offset=0, length=0, what="this file is of another log")
        readable = 0 if self._good is None else self._good.segment
        for number in range(readable + 1, max(self._segments) + 1):
            segment = self._segments.get(number)
            if segment is None:
                path = segments.path_of(self._directory, number)
                yield Damage(path=path, offset=0, length=0, what="this segment is missing")
            elif segment.named != number:
                yield Damage(path=segment.path, offset=0, length=0, what=f"this file holds segment {number}")
            elif not segment.sound:
                yield Damage(path=segment.path, offset=0, length=segment.begin, what="the header is damaged")

    def _damaged_lines(self) -> Iterator[Damage]:
        for entry in self._batches:
            place = entry.place
            if place is None or (place.plain and entry.fate is Fate.INTACT):
                continue
            what = "only the checksum or the line feed of this line is damaged"
            if entry.fate is Fate.DOUBTFUL:
                what = "this looks whole, but what would prove it is damaged: it is kept"
            yield Damage(
                path=place.path,
                offset=place.offset,
                length=place.length,
                what=what,
                first=entry.first,
                last=entry.last,
            )

    def _gaps(self) -> Iterator[Damage]:
        """The damaged bytes where batches should stand, in the newest segment that has such a place."""
        missing = _joined((entry.first, entry.last) for entry in self._batches if entry.place is None)
        for ranges, but in ((missing, ""), (self._stand_ins(), ", but an older segment has the same batches")):
            for first, last in ranges:
                seq = first
                while seq <= last:
                    gap = self._gap(seq, last)
                    yield msgspec.structs.replace(gap, what=gap.what + but)
                    seq = gap.last + 1

    def _gap(self, seq: int, last: int) -> Damage:
        for segment in sorted(self._newest_first, key=lambda segment: segment.header is None):
            before, begin = (segment.header.first_seq - 1 if segment.header else 0), segment.begin
            for stretch in (*(stretch for stretch in segment.stretches if stretch.proven), None):
                after, end = (stretch.first, stretch.offset) if stretch else (_NO_LIMIT, segment.bytes)
                if before < seq < after and begin < end:
                    until = min(last, after - 1)
                    what = "these bytes are damaged"
                    return Damage(path=segment.path, offset=begin, length=end - begin, what=what, first=seq, last=until)
                if stretch is not None:
                    before, begin = stretch.last, stretch.offset + stretch.length + 1
        what = "nothing is left here of these batches"
        newest = self._newest_first[0]
        return Damage(path=newest.path, offset=newest.bytes, length=0, what=what, first=seq, last=last)

    def _notes(self) -> Iterator[str]:
        if self._page is None:
            yield "the page is missing, or not a whole page of this log: harmless, it is set up anew"
        newest = self._newest_first[0]
        end = max([newest.begin, *(stretch.offset + stretch.length + 1 for stretch in newest.stretches)])
        if newest.bytes > end and not newest.unfinished:
            torn = f"{newest.path}, byte {end}: a torn end of {newest.bytes - end} bytes, as a killed writer leaves it"
            yield f"{torn}: harmless, ordinary recovery leaves it void"


def _follows(header: Header, previous: Previous, older: Salvaged) -> bool:
    return (
        older.header is not None
        and previous.segment < header.segment
        and header.first_seq == previous.last_seq + 1 >= older.header.first_seq
        and header.epoch >= older.header.epoch
        and _end(previous) in older.reached
    )


def _filled(holes: Ranges, first: int, last: int) -> tuple[Ranges, Ranges]:
    """What of the holes is left when the numbers ``first`` to ``last`` are there, and which of those filled one."""
    left: Ranges = []
    taken: Ranges = []
    for begin, end in holes:
        low, high = max(begin, first), min(end, last)
        if low > high:
            left.append((begin, end))
            continue
        taken.append((low, high))
        left += [(a, b) for a, b in ((begin, low - 1), (high + 1, end)) if a <= b]
    return left, taken


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    joined: Ranges = []
    for first, last in ranges:
        if joined and joined[-1][1] + 1 == first:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return joined
