"""A reviewer's word on the real Claude Code: about which commit, in which form, and with what of earlier rounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.lines import call, case, read, say, verdict, write

pytestmark = pytest.mark.timeout(90)

INTEGRATION = "coordination/integration"
NEW = "def farewell() -> str:\n    return 'Goodbye'\n"
WORK = case("# Task T", steps=[write("farewell.py", NEW), say("It says goodbye.")])
OTHER = "0123456789abcdef0123456789abcdef01234567"


def test_a_reviewer_that_approves_another_commit_lands_nothing(make: Any) -> None:
    """Its form is right, so the program passes it on; we compare, record both names, ask once more, then a person."""
    approves = case("# Review of task T", steps=[read("farewell.py"), verdict("approve", "Fine.", commit=OTHER)])
    scene = make([WORK, approves])
    before = scene.git("rev-parse", "main").strip()
    scene.drop(id="T", prompt="Add farewell.py.", review="always")
    scene.run(code=1)
    ended = [event["outcome"] for event in scene.events("RunEnded") if event["run"].endswith(".review")]
    assert [(each["ending"], each["code"], each["judged"]) for each in ended] == [("failed", "other_commit", OTHER)] * 2
    assert f"names commit '{OTHER}', expected {scene.show('T')['commit']}" in ended[0]["reason"]
    assert scene.show("T")["state"] == "waiting_for_person"
    assert scene.git("rev-parse", INTEGRATION).strip() == before
    assert len({request.session for request in scene.asked("# Review of task T")}) == 2


HOSTILE = [
    {"verdict": "approve", "summary": "", "findings": []},
    {"commit": "HEAD", "verdict": "approve", "summary": "", "findings": []},
    {"commit": "{commit}", "verdict": "APPROVE", "summary": "", "findings": []},
    {"commit": "{commit}", "verdict": "approve", "summary": "", "findings": "none"},
    {"commit": "{commit}", "verdict": "approve", "summary": "", "findings": [], "approved_by": "a person"},
]


@pytest.mark.parametrize("answer", HOSTILE, ids=["no commit", "no name", "another word", "no list", "more than asked"])
def test_an_answer_of_another_form_is_no_approval(make: Any, answer: dict[str, Any], tier: int) -> None:
    """Though it says approve: the program itself does not take it, however often it comes, and nothing lands."""
    if tier == 1 and answer not in HOSTILE[:3]:
        pytest.skip("one of the forms that are tried on demand: --tier 2")
    insists = case("# Review of task T", steps=[call("StructuredOutput", **answer)] * 8)
    scene = make([WORK, insists], settings={"limits": {"attempts_max": 1}})
    scene.drop(id="T", prompt="Add farewell.py.", review="always")
    scene.run(code=1)
    (ended,) = [event["outcome"] for event in scene.events("RunEnded") if event["run"].endswith(".review")]
    assert (ended["ending"], ended.get("verdict", "")) == ("failed", "")
    assert scene.show("T")["state"] == "waiting_for_person"
    assert not scene.events("TaskApproved")


def test_a_reviewer_reads_the_neighbourhood_and_changes_nothing(make: Any) -> None:
    """It may open other files of that commit; what it tries to write is not written, and the gates' words reach it."""
    tries = [read("greeter.py"), write("farewell.py", "evil\n"), verdict("approve", "Looked at greeter.py, too.")]
    scene = make([WORK, case("# Review of task T", steps=tries)])
    scene.drop(id="T", prompt="Add farewell.py.", review="always")
    scene.run()
    assert scene.show("T")["state"] == "merged"
    assert scene.git("show", f"{INTEGRATION}:farewell.py") == NEW
    (first, *_) = scene.asked("# Review of task T")
    assert "Write" not in first.tools
    assert "- unit: passed" in first.prompt
    assert "1 files, +2 -0:\n```\nfarewell.py\n```" in first.prompt
