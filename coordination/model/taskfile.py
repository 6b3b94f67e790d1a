"""Is this a task, and which? Bytes of a task file to a ``Submission``, or one reason why not.

Two steps, both pure::

    bytes ── decode ──▶ JSON object ── parse ──▶ Submission(id, spec, digest)

``decode`` refuses what two JSON readers could understand differently or what could hurt a later one: other encodings,
byte order marks, NaN and Infinity, doubled keys, lone surrogates, numbers that do not fit 64 bits, deep nesting.
``parse`` checks every field and coerces nothing. Both raise ``Rejected`` with field, expected and found, and nothing
else, whatever they are given.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from coordination.errors import Rejected
from coordination.model.events import canonical
from coordination.model.runs import Value
from coordination.model.tasks import Kind, ReviewMode, TaskSpec
from coordination.settings import is_ref_name, nearest

PROMPT_BYTES_MAX = 256 * 1024
TITLE_MAX = 200
PRIORITY_MAX = 100
DEPTH_MAX = 32
SHOWN_MAX = 100
AUTO = "auto"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_ID_RULE = "1 to 64 of A-Z a-z 0-9 _ -, beginning with a letter or digit"
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**63 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Line and paragraph separators break lists of titles; overrides of direction make one text look like another.
_LOOKS_LIKE_CONTROL = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Submission(Value, frozen=True, kw_only=True):
    """A task somebody asks for. ``id`` is None when one is to be minted; ``digest`` says which content it is."""

    id: str | None = None
    spec: TaskSpec
    digest: str  # SHA-256 of the canonical JSON of the object as given, before defaults


def decode(data: bytes) -> dict[str, Any]:
    """Read strict JSON: one object in UTF-8. Raises Rejected."""
    text = _text(data)
    _check_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except json.JSONDecodeError as error:
        place = f"{error.msg} in line {error.lineno}, column {error.colno}"
        raise Rejected(f"not JSON: {place}", expected="one JSON object", found=place) from error
    if not isinstance(value, dict):
        raise Rejected("a task is a JSON object", expected="{…}", found=shown(value))
    _check_surrogates(value)
    return value


def parse(value: Mapping[str, Any], *, roles: Collection[str], gates: Collection[str]) -> Submission:
    """Check a task object against the names of the roles and gates there are. Raises Rejected."""
    _check_surrogates(value)
    for name in value:
        if name not in _FIELDS:
            _unknown(name)
    if "prompt" not in value:
        raise Rejected("a task needs a prompt", field="prompt", expected="text", found="nothing")
    names = {"role": roles, "gates": gates}
    checked = {field: _FIELDS[field](field, found, names.get(field, ())) for field, found in value.items()}
    task = checked.pop("id", None)
    if task is not None:
        _check_not_itself(task, checked.get("after", ()))
    checked["title"] = checked.get("title") or _first_line(checked["prompt"])
    digest = hashlib.sha256(canonical(dict(value))).hexdigest()
    return Submission(id=task, spec=TaskSpec(**checked), digest=digest)


def is_id(text: str) -> bool:
    """Whether ``text`` may be the id of a task."""
    return _ID.fullmatch(text) is not None


def shown(value: object) -> str:
    """A value as JSON in ASCII, cut short: what an error may show of a file nobody trusts."""
    # Strings are cut first, so that quoting a large file back costs nothing.
    return _cut(json.dumps(value[:SHOWN_MAX] if isinstance(value, str) else value, default=repr))


# ---- bytes to JSON ---------------------------------------------------------------------------------------------------


def _text(data: bytes) -> str:
    if data.startswith(_BYTE_ORDER_MARK):
        raise Rejected("the file begins with a byte order mark", expected="UTF-8 without one", found="EF BB BF")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02X} at {error.start}"
        raise Rejected(f"not UTF-8: {found}", expected="UTF-8", found=found) from error
    if not text.strip():
        raise Rejected("the file is empty", expected="one JSON object", found="nothing")
    return text


# Possessive, so that no input makes it go back and try again: linear in the size of the text.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _check_depth(text: str) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        character = match[0][0]
        depth += 1 if character in "[{" else -1 if character in "]}" else 0
        if depth > DEPTH_MAX:
            raise Rejected("nested too deeply", expected=f"at most {DEPTH_MAX} levels", found=f"level {depth}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for name, found in pairs:
        if name in value:
            raise Rejected(
                "a key is given twice", field=shown(name)[1:-1], expected="each key once", found=shown(found)
            )
        value[name] = found
    return value


def _integer(digits: str) -> int:
    # by length first: reading very long numbers costs time that grows with the square
    if len(digits) > len(str(_INTEGER_MIN)) or not _INTEGER_MIN <= int(digits) <= _INTEGER_MAX:
        raise Rejected("a whole number does not fit 64 bits", expected="-2^63 to 2^63-1", found=_cut(digits))
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Rejected("a number is too large", expected="a number up to 1.8e308", found=_cut(digits))
    return number


def _constant(name: str) -> NoReturn:
    raise Rejected(f"{name} is not JSON", expected="a number", found=name)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[: SHOWN_MAX - 1]}…"


def _check_surrogates(value: object, field: str = "") -> None:
    """Half of a UTF-16 pair is no character: it cannot be written down as UTF-8."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"U+{ord(value[error.start]):04X}"
            raise Rejected("text with a lone surrogate", field=field, expected="characters", found=found) from error
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _check_surrogates(name, field)
            _check_surrogates(inner, field or name)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_surrogates(inner, field)


# ---- fields ----------------------------------------------------------------------------------------------------------

Check = Callable[[str, object, Collection[str]], Any]
"""Takes a field's name, what was found there and the names it may hold; returns what the TaskSpec gets."""

E = TypeVar("E", bound=StrEnum)


def _refuse(field: str, expected: str, found: object) -> NoReturn:
    shown_found = shown(found)
    raise Rejected(
        f"{field}: expected {expected}, found {shown_found}", field=field, expected=expected, found=shown_found
    )


def _unknown(name: str) -> NoReturn:
    near = nearest(name, _FIELDS)
    hint = f"did you mean {near!r}?" if near else f"known: {', '.join(_FIELDS)}"
    field = shown(name)[1:-1]
    raise Rejected(f"unknown field '{field}'; {hint}", field=field, expected=near or ", ".join(_FIELDS), found=field)


def _string(field: str, found: object) -> str:
    if not isinstance(found, str):
        _refuse(field, "text", found)
    return found


def _prompt(field: str, found: object, _names: Collection[str]) -> str:
    prompt = _string(field, found)
    size = len(prompt.encode("utf-8"))
    if size > PROMPT_BYTES_MAX:
        raise Rejected(
            "the prompt is too long", field=field, expected="at most 256 KiB of UTF-8", found=f"{size} bytes"
        )
    if not prompt:
        _refuse(field, "at least one byte of text", found)
    return prompt


def _id(field: str, found: object, _names: Collection[str]) -> str:
    task = _string(field, found)
    if not is_id(task):
        _refuse(field, _ID_RULE, found)
    return task


def _title(field: str, found: object, _names: Collection[str]) -> str:
    title = _string(field, found)
    if len(title) > TITLE_MAX:
        raise Rejected("the title is too long", field=field, expected="at most 200 characters", found=f"{len(title)}")
    if any(map(_controls, title)):
        _refuse(field, "one line without control characters", found)
    return title.strip()


def _controls(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or character in _LOOKS_LIKE_CONTROL


def _first_line(prompt: str) -> str:
    """The first line that shows anything, without what would control a terminal."""
    for line in prompt.splitlines():
        title = "".join(" " if _controls(character) else character for character in line).strip()
        if title:
            return title[:TITLE_MAX].rstrip()
    return "(untitled)"


def _one_of(kind: type[E]) -> Check:
    known = [member.value for member in kind]

    def check(field: str, found: object, _names: Collection[str]) -> E:
        if not isinstance(found, str) or found not in known:
            _refuse_name(field, found, known)
        return kind(found)

    return check


def _refuse_name(field: str, found: object, known: Collection[str]) -> NoReturn:
    expected = f"one of {', '.join(known)}" if known else "nothing (none is defined)"
    near = nearest(found, known) if isinstance(found, str) else ""
    hint = f"; did you mean {near!r}?" if near else ""
    reason = f"{field}: expected {expected}, found {shown(found)}{hint}"
    raise Rejected(reason, field=field, expected=expected, found=shown(found))


def _role(field: str, found: object, roles: Collection[str]) -> str:
    known = [AUTO, *(role for role in roles if role != AUTO)]
    if not isinstance(found, str) or found not in known:
        _refuse_name(field, found, known)
    return found


def _priority(field: str, found: object, _names: Collection[str]) -> int:
    number = _whole(found)
    if number is None or abs(number) > PRIORITY_MAX:
        _refuse(field, f"a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}", found)
    return number


def _version(field: str, found: object, _names: Collection[str]) -> int:
    if _whole(found) != 1:
        _refuse(field, "1, the only version there is", found)
    return 1


def _count(field: str, found: object, _names: Collection[str]) -> int:
    number = _whole(found)
    if number is None or not 0 < number <= _INTEGER_MAX:
        _refuse(field, "a whole number above 0", found)
    return number


def _amount(field: str, found: object, _names: Collection[str]) -> float:
    # true is not 1; and the bound keeps out Infinity, and integers too large to become a float
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= sys.float_info.max:
        _refuse(field, "a number above 0", found)
    return float(found)


def _whole(found: object) -> int | None:
    """A whole number, also as 3.0: JSON does not tell them apart. None for anything else; true is not 1."""
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    return int(found) if isinstance(found, float) and found.is_integer() else None


def _list(field: str, found: object, what: str, accepts: Callable[[str], bool]) -> tuple[str, ...]:
    """A list of strings that ``accepts`` takes, each of them once."""
    if not isinstance(found, list):
        _refuse(field, f"a list of {what}", found)
    for item in found:
        if not isinstance(item, str) or not accepts(item):
            _refuse(field, f"a list of {what}", item)
    return tuple(found)


def _check_once(field: str, names: Collection[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise Rejected(f"{field}: {shown(name)} is listed twice", field=field, expected="each once", found=name)
        seen.add(name.lower())


def _after(field: str, found: object, _names: Collection[str]) -> tuple[str, ...]:
    tasks = _list(field, found, f"task ids ({_ID_RULE})", is_id)
    _check_once(field, tasks)
    return tasks


def _check_not_itself(task: str, after: Collection[str]) -> None:
    if task.lower() in {other.lower() for other in after}:
        raise Rejected(f"task {task} waits for itself", field="after", expected="other tasks", found=task)


def _gates(field: str, found: object, known: Collection[str]) -> tuple[str, ...]:
    gates = _list(field, found, "names of gates", lambda _name: True)
    for gate in gates:
        if gate not in known:
            _refuse_name(field, gate, known)
    _check_once(field, gates)
    return gates


def _paths(what: str) -> Check:
    def check(field: str, found: object, _names: Collection[str]) -> tuple[str, ...]:
        return _list(field, found, f"{what} relative to the repository, without '..'", _is_within)

    return check


def _is_within(path: str) -> bool:
    """Whether a path cannot lead out of where it starts."""
    return bool(path.strip()) and path[0] != "/" and ".." not in path.split("/") and not any(map(_controls, path))


def _base(field: str, found: object, _names: Collection[str]) -> str:
    if not is_ref_name(_string(field, found)):
        _refuse(field, "a git branch, tag or commit", found)
    return _string(field, found)


def _labels(field: str, found: object, _names: Collection[str]) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(text, str) for pair in found.items() for text in pair):
        _refuse(field, "a flat object of texts", found)
    return dict(found)


_FIELDS: dict[str, Check] = {
    "prompt": _prompt,
    "id": _id,
    "title": _title,
    "kind": _one_of(Kind),
    "role": _role,
    "priority": _priority,
    "after": _after,
    "gates": _gates,
    "paths": _paths("globs"),
    "base": _base,
    "review": _one_of(ReviewMode),
    "budget_usd": _amount,
    "timeout_seconds": _amount,
    "turns_max": _count,
    "attempts_max": _count,
    "context": _paths("paths"),
    "labels": _labels,
    "version": _version,
}
