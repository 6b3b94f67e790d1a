"""Did a log keep its word, by what its users saw and by the bytes on the disk alone?

The users of a log write down what they asked and what they were told, each in its own process, on one clock
(``Recorder``, ``load``). Afterwards ``raw_batches`` reads what stands in the segments, and ``violations`` compares. For
tasks, ``linearizable`` says whether claims and completions could have happened one after the other.

Nothing here is shared with ``coordination.log``: the format is read by docs/log-format.md once more, so that one
mistake cannot stand on both sides. What was asked and never answered stays a *maybe*: it may stand in the log or not.

::

    recorder = Recorder(path, "writer 1")
    recorder.invoke("v1")
    recorder.ok("v1", log.append(b'{"v":"v1"}', after=head))
    ...
    history = load(path)
    final = [(seq, json.loads(payload)["v"]) for seq, payload in raw_batches(directory)]
    assert not violations(history.events, final, history.seen)
"""

from __future__ import annotations

import json
import os
import re
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

Kind = Literal[
    "lost", "phantom", "duplicated", "reordered", "gap", "vanished", "disagreeing", "stale", "unlinearizable"
]
Step = Literal["claim", "complete", "ok", "refused", "unknown"]
Final = Sequence[tuple[int, str]]
_Told = TypeVar("_Told", "Event", "TaskEvent")


class Event(msgspec.Struct, frozen=True, tag="event", omit_defaults=True):
    """One writer asked for a value to be appended, or was answered."""

    process: str
    at: float | int  # on one clock for all; taken before asking and after the answer
    kind: Literal["invoke", "ok", "refused", "unknown"]  # refused: certainly not appended; unknown: maybe
    value: str
    seq: int | None = None  # ok: as which number


class Seen(msgspec.Struct, frozen=True, tag="seen"):
    """One reader read everything from the beginning up to some number."""

    process: str
    at: float | int  # before the reading began
    values: tuple[str, ...]
    durable: bool  # whether the reader was told that these survive anything


class TaskEvent(msgspec.Struct, frozen=True, tag="task", omit_defaults=True):
    """One process asked to claim or complete a task, or was answered."""

    process: str
    at: float | int
    task: str
    kind: Step
    token: int | None = None  # complete: the fencing token it has; ok to a claim: the one it got


class History(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes recorded, in the order of time."""

    events: tuple[Event, ...] = ()
    seen: tuple[Seen, ...] = ()
    tasks: tuple[TaskEvent, ...] = ()


class Violation(msgspec.Struct, frozen=True):
    """A promise that was broken, and the part of the history that shows it."""

    kind: Kind
    message: str
    events: tuple[Event | Seen | TaskEvent, ...] = ()


# ---- recording -------------------------------------------------------------------------------------------------------


class Recorder:
    """Appends one line for each event to a file that several processes may share; a kill tears none of them apart."""

    def __init__(self, path: Path, process: str) -> None:
        self._process = process
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def invoke(self, value: str) -> None:
        """``value`` is about to be appended."""
        self._write(Event(self._process, now(), "invoke", value))

    def ok(self, value: str, seq: int) -> None:
        """``value`` was acknowledged as number ``seq``."""
        self._write(Event(self._process, now(), "ok", value, seq))

    def refused(self, value: str) -> None:
        """``value`` was certainly not appended."""
        self._write(Event(self._process, now(), "refused", value))

    def unknown(self, value: str) -> None:
        """``value`` may or may not have been appended."""
        self._write(Event(self._process, now(), "unknown", value))

    def seen(self, values: Iterable[str], *, at: int, durable: bool) -> None:
        """These values were read from the beginning; the reading began ``at`` (see ``now``)."""
        self._write(Seen(self._process, at, tuple(values), durable))

    def task(
        self, task: str, kind: Literal["claim", "complete", "ok", "refused", "unknown"], token: int | None
    ) -> None:
        """A task is about to be claimed or completed, or the answer came."""
        self._write(TaskEvent(self._process, now(), task, kind, token))

    def _write(self, event: Event | Seen | TaskEvent) -> None:
        line = msgspec.json.encode(event) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(f"the record of {self._process} is cut: the disk is full")


def now() -> int:
    """Nanoseconds on the clock that all processes of this machine share."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def load(*paths: Path) -> History:
    """Everything that was recorded in these files. A last line without its end, left by a kill, is left out."""
    decoder = msgspec.json.Decoder(Event | Seen | TaskEvent)
    lines = [line for path in paths for line in path.read_bytes().split(b"\n")[:-1]]
    told = sorted((decoder.decode(line) for line in lines), key=lambda event: event.at)
    return History(
        events=tuple(event for event in told if isinstance(event, Event)),
        seen=tuple(event for event in told if isinstance(event, Seen)),
        tasks=tuple(event for event in told if isinstance(event, TaskEvent)),
    )


# ---- the log's promises ----------------------------------------------------------------------------------------------


class _Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One question with its answer, if one came."""

    asked: Event
    answered: Event | None

    @property
    def seq(self) -> int | None:
        return None if self.answered is None else self.answered.seq

    @property
    def possible(self) -> bool:
        return self.answered is None or self.answered.kind != "refused"

    @property
    def events(self) -> tuple[Event, ...]:
        return (self.asked,) if self.answered is None else (self.asked, self.answered)


class _Case(msgspec.Struct, frozen=True, kw_only=True):
    """What the rules judge."""

    operations: Mapping[str, Sequence[_Operation]]  # by value
    seen: Sequence[Seen]
    final: Final

    @property
    def acknowledged(self) -> list[_Operation]:
        told = [each for asked in self.operations.values() for each in asked if each.seq is not None]
        return sorted(told, key=lambda each: each.events[-1].at)


_Rule = Callable[[_Case], Iterable[Violation]]


def violations(
    events: Iterable[Event], final: Final, seen: Iterable[Seen] = (), *, rules: Iterable[_Rule] | None = None
) -> list[Violation]:
    """Every promise that was broken; ``final`` is what stands in the log at the end, by an independent reading.

    Values may be asked for again after they were refused, or when it was unknown what became of them. Raises
    ValueError when the history itself makes no sense: then whoever recorded it is to blame, not the log.
    """
    operations: dict[str, list[_Operation]] = defaultdict(list)
    for asked, answered in _paired(events, lambda event: (event.process, event.value), {"invoke"}):
        if answered is not None and (answered.kind == "ok") != (answered.seq is not None):
            raise ValueError(f"an acknowledgement has a number and nothing else has: {answered}")
        operations[asked.value].append(_Operation(asked=asked, answered=answered))
    case = _Case(operations=operations, seen=tuple(seen), final=final)
    return [violation for rule in (RULES if rules is None else rules) for violation in rule(case)]


def _lost(case: _Case) -> Iterator[Violation]:
    """What was acknowledged stands where it was acknowledged."""
    standing = dict(case.final)
    owners: dict[int, _Operation] = {}
    for told in case.acknowledged:
        assert told.seq is not None
        value, first = told.asked.value, owners.setdefault(told.seq, told)
        if standing.get(told.seq) != value:
            where = [seq for seq, other in case.final if other == value] or "nowhere"
            message = f"{value!r} was acknowledged as {told.seq}; there stands {standing.get(told.seq)!r}, it {where}"
            yield Violation("lost", message, told.events)
        elif first is not told:
            message = f"{value!r} was acknowledged twice as {told.seq}: one of the two is not there"
            yield Violation("lost", message, first.events + told.events)


def _phantom(case: _Case) -> Iterator[Violation]:
    """What stands in the log was asked for, and not refused."""
    for seq, value in case.final:
        asked = case.operations.get(value, ())
        if not asked:
            yield Violation("phantom", f"{value!r} stands as {seq}, and nobody asked for it")
        elif not any(each.possible for each in asked):
            message = f"{value!r} stands as {seq}, and was refused"
            yield Violation("phantom", message, tuple(event for each in asked for event in each.events))


def _dreamt(case: _Case) -> Iterator[Violation]:
    """What a reader saw was asked for."""
    for seen in case.seen:
        for value in dict.fromkeys(seen.values):
            if value not in case.operations:
                yield Violation("phantom", f"{seen.process} saw {value!r}, and nobody asked for it", (seen,))


def _duplicated(case: _Case) -> Iterator[Violation]:
    """Nothing stands there more often than it was asked for."""
    for value, times in Counter(value for _, value in case.final).items():
        asked = [each for each in case.operations.get(value, ()) if each.possible]
        if 0 < len(asked) < times:
            message = f"{value!r} stands there {times} times, and was asked for {len(asked)} times"
            yield Violation("duplicated", message, tuple(event for each in asked for event in each.events))


def _reordered(case: _Case) -> Iterator[Violation]:
    """What was asked for after something else was acknowledged stands behind it."""
    acknowledged = case.acknowledged
    placed = sorted(_placed(case), key=lambda pair: pair[0].asked.at)
    before, newest = 0, None
    for operation, seq in placed:
        while before < len(acknowledged) and acknowledged[before].events[-1].at < operation.asked.at:
            newest = max(newest or acknowledged[before], acknowledged[before], key=lambda each: each.seq or 0)
            before += 1
        if newest is not None and newest.seq is not None and newest.seq > seq:
            first, second = newest.asked.value, operation.asked.value
            message = f"{first!r} was acknowledged as {newest.seq} before {second!r}, now {seq}, was asked for"
            yield Violation("reordered", message, newest.events + operation.events)


def _placed(case: _Case) -> Iterator[tuple[_Operation, int]]:
    """Operations whose number is known: they were told, or they are the only ones it can be of."""
    standing: dict[str, list[int]] = defaultdict(list)
    for seq, value in case.final:
        standing[value].append(seq)
    for value, asked in case.operations.items():
        possible = [each for each in asked if each.possible]
        for operation in possible:
            if operation.seq is not None:
                yield operation, operation.seq
            elif len(possible) == len(standing[value]) == 1:
                yield operation, standing[value][0]


def _gap(case: _Case) -> Iterator[Violation]:
    """Numbers count from 1."""
    for expected, (seq, value) in enumerate(case.final, 1):
        if seq != expected:
            yield Violation("gap", f"expected number {expected}, found {seq} ({value!r})")
            return


def _vanished(case: _Case) -> Iterator[Violation]:
    """What a reader saw as durable is there in the end."""
    standing = tuple(value for _, value in case.final)
    for seen in case.seen:
        if seen.durable and seen.values != standing[: len(seen.values)]:
            seq = _first_difference(seen.values, standing)
            message = f"{seen.process} saw {seen.values[seq - 1]!r} as {seq}, durable; in the end it is not there"
            yield Violation("vanished", message, (seen,))


def _disagreeing(case: _Case) -> Iterator[Violation]:
    """Of two durable readings one is the other's beginning."""
    durable = {seen.values: seen for seen in case.seen if seen.durable}
    longest: Seen | None = None
    for seen in sorted(durable.values(), key=lambda each: len(each.values)):
        if longest is not None and seen.values[: len(longest.values)] != longest.values:
            seq = _first_difference(longest.values, seen.values)
            message = f"{longest.process} and {seen.process} saw different values as {seq}, both durable"
            yield Violation("disagreeing", message, (longest, seen))
        longest = seen


def _stale(case: _Case) -> Iterator[Violation]:
    """A durable reading shows everything that was acknowledged before it began."""
    for seen in case.seen:
        before = [each for each in case.acknowledged if each.events[-1].at < seen.at] if seen.durable else []
        newest = max(before, key=lambda each: each.seq or 0, default=None)
        if newest is not None and (newest.seq or 0) > len(seen.values):
            message = f"{seen.process} saw {len(seen.values)} batches, durable, after {newest.seq} was acknowledged"
            yield Violation("stale", message, (*newest.events, seen))


def _shrinking(case: _Case) -> Iterator[Violation]:
    """Who reads twice does not see less the second time."""
    furthest: dict[str, Seen] = {}
    for seen in sorted((each for each in case.seen if each.durable), key=lambda each: each.at):
        before = furthest.setdefault(seen.process, seen)
        if len(before.values) > len(seen.values):
            message = f"{seen.process} saw {len(before.values)} batches, durable, and later {len(seen.values)}"
            yield Violation("stale", message, (before, seen))
        furthest[seen.process] = max(before, seen, key=lambda each: len(each.values))


RULES: tuple[_Rule, ...] = (
    _lost,
    _phantom,
    _dreamt,
    _duplicated,
    _reordered,
    _gap,
    _vanished,
    _disagreeing,
    _stale,
    _shrinking,
)


def _first_difference(values: Sequence[str], others: Sequence[str]) -> int:
    """The first number at which ``values`` is not what ``others`` is."""
    pairs = zip(values, others, strict=False)
    return next((seq for seq, (one, other) in enumerate(pairs, 1) if one != other), min(len(values), len(others)) + 1)


def _paired(
    events: Iterable[_Told], name: Callable[[_Told], Any], questions: set[str]
) -> Iterator[tuple[_Told, _Told | None]]:
    """Every question with its answer. A process asks one thing of one name at a time. Raises ValueError."""
    waiting: dict[Any, _Told] = {}
    for event in sorted(events, key=lambda each: each.at):
        if event.kind in questions:
            if (earlier := waiting.get(name(event))) is not None:
                yield earlier, None  # it died, came back under its name, and asks again
            waiting[name(event)] = event
        elif (asked := waiting.pop(name(event), None)) is not None:
            yield asked, event
        else:
            raise ValueError(f"an answer to what was never asked: {event}")
    yield from ((asked, None) for asked in waiting.values())


# ---- tasks -----------------------------------------------------------------------------------------------------------


class _Task(msgspec.Struct, frozen=True):
    """A task between two operations."""

    token: int = 0  # of the newest claim whose token is known
    holder: str = ""
    hidden: bool = False  # a newer claim happened, and nobody was told its token
    done: bool = False


def linearizable(events: Iterable[TaskEvent]) -> list[Violation]:
    """One violation for each task whose answers no order of its operations explains.

    What must be explained: a claim wins with a token above all earlier ones while the task is not done, and is refused
    only when somebody has claimed it; a completion wins once, by the holder of the newest claim with its token, and is
    refused for everybody else. An operation without answer may have happened, at any time after it was asked.

    Source: Wing and Gong, Testing and verifying concurrent objects (1993), with the memo of Lowe (2017).
    """
    by_task: dict[str, list[TaskEvent]] = defaultdict(list)
    for event in events:
        by_task[event.task].append(event)
    found = []
    for task, told in by_task.items():
        operations = list(_paired(told, lambda event: event.process, {"claim", "complete"}))
        if not _explained(operations):
            steps = "; ".join(_in_words(asked, answered) for asked, answered in operations)
            message = f"no order explains what happened to task {task!r}: {steps}"
            found.append(Violation("unlinearizable", message, tuple(told)))
    return found


def _explained(operations: Sequence[tuple[TaskEvent, TaskEvent | None]]) -> bool:
    """Whether some order of the operations, in which none moves across another one's whole span, gives the answers."""
    certain = sum(1 << index for index in range(len(operations)) if _certain(operations[index][1]))
    reached = [(0, _Task())]
    known = set(reached)
    while reached:
        chosen, state = reached.pop()
        if chosen & certain == certain:
            return True
        steps = list(_next(operations, chosen, state))
        # an answer that changes nothing costs nothing: take it, and no other order needs to be tried
        idle = [step for step in steps if step[1] == state]
        for step in idle[:1] or steps:
            if step not in known:
                known.add(step)
                reached.append(step)
    return False


def _next(
    operations: Sequence[tuple[TaskEvent, TaskEvent | None]], chosen: int, state: _Task
) -> Iterator[tuple[int, _Task]]:
    left = [index for index in range(len(operations)) if not chosen >> index & 1]
    ends = [answered.at for index in left if (answered := operations[index][1]) and _certain(answered)]
    for index in left:
        if operations[index][0].at <= min(ends):  # else another operation was over before this one began
            after = _applied(state, *operations[index])
            if after is not None:
                yield chosen | 1 << index, after


def _certain(answered: TaskEvent | None) -> bool:
    return answered is not None and answered.kind != "unknown"


def _applied(state: _Task, asked: TaskEvent, answered: TaskEvent | None) -> _Task | None:
    """The task after this operation with this answer; None when it could not have been the answer."""
    answer = "maybe" if answered is None or answered.kind == "unknown" else answered.kind
    if asked.kind == "claim":
        token = 0 if answered is None else answered.token or 0
        if answer == "refused":
            return state if state.done or state.holder else None
        if state.done or (answer == "ok" and token <= state.token):
            return None
        return _Task(token or state.token, asked.process, hidden=answer == "maybe")
    token = asked.token or 0
    right = token > state.token if state.hidden else token == state.token
    wins = right and asked.process == state.holder and not state.done
    if answer == "refused":
        return None if wins and not state.hidden else state
    return msgspec.structs.replace(state, token=token, hidden=False, done=True) if wins else None


def _in_words(asked: TaskEvent, answered: TaskEvent | None) -> str:
    answer = "no answer" if answered is None else answered.kind
    token = asked.token if answered is None or answered.token is None else answered.token
    return f"{asked.process} {asked.kind} {'' if token is None else token} at {asked.at}: {answer}"


# ---- what stands on the disk -----------------------------------------------------------------------------------------

_NAME = re.compile(r"\d{20}\.jsonl")
_SUMMED = re.compile(rb'(\{.*),"sum":"([0-9a-f]{8})"\}', re.DOTALL)
_BATCH = re.compile(rb'\{"seq":(\d+),"durable":(\d+),(.+)', re.DOTALL)


class NotALog(ValueError):
    """The bytes are not what docs/log-format.md describes."""


def raw_batches(directory: Path) -> list[tuple[int, bytes]]:
    """Number and payload of every batch that stands in the segments of ``directory``, by their bytes alone.

    Raises NotALog when there is no segment, when one that counts has no valid header or does not reach the end that its
    successor gives it, or when the log ends before a watermark that it carries.
    """
    paths = {int(path.stem): path for path in directory.iterdir() if _NAME.fullmatch(path.name)}
    chain = _chain(paths)
    batches: list[tuple[int, bytes]] = []
    watermark = 0
    for (number, header, header_sum), successor in zip(chain, [*chain[1:], None], strict=True):
        checksum = header_sum
        end = None if successor is None else successor[1]["previous"]
        if header["first_seq"] != len(batches) + 1:
            raise NotALog(f"segment {number} begins with {header['first_seq']} after {len(batches)} batches")
        watermark = max(watermark, header["durable"])
        for seq, durable, payload, line_sum in _standing(paths[number], number, header, header_sum):
            if end is not None and seq > end["last_seq"]:
                break  # void
            checksum, watermark = line_sum, max(watermark, durable)
            batches.append((seq, payload))
        if end is not None and (end["last_seq"], end["sum"]) != (len(batches), f"{checksum:08x}"):
            raise NotALog(f"segment {number} ends at {len(batches)} with {checksum:08x}; its successor follows {end}")
    if len(batches) < watermark:
        raise NotALog(f"the log ends at {len(batches)}, before {watermark}, which it calls durable")
    return batches


def _chain(paths: Mapping[int, Path]) -> list[tuple[int, Any, int]]:
    """Number, header and checksum of every segment that counts, oldest first: what ``previous`` skips is void."""
    chain: list[tuple[int, Any, int]] = []
    if not paths:
        raise NotALog("there is no segment")
    number: int | None = max(paths)
    while number is not None:
        if number not in paths or (chain and number >= chain[-1][0]):
            raise NotALog(f"segment {number} is named by a later one, and is not there before it")
        header, checksum = _header(paths[number], number)
        chain.append((number, header, checksum))
        number = None if header["previous"] is None else header["previous"]["segment"]
    return chain[::-1]


def _header(path: Path, number: int) -> tuple[Any, int]:
    with path.open("rb") as file:
        line = file.readline()
    try:
        header = json.loads(line)
        before = 0 if header["previous"] is None else int(header["previous"]["sum"], 16)
        checksum = _sum_of(line.removesuffix(b"\n"), number, before)
        right = header["format"] == "coordination-log-1" and header["segment"] == number and line.endswith(b"\n")
    except (ValueError, KeyError, TypeError) as error:
        raise NotALog(f"{path.name}: line 1 is not a header: {error!r}") from error
    if checksum is None or not right:
        raise NotALog(f"{path.name}: line 1 is not a header of segment {number}")
    return header, checksum


def _standing(path: Path, number: int, header: Any, checksum: int) -> Iterator[tuple[int, int, bytes, int]]:
    """Number, watermark, payload and checksum of each line up to the first that does not follow the one before."""
    expected = header["first_seq"]
    for line in path.read_bytes().split(b"\n")[1:-1]:
        line_sum = _sum_of(line, number, checksum)
        batch = _BATCH.fullmatch(line[: -len(b',"sum":"00000000"}')])
        if line_sum is None or batch is None or int(batch[1]) != expected:
            return  # torn, void, or the fill behind the last line
        yield expected, int(batch[2]), b"{" + batch[3] + b"}", line_sum
        expected, checksum = expected + 1, line_sum


def _sum_of(line: bytes, number: int, before: int) -> int | None:
    """The checksum of a line that follows ``before`` in segment ``number``; None when it does not."""
    summed = _SUMMED.fullmatch(line)
    if summed is None:
        return None
    checksum = zlib.crc32(summed[1], zlib.crc32(number.to_bytes(8, "little") + before.to_bytes(4, "little")))
    return checksum if checksum == int(summed[2], 16) else None
