"""Are the texts that go into commits, and the settings that stand in for planted ones, what they should be?"""

from __future__ import annotations

import pytest

from coordination.workspaces.commits import with_trailers
from coordination.workspaces.git import _harmless
from coordination.workspaces.objects import _plain
from coordination.workspaces.preservation import _is_secret
from coordination.workspaces.repository import shown


@pytest.mark.parametrize(
    ("message", "trailers", "expected"),
    [
        ("Do it", {}, "Do it\n"),
        ("Do it\n\n", {"A": "1", "B": "2"}, "Do it\n\nA: 1\nB: 2\n"),
        ("", {"A": "1"}, "Work\n\nA: 1\n"),
        ("Do it", {"A": "x\nB: forged", "C": " "}, "Do it\n\nA: x B: forged\n"),
    ],
)
def test_a_message_ends_in_one_block_of_trailers(message: str, trailers: dict[str, str], expected: str) -> None:
    """Values are one line each, empty ones are left out, and a message is never empty."""
    assert with_trailers(message, trailers) == expected


@pytest.mark.parametrize(
    ("key", "replaced"),
    [
        ("filter.lfs.clean", {"filter.lfs.clean": "", "filter.lfs.required": "false"}),
        ("filter.a.b=c.process", {"filter.a.b=c.process": "", "filter.a.b=c.required": "false"}),
        ("filter.lfs.required", {}),
        ("core.autocrlf", {}),
    ],
)
def test_a_filter_becomes_none(key: str, replaced: dict[str, str]) -> None:
    """Every command of a filter is emptied and its being required undone, whatever its name holds."""
    assert dict(_harmless(key)) == replaced


def test_a_merge_driver_becomes_a_merge_of_text() -> None:
    """What stands in for a driver merges; it is not nothing, which would drop the other side."""
    assert dict(_harmless("merge.x.driver"))["merge.x.driver"].startswith("git merge-file ")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        (".env", True),
        ("deep/.env.local", True),
        (".envrc", True),
        (".env.example", False),
        ("environment.py", False),
        ("x.env", False),
    ],
)
def test_secrets_are_known_by_name(name: str, secret: bool) -> None:
    """Files of the .env kind are secret, their examples are not."""
    assert _is_secret(name) is secret


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("a/b", True),
        ("...", True),
        ("", False),
        (".", False),
        ("/a", False),
        ("a/../b", False),
        ("a/.GIT/config", False),
        ("a\0b", False),
    ],
)
def test_paths_that_lead_out_are_not_plain(path: str, plain: bool) -> None:
    """Only a path that stays within the repository and out of git's own directories is read."""
    assert _plain(path) is plain


def test_names_that_are_not_utf8_are_shown_as_escapes() -> None:
    """What is shown can be written as JSON, and says which bytes there were."""
    assert shown(["a", "\udcff", "ü"]) == ("a", "\\xff", "ü")
