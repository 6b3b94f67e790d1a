"""What is played in the demo? A small repository, its tasks, and the script of the model: data, nothing else.

The tasks show one thing each: a search that others wait for, a review that rejects and a repair, two changes to one
line, a worker that is killed, an audit, and a document that waits for the others.
"""

from __future__ import annotations

from typing import Any

JSON = Any

KILLED = "shout"
"""The task whose first worker the demo kills."""

FILES = {
    "README.md": "# Greeter\n\nSays hello.\n",
    "CLAUDE.md": "Keep functions small. Every function has a test.\n",
    "greeter/__init__.py": "",
    "greeter/greet.py": 'GREETING = "Hello"\n\n\ndef greet(name: str) -> str:\n    return f"{GREETING}, {name}!"\n',
    "tests/__init__.py": "",
    "tests/test_greet.py": (
        "import unittest\n\nfrom greeter.greet import greet\n\n\n"
        "class Greet(unittest.TestCase):\n"
        "    def test_names_the_guest(self) -> None:\n"
        '        self.assertIn("Ada", greet("Ada"))\n'
    ),
}

TASKS: tuple[dict[str, JSON], ...] = (
    {
        "id": "find-greeting",
        "kind": "search",
        "prompt": "Where is the greeting text defined, and who uses it?",
    },
    {
        "id": "warmer",
        "kind": "implement",
        "base": "main",
        "review": "always",
        "prompt": "Make the greeting warmer: say 'Good day' instead of 'Hello'.",
    },
    {
        "id": "louder",
        "kind": "implement",
        "base": "main",
        "review": "always",
        "prompt": "Make the greeting louder: put it in capitals.",
    },
    {
        "id": "farewell",
        "kind": "implement",
        "after": ["find-greeting"],
        "review": "always",
        "prompt": "Add greeter/farewell.py with farewell(name), next to the greeting, and a test.",
    },
    {
        "id": KILLED,
        "kind": "implement",
        "prompt": "Add greeter/shout.py with shout(text), which returns the text in capitals with an exclamation mark.",
    },
    {
        "id": "audit-names",
        "kind": "audit",
        "after": ["farewell"],
        "prompt": "Audit the handling of empty names in all functions.",
    },
    {
        "id": "describe",
        "kind": "document",
        "after": ["warmer", "louder", "farewell", KILLED],
        "prompt": "Describe in README.md what the package offers now.",
    },
)

SETTINGS = """
[gates]
default = ["unit"]
unit = {unit}

[retry]
backoff_seconds = 0.5

[supervisor]
poll_seconds = 0.5
"""


def _read(path: str) -> list[JSON]:
    return [{"type": "tool_use", "name": "Read", "input": {"file_path": "{cwd}/" + path}}]


def _write(path: str, content: str) -> list[JSON]:
    return [{"type": "tool_use", "name": "Write", "input": {"file_path": "{cwd}/" + path, "content": content}}]


def _edit(path: str, old: str, new: str) -> list[JSON]:
    edit = {"file_path": "{cwd}/" + path, "old_string": old, "new_string": new}
    return [{"type": "tool_use", "name": "Edit", "input": edit}]


def _say(text: str) -> list[JSON]:
    return [{"type": "text", "text": text}]


def _think(seconds: float) -> list[JSON]:
    return [{"delay_seconds": seconds}]


def _verdict(verdict: str, summary: str, *findings: JSON) -> list[JSON]:
    answer = {"commit": "{commit}", "verdict": verdict, "summary": summary, "findings": list(findings)}
    return [{"type": "tool_use", "name": "StructuredOutput", "input": answer}]


def _case(*contains: str, steps: list[JSON]) -> dict[str, JSON]:
    return {"contains": list(contains), "steps": steps}


_GREET = 'GREETING = "Hello"'
_RESOLVED = 'GREETING = "GOOD DAY"\n\n\ndef greet(name: str) -> str:\n    return f"{GREETING}, {name}!"\n'
_FAREWELL = 'def farewell(name: str) -> str:\n    return f"Goodbye, {name}!"\n'
_FAREWELL_REPAIRED = (
    "def farewell(name: str) -> str:\n"
    '    """Say goodbye; a guest without a name is a friend."""\n'
    "    return f\"Goodbye, {name.strip() or 'friend'}!\"\n"
)
_FAREWELL_TEST = (
    "import unittest\n\nfrom greeter.farewell import farewell\n\n\n"
    "class Farewell(unittest.TestCase):\n"
    "    def test_names_the_guest(self) -> None:\n"
    '        self.assertEqual(farewell("Ada"), "Goodbye, Ada!")\n'
)
_FAREWELL_TEST_REPAIRED = _FAREWELL_TEST + (
    "\n    def test_a_guest_without_a_name_is_a_friend(self) -> None:\n"
    '        self.assertEqual(farewell(" "), "Goodbye, friend!")\n'
)
_SHOUT = 'def shout(text: str) -> str:\n    return text.upper() + "!"\n'
_SHOUT_TEST = (
    "import unittest\n\nfrom greeter.shout import shout\n\n\n"
    "class Shout(unittest.TestCase):\n"
    "    def test_shouts(self) -> None:\n"
    '        self.assertEqual(shout("hey"), "HEY!")\n'
)
_DESCRIPTION = (
    "# Greeter\n\nSays hello.\n\n- `greet(name)` greets\n- `farewell(name)` says goodbye\n- `shout(text)` shouts\n"
)

SCRIPTS: dict[str, JSON] = {
    "match": [
        _case(
            "# Task find-greeting",
            steps=[
                _read("greeter/greet.py"),
                _say("It is defined in greeter/greet.py:1 as GREETING and used in greeter/greet.py:5 by greet()."),
            ],
        ),
        # Two changes to one line: whoever lands second meets the other's, and keeps both wishes.
        *[
            _case(
                f"# Task {task}",
                "## Both sides",
                steps=[
                    _read("greeter/greet.py"),
                    _write("greeter/greet.py", _RESOLVED),
                    _say("Kept both wishes: the warmer words, in capitals."),
                ],
            )
            for task in ("warmer", "louder")
        ],
        _case(
            "# Task warmer",
            steps=[
                _read("greeter/greet.py"),
                _edit("greeter/greet.py", _GREET, 'GREETING = "Good day"'),
                _say("The greeting is warmer now."),
            ],
        ),
        _case(
            "# Task louder",
            steps=[
                _read("greeter/greet.py"),
                _edit("greeter/greet.py", _GREET, 'GREETING = "HELLO"'),
                _say("The greeting is louder now."),
            ],
        ),
        _case(
            "# Task farewell",
            "A reviewer rejected",
            steps=[
                _read("greeter/farewell.py"),
                _write("greeter/farewell.py", _FAREWELL_REPAIRED),
                _read("tests/test_farewell.py"),
                _write("tests/test_farewell.py", _FAREWELL_TEST_REPAIRED),
                _say("A guest without a name is a friend now, and a test says so."),
            ],
        ),
        _case(
            "# Task farewell",
            steps=[
                _write("greeter/farewell.py", _FAREWELL),
                _write("tests/test_farewell.py", _FAREWELL_TEST),
                _say("farewell() is there, with a test."),
            ],
        ),
        _case(
            "# Review of task farewell",
            "'friend'",
            steps=[_verdict("approve", "The finding was answered, with a test.")],
        ),
        _case(
            "# Review of task farewell",
            steps=[
                _verdict(
                    "reject",
                    "An empty name is not handled.",
                    {
                        "file": "greeter/farewell.py",
                        "line": 2,
                        "severity": "major",
                        "message": "farewell('') says 'Goodbye, !': handle an empty name, and test it",
                    },
                )
            ],
        ),
        _case(
            f"# Task {KILLED}",
            "The previous attempt did not count",
            steps=[
                _write("greeter/shout.py", _SHOUT),
                _write("tests/test_shout.py", _SHOUT_TEST),
                _say("shout() is there, with a test."),
            ],
        ),
        # The first worker is killed while the model thinks, so this step's words are never heard.
        _case(f"# Task {KILLED}", steps=[[*_think(30.0), *_say("Too late.")]]),
        _case(
            "# Task audit-names",
            steps=[
                _read("greeter/farewell.py"),
                _say("greeter/farewell.py:3 handles an empty name; greeter/greet.py:5 does not."),
            ],
        ),
        _case(
            "# Task describe",
            steps=[_read("README.md"), _write("README.md", _DESCRIPTION), _say("README.md describes the package.")],
        ),
        _case("# Review of task", steps=[_verdict("approve", "Does what was asked, no more; the gate passed.")]),
    ]
}
