"""Whether a commit changes what a person alone lets through."""

from __future__ import annotations

from collections.abc import Sequence

from coordination.model.facts import Facts
from coordination.model.protection import Touched, touched
from coordination.model.runs import Rule
from coordination.model.state import Run, Task
from coordination.model.tasks import ReviewMode
from coordination.policy import Judgement, Policy, Verdict

_SHOWN = 12


class Protecting(Policy[None]):
    """Protected files wait for a person's word, or for Red's if settings say so; whatever the task asks for.

    What counts is the whole difference that would land, by the names that git gave the supervisor.
    """

    name = "protecting"

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict:
        """Have Red look first, unless the task wants no review; then a person."""
        del memory
        review = facts.settings.review
        work = task.work_of(task.commit)
        found = touched(work.outcome if work is not None else None, review.protected)
        if not found.any:
            said = f"none of {found.changed} changed files is protected"
            return Verdict(judgement=Judgement.ACCEPT, reason="", rules=(Rule(rule="protected", found=said),))
        rules = (Rule(rule="protected", asks=review.protected_by, found=_told(found)),)
        approved = any(run.verdict_on(task.commit) == "approve" for run in runs)
        person = review.protected_by == "person"
        if not approved and not (person and task.spec.review is ReviewMode.NEVER):
            return Verdict(judgement=Judgement.REVIEW, reason=_told(found), rules=rules)
        if not person:
            return Verdict(judgement=Judgement.ACCEPT, reason=f"{_told(found)}: reviewed, as settings ask", rules=rules)
        return Verdict(judgement=Judgement.CONFIRM, reason=f"{_told(found)}: a person decides", rules=rules)


def _told(found: Touched) -> str:
    listed = ", ".join(name if name.isprintable() else repr(name) for name in found.protected[:_SHOWN])
    more = len(found.protected) - _SHOWN
    parts = [f"changes protected files: {listed}{f' and {more} more' if more > 0 else ''}"] if found.protected else []
    if found.unlisted:
        parts.append(f"{found.unlisted} of {found.changed} changed files are not listed, and any may be protected")
    return "; ".join(parts)


policy = Protecting()
