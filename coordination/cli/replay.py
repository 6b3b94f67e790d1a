"""Does the log alone give the state we act on, and what was the state at a moment of the past?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, say

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator

SETTLE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """A saved or live state beside what the log says of the same batch. ``matches`` is None when it does not apply."""

    what: str
    seq: int
    matches: bool | None
    detail: str


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
    """Rebuild the state from the log alone; only --repair writes. With --verify, exit code 1 names what differs."""
    if repairs:
        from coordination.cli.repair import repair

        return repair(session, applies=True, as_json=as_json)
    from coordination.model.state import Core

    coordinator = session.reading()
    seq, state = coordinator.replay(**_upto(moment))
    row: dict[str, Any] = {"seq": seq, "digest": coordinator.digest(state), "counts": _counts(state)}
    row |= {"merged": state.merged, "cost_usd": round(state.cost_usd, 6)}
    checks = list(_checks(coordinator)) if verify else []
    if verify:
        row |= {
            "checks": [asdict(check) for check in checks],
            "differs": [c.what for c in checks if c.matches is False],
        }
    if as_json:
        emit(row | {"state": Core().dump(state)})
    else:
        _tell(row)
    return 1 if row.get("differs") else 0


def _upto(moment: str | None) -> dict[str, Any]:
    from coordination.coordinator import parse_moment

    if moment is None:
        return {}
    return {"upto_seq": int(moment)} if moment.isdecimal() else {"upto_time": parse_moment(moment)}


def _counts(state: Any) -> dict[str, int]:
    return dict(sorted(Counter(str(task.status) for task in state.tasks.values()).items()))


def _tell(row: dict[str, Any]) -> None:
    say(f"seq {row['seq']}  digest {row['digest']}")
    counts = ", ".join(f"{count} {name}" for name, count in row["counts"].items()) or "none"
    say(f"tasks: {counts}; landed {row['merged']}; spent {dollars(row['cost_usd'])}")
    words = {True: "same", False: "DIFFERS", None: "not compared"}
    for check in row.get("checks", ()):
        say(f"{words[check['matches']]}: {check['what']} at seq {check['seq']}: {check['detail']}", whole=True)


# ---- verifying -------------------------------------------------------------------------------------------------------


def _checks(coordinator: Coordinator) -> Iterator[Check]:
    # every digest is taken before the log is read again, so the log is at least as new as each of them
    note = coordinator.home.state / "supervisor.json"
    if note.exists():
        yield _saved(coordinator, note, _noted)
    for snapshot in sorted((coordinator.home.state / "snapshots").glob("*.json")):
        yield _saved(coordinator, snapshot, _dumped)
    live = coordinator.digest(coordinator.state())
    yield _compared(coordinator, "the state that commands see", coordinator.store.seq, live)


def _noted(value: dict[str, Any]) -> tuple[str, str]:
    return value["projection"], value["digest"]


def _dumped(value: dict[str, Any]) -> tuple[str, str]:
    from coordination.store import digest

    return f"{value['projection']}-{value['version']}", digest(value["state"])


def _saved(coordinator: Coordinator, path: Path, read: Callable[[dict[str, Any]], tuple[str, str]]) -> Check:
    """A file that holds a state, or its digest, and the batch it was taken after."""
    from coordination import files
    from coordination.model.state import Core

    try:
        value = files.read_json(path)
        seq, log = int(value["seq"]), value.get("log", coordinator.store.log.uuid)
        projection, found = read(value)
    except FileNotFoundError:
        return Check(what=str(path), seq=0, matches=None, detail="it was replaced meanwhile by a newer one")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Check(what=str(path), seq=0, matches=False, detail=f"it is not whole: {error!r}")
    if projection != f"{Core.name}-{Core.version}":
        return Check(what=str(path), seq=seq, matches=None, detail=f"it is of another version: {projection}")
    if log != coordinator.store.log.uuid:
        return Check(what=str(path), seq=seq, matches=None, detail=f"it is of another log: {log}")
    return _compared(coordinator, str(path), seq, found)


def _compared(coordinator: Coordinator, what: str, seq: int, found: str) -> Check:
    # a state may be ahead of what is durable for as long as a sync takes
    coordinator.store.log.wait(seq - 1, SETTLE_SECONDS)
    reached, state = coordinator.replay(upto_seq=seq)
    if reached != seq:
        return Check(what=what, seq=seq, matches=False, detail=f"the log ends at {reached}")
    expected = coordinator.digest(state)
    detail = expected if found == expected else f"expected {expected}, found {found}"
    return Check(what=what, seq=seq, matches=found == expected, detail=detail)
