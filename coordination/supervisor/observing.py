"""What became of a run? Its directory and its lock in, events out.

An outcome is only a claim: it counts with the run's fencing token, and a commit it names must be where it says. A run
whose worker is gone without one ends here too, after everything it left running was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from coordination import agents, files, locks
from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.model import commands
from coordination.model import events as e
from coordination.model.runs import Ending, Outcome, Purpose, Usage
from coordination.model.state import Run, State, Task
from coordination.supervisor import requests
from coordination.supervisor.children import Children, reap
from coordination.supervisor.papers import told, worker_pid

NAMES_MAX = 1000  # of the files that a commit changes: what is beyond counts as protected
NAMES_SIGNS_MAX = 64 * 1024
CITED_MAX = 200


class Observer:
    """Looks at runs that the log thinks alive. Writes nothing but ``revoked``."""

    def __init__(self, coordinator: Coordinator, children: Children, mark: Callable[[str], None]) -> None:
        self._coordinator, self._children, self._mark = coordinator, children, mark

    def events(self, state: State, run: Run) -> list[e.AnyEvent]:
        """What the log does not know yet of a run."""
        directory = self._coordinator.run_directory(run.id)
        # Asked before looking, or we would race the worker: it publishes its outcome before it lets go of the lock.
        held = locks.held(directory / "worker.lock")
        claim = None if held else told(directory / "outcome.json")
        worker = told(directory / "worker.json")
        events = list(commands.start(run, pid=worker_pid(worker))) if worker is not None else []
        if held:
            return events
        if claim is not None:
            return events + list(self._claimed(state, run, claim))
        if worker is not None:
            return events + self._died(run, "the worker died without an outcome", "worker_died")
        if run.started_at:
            # Its lock went with its directory, so whether the worker lives cannot be asked; begun again it never is.
            return self._died(run, f"the directory of the run is gone: {directory}", "directory_lost")
        code = self._children.exit_code(run.id)
        return [] if code is None else self._never_began(run, directory, code)

    def _claimed(self, state: State, run: Run, claim: Any) -> Sequence[e.AnyEvent]:
        """An outcome is a claim: it must be of this run, of this token, and its commit must be where it says."""
        try:
            outcome = msgspec.convert(claim["outcome"], Outcome)
            token, name = int(claim["token"]), str(claim["run"])
        except (msgspec.ValidationError, KeyError, TypeError, ValueError) as error:
            return self._died(run, f"outcome.json is not an outcome: {error}", "malformed_outcome")
        if name != run.id:
            return self._died(run, f"outcome.json is of {name!r}", "foreign_outcome")
        outcome = self._checked(state.find(run.task), run, outcome)
        reap(self._coordinator.run_marker(run.id))
        events = commands.end(state, run.id, outcome, token=token)
        if events and isinstance(events[0], e.RunRefused):
            return [*events, *self._died(run, "its outcome was refused", "superseded")]
        return events

    def _checked(self, task: Task, run: Run, outcome: Outcome) -> Outcome:
        """With what git says of the commit, whatever the run says: from which base, how large, and which files."""
        outcome = replace(outcome, changed=(), unlisted=0)
        if run.purpose is Purpose.LANDING:
            return self._proven(run, outcome)
        outcome = replace(outcome, batch=())
        if run.purpose is not Purpose.WORK:
            return outcome
        outcome = replace(outcome, base=run.bring_in or run.base)
        if outcome.ending is not Ending.SUCCEEDED or task.spec.kind.read_only or not outcome.commit:
            # a commit beside a failure or a report was looked at by nobody, and must not come to be the task's
            return replace(outcome, commit="", diff=None, cited=self._there(outcome))
        try:
            doubt = self._doubt(run, outcome.commit)
            if not doubt:
                outcome = self._measured(outcome)
                doubt = "" if outcome.changed else f"{outcome.commit[:12]} changes nothing"
        except CoordinationError as error:
            doubt = f"{outcome.commit[:12]} cannot be found: {error}"
        if not doubt:
            return outcome
        # without its commit: what is not believed must not count as judged, should the next run arrive at it
        return replace(outcome, ending=Ending.FAILED, code="unproven_commit", reason=doubt, commit="", diff=None)

    def _proven(self, run: Run, outcome: Outcome) -> Outcome:
        """The outcome of a landing, with only those merges that are on the branch and took in what was approved.

        What is not proven is not known: it is landed again, and found on the branch if it is there after all.
        """
        approved = {member.task: member.commit for member in run.batch}
        others = [landed for landed in outcome.batch if landed.kind == "merged"]
        claims = {(landed.merge, approved.get(landed.task, "")) for landed in others}
        own = (outcome.commit, run.commit)
        if outcome.ending is Ending.SUCCEEDED and outcome.commit:
            claims.add(own)
        try:
            proven = self._coordinator.workspaces.proven(self._coordinator.settings.git.integration, claims)
        except CoordinationError:
            proven = set()
        doubtful = {each.task for each in others if (each.merge, approved.get(each.task, "")) not in proven}
        batch = tuple(
            replace(landed, kind="left", merge="") if landed.task in doubtful else landed for landed in outcome.batch
        )
        if own in claims - proven:
            reason = f"{outcome.commit[:12]}, which it says it landed, is not on the integration branch as a merge of "
            reason += f"{run.commit[:12]}"
            outcome = replace(outcome, ending=Ending.CRASHED, code="unproven_landing", reason=reason, commit="")
        return replace(outcome, batch=batch)

    def _there(self, outcome: Outcome) -> tuple[str, ...]:
        """The cited files that are in the commit the report is about."""
        if not outcome.cited:
            return ()
        try:
            found = self._coordinator.workspaces.exists_at(outcome.base, outcome.cited[:CITED_MAX])
        except CoordinationError:
            return ()
        return tuple(name for name in outcome.cited[:CITED_MAX] if name in found)

    def _doubt(self, run: Run, commit: str) -> str:
        """Why a claimed commit cannot be believed; empty when it can."""
        workspaces = self._coordinator.workspaces
        if workspaces.resolve(requests.branch(run.task)) != commit:
            return f"the task's branch is not at {commit[:12]}, which the run says it committed"
        if not workspaces.is_ancestor(run.base, commit):
            return f"{commit[:12]} does not descend from the base {run.base[:12]}"
        return ""

    def _measured(self, outcome: Outcome) -> Outcome:
        git = self._coordinator.settings.git
        branches = [f"refs/heads/{name}" for name in (git.integration, git.target) if name]
        diff, changed = self._coordinator.workspaces.landing_change(outcome.base, outcome.commit, branches)
        listed = _listed(changed)
        return replace(outcome, diff=diff, changed=listed, unlisted=len(changed) - len(listed))

    def _died(self, run: Run, reason: str, code: str) -> list[e.AnyEvent]:
        """Kill what the worker left, then record its end; a run we stopped is nobody's failure."""
        reap(self._coordinator.run_marker(run.id))
        self._children.end_orphans()
        stop = told(self._coordinator.run_directory(run.id) / "stop.json")
        ending = Ending.CRASHED
        if stop is not None:
            ending, code = (Ending.TIMED_OUT, "timeout") if stop.get("why") == "timeout" else (Ending.STOPPED, "killed")
            reason = f"stopped: {stop.get('why')}"
        self._mark("reaped")
        outcome = Outcome(ending=ending, code=code, reason=reason, usage=self._spent(run), model=run.model)
        return [e.RunEnded(task=run.task, run=run.id, outcome=outcome)]

    def _spent(self, run: Run) -> Usage:
        """What a run without an outcome had spent: by what it left, else by what it last said, else all it might."""
        directory = self._coordinator.run_directory(run.id)
        said = (told(directory / "progress.json") or {}).get("cost_usd")
        least = float(said) if isinstance(said, (int, float)) and said > 0 else 0.0
        if not run.account:
            return Usage(cost_usd=least, estimated=least > 0)
        try:
            found = agents.spent(run.account, directory)
        except (CoordinationError, OSError):
            found = None
        if found is not None:
            return replace(found, cost_usd=max(least, found.cost_usd))
        asked = said is not None or run.started_at
        owed = max(least, run.limits.budget_usd or 0.0) if asked else 0.0
        return Usage(cost_usd=owed, estimated=owed > 0)

    def _never_began(self, run: Run, directory: Path, code: int) -> list[e.AnyEvent]:
        """Our worker left without beginning. Give the run up first, then look again: another one may just begin."""
        files.make_directory(directory)
        files.publish(directory / "revoked", b"")
        if locks.held(directory / "worker.lock") or (directory / "worker.json").exists():
            return []
        log = directory / "worker.log"
        said = files.read(log).decode("utf-8", "replace")[-2000:].strip() if log.exists() else ""
        return self._died(run, f"the worker exited {code} before it began: {said}", f"worker_exit:{code}")


def _listed(names: Sequence[str]) -> tuple[str, ...]:
    """As many as may stand in the log."""
    signs, listed = 0, []
    for name in names[:NAMES_MAX]:
        signs += len(name)
        if signs > NAMES_SIGNS_MAX:
            break
        listed.append(name)
    return tuple(listed)
