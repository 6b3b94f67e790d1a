"""How is an estimate told to people?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from coordination.cli._terminal import dollars, say, seconds

if TYPE_CHECKING:
    from coordination.planning.estimates import Estimate

Row = dict[str, Any]


def row(estimate: Estimate, *, supervised: bool) -> Row:
    """The estimate with all its keys, and whether anybody would start the task."""
    import msgspec

    found: Row = _rounded(msgspec.to_builtins(estimate))
    return found | {"supervisor_running": supervised}


def _rounded(value: Any) -> Any:
    match value:
        case dict():
            return {key: _rounded(found) for key, found in value.items()}
        case list() | tuple():
            return [_rounded(found) for found in value]
        case float():
            return round(value, 6)
    return value


def tell_estimate(found: Row) -> None:
    """Say all of it, and what it rests on."""
    if found["duplicate"]:
        task = found["task"]
        say(f"{task} was submitted before with the same content; again, it costs nothing. `coord show {task}`")
        return
    say(f"Nothing was submitted. {_who(found)}", whole=True)
    say()
    _told("At most", _most(found["most"]))
    _told("Likely", _likely(found["likely"]))
    _told("Start", _start(found["start"], found["role"], supervised=found["supervisor_running"]))
    _told("Cheaper", [f"{advice['says'][0].upper()}{advice['says'][1:]}." for advice in found["advice"]])


def _told(name: str, lines: Iterator[str] | list[str]) -> None:
    for at, text in enumerate(lines):
        say(f"{'' if at else name + ':':<9} {text}", whole=True)


def _who(found: Row) -> str:
    if found["role"] is None:
        return f"It would be {found['task']}, and no role would take it."
    return f"It would be {found['task']}, for {found['role']} ({found['model']}){_reviewed(found['review'])}."


def _reviewed(review: Row | None) -> str:
    if review is None:
        return ", without a review"
    who = f"{review['role']} ({review['model']})" if review["role"] else "you, because no role reviews"
    lines = review["spared_lines"]
    return f", reviewed by {who}" + (f" unless at most {lines} lines change and the gates pass" if lines else "")


def _most(most: Row) -> Iterator[str]:
    answer = f"an answer that goes beyond ({most['answer_usd']:.2f} USD as declared)"
    match most["bound"]:
        case "budget":
            yield f"{dollars(most['usd'])} for all tries and reviews: the budget, and {answer}"
        case "cap":
            yield f"{dollars(most['usd'])} for all tries and reviews: what the cap in total leaves, and {answer}"
        case "nothing":
            yield "neither a budget nor a cap bounds it"
        case _:
            yield "nothing: as things stand it never starts"
            return
    if most["budget_usd"] is not None and most["now_usd"] < most["budget_usd"]:
        now = dollars(most["now_usd"])
        yield f"its budget is {dollars(most['budget_usd'])}; the caps leave its first run {now} now"
    turns = f" and {most['turns_max']} turns" if most["turns_max"] is not None else ""
    yield f"{seconds(most['timeout_seconds'])}{turns} a run; given up after {_times(most['attempts_max'])} that failed"


def _times(number: int) -> str:
    return "one try" if number == 1 else f"{number} tries"


def _likely(likely: Row | None) -> Iterator[str]:
    if likely is None:
        yield "not known: nothing like it has ended here yet"
        return
    yield f"{_money(likely, 'usd')}, {_time(likely['seconds'])} of runs"
    for part in ("work", "review"):
        if likely[f"{part}_seconds"]["high"] or likely[f"{part}_usd"]["high"]:
            yield f"  {part} {_money(likely, f'{part}_usd')}, {_time(likely[f'{part}_seconds'])}"
    if likely["gates_seconds"]["high"]:
        yield f"  gates and landing {_time(likely['gates_seconds'])}"
    yield _basis(likely)
    if likely["over"]:
        yield f"{likely['over']} of them cost more than the budget of this one, which would stop there and ask you"
    if likely["estimated"]:
        yield '"about": the price of a model was not known, or a run died before its bill came'


def _basis(likely: Row) -> str:
    alike = f"of {likely['by']} {likely['name']}" if likely["by"] != "all" else f"({likely['name']}, of any kind)"
    some = {"failed": "failed", "repeated": "needed more than one try", "other_model": "by another model"}
    apart = ", ".join(f"{likely[key]} {said}" for key, said in some.items() if likely[key])
    many = "the one task" if likely["tasks"] == 1 else f"the last {likely['tasks']} tasks"
    return f"median (and middle half) of {many} {alike} that ended{f': {apart}' if apart else ''}"


def _money(likely: Row, key: str) -> str:
    spread = likely[key]
    median = dollars(spread["median"], estimated=likely["estimated"])
    return f"{median} ({spread['low']:.4f} to {spread['high']:.4f})"


def _time(spread: Row) -> str:
    return f"{seconds(spread['median'])} ({seconds(spread['low'])} to {seconds(spread['high'])})"


def _start(start: Row, role: str | None, *, supervised: bool) -> Iterator[str]:
    if start["now"]:
        yield f"{'at once' if supervised else 'as soon as a supervisor runs'}: a slot of {role} is free"
        return
    yield from start["reasons"]
    if not start["reasons"]:
        yield "waits for a free slot"
    if start["before"] or (role is not None and start["slots_used"] >= start["slots_most"]):
        yield f"{start['slots_used']} of {start['slots_most']} slots of {role} are taken by then"
    if start["before"]:
        yield f"before it in the queue: {start['before']}, of these for want of a slot only: {start['before_ready']}"
