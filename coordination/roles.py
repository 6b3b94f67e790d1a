"""Which roles are there? Files of instructions with front matter, read strictly into ``Role`` values.

The front matter is that of Claude Code's own subagent files (``name``, ``description``, ``tools``, ``model``) and
more of ours, all optional, so that a file from ``.claude/agents/`` can be copied and serve as a role:

===============  ====================================================================================
name             what tasks and settings call it: ``[a-z][a-z0-9-]*``
description      one sentence: when to use it
tools            ``Read, Grep`` or a list; left out: those of a writer, Bash included
model            an alias or a full name; left out or ``inherit``: sonnet
fallback_model   used when the model is overloaded
kinds            kinds of task it gets by default; left out: none, it must be asked for by name
writes           whether its changes become commits; left out: whether a tool of it writes
shell            whether it may run commands in a sandbox; left out: whether Bash is among its tools
slots            how many at once: at least 1
network          whether its commands may use the network
backend          which module of ``coordination.agents`` runs it
color            for people
===============  ====================================================================================

A key we do not know is an error, never ignored: it may be the one that was to hold the role back.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml

from coordination.errors import SettingsError
from coordination.model.roles import Role
from coordination.model.tasks import Kind
from coordination.reading import NotPlain, plain_bytes

BYTES_MAX = 64 * 1024
WRITING_TOOLS = frozenset({"Edit", "Write", "NotebookEdit"})
_TOOLS_OF_A_WRITER = ("Read", "Grep", "Glob", "Edit", "Write", "Bash")
_MODEL_UNLESS_NAMED = "sonnet"
_FORMS = {
    "name": (r"[a-z][a-z0-9-]{0,63}", "lower-case letters, digits and hyphens, a letter first"),
    "model": (r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]*", "a model's alias or name"),
    "fallback_model": (r"([A-Za-z0-9][A-Za-z0-9._:/@,\[\]-]*)?", "a model's alias or name"),
    "backend": (r"[a-z][a-z0-9_]*", "the name of a module in coordination.agents"),
    "color": (r"[a-z]*", "a colour's name"),
}
_PLAIN_LINE = re.compile(r"""(?P<key>[A-Za-z_]+):[ ]+(?P<text>[^\s"'\[{|>&*!].*)""")


class _FrontMatter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str
    tools: str | tuple[str, ...] | None = None
    model: str = "inherit"
    fallback_model: str = ""
    kinds: str | tuple[str, ...] = ()
    writes: bool | None = None
    shell: bool | None = None
    slots: int = 1
    network: bool = False
    backend: str = "claude"
    color: str = ""


def load(directories: Sequence[Path]) -> dict[str, Role]:
    """Read every ``<folder>/ROLE.md`` and ``<name>.md`` of the directories; a later directory overrides an earlier.

    A directory that does not exist holds no roles; ``README.md`` and names that begin with a dot are not roles.
    Raises SettingsError, naming file and key.
    """
    roles: dict[str, Role] = {}
    for directory in directories:
        roles |= _load_directory(directory)
    return roles


def parse(text: str, source: str) -> Role:
    """One role from the text of its file. Pure. Raises SettingsError."""
    front, instructions = _split(text, source)
    values = _mapping(front, source)
    _refuse_unknown_keys(values, source)
    try:
        given = msgspec.convert(values, _FrontMatter, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}: front matter: {error}", file=source) from error
    return _checked(_role(given, instructions, source), source)


def _load_directory(directory: Path) -> dict[str, Role]:
    roles: dict[str, Role] = {}
    for path in _files(directory):
        role = parse(_text(path), str(path))
        if earlier := roles.get(role.name):
            _refuse(role.source, "name", f"a name of its own, found {role.name!r}, which is that of {earlier.source}")
        roles[role.name] = role
    return roles


def _files(directory: Path) -> Iterator[Path]:
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name == "README.md":
            continue
        if path.suffix == ".md":
            yield path
        elif (path / "ROLE.md").exists():
            yield path / "ROLE.md"


def _text(path: Path) -> str:
    try:
        return plain_bytes(path, BYTES_MAX).decode("utf-8").replace("\r\n", "\n")
    except NotPlain as error:
        raise SettingsError(f"{error}. Copy the role's file there.", file=str(path)) from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: expected UTF-8 text, found {error.reason}", file=str(path)) from error


def _split(text: str, source: str) -> tuple[str, str]:
    match = re.fullmatch(r"---[ \t]*\n(.*?\n)---[ \t]*(?:\n(.*))?", text, re.DOTALL)
    if not match:
        raise SettingsError(
            f"{source}: expected front matter between two lines '---' at the top, found none. "
            "A role's file begins with '---', 'name: …', 'description: …', '---'.",
            file=source,
        )
    instructions = (match[2] or "").strip()
    if not instructions:
        raise SettingsError(f"{source}: expected instructions below the front matter, found nothing", file=source)
    return match[1], instructions + "\n"


def _mapping(front: str, source: str) -> dict[str, Any]:
    try:
        pairs = _pairs(front)
    except yaml.YAMLError:
        # Claude Code writes descriptions such as "Use when: …" without quotes, and reads them back
        pairs = _pairs_or_refuse(_quoted(front), source)
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            _refuse(source, key, "one value, found the key twice")
    return dict(pairs)


def _pairs_or_refuse(front: str, source: str) -> list[tuple[str, Any]]:
    try:
        return _pairs(front)
    except yaml.YAMLError as error:
        raise SettingsError(f"{source}: front matter is not YAML: {error}", file=source) from error


def _pairs(front: str) -> list[tuple[str, Any]]:
    """Keys and values, every scalar as text: what ``yes`` or ``1.0`` means is decided by the key's type."""
    loader = yaml.BaseLoader(front)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError("expected lines of the form 'key: value'")
        return [(str(key.value), loader.construct_object(value, deep=True)) for key, value in node.value]
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    finally:
        loader.dispose()


def _quoted(front: str) -> str:
    lines = []
    for line in front.splitlines():
        match = _PLAIN_LINE.fullmatch(line)
        lines.append(f"{match['key']}: {json.dumps(match['text'].strip())}" if match else line)
    return "\n".join(lines) + "\n"


def _refuse_unknown_keys(values: dict[str, Any], source: str) -> None:
    known = _FrontMatter.__struct_fields__
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key.lower().replace("-", "_"), known, n=1, cutoff=0.0)
            _refuse(source, key, f"a key that roles have, found {key!r}; the nearest is {near[0]!r}")


def _role(given: _FrontMatter, instructions: str, source: str) -> Role:
    tools = _TOOLS_OF_A_WRITER if given.tools is None else _listed(given.tools)
    return Role(
        name=given.name,
        description=given.description.strip(),
        instructions=instructions,
        model=_MODEL_UNLESS_NAMED if given.model == "inherit" else given.model,
        fallback_model=given.fallback_model,
        tools=tools,
        kinds=_listed(given.kinds),
        writes=bool(WRITING_TOOLS & set(tools)) if given.writes is None else given.writes,
        shell="Bash" in tools if given.shell is None else given.shell,
        slots=given.slots,
        backend=given.backend,
        color=given.color,
        network=given.network,
        source=source,
    )


def _listed(value: str | tuple[str, ...]) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    return tuple(item.strip() for item in items if item.strip())


def _checked(role: Role, source: str) -> Role:
    for key, (form, expected) in _FORMS.items():
        found = getattr(role, key)
        if not re.fullmatch(form, found):
            _refuse(source, key, f"{expected}, found {found!r}")
    if not role.description:
        _refuse(source, "description", "a sentence that says when to use the role, found nothing")
    if role.slots < 1:
        _refuse(source, "slots", f"at least 1, found {role.slots}")
    _check_tools(role, source)
    _check_kinds(role, source)
    return role


def _check_tools(role: Role, source: str) -> None:
    for tool in role.tools:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", tool):
            _refuse(source, "tools", f"names of tools without arguments, found {tool!r}")
    writing = sorted(WRITING_TOOLS & set(role.tools))
    if writing and not role.writes:
        _refuse(source, "writes", f"a role that writes nothing to have no tool that writes, found {writing[0]}")
    if role.writes and not (writing or role.shell):
        _refuse(source, "writes", "a role that writes to have Edit, Write or a shell, found none of them in tools")
    if role.shell and "Bash" not in role.tools:
        _refuse(source, "shell", "a role with a shell to have the tool Bash, found none")


def _check_kinds(role: Role, source: str) -> None:
    known = [kind.value for kind in Kind]
    for kind in role.kinds:
        if kind not in known:
            near = difflib.get_close_matches(kind, known, n=1, cutoff=0.0)
            _refuse(source, "kinds", f"kinds of tasks ({', '.join(known)}), found {kind!r}; the nearest is {near[0]!r}")
        if not (role.writes or Kind(kind).read_only):
            _refuse(source, "kinds", f"a role that writes nothing to take read-only kinds, found {kind!r}")


def _refuse(source: str, key: str, expected_and_found: str) -> NoReturn:
    raise SettingsError(f"{source}: {key}: expected {expected_and_found}", file=source, key=key)
