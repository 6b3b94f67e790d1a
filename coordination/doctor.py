"""Is everything here that an unattended night needs? One check a thing: what was found, and what to do about it.

Nothing is guessed from a version number where it can be tried: a lock is taken, a file is published, the program is
started with all of our arguments (and never asked anything, so that it costs nothing).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from coordination import confinement, environment, files, filesystem, sandbox, workspaces
from coordination.agents.claude import find_binary, probing, sandbox_works
from coordination.coordinator import Coordinator, Home, initialise
from coordination.env import REAL
from coordination.errors import CoordinationError, LogDamaged, Refused
from coordination.supervisor.children import reap
from coordination.supervisor.leftovers import ended_processes

State = Literal["ok", "weaker", "fails"]

PYTHON_MIN = (3, 11)
FREE_BYTES_MIN = 2 << 30  # what a night of worktrees and sessions easily takes


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. ``weaker``: it works, and less is promised than could be."""

    name: str
    state: State
    found: str
    advice: str = ""


Looks = Callable[["Patient"], Iterator[Check]]


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at: one repository, as one process sees it."""

    home: Home
    variables: Mapping[str, str]

    @property
    def path(self) -> str:
        """Where programs are looked for."""
        return self.variables.get("PATH", "")

    def coordinator(self) -> Coordinator | None:
        """Its coordination; None before ``coord init``."""
        try:
            return Coordinator(self.home)
        except Refused:
            return None


def examine(home: Home, variables: Mapping[str, str]) -> Iterator[Check]:
    """Look at everything, one after the other. Writes nothing that stays."""
    patient = Patient(home=home, variables=variables)
    for name, look in _LOOKS.items():
        try:
            yield from look(patient)
        except (CoordinationError, OSError, subprocess.TimeoutExpired) as error:
            yield Check(name=name, state="fails", found=str(error))


def fix(home: Home) -> list[str]:
    """Do what can be done without asking: directories, modes, processes that ended runs left. What was done."""
    done = []
    if (home.state / "log").is_dir() and initialise(home):
        done.append(f"made what was missing in {home.state}")
    patient = Patient(home=home, variables={})
    coordinator = patient.coordinator()
    if coordinator is not None:
        for run in sorted(set(ended_processes(coordinator).values())):
            killed = reap(coordinator.run_marker(run))
            done.append(f"killed {killed} processes that {run} left")
    return done


def _python(patient: Patient) -> Iterator[Check]:
    del patient
    fine = sys.version_info >= PYTHON_MIN
    wanted = ".".join(map(str, PYTHON_MIN))
    yield Check(
        name="python",
        state="ok" if fine else "fails",
        found=f"{platform.python_version()} on {platform.system()}",
        advice="" if fine else f"install Python {wanted} or newer",
    )
    if platform.system() != "Linux":
        yield Check(
            name="system",
            state="weaker",
            found=f"{platform.system()}: stopped lock holders are not seen, and what flees from a run is not adopted",
            advice="Linux is what everything was tried on",
        )


def _git(patient: Patient) -> Iterator[Check]:
    del patient
    yield Check(name="git", state="ok", found=workspaces.version())


def _claude(patient: Patient) -> Iterator[Check]:
    binary = find_binary(patient.variables.get("COORDINATION_CLAUDE", ""), patient.path)
    said = probing.version(binary, patient.path)
    yield Check(
        name="claude",
        state="ok" if said else "fails",
        found=f"{said or 'says no version'} ({binary})",
        advice="" if said else "install Claude Code anew, or set COORDINATION_CLAUDE to a program that works",
    )
    wrong = probing.probe(binary, patient.path)
    yield Check(
        name="claude's abilities",
        state="fails" if wrong else "ok",
        found=wrong or "it takes our arguments, arms the fence and applies our settings",
        advice="install another version, or set COORDINATION_CLAUDE to a program that works" if wrong else "",
    )


def _login(patient: Patient) -> Iterator[Check]:
    name = probing.named(patient.variables)
    url = patient.variables.get("ANTHROPIC_BASE_URL", "")
    if name:
        yield Check(name="login", state="ok", found=f"{name} is set" + (f", for {url}" if url else ""))
    elif environment.signed_in(patient.variables):
        yield Check(name="login", state="weaker", found=f"no key, and a service of its own: {url}")
    else:
        yield Check(
            name="login",
            state="fails",
            found="neither a key nor a login",
            advice="set ANTHROPIC_API_KEY, or CLAUDE_CODE_OAUTH_TOKEN from `claude setup-token`",
        )


def _sandbox(patient: Patient) -> Iterator[Check]:
    works = sandbox_works(patient.path)
    yield Check(
        name="sandbox",
        state="ok" if works else "weaker",
        found="works" if works else "does not work: agents get no shell unless the settings allow it",
        advice="" if works else "install bubblewrap and socat, and allow unprivileged user namespaces",
    )


def _gate_sandbox(patient: Patient) -> Iterator[Check]:
    program = sandbox.find(patient.path)
    yield Check(
        name="sandbox of gates",
        state="ok" if program else "weaker",
        found=f"works ({program})" if program else "does not work: gates run with all that you may do, but no keys",
        advice="" if program else "install bubblewrap, and allow unprivileged user namespaces",
    )


def _number_of_user() -> int:
    return os.getuid()


def _user(patient: Patient) -> Iterator[Check]:
    del patient
    root = _number_of_user() == 0
    yield Check(
        name="user",
        state="weaker" if root else "ok",
        found="root: from its sandbox an agent's shell can change settings of the kernel, and so what runs outside"
        if root
        else "not root",
        advice="run it as an ordinary user, or in a machine of its own" if root else "",
    )


def _limits(patient: Patient) -> Iterator[Check]:
    del patient
    limited = confinement.works()
    missing = [what for what in ("memory", "processes") if what not in limited]
    advice = "start it where control groups may be made: as root, or with `systemd-run --user --scope -p Delegate=yes`"
    yield Check(
        name="limits of a run",
        state="weaker" if missing else "ok",
        found=f"not limited here: {' and '.join(missing)}" if missing else "memory and processes are limited",
        advice=advice if missing else "",
    )


def _filesystem(patient: Patient) -> Iterator[Check]:
    place = patient.home.state if patient.home.state.is_dir() else patient.home.repository.common
    filesystem.check(place)
    with tempfile.TemporaryDirectory(prefix=".doctor.", dir=place) as name:
        directory = Path(name)
        files.publish(directory / "a", b"whole")
        if files.read(directory / "a") != b"whole":
            raise OSError(f"{place}: what was published is not what is read")
        one, two = (REAL.open_write(directory / "lock") for _ in range(2))
        try:
            excludes = REAL.try_lock(one) and not REAL.try_lock(two)
        finally:
            REAL.close(one)
            REAL.close(two)
    yield Check(
        name="filesystem",
        state="ok" if excludes else "fails",
        found=f"{place}: rename and sync work, locks {'exclude' if excludes else 'do not exclude'}",
        advice="" if excludes else "point COORDINATION_HOME to a directory on a local disk",
    )


def _disk(patient: Patient) -> Iterator[Check]:
    free = shutil.disk_usage(patient.home.repository.common).free
    fine = free >= FREE_BYTES_MIN
    yield Check(
        name="disk",
        state="ok" if fine else "weaker",
        found=f"{free / (1 << 30):.1f} GiB free",
        advice="" if fine else "make room: each task takes a worktree, each session some megabytes",
    )


def _settings(patient: Patient) -> Iterator[Check]:
    coordinator = patient.coordinator()
    if coordinator is None:
        yield Check(name="repository", state="fails", found="no coordination here yet", advice="run `coord init`")
        return
    settings, roles = coordinator.settings, coordinator.roles
    gates = ", ".join(settings.gates.default)
    yield Check(
        name="settings",
        state="ok" if gates else "weaker",
        found=f"{len(roles)} roles; gates by default: {gates or 'none'}",
        advice="" if gates else "name a command in [gates]: without one every change needs a reviewer",
    )


def _log(patient: Patient) -> Iterator[Check]:
    coordinator = patient.coordinator()
    if coordinator is None:
        return
    try:
        report = coordinator.examine_log()
    except LogDamaged as error:
        yield Check(name="log", state="fails", found=str(error), advice="`coord repair`")
        return
    found = f"{report.batches} batches, whole" if report.whole else f"{len(report.findings)} places are damaged"
    yield Check(
        name="log",
        state="ok" if report.whole else "fails",
        found=found,
        advice="" if report.whole else "`coord repair` says what is lost, `coord repair --apply` mends it",
    )


def _processes(patient: Patient) -> Iterator[Check]:
    coordinator = patient.coordinator()
    if coordinator is None:
        return
    strays = ended_processes(coordinator)
    runs = ", ".join(sorted(set(strays.values())))
    yield Check(
        name="processes",
        state="fails" if strays else "ok",
        found=f"{len(strays)} are left of runs that have ended: {runs}" if strays else "none left of ended runs",
        advice="`coord doctor --fix` kills them" if strays else "",
    )


_LOOKS: dict[str, Looks] = {
    "python": _python,
    "git": _git,
    "claude": _claude,
    "login": _login,
    "sandbox": _sandbox,
    "sandbox of gates": _gate_sandbox,
    "user": _user,
    "limits of a run": _limits,
    "filesystem": _filesystem,
    "disk": _disk,
    "settings": _settings,
    "log": _log,
    "processes": _processes,
}
