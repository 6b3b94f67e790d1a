"""A role as data: who may do what, on which model, with which instructions."""

from __future__ import annotations

from coordination.model.runs import Value


class Role(Value, frozen=True, kw_only=True):
    """One folder (or file) of instructions with front matter, read by ``coordination.roles``."""

    name: str
    description: str
    instructions: str
    model: str
    fallback_model: str = ""
    tools: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()  # what it is routed by default
    writes: bool = False
    shell: bool = False
    slots: int = 1  # how many at once unless settings say otherwise
    backend: str = "claude"
    color: str = ""
    network: bool = False
    source: str = ""  # the file it was read from
