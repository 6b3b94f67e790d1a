"""Does the log alone give the state we act on, and what was the state at a moment of the past?"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

import click
import msgspec

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, say
from coordination.errors import NotFound, UsageError

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.model.state import State
    from coordination.store import Moment

SETTLE_SECONDS = 2.0
_QUIET_SECONDS = 1.0
_SEQ_DIGITS_MAX = 18


@dataclass(frozen=True, kw_only=True)
class Check:
    """A digest that somebody has of the state after a batch. ``matches`` is None while, or when, it is not compared."""

    what: str
    seq: int = 0
    digest: str | None = None
    matches: bool | None = None
    detail: str = ""


@verb(
    "coord replay",
    "coord replay --verify",
    "coord replay --at 120",
    "coord replay --at 2026-01-31T12:00:00Z --json | jq .state.tasks",
)
@click.option("--verify", is_flag=True, help="Compare with snapshots and with what supervisor and commands hold.")
@click.option("--repair", "repairs", is_flag=True, help="The same as `coord repair --apply`.")
@click.option("--at", "moment", metavar="SEQ|TIME", help="Up to and with that batch or instant, not to the end.")
@json_option()
@click.pass_obj
def command(session: Session, verify: bool, repairs: bool, moment: str | None, as_json: bool) -> int:
    """Rebuild the state from the log alone; only --repair writes. With --verify, exit code 1 names what differs.

    A moment of the past is shown from a snapshot where one helps, and with --verify never. A time without a zone is
    local time.
    """
    if repairs:
        from coordination.cli.repair import repair

        return repair(session, applies=True, as_json=as_json)
    coordinator = session.reading()
    asked = {} if moment is None else _asked(moment, coordinator.now())
    claims = list(_claims(coordinator)) if verify else []
    digests_at = {claim.seq for claim in claims}
    with Progress(sys.stderr) as progress:
        whole = coordinator.replay(digests_at=digests_at, progress=progress) if verify or not asked else None
        shown = coordinator.replay(**asked, trusting=not verify, progress=progress) if asked else whole
    assert shown is not None
    if moment is not None:
        _check_shown(shown, moment, asked, coordinator)
    row = _row(shown)
    if whole is not None and verify:
        checks = [*(_compared(claim, whole, coordinator.store.seq) for claim in claims), _given_back(whole)]
        row |= {"checks": [asdict(check) for check in checks]}
        row |= {"differs": [check.what for check in checks if check.matches is False]}
    if as_json:
        from coordination.model.state import Core

        emit(row | {"state": json.loads(Core().dump(shown.state))})
    else:
        _tell(row)
    return 1 if row.get("differs") else 0


# ---- which moment ----------------------------------------------------------------------------------------------------


def _asked(moment: str, now: float) -> dict[str, Any]:
    from coordination.coordinator import parse_moment

    if moment.isascii() and moment.isdecimal() and len(moment) <= _SEQ_DIGITS_MAX:
        return {"upto_seq": int(moment)}
    instant = parse_moment(moment)
    if instant > now:
        raise UsageError(f"{moment} lies ahead: now it is {_instant(now)}, and only the past can be replayed")
    return {"upto_time": instant}


def _check_shown(shown: Moment[State], moment: str, asked: dict[str, Any], coordinator: Coordinator) -> None:
    """Raise NotFound when there is no such moment in the log."""
    seq = asked.get("upto_seq")
    if seq is not None and seq > shown.seq:
        raise NotFound(f"there is no batch {moment}: the log ends at batch {shown.seq}")
    if seq or shown.at is not None:
        return
    if shown.started:
        raise NotFound(f"{moment} is before the earliest moment that can be shown, batch {shown.started}")
    first = next(coordinator.history(), None)
    begins = "the log is empty" if first is None else f"the log begins with batch {first['seq']} at {first['at']}"
    raise NotFound(f"nothing had happened at {moment}: {begins}")


# ---- what is shown ---------------------------------------------------------------------------------------------------


def _row(moment: Moment[State]) -> dict[str, Any]:
    from coordination.model.state import Core
    from coordination.store import digest

    state = moment.state
    return {
        "seq": moment.seq,
        "at": None if moment.at is None else _instant(moment.at),
        "snapshot": moment.started or None,
        "digest": digest(Core().dump(state)),
        "counts": dict(sorted(Counter(str(task.status) for task in state.tasks.values()).items())),
        "merged": state.merged,
        "cost_usd": round(state.money.spent_usd, 6),
    }


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _tell(row: dict[str, Any]) -> None:
    say(f"seq {row['seq']}  digest {row['digest']}" + (f"  at {row['at']}" if row["at"] else ""))
    if row["snapshot"]:
        say(f"begun with the snapshot at seq {row['snapshot']}")
    counts = ", ".join(f"{count} {name}" for name, count in row["counts"].items()) or "none"
    say(f"tasks: {counts}; landed {row['merged']}; spent {dollars(row['cost_usd'])}")
    words = {True: "same", False: "DIFFERS", None: "not compared"}
    for check in row.get("checks", ()):
        say(f"{words[check['matches']]}: {check['what']} at seq {check['seq']}: {check['detail']}", whole=True)


class Progress:
    """How far a replay is, on a terminal, once it takes longer than a second. As a context it cleans up the line."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._begun = clock()
        self._shown = False

    def __call__(self, seq: int, last: int) -> None:
        """The replay has reached ``seq`` of ``last``."""
        if self._stream.isatty() and self._clock() - self._begun > _QUIET_SECONDS:
            self._stream.write(f"\rreplayed {seq:,} of {last:,} batches")
            self._stream.flush()
            self._shown = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


# ---- verifying -------------------------------------------------------------------------------------------------------


def _claims(coordinator: Coordinator) -> Iterator[Check]:
    """All are made before the log is read, so the log is at least as new as each of them."""
    note = coordinator.home.state / "supervisor.json"
    if note.exists():
        yield _of_file(note, _noted)
    for path in sorted(coordinator.snapshots.path.glob("*.json")):
        yield _of_file(path, lambda path: _saved(path, coordinator.store.log.uuid))
    live = coordinator.digest(coordinator.state())
    # a state may be ahead of what is durable for as long as a sync takes
    coordinator.store.log.wait(coordinator.store.seq - 1, SETTLE_SECONDS)
    yield Check(what="the state that commands see", seq=coordinator.store.seq, digest=live)


def _of_file(path: Path, read: Callable[[Path], Check]) -> Check:
    try:
        return read(path)
    except FileNotFoundError:
        return Check(what=str(path), detail="it was replaced meanwhile by a newer one")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Check(what=str(path), matches=False, detail=f"it is not whole: {error!r}")


def _noted(path: Path) -> Check:
    """What the last supervisor held, folded batch by batch while it ran."""
    from coordination import files
    from coordination.model.state import Core

    value = files.read_json(path)
    seq, projection = int(value["seq"]), value["projection"]
    if projection != f"{Core.name}-{Core.version}":
        return Check(what=str(path), seq=seq, detail=f"it is of another version: {projection}")
    return Check(what=str(path), seq=seq, digest=value["digest"])


def _saved(path: Path, log: str) -> Check:
    from coordination.model.state import Core
    from coordination.store import digest, read_snapshot

    if not path.name.startswith(f"{Core.name}-{Core.version}-"):
        return Check(what=str(path), detail="it is of another projection or version")
    snapshot = read_snapshot(path)
    if snapshot.log != log:
        return Check(what=str(path), seq=snapshot.seq, detail=f"it is of another log: {snapshot.log}")
    return Check(what=str(path), seq=snapshot.seq, digest=digest(snapshot.state))


def _compared(claim: Check, whole: Moment[State], head: int) -> Check:
    expected = whole.digests.get(claim.seq)
    if claim.digest is None:
        return claim
    if expected is not None:
        same = claim.digest == expected
        return replace(claim, matches=same, detail=expected if same else f"expected {expected}, found {claim.digest}")
    if claim.seq < whole.started:
        return replace(claim, detail="the part of the log before it was taken away")
    if claim.seq <= head:
        return replace(claim, detail=f"the log is known to be durable only up to {whole.seq}")
    return replace(claim, matches=False, detail=f"the log ends at {whole.seq}")


def _given_back(whole: Moment[State]) -> Check:
    """Whether a snapshot would lose anything: what no dump mentions, comparing digests does not find."""
    from coordination.model.state import Core

    dump = Core().dump(whole.state)
    try:
        back = Core().load(dump)
    except msgspec.MsgspecError as error:
        lost = str(error)
    else:
        names = [name for name in whole.state.__struct_fields__ if getattr(back, name) != getattr(whole.state, name)]
        lost = ", ".join(names) or "" if Core().dump(back) == dump else "the order"
    detail = f"lost or changed: {lost}" if lost else "nothing is lost"
    return Check(what="the replayed state, dumped and loaded", seq=whole.seq, matches=not lost, detail=detail)
