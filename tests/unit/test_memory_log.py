"""The log in memory is found by its name and forgotten with its last holder; engines are found by their scheme."""

from __future__ import annotations

import gc

import pytest

from coordination import log as logs
from coordination.errors import UsageError


def test_one_name_is_one_log_as_long_as_somebody_holds_it() -> None:
    """Two connections to a name share batches; when nobody is left, the name is a fresh log."""
    first, second = logs.connect("memory:shared"), logs.connect("memory:shared")
    first.append(b'{"n":1}', after=0)
    assert list(second.read(0, upto="head")) == [(1, b'{"n":1}')]
    assert list(logs.connect("memory:other").read(0, upto="head")) == []
    uuid = first.uuid
    del first, second
    gc.collect()
    assert logs.connect("memory:shared").uuid != uuid


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("nonsense", "scheme:place"),
        ("file:", "scheme:place"),
        ("../file:x", "scheme:place"),
        ("postgres:x", "no log engine 'postgres'"),
        ("frames:x", "not a log engine"),
    ],
)
def test_a_url_that_names_no_engine_is_a_usage_error(url: str, complaint: str) -> None:
    """The message says what form is expected, or which module is missing."""
    with pytest.raises(UsageError, match=complaint):
        logs.connect(url)
