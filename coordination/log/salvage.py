"""What can still be read of one segment, wherever it is damaged?

A line proves nothing by itself: for every body there is one checksum before it that makes it fit. What proves it is its
neighbour. So a line is **intact** when it fits the checksum that the line before it states (then those digits are
proven too), or when what follows fits the checksum that its own bytes give (then only its digits are damaged). A line
whose predecessor's checksum is destroyed can be whole and nobody can tell: it is **doubtful**. All else is a gap.

Numbers, not places, say where a batch belongs: lines in the wrong order are found as well.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from coordination.env import Env
from coordination.log import frames
from coordination.log.frames import Header, Line

_BLOCK = 1 << 17
_START = re.compile(rb'\{"seq":([1-9][0-9]{0,17}),"durable":(0|[1-9][0-9]{0,17}),')
_STATED = re.compile(rb',"sum":"([0-9a-f]{8})"\}')
_SUFFIX_BYTES = len(b',"sum":"00000000"}')
_DIGITS = slice(-10, -2)  # where they stand in a whole line, readable or not
LINE_BYTES_MIN = len(b'{"seq":1,"durable":0,"":0,"sum":"00000000"}\n')

Proofs = Mapping[int, Collection[int]]  # checksums that others name of the line with that number
Believable = Callable[[bytes], bool]  # whether a payload that nothing proves may be one


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive batches that stand one behind the other in a file."""

    path: Path
    segment: int
    first: int
    last: int
    offset: int
    length: int
    proven: bool  # by checksums; otherwise whole as far as anybody can tell
    supported: bool  # its digits and its number fit the line behind it
    plain: bool  # the kernel can read it: nothing is wrong, not even its digits


class Salvaged(msgspec.Struct, frozen=True, kw_only=True):
    """What one file still tells."""

    path: Path
    segment: int
    named: int  # by the file's name
    begin: int  # where the first line stands, or would
    bytes: int  # to the end of the last line that is not empty
    header: Header | None  # that can be believed
    sound: bool  # the header can be read by the kernel, and belongs into this file
    clean_end: int  # as far as the kernel can read from the header on: the byte, the number and the checksum there
    clean_seq: int
    clean_sum: int
    reached: frozenset[tuple[int, int]]  # of the proofs: numbers and checksums met within what is clean
    stretches: tuple[Stretch, ...]  # in the order of the file
    sure: int  # how many batches of them are proven, or as good as
    durable: int  # the highest watermark that stands in something proven
    unfinished: int  # the number of a damaged last line that is there to its end; 0: there is none


class _Piece(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that may be one line, or the header."""

    offset: int
    raw: bytes  # without the line feed
    stated: int | None  # its checksum, as far as it can be read
    ended: bool  # by its own line feed
    computed: int | None = None  # its checksum by its bytes, if what stood before it is known
    before_known: bool = False

    @property
    def seq(self) -> int:
        """The number in it; 0 when it cannot be read."""
        found = _START.match(self.raw)
        return int(found[1]) if found else 0

    @property
    def ends_like_a_line(self) -> bool:
        """Whether its end is there, whatever is wrong within."""
        ended = _STATED.fullmatch(self.raw, max(0, len(self.raw) - _SUFFIX_BYTES))
        return ended is not None or (self.seq > 0 and self.raw.endswith(b'"}'))


def first_line(path: Path, env: Env) -> bytes:
    """The bytes in the place of the header."""
    return next((raw for _, raw, _ in _raw_lines(path, env)), b"")


def payload_of(raw: bytes) -> tuple[int, bytes] | None:
    """Number and payload of a line by its form alone; its digits may be damaged."""
    start = _START.match(raw)
    if start is None or len(raw) < start.end() + _SUFFIX_BYTES:
        return None
    return int(start[1]), b"{" + raw[start.end() : -_SUFFIX_BYTES] + b"}"


def is_object(payload: bytes) -> bool:
    """Whether it is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(payload), dict)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def salvage(path: Path, *, segment: int, named: int, proofs: Proofs, believable: Believable, env: Env) -> Salvaged:
    """Read all of a file; damage raises nothing."""
    reader = _Reader(path, segment, proofs, believable)
    for offset, raw, ended in _raw_lines(path, env):
        reader.take(offset, raw, ended=ended)
    return reader.finished(named)


class _Reader:
    """Goes through a file once. What cannot be judged at once is pending until its neighbour has been seen."""

    def __init__(self, path: Path, segment: int, proofs: Proofs, believable: Believable) -> None:
        self._path, self._segment = path, segment
        self._proofs, self._believable = proofs, believable
        self._header: Header | None = None
        self._sound = self._clean = False
        self._clean_end = self._clean_seq = self._clean_sum = 0
        self._known: int | None = None  # the checksum before the next line, if it is proven
        self._pending: _Piece | None = None
        self._begin = self._size = self._last = self._end = self._durable = self._unfinished = 0
        self._reached: set[tuple[int, int]] = set()
        self._stretches: list[Stretch] = []

    def take(self, offset: int, raw: bytes, *, ended: bool) -> None:
        """The next bytes up to a line feed."""
        follows = offset == self._size  # the kernel stops at an empty line
        self._size = offset + len(raw) + ended
        if self._known is None and self._pending is None:
            self._take_header(offset, raw, ended=ended)
            return
        self._clean &= follows
        line = self._decoded(raw, self._known) if ended and self._known is not None else None
        if line is not None:
            self._accept(offset, raw, line, plain=True)
            return
        self._clean = False
        for piece in _cut(offset, raw, ended=ended):
            self._consider(piece)

    def finished(self, named: int) -> Salvaged:
        """Everything was read."""
        if self._pending is not None:
            self._settle(proven=False)
        return Salvaged(
            path=self._path,
            segment=self._segment,
            named=named,
            begin=self._begin,
            bytes=self._size,
            header=self._header,
            sound=self._sound and named == self._segment,
            clean_end=self._clean_end,
            clean_seq=self._clean_seq,
            clean_sum=self._clean_sum,
            reached=frozenset(self._reached),
            stretches=tuple(self._stretches),
            sure=sum(stretch.last - stretch.first + 1 for stretch in self._stretches if stretch.supported),
            durable=self._durable,
            unfinished=self._unfinished,
        )

    # the header

    def _take_header(self, offset: int, raw: bytes, *, ended: bool) -> None:
        decoded = frames.decode_header(raw)
        if decoded is not None and decoded[0].segment == self._segment:
            self._known = decoded[1]
            self._believe(decoded[0], offset + len(raw) + 1)
            if ended and offset == 0:
                self._sound = self._clean = True
                self._clean_end, self._clean_seq, self._clean_sum = self._size, decoded[0].first_seq - 1, decoded[1]
                self._meet(self._clean_seq, self._clean_sum)
            return
        found = _START.search(raw)
        words = raw if found is None else raw[: found.start()]
        header = self._tolerated(words) or self._tolerated(words[:-1])  # its line feed may be another sign now
        computed = None if header is None else frames.encode_header(header)[1]
        if header is not None and self._tolerated(words) is None:
            words = words[:-1]
        ended_well = _STATED.fullmatch(words, max(0, len(words) - _SUFFIX_BYTES))
        stated = None if ended_well is None else int(ended_well[1], 16)
        self._pending = _Piece(offset=offset, raw=words, stated=stated, ended=False, computed=computed)
        if computed is not None and _near(words, computed):
            self._settle(proven=True)
            self._known = computed
        if found is not None:
            for piece in _cut(offset + found.start(), raw[found.start() :], ended=ended):
                self._consider(piece)

    def _tolerated(self, raw: bytes) -> Header | None:
        header = tolerated(raw)
        return header if header is not None and header.segment == self._segment else None

    def _believe(self, header: Header, end: int) -> None:
        self._begin = end
        self._header, self._last = header, header.first_seq - 1
        self._durable = max(self._durable, header.durable)

    # lines

    def _consider(self, piece: _Piece) -> None:
        if self._known is not None:
            line = self._decoded(piece.raw, self._known)
            if line is not None:
                self._accept(piece.offset, piece.raw, line, plain=piece.ended)
                return
            # a line that is missing between the two leaves what stood before this one unknown
            follows = piece.seq in (0, self._last + 1)
            self._hold(piece, self._known if follows else None)
            return
        pending = self._pending
        assert pending is not None, "a checksum is unknown only after something that is not proven"
        for checksum, proven in ((pending.stated, False), (pending.computed, True)):
            line = self._decoded(piece.raw, checksum)
            if line is not None:
                self._settle(proven=proven, behind=line.seq)
                self._accept(piece.offset, piece.raw, line, plain=piece.ended)
                return
        self._settle(proven=False)
        self._hold(piece, self._known)

    def _hold(self, piece: _Piece, known: int | None) -> None:
        """Keep a piece until what follows tells more; if its digits are nearly right, only they are damaged."""
        computed = None if known is None else self._computed(piece.raw, known)
        held = msgspec.structs.replace(piece, computed=computed, before_known=known is not None)
        self._pending, self._known = held, None
        if piece.ended and piece.ends_like_a_line:
            self._unfinished = piece.seq if piece.seq > self._last and self._fits(piece) else self._last + 1
        if computed is not None and (_near(piece.raw, computed) or computed in self._proofs.get(piece.seq, ())):
            self._settle(proven=True)
            self._known = computed

    def _settle(self, *, proven: bool, behind: int = 0) -> None:
        """What is pending has been judged: by the line behind it (which has that number), or nothing will tell more."""
        pending, self._pending = self._pending, None
        assert pending is not None
        if proven:
            self._prove(pending)
        elif not pending.before_known:
            self._doubt(pending, behind)

    def _prove(self, piece: _Piece) -> None:
        header = self._tolerated(piece.raw) if self._header is None and not self._stretches else None
        if header is not None:
            self._believe(header, piece.offset + len(piece.raw) + 1)
            return
        found = payload_of(piece.raw)
        start = _START.match(piece.raw)
        if found is not None and start is not None and is_object(found[1]):
            self._durable = max(self._durable, int(start[2]))
            self._add(piece.offset, piece.raw, found[0], proven=True, plain=False)

    def _doubt(self, piece: _Piece, behind: int) -> None:
        """Whole, as far as anybody can tell? Its number must fit the place, and its payload make sense."""
        found = payload_of(piece.raw)
        if found is None or piece.stated is None or not self._believable(found[1]):
            return
        supported = found[0] + 1 == behind or piece.stated in self._proofs.get(found[0], ())
        if supported or (not behind and self._fits(piece)):
            self._add(piece.offset, piece.raw, found[0], proven=False, plain=False, supported=supported)

    def _fits(self, piece: _Piece) -> bool:
        """Whether its number may stand here: there was room for all lines before it."""
        before = 0 if self._header is None else self._header.first_seq - 1
        return before < piece.seq and (before == 0 or piece.seq <= before + 1 + piece.offset // LINE_BYTES_MIN)

    def _accept(self, offset: int, raw: bytes, line: Line, *, plain: bool) -> None:
        if self._clean and line.seq == self._clean_seq + 1:
            self._clean_end, self._clean_seq, self._clean_sum = self._size, line.seq, line.sum
            self._meet(line.seq, line.sum)
        else:
            self._clean = False
        self._known, self._unfinished = line.sum, 0
        self._durable = max(self._durable, line.durable)
        self._add(offset, raw, line.seq, proven=True, plain=plain)

    def _meet(self, seq: int, checksum: int) -> None:
        if checksum in self._proofs.get(seq, ()):
            self._reached.add((seq, checksum))

    def _add(self, offset: int, raw: bytes, seq: int, *, proven: bool, plain: bool, supported: bool = True) -> None:
        if supported:
            self._last, self._end = seq, offset + len(raw) + 1
        before = self._stretches[-1] if self._stretches else None
        if (
            before is not None
            and before.last + 1 == seq
            and before.offset + before.length + 1 == offset
            and (before.proven, before.plain) == (proven, plain) == (True, True)
        ):
            self._stretches[-1] = msgspec.structs.replace(before, last=seq, length=offset + len(raw) - before.offset)
            return
        stretch = Stretch(
            path=self._path,
            segment=self._segment,
            first=seq,
            last=seq,
            offset=offset,
            length=len(raw),
            proven=proven,
            supported=supported,
            plain=plain,
        )
        self._stretches.append(stretch)

    def _decoded(self, raw: bytes, checksum: int | None) -> Line | None:
        return None if checksum is None else frames.decode_line(raw, segment=self._segment, previous_sum=checksum)

    def _computed(self, raw: bytes, known: int) -> int | None:
        """The checksum that the bytes give; None when they have not the form of a line."""
        found, start = payload_of(raw), _START.match(raw)
        if found is None or start is None:
            return None
        seq, payload = found
        _, checksum = frames.encode_line(
            payload, seq=seq, durable=int(start[2]), segment=self._segment, previous_sum=known
        )
        return checksum


def _cut(offset: int, raw: bytes, *, ended: bool) -> Iterator[_Piece]:
    """Where a line feed was damaged two lines became one; a whole line that quotes another is not cut."""
    places = [0, *(found.start() for found in _START.finditer(raw) if found.start()), len(raw)]
    for begin, end in pairwise(places):
        suffix = _STATED.fullmatch(raw, max(begin, len(raw) - _SUFFIX_BYTES))
        if suffix is not None and _START.match(raw, begin) and is_object(raw[begin:]):
            yield _Piece(offset=offset + begin, raw=raw[begin:], stated=int(suffix[1], 16), ended=ended)
            return
        yield _piece(offset + begin, raw[begin:end], ended=ended and end == len(raw))


def _piece(offset: int, raw: bytes, *, ended: bool) -> _Piece:
    """A line up to its checksum; what stands behind that is a damaged line feed, or rubble."""
    last = None
    for found in _STATED.finditer(raw):
        last = found
    if last is None:
        return _Piece(offset=offset, raw=raw, stated=None, ended=ended)
    whole = ended and last.end() == len(raw)
    return _Piece(offset=offset, raw=raw[: last.end()], stated=int(last[1], 16), ended=whole)


def _near(raw: bytes, computed: int) -> bool:
    """Whether at most one digit of the checksum is another than the bytes give."""
    digits = raw[_DIGITS]
    expected = frames.written(computed).encode()
    return len(digits) == len(expected) and sum(a != b for a, b in zip(digits, expected, strict=True)) <= 1


def tolerated(raw: bytes) -> Header | None:
    """A header by its words alone."""
    try:
        header = msgspec.json.decode(raw[:-_SUFFIX_BYTES] + b"}", type=Header)
        line, _ = frames.encode_header(header)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, OverflowError, struct.error):
        return None
    return header if line[: -_SUFFIX_BYTES - 1] == raw[:-_SUFFIX_BYTES] else None


def _raw_lines(path: Path, env: Env) -> Iterator[tuple[int, bytes, bool]]:
    """Offset, bytes without the line feed, whether there was one. Empty lines are left out."""
    descriptor = env.open_read(path)
    try:
        begin, offset, rest = 0, 0, b""
        while block := env.read(descriptor, _BLOCK, offset):
            offset += len(block)
            if not rest and block.count(b"\n") == len(block):  # nothing but line feeds: no line, however many
                begin = offset
                continue
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            for raw in lines:
                if raw:
                    yield begin, raw, True
                begin += len(raw) + 1
        if rest:
            yield begin, rest, False
    finally:
        env.close(descriptor)
