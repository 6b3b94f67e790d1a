"""May this tool call be made? Paths are judged as they are after symlinks; whatever cannot be judged may not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordination.model.runs import AgentRequest

JSON = Any

READ_TOOLS = ("Read", "Grep", "Glob")
WRITE_TOOLS = ("Write", "Edit", "NotebookEdit")


def within(path: str, root: str) -> bool:
    """Whether ``path`` is ``root`` or lies beneath it; both absolute and resolved."""
    return path == root or path.startswith(root.rstrip("/") + "/")


class Fence:
    """Says no to tool calls that reach where the request does not allow. Paths are judged after symlinks."""

    def __init__(self, request: AgentRequest, tools: Sequence[str]) -> None:
        """Resolve the request's places once: the agent must not be able to move them."""
        self._directory = os.path.realpath(request.directory)
        self._readable = [self._directory, os.path.realpath(own_words(request))]
        self._tools = frozenset([*tools, *(["StructuredOutput"] if request.schema is not None else [])])
        self._writes = request.writes
        self._deny_write = [os.path.realpath(path) for path in request.deny_write]
        self._deny_read = [os.path.realpath(path) for path in request.deny_read]

    def objection(self, tool: str, arguments: Mapping[str, JSON]) -> str:
        """Return why a call may not be made, or "" when there is nothing against it."""
        try:
            if tool in WRITE_TOOLS:
                return self._against_writing(arguments)
            if tool not in self._tools:
                return f"{tool} is not a tool of this role"
            if tool in READ_TOOLS:
                return self._against_reading(tool, arguments)
        except (OSError, ValueError) as error:
            return f"the path cannot be judged: {error}"
        return ""

    def _against_writing(self, arguments: Mapping[str, JSON]) -> str:
        if not self._writes:
            return "this role does not write"
        path = arguments.get("file_path") or arguments.get("notebook_path")
        if not isinstance(path, str):
            return "a write without a path"
        real = self._real(path)
        if real == self._directory or not within(real, self._directory):
            return f"{path} is outside the workspace {self._directory}"
        inside = f"{os.path.normpath(path)}/{os.path.relpath(real, self._directory)}"
        if ".git" in inside.casefold().split("/"):
            return f"{path} belongs to git"
        if _denied(real, self._deny_write, [self._directory]):
            return f"{path} is not to be written"
        return ""

    def _against_reading(self, tool: str, arguments: Mapping[str, JSON]) -> str:
        for path in _paths_read(tool, arguments):
            real = self._real(path)
            beneath = tool != "Read" and any(within(root, real) for root in self._deny_read)
            if beneath or _denied(real, self._deny_read, self._readable):
                return f"{path} is not to be read"
        return ""

    def _real(self, path: str) -> str:
        if path.startswith("~"):
            raise ValueError(f"{path}: write the home directory out")
        return os.path.realpath(Path(self._directory, path))


def own_words(request: AgentRequest) -> Path:
    """Return where the program keeps what the agent itself saw: too long a tool's output is read there."""
    return Path(request.config_directory) / "projects"


def _denied(path: str, denied: Sequence[str], allowed: Sequence[str]) -> bool:
    """Whether the innermost place round ``path`` is a denied one; an allowed one may lie within a denied one."""
    return _depth(path, denied) > _depth(path, allowed)


def _depth(path: str, roots: Sequence[str]) -> int:
    return max((len(root) for root in roots if within(path, root)), default=-1)


def _paths_read(tool: str, arguments: Mapping[str, JSON]) -> Iterator[str]:
    if tool == "Read":
        yield str(arguments["file_path"]) if "file_path" in arguments else "~"
        return
    base = str(arguments.get("path") or ".")
    yield base
    if tool == "Glob":
        # the part before the first wildcard may climb out of ``path`` or be absolute
        literal = str(arguments.get("pattern", "")).partition("*")[0].partition("?")[0].partition("{")[0]
        yield str(Path(base, literal.partition("[")[0]))
