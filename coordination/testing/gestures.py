"""How is every gesture of kernel code noticed before it happens? By an Env that says so; tests kill and count there.

A gesture is one call of an ``Env`` method. One that is made of others (``same_file``, ``sync_directory``) is noticed
and then its parts are. What only looks at a clock, at dice or at who we are is left out: to be killed before it is to
be killed before the gesture after it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coordination.env import Env

QUIET = frozenset({"monotonic", "sleep", "random_hex", "uuid", "pid", "boot_id", "process_start"})
NAMES = tuple(name for name, value in vars(Env).items() if callable(value) and name[0] != "_" and name not in QUIET)


class Noticing(Env):
    """The real world; ``noticed`` is called before each gesture, and what it raises is raised instead of it."""

    def noticed(self, gesture: str, arguments: tuple[Any, ...]) -> None:
        """Subclasses do here what they are for."""


class Counting(Noticing):
    """Keeps which gestures were made, each with how many pieces it could be cut into."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int]] = []

    def noticed(self, gesture: str, arguments: tuple[Any, ...]) -> None:
        """Note it."""
        self.made.append((gesture, pieces(gesture, arguments)))


def pieces(gesture: str, arguments: tuple[Any, ...]) -> int:
    """Into how many a gesture can fall apart when its process dies: a write's bytes, many stores' words."""
    match gesture:
        case "write":
            return len(arguments[1])
        case "store_many":
            return len(arguments[2])
        case _:
            return 1


def _noticing(name: str) -> Callable[..., Any]:
    real = getattr(Env, name)

    def gesture(self: Noticing, *arguments: Any) -> Any:
        self.noticed(name, arguments)
        return real(self, *arguments)

    return gesture


for _name in NAMES:
    setattr(Noticing, _name, _noticing(_name))
