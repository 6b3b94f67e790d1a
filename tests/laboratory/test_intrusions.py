"""Whatever others do while one process stands still between two gestures, the log keeps its word to all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from coordination.log.file import FileLog
from coordination.testing import intrusions
from coordination.testing.intrusions import Case, chosen, every, main, play, search, walk


@pytest.mark.timeout(3600)
def test_the_log_survives_every_intrusion(tier: int, seed: int, figure: Callable[..., None]) -> None:
    """Cases at random out of all: what happened before, what is done, who intrudes, at which gesture."""
    report = search(chosen(seed, 600) if tier == 1 else itertools.chain(walk(), chosen(seed, 60_000)))
    kinds = len(list(every()))
    figure(
        "G1", "intrusions between two gestures", report.cases, violations=len(report.violations), note=f"{kinds} kinds"
    )
    assert not report.violations, "\n".join(report.violations)
    assert report.intruded > report.cases // 2


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("_become_durable", lambda *_: None),
        ("_taken_over", lambda *_: True),
    ],
)
def test_a_planted_bug_is_found(
    name: str, replacement: Callable[..., object], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Positive control: a log that acknowledges what is not durable, or what a recovery left behind, is found out."""
    monkeypatch.setattr(FileLog, name, replacement)
    report = search(itertools.chain(chosen(seed, 500), walk()), violations_max=100)
    assert any("lost" in violation for violation in report.violations), report.violations[:3]


def test_a_violation_names_the_case_that_shows_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    """The command that a violation ends with finds the same violation, and only it."""
    monkeypatch.setattr(FileLog, "_become_durable", lambda *_: None)
    violation = search(chosen(seed, 500), violations_max=1).violations[0]
    what, _, command = violation.partition("\n    again: python -m coordination.testing.intrusions --case ")
    assert main(["--case", command.strip("'\"")]) == 1
    assert what in capsys.readouterr().out


def test_a_case_is_the_same_every_time() -> None:
    """No chance is left once the case is chosen: the victim makes the same gestures and is told the same."""
    case = Case(("append", "die before the sync"), "live", ("lose the cache", "append"), 300, 40)
    stages = []
    for _ in range(2):
        stage = intrusions._Stage(case)
        assert stage.play() == []
        stages.append((stage.gestures, stage.events, stage.seen))
    assert stages[0] == stages[1]


def test_the_intruders_come_when_it_is_their_time() -> None:
    """Before the victim's gesture of that number, and not at all when there is none."""
    alone = Case((), "append", ("append",), 300, 0)
    assert play(alone) == ([], False)
    stage = intrusions._Stage(alone)
    stage.play()
    last = stage.gestures
    for gesture, intruded in ((1, True), (last, True), (last + 1000, False)):
        assert play(Case((), "append", ("append",), 300, gesture)) == ([], intruded)


def test_the_command_counts(capsys: pytest.CaptureFixture[str], seed: int) -> None:
    """It prints how many cases it tried and ends with 0 when nothing was wrong."""
    assert main(["--cases", "20", "--seed", str(seed)]) == 0
    assert capsys.readouterr().out.startswith("20 cases")
