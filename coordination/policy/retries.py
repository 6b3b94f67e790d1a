"""What to do after a run that did not succeed."""

from __future__ import annotations

from coordination.model.endings import STOPPED, How, Kind, kind_of
from coordination.model.facts import Facts
from coordination.model.runs import Purpose
from coordination.model.state import Run, Task
from coordination.policy import Policy, Rank, Remedy


class Retries(Policy[None]):
    """Try again as the kind of ending asks, with a growing delay until ``attempts_max``; weather uses up nothing."""

    name = "retries"

    def remedy(self, memory: None, facts: Facts, task: Task, run: Run) -> Remedy:
        """By the kind of the ending: how often it came already, and the attempts used."""
        del memory
        assert run.outcome is not None
        kind, said = kind_of(run.outcome), f"{run.id} {run.outcome.ending}: {run.outcome.reason}"
        how, times = _how(facts, run, kind), _alike(task, run, kind)
        if kind is STOPPED:
            return Remedy(rank=Rank.AGAIN, reason=said, how=How.RESUME)
        if how in (How.PERSON, How.FAIL) or (kind.most is not None and times > kind.most):
            end = how if how in (How.PERSON, How.FAIL) else kind.then
            judging = run.purpose is not Purpose.WORK
            told = f"{said}\n{kind.name}, {times} times: {kind.says}" if times > 1 else f"{said}\n{kind.says}"
            return Remedy(rank=Rank.PERSON if judging or end is How.PERSON else Rank.FAIL, reason=told)
        if how is How.WAIT:
            return Remedy(rank=Rank.AGAIN, reason=said, how=How.RESUME)
        most = int(task.spec.attempts_max or facts.settings.limits.attempts_max)
        used = task.attempts + 1 if run.purpose is Purpose.WORK else _failures(task, run)
        if used < most:
            return Remedy(rank=Rank.RETRY, reason=said, delay_seconds=delay_seconds(facts, used), how=how)
        rank = Rank.FAIL if run.purpose is Purpose.WORK else Rank.PERSON
        return Remedy(rank=rank, reason=f"{said} (attempt {used} of {most})")


def _how(facts: Facts, run: Run, kind: Kind) -> How:
    """The kind's remedy, if there is one here: another model only if the role names one and it was not that."""
    if kind.how is not How.OTHER_MODEL:
        return kind.how
    other = facts.fallback_model(run.role)
    return How.OTHER_MODEL if other and other != run.model else kind.then


def _alike(task: Task, run: Run, kind: Kind) -> int:
    """How often a run for the same purpose ended in this way since a person last decided about the task."""
    oldest = run.ended_at - kind.within_seconds if kind.within_seconds is not None else float("-inf")
    since = [each for each in task.runs[task.decided :] if each.purpose is run.purpose and each.ended_at >= oldest]
    return sum(1 for each in since if each.outcome is not None and kind_of(each.outcome) is kind)


def _failures(task: Task, run: Run) -> int:
    """Runs of the same purpose, on the same commit, that somebody is to blame for."""
    same = [r for r in task.present if (r.purpose, r.commit, r.gate) == (run.purpose, run.commit, run.gate)]
    return len([r for r in same if r.outcome and not r.succeeded and kind_of(r.outcome).how is not How.WAIT])


def delay_seconds(facts: Facts, failures: int) -> float:
    """Doubles with every failure, from ``backoff_seconds`` to ``backoff_max_seconds``."""
    retry = facts.settings.retry
    doublings = min(failures - 1, 64)  # beyond that the most has long been reached, and a float might not hold it
    return float(min(retry.backoff_max_seconds, retry.backoff_seconds * 2.0**doublings))


policy = Retries()
