"""What must every log engine do alike? A suite for whoever writes one.

A check is given ``connect``, which makes a further connection to one and the same fresh log. A test module needs no
more than::

    @pytest.mark.parametrize("check", log_conformance.CHECKS, ids=lambda check: check.__name__)
    def test_conformance(check, tmp_path):
        check(lambda: my_engine.connect(f"mine:{tmp_path}"))

Every check fails by AssertionError, saying what was expected of the engine.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from coordination.errors import Conflict, UsageError
from coordination.log import Log

Connect = Callable[[], Log]
Check = Callable[[Connect], None]

_WRITERS = 4
_BATCHES_EACH = 25
_PATIENCE_SECONDS = 30.0


def starts_empty(connect: Connect) -> None:
    """A fresh log has nothing in it and nothing to wait for."""
    log = connect()
    assert list(log.read(0, upto="head")) == []
    assert log.durable == 0
    assert not log.wait(0, 0.0)


def gives_back_what_was_appended(connect: Connect) -> None:
    """Payloads come back byte for byte, numbered from 1, to every connection."""
    payloads = [b'{"n":1}', b'{"a" : [1, 2.50, {"seq":9}] }', '{"é":"\\n \\" ☃"}'.encode(), b'{"":{}}']
    log = connect()
    for after, payload in enumerate(payloads):
        assert log.append(payload, after=after) == after + 1
    for reader in (log, connect()):
        assert list(reader.read(0, upto="head")) == list(enumerate(payloads, 1))
        assert list(reader.read(0, upto="durable")) == list(enumerate(payloads, 1))


def is_durable_on_return(connect: Connect) -> None:
    """What ``append`` returned is at or below the watermark, for everybody."""
    writer, reader = connect(), connect()
    seq = writer.append(b'{"n":1}', after=0)
    assert writer.durable == reader.durable == seq
    assert reader.wait(0, 0.0)


def reads_after_any_number(connect: Connect) -> None:
    """``after`` is exclusive, may be any number up to the head, and beyond the head there is nothing."""
    log = connect()
    _fill(log, 5)
    for after in (3, 0, 5, 2, 9):
        assert [seq for seq, _ in log.read(after, upto="head")] == list(range(after + 1, 6)), after
        assert [seq for seq, _ in connect().read(after, upto="durable")] == list(range(after + 1, 6)), after


def refuses_a_moved_head(connect: Connect) -> None:
    """Appending after anything but the head raises Conflict with the head, and appends nothing."""
    log = connect()
    _fill(log, 2)
    for after in (0, 1, 3):
        assert _raised(Conflict, partial(log.append, b'{"no":1}', after=after)).head == 2
    assert [seq for seq, _ in connect().read(0, upto="head")] == [1, 2]
    assert log.append(b'{"n":3}', after=2) == 3


def decides_again_at_the_head(connect: Connect) -> None:
    """With ``again`` there is no conflict: it sees everything up to the head, and its batch comes right behind that."""
    log, other = connect(), connect()
    _fill(other, 3)
    seen: list[int] = []

    def again() -> bytes:
        seen.extend(seq for seq, _ in log.read(1, upto="head"))
        return b'{"again":1}'

    assert log.append(b'{"no":1}', after=1, again=again) == 4
    assert seen == [2, 3]
    assert log.append(b'{"n":5}', after=4, again=again) == 5
    assert seen == [2, 3]
    payloads = [payload for _, payload in connect().read(3, upto="durable")]
    assert payloads == [b'{"again":1}', b'{"n":5}']


def appends_nothing_when_deciding_again_fails(connect: Connect) -> None:
    """What ``again`` raises comes through, the log stays as it was, and everybody can go on."""
    log = connect()
    _fill(log, 1)

    def again() -> bytes:
        raise LookupError("changed my mind")

    _raised(LookupError, partial(log.append, b'{"no":1}', after=0, again=again))
    _raised(UsageError, partial(log.append, b'{"no":1}', after=0, again=lambda: b"[]"))
    assert connect().append(b'{"n":2}', after=1) == 2


def refuses_what_is_not_an_object_on_one_line(connect: Connect) -> None:
    """A payload that would not come back byte for byte is refused, and the log stays as it was."""
    log = connect()
    for payload in (b"", b"{}", b"[1]", b'{"a":\n1}', b'{"a":1', b'"a":1}'):
        _raised(UsageError, partial(log.append, payload, after=0))
    assert list(log.read(0, upto="head")) == []


def keeps_its_name(connect: Connect) -> None:
    """All connections say the same uuid and epoch."""
    first, second = connect(), connect()
    first.append(b'{"n":1}', after=0)
    assert first.uuid == second.uuid != ""
    assert first.epoch == second.epoch == connect().epoch


def settles_without_changing_anything(connect: Connect) -> None:
    """Settling a log in good order leaves its batches and lets everybody go on."""
    log = connect()
    _fill(log, 2)
    log.settle()
    assert log.durable == 2
    assert [seq for seq, _ in log.read(0, upto="head")] == [1, 2]
    assert log.append(b'{"n":3}', after=2) == 3


def wakes_who_waits(connect: Connect) -> None:
    """Waiting ends when another connection appends."""
    writer, reader = connect(), connect()
    answers: list[bool] = []
    waiting = threading.Thread(target=lambda: answers.append(reader.wait(0, _PATIENCE_SECONDS)))
    waiting.start()
    writer.append(b'{"n":1}', after=0)
    waiting.join(_PATIENCE_SECONDS)
    assert answers == [True]


def lets_many_write_at_once(connect: Connect) -> None:
    """Threads on connections of their own, and sharing one, lose nothing, double nothing and agree on the order."""
    shared = connect()
    connections = [shared, shared, *(connect() for _ in range(_WRITERS - 2))]
    writers = [threading.Thread(target=_write, args=(log, name)) for name, log in enumerate(connections)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(_PATIENCE_SECONDS)
    batches = [(seq, json.loads(payload)) for seq, payload in connect().read(0, upto="durable")]
    assert [seq for seq, _ in batches] == list(range(1, _WRITERS * _BATCHES_EACH + 1))
    for name in range(_WRITERS):
        assert [batch["n"] for _, batch in batches if batch["writer"] == name] == list(range(_BATCHES_EACH))
    assert [(seq, json.loads(payload)) for seq, payload in shared.read(0, upto="head")] == batches


CHECKS: tuple[Check, ...] = (
    starts_empty,
    gives_back_what_was_appended,
    is_durable_on_return,
    reads_after_any_number,
    refuses_a_moved_head,
    decides_again_at_the_head,
    appends_nothing_when_deciding_again_fails,
    refuses_what_is_not_an_object_on_one_line,
    keeps_its_name,
    settles_without_changing_anything,
    wakes_who_waits,
    lets_many_write_at_once,
)


def _fill(log: Log, batches: int) -> None:
    for after in range(batches):
        log.append(b'{"n":%d}' % after, after=after)


def _write(log: Log, name: int) -> None:
    head = 0
    for number in range(_BATCHES_EACH):
        written = False
        while not written:
            try:
                head = log.append(b'{"writer":%d,"n":%d}' % (name, number), after=head)
                written = True
            except Conflict as conflict:
                head = conflict.head


def _raised(kind: type[Any], call: Callable[[], object]) -> Any:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, and nothing was raised")
