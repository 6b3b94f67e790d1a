"""How is a task, or everything, made to wait?"""

from __future__ import annotations

import click

from coordination.cli._command import reason_option, verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb("coord pause", "coord pause T7", 'coord pause --reason "release day"')
@click.argument("task", required=False)
@reason_option
@click.pass_obj
def command(session: Session, task: str | None, reason: str) -> None:
    """Hold one task, or without TASK start nothing new at all. What runs now finishes."""
    from coordination.model import commands

    what = f"{task} is" if task else "everything is"
    report(session.decide(lambda state: commands.pause(state, task, reason)), f"{what} paused already")
