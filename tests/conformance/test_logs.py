"""Every log engine that ships behaves as the suite says."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination import log as logs
from coordination.log import Log
from coordination.log.file import FileLog, create
from coordination.testing import log_conformance
from coordination.testing.log_conformance import Check, Connect

_names = itertools.count()


@pytest.fixture(params=["file", "file with tiny segments", "memory"])
def connect(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connect]:
    opened: list[Log] = []
    name = f"conformance-{next(_names)}"
    if request.param.startswith("file"):
        create(tmp_path / "log")

    def connected() -> Log:
        if request.param == "memory":
            log = logs.connect(f"memory:{name}")
        elif request.param == "file":
            log = logs.connect(f"file:{tmp_path / 'log'}")
        else:
            log = FileLog(tmp_path / "log", segment_bytes=300)
        opened.append(log)
        return log

    yield connected
    for log in opened:
        log.close()


@pytest.mark.parametrize("check", log_conformance.CHECKS, ids=lambda check: check.__name__)
def test_engine_keeps_the_contract(check: Check, connect: Connect) -> None:
    """The engine does what the check's own sentence says."""
    assert check(connect) is None  # type: ignore[func-returns-value]
