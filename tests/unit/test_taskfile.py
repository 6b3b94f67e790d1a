"""Is every field of a task file read as described, and every bad one refused with its own reason?"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest

from coordination.errors import Rejected
from coordination.model.taskfile import (
    DEPTH_MAX,
    PROMPT_BYTES_MAX,
    Submission,
    decode,
    is_id,
    parse,
    shown,
)
from coordination.model.tasks import Kind, ReviewMode, TaskSpec

ROLES = ("blue", "green", "red")
GATES = ("unit", "types")


def submission(**fields: Any) -> Submission:
    return parse({"prompt": "Do it."} | fields, roles=ROLES, gates=GATES)


def refusal(**fields: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        submission(**fields)
    return caught.value


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "blanks": (b" \n\t", "empty"),
    "latin-1": ('{"prompt": "é"}'.encode("latin-1"), "not UTF-8"),
    "utf-16": ('{"prompt": "x"}'.encode("utf-16"), "not UTF-8"),
    "overlong slash": (b'{"prompt": "\xc0\xaf"}', "not UTF-8"),
    "raw surrogate": (b'{"prompt": "\xed\xa0\x80"}', "not UTF-8"),
    "byte order mark": (b'\xef\xbb\xbf{"prompt": "x"}', "byte order mark"),
    "half a file": (b'{"prompt": "x', "not JSON"),
    "two objects": (b'{"prompt": "x"}{}', "not JSON"),
    "single quotes": (b"{'prompt': 'x'}", "not JSON"),
    "trailing comma": (b'{"prompt": "x",}', "not JSON"),
    "comment": (b'{"prompt": "x"} // why', "not JSON"),
    "raw line break in text": (b'{"prompt": "a\nb"}', "not JSON"),
    "NUL": (b'{"prompt": "x"}\0', "not JSON"),
    "list": (b'[{"prompt": "x"}]', "JSON object"),
    "text": (b'"prompt"', "JSON object"),
    "null": (b"null", "JSON object"),
    "NaN": (b'{"prompt": "x", "budget_usd": NaN}', "NaN"),
    "Infinity": (b'{"prompt": "x", "budget_usd": Infinity}', "Infinity"),
    "-Infinity": (b'{"prompt": "x", "budget_usd": -Infinity}', "-Infinity"),
    "float beyond range": (b'{"prompt": "x", "budget_usd": 1e999}', "too large"),
    "same key twice": (b'{"prompt": "x", "prompt": "y"}', "twice"),
    "same key twice by escape": (b'{"prompt": "x", "pr\\u006fmpt": "y"}', "twice"),
    "same key twice inside": (b'{"prompt": "x", "labels": {"a": "1", "a": "2"}}', "twice"),
    "lone surrogate": (b'{"prompt": "\\ud800"}', "surrogate"),
    "lone surrogate in a key": (b'{"\\udfff": "x"}', "surrogate"),
    "lone surrogate inside": (b'{"prompt": "x", "labels": {"a": "\\ud800"}}', "surrogate"),
    "integer beyond 64 bits": (b'{"prompt": "x", "priority": 9223372036854775808}', "64 bits"),
    "integer below 64 bits": (b'{"prompt": "x", "priority": -9223372036854775809}', "64 bits"),
    "integer of 10,000 digits": (b'{"prompt": "x", "priority": ' + b"9" * 10_000 + b"}", "64 bits"),
    "deep list": (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
    "deep object": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested"),
    "deep and unclosed": (b"[" * 500_000, "nested"),
    "one level too deep": (b"[" * (DEPTH_MAX + 1), "nested"),
}


@pytest.mark.parametrize(("data", "reason"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_bytes_are_refused_with_their_own_reason(data: bytes, reason: str) -> None:
    """What two readers could understand differently is refused, and the reason says what it was."""
    with pytest.raises(Rejected) as caught:
        decode(data)
    assert reason in caught.value.reason
    assert caught.value.expected
    assert caught.value.found


def test_brackets_inside_text_are_not_depth() -> None:
    """Only nesting counts as nesting, not what a prompt says."""
    prompt = "[{" * 1000 + '"' + "\\" + "[" * 1000
    assert decode(json.dumps({"prompt": prompt}).encode()) == {"prompt": prompt}


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 500_000, b'{"a": "' + b"\\" * 999_999, b'"' * 999_999])
def test_hostile_text_is_refused_in_linear_time(data: bytes) -> None:
    """A megabyte of quotes and backslashes does not make the depth check go back and forth."""
    start = time.process_time()
    with pytest.raises(Rejected, match="not JSON"):
        decode(data)
    # going back and forth would take hours, not a few times longer
    assert time.process_time() - start < 10


def test_escaped_pairs_are_characters() -> None:
    """A whole surrogate pair is one character and accepted."""
    assert decode(b'{"prompt": "\\ud83d\\ude00"}') == {"prompt": "\U0001f600"}


def test_only_a_prompt_is_needed() -> None:
    """A file with nothing but a prompt gets every documented default."""
    task = submission()
    assert task.id is None
    assert task.spec == TaskSpec(prompt="Do it.", title="Do it.")
    assert (task.spec.kind, task.spec.role, task.spec.priority) == (Kind.IMPLEMENT, "auto", 0)
    assert (task.spec.gates, task.spec.base, task.spec.review, task.spec.version) == (None, None, ReviewMode.AUTO, 1)


def test_every_field_reaches_the_task() -> None:
    """Each documented field is taken over as it was given."""
    given: dict[str, Any] = {
        "prompt": "Fix the parser.\nIt loses quotes.",
        "id": "fix-parser_1",
        "title": "Parser",
        "kind": "fix",
        "role": "blue",
        "priority": -100,
        "after": ["t1", "T2"],
        "gates": ["unit"],
        "paths": ["src/**/*.py", "tests"],
        "base": "release/1.0",
        "review": "always",
        "budget_usd": 2,
        "timeout_seconds": 0.5,
        "turns_max": 10,
        "attempts_max": 1,
        "context": ["docs/a.md"],
        "labels": {"team": "core"},
        "version": 1,
    }
    task = parse(given, roles=ROLES, gates=GATES)
    spec = task.spec
    assert task.id == "fix-parser_1"
    assert (spec.prompt, spec.title, spec.kind, spec.role) == (given["prompt"], "Parser", Kind.FIX, "blue")
    assert (spec.priority, spec.after, spec.gates) == (-100, ("t1", "T2"), ("unit",))
    assert (spec.paths, spec.base, spec.review) == (("src/**/*.py", "tests"), "release/1.0", ReviewMode.ALWAYS)
    assert (spec.budget_usd, spec.timeout_seconds, spec.turns_max, spec.attempts_max) == (2.0, 0.5, 10, 1)
    assert (spec.context, spec.labels) == (("docs/a.md",), {"team": "core"})


BAD_FIELDS: dict[str, tuple[str, Any]] = {
    "prompt is a number": ("prompt", 1),
    "prompt is null": ("prompt", None),
    "prompt is empty": ("prompt", ""),
    "prompt is too long": ("prompt", "x" * (PROMPT_BYTES_MAX + 1)),
    "prompt is too long in bytes only": ("prompt", "é" * (PROMPT_BYTES_MAX // 2 + 1)),
    "id is a number": ("id", 7),
    "id is null": ("id", None),
    "id is empty": ("id", ""),
    "id has a slash": ("id", "../x"),
    "id begins with a dash": ("id", "-x"),
    "id has a line break at its end": ("id", "x\n"),
    "id has a dot": ("id", "a.b"),
    "id is too long": ("id", "a" * 65),
    "id has a letter beyond ASCII": ("id", "é"),
    "id has a digit beyond ASCII": ("id", "t\u0661"),
    "title is a list": ("title", ["x"]),
    "title is too long": ("title", "x" * 201),
    "title has two lines": ("title", "a\nb"),
    "title has an escape": ("title", "\x1b[2J"),
    "title overrides direction": ("title", "abc\u202ecba"),
    "title separates lines": ("title", "a\u2028b"),
    "kind is unknown": ("kind", "implment"),
    "kind in capitals": ("kind", "FIX"),
    "kind is a list": ("kind", ["fix"]),
    "role is unknown": ("role", "bleu"),
    "role is an object": ("role", {}),
    "priority is text": ("priority", "1"),
    "priority is a boolean": ("priority", True),
    "priority is a fraction": ("priority", 0.5),
    "priority is too high": ("priority", 101),
    "priority is too low": ("priority", -101),
    "after is text": ("after", "t1"),
    "after holds a number": ("after", [1]),
    "after holds no id": ("after", ["a b"]),
    "after names one twice": ("after", ["t1", "T1"]),
    "gates is text": ("gates", "unit"),
    "gates names an unknown one": ("gates", ["unti"]),
    "gates names one twice": ("gates", ["unit", "unit"]),
    "gates carries a command": ("gates", [["rm", "-rf", "/"]]),
    "paths is text": ("paths", "src"),
    "paths is absolute": ("paths", ["/etc/passwd"]),
    "paths leads out": ("paths", ["src/../../x"]),
    "paths holds nothing": ("paths", [""]),
    "paths holds NUL": ("paths", ["a\0b"]),
    "base looks like an option": ("base", "--upload-pack=x"),
    "base is empty": ("base", ""),
    "base is a range": ("base", "a..b"),
    "base has a blank": ("base", "a b"),
    "base is null": ("base", None),
    "review is a boolean": ("review", True),
    "review is unknown": ("review", "sometimes"),
    "budget is nothing": ("budget_usd", 0),
    "budget is negative": ("budget_usd", -1),
    "budget is text": ("budget_usd", "5"),
    "budget is a boolean": ("budget_usd", True),
    "budget is infinite": ("budget_usd", float("inf")),
    "budget is not a number": ("budget_usd", float("nan")),
    "budget is too large for a float": ("budget_usd", 10**400),
    "timeout is nothing": ("timeout_seconds", 0.0),
    "timeout is null": ("timeout_seconds", None),
    "turns is a fraction": ("turns_max", 1.5),
    "turns is nothing": ("turns_max", 0),
    "turns is a boolean": ("turns_max", True),
    "turns is huge": ("turns_max", 1e300),
    "attempts is negative": ("attempts_max", -1),
    "context is absolute": ("context", ["/etc/shadow"]),
    "context leads out": ("context", [".."]),
    "context is text": ("context", "a.md"),
    "labels is a list": ("labels", ["a"]),
    "labels is not flat": ("labels", {"a": {"b": "c"}}),
    "labels holds a number": ("labels", {"a": 1}),
    "version is 2": ("version", 2),
    "version is true": ("version", True),
    "version is text": ("version", "1"),
    "prompt has a lone surrogate": ("prompt", "\udc80"),
}


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_a_bad_value_is_refused_naming_its_field(field: str, value: Any) -> None:
    """A value of the wrong type or range is refused, naming field, what was expected and what was found."""
    error = refusal(**{field: value})
    assert error.field == field
    assert error.expected
    assert error.found
    assert len(error.found) < 200


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("promt", "prompt"),
        ("timeout", "timeout_seconds"),
        ("budgetUSD", "budget_usd"),
        ("Title", "title"),
        ("gate", "gates"),
        ("label", "labels"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(given: str, near: str) -> None:
    """A typing error is answered with the name that was meant."""
    error = refusal(**{given: "x"})
    assert (error.field, error.expected) == (given, near)
    assert repr(near) in error.reason


def test_a_field_like_no_other_is_refused_with_all_names() -> None:
    """Where nothing is near, every known field is named."""
    assert "prompt, id, title" in refusal(zzzzzz=1).reason


def test_an_object_without_a_prompt_is_refused() -> None:
    """The one required field is required."""
    with pytest.raises(Rejected) as caught:
        parse({"id": "x"}, roles=ROLES, gates=GATES)
    assert caught.value.field == "prompt"


def test_unknown_names_are_answered_with_the_nearest() -> None:
    """Roles, gates and kinds are suggested as fields are."""
    assert "'blue'" in refusal(role="bleu").reason
    assert "'unit'" in refusal(gates=["unti"]).reason
    assert "'implement'" in refusal(kind="implment").reason


def test_limits_themselves_are_accepted() -> None:
    """The largest and smallest documented values are inside."""
    assert len(submission(prompt="é" * (PROMPT_BYTES_MAX // 2)).spec.prompt.encode()) == PROMPT_BYTES_MAX
    assert submission(prompt="x").spec.prompt == "x"
    assert submission(id="a" * 64).id == "a" * 64
    assert submission(title="x" * 200).spec.title == "x" * 200
    assert [submission(priority=p).spec.priority for p in (-100, 100)] == [-100, 100]
    assert submission(gates=[]).spec.gates == ()


def test_a_whole_number_may_be_written_with_a_point() -> None:
    """3.0 is the number 3, as JSON has it."""
    turns = submission(turns_max=3.0).spec.turns_max
    assert turns == 3
    assert isinstance(turns, int)


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("\n\n  Fix it  \nnow", "Fix it"),
        ("x" * 300, "x" * 200),
        ("\x1b[2Jred alert", "[2Jred alert"),
        ("\u202e\n\ttab\there", "tab here"),
        ("\x00\x01", "(untitled)"),
    ],
)
def test_the_title_defaults_to_the_first_line_that_shows_anything(prompt: str, title: str) -> None:
    """A missing title is the prompt's first line, short and without control characters."""
    assert submission(prompt=prompt).spec.title == title


def test_a_task_cannot_wait_for_itself() -> None:
    """A dependency on the own id is refused, whatever its case."""
    assert refusal(id="build", after=["t1", "BUILD"]).field == "after"


def test_the_digest_is_of_the_object_before_defaults() -> None:
    """The same object in another order has the same digest; any other object has another one."""
    expected = hashlib.sha256(b'{"kind":"implement","prompt":"Do it."}').hexdigest()
    assert submission(kind="implement").digest == expected
    assert parse({"kind": "implement", "prompt": "Do it."}, roles=ROLES, gates=GATES).digest == expected
    assert submission().digest != expected
    assert submission(kind="implement", id="a").digest != expected


def test_parsing_leaves_its_argument_alone() -> None:
    """The object that was given is not changed."""
    given: dict[str, Any] = {"prompt": "x", "after": ["a"], "labels": {"k": "v"}, "id": "b"}
    before = json.dumps(given)
    parse(given, roles=ROLES, gates=GATES)
    assert json.dumps(given) == before


def test_the_id_rule() -> None:
    """Ids are what the rule says, to the last character."""
    assert all(map(is_id, ["t1", "A", "0", "a-b_c", "x" * 64]))
    assert not any(map(is_id, ["", "_a", "-a", "a\n", "a b", "a/b", "x" * 65, "$(id)", "\u3000"]))


def test_what_is_shown_cannot_control_a_terminal() -> None:
    """Untrusted values are quoted in ASCII and cut."""
    assert shown("\x1b[31m\u202e") == '"\\u001b[31m\\u202e"'
    assert len(shown("x" * 10**6)) == 100
    assert len(shown(["x"] * 10**5)) == 100
