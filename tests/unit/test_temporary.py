"""Is what a run left under a short path found by the run alone, and is nothing else ever removed?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coordination import temporary
from coordination.agents.claude.invocation import TEMPORARY_BYTES_MAX

RUN = "/somewhere/.coordination/runs/T.1.work"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(temporary, "PLACE", tmp_path)
    return tmp_path


def test_it_is_there_for_the_time_and_short() -> None:
    """Nobody else may look into it; afterwards it is gone."""
    with temporary.made(RUN) as path:
        assert Path(path).stat().st_mode & 0o077 == 0
        assert temporary.left(RUN) == [Path(path)]
        assert len(f"/tmp/{Path(path).name}") <= TEMPORARY_BYTES_MAX
        (Path(path) / "file").touch()
    assert not Path(path).exists()


def test_what_a_killed_run_left_goes_and_what_is_of_others_stays(place: Path) -> None:
    """By its name, and only a directory of ours: no link, no file, no directory of another run."""
    begins = temporary.prefix(RUN)
    ours, linked, others = place / f"{begins}a", place / "linked", place / f"{temporary.prefix(RUN + '2')}a"
    for directory in (ours / "deep" / "er", linked, others):
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    (ours / "deep/out").symlink_to(linked)
    (place / f"{begins}link").symlink_to(linked)
    (place / f"{begins}file").write_text("x")
    (ours / "deep").chmod(0o500)
    temporary.clear(RUN)
    assert sorted(entry.name for entry in place.iterdir()) == sorted(
        [f"{begins}file", f"{begins}link", "linked", others.name]
    )
    assert (linked / "file").exists()
    temporary.clear(RUN)


def test_what_belongs_to_somebody_else_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may make a directory of that name where all may write."""
    (place / f"{temporary.prefix(RUN)}x").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    temporary.clear(RUN)
    assert len(list(place.iterdir())) == 1
