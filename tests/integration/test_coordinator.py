"""The use cases of a repository, asked directly."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordination.coordinator import Coordinator, initialise, locate
from coordination.errors import Rejected

TASK = {"id": "notes", "role": "violet", "kind": "document", "prompt": "Write notes."}


def role(repository: Path, tools: str) -> None:
    text = f"---\nname: violet\ndescription: Writes.\ntools: {tools}\nmodel: haiku\n---\nYou write.\n"
    (repository / ".coordination" / "roles" / "violet.md").write_text(text)


def test_what_was_accepted_is_not_judged_by_todays_roles(repository: Path) -> None:
    """The same task again is a no-op even when its role may no longer write; a new one is refused."""
    initialise(locate(repository))
    role(repository, "Read, Write")
    assert Coordinator(locate(repository)).submit(TASK) == "notes"
    role(repository, "Read")
    assert Coordinator(locate(repository)).submit(TASK) == "notes"
    with pytest.raises(Rejected, match="may not write"):
        Coordinator(locate(repository)).submit(TASK | {"id": "other"})
