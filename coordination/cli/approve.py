"""How does a person let work land?"""

from __future__ import annotations

import click

from coordination.cli._command import task_argument, verb
from coordination.cli._decision import person, report
from coordination.cli._session import Session


@verb("coord show T7", "coord approve T7", "coord approve T7 --commit 3f9c2a1")
@task_argument
@click.option(
    "--commit",
    default="",
    metavar="SHA",
    help="The commit you looked at, whole or its first seven signs; refused when another one is the newest.",
)
@click.pass_obj
def command(session: Session, task: str, commit: str) -> None:
    """Approve the newest commit of a task that waits for a person; it lands when its turn comes.

    Look at it first: `coord show TASK` names the commit, its gates, its files and what reviewers found. Your name and
    what spoke against it are recorded.
    """
    from coordination.model import commands

    coordinator = session.writing()
    gates = coordinator.settings.gates.default
    done = coordinator.store.transact(
        lambda state: commands.approve(
            state, task, commit=commit.strip(), person=person(), at=coordinator.now(), gates=gates
        )
    )
    report(done, f"{task} is approved already")
