"""A transcript is told by what people want of it, and what is not one says nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination.monitor.cells import Part, Tone
from coordination.monitor.transcripts import told


def rows(*messages: Any) -> bytes:
    return b"".join(json.dumps(message).encode() + b"\n" for message in messages)


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"content": list(blocks)}}


def test_what_an_agent_said_and_did_is_told() -> None:
    """Its words, its tools with what they were used on, the first lines of what they answered, and how it ended."""
    data = rows(
        {"type": "system", "subtype": "init", "model": "sonnet"},
        assistant({"type": "text", "text": "I look.\nThen I act."}),
        assistant({"type": "tool_use", "name": "Bash", "input": {"command": "ls -l"}}),
        assistant({"type": "tool_use", "name": "Odd", "input": {"number": 1}}),
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "a\nb\nc\nd\ne"}]}},
        {"type": "result", "subtype": "success", "num_turns": 3, "total_cost_usd": 0.5},
        {"type": "scripted", "tool": "write", "file": "a.py"},
    )
    assert [part.text for part in told(data, whole=True)] == [
        "= begins with sonnet",
        "I look.",
        "Then I act.",
        "→ Bash ls -l",
        '→ Odd {"number": 1}',
        "  a",
        "  b",
        "  c",
        "  … 2 lines more",
        "= success, 3 turns, 0.5000 USD",
        "→ write a.py",
    ]


def test_the_first_line_of_an_end_is_half_a_line() -> None:
    """Unless the end is all there is; half a line at the end says nothing yet."""
    data = rows(assistant({"type": "text", "text": "one"}), assistant({"type": "text", "text": "two"}))
    assert told(data, whole=False) == [Part("two", Tone.PLAIN)]
    assert told(data[:-5], whole=True) == [Part("one", Tone.PLAIN)]


@pytest.mark.parametrize(
    "line", [b"[" * 100_000, b"\xff\xfe", b"null", b'"text"', b"1" * 5_000, b'{"type":"assistant"}']
)
def test_what_is_no_message_says_nothing(line: bytes) -> None:
    """Not JSON, too deep, no object, of another form."""
    assert told(line + b"\n", whole=True) == []


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5), st.lists)


@given(JSON, JSON, JSON, st.sampled_from(["assistant", "user", "result", "system", "scripted"]))
def test_a_message_may_hold_anything(first: Any, second: Any, third: Any, kind: str) -> None:
    """An agent's program is not ours: whatever stands where, lines of text come out."""
    block = {"type": first, "text": second, "name": third, "input": first, "content": second}
    fine = [
        {"type": "text", "text": second},
        {"type": "tool_use", "name": "a", "input": {"command": third, "b": first}},
    ]
    content = [first, block, *fine, {"type": "tool_result", "content": [second, block]}]
    message = {
        "type": kind, "message": {"content": content},
        "num_turns": first, "total_cost_usd": second, "tool": third, "model": first, "subtype": second,
    }  # fmt: skip
    assert all(isinstance(part.text, str) for part in told(rows(message), whole=True))
