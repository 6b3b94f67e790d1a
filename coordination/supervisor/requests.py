"""What exactly is a run asked? State and repository in, ``request.json`` out; the same run gives the same request."""

from __future__ import annotations

import os
import unicodedata
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from coordination import sandbox
from coordination.coordinator import Coordinator
from coordination.errors import NotFound
from coordination.model.events import Evidence
from coordination.model.protection import touched
from coordination.model.reviews import REVIEW_SCHEMA
from coordination.model.roles import Role
from coordination.model.runs import (
    AgentRequest,
    Confinement,
    GateCommand,
    GateResult,
    LandingRequest,
    MemberRequest,
    Pooling,
    Purpose,
    RunRequest,
    SandboxRequest,
    SetUp,
    WorkspaceRequest,
)
from coordination.model.state import Run, Task, gate_results
from coordination.planning import prompts
from coordination.settings import Agents, Settings, Workspaces

DIFF_BYTES_MAX = 400_000
SINCE_BYTES_MAX = 60_000
PATHS_MAX = 200
TRAILER_MAX = 500  # signs of a trailer's value
_GIB = 1 << 30
_AGENT_OPEN = frozenset({"agent_workspaces", "scratch"})  # what an agent's shell may see of the state directory
_SECRETS = (
    ".ssh",
    ".aws",
    ".gnupg",
    ".netrc",
    ".config",
    ".claude",
    ".claude.json",
    ".docker",
    ".kube",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".pgpass",
    ".vault-token",
    ".azure",
    ".password-store",
    ".local/share/keyrings",
    ".cargo/credentials.toml",
    ".m2/settings.xml",
    ".gem/credentials",
    ".bash_history",
    ".zsh_history",
)


def branch(task: str) -> str:
    """The branch a task works on."""
    return f"coordination/task/{task}"


def session_of(coordinator: Coordinator, run: Run) -> str:
    """The session that a run begins or goes on with; what it keeps is in the directory of that name."""
    return str(uuid.uuid5(uuid.UUID(coordinator.store.log.uuid), run.continues or run.id))


def build(coordinator: Coordinator, task: Task, run: Run) -> RunRequest:
    """Everything the worker of a run may know."""
    request = _frame(coordinator, task, run)
    match run.purpose:
        case Purpose.WORK:
            return replace(request, workspace=_work_place(task, run), agent=_work(coordinator, task, run))
        case Purpose.REVIEW:
            return replace(request, agent=_review(coordinator, task, run))
        case Purpose.GATE:
            return replace(request, gates=_gates(coordinator, [task], (run.gate,)))
        case Purpose.LANDING:
            others = _others(coordinator, run)
            names = [*_gate_names(coordinator, task), *(name for other in others for name in other.gates or ())]
            members = [task, *(coordinator.store.state.tasks[other.task] for other in others)]
            gates = _gates(coordinator, members, tuple(dict.fromkeys(names)))
            return replace(request, gates=gates, landing=_landing(coordinator, task, run, others))


def _frame(coordinator: Coordinator, task: Task, run: Run) -> RunRequest:
    """What every run is told; its workspace is the commit it judges, and nobody else's."""
    return RunRequest(
        run=run.id,
        task=task.id,
        purpose=run.purpose,
        token=run.token,
        repository=str(coordinator.home.repository.common),
        state_directory=str(coordinator.home.state),
        workspace=WorkspaceRequest(name=run.id, base=run.base, commit=run.commit),
        limits=run.limits,
        confinement=_confinement(coordinator.run_group(run.id), coordinator.settings.agents),
        setup=_setup(coordinator),
        sandbox=_sandbox(coordinator),
        pooling=_pooling(coordinator.settings.workspaces),
        title=f"{task.spec.title} [{task.id}]",
        stop_grace_seconds=coordinator.settings.supervisor.stop_grace_seconds,
        author={
            "Coordination-Task": task.id,
            "Coordination-Run": run.id,
            "Coordination-Role": run.role,
        },
    )


def _confinement(group: str, agents: Agents) -> Confinement:
    return Confinement(
        group=group,
        memory_bytes=int(agents.memory_gib * _GIB),
        processes=agents.processes_max,
        file_bytes=int(agents.file_gib * _GIB),
    )


def _setup(coordinator: Coordinator) -> SetUp:
    setup = coordinator.settings.setup
    return SetUp(
        commands=setup.commands,
        copy=setup.copy,
        keep=setup.keep,
        key=setup.key,
        root=str(coordinator.home.repository.root),
        network=setup.network,
        timeout_seconds=setup.timeout_seconds,
    )


def _sandbox(coordinator: Coordinator) -> SandboxRequest:
    """Within what gates and set-up run: what they need not see is the state directory, and the user's secrets."""
    wanted = coordinator.settings.agents.sandbox
    home = coordinator.home
    return SandboxRequest(
        program="" if wanted == "off" else sandbox.find(os.environ.get("PATH", "")),
        required=wanted == "require",
        hidden=(str(home.state), *_secrets()),
        shown=(str(home.repository.common), str(home.repository.root)),
    )


def _pooling(workspaces: Workspaces) -> Pooling:
    return Pooling(trees=workspaces.pool, bytes=int(workspaces.pool_gib * _GIB), files_min=workspaces.pool_files_min)


def _work_place(task: Task, run: Run) -> WorkspaceRequest:
    if task.spec.kind.read_only:
        return WorkspaceRequest(name=task.id, base=run.base, commit=run.base)
    return WorkspaceRequest(
        name=task.id, base=run.base, branch=branch(task.id), commit=task.commit, bring_in=run.bring_in
    )


def _work(coordinator: Coordinator, task: Task, run: Run) -> AgentRequest:
    role = _role(coordinator, run.role)
    instructions, packed = coordinator.context_for(run.base, task.spec.context)
    prompt = prompts.work(task, run, context="" if run.lean else packed)
    writes = role.writes and not task.spec.kind.read_only
    return _agent(coordinator, task, run, role, prompt=prompt, instructions=instructions, writes=writes, place=task.id)


def _review(coordinator: Coordinator, task: Task, run: Run) -> AgentRequest:
    role = _role(coordinator, run.role)
    instructions, packed = coordinator.context_for(run.base, task.spec.context)
    work, settings = task.work_of(run.commit), coordinator.settings
    outcome = work.outcome if work is not None else None
    diff = coordinator.workspaces.diff(outcome.base if outcome is not None else run.base, run.commit, DIFF_BYTES_MAX)
    prompt = prompts.review(
        task,
        run,
        diff=diff,
        gates=list(gate_results(task.present, run.commit).values()),
        context=packed,
        since=_since(coordinator, task, run),
        protected=touched(outcome, settings.review.protected).protected,
    )
    return _agent(
        coordinator,
        task,
        run,
        role,
        prompt=prompt,
        instructions=instructions,
        writes=False,
        place=run.id,
        schema=REVIEW_SCHEMA,
    )


def _since(coordinator: Coordinator, task: Task, run: Run) -> str:
    """What changed since the commit that the last round judged, in files that the task changed then or now."""
    before = prompts.rounds(task, run)
    if not before or before[-1].commit == run.commit:
        return ""
    works = [task.work_of(commit) for commit in (before[-1].commit, run.commit)]
    outcomes = [work.outcome for work in works if work is not None and work.outcome is not None]
    # what others landed meanwhile may have come in between the two, and is not this task's
    names = sorted({name for outcome in outcomes for name in outcome.changed})
    paths = names if len(names) <= PATHS_MAX and not any(outcome.unlisted for outcome in outcomes) else ()
    return coordinator.workspaces.diff(before[-1].commit, run.commit, SINCE_BYTES_MAX, paths)


def _agent(
    coordinator: Coordinator,
    task: Task,
    run: Run,
    role: Role,
    *,
    prompt: str,
    instructions: str,
    writes: bool,
    place: str,
    schema: dict[str, Any] | None = None,
) -> AgentRequest:
    state, settings = coordinator.home.state, coordinator.settings
    session = session_of(coordinator, run)
    override = settings.roles.get(role.name)
    told = (
        f"{role.instructions}\n\n# The repository's own CLAUDE.md\n\n{instructions}"
        if instructions
        else role.instructions
    )
    common = coordinator.home.repository.common
    return AgentRequest(
        run=run.id,
        task=task.id,
        role=role.name,
        backend=settings.agents.backend or role.backend,
        prompt=prompt,
        instructions=told,
        model=run.model,
        fallback_model=(override.fallback_model if override else "") or role.fallback_model,
        tools=role.tools,
        writes=writes,
        shell=role.shell and (writes or task.spec.kind.read_only),
        commit=run.commit,
        schema=schema,
        limits=run.limits,
        session=session,
        resume=bool(run.continues),
        continuation=prompts.continued(task) if run.continues else "",
        directory=str(state / "agent_workspaces" / place),
        run_directory=str(coordinator.run_directory(run.id)),
        config_directory=str(state / "sessions" / session),
        deny_write=(str(common), *_closed(state)),
        deny_read=(*_closed(state), *_secrets()),
        sandbox=settings.agents.sandbox,
        options={
            "binary": os.environ.get("COORDINATION_CLAUDE", ""),
            "shell_without_sandbox": settings.agents.shell_without_sandbox,
            "no_output_seconds": settings.agents.no_output_seconds,
            "result_grace_seconds": settings.agents.result_grace_seconds,
            "stop_grace_seconds": settings.supervisor.stop_grace_seconds,
            "start_gate": str(state / "locks"),
            "start_slots": settings.agents.start_slots or os.cpu_count() or 1,
            "retries_max": settings.agents.retries_max,
            "api_timeout_seconds": settings.agents.api_timeout_seconds,
            # a cap is to hold whoever dies; without one nobody is charged with what may never have been said
            "response_usd": settings.money.response_usd if _capped(settings) else 0.0,
        },
    )


def _capped(settings: Settings) -> bool:
    caps = [settings.money.total_usd, settings.money.day_usd, *(role.day_usd for role in settings.roles.values())]
    return any(cap is not None for cap in caps)


def _closed(state: Path) -> tuple[str, ...]:
    """Entries of the state directory that no agent has business with."""
    return tuple(sorted(str(entry) for entry in state.iterdir() if entry.name not in _AGENT_OPEN))


def _secrets() -> tuple[str, ...]:
    home = Path.home()
    return tuple(str(home / name) for name in _SECRETS if (home / name).exists())


def _role(coordinator: Coordinator, name: str) -> Role:
    role = coordinator.roles.get(name)
    if role is None:
        raise NotFound(f"role {name!r} is no longer loaded; `coord roles` lists what is")
    return role


def _gate_names(coordinator: Coordinator, task: Task) -> tuple[str, ...]:
    return task.spec.gates if task.spec.gates is not None else coordinator.settings.gates.default


def _gates(coordinator: Coordinator, tasks: Sequence[Task], names: tuple[str, ...]) -> tuple[GateCommand, ...]:
    settings = coordinator.settings.gates
    named = settings.named
    # who tries again wants to see it run
    doubted = any(sent.kind == "retried" for task in tasks for sent in task.feedback)
    missing = [name for name in names if name not in named]
    if missing:
        raise NotFound(f"gate {missing[0]!r} is no longer configured in coordination.toml")
    return tuple(
        GateCommand(
            name=name,
            argv=named[name].argv,
            timeout_seconds=named[name].timeout_seconds,
            network=named[name].network,
            reruns=settings.reruns,
            cache=settings.cache and named[name].cache,
            fresh=doubted,
        )
        for name in names
    )


def _said(gate: GateResult) -> str:
    return "flaky" if gate.flaky else "passed" if gate.passed else str(gate.exit_code)


def _landing(coordinator: Coordinator, task: Task, run: Run, others: Sequence[MemberRequest]) -> LandingRequest:
    own = _member(coordinator, task, run)
    return LandingRequest(
        commit=own.commit,
        branch=coordinator.settings.git.integration,
        target=coordinator.settings.git.target,
        message=own.message,
        trailers=own.trailers,
        gates=own.gates,
        onto=run.onto,
        batch=tuple(others),
    )


def _others(coordinator: Coordinator, run: Run) -> list[MemberRequest]:
    """Those that a landing takes along: still approved at that commit, with gates that are configured."""
    named, tasks = coordinator.settings.gates.named, coordinator.store.state.tasks
    known = [tasks[member.task] for member in run.batch if member.task in tasks]  # its submission may be lost
    able = [task for task in known if task.lands_with == run.id]
    found = [_member(coordinator, task, run) for task in able if task.evidence is not None]
    return [member for member in found if all(name in named for name in member.gates or ())]


def _member(coordinator: Coordinator, task: Task, run: Run) -> MemberRequest:
    """One approved commit, with what its merge is to say."""
    evidence = task.evidence
    assert evidence is not None
    return MemberRequest(
        task=task.id,
        commit=evidence.commit,
        message=f"Land {task.id}: {_plain(task.spec.title)}",
        trailers=trailers(task, run, evidence),
        gates=_gate_names(coordinator, task),
    )


def trailers(task: Task, run: Run, evidence: Evidence) -> dict[str, str]:
    """What the merge says of itself, one line each; what others wrote makes no line and no trailer of its own."""
    gates = ", ".join(f"{gate.gate}={_said(gate)}" for gate in evidence.gates)
    plain = f", {evidence.binaries} without lines" if evidence.binaries else ""
    said = {
        "Coordination-Task": task.id,
        "Coordination-Run": run.id,
        "Coordination-Reviewed": evidence.commit,
        "Coordination-Reviewer": f"{evidence.reviewer} {evidence.person}" if evidence.reviewer else "none",
        "Coordination-Verdict": evidence.verdict,
        "Coordination-Gates": gates or ("none ran" if evidence.gates_configured else "none configured"),
        "Coordination-Reason": evidence.reason,
        "Coordination-Diff": f"{evidence.files} files, +{evidence.insertions} -{evidence.deletions}{plain}",
        "Coordination-Cost-USD": f"{task.usage.cost_usd:.6f}",
    }
    return {name: _plain(value) or "none" for name, value in said.items()}


def _plain(text: str) -> str:
    """On one line, of bounded length, and without signs that steer a terminal or that nobody sees."""
    joined = " ".join(text.split())
    seen = "".join(sign for sign in joined if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Cn"))
    return seen if len(seen) <= TRAILER_MAX else f"{seen[: TRAILER_MAX - 1]}…"
