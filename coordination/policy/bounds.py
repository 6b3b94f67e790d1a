"""Whether a run stayed inside its workspace."""

from __future__ import annotations

from collections.abc import Sequence

from coordination.model.facts import Facts
from coordination.model.runs import Purpose
from coordination.model.state import Run, Task
from coordination.policy import Judgement, Policy, Verdict


class Bounds(Policy[None]):
    """What moved outside is a person's to judge: it may be their own doing, so nothing is undone."""

    name = "bounds"

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict | None:
        """Silent unless something moved while the commit was made."""
        del memory, facts, task
        moved = [o for r in runs if r.purpose is Purpose.WORK and r.outcome for o in r.outcome.outside]
        if not moved:
            return None
        return Verdict(judgement=Judgement.PERSON, reason=f"something moved outside the workspace: {'; '.join(moved)}")


policy = Bounds()
