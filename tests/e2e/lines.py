"""What does the model say in these tests? Small pieces of scripts for the model server."""

from __future__ import annotations

from typing import Any

JSON = Any


def case(*contains: str, steps: list[JSON]) -> dict[str, JSON]:
    """What is played to a prompt that holds all these texts."""
    return {"contains": list(contains), "steps": steps}


def say(text: str) -> list[JSON]:
    """Last words."""
    return [{"type": "text", "text": text}]


def call(name: str, **arguments: JSON) -> list[JSON]:
    """A tool call."""
    return [{"type": "tool_use", "name": name, "input": arguments}]


def read(path: str) -> list[JSON]:
    """Look into a file of the workspace."""
    return call("Read", file_path="{cwd}/" + path)


def write(path: str, content: str) -> list[JSON]:
    """Write a file of the workspace."""
    return call("Write", file_path="{cwd}/" + path, content=content)


def edit(path: str, old: str, new: str) -> list[JSON]:
    """Change a file of the workspace."""
    return call("Edit", file_path="{cwd}/" + path, old_string=old, new_string=new)


def verdict(word: str, summary: str, *findings: JSON, commit: str = "{commit}") -> list[JSON]:
    """A reviewer's answer, about the commit it was asked about unless another one is named."""
    return call("StructuredOutput", commit=commit, verdict=word, summary=summary, findings=list(findings))


def hang() -> list[JSON]:
    """Silence until one side goes away."""
    return [{"hang": True}]
