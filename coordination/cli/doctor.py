"""Will it work here, through the night?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, note, say

if TYPE_CHECKING:
    from coordination.doctor import Check

_SIGNS = {"ok": "ok    ", "weaker": "weaker", "fails": "FAILS "}


@verb("coord doctor", "coord doctor --fix", "coord doctor --json | jq 'select(.state != \"ok\")'")
@click.option("--fix", "fixes", is_flag=True, help="First do what can be done without asking you.")
@json_option("Print one JSON object a line.")
@click.pass_obj
def command(session: Session, fixes: bool, as_json: bool) -> int:
    """Check what a night needs: Python, git, Claude Code, a login, the sandbox, the filesystem, the log, leftovers.

    Claude Code is started with all of our arguments and asked nothing, so that it costs nothing. Each check says what
    was found; what fails or is weaker than it could be comes with what to do.

    Exit codes: 0 nothing fails; 1 something does.
    """
    from coordination import doctor

    if fixes:
        session.refuse_agents()
        for done in doctor.fix(session.home()):
            note(f"Done: {done}")
    fails = False
    for check in doctor.examine(session.home(), session.environment):
        fails |= check.state == "fails"
        _tell(check, as_json=as_json)
    return 1 if fails else 0


def _tell(check: Check, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        emit(msgspec.to_builtins(check))
        return
    say(f"{_SIGNS[check.state]}  {check.name}: {check.found}", whole=True)
    if check.advice:
        say(f"        {check.advice}", whole=True)
