"""How does a file change so that a crash leaves the old one or the new one, and never something between?

Publishing writes a temporary file beside the target, syncs it, renames it over the target and syncs the directory:
whoever sees the new name sees all of its bytes, and after ``publish`` returned a power cut does not bring the old
file back. Temporary names begin with a dot and end in ``.tmp``; whoever lists a directory ignores them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from coordination.env import REAL, Env

_BLOCK = 1 << 20


def publish(path: Path, data: bytes, *, env: Env = REAL) -> None:
    """Replace ``path`` with ``data``: all of it or nothing, durable on return. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{env.pid()}.{env.random_hex(6)}.tmp")
    try:
        _write_synced(temporary, data, env)
        env.rename(temporary, path)
    except BaseException:
        discard(temporary, env=env)
        raise
    env.sync_directory(path.parent)


def publish_json(path: Path, value: Any, *, env: Env = REAL) -> None:
    """``publish`` a value as one line of JSON."""
    publish(path, orjson.dumps(value) + b"\n", env=env)


def read(path: Path, *, env: Env = REAL) -> bytes:
    """All bytes of a file. Never follows a symbolic link in the last place. Raises OSError."""
    descriptor = env.open_read(path)
    try:
        return read_open(descriptor, 0, env=env)
    finally:
        env.close(descriptor)


def read_open(descriptor: int, offset: int, *, env: Env = REAL) -> bytes:
    """All bytes of an open file from ``offset`` on."""
    blocks: list[bytes] = []
    while block := env.read(descriptor, _BLOCK, offset):
        blocks.append(block)
        offset += len(block)
    return b"".join(blocks)


def read_json(path: Path, *, env: Env = REAL) -> Any:
    """The value in a JSON file. Raises OSError, and ValueError when it is not JSON."""
    return orjson.loads(read(path, env=env))


def read_json_if_there(path: Path, *, env: Env = REAL) -> Any | None:
    """The value in a JSON file, or None when there is no such file. A file that is not JSON still raises ValueError."""
    try:
        return read_json(path, env=env)
    except FileNotFoundError:
        return None


def discard(path: Path, *, env: Env = REAL) -> None:
    """Remove a name; fine when it is not there. Durable only after ``sync_directory``."""
    try:
        env.unlink(path)
    except FileNotFoundError:
        return


def sync_directory(path: Path, *, env: Env = REAL) -> None:
    """Make what happened to names in this directory durable."""
    env.sync_directory(path)


def make_directory(path: Path, *, env: Env = REAL) -> None:
    """Make a directory (and its parents) for the owner only, durable on return; fine when it is there."""
    if not env.is_directory(path):
        ensure_directory(path, env=env)


def ensure_directory(path: Path, *, env: Env = REAL) -> None:
    """``make_directory``, and durable also when somebody else made it and was killed before it was."""
    if not env.is_directory(path):
        if path.parent != path:
            ensure_directory(path.parent, env=env)
        try:
            env.make_directory(path)
        except FileExistsError:
            if not env.is_directory(path):
                raise
    env.sync_directory(path.parent)  # also when it was there


def write_fully(descriptor: int, data: bytes, offset: int, *, env: Env = REAL) -> None:
    """Write all of ``data`` at ``offset``, in as many pieces as the system likes. Raises OSError."""
    while data:
        taken = env.write(descriptor, data, offset)
        data, offset = data[taken:], offset + taken


def _write_synced(path: Path, data: bytes, env: Env) -> None:
    descriptor = env.create(path)
    try:
        write_fully(descriptor, data, 0, env=env)
        env.sync(descriptor)
    finally:
        env.close(descriptor)
