"""How does a person send work back?"""

from __future__ import annotations

import click

from coordination.cli._command import task_argument, verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb('coord reject T7 --reason "keep the old name as an alias"')
@task_argument
@click.option("--reason", required=True, metavar="TEXT", help="What is wrong; the agent is told.")
@click.pass_obj
def command(session: Session, task: str, reason: str) -> None:
    """Send a task that waits for a person back to work, with a reason its agent is given."""
    from coordination.model import commands

    if not reason.strip():
        raise click.UsageError("--reason: expected a sentence, found nothing")
    report(session.decide(lambda state: commands.reject(state, task, reason)), f"{task} was sent back already")
