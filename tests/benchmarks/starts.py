"""How many one-shot runs a second, when many Claude Codes are asked for at once: gated, or all together.

The real program talks to a scripted model on the loopback; each run says one sentence. What is compared is the same
twelve runs with and without the gate, one after the other in each round. Nothing can be faster than the processors: how
many runs a second they could do at most is measured beside it, from the processor time of runs that are alone.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from coordination.agents.claude import create, find_binary
from coordination.errors import Unsuitable
from coordination.model.runs import AgentRequest, Ending, Limits
from coordination.rehearsal.model_server import ModelServer

RUNS = 12
_ALONE = 4


def missing() -> str:
    """Why it cannot be measured here; "" when it can."""
    try:
        find_binary(os.environ.get("COORDINATION_CLAUDE", ""), os.environ.get("PATH", ""))
    except Unsuitable as error:
        return str(error)
    return ""


def per_second(directory: Path, *, gate: bool, runs: int = RUNS) -> float:
    """So many runs at once, and how many of them end a second. Raises RuntimeError when one does not succeed."""
    with (
        ModelServer({"s": [[{"type": "text", "text": "Done."}]]}) as server,
        tempfile.TemporaryDirectory(dir=directory, prefix="b-") as name,
        ThreadPoolExecutor(runs) as pool,
    ):
        place = Path(name)
        requests = [_request(place / str(number), server.url) for number in range(runs)]
        options = {"start_gate": str(place), "start_slots": os.cpu_count() or 1} if gate else {}
        options["binary"] = os.environ.get("COORDINATION_CLAUDE", "")
        begun = time.monotonic()
        endings = list(pool.map(lambda request: _ending(options, request), requests))
        taken = time.monotonic() - begun
    if set(endings) != {Ending.SUCCEEDED}:
        raise RuntimeError(f"expected {runs} runs that succeed, found {endings}")
    return runs / taken


def limit_per_second(directory: Path, runs: int = _ALONE) -> float:
    """How many runs a second all processors together could do, were none ever idle and none in another's way.

    Counted is what ``per_second`` needs, too: the program, our driving it and the model's server.
    """
    before = _processor_seconds()
    for _ in range(runs):
        per_second(directory, gate=False, runs=1)
    return (os.cpu_count() or 1) * runs / (_processor_seconds() - before)


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _ending(options: dict[str, Any], request: AgentRequest) -> Ending:
    return create(options).run(request, progress=lambda _: None, stopping=lambda: "").ending


def _request(directory: Path, url: str) -> AgentRequest:
    for name in ("home", "workspace", "run", "config"):
        (directory / name).mkdir(parents=True)
    return AgentRequest(
        run="T.1.work",
        task="T",
        role="green",
        backend="claude",
        prompt="[[script s]] Please.",
        instructions="You are Green.",
        model="sonnet",
        writes=True,
        limits=Limits(timeout_seconds=120.0),
        session=str(uuid.uuid4()),
        directory=str(directory / "workspace"),
        run_directory=str(directory / "run"),
        config_directory=str(directory / "config"),
        environment={
            "HOME": str(directory / "home"),
            "PATH": os.environ.get("PATH", ""),
            "ANTHROPIC_API_KEY": "made-up",
            "ANTHROPIC_BASE_URL": url,
        },
    )
