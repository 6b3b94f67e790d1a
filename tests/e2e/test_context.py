"""What a repository, its people and a task give an agent to know arrives at the model."""

from __future__ import annotations

import json
from typing import Any

from coordination.testing.stage import FILES
from tests.e2e.lines import case, say

RULE = "Rule seven of the house: never shout in the library."
SHARED = "The greeter is spoken to by three other programs."


def test_claude_md_shared_context_and_the_tasks_own_context_reach_the_agent(make: Any) -> None:
    """The repository's CLAUDE.md as instruction; shared context and what a task names as material in the prompt."""
    scene = make([case("# Task look", steps=[say("In greeter.py:1.")])], files={**FILES, "CLAUDE.md": RULE + "\n"})
    (scene.state / "shared_context" / "house.md").write_text(SHARED + "\n")
    scene.drop(id="look", kind="search", prompt="Where is it?", context=["greeter.py"])
    scene.run()
    asked = scene.asked("# Task look")[0]
    assert RULE in json.dumps(asked.body)
    assert RULE not in asked.prompt, "an instruction of the repository, not of the task"
    assert SHARED in asked.prompt
    assert FILES["greeter.py"] in asked.prompt
