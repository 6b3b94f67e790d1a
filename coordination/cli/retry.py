"""How does a task that failed get another chance?"""

from __future__ import annotations

import click

from coordination.cli._command import task_argument, verb
from coordination.cli._decision import report
from coordination.cli._session import Session


@verb("coord retry T7")
@task_argument
@click.pass_obj
def command(session: Session, task: str) -> None:
    """Try a task again with fresh counters: one that failed, was cancelled or waits for a person.

    Tasks that failed only because they need it are tried again too.
    """
    from coordination.model import commands

    report(session.decide(lambda state: commands.retry(state, task)), f"{task} is in the queue already")
