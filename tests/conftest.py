"""What every test gets: no settings of the machine it runs on, and a real repository for the asking."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from _pytest.terminal import TerminalReporter

from coordination import kin
from coordination.log.file import FileLog
from coordination.testing import linux
from coordination.testing.world import SimulatedEnv

# Several processes share the machine, so how long one example takes says nothing.
hypothesis.settings.register_profile("project", deadline=None)
hypothesis.settings.load_profile("project")

_OWN = ("ANTHROPIC_", "CLAUDE", "COORDINATION_", "GIT_")
_KEPT = {"COORDINATION_CLAUDE"}  # which binary to drive is the caller's to say
_GIT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@localhost",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@localhost",
}


@pytest.fixture(scope="session", autouse=True)
def neutral_environment() -> Iterator[None]:
    """Tests see neither keys nor git settings nor a coordination home of the one who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(_OWN) and name not in _KEPT]:
            patch.delenv(name)
        for name, value in _GIT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def closed_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test connected to is closed after it: a worker of the tests has a thousand descriptors and no more."""
    opened: list[FileLog] = []
    connect = FileLog.__init__

    def noted(self: FileLog, directory: Path, **options: Any) -> None:
        if not isinstance(options.get("env"), SimulatedEnv):
            opened.append(self)
        connect(self, directory, **options)

    monkeypatch.setattr(FileLog, "__init__", noted)
    yield
    for log in opened:
        with contextlib.suppress(Exception):  # its world may have ended before it
            log.close()


@pytest.fixture(autouse=True)
def unchanged_process() -> Iterator[None]:
    """A test that makes its process a supervisor makes others fail: they would get its signals and its orphans."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    left = [number.name for number in numbers if signal.getsignal(number) is not before[number]]
    for number, handler in before.items():
        signal.signal(number, handler)
    adopting = kin.adopting()
    if adopting:
        linux.adopt_orphans(adopting=False)
    assert left == [], "the test left handlers of signals"
    assert not adopting, "the test left its process to be given orphans: start what adopts as a process"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on the branch main, in a path with a space."""
    root = tmp_path / "the repository"
    root.mkdir()
    (root / "README.md").write_text("A repository.\n")
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=root, check=True, timeout=30)
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lies in ``e2e/`` is marked so."""
    for item in items:
        if "e2e" in item.path.parts:
            item.add_marker(pytest.mark.e2e)


# ---- figures of the laboratory: counted by tests, printed as one table at the end ------------------------------------

_COLUMNS = ("goal", "what", "count", "violations", "seed", "seconds", "note")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much of the laboratory is run, and where its table is kept."""
    parser.addoption("--tier", type=int, default=1, choices=(1, 2), help="1: what fits in CI; 2: the long search")
    parser.addoption("--seed", type=int, default=None, help="the laboratory's seed; default: the day's number")
    parser.addoption("--proof", type=Path, default=None, help="write the laboratory's table to this file")


@pytest.fixture(scope="session")
def tier(request: pytest.FixtureRequest) -> int:
    """1 in every run of the tests, 2 in the long search that is asked for."""
    chosen: int = request.config.getoption("--tier")
    return chosen


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """A number that changes daily, so that every day searches elsewhere; printed with each figure."""
    chosen: int | None = request.config.getoption("--seed")
    return int(time.time() // 86_400) if chosen is None else chosen


@pytest.fixture
def figure(record_property: Callable[[str, object], None], seed: int) -> Callable[..., None]:
    """Report what a test counted: ``figure("G1", "schedules", 2_431, violations=0, note="…")``."""
    begun = time.monotonic()

    def report(goal: str, what: str, count: int, *, violations: int = 0, note: str = "") -> None:
        seconds = round(time.monotonic() - begun, 1)
        row = (goal, what, count, violations, seed, seconds, note)
        record_property("figure", dict(zip(_COLUMNS, row, strict=True)))

    return report


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    """Print every figure, and every goal that could not be tried here."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, ())]
    rows = [value for report in reports for name, value in report.user_properties if name == "figure"]
    if not rows:
        return
    rows.sort(key=lambda row: (int(re.sub(r"\D", "", row["goal"]) or 0), row["goal"], row["what"]))
    table = [f"| {' | '.join(_COLUMNS)} |", "|" + " --- |" * len(_COLUMNS)]
    table += [f"| {' | '.join(_cell(row[column]) for column in _COLUMNS)} |" for row in rows]
    terminalreporter.section(f"laboratory, tier {config.getoption('--tier')}")
    for line in table:
        terminalreporter.line(line)
    target: Path | None = config.getoption("--proof")
    if target is not None:
        skipped = [f"* skipped: {report.longrepr[2]}" for report in terminalreporter.stats.get("skipped", ())]
        failed = [f"* failed: `{report.nodeid}`" for report in terminalreporter.stats.get("failed", ())]
        told = [*_preamble(config), "", *table, "", *failed, *skipped]
        target.write_text("\n".join(told).rstrip() + "\n", encoding="utf-8")


def _preamble(config: pytest.Config) -> list[str]:
    """Where and how the figures were counted."""
    show = ["git", "log", "-1", "--format=%h of %cs"]
    commit = subprocess.run(show, cwd=config.rootpath, capture_output=True, text=True, check=False, timeout=30)
    command = "./scripts/test.sh" if config.getoption("--tier") == 1 else "./scripts/test.sh --tier2"
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    return [
        "# Proof",
        "",
        "What the laboratory counted in its last long search. [laboratory.md](laboratory.md) explains the goals.",
        "",
        f"* command: `{command}`",
        f"* commit: {commit.stdout.strip()}, on {time.strftime('%Y-%m-%d')}",
        f"* machine: {machine}",
    ]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
