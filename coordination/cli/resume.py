"""How does what was paused go on?"""

from __future__ import annotations

import click

from coordination.cli._command import verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb("coord resume", "coord resume T7")
@click.argument("task", required=False)
@click.pass_obj
def command(session: Session, task: str | None) -> None:
    """Release one task, or without TASK let everything go on. Tasks paused one by one stay paused."""
    from coordination.model import commands

    what = f"{task} is" if task else "the whole is"
    report(session.decide(lambda state: commands.resume(state, task)), f"{what} not paused")
