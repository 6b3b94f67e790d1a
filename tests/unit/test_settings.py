"""Does coordination.toml mean what it says, and is every mistake in it named?"""

from __future__ import annotations

import re
import tomllib

import msgspec
import pytest

from coordination.errors import SettingsError
from coordination.settings import (
    DEFAULT_TEXT,
    Gate,
    Gates,
    Git,
    RoleSettings,
    Section,
    Settings,
    Setup,
    default_text,
    is_ref_name,
    nearest,
    parse,
)


def error(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    return caught.value


def test_an_empty_file_is_the_defaults() -> None:
    """Every key has a default."""
    assert parse("") == Settings()


def test_the_file_init_writes_is_the_defaults_with_the_branch() -> None:
    """What ``coord init`` writes changes nothing but the target."""
    assert parse(default_text("main")) == Settings(git=Git(target="main"))


@pytest.mark.parametrize("branch", ["main", "feature/ü", 'odd"name', "a'b", "{x}", "release-1.0"])
def test_any_branch_survives_the_file(branch: str) -> None:
    """A branch whose name needs quoting is read back as it is."""
    assert parse(default_text(branch)).git.target == branch


def test_every_setting_in_the_commented_file_is_at_its_default() -> None:
    """Taking away the marks of all commented settings changes nothing."""
    text = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", default_text("main"))
    assert len(text) < len(default_text("main")) - 20
    assert parse(text) == Settings(git=Git(target="main"))


def test_every_setting_stands_in_the_commented_file() -> None:
    """No key is left for people to discover."""
    text = re.sub(r"(?m)^# ?(?=[a-z_]+ = |\[)", "", DEFAULT_TEXT.replace("@target@", '""'))
    table = tomllib.loads(text)
    assert {"command", "timeout_seconds", "network", "cache"} == set(table["gates"]["integration"])
    assert set(table["roles"]["blue"]) == set(RoleSettings.__struct_fields__)
    for field in msgspec.structs.fields(Settings):
        if field.name not in ("gates", "roles") and isinstance(field.type, type) and issubclass(field.type, Section):
            assert set(table[field.encode_name]) == {inner.encode_name for inner in msgspec.structs.fields(field.type)}
        else:
            assert field.encode_name in table
    assert parse(text).roles["blue"].slots == 2


def test_set_up_is_commands_files_and_what_is_kept() -> None:
    """Commands are split like those of gates."""
    settings = parse(
        """
        [setup]
        commands = ["npm ci --omit 'a b'", ["python", "-m", "venv", ".venv"]]
        copy = [".env", "config/local.toml"]
        keep = ["node_modules"]
        key = ["package-lock.json"]
        network = true
        timeout_seconds = 30
        """
    )
    commands = (("npm", "ci", "--omit", "a b"), ("python", "-m", "venv", ".venv"))
    assert settings.setup == Setup(
        commands=commands,
        copy=(".env", "config/local.toml"),
        keep=("node_modules",),
        key=("package-lock.json",),
        network=True,
        timeout_seconds=30.0,
    )
    assert settings.setup.most_seconds == 60.0


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", ".git/config", "a/.GIT/x", "./x", "a//b", "a\\n"]
)
@pytest.mark.parametrize("key", ["copy", "keep", "key"])
def test_what_set_up_copies_and_keeps_lies_within_the_repository(key: str, name: str) -> None:
    """And is neither git's nor ours."""
    found = error(f'[setup]\n{key} = ["{name}"]')
    assert found.key == f"setup.{key}"


def test_a_gate_is_a_line_a_list_or_a_table() -> None:
    """All three forms give the same command; a line is split, never run by a shell."""
    settings = parse(
        """
        [gates]
        default = ["line", "table"]
        line = "python -m pytest -k 'a and b'"
        list = ["python", "-m", "pytest", "-k", "a and b"]
        [gates.table]
        command = "python -m pytest -k 'a and b'"
        timeout_seconds = 5
        network = true
        """
    )
    argv = ("python", "-m", "pytest", "-k", "a and b")
    slow = Gate(argv=argv, timeout_seconds=5.0, network=True)
    named = {"line": Gate(argv=argv), "list": Gate(argv=argv), "table": slow}
    assert settings.gates == Gates(default=("line", "table"), named=named)


def test_a_list_may_hold_what_only_a_shell_would_understand() -> None:
    """Who writes a list means every word of it."""
    assert parse('[gates]\nu = ["sh", "-c", "a && b"]').gates.named["u"].argv == ("sh", "-c", "a && b")


def test_roles_are_overridden_by_name() -> None:
    """Each role has its own table, and what is not said stays the role's."""
    roles = parse('[roles.blue]\nmodel = "opus"\n[roles.red]\nslots = 0').roles
    assert roles == {"blue": RoleSettings(model="opus"), "red": RoleSettings(slots=0)}


def test_variables_are_passed_by_name() -> None:
    """The key is ``pass``, which Python cannot have as a name."""
    assert parse('[environment]\npass = ["DATABASE_URL", "TZ"]').environment.passed == ("DATABASE_URL", "TZ")


MISTAKES: dict[str, tuple[str, str, str]] = {
    "not TOML": ("a = ", "", "not TOML"),
    "not TOML, too deep": ("a = " + "[" * 5000, "", "nested"),
    "doubled key": ("gate_slots = 1\ngate_slots = 2", "", "not TOML"),
    "unknown section": ("[limts]", "limts", "'limits'"),
    "unknown key": ("[limits]\nturns = 3", "limits.turns", "'turns_max'"),
    "unknown key of a role": ("[roles.blue]\nslot = 1", "roles.blue.slot", "'slots'"),
    "unknown key of a gate": ('[gates.u]\ncommand = "a"\ntimeout = 1', "gates.u.timeout", "'timeout_seconds'"),
    "unknown key like no other": ("[retry]\nzzz = 1", "retry.zzz", "known: backoff_seconds"),
    "the Python name of a key": ("[environment]\npassed = []", "environment.passed", "'pass'"),
    "section is a value": ("limits = 3", "limits", "a table"),
    "roles is a list": ("roles = []", "roles", "a table"),
    "role is a value": ("[roles]\nblue = 2", "roles.blue", "a table"),
    "gates is a list": ("gates = []", "gates", "a table"),
    "misspelt number of gates": ("[gates]\nrerun = 2", "gates.rerun", "'reruns'"),
    "misspelt switch of gates": ("[gates]\ncahce = false", "gates.cahce", "'cache'"),
    "gates are run again a negative number of times": ("[gates]\nreruns = -1", "gates.reruns", ">= 0"),
    "set-up is a command": ('[setup]\ncommands = "npm ci"', "setup.commands", "a list of commands"),
    "set-up by a shell": ('[setup]\ncommands = ["a", "b && c"]', "setup.commands[1]", "no shell runs a gate"),
    "kept without a key": ('[setup]\ncommands = ["a"]\nkeep = ["b"]', "setup.keep", "key is empty"),
    "kept without commands": ('[setup]\nkey = ["a"]\nkeep = ["b"]', "setup.keep", "commands is empty"),
    "number is text": ('[limits]\nturns_max = "3"', "limits.turns_max", "`int`"),
    "number is a boolean": ("gate_slots = true", "gate_slots", "`int`"),
    "number is a fraction": ("gate_slots = 1.5", "gate_slots", "`int`"),
    "number is too small": ("gate_slots = 0", "gate_slots", ">= 1"),
    "number is not one": ("[limits]\nbudget_usd = nan", "limits.budget_usd", "finite"),
    "number is infinite": ("[gates.u]\ncommand = 'a'\ntimeout_seconds = inf", "gates.u.timeout_seconds", "finite"),
    "time is nothing": ("[supervisor]\npoll_seconds = 0", "supervisor.poll_seconds", "> 0"),
    "time is negative": ("[retry]\nbackoff_seconds = -1", "retry.backoff_seconds", ">= 0"),
    "choice is unknown": ('[agents]\nsandbox = "on"', "agents.sandbox", "auto, require, off"),
    "choice is a list": ("[agents]\nsandbox = []", "agents.sandbox", "auto, require, off"),
    "default gate is unknown": ('[gates]\ndefault = ["unti"]\nunit = "a"', "gates.default", "'unit'"),
    "default gate is text": ('[gates]\ndefault = "unit"\nunit = "a"', "gates.default", "`array`"),
    "default is misspelt": ('[gates]\ndefualt = ["unit"]\nunit = "a"', "gates.defualt", "'default'"),
    "gate is a number": ("[gates]\nunit = 3", "gates.unit", "`array`"),
    "gate has a bad name": ('[gates]\n"a b" = "x"', "gates.a b", "name"),
    "gate is empty": ('[gates]\nunit = " "', "gates.unit", "nothing to run"),
    "gate is an empty list": ("[gates]\nunit = []", "gates.unit", "nothing to run"),
    "gate has no command": ("[gates.unit]\nnetwork = true", "gates.unit", "command"),
    "gate cannot be split": ('[gates]\nunit = "echo \'"', "gates.unit", "split"),
    "gate holds NUL": ('[gates]\nunit = ["a\\u0000"]', "gates.unit", "NUL"),
    "gate needs a shell": ('[gates]\nunit = "make && make test"', "gates.unit", "shell"),
    "gate needs a pipe": ('[gates]\nunit = "make | tee log"', "gates.unit", "shell"),
    "gate has two commands": ('[gates]\nunit = "make; make test"', "gates.unit", "shell"),
    "gate sets a variable": ('[gates]\nunit = "CI=1 make"', "gates.unit", "shell"),
    "target is no branch": ('[git]\ntarget = "a b"', "git.target", "branch"),
    "integration is the user's": ('[git]\nintegration = "main"', "git.integration", "coordination/"),
    "integration is a task's": ('[git]\nintegration = "coordination/task/x"', "git.integration", "task"),
    "variable is no name": ('[environment]\npass = ["A=1"]', "environment.pass", "names of variables"),
}


@pytest.mark.parametrize(("text", "key", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_file_and_key(text: str, key: str, said: str) -> None:
    """Each mistake names the file, the dotted key and what was expected or meant."""
    found = error(text)
    assert (found.file, found.key) == ("coordination.toml", key)
    assert said in str(found)
    assert str(found).startswith("coordination.toml")


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_BASE_URL",
        "CLAUDE_CONFIG_DIR",
        "CLAUDECODE",
        "COORDINATION_HOME",
        "PATH",
        "HOME",
        "LD_PRELOAD",
        "DYLD_INSERT_LIBRARIES",
        "GIT_DIR",
        "PYTHONPATH",
        "NODE_OPTIONS",
        "BASH_ENV",
    ],
)
def test_variables_that_would_take_over_a_run_are_refused_with_a_reason(name: str) -> None:
    """What redirects the agent or makes programs run code cannot be passed."""
    found = error(f'[environment]\npass = ["TZ", "{name}"]')
    assert re.search(rf"{name} cannot be passed to runs: \w+", str(found))


def test_the_file_is_named_as_it_was_given() -> None:
    """An error names the path the caller read."""
    with pytest.raises(SettingsError, match=r"^/tmp/x\.toml: gate_slot: unknown key"):
        parse("gate_slot = 1", file="/tmp/x.toml")


@pytest.mark.parametrize("name", ["main", "a/b", "v1.0", "HEAD", "0123abc", "a@b", "ü", "a-b"])
def test_names_git_takes_are_taken(name: str) -> None:
    """Ordinary branches, tags and commits pass."""
    assert is_ref_name(name)


BROKEN = ["", "@", "-a", "/a", "a/", "a//b", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "a@{1}"]


@pytest.mark.parametrize("name", [*BROKEN, "a.lock", "a.lock/b", ".a", "a/.b", "a.", "a\x7f", "a\nb"])
def test_names_git_refuses_are_refused(name: str) -> None:
    """What ``git check-ref-format`` refuses, and what would look like an option, does not pass."""
    assert not is_ref_name(name)


def test_the_nearest_name_is_found_or_none() -> None:
    """Typing errors and capitals are understood; a word like no other is not."""
    assert nearest("Timeout", ["title", "timeout_seconds"]) == "timeout_seconds"
    assert nearest("zzz", ["title"]) == ""
    assert nearest("x", []) == ""
