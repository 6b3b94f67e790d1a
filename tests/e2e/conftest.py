"""Stages for the tests here: each is looked over when its test ends, whatever the test was about."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordination.rehearsal.model_server import ModelServer
from coordination.testing.account import left_behind, replayed
from coordination.testing.stage import PASSES, Stage, with_claude

JSON = Any
Make = Callable[..., "Scene"]

SETTINGS: Mapping[str, JSON] = {
    "gates": {"default": ["unit"], "unit": list(PASSES)},
    "supervisor": {"poll_seconds": 0.1, "stop_grace_seconds": 0.5},
    "retry": {"backoff_seconds": 0.05},
}


class Scene(Stage):
    """A stage on which the real Claude Code talks to a scripted model."""

    server: ModelServer | None = None
    before: dict[str, JSON]

    def asked(self, text: str) -> list[Any]:
        """Requests to the model whose prompt holds the text."""
        assert self.server is not None
        return [request for request in self.server.requests if text in request.prompt]

    def ended(self) -> None:
        """What must hold at the end of every test: replay, no processes, nothing of the user's touched."""
        self.stop_all()
        told = json.loads(self.coord("replay", "--verify", "--json"))
        assert told["differs"] == []
        assert list(replayed(self)) == []
        assert list(left_behind(self)) == []
        now = self.users()
        assert {key: value for key, value in now.items() if value != self.before[key]} == {}

    def stop_all(self) -> None:
        """End the supervisors that a failed test left, and wait for those that are about to end."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=20)


@contextmanager
def scenes() -> Iterator[Make]:
    """A maker of scenes, each in a directory with a short name (sockets have little room), looked over at the end."""
    with ExitStack() as stack:

        def make(scripts: Sequence[JSON] = (), *, settings: Mapping[str, JSON] | None = None, **options: JSON) -> Scene:
            directory = Path(tempfile.mkdtemp(prefix="s."))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            server = stack.enter_context(ModelServer(list(scripts)))
            scene = Scene(directory, settings={**SETTINGS, **(settings or {})}, url=server.url, **options)
            scene.server = server
            stack.callback(scene.close)
            with_claude(scene).build()
            scene.before = scene.users()
            made.append(scene)
            return scene

        made: list[Scene] = []
        yield make
        for scene in made:
            scene.ended()


@pytest.fixture
def make() -> Iterator[Make]:
    """Scenes for one test."""
    with scenes() as maker:
        yield maker


@pytest.fixture(scope="module")
def make_once() -> Iterator[Make]:
    """Scenes for all tests of a module."""
    with scenes() as maker:
        yield maker
