"""What did an agent say and do? Its transcript, of which the lines that people want are told. Pure.

A transcript is what a program printed, one JSON object a line; a line that is none, or of a kind we do not know, says
nothing here. The file has all of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from coordination.monitor.cells import Part, Tone

BYTES_MAX = 256 << 10  # of the end of the file
_RESULT_LINES = 3
_ARGUMENTS_MAX = 300
_TELLING = ("file_path", "notebook_path", "path", "command", "pattern", "url", "query", "description")


def told(data: bytes, *, whole: bool) -> list[Part]:
    """The end of a transcript as lines of any length; ``whole`` says that ``data`` is all of it."""
    rows = data.split(b"\n")
    if not whole:
        rows = rows[1:]  # the first one is only the end of a line
    return [part for row in rows for part in _lines(_decoded(row))]


def _decoded(row: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(row.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _lines(message: Mapping[str, Any]) -> Iterator[Part]:
    match message:
        case {"type": "assistant", "message": {"content": list() as blocks}}:
            for block in blocks:
                yield from _said(block)
        case {"type": "user", "message": {"content": list() as blocks}}:
            for block in blocks:
                yield from _answered(block)
        case {"type": "result"}:
            cost = message.get("total_cost_usd")
            spent = f", {cost:.4f} USD" if isinstance(cost, float) else ""
            yield Part(f"= {message.get('subtype', '')}, {message.get('num_turns', '?')} turns{spent}", Tone.STRONG)
        case {"type": "system", "subtype": "init"}:
            yield Part(f"= begins with {message.get('model', '')}", Tone.FAINT)
        case {"type": "scripted"}:
            yield Part(f"→ {message.get('tool', '')} {message.get('file', '')}".rstrip(), Tone.STRONG)


def _said(block: Any) -> Iterator[Part]:
    match block:
        case {"type": "text", "text": str() as text}:
            yield from (Part(row) for row in text.strip().splitlines())
        case {"type": "tool_use", "name": str() as name}:
            yield Part(f"→ {name} {_arguments(block.get('input'))}".rstrip(), Tone.STRONG)


def _arguments(arguments: Any) -> str:
    if not isinstance(arguments, dict):
        return ""
    for name in _TELLING:
        if isinstance(arguments.get(name), str):
            return str(arguments[name])[:_ARGUMENTS_MAX]
    return json.dumps(arguments, ensure_ascii=False)[:_ARGUMENTS_MAX] if arguments else ""


def _answered(block: Any) -> Iterator[Part]:
    if not isinstance(block, dict) or block.get("type") != "tool_result":
        return
    rows = _text(block.get("content")).strip().splitlines()
    for row in rows[:_RESULT_LINES]:
        yield Part(f"  {row}", Tone.FAINT)
    if len(rows) > _RESULT_LINES:
        yield Part(f"  … {len(rows) - _RESULT_LINES} lines more", Tone.FAINT)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content if isinstance(block, dict))
    return content if isinstance(content, str) else ""
