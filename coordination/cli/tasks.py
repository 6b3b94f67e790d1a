"""Which tasks are there, and how does each stand?"""

from __future__ import annotations

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, table


@verb("coord tasks", "coord tasks --state failed", "coord tasks --json | jq -r .task")
@click.option("--state", "wanted", multiple=True, metavar="STATE", help="Only tasks in this state; may be repeated.")
@json_option("Print one JSON object a line.")
@click.pass_obj
def command(session: Session, wanted: tuple[str, ...], as_json: bool) -> None:
    """List all tasks: what runs first, then the queue in its order, then what ended."""
    from coordination import views
    from coordination.model.tasks import Status

    for state_name in wanted:
        if state_name not in list(Status):
            raise click.UsageError(f"no state {state_name!r}; there are: {', '.join(Status)}")
    coordinator = session.reading()
    state = coordinator.state()
    facts = coordinator.observed()
    rows = [views.task_row(state, facts, coordinator.policies, task) for task in views.ordered(state, facts)]
    rows = [row for row in rows if not wanted or row["state"] in wanted]
    if as_json:
        for row in rows:
            emit(row)
        return
    heads = ("TASK", "STATE", "KIND", "ROLE", "PRIORITY", "USD", "TITLE")
    keys = ("task", "state", "kind", "role", "priority")
    table(heads, [[*(row[key] for key in keys), f"{row['cost_usd']:.4f}", row["title"]] for row in rows])
