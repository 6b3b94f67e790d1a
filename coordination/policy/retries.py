"""What to do after a run that did not succeed."""

from __future__ import annotations

from coordination.model.facts import Facts
from coordination.model.runs import Ending, Purpose
from coordination.model.state import Run, Task
from coordination.policy import Policy, Rank, Remedy

_BLAMELESS = frozenset({Ending.STOPPED, Ending.LIMITED})


class Retries(Policy[None]):
    """Try again with a growing delay until ``attempts_max``; stops and weather use up nothing."""

    name = "retries"

    def remedy(self, memory: None, facts: Facts, task: Task, run: Run) -> Remedy:
        """Again, retry or fail: by the run's ending and the attempts used."""
        del memory
        assert run.outcome is not None
        ending, said = run.outcome.ending, f"{run.id} {run.outcome.ending}: {run.outcome.reason}"
        if ending in _BLAMELESS:
            delay = facts.settings.retry.backoff_seconds if ending is Ending.LIMITED else 0.0
            return Remedy(rank=Rank.AGAIN, reason=said, delay_seconds=delay)
        most = int(task.spec.attempts_max or facts.settings.limits.attempts_max)
        used = task.attempts + 1 if run.purpose is Purpose.WORK else _alike(task, run)
        if used < most:
            return Remedy(rank=Rank.RETRY, reason=said, delay_seconds=delay_seconds(facts, used))
        rank = Rank.FAIL if run.purpose is Purpose.WORK else Rank.PERSON
        return Remedy(rank=rank, reason=f"{said} (attempt {used} of {most})")


def _alike(task: Task, run: Run) -> int:
    """Runs of the same purpose, on the same commit, that did not succeed and were not stopped."""
    same = [r for r in task.present if (r.purpose, r.commit, r.gate) == (run.purpose, run.commit, run.gate)]
    return len([r for r in same if r.outcome and not r.succeeded and r.outcome.ending not in _BLAMELESS])


def delay_seconds(facts: Facts, failures: int) -> float:
    """Doubles with every failure, from ``backoff_seconds`` to ``backoff_max_seconds``."""
    retry = facts.settings.retry
    doublings = min(failures - 1, 64)  # beyond that the most has long been reached, and a float might not hold it
    return float(min(retry.backoff_max_seconds, retry.backoff_seconds * 2.0**doublings))


policy = Retries()
