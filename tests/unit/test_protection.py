"""Which names a pattern protects, and that none slips through by another spelling."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordination.errors import SettingsError
from coordination.model.protection import Touched, covered, expanded, touched
from coordination.model.runs import DiffStat, Ending, Outcome
from coordination.settings import PROTECTED_BY_DEFAULT, PROTECTED_DEFAULT, parse

DEFAULT = expanded([PROTECTED_BY_DEFAULT])


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".github/workflows/ci.yml",
            ".github/workflows/deep/er.yml",
            ".gitlab-ci.yml",
            "Jenkinsfile",
            "coordination.toml",
        ),
        *("CODEOWNERS", "docs/CODEOWNERS", ".env", "services/api/.env.local", "keys/server.pem", ".husky/pre-commit"),
        *("package-lock.json", "web/package-lock.json", "go.sum", "poetry.lock", "Cargo.lock", ".claude/settings.json"),
        *("CLAUDE.md", "sub/CLAUDE.md", "secrets/token"),
        # as a file system that does not mind would read them
        *(".GitHub/Workflows/CI.yml", "docs/codeowners", ".ENV", "\uff23ODEOWNERS", ".git\u200bhub/workflows/ci.yml"),
        # paths with what no path should hold
        *(".github/workflows/\nci.yml", ".github/workflows/a b\t.yml", "\\xff.pem", ".github/workflows/-rf"),
        # a link, a submodule or a file where the directory should be
        *(".github", ".github/workflows", ".husky", "secrets", ".vscode"),
    ],
)
def test_the_default_protects(name: str) -> None:
    """CI, secrets, hooks, owners and lock files, at whatever depth and in whatever spelling."""
    assert covered(name, DEFAULT)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "README.md",
            "src/a.py",
            ".github/ISSUE_TEMPLATE.md",
            "src/secrets/vault.py",
            ".env.example",
            "lock",
            "docs/ci",
        ),
        *(
            "workflows/ci.yml",
            "a/.github/workflows/ci.yml",
            "environment",
            "x.pem.txt",
            "src/.vscode",
            "a\n.env",
            ".vs",
        ),
    ],
)
def test_the_default_lets_the_rest_alone(name: str) -> None:
    """What only looks like it needs nobody."""
    assert not covered(name, DEFAULT)


@pytest.mark.parametrize(
    ("pattern", "fits", "other"),
    [
        ("infra/", "infra/a/b.tf", "docs/infrastructure"),
        ("*.tf", "a/b/c.tf", "c.tf.md"),
        ("infra/**/prod", "infra/prod", "infra/a"),
        ("infra/**/prod", "infra/a/b/prod/c", "x/infra/prod"),
        ("infra/*.tf", "infra/a.tf", "infra/b/a.tf"),
        ("/deploy", "deploy", "src/deploy"),
        ("**/deploy/x", "a/b/deploy/x", "deploy/y"),
        ("v[0-9]?", "v1a/x", "va1"),
        ("a/b/c", "a/b", "a/c"),
        ("infra/**/prod", "infra", "inf"),
        ("deploy", "a/deploy/b", "a/deploys"),
        ("a/b?/c", "a/bb", "a/b"),
    ],
)
def test_patterns_are_read_like_those_of_gitignore(pattern: str, fits: str, other: str) -> None:
    """Without a slash at any depth, with one from the top, and everything below what fits."""
    assert covered(fits, (pattern,))
    assert not covered(other, (pattern,))


def test_the_last_pattern_that_fits_decides() -> None:
    """An exception is one for what stands before it, and only for that."""
    patterns = expanded(["@default", "!package-lock.json", "web/package-lock.json"])
    assert not covered("package-lock.json", patterns)
    assert covered("web/package-lock.json", patterns)
    assert covered("yarn.lock", patterns)
    assert not covered("src", ("!src/a",))


def test_many_stars_take_no_time_to_speak_of() -> None:
    """A name made to be tried in every way is tried in few."""
    assert not covered("/".join(["a"] * 300), ("**/a/**/a/**/a/**/a/**/b",))
    assert not covered("a" * 4000, ("*a*a*a*a*a*a*b",))


def worked(*names: str, files: int | None = None, unlisted: int = 0) -> Outcome:
    diff = DiffStat(files=len(names) if files is None else files, insertions=1)
    return Outcome(ending=Ending.SUCCEEDED, commit="c", diff=diff, changed=names, unlisted=unlisted)


def test_what_is_not_listed_may_be_anything() -> None:
    """Beyond the bound, in a log of before there were names, and where nobody measured, nothing is let through."""
    assert touched(worked("a", "b"), DEFAULT) == Touched(changed=2)
    assert touched(worked("a", ".env"), DEFAULT) == Touched(changed=2, protected=(".env",))
    assert touched(worked("a", unlisted=3), DEFAULT) == Touched(changed=4, unlisted=3)
    assert touched(worked(files=2), DEFAULT) == Touched(changed=2, unlisted=2)
    assert touched(None, DEFAULT).any
    assert touched(Outcome(ending=Ending.SUCCEEDED, commit="c"), DEFAULT).any
    assert not touched(worked(".env", files=9), ()).any
    assert not touched(None, ()).any


def test_two_stars_alone_protect_everything() -> None:
    """Whoever wants each commit to wait for a person can have it."""
    assert all(covered(name, (pattern,)) for name in ("a", "a/b") for pattern in ("**", "/**", "**/*", "*"))


@pytest.mark.parametrize("pattern", ["", "/", "!", "a//b", "../x", "./x", "a\\b", " x", "@defalt"])
def test_a_pattern_that_could_fit_nothing_is_refused(pattern: str) -> None:
    """Whoever believes that something is protected finds out at the start that it is not."""
    with pytest.raises(SettingsError, match=r"review\.protected"):
        parse(f"[review]\nprotected = ['''{pattern}''']")


def test_the_page_has_the_whole_list() -> None:
    """Every pattern of the package stands in the guide, where people look before they take one out."""
    page = (Path(__file__).parents[2] / "docs" / "review.md").read_text()
    listed = page.partition("`@default` stands for:")[2].partition("##")[0]
    assert re.findall(r"`([^`]+)`", listed) == list(PROTECTED_DEFAULT)
