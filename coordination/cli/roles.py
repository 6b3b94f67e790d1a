"""Who works here? The roles that are loaded, and from where."""

from __future__ import annotations

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import emit, table


@verb("coord roles", "coord roles --json | jq .name")
@json_option("Print one JSON object a line.")
@click.pass_obj
def command(session: Session, as_json: bool) -> None:
    """List the roles: model, whether they write, how many at once, which kinds of task they get.

    A role is a file: the shipped ones, then .coordination/roles/*.md, which add to them or override them.
    """
    coordinator = session.reading()
    facts = coordinator.facts()
    rows = []
    for role in coordinator.roles.values():
        override = coordinator.settings.roles.get(role.name)
        rows.append(
            {
                "name": role.name,
                "model": (override.model if override else "") or role.model,
                "writes": role.writes,
                "slots": facts.slots(role.name),
                "kinds": list(role.kinds),
                "backend": coordinator.settings.agents.backend or role.backend,
                "description": role.description,
                "source": role.source,
            }
        )
    if as_json:
        for row in rows:
            emit(row)
        return
    keys = ("name", "model", "writes", "slots", "kinds", "source")
    table([key.upper() for key in keys], [[_shown(row[key]) for key in keys] for row in rows])


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(value) if isinstance(value, list) else str(value)
