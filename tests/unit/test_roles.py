"""Which role files are accepted, what they become, and what is said about the others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordination import roles, shipped
from coordination.errors import SettingsError
from coordination.model.roles import Role
from coordination.model.tasks import Kind

READER = "name: owl\ndescription: Looks.\ntools: Read, Grep\n"


def parse(front: str, instructions: str = "Look.") -> Role:
    return roles.parse(f"---\n{front}---\n{instructions}\n", "owl.md")


def refusal(front: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(front)
    return caught.value


def written(directory: Path, name: str, front: str = READER) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"---\n{front}---\nLook.\n")
    return path


def test_the_three_shipped_roles_are_as_promised() -> None:
    """Blue and Red cannot write, Green can, and the models and slots are those of the documentation."""
    loaded = roles.load([shipped.roles()])
    told = {name: (role.model, role.writes, role.shell, role.slots) for name, role in loaded.items()}
    assert told == {
        "blue": ("haiku", False, False, 2),
        "green": ("sonnet", True, True, 2),
        "red": ("opus", False, False, 1),
    }


def test_every_kind_of_task_has_exactly_one_shipped_role() -> None:
    """No task is left without a role, and none has two to choose from."""
    kinds = [kind for role in roles.load([shipped.roles()]).values() for kind in role.kinds]
    assert sorted(kinds) == sorted(kind.value for kind in Kind)


def test_every_key_reaches_the_role() -> None:
    """What the file says is what the role holds."""
    role = parse(
        "name: owl\ndescription: 'Looks: closely.'\ntools: [Read, Edit, Bash]\nmodel: opus[1m]\n"
        "fallback_model: sonnet,haiku\nkinds:\n  - fix\n  - search\nwrites: true\nshell: false\nslots: 7\n"
        "network: true\nbackend: scripted\ncolor: brown\n"
    )
    assert role == Role(
        name="owl",
        description="Looks: closely.",
        instructions="Look.\n",
        tools=("Read", "Edit", "Bash"),
        model="opus[1m]",
        fallback_model="sonnet,haiku",
        kinds=("fix", "search"),
        writes=True,
        shell=False,
        slots=7,
        network=True,
        backend="scripted",
        color="brown",
        source="owl.md",
    )


@pytest.mark.parametrize(
    ("tools", "writes", "shell"),
    [
        ("tools: Read, Grep\n", False, False),
        ("tools: Read, Bash\n", False, True),
        ("tools: Read, Edit\n", True, False),
        ("tools: Read, Write, Bash\n", True, True),
        ("", True, True),
    ],
)
def test_a_subagent_file_writes_and_has_a_shell_as_its_tools_say(tools: str, writes: bool, shell: bool) -> None:
    """In Claude Code's own format the tools say it all; no tools named means all of them."""
    role = parse(f"name: owl\ndescription: Looks.\n{tools}")
    assert (role.writes, role.shell, role.kinds) == (writes, shell, ())


@pytest.mark.parametrize("model", ["", "model: inherit\n"])
def test_a_subagent_without_a_model_of_its_own_gets_sonnet(model: str) -> None:
    """There is no session to inherit a model from."""
    assert parse(READER + model).model == "sonnet"


def test_a_description_that_is_not_quite_yaml_is_read_as_claude_code_reads_it() -> None:
    """Generated subagent files have colons and backslashes in unquoted descriptions."""
    description = r"Use when: a test fails. Examples:\n<example>user: 'why?' # not a comment</example>"
    role = parse(f"name: owl\ndescription: {description}\ntools: Read, Grep\nmodel: haiku\n")
    assert (role.description, role.tools, role.model) == (description, ("Read", "Grep"), "haiku")


@pytest.mark.parametrize(
    ("front", "key", "told"),
    [
        (READER + "colour: blue\n", "colour", "the nearest is 'color'"),
        (READER + "fallback-model: x\n", "fallback-model", "the nearest is 'fallback_model'"),
        (READER + "permissionMode: bypassPermissions\n", "permissionMode", "a key that roles have"),
        (READER + "name: cat\n", "name", "twice"),
        (READER.replace("owl", "Owl"), "name", "lower-case"),
        (READER.replace("owl", "../owl"), "name", "lower-case"),
        (READER.replace("Looks.", "''"), "description", "found nothing"),
        (READER + "slots: 0\n", "slots", "at least 1, found 0"),
        (READER + "kinds: [serch]\n", "kinds", "the nearest is 'search'"),
        (READER + "kinds: fix\n", "kinds", "read-only kinds, found 'fix'"),
        (READER + "writes: true\n", "writes", "to have Edit, Write or a shell"),
        (READER + "shell: true\n", "shell", "to have the tool Bash"),
        (READER.replace("Grep", "Edit") + "writes: false\n", "writes", "found Edit"),
        (READER.replace("Grep", "'Bash(git log:*)'"), "tools", "without arguments"),
        (READER.replace("Grep", "--dangerously"), "tools", "without arguments"),
        (READER + "model: --settings\n", "model", "alias or name"),
        (READER + "backend: ../evil\n", "backend", "module"),
        (READER + "slots: many\n", "", "Expected `int`, got `str` - at `$.slots`"),
        (READER + "writes: sometimes\n", "", "at `$.writes`"),
        ("description: Looks.\n", "", "`name`"),
        ("- name\n- owl\n", "", "key: value"),
        ("name: [owl\n", "", "not YAML"),
        ("tools: " + "[" * 5000 + "\n", "", "nested too deeply"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(front: str, key: str, told: str) -> None:
    """An author learns which file, which key, what was expected and what was found."""
    error = refusal(front)
    assert (error.file, error.key) == ("owl.md", key)
    assert told in str(error)
    assert str(error).startswith("owl.md: ")


@pytest.mark.parametrize("text", ["", "Look.", "---\nname: owl\n", "---\nname: owl\n---\n", "----\nname: owl\n---\nx"])
def test_a_file_without_front_matter_or_instructions_is_refused(text: str) -> None:
    """Neither half of a role may be missing."""
    with pytest.raises(SettingsError, match=r"owl\.md: expected"):
        roles.parse(text, "owl.md")


@given(st.text(st.characters(codec="utf-8"), max_size=300), st.booleans())
def test_any_text_becomes_a_role_or_a_settings_error(text: str, framed: bool) -> None:
    """Nothing that somebody types makes another exception."""
    try:
        role = roles.parse(f"---\n{READER}{text}\n---\nLook." if framed else text, "owl.md")
    except SettingsError:
        return
    assert role.name


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    """An editor's line ends do not decide whether a role exists."""
    path = written(tmp_path, "owl.md")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert roles.load([tmp_path])["owl"].instructions == "Look.\n"


def test_a_later_directory_overrides_and_adds(tmp_path: Path) -> None:
    """A user's file takes the place of the shipped role of that name and leaves the others."""
    written(tmp_path, "blue.md", READER.replace("owl", "blue"))
    written(tmp_path, "owl.md")
    loaded = roles.load([shipped.roles(), tmp_path])
    assert set(loaded) == {"blue", "green", "red", "owl"}
    assert loaded["blue"].source == str(tmp_path / "blue.md")


def test_folders_and_files_are_roles_and_the_rest_is_not(tmp_path: Path) -> None:
    """``ROLE.md`` in a folder and ``<name>.md`` count; a readme, hidden files and other things do not."""
    written(tmp_path, "cat/ROLE.md", READER.replace("owl", "cat"))
    written(tmp_path, "owl.md")
    written(tmp_path, "README.md", "not a role\n")
    written(tmp_path, ".owl.md.swp.md", "not a role\n")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    assert set(roles.load([tmp_path, tmp_path / "absent"])) == {"cat", "owl"}


def test_two_files_of_one_directory_may_not_share_a_name(tmp_path: Path) -> None:
    """Which of the two would count must not depend on their order."""
    written(tmp_path, "a.md")
    written(tmp_path, "b.md")
    with pytest.raises(SettingsError, match=r"b\.md: name: expected a name of its own.*a\.md"):
        roles.load([tmp_path])


def test_links_pipes_and_large_files_are_refused_without_reading_them(tmp_path: Path) -> None:
    """What is not a small plain file is named, not followed, and cannot hold us."""
    elsewhere = written(tmp_path / "elsewhere", "owl.md")
    kinds: dict[str, Callable[[Path], object]] = {
        "link.md": lambda path: path.symlink_to(elsewhere),
        "pipe.md": os.mkfifo,
        "large.md": lambda path: path.write_bytes(b"x" * (roles.BYTES_MAX + 1)),
        "folder.md": Path.mkdir,
        "binary.md": lambda path: path.write_bytes(b"\xff\xfe"),
    }
    for name, make in kinds.items():
        directory = tmp_path / name.removesuffix(".md")
        directory.mkdir()
        make(directory / name)
        with pytest.raises(SettingsError, match=f"{name}: expected"):
            roles.load([directory])


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A role that is there and cannot be read is not taken for absent."""
    os.mknod(tmp_path / "socket.md", stat.S_IFSOCK | 0o600)
    with pytest.raises(SettingsError, match=r"socket\.md: cannot be read: "):
        roles.load([tmp_path])
