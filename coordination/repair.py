"""What is wrong with what a coordination has saved, and how is it put right without losing anything?

A list of parts, each of which can be examined and mended; more come with later releases (runs, workspaces, processes).
Here is what bytes and batches mean: the kernel knows what is damaged, this module which tasks that touches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from coordination.env import REAL, Env
from coordination.errors import LogDamaged
from coordination.log import repair as log_repair
from coordination.log.examination import Examination, Fate, Witness, bytes_of
from coordination.model import losses
from coordination.model.events import BatchLost, decode, encode
from coordination.model.state import Core
from coordination.store import checking

Ranges = list[tuple[int, int]]
_AT = re.compile(rb'"at":"([0-9T:.+-]{19,32}Z?)"')


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: where, what, which batches and tasks suffer from it, and what is done about it."""

    path: Path
    offset: int
    length: int
    what: str
    first: int
    last: int
    tasks: tuple[str, ...]
    remedy: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found, and (with ``applied``) what was done."""

    log: str
    batches: int  # how many there are, or were
    lost: Ranges
    doubtful: Ranges
    tasks: tuple[str, ...]  # that lost and doubtful batches speak of, as far as that can be read
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]  # what is harmless
    applied: bool = False
    backup: Path | None = None
    moved: tuple[Path, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether there was nothing to do."""
        return not self.findings


def examine(state: Path, acknowledged: Mapping[str, int], *, env: Env = REAL) -> Report:
    """Look at the log and the snapshots of a state directory; writes nothing.

    ``acknowledged`` is what others know: the highest acknowledged batch by uuid of the log. Raises NotFound without a
    log, LogDamaged when nothing of it can be read.
    """
    saved = checking.kept(state / "snapshots", env=env)
    found = log_repair.examine(state / "log", env=env, witness=_witness(saved, acknowledged))
    return _report(found, _suspects(saved, found, env), env)


def mend(state: Path, acknowledged: Mapping[str, int], now: float, *, env: Env = REAL) -> Report:
    """Put right what ``examine`` finds, after a backup. Only while no supervisor runs.

    A second call finds nothing to do. Raises also LockHeld while somebody writes to the log, and OSError.
    """
    saved = checking.kept(state / "snapshots", env=env)
    backup = _free(state / "repair", now, env)
    done = log_repair.mend(
        state / "log",
        backup,
        placeholder=_placeholder(str(backup.relative_to(state))),
        witness=_witness(saved, acknowledged),
        env=env,
    )
    suspects = _suspects(saved, done.found, env)
    report = _report(done.found, suspects, env)
    moved = checking.move_aside(suspects, env=env)
    return msgspec.structs.replace(report, applied=True, backup=done.backup, moved=tuple(moved))


def _witness(saved: list[checking.Kept], acknowledged: Mapping[str, int]) -> Witness:
    return Witness(acknowledged=acknowledged, covered=checking.covered(saved), believable=_believable)


def _believable(payload: bytes) -> bool:
    try:
        return bool(decode(0, payload))
    except LogDamaged:
        return False


def _suspects(saved: list[checking.Kept], found: Examination, env: Env) -> list[checking.Suspect]:
    """Snapshots compared with the log as it will be."""
    placeholder = _placeholder("")
    return checking.check(
        saved,
        Core(),
        lambda after: log_repair.read(found, max(after, found.base), placeholder=placeholder, env=env),
        base=found.base,
        log=found.log,
    )


def _placeholder(evidence: str) -> log_repair.Placeholder:
    """What stands in the place of a missing batch: who it spoke of, and when it must have been."""

    def placeholder(_seq: int, raw: bytes | None, before: bytes) -> bytes:
        event = BatchLost(
            tasks=losses.named_in(raw or b""),
            evidence=evidence,
            reason="its bytes are damaged" if raw is not None else "nothing is left of its bytes",
        )
        return encode([event], _moment(before) or _moment(raw or b""))

    return placeholder


def _moment(raw: bytes) -> float:
    """When a batch was written, so that time does not run backwards; 0 when that cannot be read."""
    found = _AT.search(raw)
    try:
        return datetime.fromisoformat(found[1].decode()).astimezone(UTC).timestamp() if found else 0.0
    except ValueError:
        return 0.0


def _free(directory: Path, now: float, env: Env) -> Path:
    """A name that no backup has yet."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    taken = set(env.list_directory(directory)) if env.is_directory(directory) else set()
    number = 1
    while f"{moment}-{number}" in taken:
        number += 1
    return directory / f"{moment}-{number}"


def _report(found: Examination, suspects: list[checking.Suspect], env: Env) -> Report:
    findings = [
        *(_of_log(found, damage, env) for damage in found.damages),
        *(_of_snapshot(suspect) for suspect in suspects),
    ]
    return Report(
        log=found.log,
        batches=found.head,
        lost=found.numbers(Fate.LOST),
        doubtful=found.numbers(Fate.DOUBTFUL),
        tasks=tuple(sorted({task for finding in findings for task in finding.tasks})),
        findings=tuple(findings),
        notes=found.notes,
    )


def _of_log(found: Examination, damage: log_repair.Damage, env: Env) -> Finding:
    touched = [b for b in found.batches if b.first <= damage.last and damage.first <= b.last]
    bad = any(batches.fate is not Fate.INTACT for batches in touched)
    remedy = "it is kept, and named here, because nothing proves it" if bad else "nothing is lost"
    if any(batches.place is None for batches in touched):
        remedy = "a placeholder takes the place of each"
    return Finding(
        path=damage.path,
        offset=damage.offset,
        length=damage.length,
        what=damage.what,
        first=damage.first,
        last=damage.last,
        tasks=losses.named_in(bytes_of(damage, env)) if bad and damage.length else (),
        remedy=remedy,
    )


def _of_snapshot(suspect: checking.Suspect) -> Finding:
    return Finding(
        path=suspect.path,
        offset=0,
        length=0,
        what=suspect.what,
        first=0,
        last=0,
        tasks=(),
        remedy=f"it is moved to {checking.QUARANTINE}; the state is folded from the log instead",
    )
