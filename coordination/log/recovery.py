"""What of a log that was left in disorder still stands, and how does it go on from there?

``survey`` only reads: it verifies everything and tells a torn end from damage. ``recover`` writes what is not proven to
be on the disk again into a new segment. It never cuts, edits or syncs an old file, and never trusts the page cache to
be the disk: after a failed sync the two may differ without a word.
"""

from __future__ import annotations

from collections import deque
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
    claimed = 0 if reading is None else reading.head.durable
    trusted = reading is not None and reading.this_boot and not reading.poisoned
    watermark = max(newest.durable, claimed if trusted else 0)
    end = proven = newest
    unproven: deque[tuple[Position, bytes]] = deque()
    for position, line in segments.scan(chain, chain.segments[0].start, env=env):
        if position.segment != newest.segment:
            continue  # a segment is created only when all before it is synced
        end = position
        watermark = max(watermark, position.durable)
        unproven.append((position, line.payload))
        while unproven and unproven[0][0].seq <= watermark:
            proven = unproven.popleft()[0]
    _check_tail(chain, end, max(watermark, claimed), env)
    return Survey(end=end, proven=proven, payloads=tuple(payload for _, payload in unproven))


def recover(directory: Path, page: Page, owner_start: int, *, env: Env) -> Head:
    """Go on in a new segment of the next epoch. Only under the append lock. Raises LogDamaged, Unsuitable, OSError."""
    if not page.dies_with_boot:
        # every append would begin with a recovery, whose conflict would never end
        raise Unsuitable(f"{directory}: this system does not say which boot it is, so a log here can only be read")
    reading = page.read()
    page.begin(owner_start)  # killed from here on: the next one recovers again
    chain = segments.load(directory, env=env)
    found = survey(chain, reading, env=env)
    header = Header(
        log=chain.last.header.log,
        segment=chain.last.header.segment + 1,
        epoch=chain.epoch + 1,
        first_seq=found.proven.seq + 1,
        durable=found.end.seq,
        previous=Previous(
            segment=chain.last.header.segment, last_seq=found.proven.seq, sum=frames.written(found.proven.sum)
        ),
    )
    head = publish_segment(directory, header, found.payloads, env=env)
    page.set_up(head)
    return head


def publish_segment(directory: Path, header: Header, payloads: tuple[bytes, ...], *, env: Env) -> Head:
    """Make a segment that appears whole or not at all; where its next line goes. Only under the append lock."""
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
    return Head(
        epoch=header.epoch, segment=header.segment, offset=len(data), seq=seq, sum=checksum, durable=header.durable
    )


def _check_tail(chain: Chain, end: Position, watermark: int, env: Env) -> None:
    if end.seq < watermark:
        what = f"the log ends before batch {watermark}, which was acknowledged"
        raise segments.damaged(chain.last.path, end.offset, end.seq + 1, what)
    # the first byte is skipped so that the bad line itself does not count
    if frames.looks_like_a_line(segments.remainder(chain, end, env=env)[1:]):
        what = "this line is not valid, but others follow it: more than a torn end"
        raise segments.damaged(chain.last.path, end.offset, end.seq + 1, what)
