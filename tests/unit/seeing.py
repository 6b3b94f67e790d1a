"""What a monitor would have seen of a simulated world; and texts of the worst kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordination.model.state import State
from coordination.model.tasks import Kind, TaskSpec
from coordination.monitor.seen import Lists, Live, Seen
from coordination.policy import shipped
from coordination.testing.strategies import World, facts

RUNS = {"running": True, "pid": 7}
GONE = {"running": False, "pid": None}

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07title",
    "\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\",
    "\x9b2J\x9d0;x\x9cwipe",
    "[bold red]markup[/] [@click=app.quit]click[/]",
    "a\r\nb\tc\x00\x08\x7f",
    "user\u202etxt.exe\u2066 \u200b\ufeff\u200d",
    "z\u0335\u0336\u0337\u0338\u0339\u033a\u033b\u033calgo" * 20,
    "世界" * 60,
    "👩\u200d👩\u200d👧 👍🏽 ❤\ufe0f",
    "half \ud800 a pair",
    "\ue000\U000f0000 private",
)


def spec(kind: Kind = Kind.IMPLEMENT, title: str = "It", **fields: Any) -> TaskSpec:
    return TaskSpec(**({"prompt": "do it", "title": title, "kind": kind, "gates": ()} | fields))


def world(**tasks: TaskSpec) -> World:
    """With these tasks submitted, and all planned that can be."""
    made = World(facts=facts())
    for name, wanted in tasks.items():
        made.submit(name, wanted)
    made.decide()
    return made


def seen(made: World, *, lives: Mapping[str, Live] | None = None, **changes: Any) -> Seen:
    """What is seen of it, with a supervisor unless something else is said."""
    records = [record for batch in made.batches for record in batch.records]
    return seen_of(made.state, made.facts, lives=lives or {}, recent=records, **changes)


def seen_of(state: State, known: Any, **changes: Any) -> Seen:
    fields: dict[str, Any] = {
        "repository": "the repository",
        "now": known.now,
        "seq": 9,
        "state": state,
        "facts": known,
        "policies": shipped(),
        "lists": Lists(state, known),
        "supervisor": RUNS,
        "lives": {},
        "recent": [],
    }
    return Seen(**(fields | changes))


def many(tasks: int) -> World:
    """So many tasks, of which as many run as there are slots."""
    return world(**{f"k{number}": spec(title=f"Change number {number}") for number in range(tasks)})
