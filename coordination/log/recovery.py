"""What of a log that was left in disorder still stands, and how does it go on from there?

``survey`` only reads: it verifies everything and tells a torn end from damage. ``recover`` writes what is not proven to
be on the disk again into a new segment. It never cuts, edits or syncs an old file, and never trusts the page cache to
be the disk: after a failed sync the two may differ without a word.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from coordination import files
from coordination.env import Env
from coordination.errors import Unsuitable
from coordination.log import frames, segments
from coordination.log.frames import Header, Previous
from coordination.log.page import Head, Page, Reading
from coordination.log.segments import Chain, Position


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What stands."""

    end: Position  # behind the last valid line
    proven: Position  # behind the last line of the newest segment that is known to be on the disk
    payloads: tuple[bytes, ...]  # of the lines between the two


def survey(chain: Chain, reading: Reading | None, *, env: Env) -> Survey:
    """Read and verify everything. Raises LogDamaged for anything but a torn end."""
    newest = chain.last.start
    places = [newest]  # in the newest segment: what is before it was synced when it was created
    for position, _ in segments.scan(chain, chain.segments[0].start, env=env):
        if position.segment == newest.segment:
            places.append(position)
    end = places[-1]
    claimed = 0 if reading is None else reading.durable
    trusted = claimed if reading is not None and reading.this_boot and not reading.poisoned else 0
    watermark = max(trusted, end.durable)
    _check_tail(chain, end, max(claimed, end.durable), env)
    proven = before = next(place for place in reversed(places) if place.seq <= max(watermark, newest.seq))
    for position, _ in segments.scan(chain, before, env=env, last=watermark):
        proven = position
    # What counts is what is read now: pages that a failed sync left clean may have been dropped since the first scan.
    payloads: list[bytes] = []
    seen, end = end, proven
    for position, batches in segments.scan(chain, proven, env=env, last=seen.seq):
        payloads += [payload for _, payload in batches]
        end = position
    return Survey(end=end, proven=proven, payloads=tuple(payloads))


def recover(directory: Path, page: Page, *, env: Env) -> Reading:
    """Go on in a new segment of the next epoch. Only in both turns. Raises LogDamaged, Unsuitable, OSError."""
    if not page.dies_with_boot:
        # every append would begin with a recovery, whose conflict would never end
        raise Unsuitable(f"{directory}: this system does not say which boot it is, so a log here can only be read")
    reading = page.read()
    page.mark("dirty")  # killed from here on: the next one recovers again
    chain = segments.load(directory, env=env)
    number = chain.last.header.segment + 1
    chain = _known(chain, reading, env)
    found = survey(chain, reading, env=env)
    if reading is None or not reading.this_boot:
        # before the new segment: if its name does not reach the disk, the next recovery must know that it is new
        page.introduce(_head_of(chain, found.end), max(found.proven.seq, 0 if reading is None else reading.durable))
    header = Header(
        log=chain.last.header.log,
        segment=number,
        epoch=chain.epoch + 1,
        first_seq=found.proven.seq + 1,
        durable=found.end.seq,
        previous=Previous(
            segment=chain.last.header.segment, last_seq=found.proven.seq, sum=frames.written(found.proven.sum)
        ),
    )
    head = publish_segment(directory, header, found.payloads, env=env)
    page.set_up(head)
    set_up = page.read()
    assert set_up is not None
    return set_up


def publish_segment(directory: Path, header: Header, payloads: tuple[bytes, ...], *, env: Env) -> Head:
    """Make a segment that appears whole or not at all; where its next line goes. Only in the append turn."""
    line, checksum = frames.encode_header(header)
    lines = [line]
    seq = header.first_seq - 1
    for payload in payloads:
        line, checksum = frames.encode_line(
            payload, seq=seq + 1, durable=header.first_seq - 1, segment=header.segment, previous_sum=checksum
        )
        lines.append(line)
        seq += 1
    data = b"".join(lines)
    files.publish(segments.path_of(directory, header.segment), data, env=env)
    return Head(epoch=header.epoch, segment=header.segment, offset=len(data), seq=seq, sum=checksum)


def _head_of(chain: Chain, end: Position) -> Head:
    return Head(epoch=chain.epoch, segment=end.segment, offset=end.offset, seq=end.seq, sum=end.sum)


def _known(chain: Chain, reading: Reading | None, env: Env) -> Chain:
    """Without a newest segment that the page has not heard of: who published it was killed, or could not finish.

    Whether its name is on the disk is unknown, and a second sync of the directory may succeed without it. Nobody has
    acknowledged anything by it, and all that it was published with stands in the one before, so it is left behind.
    """
    if reading is None or not reading.this_boot or len(chain.segments) == 1:
        return chain
    older, newest = chain.segments[-2:]
    if (reading.head.segment, reading.head.epoch) != (older.header.segment, older.header.epoch):
        return chain
    for position, _ in segments.scan(chain, newest.start, env=env):
        if position.seq > newest.header.durable:
            return chain  # it was written to, so it is the page that is old
    return Chain(chain.segments[:-1])


def _check_tail(chain: Chain, end: Position, watermark: int, env: Env) -> None:
    # Lines of one group reach the disk in any order, so others may well stand behind a torn one. What they must not
    # say is that it was on the disk when they were written.
    promised = frames.promised(segments.remainder(chain, end, env=env))
    if end.seq < max(watermark, promised):
        what = f"this line is missing or not valid, but batches up to {max(watermark, promised)} were acknowledged"
        raise segments.damaged(chain.last.path, end.offset, end.seq + 1, what)
