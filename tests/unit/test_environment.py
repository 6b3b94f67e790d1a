"""What reaches a run, and what never does."""

from __future__ import annotations

from coordination import environment

OURS = {
    "HOME": "/home/somebody",
    "PATH": "/opt/bin:/usr/bin",
    "LANG": "de_DE.UTF-8",
    "ANTHROPIC_API_KEY": "key",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
    "TZ": "UTC",
    "NO_PROXY": "",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "COORDINATION_RUN": "of a run that started us",
    "GIT_DIR": "/elsewhere",
    "EXTRA": "1",
    "PYTHONPATH": "/elsewhere",
}


def built(source: dict[str, str], *passed: str) -> dict[str, str]:
    return environment.build(source, passed, home="/run/home", scratch="/run/tmp", marker="log/A.1.work")


def test_a_run_gets_a_list_and_nothing_else() -> None:
    """Home, scratch and marker are the run's own; of the rest only what the list names and what is set."""
    assert built(OURS) == {
        "HOME": "/run/home",
        "TMPDIR": "/run/tmp",
        "COORDINATION_RUN": "log/A.1.work",
        "PATH": "/opt/bin:/usr/bin",
        "LANG": "de_DE.UTF-8",
        "ANTHROPIC_API_KEY": "key",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:1",
        "TZ": "UTC",
    }


def test_more_comes_only_by_name() -> None:
    """A variable that settings name is copied if it is set."""
    assert built(OURS, "EXTRA", "NOT_SET")["EXTRA"] == "1"
    assert "NOT_SET" not in built(OURS, "NOT_SET")


def test_what_we_set_cannot_be_passed_over() -> None:
    """Naming HOME or our marker in the settings changes neither."""
    assert built(OURS, "HOME", "COORDINATION_RUN") == built(OURS)


def test_an_empty_environment_still_makes_a_usable_one() -> None:
    """There is a PATH to find git on, and a language in UTF-8."""
    made = built({})
    assert "/usr/bin" in made["PATH"].split(":")
    assert made["LANG"] == "C.UTF-8"


def test_gates_get_no_credentials() -> None:
    """Code that agents wrote cannot spend money, by key, token, login or address."""
    secrets = {"ANTHROPIC_AUTH_TOKEN": "t", "CLAUDE_CODE_OAUTH_TOKEN": "o", "CLAUDE_CONFIG_DIR": "/s"}
    left = environment.without_credentials(built(OURS | secrets))
    assert not [name for name in left if "ANTHROPIC" in name or "CLAUDE" in name]
    assert left["PATH"] == "/opt/bin:/usr/bin"
    assert all(name not in environment.without_credentials({name: "x"}) for name in environment.CREDENTIALS)


def test_a_key_or_a_login_counts_as_signed_in_and_an_empty_one_does_not() -> None:
    """Each of the three ways is enough."""
    for name in environment.CREDENTIALS:
        assert environment.signed_in({name: "x"})
        assert not environment.signed_in({name: ""})
    assert not environment.signed_in({"PATH": "/usr/bin"})
