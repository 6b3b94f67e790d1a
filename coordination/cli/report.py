"""What did the agents do, on one page to look at and to pass on? Made from the log alone."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, say
from coordination.environment import secrets
from coordination.errors import NotFound, Refused, UsageError
from coordination.printable import redacted

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator

_SEQ_DIGITS_MAX = 18
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION = re.compile(r"(?:\d{1,9}[smhdw])+")


@verb(
    "coord report",
    "coord report --since 24h --out ~/night.html",
    "coord report --since 2026-01-31T18:00:00Z",
    "coord report --since 120 --json | jq .totals",
)
@click.option(
    "--since",
    metavar="SEQ|TIME|DURATION",
    help="Only what came after that batch, since that instant, or in the last so many 30m, 24h, 7d, 1d12h.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the page there.")
@json_option("Print the numbers as one JSON object; the page is then only written with --out.")
@click.pass_obj
def command(session: Session, since: str | None, out: Path | None, as_json: bool) -> None:
    """Write what happened as one HTML file and print its path: who was at work when, what landed, what it cost.

    The page needs no network and holds no script. It is made from the log alone and can be made anew at any time;
    without --out it goes to .coordination/reports. A time without a zone is local time.
    """
    from coordination import __version__, report

    coordinator = session.reading()
    now = coordinator.now()
    found = gathered(coordinator, **({} if since is None else _asked(since, now)))
    if not as_json or out is not None:
        name = coordinator.home.repository.root.name
        text = report.page(found, name=name, made_at=now, version=__version__)
        path = _place(coordinator, out, now)
        _write(path, redacted(text, secrets(session.environment, coordinator.settings.environment.passed)))
        if not as_json:
            say(str(path), whole=True)
            return
        found["path"] = str(path)
    emit(found)


def gathered(coordinator: Coordinator, *, since_seq: int = 0, since_time: float | None = None) -> dict[str, Any]:
    """The numbers of the report. Raises NotFound for a batch that is not there, LogDamaged."""
    from coordination import report
    from coordination.cli.replay import Progress

    last_seq, last_at = coordinator.last_batch()
    if since_seq > last_seq:
        raise NotFound(f"there is no batch {since_seq}: the log ends at batch {last_seq}")
    facts = coordinator.facts()
    chronicle = report.Chronicle(facts=facts, last_at=last_at, since_seq=since_seq, since_time=since_time)
    with Progress(sys.stderr) as progress:
        whole = coordinator.replay(projection=chronicle, progress=progress)
    return report.gather(chronicle, whole.state, facts, coordinator.policies, seq=whole.seq, started=whole.started)


def _asked(since: str, now: float) -> dict[str, Any]:
    """Which stretch is meant: a number is a batch, a number with a unit is a duration, all else an instant."""
    from coordination.coordinator import parse_moment

    if since.isascii() and since.isdecimal() and len(since) <= _SEQ_DIGITS_MAX:
        return {"since_seq": int(since)}
    if since.isascii() and _DURATION.fullmatch(since):
        seconds = sum(int(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"\d+[smhdw]", since))
        return {"since_time": now - seconds}
    try:
        instant = parse_moment(since)
    except UsageError:
        expected = "a batch (120), a time (2026-01-31T12:00:00Z; without a zone: local time) or a duration (24h, 1d12h)"
        raise UsageError(f"--since: expected {expected}, found {since!r}") from None
    if instant > now:
        told = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        raise UsageError(f"--since: {since} lies ahead: now it is {told}, and a report tells of the past")
    return {"since_time": instant}


def _place(coordinator: Coordinator, out: Path | None, now: float) -> Path:
    from coordination import files

    if out is not None:
        path = out.expanduser().absolute()
        if path.is_dir():
            raise UsageError(f"--out: expected a file to write, found the directory {path}; name a file in it")
        return path
    instant = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H%M%S.%f")[:-3]
    directory = coordinator.home.state / "reports"
    files.make_directory(directory)
    return directory / f"{instant}Z.html"


def _write(path: Path, text: str) -> None:
    """All of it or nothing; for the owner only, as it tells what tasks say."""
    from coordination import files

    try:
        files.publish(path, text.encode())
    except OSError as error:
        raise Refused(
            f"the report could not be written to {path}: {error.strerror}; name another file with --out"
        ) from error
