"""How does a damaged log go on without losing what is not damaged?

First a copy of the whole directory, with the damaged ranges beside it; then one new segment, which appears whole or not
at all. It goes on from the last good line before the first damage and holds every later batch that is still there, with
its number and its bytes; a missing one gets a placeholder, so that no number ever means two things. The segments that
lie between become void, as after a recovery, and stay as they are. Killed anywhere, this leaves the old log or the new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from coordination import files
from coordination.env import Env
from coordination.errors import LockHeld
from coordination.log import frames, segments
from coordination.log.examination import (
    Damage,
    Examination,
    Fate,
    Placeholder,
    Ranges,
    Witness,
    bytes_of,
    examine,
    read,
)
from coordination.log.frames import Header
from coordination.log.page import Head, Page, create_page, open_page
from coordination.log.segments import PAGE

__all__ = ["Damage", "Mended", "Placeholder", "examine", "mend", "read"]

_LOCKS = ("append.lock", "sync.lock")  # in this order
_BLOCK = 1 << 20


class Mended(msgspec.Struct, frozen=True, kw_only=True):
    """What ``mend`` found and did."""

    found: Examination
    backup: Path | None = None  # None: there was nothing to do
    segment: Path | None = None


def mend(
    directory: Path,
    backup: Path,
    *,
    placeholder: Placeholder,
    env: Env,
    witness: Witness | None = None,
) -> Mended:
    """Copy the directory to ``backup``, which must not exist yet, and publish the log without its damage.

    Raises LockHeld while anybody holds one of the log's locks, LogDamaged
    when nothing of it can be read, OSError. A second call finds nothing to do.
    """
    with ExitStack() as held:
        for name in _LOCKS:
            held.callback(env.close, _locked(directory / name, env))
        found = examine(directory, env=env, witness=witness)
        if found.whole:
            return Mended(found=found)
        _back_up(directory, backup, found, env)
        return Mended(found=found, backup=backup, segment=_publish(directory, found, placeholder, env))


def _locked(path: Path, env: Env) -> int:
    descriptor = env.open_write(path)
    if env.try_lock(descriptor):
        return descriptor
    env.close(descriptor)
    holder = env.lock_holder(path)
    who = "somebody" if holder is None else f"process {holder}"
    raise LockHeld(f"{path} is held by {who}: nothing was changed; end it, then try again", holder=str(holder or ""))


# ---- the copy --------------------------------------------------------------------------------------------------------


def _back_up(directory: Path, backup: Path, found: Examination, env: Env) -> None:
    """Every file of the log, and each damaged range by itself; the manifest comes last and says that all is there."""
    files.make_directory(backup.parent, env=env)
    env.make_directory(backup)
    env.sync_directory(backup.parent)
    copied = {}
    for name in env.list_directory(directory):
        if env.is_file(directory / name):
            copied[name] = _copied(directory / name, backup / name, env)
    ranges = []
    for damage in found.damages:
        if damage.length:
            name = f"{damage.path.stem}-{damage.offset}-{damage.length}.damaged"
            files.publish(backup / name, bytes_of(damage, env), env=env)
            ranges.append({"file": damage.path.name, "offset": damage.offset, "length": damage.length, "copy": name})
    env.sync_directory(backup)
    files.publish_json(backup / "manifest.json", _manifest(directory, found, copied, ranges), env=env)


def _copied(source: Path, target: Path, env: Env) -> dict[str, object]:
    digest, size = hashlib.sha256(), 0
    reading = env.open_read(source)
    try:
        writing = env.create(target)
        try:
            while block := env.read(reading, _BLOCK, size):
                files.write_fully(writing, block, size, env=env)
                digest.update(block)
                size += len(block)
            env.sync(writing)
        finally:
            env.close(writing)
    finally:
        env.close(reading)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _manifest(
    directory: Path, found: Examination, copied: dict[str, dict[str, object]], ranges: list[dict[str, object]]
) -> dict[str, object]:
    numbers: dict[str, Ranges] = {str(fate): found.numbers(fate) for fate in Fate}
    return {
        "format": "coordination-repair-1",
        "log": found.log,
        "directory": str(directory),
        "files": copied,
        "batches": numbers,
        "damages": [msgspec.structs.asdict(damage) | {"path": damage.path.name} for damage in found.damages],
        "damaged_ranges": ranges,
        "notes": found.notes,
        "goes_on_in": {"segment": found.next_segment, "epoch": found.next_epoch},
    }


# ---- the new segment -------------------------------------------------------------------------------------------------


def _publish(directory: Path, found: Examination, placeholder: Placeholder, env: Env) -> Path:
    after = found.base if found.good is None else found.good.last_seq
    header = Header(
        log=found.log or env.uuid(),
        segment=found.next_segment,
        epoch=found.next_epoch,
        first_seq=after + 1,
        durable=found.head,
        previous=found.good,
    )
    path = segments.path_of(directory, header.segment)
    with ExitStack() as opened:
        page = open_page(directory / PAGE, header.log, env)
        if page is not None:
            opened.callback(page.close)
        heard = page if page is not None and _of_this_boot(page) else None
        if heard is not None:
            heard.mark("dirty")  # killed from here on: whoever comes next looks at the segments
        head = _written(path, header, read(found, after, placeholder=placeholder, env=env), heard, env)
        if page is None:
            page = create_page(directory / PAGE, header.log, env)
            opened.callback(page.close)
        page.set_up(head)
    return path


def _of_this_boot(page: Page) -> bool:
    reading = page.read()
    return reading is not None and reading.this_boot


def _written(path: Path, header: Header, batches: Iterator[tuple[int, bytes]], heard: Page | None, env: Env) -> Head:
    """Publish a segment line by line, however large it is; where its next line goes."""
    temporary = path.with_name(f".{path.name}.{env.pid()}.{env.random_hex(6)}.tmp")
    descriptor = env.create(temporary)
    try:
        try:
            head = _streamed(descriptor, header, batches, env)
            env.sync(descriptor)
        finally:
            env.close(descriptor)
        if heard is not None:
            heard.advance(head)  # recovery leaves a segment behind that the page of this boot has not heard of
        env.rename(temporary, path)
    except BaseException:
        files.discard(temporary, env=env)
        raise
    env.sync_directory(path.parent)
    return head


def _streamed(descriptor: int, header: Header, batches: Iterator[tuple[int, bytes]], env: Env) -> Head:
    line, checksum = frames.encode_header(header)
    lines, waiting, offset, last = [line], len(line), 0, header.first_seq - 1
    for seq, payload in batches:
        assert seq == last + 1, f"batch {seq} does not follow batch {last}"
        frames.check_payload(payload)
        line, checksum = frames.encode_line(
            payload, seq=seq, durable=header.first_seq - 1, segment=header.segment, previous_sum=checksum
        )
        lines.append(line)
        waiting, last = waiting + len(line), seq
        if waiting >= _BLOCK:
            files.write_fully(descriptor, b"".join(lines), offset, env=env)
            lines, waiting, offset = [], 0, offset + waiting
    files.write_fully(descriptor, b"".join(lines), offset, env=env)
    assert last == header.durable, f"the head is {header.durable}, but the last batch is {last}"
    return Head(epoch=header.epoch, segment=header.segment, offset=offset + waiting, seq=last, sum=checksum)
