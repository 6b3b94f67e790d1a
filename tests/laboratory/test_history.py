"""The checker accepts every history that a right log can have, and finds each kind of broken promise."""

from __future__ import annotations

import json
import random
import signal
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import strategies as st

from coordination.log.file import FileLog, create
from coordination.log.frames import Header, Previous, encode_header, encode_line, written
from coordination.testing import history
from coordination.testing.history import Event, Final, Recorder, Seen, TaskEvent
from coordination.testing.mutation import Change, Mutant, beside

# ---- cases in words --------------------------------------------------------------------------------------------------
# One step of a case happens after the other: "p ask a", "p ok a 1", "p refused a", "p unknown a",
# "r sees a b" (durable), "r glimpses a" (not durable). For tasks: "p claim", "p ok 5", "p complete 5".

Case = tuple[str, str, str]  # the steps; what stands in the end; the kinds of violations that must be found

CASES: tuple[Case, ...] = (
    ("", "", ""),
    ("p ask a; p ok a 1; q ask b; q ok b 2; r sees a b", "a b", ""),
    ("p ask a; q ask b; q ok b 1; p ok a 2", "b a", ""),
    ("p ask a; q ask b; r glimpses a; p ok a 1; q ok b 2", "a b", ""),
    ("p ask a; p refused a; p ask a; p ok a 1", "a", ""),
    ("p ask a; p unknown a; p ask a; p ok a 2", "a a", ""),
    ("p ask a; p unknown a; q ask b; q ok b 1", "b", ""),
    ("p ask a; p unknown a; q ask b; q ok b 1", "b a", ""),
    ("p ask a; q ask b; q ok b 1; r sees b", "b a", ""),
    ("p ask a; p ask a; p ok a 1", "a", ""),
    ("p ask a; p ask a; p ok a 1", "a a", ""),
    ("p ask a; r sees; p ok a 1; r sees a; s glimpses", "a", ""),
    ("p ask a; q ask b; r glimpses b; p ok a 1", "a", ""),
    ("p ask a; q ask b; p ok a 2; q ok b 1", "b a", ""),
    ("p ask a; q ask b; r glimpses b; p ok a 1; s sees a", "a", ""),
    ("p ask a; p ok a 1", "", "lost"),
    ("p ask a; q ask b; p ok a 1; q ok b 2", "b a", "lost"),
    ("p ask a; p ok a 1; q ask b", "b", "lost"),
    ("p ask a; p ok a 1; p ask a; p ok a 1", "a", "lost"),
    ("p ask a; p ok a 1", "a b", "phantom"),
    ("p ask a; p refused a", "a", "phantom"),
    ("p ask a; p ok a 1; r glimpses a b", "a", "phantom"),
    ("p ask a; p ok a 1", "a a", "duplicated"),
    ("p ask a; p unknown a; p ask a; p refused a", "a a", "duplicated"),
    ("p ask a", "a a", "duplicated"),
    ("p ask a; p ok a 2; q ask b; q ok b 1", "b a", "reordered"),
    ("p ask a; p ok a 2; q ask b; q unknown b", "b a", "reordered"),
    ("p ask a; p ok a 2; q ask b", "b a", "reordered"),
    ("p ask a; p ok a 3; q ask b; q ok b 1; r ask c; r ok c 2", "b c a", "reordered"),
    ("p ask a; p ok a 2; q ask b; q ok b 3; r ask c; r ok c 1", "c a b", "reordered"),
    ("p ask a; q ask b; p ok a 3; q ok b 1; r ask c; r ok c 2", "b c a", "reordered"),
    ("p ask a; p ok a 2", "- a", "gap"),
    ("p ask a; q ask b; p ok a 1; q ok b 3", "a - b", "gap"),
    ("p ask a; r sees a", "", "vanished"),
    ("p ask a; q ask b; r sees b", "a b", "vanished"),
    ("p ask a; q ask b; r sees a b", "a", "vanished"),
    ("p ask a; q ask b; r sees b; s sees a", "a", "disagreeing vanished"),
    ("p ask a; q ask b; r sees a b; s sees b", "a b", "disagreeing vanished"),
    ("p ask a; q ask b; r sees a; r sees; s sees", "a", "stale"),
    ("p ask a; q ask b; r sees; r sees a b; r sees a; r sees a", "a b", "stale"),
    ("p ask a; r sees; r glimpses a; r sees; s sees a", "a", ""),
    ("p ask a; p ok a 1; r sees", "a", "stale"),
    ("p ask a; q ask b; p ok a 1; q ok b 2; r sees a", "a b", "stale"),
)

TASKS: tuple[tuple[str, bool], ...] = (
    ("", True),
    ("p claim; p ok 5; p complete 5; p ok", True),
    ("p claim; q claim; q ok 5; p refused; q complete 5; q ok", True),
    ("p claim; q claim; p refused; q ok 5", True),
    ("p claim; p ok 5; q claim; q ok 7; p complete 5; p refused; q complete 7; q ok", True),
    ("p claim; p ok 5; q claim; p complete 5; p ok; q ok 7", False),
    ("p claim; p ok 5; q claim; p complete 5; p ok; q refused", True),
    ("p claim; p ok 5; q claim; q unknown; p complete 5; p refused", True),
    ("p claim; p ok 5; q claim; q unknown; p complete 5; p ok", True),
    ("p claim; p ok 5; q claim; p complete 5; p refused", True),
    ("p claim; q claim; q refused", True),
    ("p claim; p unknown; p complete 6; p ok", True),
    ("p claim; p ok 5; p complete 5; p unknown; q claim; q refused", True),
    ("p claim; p ok 5; p complete 5; p unknown; q claim; q ok 8", True),
    ("p claim; p ok 5; p complete 5; q claim; q ok 8; q complete 8; q ok", True),
    ("p claim; p ok 5; p complete 5; p ok; q claim; q refused", True),
    ("p claim; p unknown; q claim; q refused; p complete 6; p refused", True),
    ("p claim; p ok 5; q claim; q ok 5", False),
    ("p claim; p ok 5; p claim; p unknown; p complete 5; p refused; p complete 5; p ok", False),
    ("p claim; p ok 5; q claim; q ok 4", False),
    ("p claim; p refused", False),
    ("p claim; q claim; p refused; q refused", False),
    ("p claim; p ok 5; q claim; q ok 7; p complete 5; p ok", False),
    ("p claim; p ok 5; q complete 5; q ok", False),
    ("p claim; p ok 5; p complete 4; p ok", False),
    ("p claim; p ok 5; p complete 5; p refused", False),
    ("p claim; p ok 5; p complete 5; p ok; p complete 5; p ok", False),
    ("p claim; p ok 5; p complete 5; p ok; q claim; q ok 9", False),
    ("p complete 5; p ok", False),
    ("p claim; p ok 5; p complete 5; p unknown; q claim; q ok 8; q complete 8; q refused", False),
    ("p claim; p ok 7; q claim; q unknown; q complete 6; q ok", False),
    ("q claim; q unknown; p claim; p ok 5; r complete 6; r ok", False),
)


def events_of(steps: str, module: ModuleType = history) -> tuple[list[Event], list[Seen]]:
    """The steps of a case as events, one unit of time apart."""
    kinds = {"ask": "invoke", "ok": "ok", "refused": "refused", "unknown": "unknown"}
    told, seen = [], []
    for at, words in enumerate(step.split() for step in steps.split(";") if step):
        process, verb, *rest = words
        if verb in kinds:
            told.append(module.Event(process, at, kinds[verb], rest[0], int(rest[1]) if rest[1:] else None))
        else:
            seen.append(module.Seen(process, at, tuple(rest), verb == "sees"))
    return told, seen


def final_of(values: str) -> list[tuple[int, str]]:
    """What stands; a number where "-" stands is missing."""
    return [(seq, value) for seq, value in enumerate(values.split(), 1) if value != "-"]


def task_of(steps: str, module: ModuleType = history) -> list[TaskEvent]:
    """The steps of a task's case as events."""
    split = [step.split() for step in steps.split(";") if step]
    return [
        module.TaskEvent(process, at, "t", kind, int(rest[0]) if rest else None)
        for at, (process, kind, *rest) in enumerate(split)
    ]


def kinds_found(case: Case, module: ModuleType = history) -> str:
    """The kinds of violations, each once, in the order of the alphabet."""
    told, seen = events_of(case[0], module)
    return " ".join(sorted({found.kind for found in module.violations(told, final_of(case[1]), seen)}))


def explained(steps: str, module: ModuleType = history) -> bool:
    """Whether some order of a task's operations gives the answers."""
    return not module.linearizable(task_of(steps, module))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} = {case[1]}")
def test_each_case_is_judged_right(case: Case) -> None:
    """A right history gives no violation, and a wrong one its kind and no other."""
    assert kinds_found(case) == case[2]


@pytest.mark.parametrize(("steps", "right"), TASKS)
def test_each_task_is_judged_right(steps: str, right: bool) -> None:
    """Claims and completions are explained by an order of their operations or are a violation."""
    assert explained(steps) == right


def test_a_violation_says_what_where_and_shows_the_events() -> None:
    """The message names values and numbers, and the events are the ones it speaks of."""
    told, _ = events_of("p ask a; p ok a 1")
    (found,) = history.violations(told, [(1, "b"), (2, "a")][:0])
    assert found.message == "'a' was acknowledged as 1; there stands None, it nowhere"
    assert found.events == tuple(told)
    (found,) = history.linearizable(task_of("p claim; p ok 5; p complete 4; p ok"))
    assert "'t'" in found.message
    assert "p complete 4 at 2: ok" in found.message


@pytest.mark.parametrize("steps", ["p ok a 1", "p ask a; p ok a", "p ask a; p refused a 1", "p ask a; q ok a 1"])
def test_a_history_that_makes_no_sense_is_an_error_of_its_recorder(steps: str) -> None:
    """Answers to nothing, and acknowledgements without a number, are refused instead of judged."""
    with pytest.raises(ValueError, match=r"^(an answer to what was never|an acknowledgement has a number)"):
        history.violations(events_of(steps)[0], [])


def test_tasks_are_judged_one_by_one_and_only_the_bad_one_is_named() -> None:
    """One bad task among good ones gives one violation with its events."""
    good = task_of("p claim; p ok 5; p complete 5; p ok")
    bad = [TaskEvent(event.process, event.at, "u", event.kind, event.token) for event in task_of("p claim; p refused")]
    (found,) = history.linearizable([*good, *bad])
    assert found.events == tuple(bad)


def test_a_hundred_refused_claims_and_many_maybes_are_judged_at_once() -> None:
    """The search does not grow with every order that operations could have had."""
    told = [TaskEvent(f"p{n}", n, "t", "claim") for n in range(100)]
    told += [TaskEvent(f"p{n}", 100 + n, "t", "refused") for n in range(99)]
    told += [TaskEvent("p99", 300, "t", "ok", 5)]
    told += [TaskEvent(f"m{n}", 301 + n, "t", "complete", 5) for n in range(12)]
    assert not history.linearizable(told)
    told += [TaskEvent("p99", 400, "t", "complete", 4), TaskEvent("p99", 401, "t", "ok")]
    assert history.linearizable(told)


# ---- histories at random ---------------------------------------------------------------------------------------------


class Told:
    """A history of a right log, made step by step."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.seen: list[Seen] = []
        self.final: list[tuple[int, str]] = []
        self._at = 0
        self._asked: dict[str, tuple[str, int | None]] = {}
        self._maybe: list[str] = []
        self._refused: list[str] = []
        self._looked: dict[str, int] = {}  # how much each process saw durable
        self._acknowledged = 0

    def step(self, process: str, choice: int) -> None:
        """Something that may happen next to this process."""
        self._at += 1
        if process not in self._asked:
            (self._ask, self._ask, self._look, self._late)[choice % 4](process, choice)
        else:
            (self._land, self._answer, self._answer, self._die)[choice % 4](process, choice)

    def _ask(self, process: str, choice: int) -> None:
        value = self._refused.pop() if self._refused and choice % 3 == 0 else f"v{self._at}"
        self._asked[process] = (value, None)
        self.events.append(Event(process, self._at, "invoke", value))

    def _land(self, process: str, choice: int) -> None:
        value, seq = self._asked[process]
        if seq is None:
            self._asked[process] = (value, self._stand(value))

    def _answer(self, process: str, choice: int) -> None:
        value, seq = self._asked.pop(process)
        if choice % 5 == 0:
            self.events.append(Event(process, self._at, "unknown", value))
            self._maybe += [value] * (seq is None)
        elif seq is None:
            self.events.append(Event(process, self._at, "refused", value))
            self._refused.append(value)
        else:
            self.events.append(Event(process, self._at, "ok", value, seq))
            self._acknowledged = max(self._acknowledged, seq)

    def _die(self, process: str, choice: int) -> None:
        value, seq = self._asked.pop(process)
        self._maybe += [value] * (seq is None)

    def _late(self, process: str, choice: int) -> None:
        if self._maybe:
            self._stand(self._maybe.pop(choice % len(self._maybe)))

    def _look(self, process: str, choice: int) -> None:
        durable = choice % 2 == 0
        least = max(self._acknowledged, self._looked.get(process, 0)) if durable else 0
        length = least + choice % (len(self.final) - least + 1)
        if durable:
            self._looked[process] = length
        self.seen.append(Seen(process, self._at, tuple(value for _, value in self.final[:length]), durable))

    def _stand(self, value: str) -> int:
        self.final.append((len(self.final) + 1, value))
        return len(self.final)

    def append(self, process: str, value: str) -> None:
        """Ask, stand there, be told: what a quiet log does."""
        seq = self._stand(value)
        self.events += [Event(process, self._at + 1, "invoke", value), Event(process, self._at + 2, "ok", value, seq)]
        self._at += 2


@st.composite
def right_histories(draw: st.DrawFn) -> Told:
    """A history that a right log can have: asks overlap, answers get lost, writers die, lines come late."""
    told = Told()
    for process, choice in draw(st.lists(st.tuples(st.sampled_from("pqr"), st.integers(0, 59)), max_size=40)):
        told.step(process, choice)
    return told


@st.composite
def busy_histories(draw: st.DrawFn) -> Told:
    """Such a history with two quiet appends at its end, so that something is there to be lost."""
    told = draw(right_histories())
    told.append("x", "first")
    told.append("y", "second")
    return told


def found_in(events: Iterable[Event], final: Final, seen: Iterable[Seen] = ()) -> set[str]:
    """The kinds of violations."""
    return {found.kind for found in history.violations(events, final, seen)}


@hypothesis.given(right_histories())
def test_every_right_history_is_accepted(told: Told) -> None:
    """No history of a right log is called wrong."""
    assert history.violations(told.events, told.final, told.seen) == []


def acknowledged(told: Told) -> list[Event]:
    """All acknowledgements, at least two."""
    return [event for event in told.events if event.kind == "ok"]


def asked_once(told: Told) -> list[Event]:
    """What was asked for under a value of its own, "first" and "second" among it."""
    times = Counter(event.value for event in told.events if event.kind == "invoke")
    return [event for event in told.events if event.kind == "invoke" and times[event.value] == 1]


def renumbered(events: Iterable[Event], numbers: dict[int, int]) -> list[Event]:
    """The same history with other numbers acknowledged."""
    return [
        event if event.seq is None else msgspec.structs.replace(event, seq=numbers.get(event.seq, event.seq))
        for event in events
    ]


@hypothesis.given(busy_histories(), st.data())
def test_a_lost_batch_is_found(told: Told, data: st.DataObject) -> None:
    """Take an acknowledged batch away, and put another in its place or let the others move up."""
    gone = data.draw(st.sampled_from(acknowledged(told)))
    rest = [value for seq, value in told.final if seq != gone.seq]
    assert "lost" in found_in(told.events, list(enumerate(rest, 1)))


@hypothesis.given(busy_histories(), st.data())
def test_a_phantom_batch_is_found(told: Told, data: st.DataObject) -> None:
    """Put in what nobody asked for, at the end or in the place of a maybe."""
    assert found_in(told.events, [*told.final, (len(told.final) + 1, "ghost")]) == {"phantom"}
    seen = Seen("r", 0, (*(value for _, value in told.final), "ghost"), durable=False)
    assert found_in(told.events, told.final, [seen]) == {"phantom"}


@hypothesis.given(busy_histories(), st.data())
def test_a_duplicated_batch_is_found(told: Told, data: st.DataObject) -> None:
    """Let a batch stand once more at the end."""
    standing = {value for _, value in told.final}
    again = data.draw(st.sampled_from([event.value for event in asked_once(told) if event.value in standing]))
    assert found_in(told.events, [*told.final, (len(told.final) + 1, again)]) == {"duplicated"}


@hypothesis.given(busy_histories(), st.data())
def test_a_reordering_is_found(told: Told, data: st.DataObject) -> None:
    """Let two batches change places, in the log and in what their writers were told."""
    standing = {value: seq for seq, value in told.final}
    second = data.draw(st.sampled_from([event for event in asked_once(told)[1:] if event.value in standing][-3:]))
    before = [event for event in acknowledged(told) if event.at < second.at and event.seq == standing[event.value]]
    hypothesis.assume(before)
    first = before[-1]
    assert first.seq is not None
    numbers = {first.seq: standing[second.value], standing[second.value]: first.seq}
    final = sorted((numbers.get(seq, seq), value) for seq, value in told.final)
    assert found_in(renumbered(told.events, numbers), final) == {"reordered"}


@hypothesis.given(busy_histories(), st.data())
def test_a_gap_is_found(told: Told, data: st.DataObject) -> None:
    """Leave a number out, in the log and in what the writers were told."""
    left_out = data.draw(st.integers(1, len(acknowledged(told))))
    numbers = {seq: seq + (seq >= left_out) for seq, _ in told.final}
    final = [(numbers[seq], value) for seq, value in told.final]
    assert found_in(renumbered(told.events, numbers), final) == {"gap"}


@hypothesis.given(busy_histories(), st.data())
def test_what_was_seen_as_durable_and_is_gone_is_found(told: Told, data: st.DataObject) -> None:
    """Let a reader have seen one more, or another one, than stands in the end."""
    asked = [event.value for event in told.events if event.kind == "invoke"]
    standing = [value for _, value in told.final]
    seen = Seen("r", 0, (*standing, data.draw(st.sampled_from(asked))), durable=True)
    assert found_in(told.events, told.final, [seen]) == {"vanished"}


@hypothesis.given(busy_histories(), st.data())
def test_readers_that_disagree_are_found(told: Told, data: st.DataObject) -> None:
    """Let two readers have seen different batches under one number."""
    asked = sorted({event.value for event in told.events if event.kind == "invoke"})
    one, other = (Seen(name, 0, (asked[index],), durable=True) for index, name in enumerate("rs"))
    assert found_in(told.events, told.final, [one, other]) >= {"disagreeing", "vanished"}


@hypothesis.given(busy_histories(), st.data())
def test_a_stale_reading_is_found(told: Told, data: st.DataObject) -> None:
    """Let a reader, after everything, see less than was acknowledged."""
    highest = max(event.seq or 0 for event in acknowledged(told))
    length = data.draw(st.integers(0, highest - 1))
    seen = Seen("r", len(told.events) + 1000, tuple(value for _, value in told.final[:length]), durable=True)
    assert found_in(told.events, told.final, [seen]) == {"stale"}


# ---- recording in real processes -------------------------------------------------------------------------------------

_WRITER = """
import json, sys
from pathlib import Path
from coordination.errors import Conflict
from coordination.log.file import FileLog
from coordination.testing.history import Recorder, now
directory, name = Path(sys.argv[1]), sys.argv[2]
log, recorder, head = FileLog(directory / "log", segment_bytes=2000), Recorder(directory / "history", name), 0
for number in range(int(sys.argv[3])):
    value = f"{name}.{number}"
    recorder.invoke(value)
    while True:
        try:
            head = log.append(json.dumps({"value": value}).encode(), after=head)
            break
        except Conflict as conflict:
            head = conflict.head
            at = now()
            read = [json.loads(payload)["value"] for _, payload in log.read(0, upto="durable")]
    recorder.ok(value, head)
    if number % 5 == 0:
        at = now()
        recorder.seen([json.loads(payload)["value"] for _, payload in log.read(0, upto="durable")], at=at, durable=True)
print("done", flush=True)
sys.stdin.read()
"""


def started(directory: Path, name: str, batches: int) -> subprocess.Popen[str]:
    """A process that appends to the log in ``directory`` and records what it was told."""
    command = [sys.executable, "-c", _WRITER, str(directory), name, str(batches)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def standing_in(directory: Path) -> list[tuple[int, str]]:
    """Numbers and values by the bytes alone."""
    return [(seq, json.loads(payload)["value"]) for seq, payload in history.raw_batches(directory / "log")]


def test_real_processes_record_one_history_and_a_kill_tears_nothing(tmp_path: Path, seed: int) -> None:
    """Three writers share a file of records; one of them is killed amid its work; the rest is whole and right."""
    create(tmp_path / "log")
    writers = [started(tmp_path, name, batches) for name, batches in (("p", 40), ("q", 40), ("victim", 100_000))]
    for writer in writers[:2]:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "done\n"
    writers[2].send_signal(signal.SIGKILL)
    for writer in writers:
        writer.communicate(timeout=30)
    told = history.load(tmp_path / "history")
    final = standing_in(tmp_path)
    assert sum(event.kind == "ok" and event.process != "victim" for event in told.events) == 80
    assert {event.process for event in told.seen} >= {"p", "q"}
    assert history.violations(told.events, final, told.seen) == []
    assert "lost" in found_in(told.events, [pair for pair in final if pair[1] != "p.17"])


def test_a_recorder_writes_every_kind_and_a_last_line_that_was_cut_is_left_out(tmp_path: Path) -> None:
    """What was recorded comes back as it was, in the order of time; what has no end does not count."""
    recorder = Recorder(tmp_path / "one", "p")
    recorder.invoke("a")
    recorder.ok("a", 1)
    recorder.invoke("b")
    recorder.refused("b")
    other = Recorder(tmp_path / "two", "q")
    other.invoke("c")
    other.unknown("c")
    other.seen(["a"], at=history.now(), durable=False)
    recorder.task("t", "complete", 7)
    recorder.close()
    other.close()
    with (tmp_path / "two").open("ab") as file:
        file.write(b'{"type":"event","proc')
    told = history.load(tmp_path / "two", tmp_path / "one")
    assert [(event.process, event.kind, event.value, event.seq) for event in told.events] == [
        ("p", "invoke", "a", None),
        ("p", "ok", "a", 1),
        ("p", "invoke", "b", None),
        ("p", "refused", "b", None),
        ("q", "invoke", "c", None),
        ("q", "unknown", "c", None),
    ]
    assert [(event.values, event.durable) for event in told.seen] == [(("a",), False)]
    assert [(event.task, event.kind, event.token) for event in told.tasks] == [("t", "complete", 7)]


def test_a_recorder_on_a_full_disk_says_so() -> None:
    """A record that was not taken is an error, or the history would lie."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    recorder = Recorder(Path("/dev/full"), "p")
    with pytest.raises(OSError, match="No space left"):
        recorder.invoke("a")
    recorder.close()


# ---- the parser ------------------------------------------------------------------------------------------------------


def segment(directory: Path, header: Header, payloads: Sequence[bytes], behind: bytes = b"") -> str:
    """Write a segment by the log's own encoder; returns its last checksum."""
    line, checksum = encode_header(header)
    data = line
    for seq, payload in enumerate(payloads, header.first_seq):
        line, checksum = encode_line(
            payload, seq=seq, durable=header.durable, segment=header.segment, previous_sum=checksum
        )
        data += line
    (directory / f"{header.segment:020d}.jsonl").write_bytes(data + behind)
    return written(checksum)


def header_of(number: int, first_seq: int, previous: Previous | None, durable: int = 0) -> Header:
    """A header of one and the same log."""
    return Header(log="u", segment=number, epoch=number, first_seq=first_seq, durable=durable, previous=previous)


A, B, C, D = (b'{"v":"%b"}' % name for name in (b"a", b"b", b"c", b"d"))
FILL = b"\n" * 50


def parsed(directory: Path, module: ModuleType = history) -> str:
    """The values that stand, or what is wrong."""
    try:
        return " ".join(json.loads(payload)["v"] for _, payload in module.raw_batches(directory))
    except module.NotALog:
        return "not a log"


def empty(directory: Path) -> None:
    """No file at all."""


def plain(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A, B])


def filled(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A, B], FILL)


def torn(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A], b'{"seq":2,"durable":1,"v":"b"' + FILL)


def filled_before_more(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A], FILL)
    segment(directory, header_of(2, 2, Previous(segment=1, last_seq=1, sum=last)), [B])


def void_behind(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A])
    segment(directory, header_of(1, 1, None), [A, B, C])
    segment(directory, header_of(2, 2, Previous(segment=1, last_seq=1, sum=last)), [D])


def skipped(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A])
    after_first = Previous(segment=1, last_seq=1, sum=last)
    segment(directory, header_of(2, 2, after_first), [B, C])
    (directory / "00000000000000000003.jsonl").write_bytes(b"nonsense")
    segment(directory, header_of(4, 2, after_first), [D])


def other_successor(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A])
    segment(directory, header_of(2, 2, Previous(segment=1, last_seq=1, sum="00000000")), [B])


def too_short(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A, B])
    segment(directory, header_of(1, 1, None), [A])
    segment(directory, header_of(2, 3, Previous(segment=1, last_seq=2, sum=last)), [C])


def below_watermark(directory: Path) -> None:
    segment(directory, header_of(1, 1, None, durable=2), [A])


def header_beyond(directory: Path) -> None:
    segment(directory, header_of(1, 1, None, durable=2), [])


def line_beyond(directory: Path) -> None:
    line, checksum = encode_header(header_of(1, 1, None))
    batch, _ = encode_line(A, seq=1, durable=2, segment=1, previous_sum=checksum)
    (directory / "00000000000000000001.jsonl").write_bytes(line + batch)


def says_another_number(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A])
    line, _ = encode_header(header_of(2, 2, Previous(segment=1, last_seq=1, sum=last)))
    body = line[: -len(b',"sum":"00000000"}\n')].replace(b'"segment":2', b'"segment":1')
    checksum = zlib.crc32(body, zlib.crc32(struct.pack("<QI", 2, int(last, 16))))
    (directory / "00000000000000000002.jsonl").write_bytes(b'%b,"sum":"%08x"}\n' % (body, checksum))


def flipped(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A, B])
    path = directory / "00000000000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"v":"a"', b'"v":"x"'))


def bad_header(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A])
    path = directory / "00000000000000000001.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"epoch":1', b'"epoch":2'))


def under_another_number(directory: Path) -> None:
    segment(directory, header_of(1, 1, None), [A])
    (directory / "00000000000000000001.jsonl").rename(directory / "00000000000000000002.jsonl")


def sequence_break(directory: Path) -> None:
    last = segment(directory, header_of(1, 1, None), [A])
    segment(directory, header_of(2, 3, Previous(segment=1, last_seq=1, sum=last)), [B])


def first_is_gone(directory: Path) -> None:
    segment(directory, header_of(2, 2, Previous(segment=1, last_seq=1, sum="00000000")), [B])


def goes_in_a_circle(directory: Path) -> None:
    segment(directory, header_of(1, 1, Previous(segment=1, last_seq=0, sum="00000000")), [A])


def not_from_the_beginning(directory: Path) -> None:
    segment(directory, header_of(1, 2, None), [B])


def repeated_number(directory: Path) -> None:
    first = header_of(1, 1, None)
    line, checksum = encode_header(first)
    one, checksum = encode_line(A, seq=1, durable=0, segment=1, previous_sum=checksum)
    again, checksum = encode_line(B, seq=1, durable=0, segment=1, previous_sum=checksum)
    (directory / "00000000000000000001.jsonl").write_bytes(line + one + again)


IMAGES: tuple[tuple[Callable[[Path], None], str], ...] = (
    (empty, "not a log"),
    (plain, "a b"),
    (filled, "a b"),
    (torn, "a"),
    (filled_before_more, "a b"),
    (void_behind, "a d"),
    (skipped, "a d"),
    (repeated_number, "a"),
    (flipped, ""),
    (other_successor, "not a log"),
    (too_short, "not a log"),
    (below_watermark, "not a log"),
    (header_beyond, "not a log"),
    (line_beyond, "not a log"),
    (says_another_number, "not a log"),
    (bad_header, "not a log"),
    (under_another_number, "not a log"),
    (sequence_break, "not a log"),
    (first_is_gone, "not a log"),
    (goes_in_a_circle, "not a log"),
    (not_from_the_beginning, "not a log"),
)


@pytest.mark.parametrize(("image", "values"), IMAGES)
def test_each_image_is_read_by_the_format_alone(image: Callable[[Path], None], values: str, tmp_path: Path) -> None:
    """Void lines, fill, torn ends and skipped segments do not count; what contradicts itself is not a log."""
    image(tmp_path)
    assert parsed(tmp_path) == values


@hypothesis.settings(max_examples=30)
@hypothesis.given(st.integers())
def test_the_parser_reads_what_the_log_reads(tmp_path_factory: pytest.TempPathFactory, number: int) -> None:
    """After random appends, rolls, lost pages and torn ends both give the same batches."""
    chance, directory = random.Random(number), tmp_path_factory.mktemp("log")
    create(directory)
    for _ in range(chance.randrange(1, 5)):
        log = FileLog(directory, segment_bytes=chance.choice((300, 10_000)))
        log.settle()
        head = max((seq for seq, _ in log.read(0, upto="head")), default=0)
        for after in range(head, head + chance.randrange(5)):
            log.append(json.dumps({"v": "x" * chance.randrange(60)}).encode(), after=after)
        log.close()
        (directory / "page").unlink()
        with max(directory.glob("*.jsonl")).open("ab") as file:
            file.write(chance.choice((b"", FILL, b'{"seq":')))
    log = FileLog(directory)
    assert history.raw_batches(directory) == list(log.read(0, upto="head"))
    log.close()


# ---- who checks the checker ------------------------------------------------------------------------------------------

WEAKER: tuple[tuple[str, str], ...] = (
    *((f"    {rule.__name__},\n", "") for rule in history.RULES),
    ("if standing.get(told.seq) != value:", "if value not in standing.values():"),
    ("elif first is not told:", "elif False:"),
    ("elif not any(each.possible for each in asked):", "elif False:"),
    ("for each in case.operations.get(value, ()) if each.possible]", "for each in case.operations.get(value, ())]"),
    ("if 0 < len(asked) < times:", "if 1 < len(asked) < times:"),
    ("if 0 < len(asked) < times:", "if 0 < len(asked) <= times:"),
    ("[before].events[-1].at < operation.asked.at:", "[before].asked.at < operation.asked.at:"),
    (
        "newest = max(newest or acknowledged[before], acknowledged[before],",
        "newest = max(acknowledged[before], acknowledged[before],",
    ),
    ("newest.seq is not None and newest.seq > seq:", "newest.seq is not None and newest.seq + 1 > seq + 2:"),
    ("elif len(possible) == len(standing[value]) == 1:", "elif False:"),
    ("        if seq != expected:", "        if seq < expected:"),
    (
        "if seen.durable and seen.values != standing[: len(seen.values)]:",
        "if seen.durable and len(seen.values) > len(standing):",
    ),
    (
        "if seen.durable and seen.values != standing[: len(seen.values)]:",
        "if seen.values != standing[: len(seen.values)]:",
    ),
    ("{seen.values: seen for seen in case.seen if seen.durable}", "{seen.values: seen for seen in case.seen}"),
    ("if each.events[-1].at < seen.at]", "if each.asked.at < seen.at]"),
    ("if len(before.values) > len(seen.values):", "if len(before.values) > len(seen.values) + 1:"),
    ("(each for each in case.seen if each.durable), key", "case.seen, key"),
    ("furthest.setdefault(seen.process, seen)", 'furthest.setdefault("", seen)'),
    ("max(before, seen, key=lambda each: len(each.values))", "before"),
    ("(newest.seq or 0) > len(seen.values):", "(newest.seq or 0) > len(seen.values) + 1:"),
    ("if seen.durable else []", "if True else []"),
    ("yield from ((asked, None) for asked in waiting.values())", "return"),
    ("                yield earlier, None", "                pass"),
    (
        'return self.answered is None or self.answered.kind != "refused"',
        'return self.answered is not None and self.answered.kind == "ok"',
    ),
    ("if chosen & certain == certain:", "if chosen == certain:"),
    ("        if operations[index][0].at <= min(ends):", "        if True:"),
    ("for step in idle[:1] or steps:", "for step in steps[:1]:"),
    ('    return answered is not None and answered.kind != "unknown"', "    return answered is not None"),
    ("return state if state.done or state.holder else None", "return state"),
    (
        "return state if state.done or state.holder else None",
        "return state if state.holder and not state.done else None",
    ),
    ('if state.done or (answer == "ok" and token <= state.token):', 'if answer == "ok" and token <= state.token:'),
    ('(answer == "ok" and token <= state.token):', '(answer == "ok" and token < state.token):'),
    ('(answer == "ok" and token <= state.token):', "False:"),
    ('hidden=answer == "maybe")', "hidden=False)"),
    ("right = token > state.token if state.hidden else token == state.token", "right = token == state.token"),
    ("right = token > state.token if state.hidden else token == state.token", "right = token >= state.token"),
    ("if state.hidden else token == state.token", "if state.hidden else True"),
    ("right = token > state.token if", "right = True if"),
    ("asked.process == state.holder and not state.done", "not state.done"),
    ("asked.process == state.holder and not state.done", "asked.process == state.holder"),
    ("return None if wins and not state.hidden else state", "return state"),
    ("return None if wins and not state.hidden else state", "return None if wins else state"),
    ("hidden=False, done=True) if wins else None", "hidden=False, done=True)"),
    ("hidden=False, done=True) if wins", "hidden=False) if wins"),
    ('if end is not None and seq > end["last_seq"]:', "if False:"),
    ('if header["first_seq"] != len(batches) + 1:', "if False:"),
    ('(end["last_seq"], end["sum"]) != (len(batches), f"{checksum:08x}"):', '(end["last_seq"],) != (len(batches),):'),
    ('if end is not None and (end["last_seq"], end["sum"])', 'if end is None and (0, "")'),
    ("    if len(batches) < watermark:", "    if False:"),
    ('watermark = max(watermark, header["durable"])', "watermark = watermark"),
    ("if number not in paths or (chain", "if (chain"),
    ("checksum, watermark = line_sum, max(watermark, durable)", "checksum = line_sum"),
    (
        'number = None if header["previous"] is None else header["previous"]["segment"]',
        "number = number - 1 if number > 1 else None",
    ),
    ('header["segment"] == number and line', "line"),
    ("    if checksum is None or not right:", "    if not right:"),
    ("if line_sum is None or batch is None or int(batch[1]) != expected:", "if line_sum is None or batch is None:"),
    ("return checksum if checksum == int(summed[2], 16) else None", "return int(summed[2], 16)"),
    ('before.to_bytes(4, "little")', 'b""'),
    ('number.to_bytes(8, "little") + ', ""),
)


def wrongly_judged(module: ModuleType, directory: Path) -> list[Any]:
    """Which of the cases above this checker judges wrong."""
    wrong: list[Any] = [case for case in CASES if _attempt(kinds_found, case, module) != case[2]]
    wrong += [case for case in TASKS if _attempt(explained, case[0], module) != case[1]]
    for image, values in IMAGES:
        place = directory / image.__name__
        place.mkdir(exist_ok=True)
        image(place)
        wrong += [image] if _attempt(parsed, place, module) != values else []
    return wrong


def _attempt(judge: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return judge(*arguments)
    except Exception as error:  # noqa: BLE001 -- a mutated checker may fail in any way
        return repr(error)


def test_the_right_checker_judges_every_case_right(tmp_path: Path) -> None:
    """Positive control of the table below: without a change nothing is judged wrong."""
    assert wrongly_judged(history, tmp_path) == []


@pytest.mark.parametrize("index", range(len(WEAKER)), ids=lambda index: WEAKER[index][0].strip()[:60])
def test_each_weaker_checker_is_noticed(index: int, tmp_path: Path) -> None:
    """Take one rule of the checker away or bend it, and at least one case is judged wrong."""
    text, instead = WEAKER[index]
    change = Change(history.__name__, text, instead)
    mutant = Mutant(name=f"weaker-{index}", rule="", changes=(change,))
    assert wrongly_judged(beside(mutant), tmp_path)


def test_checkers_were_weakened_in_every_rule(figure: Callable[..., None]) -> None:
    """The table has each rule of the log's promises turned off, and more."""
    assert {text.strip(" ,\n") for text, _ in WEAKER} >= {rule.__name__ for rule in history.RULES}
    figure("G14", "weaker checkers noticed", len(WEAKER))
