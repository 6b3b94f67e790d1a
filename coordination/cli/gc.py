"""What takes room, what of it may go, and what stays?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._kept import size
from coordination.cli._session import Session
from coordination.cli._terminal import emit, say

if TYPE_CHECKING:
    from coordination.planning.keeping import Found, Verdict
    from coordination.supervisor.collecting import Done

SHOWN_MAX = 60
FAILED = 1


@verb("coord gc", "coord gc --apply", "coord gc --json | jq '.stays[] | select(.kind == \"branch\")'")
@click.option("--apply", "applies", is_flag=True, help="Let go of it; also while a supervisor runs.")
@click.option("--forget", is_flag=True, help="Also of what is kept under refs and nowhere else, if it is old enough.")
@json_option()
@click.pass_obj
def command(session: Session, applies: bool, forget: bool, as_json: bool) -> int:
    """Say what ended tasks left, what of it may go, and why the rest stays; nothing goes without --apply.

    Workspaces, sessions, transcripts, task branches and what was kept under refs/coordination/preserved. What belongs
    to a task that has not ended stays, and so does what has not landed, whatever the settings ([keep] in
    coordination.toml): before a workspace goes, everything in it is kept under a ref. Only with --forget does such a
    ref go although nothing else has what is in it, and only after [keep] preserved_days.

    Exit codes: 0 done; 1 something could not go; 4 refused.
    """
    from coordination.planning.keeping import Verdict
    from coordination.supervisor import collecting

    if not applies:
        verdicts = collecting.survey(session.reading(), forget=forget)
        _answer([verdict for verdict in verdicts if verdict.goes], [], verdicts, as_json=as_json)
        return 0
    became = list(collecting.collect(session.writing(), forget=forget))
    stayed = [one for one in became if isinstance(one, Verdict)]
    done = [one for one in became if not isinstance(one, Verdict)]
    _answer([one.verdict for one in done], done, stayed, as_json=as_json)
    return 0 if all(one.gone for one in done) else FAILED


def _answer(going: Sequence[Verdict], done: Sequence[Done], others: Sequence[Verdict], *, as_json: bool) -> None:
    stays = [verdict for verdict in others if not verdict.goes]
    if as_json:
        emit(
            {
                "applied": bool(done),
                "bytes": sum(verdict.found.bytes for verdict in going),
                "goes": [_row(verdict) for verdict in going],
                "stays": [_row(verdict) for verdict in stays],
                "done": [
                    {**_named(one.verdict.found), "gone": one.gone, "kept": one.kept, "why": one.why} for one in done
                ],
            }
        )
        return
    _tell("Stays", [(verdict, "") for verdict in stays])
    if done:
        _tell("Gone", [(one.verdict, f"kept as {one.kept}" if one.kept else "") for one in done if one.gone])
        _tell("Could not go", [(one.verdict, one.why) for one in done if not one.gone])
    else:
        _tell("Goes", [(verdict, "") for verdict in going])
    if going and not done:
        say(f"Nothing was changed. `coord gc --apply` does this and frees {size(_bytes(going))}.")
    elif not going:
        say("Nothing is to go.")


def _bytes(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.found.bytes for verdict in verdicts)


def _tell(title: str, rows: Sequence[tuple[Verdict, str]]) -> None:
    if not rows:
        return
    total = _bytes([verdict for verdict, _ in rows])
    say(f"{title}: {len(rows)}{f', {size(total)}' if total else ''}")
    for verdict, more in rows[:SHOWN_MAX]:
        found = verdict.found
        room = f" ({size(found.bytes)})" if found.bytes else ""
        say(f"  {found.kind} {found.name}{room}: {verdict.why}{'; ' + more if more else ''}", whole=True)
    if len(rows) > SHOWN_MAX:
        say(f"  … and {len(rows) - SHOWN_MAX} more; --json has them all")


def _named(found: Found) -> dict[str, Any]:
    return {"kind": found.kind, "name": found.name, "task": found.task or None}


def _row(verdict: Verdict) -> dict[str, Any]:
    from coordination.views import moment

    found = verdict.found
    more = {"bytes": found.bytes, "since": moment(found.at), "commit": found.commit or None, "why": verdict.why}
    return _named(found) | more | {"landed": found.content or None}
