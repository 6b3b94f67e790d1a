"""Is what we promise others kept? Files in, `coord` and git out: nothing here looks inside the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

JSON = Any

SETTINGS = """
[git]
target = "main"
[agents]
backend = "scripted"
[gates]
default = ["there"]
there = ["test", "-e", "README.md"]
fails = ["false"]
[supervisor]
poll_seconds = 0.05
stop_grace_seconds = 0.5
[limits]
attempts_max = 1
[retry]
backoff_seconds = 0.05
"""
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z")


def script(**actions: JSON) -> str:
    """A prompt that the scripted backend can play."""
    return f"Do as told\n```script\n{json.dumps(actions)}\n```\n"


def writes(name: str, **actions: JSON) -> str:
    """A prompt for a change to one file."""
    return script(write={name: f"{name}\n"}, report="written", **actions)


class Outside:
    """A repository as its user sees it: the command, the state directory's files, and git."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / ".coordination"
        self.inbox = self.home / "inbox"
        self.variables: dict[str, str] = {}
        self.told = ""

    def coord(self, *arguments: str, code: int = 0, stdin: str = "") -> str:
        """Run ``coord``, which must exit with ``code``; its stdout. What it said on stderr is ``told``."""
        command = [sys.executable, "-P", "-m", "coordination", "-C", str(self.root), *arguments]
        environment = os.environ | self.variables
        done = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, timeout=50, check=False
        )
        self.told = done.stderr
        assert done.returncode == code, f"coord {arguments} exited {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def json(self, *arguments: str) -> JSON:
        """The one object that a reading command prints."""
        return json.loads(self.coord(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[JSON]:
        """The objects that a command prints, one a line."""
        return [json.loads(line) for line in self.coord(*arguments).splitlines()]

    def git(self, *arguments: str) -> str:
        """What git says."""
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, check=True, capture_output=True, text=True, timeout=30
        )
        return done.stdout.strip()

    def drop(self, name: str, value: JSON) -> None:
        """Leave a task file the way the contract asks for: write it hidden, then rename."""
        hidden = self.inbox / f".{name}.tmp"
        hidden.write_text(value if isinstance(value, str) else json.dumps(value))
        hidden.rename(self.inbox / f"{name}.json")

    def configure(self, *changes: tuple[str, str]) -> None:
        """Put the settings in place, with changes."""
        text = SETTINGS
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (self.home / "coordination.toml").write_text(text)

    def judged(self) -> None:
        """Have all task files judged, and nothing started."""
        self.coord("pause")
        self.coord("start", "--once", code=1)

    def rejected(self, name: str) -> JSON:
        """The reason beside the one rejected file of that name."""
        (error,) = (self.inbox / "rejected").glob(f"{name}.*.error.json")
        (file,) = [path for path in (self.inbox / "rejected").glob(f"{name}.*.json") if path != error]
        assert error.name == file.name.removesuffix(".json") + ".error.json"
        return json.loads(error.read_text())

    def accepted(self, task: str) -> list[str]:
        """Tickets of the files that became this task, or were it already."""
        names = [path.name.split(".") for path in (self.inbox / "accepted").iterdir()]
        return [ticket for found, ticket, ending in names if (found, ending) == (task, "json")]

    def events(self, kind: str, task: str = "") -> list[JSON]:
        """Events of one type, of one task if it is named."""
        return [row for row in self.lines("log") if row["type"] == kind and task in ("", row.get("task"))]

    def state(self, task: str) -> str:
        """Where a task stands."""
        return str(self.json("show", task)["state"])


@pytest.fixture
def bare(repository: Path) -> Iterator[Outside]:
    """A repository that nobody prepared; whatever runs in it is stopped at the end."""
    outside = Outside(repository)
    yield outside
    if outside.home.exists() and list((outside.home / "log").glob("*.jsonl")):
        outside.coord("stop", "--force")


@pytest.fixture
def outside(bare: Outside) -> Outside:
    """A prepared one, with the scripted backend."""
    bare.coord("init")
    bare.configure()
    return bare


def until(condition: Callable[[], Any], timeout_seconds: float = 30.0) -> Any:
    """What the condition says once it says something."""
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


# ---- names -----------------------------------------------------------------------------------------------------------


def test_the_state_directory_is_invisible_and_private(bare: Outside) -> None:
    """After init git sees nothing new, tracks nothing new, and nobody else may look inside."""
    before = bare.git("ls-files")
    bare.coord("init")
    assert bare.git("status", "--porcelain", "--untracked-files=all") == ""
    assert bare.git("ls-files") == before
    assert bare.home.stat().st_mode & 0o777 == 0o700
    assert (bare.home / "coordination.toml").is_file()


def test_another_home_may_be_inside_or_outside_but_of_one_repository(bare: Outside, tmp_path: Path) -> None:
    """``COORDINATION_HOME`` moves the state directory; it remembers its repository and refuses another with 4."""
    for home in (tmp_path / "elsewhere", bare.root / "state"):
        bare.variables = {"COORDINATION_HOME": str(home)}
        bare.coord("init")
        assert (home / "coordination.toml").is_file()
        assert bare.git("status", "--porcelain", "--untracked-files=all") == ""
        assert not bare.home.exists()
        subprocess.run(["git", "clone", "-q", str(bare.root), str(tmp_path / home.name / "clone")], check=True)
        other = Outside(tmp_path / home.name / "clone")
        other.variables = bare.variables
        for arguments in (["init"], ["status"], ["submit", "x"]):
            other.coord(*arguments, code=4)
            assert str(home) in other.told


def test_a_linked_worktree_shares_the_state_of_the_main_one(outside: Outside, tmp_path: Path) -> None:
    """The root is the main worktree of the common directory, from wherever it is asked."""
    outside.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    linked = Outside(tmp_path / "linked")
    linked.coord("submit", "--id", "a", "x")
    assert outside.state("a") == "queued"
    assert not linked.home.exists()


def test_a_moved_repository_says_how_to_go_on(outside: Outside, tmp_path: Path) -> None:
    """Its state directory belongs to the old path: refused with 4, and what the message says makes it whole again."""
    outside.drop("a", {"id": "a", "prompt": script(write={"half": "x"}, ending="failed", reason="x")})
    outside.coord("start", "--once", code=1)
    moved = Outside(outside.root.rename(tmp_path / "moved"))
    moved.coord("status", code=4)
    command = next(found for found in re.findall(r"`([^`]+)`", moved.told) if found.startswith("git worktree"))
    note = moved.home / "repository.json"
    assert str(note) in moved.told
    note.write_text(note.read_text().replace(str(outside.root / ".git"), str(moved.root / ".git")))
    subprocess.run(["sh", "-c", command], cwd=moved.root, check=True, capture_output=True, timeout=30)
    moved.coord("retry", "a")
    moved.coord("start", "--once", code=1)
    assert moved.json("show", "a")["reason"] == "a.2.work failed: x (attempt 1 of 1)"


READING = (["status"], ["tasks"], ["show", "a"], ["log"], ["replay"], ["submit", "x"], ["start", "--once"], ["init"])


def test_a_cleaned_state_directory_is_five_and_the_advice_helps(outside: Outside) -> None:
    """After ``git clean -fdx`` nothing begins anew by itself; the command in the message makes that possible."""
    outside.drop("a", {"id": "a", "prompt": writes("a")})
    outside.coord("start", "--once")
    outside.git("update-ref", "refs/coordination/preserved/a/1", "HEAD")
    commits = set(outside.git("for-each-ref", "--format=%(objectname)").splitlines())
    shutil.rmtree(outside.home)
    for arguments in READING:
        outside.coord(*arguments, code=5)
        assert "coord init" in outside.told
    command = next(found for found in re.findall(r"`([^`]+)`", outside.told) if found.startswith("git for-each-ref"))
    subprocess.run(["sh", "-c", command], cwd=outside.root, check=True, timeout=30)
    outside.coord("init")
    assert outside.json("status")["counts"] == {}
    assert commits <= set(outside.git("for-each-ref", "--format=%(objectname)").splitlines())


def test_the_log_reference_names_the_log_and_how_far_it_is(outside: Outside) -> None:
    """``refs/coordination/log`` holds the uuid of the log and a sequence number it reached."""
    outside.drop("a", {"id": "a", "prompt": script(report="x"), "kind": "search"})
    outside.coord("start", "--once")
    found = json.loads(outside.git("cat-file", "-p", "refs/coordination/log"))
    segment = next((outside.home / "log").glob("*.jsonl"))
    assert found["uuid"] == json.loads(segment.read_text().splitlines()[0])["log"]
    assert 0 < found["seq"] <= outside.json("status")["seq"]


# ---- the inbox: fields -----------------------------------------------------------------------------------------------

LONGEST = "x" * 64
PROMPT = {"prompt": "x"}
KINDS = ("search", "plan", "implement", "fix", "refactor", "test", "document", "review", "audit")
GOOD: dict[str, JSON] = {
    "prompt-longest": {"prompt": "é" * (128 * 1024)},
    "id-longest": PROMPT | {"id": LONGEST},
    "id-signs": PROMPT | {"id": "0_-"},
    "title-longest": PROMPT | {"title": "é" * 200},
    "priority-least": PROMPT | {"priority": -100},
    "priority-most": PROMPT | {"priority": 100},
    "after-unknown": PROMPT | {"after": ["nobody"]},
    "gates-none": PROMPT | {"gates": []},
    "gates-named": PROMPT | {"gates": ["there", "fails"]},
    "review": PROMPT | {"review": "never"},
    "numbers": PROMPT | {"budget_usd": 0.01, "timeout_seconds": 0.5, "turns_max": 1, "attempts_max": 1},
    "context": PROMPT | {"context": ["README.md"]},
    "labels": PROMPT | {"labels": {"a": "b"}},
    "version": PROMPT | {"version": 1},
    "role": PROMPT | {"role": "green"},
    "base": PROMPT | {"base": "main"},
    **{f"kind-{kind}": PROMPT | {"kind": kind} for kind in KINDS},
}
BAD: dict[str, tuple[JSON, str]] = {
    "prompt-missing": ({}, "prompt"),
    "prompt-empty": ({"prompt": ""}, "prompt"),
    "prompt-long": ({"prompt": "é" * (128 * 1024) + "x"}, "prompt"),
    "prompt-number": ({"prompt": 1}, "prompt"),
    **{
        f"id-{number}": (PROMPT | {"id": found}, "id")
        for number, found in enumerate(["", "-a", "_a", "a.b", "a/b", "a b", "é", "a\n", "x" * 65, 7, None])
    },
    "title-long": (PROMPT | {"title": "x" * 201}, "title"),
    "kind": (PROMPT | {"kind": "Fix"}, "kind"),
    "role": (PROMPT | {"role": "greene"}, "role"),
    "role-reader": (PROMPT | {"role": "red", "kind": "fix"}, "role"),
    "priority-low": (PROMPT | {"priority": -101}, "priority"),
    "priority-high": (PROMPT | {"priority": 101}, "priority"),
    "priority-part": (PROMPT | {"priority": 1.5}, "priority"),
    "priority-true": (PROMPT | {"priority": True}, "priority"),
    "after-text": (PROMPT | {"after": "a"}, "after"),
    "after-self": (PROMPT | {"id": "me", "after": ["ME"]}, "after"),
    "gates-unknown": (PROMPT | {"gates": ["thare"]}, "gates"),
    "gates-command": (PROMPT | {"gates": [["true"]]}, "gates"),
    "paths-up": (PROMPT | {"paths": ["../x"]}, "paths"),
    "base-flag": (PROMPT | {"base": "--all"}, "base"),
    "review": (PROMPT | {"review": "sometimes"}, "review"),
    "budget": (PROMPT | {"budget_usd": 0}, "budget_usd"),
    "timeout": (PROMPT | {"timeout_seconds": -1}, "timeout_seconds"),
    "turns": (PROMPT | {"turns_max": 1.5}, "turns_max"),
    "attempts": (PROMPT | {"attempts_max": "3"}, "attempts_max"),
    "context": (PROMPT | {"context": ["/etc/passwd"]}, "context"),
    "labels": (PROMPT | {"labels": {"a": 1}}, "labels"),
    "version": (PROMPT | {"version": 2}, "version"),
    "unknown": (PROMPT | {"promt": "x"}, "promt"),
    "command": (PROMPT | {"command": "rm"}, "command"),
    "list": ([PROMPT], ""),
    "doubled": ('{"prompt": "x", "prompt": "y"}', "prompt"),
    "broken": ('{"prompt": "x"', ""),
    "empty": ("", ""),
}


def test_every_field_has_its_limits_and_every_file_one_end(outside: Outside) -> None:
    """Each limit is the last value accepted; everything beyond is rejected once, with its reason in six keys."""
    for name, value in GOOD.items():
        outside.drop(f"good-{name}", value)
    for name, (value, _) in BAD.items():
        outside.drop(f"bad-{name}", value)
    outside.judged()
    submitted = {event["source"]: event for event in outside.events("TaskSubmitted")}
    assert set(submitted) == {f"good-{name}.json" for name in GOOD}
    for event in submitted.values():
        assert outside.accepted(event["task"]) == [event["ticket"]]
    for name, (_, field) in BAD.items():
        error = outside.rejected(f"bad-{name}")
        assert list(error) == ["file", "reason", "field", "expected", "found", "at"], name
        assert (error["file"], error["field"]) == (f"bad-{name}.json", field)
        assert error["reason"], name
        assert error["expected"], name
        assert error["found"], name
        assert TIME.fullmatch(error["at"])
    assert "prompt" in outside.rejected("bad-unknown")["reason"]
    assert "there" in outside.rejected("bad-gates-unknown")["reason"]
    assert [path.name for path in outside.inbox.iterdir() if path.is_file()] == []
    assert list((outside.inbox / ".taken").iterdir()) == []
    assert len(list((outside.inbox / "rejected").iterdir())) == 2 * len(BAD)


def test_defaults_are_those_of_the_table(outside: Outside) -> None:
    """A file with a prompt alone is a task with an id, a title, and every documented default."""
    outside.drop("any", {"prompt": "\nFirst line.\nSecond line."})
    outside.judged()
    spec = outside.json("show", "t1")["spec"]
    expected = {"title": "First line.", "kind": "implement", "role": "auto", "priority": 0, "after": [], "paths": []}
    expected |= {"base": None, "review": "auto", "context": [], "labels": {}, "version": 1}
    assert {key: spec[key] for key in expected} == expected


def test_minted_ids_are_in_order_and_skip_used_ones(outside: Outside) -> None:
    """``t1``, ``t2``, … in the order of submission; what somebody took, in any case, is skipped."""
    outside.coord("submit", "--id", "T2", "x")
    minted = [outside.coord("submit", "x").strip() for _ in range(3)]
    assert minted == ["t1", "t3", "t4"]


# ---- the inbox: files ------------------------------------------------------------------------------------------------


def test_what_is_no_plain_file_of_ours_is_never_opened(outside: Outside, tmp_path: Path) -> None:
    """Links, pipes, sockets and directories are rejected once; what they lead to stays as it is."""
    outside.drop("plain", {"id": "plain", **PROMPT})
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"id": "smuggled", **PROMPT}))
    (outside.inbox / "symlink.json").symlink_to(good)
    (outside.inbox / "dangling.json").symlink_to(tmp_path / "nowhere")
    os.mkfifo(outside.inbox / "fifo.json")
    (outside.inbox / "directory.json").mkdir()
    (outside.inbox / "directory.json" / "inner").write_text("kept\n")
    os.link(good, outside.inbox / "hard.json")
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(outside.inbox)
        try:
            one.bind("socket.json")
        finally:
            os.chdir(here)
        outside.judged()
    found = {name: outside.rejected(name)["found"] for name in ("symlink", "dangling", "fifo", "directory", "hard")}
    assert len(set(found.values())) == len(found) - 1, found
    assert outside.rejected("socket")["found"]
    assert [event["task"] for event in outside.events("TaskSubmitted")] == ["plain"]
    assert json.loads(good.read_text())["id"] == "smuggled"
    (kept,) = (outside.inbox / "rejected").glob("directory.*/inner")
    assert kept.read_text() == "kept\n"


def test_what_is_being_written_is_left_alone(outside: Outside) -> None:
    """Hidden names and other endings are ignored; a half file becomes a task when its end arrives."""
    for name in (".hidden.json", "note.txt", "x.json.tmp", "X.JSON"):
        (outside.inbox / name).write_text(json.dumps(PROMPT))
    outside.coord("pause")
    outside.coord("start")
    seen = threading.Event()

    def writes() -> None:
        """Never at rest for a second, however long it takes until somebody has looked."""
        with (outside.inbox / "slow.json").open("a", buffering=1) as file:
            file.write('{"id": "slow", ')
            while not seen.wait(0.1):
                file.write(" \n")
            file.write('"prompt": "x"}')

    writer = threading.Thread(target=writes)
    writer.start()
    try:
        until(lambda: outside.json("status")["inbox"]["pending"])
    finally:
        seen.set()
        writer.join()
    until(lambda: outside.accepted("slow"))
    assert list((outside.inbox / "rejected").iterdir()) == []
    assert [event["task"] for event in outside.events("TaskSubmitted")] == ["slow"]
    left = {path.name for path in outside.inbox.iterdir() if path.is_file()}
    assert left == {".hidden.json", "note.txt", "x.json.tmp", "X.JSON"}


def test_an_id_is_an_idempotency_key(outside: Outside) -> None:
    """The same id and content is accepted again without an event; other content, or another case, is refused."""
    outside.drop("one", '{"id": "a", "prompt": "x"}')
    outside.judged()
    outside.drop("two", '{"prompt": "x",\n "id": "a"}')
    outside.drop("three", {"id": "a", "prompt": "y"})
    outside.drop("four", {"id": "A", "prompt": "y"})
    outside.drop("five", {"id": "a", "prompt": "x", "priority": 0})
    outside.judged()
    assert len(outside.accepted("a")) == 2
    assert len(set(outside.accepted("a"))) == 2
    assert len(outside.events("TaskSubmitted")) == 1
    for name in ("three", "four", "five"):
        assert outside.rejected(name)["field"] == "id"
    assert json.loads(outside.coord("submit", "--id", "a", "x", "--json")) == {"task": "a", "duplicate": True}
    outside.coord("submit", "--id", "a", "z", code=2)


def test_a_start_finishes_what_a_cut_left_in_the_inbox(outside: Outside) -> None:
    """A taken file the log knows is filed away, one that was refused is filed away, any other is judged: once each."""
    outside.drop("known", {"id": "known", **PROMPT})
    outside.drop("bad", {"id": "bad", "prompt": ""})
    outside.judged()
    taken = outside.inbox / ".taken"
    (accepted,) = (outside.inbox / "accepted").iterdir()
    accepted.rename(taken / f"{outside.accepted('known')[0]}.known.json")
    (error,) = (outside.inbox / "rejected").glob("*.error.json")
    file = error.with_name(error.name.replace(".error.json", ".json"))
    before = error.read_bytes()
    file.rename(taken / f"{error.name.split('.')[-3]}.bad.json")
    (taken / "0123456789abcdef.new.json").write_text(json.dumps({"id": "new", **PROMPT}))
    outside.judged()
    assert list(taken.iterdir()) == []
    assert len(outside.accepted("known")) == 1
    assert outside.accepted("new") == ["0123456789abcdef"]
    assert [event["task"] for event in outside.events("TaskSubmitted")] == ["known", "new"]
    assert (error.read_bytes(), file.exists()) == (before, True)


# ---- dependencies, order, paths --------------------------------------------------------------------------------------


def test_dependencies_hold_fail_and_are_freed(outside: Outside) -> None:
    """A failure is handed on with its chain, an unknown id holds until it comes and is named, cycles are refused."""
    outside.drop("a", {"id": "a", "prompt": script(ending="failed", reason="no luck")})
    outside.drop("b", {"id": "b", "after": ["A"], "prompt": writes("b")})
    outside.drop("c", {"id": "c", "after": ["b"], "prompt": writes("c")})
    outside.drop("d", {"id": "d", "after": ["later"], "prompt": writes("d")})
    outside.coord("start", "--once", code=1)
    assert [outside.state(task) for task in "abcd"] == ["failed", "dependency_failed", "dependency_failed", "held"]
    shown = outside.json("show", "c")
    assert shown["chain"] == ["c", "b", "a"] or set(shown["chain"]) >= {"a", "b"}
    assert "no luck" in shown["reason"] or "a" in shown["reason"]
    assert "later" in " ".join(outside.json("show", "d")["waiting"])
    outside.drop("loop", {"id": "later", "after": ["d"], "prompt": writes("later")})
    outside.judged()
    assert outside.rejected("loop")["field"] == "after"
    outside.coord("submit", "--id", "later", "--after", "d", "x", code=2)
    outside.coord("resume")
    outside.drop("later", {"id": "later", "prompt": writes("later")})
    outside.coord("start", "--once", code=1)
    merged = [event["task"] for event in outside.events("TaskMerged")]
    assert merged == ["later", "d"]


@pytest.mark.parametrize(("rate", "expected"), [("0.0", ["high", "first", "low"]), ("1e9", ["low", "first", "high"])])
def test_higher_goes_first_and_waiting_raises(outside: Outside, rate: str, expected: list[str]) -> None:
    """Without ageing priority decides; with fast ageing whoever came first does."""
    outside.configure(("[retry]", f"[roles.blue]\nslots = 1\n[priority]\nageing_per_minute = {rate}\n[retry]"))
    for name, priority in (("low", -100), ("first", 0), ("high", 100)):
        options = ["--id", name, "--kind", "search", "--priority", str(priority)]
        outside.coord("submit", *options, script(report="found"))
    outside.coord("start", "--once")
    assert [event["task"] for event in outside.events("RunPlanned")] == expected


def test_overlapping_paths_take_turns_until_merged(outside: Outside) -> None:
    """One with nested literal prefixes waits until the other has merged; others and ``[]`` do not wait."""
    outside.configure(("[retry]", "[roles.green]\nslots = 4\n[retry]"))
    slow = {"sleep_seconds": 0.5}
    outside.drop("1", {"id": "one", "paths": ["src/**"], "prompt": writes("src/one", **slow)})
    outside.drop("2", {"id": "two", "paths": ["src/a/*.py"], "prompt": writes("src/a/two", **slow)})
    outside.drop("3", {"id": "three", "paths": ["docs/"], "prompt": writes("docs/three", **slow)})
    outside.drop("4", {"id": "four", "prompt": writes("src/four", **slow)})
    outside.coord("start", "--once")
    rows = outside.lines("log")
    order = [(row["type"], row["task"]) for row in rows if row["type"] in ("RunPlanned", "TaskMerged")]
    first = {task: order.index(("RunPlanned", task)) for task in ("one", "two", "three", "four")}
    assert first["two"] > order.index(("TaskMerged", "one"))
    assert max(first["three"], first["four"]) < order.index(("TaskMerged", "one"))


# ---- gates, review, base, limits -------------------------------------------------------------------------------------


def test_gates_and_reviews_decide_what_lands(outside: Outside) -> None:
    """A failing gate keeps a commit out; ``never``, ``auto`` and ``always`` say when Red looks."""
    many = "\n".join(str(number) for number in range(50))
    yes = {"review": {"verdict": "approve", "report": "fine"}}
    outside.drop("a", {"id": "fails", "gates": ["fails"], "prompt": writes("fails")})
    outside.drop("b", {"id": "small", "prompt": writes("small")})
    outside.drop("c", {"id": "always", "review": "always", "prompt": script(by_purpose=yes, do={"write": {"c": "c"}})})
    outside.drop("d", {"id": "large", "prompt": script(by_purpose=yes, do={"write": {"d": many}})})
    outside.drop("e", {"id": "never", "review": "never", "prompt": script(write={"e": many})})
    outside.drop("f", {"id": "ungated", "gates": [], "prompt": script(by_purpose=yes, do={"write": {"f": "f"}})})
    outside.coord("start", "--once", code=1)
    purposes = {
        task: [run["purpose"] for run in outside.json("show", task)["runs"]]
        for task in ("fails", "small", "always", "large", "never", "ungated")
    }
    assert outside.state("fails") == "failed"
    assert purposes == {
        "fails": ["work", "gate"],
        "small": ["work", "gate", "landing"],
        "always": ["work", "gate", "review", "landing"],
        "large": ["work", "gate", "review", "landing"],
        "never": ["work", "gate", "landing"],
        "ungated": ["work", "review", "landing"],
    }
    assert "fails" not in outside.git("ls-tree", "--name-only", "coordination/integration").split()
    assert "review skipped" in outside.json("show", "small")["evidence"]["reason"]


def test_settings_changed_under_a_supervisor_are_said_to_be_late(outside: Outside) -> None:
    """Status warns as long as the supervisor works by older settings than the file holds."""
    outside.coord("start")
    assert not any("coord stop" in warning for warning in outside.json("status")["warnings"])
    outside.configure(("[retry]", "[review]\nsmall_lines = 1\n[retry]"))
    assert any("coord stop" in warning for warning in outside.json("status")["warnings"])
    outside.coord("stop")
    outside.coord("start")
    assert not any("coord stop" in warning for warning in outside.json("status")["warnings"])


def test_a_gate_gets_an_environment_that_was_built(outside: Outside) -> None:
    """No key, nothing of the caller's but what settings pass by name; HOME and TMPDIR are ours; tasks bring nothing."""
    outside.configure(('fails = ["false"]', 'says = ["env"]'), ("[retry]", '[environment]\npass = ["PASSED"]\n[retry]'))
    outside.variables = {"ANTHROPIC_API_KEY": "key", "CLAUDE_CODE_OAUTH_TOKEN": "key", "PASSED": "yes", "TZ": "UTC"}
    outside.variables |= {"SECRET": "key", "GIT_DIR_OF_OURS": "x", "PYTHONSTARTUP": "x"}
    outside.drop("a", {"id": "a", "gates": ["says"], "prompt": writes("a")})
    outside.coord("start", "--once")
    (said,) = outside.json("show", "a")["evidence"]["gates"]
    found = dict(line.split("=", 1) for line in said["output"].splitlines())
    assert (found["PASSED"], found["TZ"]) == ("yes", "UTC")
    assert found["HOME"].startswith(str(outside.home))
    assert found["TMPDIR"] == "/tmp" or found["TMPDIR"].startswith(str(outside.home)), "its own, in a sandbox or not"
    assert set(outside.variables) & set(found) == {"PASSED", "TZ"}


def test_a_base_is_an_ancestor_or_the_task_does_not_start(outside: Outside) -> None:
    """A tag of the target's past is a base; a commit from elsewhere and a name that is none are not."""
    outside.git("tag", "old")
    outside.git("commit", "-q", "--allow-empty", "-m", "second")
    outside.git("switch", "-q", "-c", "side", "old")
    outside.git("commit", "-q", "--allow-empty", "-m", "aside")
    outside.git("switch", "-q", "main")
    for name in ("old", "side", "none"):
        outside.drop(name, {"id": name, "base": name, "prompt": writes(name)})
    outside.coord("start", "--once", code=1)
    assert outside.state("old") == "merged"
    assert outside.json("show", "old")["base"] == outside.git("rev-parse", "old")
    for name in ("side", "none"):
        shown = outside.json("show", name)
        assert shown["state"] not in ("merged", "running")
        assert name in " ".join([shown["reason"], *shown["waiting"]])
        assert shown["runs"] == []


def test_a_run_ends_at_its_time_limit(outside: Outside) -> None:
    """``timeout_seconds`` ends a run that takes longer, and that is a failure."""
    outside.drop("a", {"id": "a", "timeout_seconds": 0.3, "prompt": writes("a", sleep_seconds=40)})
    outside.coord("start", "--once", code=1)
    shown = outside.json("show", "a")
    assert shown["state"] == "failed"
    assert [run["ending"] for run in shown["runs"]] == ["timed_out"]


def test_attempts_are_counted_and_retry_begins_anew(outside: Outside) -> None:
    """``attempts_max`` failures end a task; a person's retry gives it, and those that need it, new ones."""
    outside.drop("a", {"id": "a", "attempts_max": 2, "prompt": script(ending="failed", reason="no luck")})
    outside.drop("b", {"id": "b", "after": ["a"], "prompt": writes("b")})
    outside.coord("start", "--once", code=1)
    shown = outside.json("show", "a")
    assert (shown["state"], shown["attempts"], len(shown["runs"])) == ("failed", 2, 2)
    outside.coord("retry", "a")
    assert (outside.state("a"), outside.json("show", "a")["attempts"]) == ("queued", 0)
    assert outside.state("b") == "queued"


def test_a_reading_task_ends_with_a_report_and_changes_nothing(outside: Outside) -> None:
    """Read-only kinds end ``done`` with a report and the cited paths that exist; they may not write, nothing lands."""
    before = outside.git("rev-parse", "main")
    outside.drop("a", {"id": "a", "kind": "search", "prompt": script(report="It is in README.md:1, not in gone.py")})
    outside.drop("b", {"id": "b", "kind": "audit", "prompt": writes("b")})
    outside.drop("c", {"id": "c", "kind": "plan", "prompt": script()})
    outside.coord("start", "--once", code=1)
    shown = outside.json("show", "a")
    assert (shown["state"], shown["report"]) == ("done", "It is in README.md:1, not in gone.py")
    assert shown["base"] == before
    evidence = shown["evidence"] or shown["runs"][0]["outcome"]
    assert evidence["cited"] == ["README.md"]
    assert outside.json("show", "b")["runs"][0]["outcome"]["denials"]
    assert outside.state("c") == "failed"
    assert outside.git("rev-parse", "coordination/integration") == before


# ---- the log ---------------------------------------------------------------------------------------------------------


def unsound(lines: list[bytes], segment: int, before: int = 0) -> list[bytes]:
    """Lines of a segment whose checksum is not what docs/log-format.md says, worked out from that page alone."""
    found = []
    for line in lines:
        body, said = line[: line.rindex(b',"sum"')], json.loads(line)["sum"]
        start = zlib.crc32(before.to_bytes(4, "little"), zlib.crc32(segment.to_bytes(8, "little")))
        before = int(said, 16)
        if zlib.crc32(body, start) != before:
            found.append(line)
    return found


def test_checksums_are_what_the_page_on_the_format_says(outside: Outside) -> None:
    """Whoever reads that page can check our log, and the example on it."""
    page = Path(__file__).parents[2] / "docs" / "log-format.md"
    example = [line.strip().encode() for line in page.read_text().splitlines() if re.match(r' {4}\{.*"sum":', line)]
    assert len(example) == 3
    assert unsound(example, 1) == []
    outside.coord("submit", "x")
    outside.coord("pause")
    (segment,) = (outside.home / "log").glob("*.jsonl")
    lines = segment.read_bytes().splitlines()
    assert len(lines) == 3
    assert unsound(lines, int(segment.stem)) == []
    assert unsound([lines[0], lines[2], lines[1]], int(segment.stem)) == [lines[2], lines[1]]


def test_the_log_is_lines_of_json_that_anybody_can_read(outside: Outside) -> None:
    """A header a segment, a line a batch; ``coord log`` has the same events, and ``--since`` never splits a batch."""
    outside.drop("a", {"id": "a", "prompt": writes("a")})
    outside.coord("start", "--once")
    assert outside.told == ""
    rows = outside.lines("log")
    for row in rows:
        assert list(row)[:4] == ["seq", "index", "at", "type"]
        assert re.fullmatch(r"(?:[A-Z][a-z]+)+", row["type"])
        assert TIME.fullmatch(row["at"])
    places = [(row["seq"], row["index"]) for row in rows]
    assert places == sorted(set(places))
    header, *batches = [
        json.loads(line)
        for segment in sorted((outside.home / "log").glob("*.jsonl"))
        for line in segment.read_text().splitlines()
    ]
    assert {"format", "segment", "epoch", "first_seq"} <= set(header)
    assert [batch["seq"] for batch in batches] == list(range(1, len(batches) + 1))
    assert sum(len(batch["events"]) for batch in batches) == len(rows)
    for batch in batches:
        assert list(batch)[-1] == "sum"
        assert re.fullmatch(r"[0-9a-f]{8}", batch["sum"])
    last = batches[-1]["seq"]
    for since in (0, 1, last // 2, last, last + 5):
        assert outside.lines("log", "--since", str(since)) == [row for row in rows if row["seq"] > since]
    of_task = outside.lines("log", "--task", "A")
    assert of_task == [row for row in rows if row.get("task") == "a"]
    types = [row["type"] for row in of_task]
    assert types[:3] == ["TaskSubmitted", "RunPlanned", "RunStarted"]
    assert types[-1] == "TaskMerged"
    assert {"RunEnded", "TaskApproved"} < set(types)


# ---- git -------------------------------------------------------------------------------------------------------------


def test_commits_carry_trailers_and_the_users_branch_is_not_touched(outside: Outside) -> None:
    """Task commits name task, run and role; the landing names the reviewed commit, gates and cost."""
    before = outside.git("rev-parse", "main")
    yes = {"review": {"verdict": "approve", "report": "fine"}}
    work = {"write": {"a": "a\n"}, "cost_usd": 0.25}
    outside.drop("a", {"id": "a", "review": "always", "prompt": script(by_purpose=yes, do=work)})
    outside.coord("start", "--once")
    trailers = "--format=%(trailers:only,unfold)"
    of_task = dict(
        line.split(": ", 1) for line in outside.git("log", "-1", trailers, "coordination/task/a").splitlines()
    )
    assert of_task == {"Coordination-Task": "a", "Coordination-Run": "a.1.work", "Coordination-Role": "green"}
    landing = outside.git("log", "-1", trailers, "coordination/integration")
    told = dict(line.split(": ", 1) for line in landing.splitlines())
    assert told["Coordination-Reviewed"] == outside.git("rev-parse", "coordination/task/a")
    assert told["Coordination-Verdict"] == "approve"
    assert "there" in told["Coordination-Gates"]
    assert float(told["Coordination-Cost-USD"]) == pytest.approx(0.25)
    assert outside.git("rev-parse", "main") == before
    assert outside.git("symbolic-ref", "HEAD") == "refs/heads/main"
    assert outside.git("status", "--porcelain", "--untracked-files=all") == ""


def test_what_the_target_gained_is_taken_in_before_landing(outside: Outside) -> None:
    """A commit that the user makes meanwhile is in what lands, and the gates ran on the result."""
    outside.coord("start")
    outside.drop("a", {"id": "a", "prompt": writes("a", sleep_seconds=1)})
    until(lambda: outside.json("status")["running"])
    (outside.root / "mine").write_text("mine\n")
    outside.git("add", "mine")
    outside.git("commit", "-q", "-m", "mine")
    until(lambda: outside.state("a") == "merged")
    assert {"a", "mine"} <= set(outside.git("ls-tree", "--name-only", "coordination/integration").split())
    landing = outside.json("show", "a")["runs"][-1]
    assert landing["purpose"] == "landing"
    assert [(gate["gate"], gate["exit_code"]) for gate in landing["outcome"]["gates"]] == [("there", 0)]


def test_what_a_cancelled_run_left_is_kept(outside: Outside) -> None:
    """Before a workspace goes, untracked and ignored files in it are kept under a ref; copied secrets never."""
    outside.coord("start")
    left = {".gitignore": "ignored\n", "ignored": "kept too\n", "half": "half\n", ".env": "SECRET=1\n"}
    outside.drop("a", {"id": "a", "prompt": script(write=left, sleep_seconds=40)})
    until((outside.home / "agent_workspaces" / "a" / ".env").exists)
    outside.coord("cancel", "a")
    until(lambda: not outside.json("show", "a")["run"])
    outside.coord("retry", "a")
    kept = until(lambda: outside.git("for-each-ref", "--format=%(refname)", "refs/coordination/preserved/a/"))
    assert re.fullmatch(r"refs/coordination/preserved/a/\d+", kept.splitlines()[0])
    names = set(outside.git("ls-tree", "-r", "--name-only", kept.splitlines()[0]).split())
    assert {"half", "ignored", ".gitignore"} <= names
    assert ".env" not in names


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_stop_requeues_and_drain_finishes(outside: Outside) -> None:
    """A stop ends runs ``stopped`` and requeues, no counter raised; a drain waits for the task that runs."""
    outside.drop("a", {"id": "a", "prompt": writes("a", sleep_seconds=40)})
    outside.coord("start")
    until(lambda: any(live["started_at"] for task in outside.json("status")["running"] for live in task["live"]))
    outside.coord("stop")
    shown = outside.json("show", "a")
    counters = (shown["attempts"], shown["rounds"], shown["returns"])
    assert (shown["state"], counters, shown["runs"][0]["ending"]) == ("queued", (0, 0, 0), "stopped")
    outside.coord("cancel", "a")
    outside.drop("b", {"id": "b", "prompt": writes("b", sleep_seconds=1)})
    outside.coord("start")
    until(lambda: any(live["started_at"] for task in outside.json("status")["running"] for live in task["live"]))
    outside.coord("submit", "--id", "c", writes("c"))
    outside.coord("pause", "c")
    outside.coord("stop", "--drain")
    assert outside.state("b") == "merged"
    assert "No supervisor" in outside.coord("stop")
    assert "No supervisor" in outside.coord("stop", "--force")


# ---- reading ---------------------------------------------------------------------------------------------------------


def shape(value: JSON) -> JSON:
    """The keys of a value, all the way down; what differs by its nature left out."""
    if isinstance(value, dict):
        return {key: shape(found) for key, found in value.items() if key not in ("labels", "counts", "live")}
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_keys_stay_whatever_happened(outside: Outside) -> None:
    """A task that only waits and one with all options show the same keys; so do two runs that ended differently."""
    outside.drop("a", {"id": "a", "prompt": writes("a", cost_usd=0.5)})
    outside.drop("b", {"id": "b", "title": "b", "prompt": script(ending="failed", reason="x")})
    outside.drop("c", {"id": "c", "after": ["nobody"], "priority": 5, "review": "never", "prompt": "x"})
    outside.coord("start", "--once", code=1)
    merged, failed, waits = (outside.json("show", task) for task in "abc")
    assert list(merged) == list(failed) == list(waits)
    assert list(merged["spec"]) == list(failed["spec"]) == list(waits["spec"])
    keys = {tuple(run["outcome"]) for task in (merged, failed) for run in task["runs"]}
    assert len(keys) == 1
    assert {"commit", "verdict", "gates", "usage", "reason"} <= set(keys.pop())
    assert {tuple(row) for row in outside.lines("tasks", "--json")} == {tuple(outside.lines("tasks", "--json")[0])}
    assert outside.json("status")["cost_usd"] == pytest.approx(0.5)
    assert list(outside.json("show", "b.1.work")) == list(merged["runs"][0])


USAGE = {
    "status": 0,
    "nonsense": 2,
    "start --no-wait": 2,
    "stop --drain --force": 2,
    "tasks --state nonsense": 2,
    "log --since -1": 2,
    "show nobody": 3,
    "show a.9.work": 3,
    "cancel nobody": 3,
    "log --task nobody": 3,
    "approve a": 4,
    "reject a --reason x": 4,
    "pause ended": 4,
}


def test_exit_codes_are_those_of_the_table(outside: Outside) -> None:
    """2 usage, 3 no such task or run, 4 refused in this state; nothing on stdout, nothing in the log."""
    outside.coord("submit", "--id", "a", "x")
    outside.coord("submit", "--id", "ended", "x")
    outside.coord("cancel", "ended")
    before = outside.coord("log")
    for arguments, code in USAGE.items():
        out = outside.coord(*arguments.split(), code=code)
        assert (out == "") == (code != 0), arguments
        assert (outside.told == "") == (code == 0), arguments
    assert outside.coord("log") == before


def test_waiting_tells_how_a_task_ended(outside: Outside) -> None:
    """``submit --wait`` exits 0 for a task that ended well, 1 for one that did not."""
    outside.coord("start")
    assert outside.coord("submit", "--wait", "--id", "a", writes("a")) == "a\n"
    outside.coord("submit", "--wait", "--id", "b", script(ending="failed", reason="x"), code=1)
    outside.coord("replay", "--verify")


def test_starts_at_once_make_one_supervisor(outside: Outside) -> None:
    """Of several starts at the same moment one wins; the others exit 4 and name it, without words of its own."""
    command = [sys.executable, "-P", "-m", "coordination", "-C", str(outside.root), "start"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    starts = [subprocess.Popen(command, env=os.environ.copy(), text=True, **pipes) for _ in range(3)]  # type: ignore[call-overload]
    told = [(*start.communicate(timeout=50), start.returncode) for start in starts]
    assert sorted(code for _, _, code in told) == [0, 4, 4]
    pid = outside.json("status")["supervisor"]["pid"]
    for out, error, code in told:
        assert f"pid {pid}" in out + error
        if code:
            assert len(error.splitlines()) == 1


def test_without_claude_code_nothing_starts(outside: Outside, tmp_path: Path) -> None:
    """Where roles need a program that is nowhere, start is refused and says what to do; no task is worn out by it."""
    outside.configure(('backend = "scripted"', 'backend = "claude"'))
    outside.coord("submit", "--id", "a", "x")
    outside.variables = {"COORDINATION_CLAUDE": str(tmp_path / "nowhere"), "ANTHROPIC_API_KEY": "dummy"}
    for arguments in (["start"], ["start", "--once"]):
        outside.coord(*arguments, code=4)
        assert str(tmp_path / "nowhere") in outside.told
    assert outside.json("show", "a")["attempts"] == 0


def test_status_says_why_a_task_is_tried_again(outside: Outside) -> None:
    """What waits for another try is shown with what went wrong."""
    outside.configure(("attempts_max = 1", "attempts_max = 2"), ("backoff_seconds = 0.05", "backoff_seconds = 300.0"))
    outside.drop("a", {"id": "a", "prompt": script(ending="failed", reason="no luck")})
    outside.coord("start", "--once", "--no-wait", code=1)
    told = outside.coord("status")
    assert "tried again at" in told
    assert "no luck" in told
