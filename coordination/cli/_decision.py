"""What became of what a person asked? Said in a sentence for every event it led to, or that there was nothing to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from coordination.cli._terminal import note, tell

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.model.state import State
    from coordination.store import Transaction


def report(transaction: Transaction[State], otherwise: str) -> None:
    """Say what was recorded; ``otherwise`` when nothing had to be."""
    import msgspec

    from coordination import views
    from coordination.model.events import name

    if not transaction.events:
        tell(f"Nothing to do: {otherwise}.")
    for event in transaction.events:
        tell(views.narrated(name(event), msgspec.to_builtins(event)))


def person() -> str:
    """Who decides: the name of the user whose process this is, whatever the environment says."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not be in any list
        return f"user {os.getuid()}"


def hint_without_supervisor(coordinator: Coordinator) -> None:
    """Nothing moves by itself; said beside the answer."""
    if not coordinator.supervisor()["running"]:
        note("No supervisor runs now; `coord start` starts one.")
