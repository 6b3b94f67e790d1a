"""Do temporary files that a run has under a short path go, when its worker is killed in the midst of it?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination import temporary
from coordination.testing.stage import Stage

SETTINGS = {"supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.5}, "agents": {"sandbox": "off"}}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """In a directory of a long path, with a program that says nothing in the place of Claude Code."""
    made = Stage(tmp_path / ("long-" * 12), settings=SETTINGS).build()
    program = made.directory / "claude"
    program.write_text("#!/bin/sh\ntouch $TMPDIR/left\nexec sleep 1000\n")
    program.chmod(0o755)
    made.environment["COORDINATION_CLAUDE"] = str(program)
    yield made
    made.close()


def test_what_a_killed_worker_left_under_a_short_path_goes(stage: Stage) -> None:
    """The supervisor knows of the run by its scratch directory, which goes last."""
    run = str(stage.state / "runs/T.1.work")
    stage.drop(id="T", attempts_max=1, prompt="Do it.")
    stage.start()
    (directory,) = stage.wait_for(lambda: temporary.left(run), "temporary directory")
    stage.wait_for((directory / "left").exists, "file of the agent")
    assert stage.kill_worker("T.1.work")
    stage.wait_for(lambda: not temporary.left(run), "end of the temporary directory")
    stage.wait_for(lambda: not list((stage.state / "scratch").iterdir()), "end of the scratch directory")


def test_a_worker_that_ends_takes_it_along(stage: Stage) -> None:
    """However its program ended."""
    run = str(stage.state / "runs/T.1.work")
    stage.drop(id="T", attempts_max=1, prompt="Do it.")
    stage.start()
    stage.wait_for(lambda: temporary.left(run), "temporary directory")
    stage.coord("cancel", "T")
    stage.wait_for_event("RunEnded", run="T.1.work")
    stage.wait_for(lambda: not temporary.left(run), "end of the temporary directory")
