"""From dropped files to merged commits, on the real Claude Code: one long scene, looked at from many sides."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from coordination.testing.stage import FILES, Stage
from tests.e2e.lines import case, edit, read, say, verdict, write

pytestmark = pytest.mark.timeout(120)

INTEGRATION = "coordination/integration"
GREETING = 'GREETING = "Hello"'
BOTH = FILES["greeter.py"].replace("Hello", "GOOD DAY")
FAREWELL = 'def farewell(name: str) -> str:\n    return f"Goodbye, {name}!"\n'
REPAIRED = FAREWELL.replace("{name}", "{name or 'friend'}")
FINDING = {"file": "farewell.py", "line": 2, "severity": "major", "message": "an empty name is not handled"}

KEY = "sk-made-up-0123456789-abcdefghijklmnopqrstuvwxyz-9f8e7d6c"
SECRET = "sesame-9b1d5e70"

SCRIPTS = [
    case("# Task where", steps=[read("greeter.py"), say("In greeter.py:1, see also nothing/there.py:3.")]),
    case("# Task warmer", "## Both sides", steps=[read("greeter.py"), write("greeter.py", BOTH), say("Both kept.")]),
    case("# Task louder", "## Both sides", steps=[read("greeter.py"), write("greeter.py", BOTH), say("Both kept.")]),
    case(
        "# Task warmer", steps=[read("greeter.py"), edit("greeter.py", GREETING, 'GREETING = "Good day"'), say("Ok.")]
    ),
    case("# Task louder", steps=[read("greeter.py"), edit("greeter.py", GREETING, 'GREETING = "HELLO"'), say("Ok.")]),
    case(
        "# Task farewell",
        "A reviewer rejected",
        "an empty name is not handled",
        steps=[read("farewell.py"), write("farewell.py", REPAIRED), say("A friend then.")],
    ),
    case("# Task farewell", steps=[write("farewell.py", FAREWELL), say("It says goodbye.")]),
    case("# Review of task farewell", "'friend'", steps=[verdict("approve", "Answered.")]),
    case("# Review of task farewell", steps=[verdict("reject", "No.", FINDING)]),
    case("# Task lazy", steps=[say("All done!")]),
    case("# Task notes", steps=[write("NOTES.md", "farewell.py says goodbye\n"), say("Noted.")]),
]
TASKS: list[dict[str, Any]] = [
    {"id": "where", "kind": "search", "prompt": "Where is the greeting?"},
    {"id": "warmer", "prompt": "Make it warmer.", "base": "main", "review": "never"},
    {"id": "louder", "prompt": "Make it louder.", "base": "main", "review": "never"},
    {"id": "farewell", "prompt": "Add farewell.py.", "review": "always", "budget_usd": 1},
    {"id": "notes", "kind": "document", "prompt": "Write notes.", "after": ["farewell", "where"]},
    {"id": "lazy", "prompt": "Do something.", "attempts_max": 1},
    {"id": "upon", "prompt": "Build upon it.", "after": ["lazy"]},
    {"id": "last", "prompt": "Build upon that.", "after": ["upon", "where"]},
]


@pytest.fixture(scope="module")
def played(make_once: Any) -> Stage:
    """The scene after the curtain. Some tasks are meant to fail, so the supervisor exits 1."""
    gate = [sys.executable, "-B", "-c", "import os, greeter; print(sorted(os.environ.items()))"]
    settings = {"roles.green": {"slots": 3}, "gates": {"default": ["unit"], "unit": gate}}
    stage: Stage = make_once(SCRIPTS, settings=settings)
    stage.environment |= {"ANTHROPIC_API_KEY": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    stage.drop_text("half.json", '{"prompt": "never fini')
    stage.drop_text("typo.json", '{"prompt": "x", "promt": "y"}')
    for task in TASKS:
        stage.drop(**task)
    stage.run(code=1)
    return stage


def message(stage: Stage, commit: str) -> dict[str, str]:
    """The trailers of a commit."""
    told = stage.git("log", "-1", "--format=%(trailers:only,unfold)", commit)
    return dict(line.split(": ", 1) for line in told.splitlines() if line)


def merge(stage: Stage, task: str) -> tuple[str, str]:
    """(merge, reviewed commit) of a task, by git alone."""
    rows = stage.git("rev-list", "--first-parent", "--merges", "--parents", f"main..{INTEGRATION}").splitlines()
    landed = [row.split() for row in rows if message(stage, row.split()[0])["Coordination-Task"] == task]
    assert len(landed) == 1
    return landed[0][0], landed[0][2]


def test_a_dropped_file_becomes_a_merge_with_trailers(played: Stage) -> None:
    """Commit and merge say which task, run and role made them, what was reviewed, by whom, and at what cost."""
    landed, commit = merge(played, "farewell")
    assert message(played, commit) == {
        "Coordination-Task": "farewell",
        "Coordination-Run": "farewell.4.work",
        "Coordination-Role": "green",
    }
    told = message(played, landed)
    cost = float(told.pop("Coordination-Cost-USD"))
    assert cost == pytest.approx(played.show("farewell")["cost_usd"], abs=1e-5)
    assert cost > 0
    assert told == {
        "Coordination-Task": "farewell",
        "Coordination-Run": "farewell.7.landing",
        "Coordination-Reviewed": commit,
        "Coordination-Reviewer": "farewell.6.review",
        "Coordination-Verdict": "approve",
        "Coordination-Gates": "unit=passed",
        "Coordination-Reason": "gates passed: unit; approved by farewell.6.review",
        "Coordination-Diff": "1 files, +2 -0",
    }


def test_done_is_bound_to_a_commit_and_its_evidence(played: Stage) -> None:
    """The gate ran on the very commit that was approved, and again on the merge."""
    landed, commit = merge(played, "farewell")
    evidence = played.events("TaskApproved", task="farewell")[0]["evidence"]
    assert evidence["commit"] == commit
    assert [(gate["gate"], gate["commit"], gate["exit_code"]) for gate in evidence["gates"]] == [("unit", commit, 0)]
    merged = played.events("TaskMerged", task="farewell")[0]
    assert (merged["commit"], merged["merge"]) == (commit, landed)
    assert [(gate["gate"], gate["commit"], gate["exit_code"]) for gate in merged["gates"]] == [("unit", landed, 0)]
    assert played.show("farewell")["state"] == "merged"


def test_every_file_gets_one_receipt(played: Stage) -> None:
    """What was accepted lies in accepted/ with its ticket, and nothing is left elsewhere."""
    submitted = played.events("TaskSubmitted")
    receipts = sorted(path.name for path in (played.state / "inbox/accepted").iterdir())
    assert receipts == sorted(f"{event['task']}.{event['ticket']}.json" for event in submitted)
    assert sorted(event["task"] for event in submitted) == sorted(task["id"] for task in TASKS)
    assert not list((played.state / "inbox/.taken").iterdir())
    assert not list((played.state / "inbox").glob("*.json"))


def test_a_malformed_file_is_quarantined_with_its_reason_and_holds_nobody_up(played: Stage) -> None:
    """Half a file and an unknown field are refused with words that help; all others went on."""
    errors = {
        error["file"]: error
        for path in (played.state / "inbox/rejected").glob("*.error.json")
        for error in [json.loads(path.read_text())]
    }
    assert set(errors) == {"half.json", "typo.json"}
    assert "JSON" in errors["half.json"]["reason"]
    assert errors["typo.json"]["field"] == "promt"
    assert "prompt" in json.dumps(errors["typo.json"])
    kept = sorted(path.read_text() for path in (played.state / "inbox/rejected").glob("*[!r].json"))
    assert '{"prompt": "never fini' in kept


def test_a_search_ends_done_with_a_report_and_cited_paths(played: Stage) -> None:
    """Blue's report counts with the paths that exist, on an unchanged tree; nothing is committed for it."""
    done = played.events("TaskDone", task="where")[0]
    assert "greeter.py:1" in done["report"]
    assert done["evidence"]["cited"] == ["greeter.py"]
    assert done["evidence"]["commit"] == played.git("rev-parse", "main").strip()
    assert played.events("RunPlanned", task="where")[0]["role"] == "blue"
    assert played.show("where")["state"] == "done"
    assert played.git("branch", "--list", "coordination/task/where") == ""


def test_a_rejection_comes_back_with_its_findings_and_is_repaired(played: Stage) -> None:
    """Red's finding reaches Green, Green's answer reaches Red, and only the answer lands."""
    requeued = played.events("TaskRequeued", task="farewell")
    assert [event["reason"]["kind"] for event in requeued] == ["rejected"]
    assert "farewell.py:2: an empty name is not handled" in requeued[0]["reason"]["message"]
    reviews = [event["outcome"]["verdict"] for event in ended(played, "farewell", "review")]
    assert reviews == ["reject", "approve"]
    assert {event["role"] for event in played.events("RunPlanned", task="farewell", purpose="review")} == {"red"}
    assert played.git("show", f"{INTEGRATION}:farewell.py") == REPAIRED
    task = played.show("farewell")
    assert (task["rounds"], task["attempts"], task["returns"]) == (1, 0, 0)


def test_a_conflict_goes_back_with_both_sides_named_and_loses_neither(played: Stage) -> None:
    """Whoever lands second is told whom it met and where, merges both wishes, and both are on the branch."""
    returned = [event for event in played.events("TaskRequeued") if event["reason"]["kind"] == "conflict"]
    assert len(returned) == 1
    second = returned[0]["task"]
    first = {"warmer": "louder", "louder": "warmer"}[second]
    assert first in returned[0]["reason"]["message"]
    assert "greeter.py" in returned[0]["reason"]["message"]
    again = played.events("RunPlanned", task=second, purpose="work")[1]
    assert again["bring_in"]
    assert message(played, again["bring_in"])["Coordination-Task"]
    assert played.git("show", f"{INTEGRATION}:greeter.py") == BOTH
    for task in (first, second):
        assert played.show(task)["state"] == "merged"
        _, commit = merge(played, task)
        played.git("merge-base", "--is-ancestor", commit, INTEGRATION)
    assert played.show(second)["returns"] == 1


def test_the_conflicted_agent_saw_the_markers(played: Any) -> None:
    """The prompt names the file in conflict, and the file the agent read held both sides."""
    asked = played.asked("## Both sides")
    assert "- greeter.py" in asked[0].prompt
    seen = json.dumps(asked[1].body)
    assert "<<<<<<<" in seen
    assert "Good day" in seen
    assert "HELLO" in seen


def test_a_task_starts_when_all_it_needs_has_ended_well(played: Stage) -> None:
    """The notes began after the farewell had merged and the search was done, on a base that holds both."""
    started = played.events("RunPlanned", task="notes")[0]
    assert started["seq"] > played.events("TaskMerged", task="farewell")[0]["seq"]
    assert started["seq"] > played.events("TaskDone", task="where")[0]["seq"]
    assert played.git("show", f"{started['base']}:farewell.py") == REPAIRED


def test_nothing_done_is_not_done_and_fails_its_dependants_with_the_chain(played: Stage) -> None:
    """An agent that only says so has failed; who waits for it fails too, and knows the first cause."""
    failed = played.events("TaskFailed", task="lazy")[0]
    assert "changed nothing" in failed["reason"]
    chains = {event["task"]: event["chain"] for event in played.events("DependencyFailed")}
    assert chains == {"upon": ["lazy"], "last": ["upon", "lazy"]}
    assert "changed nothing" in played.events("DependencyFailed", task="last")[0]["reason"]
    assert not played.events("RunPlanned", task="upon")
    assert played.show("last")["state"] == "dependency_failed"


def test_every_run_says_why_it_exists_and_what_it_cost(played: Stage) -> None:
    """Each run has a reason; each agent's run a cost; the task's cost is their sum."""
    assert all(event["reason"] for event in played.events("RunPlanned"))
    for task in ("farewell", "where"):
        costs = [event["outcome"]["usage"]["cost_usd"] for event in ended(played, task) if "usage" in event["outcome"]]
        assert all(cost > 0 for cost in costs)
        assert played.show(task)["cost_usd"] == pytest.approx(sum(costs), abs=1e-5)


def test_the_log_command_tells_what_the_raw_lines_say(played: Stage) -> None:
    """``coord log`` and the bytes on disk agree, event by event."""
    told = [json.loads(line) for line in played.coord("log").splitlines()]
    assert [(row["seq"], row["type"], row.get("run"), row.get("task")) for row in told] == [
        (event["seq"], event["type"], event.get("run"), event.get("task")) for event in played.events()
    ]


def test_every_conversation_was_begun_once(played: Any) -> None:
    """One run, one session, one first question: no agent was started twice for the same run."""
    first = [request.session for request in played.server.requests if request.step == 0]
    agents = [event for event in played.events("RunPlanned") if event.get("role")]
    assert len(first) == len(set(first)) == len(agents)


def test_no_secret_is_written_down_and_no_gate_is_given_one(played: Stage) -> None:
    """A gate prints its whole environment: our mark, no key; and no file below the state directory holds a secret."""
    outputs = [gate["output"] for event in played.events("TaskMerged") for gate in event["gates"]]
    assert len(outputs) == 4
    assert all("COORDINATION_RUN" in output for output in outputs)
    assert not [output for output in outputs if "ANTHROPIC" in output or SECRET in output]
    kept = [path for path in played.state.rglob("*") if path.is_file()]
    assert len(kept) > 100
    found = [path for path in kept for value in (KEY, SECRET) if value.encode() in path.read_bytes()]
    assert found == []


def ended(stage: Stage, task: str, purpose: str = "") -> list[dict[str, Any]]:
    """Ends of a task's runs, of one purpose."""
    return [event for event in stage.events("RunEnded", task=task) if event["run"].endswith(purpose)]
