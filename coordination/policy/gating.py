"""Whether the gates passed on the exact commit."""

from __future__ import annotations

from collections.abc import Sequence

from coordination.model.facts import Facts
from coordination.model.runs import GateResult
from coordination.model.state import Run, Task, gate_results
from coordination.policy import Judgement, Policy, Verdict

OUTPUT_SHOWN = 4000


class Gating(Policy[None]):
    """Every named gate must exit 0 on the commit."""

    name = "gating"

    def judge(self, memory: None, facts: Facts, task: Task, runs: Sequence[Run]) -> Verdict:
        """Ask for the gates that have not run, send back what failed, accept what passed."""
        del memory
        names = task.spec.gates if task.spec.gates is not None else facts.settings.gates.default
        unknown = [name for name in names if name not in facts.settings.gates.named]
        if unknown:
            reason = f"gate {unknown[0]!r} is not configured in coordination.toml"
            return Verdict(judgement=Judgement.PERSON, reason=reason)
        found = gate_results(runs, task.commit)
        failed = [found[name] for name in names if name in found and not found[name].passed]
        if failed:
            return Verdict(judgement=Judgement.AGAIN, reason="\n".join(_told(result) for result in failed))
        missing = tuple(name for name in names if name not in found)
        if missing:
            return Verdict(judgement=Judgement.GATE, reason=f"gates to run: {', '.join(missing)}", gates=missing)
        told = ", ".join(_passed(found[name]) for name in names)
        return Verdict(judgement=Judgement.ACCEPT, reason=f"gates passed: {told}" if names else "no gates configured")


def _passed(result: GateResult) -> str:
    if result.flaky:
        return f"{result.gate} (flaky: passed at try {len(result.failures) + 1})"
    return f"{result.gate} (as in {result.cached})" if result.cached else result.gate


def _told(result: GateResult) -> str:
    tail = result.output[-OUTPUT_SHOWN:]
    often = f", {len(result.failures) + 1} times" if result.failures else ""
    return f"gate {result.gate!r} exited {result.exit_code} on {result.commit[:12]}{often}:\n{tail}"


policy = Gating()
