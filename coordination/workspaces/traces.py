"""Has coordination been at work in this repository, and how far had its log come?

Kept in refs, so that it survives the loss of the state directory, which ``git clean -fdx`` removes.
"""

from __future__ import annotations

import msgspec

from coordination.errors import LogDamaged
from coordination.workspaces.git import Git

_REF = "refs/coordination/log"


class LogTrace(msgspec.Struct, frozen=True, kw_only=True):
    """Which log, and a sequence number it had reached."""

    uuid: str
    seq: int


def keep_log_ref(git: Git, uuid: str, seq: int) -> None:
    """Remember the log in the repository itself."""
    written = msgspec.json.encode(LogTrace(uuid=uuid, seq=seq)) + b"\n"
    blob = git.run("hash-object", "-w", "--no-filters", "--stdin", stdin=written).text
    git.set_ref(_REF, blob, reason="how far the log is")


def read_log_ref(git: Git) -> LogTrace | None:
    """What was remembered last; None when nothing ever was. Raises LogDamaged for something else in its place."""
    if git.run("rev-parse", "--verify", "--quiet", _REF, accept=(0, 1)).code:
        return None
    try:
        return msgspec.json.decode(git.run("cat-file", "-p", _REF).out, type=LogTrace)
    except msgspec.DecodeError as error:
        raise LogDamaged(
            f"{_REF} holds something else than a log's identity: {error}. See: git cat-file -p {_REF}"
        ) from error


def traces(git: Git) -> bool:
    """Whether refs or branches of ours exist."""
    return bool(git.text("for-each-ref", "--count=1", "refs/coordination/", "refs/heads/coordination/"))
