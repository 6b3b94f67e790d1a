"""What is damaged or left over, what is lost, and how does the coordination go on?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, say

if TYPE_CHECKING:
    from coordination.repair import Finding, Ranges, Report
    from coordination.supervisor.leftovers import Leftover

SHOWN_MAX = 50


@verb("coord repair", "coord repair --json | jq .findings", "coord repair --apply")
@click.option("--apply", "applies", is_flag=True, help="Do it, after a backup. Refused while a supervisor runs.")
@json_option()
@click.pass_obj
def command(session: Session, applies: bool, as_json: bool) -> int:
    """Find out what is damaged or left over, and what can be done about it; writes nothing without --apply.

    The log and the snapshots: every batch that is not damaged is kept, with its number and its bytes. A lost one gets a
    placeholder, and the tasks that it spoke of wait for a person. Then runs that have ended without the log knowing,
    workspaces that are half made or no longer needed, and processes of runs that have ended. Nothing is ever deleted
    or changed in place: there is a backup, and what was in a workspace is kept under a ref or moved aside.

    Exit codes: 0 nothing to do, or done; 1 there is something to do; 4 refused; 5 nothing can be read any more.
    """
    return repair(session, applies=applies, as_json=as_json)


def repair(session: Session, *, applies: bool, as_json: bool) -> int:
    """The same for other commands that offer it."""
    from coordination.supervisor import leftovers

    report = session.writing().repair_log() if applies else session.reading().examine_log()
    left: list[Leftover] = []
    if applies:
        left = leftovers.mend(session.writing())
    elif report.whole:  # else nothing can be folded yet
        left = leftovers.examine(session.reading())
    if as_json:
        emit(_row(report, left))
    else:
        _tell(report)
        _tell_left(left, report, applied=applies)
    return 0 if applies or (report.whole and not left) else 1


def _row(report: Report, left: Sequence[Leftover]) -> dict[str, Any]:
    import msgspec

    row: dict[str, Any] = msgspec.to_builtins(report, enc_hook=str)
    return {"whole": report.whole} | row | {"leftovers": msgspec.to_builtins(left)}


def _tell(report: Report) -> None:
    for note in report.notes:
        say(f"Note: {note}.", whole=True)
    if report.whole:
        say(f"The log is whole: {report.batches} batches.")
        return
    say(f"{len(report.findings)} found, in a log of {report.batches} batches:")
    for finding in report.findings[:SHOWN_MAX]:
        _tell_finding(finding)
    if len(report.findings) > SHOWN_MAX:
        say(f"  … and {len(report.findings) - SHOWN_MAX} more; --json has them all")
    say()
    say(f"Lost: {_numbers(report.lost)}. Doubtful: {_numbers(report.doubtful)}.", whole=True)
    if report.tasks:
        say(f"Tasks that they speak of: {', '.join(report.tasks)}.", whole=True)
    _tell_next(report)


def _tell_left(left: Sequence[Leftover], report: Report, *, applied: bool) -> None:
    if not left:
        if report.whole:
            say("Nothing to do.")
        elif not applied:
            say("Runs, workspaces and processes are looked at once the log is whole.")
        return
    say("Left over, and put right:" if applied else "Left over:")
    for one in left[:SHOWN_MAX]:
        say(f"  {one.kind} {one.name}: {one.found}", whole=True)
        say(f"      {one.remedy}", whole=True)
    if len(left) > SHOWN_MAX:
        say(f"  … and {len(left) - SHOWN_MAX} more; --json has them all")
    if not applied:
        say("Nothing was changed. `coord repair --apply` does this.")


def _tell_finding(finding: Finding) -> None:
    bytes_ = f", bytes {finding.offset} to {finding.offset + finding.length}" if finding.length else ""
    say(f"  {finding.path}{bytes_}: {finding.what}", whole=True)
    batches = f"batch {_numbers([(finding.first, finding.last)])}: " if finding.first else ""
    tasks = f"; tasks {', '.join(finding.tasks)}" if finding.tasks else ""
    say(f"      {batches}{finding.remedy}{tasks}", whole=True)


def _tell_next(report: Report) -> None:
    if not report.applied:
        say("Nothing was changed. `coord repair --apply` does this, after a backup.")
        return
    if report.backup is not None:
        say(f"Repaired. Everything as it was before: {report.backup}", whole=True)
    for path in report.moved:
        say(f"Moved aside: {path}", whole=True)
    if report.lost or report.doubtful:
        say("Everything is paused until you have looked: `coord status`, then `coord resume`.")


def _numbers(ranges: Ranges) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges) or "none"
