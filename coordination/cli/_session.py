"""Which repository does this call speak of, and may it change anything there?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coordination import kin
from coordination.environment import MARKER
from coordination.errors import Refused

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator, Home
    from coordination.model.events import AnyEvent
    from coordination.model.state import State
    from coordination.store import Transaction


@dataclass(frozen=True, kw_only=True)
class Session:
    """One call of the command line: where it was made and with which environment."""

    directory: Path
    environment: Mapping[str, str]

    def home(self) -> Home:
        """The repository and its state directory. Raises Unsuitable outside a repository."""
        from coordination.coordinator import locate

        return locate(self.directory, self.environment.get("COORDINATION_HOME", ""))

    def reading(self) -> Coordinator:
        """The coordination there is. Raises Refused before ``coord init``."""
        from coordination.coordinator import Coordinator

        return Coordinator(self.home(), ours=True)

    def writing(self) -> Coordinator:
        """The same for a person's verbs. Raises Refused inside a run."""
        self.refuse_agents()
        return self.reading()

    def refuse_agents(self) -> None:
        """A person decides, never an agent. Raises Refused when a run calls, also with a cleared environment."""
        run = self.environment.get(MARKER) or kin.carried_above(MARKER)
        if run:
            name = run.rpartition("/")[2]
            raise Refused(f"this is run {name} of the coordinator, and only a person may do that; ask in your report")

    def decide(self, decide: Callable[[State], Sequence[AnyEvent]]) -> Transaction[State]:
        """Record what a person decides. Raises Refused inside a run and for what is illegal, NotFound."""
        return self.writing().store.transact(decide)
