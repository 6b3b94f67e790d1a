"""How is a task given up by a person?"""

from __future__ import annotations

import click

from coordination.cli._command import reason_option, task_argument, verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb("coord cancel T7", 'coord cancel T7 --reason "done by hand"')
@task_argument
@reason_option
@click.pass_obj
def command(session: Session, task: str, reason: str) -> None:
    """Cancel a task. What it has running is stopped; what it wrote is kept; tasks that need it fail.

    A task that lands just now, or that has ended, is refused.
    """
    from coordination.model import commands

    report(session.decide(lambda state: commands.cancel(state, task, reason)), f"{task} is cancelled already")
