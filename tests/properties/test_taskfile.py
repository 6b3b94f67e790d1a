"""Does a task file always end as a submission or a refusal, and does what it says survive?"""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from coordination.errors import Rejected
from coordination.model import taskfile
from coordination.model.taskfile import Submission
from coordination.model.tasks import Kind, ReviewMode, TaskSpec

ROLES = ("blue", "red")
GATES = ("unit", "types")
FIELDS = [*TaskSpec.__struct_fields__, "id"]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
broken_texts = st.text(max_size=20)  # with lone surrogates
scalars = st.none() | st.booleans() | st.integers() | st.floats() | broken_texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(broken_texts, inner, max_size=3)
)
ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
paths = st.lists(st.from_regex(r"[a-z*]{1,8}(/[a-z*.]{1}[a-z]{1,8}){0,2}", fullmatch=True), max_size=3)
amounts = st.floats(min_value=1e-6, max_value=1e12) | st.integers(1, 10**12)
counts = st.integers(1, 2**63 - 1)
names_once = st.lists(ids, max_size=4, unique_by=str.lower)
valid = st.fixed_dictionaries(
    {"prompt": texts.filter(str.strip)},
    optional={
        "id": st.from_regex(r"[A-Z]{22}", fullmatch=True),  # longer than those in ``after``
        "title": st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=200),
        "kind": st.sampled_from([kind.value for kind in Kind]),
        "role": st.sampled_from(["auto", *ROLES]),
        "priority": st.integers(-100, 100),
        "after": names_once,
        "gates": st.lists(st.sampled_from(GATES), unique=True),
        "paths": paths,
        "base": st.from_regex(r"[a-z]{1,8}(/[a-z0-9]{1,8})?", fullmatch=True),
        "review": st.sampled_from([mode.value for mode in ReviewMode]),
        "budget_usd": amounts,
        "timeout_seconds": amounts,
        "turns_max": counts,
        "attempts_max": counts,
        "context": paths,
        "labels": st.dictionaries(texts, texts, max_size=3),
        "version": st.just(1),
    },
)


def read(data: bytes) -> Submission | Rejected:
    """The way of every task file; anything but these two ends fails the test by being raised."""
    try:
        return parsed(taskfile.decode(data))
    except Rejected as error:
        return error


def parsed(value: dict[str, Any]) -> Submission | Rejected:
    try:
        return taskfile.parse(value, roles=ROLES, gates=GATES)
    except Rejected as error:
        return error


@given(st.binary(max_size=200))
def test_any_bytes_end_as_submission_or_refusal(data: bytes) -> None:
    """Bytes that mean nothing raise nothing but Rejected, with a reason."""
    outcome = read(data)
    assert isinstance(outcome, Submission) or outcome.reason


@given(values)
def test_any_json_ends_as_submission_or_refusal(value: Any) -> None:
    """Any JSON, with NaN, huge integers and surrogates, raises nothing but Rejected."""
    outcome = read(json.dumps(value).encode())
    assert isinstance(outcome, Submission) or outcome.reason


@given(st.dictionaries(st.sampled_from(FIELDS) | broken_texts, values, max_size=4), st.booleans())
def test_any_object_with_known_fields_ends_as_submission_or_refusal(value: dict[str, Any], prompted: bool) -> None:
    """Wrong values under known names raise nothing but Rejected, also when no decoder stood before."""
    if prompted:
        value["prompt"] = "x"
    for outcome in (read(json.dumps(value).encode()), parsed(value)):
        assert isinstance(outcome, Submission) or outcome.reason


@given(valid, st.integers(0, 10_000))
def test_a_prefix_of_a_task_is_never_a_task(value: dict[str, Any], place: int) -> None:
    """A file that is still being written never parses: that is why it may wait."""
    data = json.dumps(value).encode()
    assert isinstance(read(data[: place % len(data)]), Rejected)


@given(valid)
def test_what_a_task_file_says_survives(value: dict[str, Any]) -> None:
    """Every field of a valid object stands in the spec as it was given."""
    outcome = read(json.dumps(value).encode())
    assert isinstance(outcome, Submission), outcome.reason
    written = msgspec.to_builtins(outcome.spec) | {"id": outcome.id}
    defaults = {name: default for name, default in _defaults().items() if name not in written}
    for name, found in value.items():
        kept = written.get(name, defaults.get(name))
        assert (list(kept) if isinstance(found, list) else kept) == found


def _defaults() -> dict[str, Any]:
    spec = TaskSpec(prompt="", title="")
    return {name: getattr(spec, name) for name in TaskSpec.__struct_fields__}


@given(valid)
def test_the_order_and_spelling_of_the_file_do_not_matter(value: dict[str, Any]) -> None:
    """Key order, blanks and escapes change neither the spec nor the digest."""
    backwards = dict(reversed(value.items()))
    one = read(json.dumps(value, ensure_ascii=False).encode())
    other = read(json.dumps(backwards, indent=3).encode())
    assert isinstance(one, Submission)
    assert one == other
