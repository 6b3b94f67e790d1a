"""Whether a commit needs Red's eyes, and what Red said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from coordination.model.facts import Facts
from coordination.model.runs import Ending, GateResult, Purpose, Rule
from coordination.model.state import Run, Task, gate_results
from coordination.model.tasks import ReviewMode
from coordination.policy import Judgement, Policy, Verdict

REVIEW = "review"
SUMMARY_MAX = 4000
_CONCLUSIVE = (Ending.SUCCEEDED, Ending.FAILED)  # a gate that we stopped has said nothing


class Reviewing(Policy[None]):
    """``auto`` spares Red only commits about which no rule has a doubt; anything unclear is not approval."""

    name = "reviewing"

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict:
        """Ask for a review, or read its verdict for exactly this commit."""
        del memory
        rules = _rules(facts, task, runs)
        reviews = [run for run in runs if run.verdict_on(task.commit)]
        if reviews:
            return self._said(facts, task, reviews[-1], rules)
        asking = [rule.found for rule in rules if rule.asks]
        if asking:
            return Verdict(judgement=Judgement.REVIEW, reason=f"review: {'; '.join(asking)}", rules=rules)
        spared = [rule.found for rule in rules if rule.rule in _SPARING[task.spec.review]]
        return Verdict(judgement=Judgement.ACCEPT, reason=f"review skipped: {' and '.join(spared)}", rules=rules)

    def _said(self, facts: Facts, task: Task, review: Run, rules: tuple[Rule, ...]) -> Verdict:
        assert review.outcome is not None
        outcome = review.outcome
        if outcome.verdict == "approve":
            return Verdict(judgement=Judgement.ACCEPT, reason=f"approved by {review.id}", rules=rules)
        findings, summary = (
            "\n".join(finding.told for finding in outcome.findings),
            outcome.report[:SUMMARY_MAX].strip(),
        )
        said = "\n\n".join(part for part in (findings, summary) if part) or "rejected without a finding"
        if task.rounds + 1 >= facts.settings.limits.rounds_max:
            reason = f"rejected {task.rounds + 1} times; last by {review.id}:\n{said}"
            return Verdict(judgement=Judgement.PERSON, reason=reason, rules=rules)
        return Verdict(judgement=Judgement.REJECT, reason=said, rules=rules)


_SPARING = {
    ReviewMode.AUTO: ("size", "gates"),
    ReviewMode.NEVER: ("task",),
    ReviewMode.ALWAYS: (),
}
"""What is quoted when no review is needed; the rest stands in the rules."""


def _rules(facts: Facts, task: Task, runs: Sequence[Run]) -> tuple[Rule, ...]:
    """Every rule with its numbers. Whether it may ask for anything is the task's word: ``auto`` lets all of them."""
    mode = task.spec.review
    gates = list(gate_results(runs, task.commit).values())
    doubts = [
        _size(facts, task),
        _passed(facts, task, gates),
        *_flaky(gates),
        _kind(facts, task),
        _history(task),
    ]
    asks = REVIEW if mode is ReviewMode.ALWAYS else ""
    spoken = [Rule(rule="task", asks=asks, found=f"the task says {mode}")]
    for rule, doubtful, found in doubts:
        spoken.append(Rule(rule=rule, asks=REVIEW if doubtful and mode is ReviewMode.AUTO else "", found=found))
    return tuple(spoken)


Doubt = tuple[str, bool, str]
"""A rule, whether it wants a review, and what it found."""


def _passed(facts: Facts, task: Task, gates: Sequence[GateResult]) -> Doubt:
    wanted = task.spec.gates if task.spec.gates is not None else facts.settings.gates.default
    if not wanted:
        return "gates", True, "no gates are configured for it"
    passed = {gate.gate for gate in gates if gate.passed}
    missing = [name for name in wanted if name not in passed]
    if missing:  # who asks for gates need not be listening
        return "gates", True, f"gates that have not passed: {', '.join(missing)}"
    return "gates", False, f"gates passed: {', '.join(wanted)}"


def _flaky(gates: Sequence[GateResult]) -> Sequence[Doubt]:
    found = [gate.gate for gate in gates if gate.flaky]
    return [("flaky", True, f"gates that both failed and passed on it: {', '.join(found)}")] if found else []


def _size(facts: Facts, task: Task) -> Doubt:
    most = facts.settings.review.small_lines
    work = task.work_of(task.commit)
    diff = work.outcome.diff if work is not None and work.outcome is not None else None
    if diff is None:
        return "size", True, "nobody knows how large it is"
    # What has no lines to count (a binary file, a mode) is not small.
    if not diff.lines or diff.binaries:
        return "size", True, f"{diff.lines} changed lines in {diff.files} files, {diff.binaries} of them without lines"
    return "size", diff.lines > most, f"{diff.lines} changed lines (at most {most})"


def _kind(facts: Facts, task: Task) -> Doubt:
    kinds = facts.settings.review.kinds
    return "kind", str(task.spec.kind) in kinds, f"kind {task.spec.kind} (always: {', '.join(kinds) or 'none'})"


def _history(task: Task) -> Doubt:
    """What came back before is not spared the second time; what was stopped or met bad weather did not come back."""
    found = Counter(_came_back(run) for run in task.runs if run.commit != task.commit or run.purpose is Purpose.LANDING)
    # from the landing of another task that took it along there is no run of its own
    found["the landing"] += sum(1 for sent in task.feedback if sent.kind == "conflict" and sent.run in task.taken_along)
    found["a person"] = sum(1 for reason in task.feedback if reason.kind == "answered")
    told = [f"{who} {count} {'time' if count == 1 else 'times'}" for who, count in found.items() if who and count]
    return "history", bool(told), f"sent back by {', '.join(told)}" if told else "nothing sent it back"


def _came_back(run: Run) -> str:
    """Who sent the work back after that run; "" for nobody."""
    outcome = run.outcome
    if outcome is None:
        return ""
    if run.verdict_on(run.commit) == "reject":
        return "a reviewer"
    if run.purpose is Purpose.GATE and outcome.ending in _CONCLUSIVE:
        return "a gate" if any(not gate.passed for gate in outcome.gates) else ""
    landing = run.purpose is Purpose.LANDING and outcome.ending in (Ending.CONFLICT, Ending.FAILED)
    return "the landing" if landing else ""


policy = Reviewing()
