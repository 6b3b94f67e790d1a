"""What happened? The events of the log, one JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator


@verb(
    "coord log | jq -c '[.at, .type, .task]'",
    "coord log --task T1",
    "coord log --follow --since 120",
)
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until interrupted.")
@click.option(
    "--since", type=click.IntRange(min=0), default=0, metavar="SEQ", help="Only what came after batch number SEQ."
)
@click.option("--task", default="", metavar="TASK", help="Only events of this task.")
@json_option("Has no effect: this is always JSON, one object a line.")
@click.pass_obj
def command(session: Session, follow: bool, since: int, task: str, as_json: bool) -> None:
    """Print the events of the log as JSON lines, oldest first.

    seq numbers batches, index the events of a batch: (seq, index) names an event. A batch that is not yet known to
    survive a power cut is labelled "unproven"; --follow waits until it is.
    """
    del as_json
    coordinator = session.reading()
    name = coordinator.state().find(task).id if task else ""
    for row in _followed(coordinator, since, name) if follow else coordinator.history(since, name):
        emit(row)


def _followed(coordinator: Coordinator, since: int, task: str) -> Iterator[dict[str, Any]]:
    from coordination.model.events import described

    for record in coordinator.store.follow(since, patience_seconds=float("inf")):
        if not task or getattr(record.event, "task", "") == task:
            yield described(record)
