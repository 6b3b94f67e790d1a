"""Is the command line what it says it is, and does what others wrote stay harmless on a terminal?"""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from coordination import cli
from coordination.cli import _terminal
from coordination.cli._terminal import dollars, line, plain, seconds

CONTEXT = click.Context(cli.group)

# What people and scripts type. Adding is free; whatever goes missing here breaks somebody.
OPTIONS = {
    "approve": ["--commit"],
    "cancel": ["--reason"],
    "completion": [],
    "gc": ["--apply", "--forget", "--json"],
    "init": [],
    "land": ["--dry-run", "--json", "--now", "--pr"],
    "log": ["--follow", "--json", "--since", "--task"],
    "monitor": ["--agents", "--once"],
    "notify": ["--test"],
    "pause": ["--reason"],
    "reject": ["--reason"],
    "repair": ["--apply", "--json"],
    "replay": ["--at", "--json", "--repair", "--verify"],
    "report": ["--json", "--out", "--since"],
    "restore": ["--branch", "--json", "--list", "--ref", "--to"],
    "resume": [],
    "retry": [],
    "roles": ["--json"],
    "service": [],
    "show": ["--json"],
    "start": ["--foreground", "--no-wait", "--once"],
    "status": ["--json"],
    "stop": ["--drain", "--force", "--timeout"],
    "submit": [
        *("--after", "--attempts", "--base", "--budget", "--context", "--estimate", "--file", "--gate", "--id"),
        *(
            "--json",
            "--kind",
            "--label",
            "--path",
            "--priority",
            "--review",
            "--role",
            "--timeout",
            "--title",
            "--turns",
            "--wait",
        ),
    ],
    "tasks": ["--json", "--state"],
}


def command(name: str) -> click.Command:
    found = cli.group.get_command(CONTEXT, name)
    assert found is not None, f"no command {name}"
    return found


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_of_the_contract_is_there(name: str) -> None:
    """No command loses an option that somebody relies on."""
    known = {option for parameter in command(name).params for option in parameter.opts if option.startswith("--")}
    assert known == set(OPTIONS[name])


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_help_shows_examples_of_its_own(name: str) -> None:
    """The help of a command ends with examples that type this command."""
    shown = CliRunner().invoke(cli.group, [name, "--help"])
    assert shown.exit_code == 0
    examples = shown.output.partition("Examples:")[2].split("\n")[1:]
    assert any(f" {name}" in example and example.lstrip().startswith("coord ") for example in examples)


def test_a_module_is_a_command() -> None:
    """Every module without an underscore is found, and the group has no list of its own."""
    modules = {found.name for found in pkgutil.iter_modules(cli.__path__) if not found.name.startswith("_")}
    assert set(cli.group.list_commands(CONTEXT)) == modules >= set(OPTIONS)
    assert cli.group.get_command(CONTEXT, "_terminal") is None


def test_help_does_not_wait_for_the_machinery() -> None:
    """Help, of all commands too, imports neither the log nor a backend nor git."""
    heavy = (
        "{'coordination.coordinator', 'coordination.log', 'coordination.workspaces', 'psutil', 'textual', 'watchdog'}"
    )
    asked = f"import sys; from coordination.cli import run; run(['--help']); print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["status", "--nonsense"], ["-C", "/does/not/exist", "status"], ["log", "--since", "-1"], ["cancel"]],
)
def test_what_cannot_be_parsed_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A call of the wrong form exits 2 and says so on stderr only."""
    assert cli.run(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Usage" in told.err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """``coord --version`` names the release."""
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("coord ")


@pytest.mark.parametrize(
    ("evil", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP+q544e\x1b\\after", "after"),
        ("\x9b31mred", "red"),
        ("\x9d0;title\x9cafter", "after"),
        ("a\x1bcb", "ab"),
        ("a\x1b", "a"),
        ("a\x1b]never ended\nb", "a\nb"),
        ("over\rwritten\x08\x7f\x00", "overwritten"),
        ("user\u202etxt.exe\u2066", "usertxt.exe"),
        ("tab\tand\nline stay", "tab\tand\nline stay"),
        ("windows\r\nline", "windows\nline"),
        ("Grüße, 世界", "Grüße, 世界"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
    ],
)
def test_nothing_of_others_steers_the_terminal(evil: str, harmless: str) -> None:
    """Escape sequences, control characters and overrides of direction vanish; text stays."""
    assert plain(evil) == harmless


@pytest.mark.parametrize("number", [*range(9), *range(11, 32), *range(127, 160)])
def test_no_control_character_survives(number: int) -> None:
    """Of all control characters only tab and line end come through, wherever they stand."""
    assert not any(ord(sign) in range(32) or ord(sign) in range(127, 160) for sign in plain(f"a{chr(number)}"))


def test_a_line_is_one_line_that_fits() -> None:
    """Line ends become blanks, and what is too long ends in an ellipsis."""
    assert line("one\n  two\u2028three") == "one two three"
    assert line("abcdef", 4) == "abc…"
    assert line("abcd", 4) == "abcd"


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """What a terminal would obey is escaped in JSON output, and nothing is lost."""
    _terminal.emit({"title": "\x1b[31m\u202eü"})
    assert capsys.readouterr().out == '{"title": "\\u001b[31m\\u202e\\u00fc"}\n'


@pytest.mark.parametrize(
    ("spent", "shown"), [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (7500, "2h05m")]
)
def test_durations_are_short(spent: float, shown: str) -> None:
    """A duration is shown in its two largest units."""
    assert seconds(spent) == shown


def test_estimates_are_called_so() -> None:
    """Money that was estimated is not shown as a bill."""
    assert dollars(0.5) == "0.5000 USD"
    assert dollars(0.5, estimated=True) == "about 0.5000 USD"
