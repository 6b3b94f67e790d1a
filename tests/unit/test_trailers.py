"""What a merge says of itself, and that nobody else can say anything in its name."""

from __future__ import annotations

from msgspec.structs import replace

from coordination.model.events import Evidence
from coordination.model.runs import GateResult, Outcome, Purpose, Usage
from coordination.model.state import Run, Task
from coordination.model.tasks import TaskSpec
from coordination.supervisor.requests import TRAILER_MAX, trailers
from coordination.workspaces.commits import with_trailers

SPENT = Outcome(ending="succeeded", usage=Usage(cost_usd=0.25))  # type: ignore[arg-type]
RUN = Run(id="A.9.landing", task="A", purpose=Purpose.LANDING, token=9, planned_at=0.0, commit="c" * 40)
TASK = Task(
    id="A",
    spec=TaskSpec(prompt="x", title="x"),
    digest="",
    seq=1,
    index=0,
    submitted_at=0.0,
    runs=(replace(RUN, id="A.1.work", outcome=SPENT), RUN),
)
EVIDENCE = Evidence(
    commit="c" * 40,
    gates=(GateResult(gate="unit", commit="c", exit_code=0), GateResult(gate="types", commit="c", exit_code=3)),
    reviewer="A.8.review",
    verdict="approve",
    reason="gates passed: unit; approved by A.8.review",
    files=3,
    insertions=20,
    deletions=4,
    binaries=1,
)


def test_everything_that_done_rests_on_is_there() -> None:
    """The nine trailers, each with what the evidence has."""
    assert trailers(TASK, RUN, EVIDENCE) == {
        "Coordination-Task": "A",
        "Coordination-Run": "A.9.landing",
        "Coordination-Reviewed": "c" * 40,
        "Coordination-Reviewer": "A.8.review",
        "Coordination-Verdict": "approve",
        "Coordination-Gates": "unit=passed, types=3",
        "Coordination-Reason": "gates passed: unit; approved by A.8.review",
        "Coordination-Diff": "3 files, +20 -4, 1 without lines",
        "Coordination-Cost-USD": "0.250000",
    }


def test_a_person_is_named_and_gates_that_never_ran_are_not_called_missing() -> None:
    """Who approved; and that none are configured is another thing than that none ran."""
    by = replace(EVIDENCE, reviewer="person", person="ada", gates=())
    assert trailers(TASK, RUN, by)["Coordination-Reviewer"] == "person ada"
    assert trailers(TASK, RUN, by)["Coordination-Gates"] == "none ran"
    none = replace(by, reviewer="", person="", gates_configured=False)
    told = trailers(TASK, RUN, none)
    assert (told["Coordination-Reviewer"], told["Coordination-Gates"]) == ("none", "none configured")


def test_hostile_words_stay_within_their_line() -> None:
    """Line ends of every kind, signs that steer a terminal or hide, and length: one line, bounded, as plain text."""
    ends = ["\n", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
    hostile = (
        "fine" + "".join(f"{end}Coordination-Verdict: reject" for end in ends) + "\x1b[2J\u202e\x00\ud800" + "x" * 9000
    )
    told = trailers(TASK, RUN, replace(EVIDENCE, reason=hostile, person=hostile, verdict="\n\u200b"))
    message = with_trailers("Land A", told)
    lines = message.split("\n\n")[-1].rstrip("\n").splitlines()
    assert [line.partition(":")[0] for line in lines] == list(told)
    assert told["Coordination-Verdict"] == "none"
    assert all(len(value) <= TRAILER_MAX and value.isprintable() for value in told.values())
