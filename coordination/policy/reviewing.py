"""Whether a commit needs Red's eyes, and what Red said."""

from __future__ import annotations

from collections.abc import Sequence

from coordination.model.facts import Facts
from coordination.model.runs import Finding, Purpose
from coordination.model.state import Run, Task
from coordination.model.tasks import ReviewMode
from coordination.policy import Judgement, Policy, Verdict


class Reviewing(Policy[None]):
    """``auto`` spares Red only commits that are small and whose gates passed; anything unclear is not approval."""

    name = "reviewing"

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict:
        """Ask for a review, or read its verdict for exactly this commit."""
        del memory
        reviews = [run for run in runs if run.purpose is Purpose.REVIEW and run.commit == task.commit and run.succeeded]
        if reviews:
            return self._said(facts, task, reviews[-1])
        spared = self._spared(facts, task, runs)
        if spared:
            return Verdict(judgement=Judgement.ACCEPT, reason=spared)
        return Verdict(judgement=Judgement.REVIEW, reason=f"review: {task.spec.review}")

    def _said(self, facts: Facts, task: Task, review: Run) -> Verdict:
        assert review.outcome is not None
        outcome = review.outcome
        if outcome.verdict == "approve":
            return Verdict(judgement=Judgement.ACCEPT, reason=f"approved by {review.id}")
        said = (
            "\n".join(_told(finding) for finding in outcome.findings) or outcome.report or "rejected without a finding"
        )
        if task.rounds + 1 >= facts.settings.limits.rounds_max:
            reason = f"rejected {task.rounds + 1} times; last by {review.id}:\n{said}"
            return Verdict(judgement=Judgement.PERSON, reason=reason)
        return Verdict(judgement=Judgement.REJECT, reason=said)

    def _spared(self, facts: Facts, task: Task, runs: Sequence[Run]) -> str:
        """Why no review is needed; empty when one is."""
        if task.spec.review is ReviewMode.NEVER:
            return "review skipped: the task says never"
        if task.spec.review is ReviewMode.ALWAYS:
            return ""
        gates = task.spec.gates if task.spec.gates is not None else facts.settings.gates.default
        diff = next((run.outcome.diff for run in reversed(runs) if run.outcome and run.purpose is Purpose.WORK), None)
        if not gates or diff is None or diff.lines > facts.settings.review.small_lines:
            return ""
        # What has no lines to count (a binary file, a mode) is not small, and who asks for gates need not be listening.
        if not diff.lines or diff.binaries or not set(gates) <= _passed(runs, task.commit):
            return ""
        most = facts.settings.review.small_lines
        return f"review skipped: {diff.lines} changed lines (at most {most}) and gates passed: {', '.join(gates)}"


def _passed(runs: Sequence[Run], commit: str) -> set[str]:
    outcomes = [run.outcome for run in runs if run.purpose is Purpose.GATE and run.outcome is not None]
    return {gate.gate for outcome in outcomes for gate in outcome.gates if gate.commit == commit and gate.passed}


def _told(finding: Finding) -> str:
    line = f":{finding.line}" if finding.line else ""
    place = f"{finding.file}{line}: " if finding.file else ""
    return f"- [{finding.severity}] {place}{finding.message}"


policy = Reviewing()
