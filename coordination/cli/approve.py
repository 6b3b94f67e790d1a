"""How does a person let work land?"""

from __future__ import annotations

import click

from coordination.cli._command import task_argument, verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb("coord show T7", "coord approve T7")
@task_argument
@click.pass_obj
def command(session: Session, task: str) -> None:
    """Approve the newest commit of a task that waits for a person; it lands when its turn comes.

    Look at it first: `coord show TASK` names the commit, its gates and what reviewers found.
    """
    from coordination.model import commands

    report(session.decide(lambda state: commands.approve(state, task)), f"{task} is approved already")
