"""Gates from the inbox to the merge: flaky ones, remembered ones, and what stands in a workspace before them."""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordination import sandbox
from coordination.testing.stage import FILES, Stage

JSON = Any

ASKS = """
import socket, sys
answer = socket.create_connection(("127.0.0.1", {port})).makefile().read()
print("was told", answer)
sys.exit(answer != "pass")
"""


class Oracle(socketserver.ThreadingTCPServer):
    """Tells gates whether to pass, one answer each, the last one over and over: a sandboxed gate remembers nothing."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.answers = ["pass"]
        self.asked = 0
        self.hanging = threading.Event()
        self.hanging.set()

    @property
    def gate(self) -> dict[str, JSON]:
        """The settings of a gate that asks."""
        return {"command": [sys.executable, "-c", ASKS.format(port=self.server_address[1])], "network": True}


class _Answer(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        oracle = self.server
        assert isinstance(oracle, Oracle)
        oracle.asked += 1
        oracle.hanging.wait()
        self.request.sendall(oracle.answers[min(oracle.asked, len(oracle.answers)) - 1].encode())


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.hanging.set()
        server.shutdown()
        thread.join()


Make = Callable[..., Stage]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    stages = []

    def one(files: dict[str, str] | None = None, **settings: JSON) -> Stage:
        tables = {
            "agents": {"backend": "scripted"},
            "supervisor": {"poll_seconds": 0.05},
            "retry": {"backoff_seconds": 0.05},
            **settings,
        }
        stages.append(Stage(tmp_path / "stage", settings=tables, files=files or FILES).build())
        return stages[-1]

    yield one
    for stage in stages:
        stage.close()


def drop(stage: Stage, task: str = "T", *, attempts_max: int = 1, review: str = "never", **actions: JSON) -> None:
    script = {"write": {f"{task}.txt": task}, "report": "done", **actions}
    prompt = f"Do it.\n```script\n{json.dumps(script)}\n```"
    stage.drop(id=task, review=review, attempts_max=attempts_max, prompt=prompt)


def test_a_gate_that_fails_once_lands_and_is_called_flaky_everywhere(make: Make, oracle: Oracle) -> None:
    """From the inbox to the merge: the evidence, the run, the status and the person's view have both outputs."""
    oracle.answers = ["fail", "pass"]
    stage = make(**{"gates": {"default": ["asks"]}, "gates.asks": oracle.gate})
    drop(stage)
    stage.run()
    shown = stage.show("T")
    assert shown["state"] == "merged"
    (gate,) = shown["evidence"]["gates"]
    assert (gate["exit_code"], gate["flaky"], gate["output"]) == (0, True, "was told pass\n")
    assert [(failure["exit_code"], failure["output"]) for failure in gate["failures"]] == [(1, "was told fail\n")]
    assert "asks (flaky: passed at try 2)" in shown["evidence"]["reason"]
    assert oracle.asked == 3, "a flaky pass is not remembered: the landing ran it, too"
    status = json.loads(stage.coord("status", "--json"))
    assert [(row["gate"], row["times"], row["run"]) for row in status["flaky"]] == [("asks", 1, "T.2.gate")]
    assert "gate 'asks' is flaky" in " ".join(status["warnings"])
    told = stage.coord("show", "T")
    assert "FLAKY: it passed at try 2" in told
    assert "was told fail" in told


def test_a_gate_that_fails_twice_has_failed(make: Make, oracle: Oracle) -> None:
    """Its reason has the last output, its result both; nothing of it is remembered."""
    oracle.answers = ["fail", "no"]
    stage = make(**{"gates": {"default": ["asks"]}, "gates.asks": oracle.gate})
    drop(stage)
    stage.run(code=1)
    shown = stage.show("T")
    assert shown["state"] == "failed"
    (gate,) = shown["runs"][1]["outcome"]["gates"]
    assert (gate["exit_code"], gate["flaky"], gate["output"]) == (1, False, "was told no\n")
    assert [failure["output"] for failure in gate["failures"]] == ["was told fail\n"]
    assert not list((stage.state / "cache").rglob("*.json"))


def test_without_reruns_the_first_failure_counts(make: Make, oracle: Oracle) -> None:
    """``[gates] reruns = 0``."""
    oracle.answers = ["fail", "pass"]
    stage = make(**{"gates": {"default": ["asks"], "reruns": 0}, "gates.asks": oracle.gate})
    drop(stage)
    stage.run(code=1)
    assert (stage.show("T")["state"], oracle.asked) == ("failed", 1)


@pytest.mark.parametrize("kept", [True, False])
def test_a_landing_with_the_same_files_runs_no_gate_again(make: Make, oracle: Oracle, *, kept: bool) -> None:
    """The result is of the merge, and says in which run it passed; with ``cache = false`` each runs."""
    stage = make(**{"gates": {"default": ["asks"], "cache": kept}, "gates.asks": oracle.gate})
    drop(stage)
    stage.run()
    (merged,) = stage.events("TaskMerged")
    (gate,) = merged["gates"]
    assert (gate["commit"], gate["exit_code"]) == (merged["merge"], 0)
    assert (gate.get("cached"), oracle.asked) == (("T.2.gate", 1) if kept else (None, 2))
    results = json.loads(stage.coord("status", "--json"))["gate_results"]
    assert results == {"run": oracle.asked, "cached": int(kept), "flaky": 0}
    assert ("as in T.2.gate" in stage.coord("show", "T")) == kept


def test_who_tries_again_wants_to_see_gates_run(make: Make, oracle: Oracle) -> None:
    """After a person's retry nothing that was said before counts for that task, not even on its landing."""
    oracle.answers = ["fail"]
    stage = make(**{"gates": {"default": ["asks"], "reruns": 0}, "gates.asks": oracle.gate})
    again = {"contains": ["retried by a person"], "do": {"write": {"T.txt": "again"}, "report": "done"}}
    drop(stage, match=[again], do={"write": {"T.txt": "T"}, "report": "done"})
    stage.run(code=1)
    stage.coord("retry", "T")
    oracle.answers = ["pass"]
    stage.run()
    assert oracle.asked == 3
    assert stage.show("T")["state"] == "merged"


def test_each_gate_of_a_landing_sees_the_exact_commit(make: Make) -> None:
    """Whatever the one before it changed, made, or hid from git."""
    hides = "import os; os.mkdir('d'); open('d/x', 'w'); os.chmod('d', 0); open('i.log', 'w'); open('greeter.py', 'w')"
    looks = "import os; assert not os.path.exists('d') and not os.path.exists('i.log'); import greeter; greeter.greet"
    gates = {"first": [sys.executable, "-c", hides], "second": [sys.executable, "-c", looks]}
    files = {"greeter.py": "def greet(): pass\n", ".gitignore": "*.log\n"}
    stage = make(files, gates={"default": ["first", "second"], "cache": False, **gates})
    drop(stage)
    stage.run()
    (merged,) = stage.events("TaskMerged")
    assert [gate["exit_code"] for gate in merged["gates"]] == [0, 0]


SETS_UP = """
import os, sys
count = len(os.listdir("kept")) if os.path.isdir("kept") else 0
os.makedirs("kept/bin", exist_ok=True)
open("kept/bin/tool", "w").write("#!" + os.getcwd() + "/kept/python")
open("kept/made", "w").write(open("lock").read() + open(".env").read())
print("set up by", os.environ["COORDINATION_RUN"])
"""
CHECKS = """
import os
assert open("kept/made").read() == "1secret", open("kept/made").read()
assert open("kept/bin/tool").read() == "#!" + os.getcwd() + "/kept/python"
assert open(".env").read() == "secret"
open("kept/made", "w").write("poison")
"""


@pytest.mark.parametrize("ignored", ["", ".env\nkept/\n"], ids=["known to git", "ignored"])
def test_set_up_from_the_inbox_to_the_merge(make: Make, ignored: str) -> None:
    """Made once and kept; work, gate and landing each have their own copy; what was lent is never committed or kept."""
    setup = {"commands": [[sys.executable, "-c", SETS_UP]], "copy": [".env"], "keep": ["kept"], "key": ["lock"]}
    gates = {"default": ["checks"], "checks": [sys.executable, "-c", CHECKS], "cache": False}
    stage = make({"README.md": "x", "lock": "1", ".gitignore": ignored}, setup=setup, gates=gates)
    (stage.repository / ".env").write_text("secret")
    drop(stage, "T", attempts_max=1)
    stage.run()
    assert stage.show("T")["state"] == "merged"
    runs = [log.parent.name for log in (stage.state / "runs").glob("*/setup.log")]
    assert runs == ["T.1.work"], "the others took what it made"
    listed = stage.git("ls-tree", "-r", "--name-only", "coordination/integration").split()
    assert sorted(listed) == [".gitignore", "README.md", "T.txt", "lock"]
    everything = stage.git("rev-list", "--all", "--objects")
    assert ".env" not in everything
    assert "kept" not in everything


def test_what_is_kept_is_made_anew_when_its_key_changes(make: Make) -> None:
    """And what only an agent's commit says is made for its own gate alone: it is given to nobody else."""
    setup = {"commands": [[sys.executable, "-c", SETS_UP]], "copy": [".env"], "keep": ["kept"], "key": ["lock"]}
    stage = make(
        {"README.md": "x", "lock": "1"}, setup=setup, gates={"default": ["ok"], "ok": ["true"], "cache": False}
    )
    (stage.repository / ".env").write_text("secret")
    drop(stage, "T", write={"lock": "2"})
    stage.run()
    runs = sorted(log.parent.name for log in (stage.state / "runs").glob("*/setup.log"))
    assert runs == ["T.1.work", "T.2.gate", "T.3.landing"]
    kept = [path.read_text() for path in (stage.state / "cache" / "setup").glob("*/0/made")]
    assert kept == ["1secret"]


def test_what_makes_more_than_it_keeps_is_made_each_time(make: Make) -> None:
    """Who was given the kept part alone would go without the rest."""
    more = SETS_UP + "open('generated.log', 'w').write('x')"
    checks = "import os; assert os.path.exists('generated.log') and os.path.exists('kept/made')"
    setup = {"commands": [[sys.executable, "-c", more]], "copy": [".env"], "keep": ["kept"], "key": ["lock"]}
    gates = {"default": ["checks"], "checks": [sys.executable, "-c", checks], "cache": False}
    stage = make({"README.md": "x", "lock": "1", ".gitignore": "*.log\n"}, setup=setup, gates=gates)
    (stage.repository / ".env").write_text("secret")
    approves = {"review": {"verdict": "approve", "report": "fine"}}
    drop(stage, review="always", by_purpose=approves, do={"write": {"T.txt": "T"}, "report": "done"})
    stage.run()
    runs = sorted(log.parent.name for log in (stage.state / "runs").glob("*/setup.log"))
    assert runs == ["T.1.work", "T.2.gate", "T.3.review", "T.4.landing"]
    assert not list((stage.state / "cache").glob("setup/*"))


def test_a_set_up_that_fails_is_nobodys_fault(make: Make) -> None:
    """The agent is not asked; the run says what failed and how; a person decides."""
    stage = make(
        setup={"commands": [["sh", "-c", "echo no such package; exit 3"]]}, gates={"default": ["ok"], "ok": ["true"]}
    )
    drop(stage, attempts_max=5)
    stage.run(code=1)
    shown = stage.show("T")
    assert shown["state"] == "waiting_for_person"
    assert {(run["outcome"]["code"], run["explained"]["kind"]) for run in shown["runs"]} == {
        ("setup_failed", "set-up failed")
    }
    assert "exited 3:\nno such package" in shown["reason"]


def test_a_gate_that_could_not_be_set_up_leaves_no_workspace(make: Make) -> None:
    """Only the agent's stays, for the person who looks."""
    fails = "import os, sys; sys.exit('.gate' in os.environ['COORDINATION_RUN'])"
    stage = make(setup={"commands": [[sys.executable, "-c", fails]]}, gates={"default": ["ok"], "ok": ["true"]})
    drop(stage, attempts_max=3)
    stage.run(code=1)
    shown = stage.show("T")
    assert (shown["state"], shown["attempts"]) == ("waiting_for_person", 0)
    assert [run["outcome"]["code"] for run in shown["runs"]][1:] == ["setup_failed", "setup_failed"]
    assert [path.name for path in (stage.state / "agent_workspaces").iterdir() if path.name[0] != "."] == ["T"]


def test_a_task_without_gates_lands_although_a_sandbox_is_required_and_missing(make: Make, tmp_path: Path) -> None:
    """There is nothing to confine."""
    stage = make(agents={"backend": "scripted", "sandbox": "require"}, gates={})
    without_sandbox(stage, tmp_path)
    drop(stage)
    stage.run()
    assert stage.show("T")["state"] == "merged"


def test_set_up_that_leaves_files_for_git_is_refused(make: Make) -> None:
    """They would be committed as the agent's work."""
    stage = make(setup={"commands": [["touch", "left"]]}, gates={"default": ["ok"], "ok": ["true"]})
    drop(stage)
    stage.run(code=1)
    assert "files that git does not ignore: left" in stage.show("T")["reason"]


def test_an_agent_cannot_commit_what_it_was_lent(make: Make) -> None:
    """Not by telling git not to ignore it, and not when it changes it."""
    stage = make(setup={"copy": [".env"]}, gates={"default": ["ok"], "ok": ["true"]})
    (stage.repository / ".env").write_text("secret")
    drop(stage, write={".gitignore": "!.env\n", ".env": "changed", "new": "new"})
    stage.run()
    listed = stage.git("ls-tree", "-r", "--name-only", "coordination/integration").split()
    assert {"new", ".gitignore"} <= set(listed)
    assert ".env" not in stage.git("rev-list", "--all", "--objects")


def test_a_reviewer_of_a_workspace_with_lent_files_changed_nothing(make: Make) -> None:
    """What set-up put there is not taken for a change of a run that only reads."""
    setup = {"commands": [["mkdir", "-p", "kept/deep"], ["touch", "kept/deep/x"]], "copy": [".env"]}
    stage = make(setup={**setup, "keep": ["kept"], "key": ["README.md"]}, gates={"default": ["ok"], "ok": ["true"]})
    (stage.repository / ".env").write_text("secret")
    script = json.dumps({"write": {}, "report": "README.md says hello", "verdict": "approve"})
    stage.drop(id="S", kind="search", prompt=f"Look.\n```script\n{script}\n```")
    stage.run()
    assert stage.show("S")["state"] == "done"


@pytest.mark.parametrize(
    ("wanted", "there", "said"),
    [("auto", 1, "works"), ("off", 1, "off"), ("auto", 0, "missing"), ("require", 0, "refused")],
)
def test_status_says_whether_gates_are_confined(make: Make, tmp_path: Path, wanted: str, there: int, said: str) -> None:
    """Loudly, when they are not although they could be."""
    if said == "works" and not sandbox.find(os.environ["PATH"]):
        pytest.skip("bubblewrap does not work here")
    stage = make(agents={"backend": "scripted", "sandbox": wanted}, gates={"default": ["ok"], "ok": ["true"]})
    if not there:
        without_sandbox(stage, tmp_path)
    stage.start()
    status = stage.wait_for(lambda: guarded(stage), "supervisor that says how it guards") or {}
    assert status["supervisor"]["guards"]["gates"] == said
    told = stage.coord("status")
    assert ("gates run WITHOUT a sandbox" in told) == (said == "missing")
    assert ("NO gate runs" in told) == (said == "refused")
    stage.coord("stop")


def guarded(stage: Stage) -> dict[str, JSON] | None:
    status = json.loads(stage.coord("status", "--json"))
    return dict(status) if status["supervisor"]["guards"] else None


def without_sandbox(stage: Stage, directory: Path) -> None:
    """A machine on which bubblewrap fails, as it does where user namespaces are forbidden."""
    (directory / "bin").mkdir()
    (directory / "bin" / "bwrap").write_text("#!/bin/sh\necho no namespaces; exit 1\n")
    (directory / "bin" / "bwrap").chmod(0o755)
    stage.environment["PATH"] = f"{directory / 'bin'}:{stage.environment['PATH']}"


def test_a_required_sandbox_that_does_not_work_lets_no_gate_run(make: Make, tmp_path: Path) -> None:
    """Tried once more, then a person is asked; the commit is not blamed."""
    ran = tmp_path / "ran"
    stage = make(
        agents={"backend": "scripted", "sandbox": "require"}, gates={"default": ["t"], "t": ["touch", str(ran)]}
    )
    without_sandbox(stage, tmp_path)
    drop(stage, attempts_max=3)
    stage.run(code=1)
    shown = stage.show("T")
    assert (shown["state"], shown["attempts"]) == ("waiting_for_person", 0)
    assert [run["outcome"]["code"] for run in shown["runs"]][1:] == ["Unsuitable", "Unsuitable"]
    assert "install bubblewrap" in shown["reason"]
    assert not ran.exists()


def test_a_set_up_that_was_killed_is_done_again(make: Make, oracle: Oracle) -> None:
    """Half of it is not taken for the whole."""
    setup = {"commands": [[*oracle.gate["command"]]], "network": True}
    stage = make(setup=setup, gates={"default": ["ok"], "ok": ["true"]})
    oracle.hanging.clear()
    drop(stage, attempts_max=3)
    supervisor = stage.start("--once")
    stage.wait_for(lambda: oracle.asked, "set-up that hangs")
    assert stage.kill_worker("T.1.work")
    oracle.hanging.set()
    assert supervisor.wait(60) == 0, stage.said()
    ended = {event["run"]: event["outcome"]["ending"] for event in stage.events("RunEnded")}
    assert ended == {
        "T.1.work": "crashed",
        "T.2.work": "succeeded",
        "T.3.gate": "succeeded",
        "T.4.landing": "succeeded",
    }
    assert oracle.asked == 3, "the killed one, the one after it, and before the gate; the landing took its word"
