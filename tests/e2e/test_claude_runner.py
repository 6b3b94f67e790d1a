"""The real Claude Code under our backend: fenced, limited, killed, resumed, sandboxed. The model is scripted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordination.agents import Progress
from coordination.agents.claude import create, find_binary, sandbox_works
from coordination.agents.claude.session import Session
from coordination.model.runs import AgentRequest, Ending, Limits, Outcome
from coordination.rehearsal.model_server import Asked, ModelServer

pytestmark = pytest.mark.e2e

PATH = "/usr/local/bin:/usr/bin:/bin"
needs_sandbox = pytest.mark.skipif(not sandbox_works(PATH), reason="no working bubblewrap and socat here")


def call(name: str, **arguments: Any) -> list[Any]:
    return [{"type": "tool_use", "name": name, "input": arguments}]


def say(text: str) -> list[Any]:
    return [{"type": "text", "text": text}]


def bash(command: str) -> list[Any]:
    return call("Bash", command=command, description="tries it")


class Bench:
    """A workspace, a scripted model, and a request that joins them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.workspace = directory / "workspace"
        self.run_directory = directory / "run"
        self.config_directory = directory / "config"
        for name in ("workspace", "run", "config", "home"):
            (directory / name).mkdir()
        self.asked: list[Asked] = []
        self.seen: list[Mapping[str, Any]] = []
        self.waiting_for_model: Callable[[], bool] = lambda: False

    def run(
        self,
        steps: Sequence[Any],
        *,
        options: Mapping[str, Any] | None = None,
        stopping: Callable[[], str] = lambda: "",
        variables: Mapping[str, str] | None = None,
        commands: bool = False,
        progress: Progress | None = None,
        **fields: Any,
    ) -> Outcome:
        """Play the steps to one run."""
        chosen = {"binary": find_binary("", ""), "retries_max": 0, "stop_grace_seconds": 0.5, **(options or {})}
        with ModelServer({"s": steps}) as server:
            self.waiting_for_model = lambda: bool(server.requests)
            request = self.request(server.url, variables or {}, {"shell": commands, **fields})
            outcome = create(chosen).run(request, progress=progress or self.seen.append, stopping=stopping)
            self.asked = server.requests
        return outcome

    def request(self, url: str, variables: Mapping[str, str], fields: Mapping[str, Any]) -> AgentRequest:
        own = {"HOME": str(self.directory / "home"), "PATH": PATH, "COORDINATION_RUN": "T.1.work"}
        service = {"ANTHROPIC_API_KEY": "made-up", "ANTHROPIC_BASE_URL": url}
        blank: dict[str, Any] = {
            "run": "T.1.work",
            "task": "T",
            "role": "green",
            "backend": "claude",
            "prompt": "[[script s]] Please.",
            "instructions": "You are Green.",
            "model": "sonnet",
            "writes": True,
            "limits": Limits(timeout_seconds=30.0),
            "session": str(uuid.uuid4()),
            "directory": str(self.workspace),
            "run_directory": str(self.run_directory),
            "config_directory": str(self.config_directory),
            "environment": {**own, **service, **variables},
        }
        return AgentRequest(**{**blank, **fields})

    def results(self) -> list[tuple[bool, str]]:
        """Whether each tool call failed, and what came of it."""
        lines = (self.run_directory / "transcript.jsonl").read_text().splitlines()
        users = [message for line in lines if (message := json.loads(line))["type"] == "user"]
        blocks = [block for user in users for block in user["message"]["content"] if block["type"] == "tool_result"]
        return [(bool(block.get("is_error")), str(block["content"])) for block in blocks]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# What it is told, and what it costs


def test_the_agent_gets_its_role_its_tools_and_nothing_of_the_repository(bench: Bench) -> None:
    """Role text and prompt reach the model; hooks and servers of the repository do not start."""
    (bench.workspace / ".claude").mkdir()
    hook = {"hooks": [{"type": "command", "command": f"touch {bench.directory}/hooked"}]}
    (bench.workspace / ".claude/settings.json").write_text(json.dumps({"hooks": {"SessionStart": [hook]}}))
    prompt = "/clear [[script s]] @/etc/passwd"
    outcome = bench.run([say("hello")], prompt=prompt)
    assert (outcome.ending, outcome.report) == (Ending.SUCCEEDED, "hello")
    asked = bench.asked[0]
    assert "You are Green." in asked.system
    assert asked.prompt.endswith(prompt)
    assert "root:" not in json.dumps(asked.body)
    assert "coordination-settings" not in json.dumps(asked.body)
    assert {"Read", "Grep", "Glob", "Write", "Edit", "NotebookEdit"} <= set(asked.tools)
    assert not {"Bash", "Agent", "SendMessage", "ListAgents"} & set(asked.tools)
    assert not (bench.directory / "hooked").exists()


def test_a_resumed_session_costs_only_its_own_and_hears_the_new_role(bench: Bench) -> None:
    """The bill of a second run does not contain the first one's, and its role text counts."""
    usage = {"usage": {"input_tokens": 1000, "output_tokens": 100}}
    first = bench.run([[*say("one"), usage]])
    second = bench.run([[*say("two"), usage]], session=first.session, resume=True, instructions="You are Red.")
    assert bench.asked[0].messages > 2
    assert "You are Red." in bench.asked[0].system
    assert "You are Green." not in bench.asked[0].system
    assert (second.report, second.session) == ("two", first.session)
    assert second.usage == first.usage
    assert first.usage.cost_usd == pytest.approx(0.003)
    assert (first.usage.input_tokens, first.usage.output_tokens, first.usage.turns) == (1000, 100, 1)
    assert not first.usage.estimated


def test_a_session_that_never_began_is_begun(bench: Bench) -> None:
    """A run killed before its first word can be resumed all the same, under the same session."""
    session = str(uuid.uuid4())
    outcome = bench.run([say("hello")], session=session, resume=True)
    assert (outcome.ending, outcome.session) == (Ending.SUCCEEDED, session)


# Fence


def test_what_may_not_be_read_is_not_read(bench: Bench) -> None:
    """A workspace inside a denied directory stays readable; what lies beside it does not, whatever the tool."""
    secret = bench.directory / "secret.txt"
    secret.write_text("the secret")
    (bench.workspace / "mine.txt").write_text("the text")
    (bench.workspace / "link").symlink_to(secret)
    steps = [
        call("Read", file_path="{cwd}/mine.txt"),
        call("Read", file_path=str(secret)),
        call("Read", file_path="{cwd}/link"),
        call("Grep", pattern="secret", path=str(bench.directory), output_mode="content"),
        call("Glob", pattern=f"{bench.directory}/*.txt"),
        say("done"),
    ]
    outcome = bench.run(steps, deny_read=(str(bench.directory),))
    allowed, *refused = bench.results()
    assert "the text" in allowed[1]
    assert all(failed and "is not to be read" in said for failed, said in refused), refused
    assert len(outcome.denials) == len(refused) == 4


def test_an_answer_of_the_fence_that_comes_too_late_is_a_no(bench: Bench) -> None:
    """While nobody answers, the tool does not run; the program gives up waiting and blocks it."""
    busy = threading.Event()

    def stall(now: Mapping[str, Any]) -> None:
        if now["tool"] == "Write" and not busy.is_set():
            busy.wait(2.5)
            busy.set()

    steps = [call("Write", file_path="{cwd}/late.txt", content="x"), say("done")]
    outcome = bench.run(steps, options={"fence_seconds": 1}, progress=stall)
    assert outcome.ending is Ending.SUCCEEDED
    assert not (bench.workspace / "late.txt").exists()
    assert bench.results()[0][0]


def test_an_answer_of_the_fence_that_makes_no_sense_is_a_no(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours closes the fence instead of opening it."""
    monkeypatch.setattr(Session, "_judged", lambda *_: {"hookSpecificOutput": 7})
    bench.run([call("Write", file_path="{cwd}/open.txt", content="x"), say("done")])
    assert not (bench.workspace / "open.txt").exists()


# Endings


@pytest.mark.parametrize(
    ("error", "ending", "code"),
    [
        ({"status": 401, "type": "authentication_error", "message": "no"}, Ending.LIMITED, "authentication_error"),
        ({"status": 400, "type": "invalid_request_error", "message": "no"}, Ending.FAILED, "invalid_request_error"),
        ({"status": 500, "type": "api_error", "message": "no"}, Ending.FAILED, "api_error"),
        ({"status": 429, "type": "rate_limit_error", "message": "no"}, Ending.LIMITED, "rate_limit_error"),
        ({"status": 529, "type": "overloaded_error", "message": "no"}, Ending.LIMITED, "overloaded_error"),
    ],
    ids=lambda value: str(value["status"]) if isinstance(value, dict) else "",
)
def test_an_error_of_the_service_is_told_apart(bench: Bench, error: Any, ending: Ending, code: str) -> None:
    """Weather is not failure, and neither is success, although the program calls all of them success."""
    outcome = bench.run([error])
    assert (outcome.ending, outcome.code) == (ending, code)
    assert outcome.reason


def test_a_usage_limit_says_when_it_ends(bench: Bench) -> None:
    """A rejected subscription window parks the task until the instant the service named."""
    resets_at = int(time.time()) + 3600
    headers = {
        "anthropic-ratelimit-unified-status": "rejected",
        "anthropic-ratelimit-unified-reset": str(resets_at),
        "anthropic-ratelimit-unified-representative-claim": "five_hour",
    }
    error = {"status": 429, "type": "rate_limit_error", "message": "limit", "headers": headers}
    token = {"CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-made-up", "ANTHROPIC_API_KEY": ""}
    outcome = bench.run([error], variables=token)
    assert (outcome.ending, outcome.code, outcome.resets_at) == (Ending.LIMITED, "usage_limit_reached", resets_at)


def test_talk_about_limits_is_no_limit(bench: Bench) -> None:
    """An agent that writes about rate limits has succeeded."""
    outcome = bench.run([say("API Error: 429 rate_limit_error. You've hit your 5-hour limit")])
    assert outcome.ending is Ending.SUCCEEDED


@pytest.mark.parametrize(
    ("limits", "code"),
    [(Limits(turns_max=1), "max_turns"), (Limits(budget_usd=0.000001), "budget_exhausted")],
)
def test_a_limit_of_the_run_ends_it_as_failed(bench: Bench, limits: Limits, code: str) -> None:
    """Turns and money are limits the program itself keeps."""
    outcome = bench.run([call("Read", file_path="{cwd}/x")] * 5, limits=limits)
    assert (outcome.ending, outcome.code) == (Ending.FAILED, code)
    assert outcome.usage.cost_usd > 0


def test_a_killed_program_is_a_crash_of_unknown_cost(bench: Bench) -> None:
    """After SIGKILL there is no result; the outcome says so and prices what was heard."""

    def kill_when_asked_twice() -> str:
        if len(bench.seen) > 0 and bench.waiting_for_model():
            only_child().kill()
        return ""

    outcome = bench.run([call("Glob", pattern="*"), [{"hang": True}]], stopping=kill_when_asked_twice)
    assert (outcome.ending, outcome.code) == (Ending.CRASHED, "signal:9")
    assert outcome.usage.estimated
    assert outcome.usage.cost_usd > 0


def test_a_program_that_no_signal_but_kill_reaches_is_killed(bench: Bench) -> None:
    """Stopped by SIGSTOP it neither hears the interrupt nor obeys SIGTERM; the ladder's last step works."""

    def freeze_then_ask() -> str:
        if not bench.waiting_for_model():
            return ""
        only_child().suspend()
        return "ask"

    outcome = bench.run([[{"hang": True}]], stopping=freeze_then_ask, options={"stop_grace_seconds": 0.2})
    assert (outcome.ending, outcome.code) == (Ending.STOPPED, "stopped")
    assert children() == []


def test_dropped_settings_are_noticed_before_anything_is_asked(bench: Bench, tmp_path: Path) -> None:
    """The program drops all settings when it dislikes one; without our canary the prompt is never sent."""
    program = executable(
        tmp_path / "spoiled",
        f"""
        arguments = sys.argv[1:]
        where = arguments.index("--settings") + 1
        arguments[where] = json.dumps(json.loads(arguments[where]) | {{"permissions": []}})
        os.execv({find_binary("", "")!r}, ["claude", *arguments])
        """,
    )
    outcome = bench.run([say("hello")], options={"binary": program, "canary_seconds": 0.3})
    assert (outcome.ending, outcome.code) == (Ending.FAILED, "settings_not_applied")
    assert bench.asked == []
    assert not outcome.usage.estimated


# Shell and sandbox


@pytest.fixture
def repository(bench: Bench) -> Path:
    """Replace the workspace by a worktree inside a state directory inside a repository."""
    repository = bench.directory / "repository"
    state = repository / ".coordination"
    git("init", "--quiet", "--initial-branch=main", str(repository))
    (repository / "file.txt").write_text("text\n")
    (repository / ".git/info/exclude").write_text(".coordination\n")
    git("-C", str(repository), "add", ".")
    git("-C", str(repository), "commit", "--quiet", "--message=begin")
    bench.workspace = state / "agent_workspaces/T"
    bench.run_directory = state / "runs/T.1.work"
    bench.config_directory = state / "sessions/T"
    bench.run_directory.mkdir(parents=True)
    git("-C", str(repository), "worktree", "add", "--quiet", "-b", "task", str(bench.workspace))
    (state / "secret.txt").write_text("the secret")
    return repository


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.invalid"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout


@needs_sandbox
def test_a_sandboxed_shell_works_in_the_workspace_and_nowhere_else(bench: Bench, repository: Path) -> None:
    """Commands write the workspace and their own temporary directory; git's own files, the state and the rest not."""
    state = repository / ".coordination"
    steps = [
        bash("echo made > made.txt; for each in a b; do echo $each; done; git log --oneline; echo $TMPDIR"),
        bash("touch $TMPDIR/temporary && echo temporary works"),
        bash(f"git update-ref refs/heads/other HEAD; touch {repository}/.git/evil {repository}/evil {state}/evil"),
        bash(f"cat {state}/secret.txt"),
        bash("echo x > .git"),
        bash("touch /var/tmp/coordination-evil ~/evil"),
        say("done"),
    ]
    denied = (str(repository / ".git"), str(state), str(bench.directory / "no such file"))
    outcome = bench.run(steps, commands=True, sandbox="require", deny_write=denied, deny_read=denied[1:])
    said = [text for _, text in bench.results()]
    assert outcome.ending is Ending.SUCCEEDED
    assert "b\n" in said[0]
    assert "begin" in said[0]
    assert re.search(r"/tmp/coordination-\w+/", said[0])
    assert "temporary works" in said[1]
    assert "the secret" not in said[3]
    assert (bench.workspace / "made.txt").read_text() == "made\n"
    assert git("-C", str(repository), "for-each-ref", "--format=%(refname)") == "refs/heads/main\nrefs/heads/task\n"
    evil = [repository / ".git/evil", repository / "evil", state / "evil", Path("/var/tmp/coordination-evil")]
    assert not [path for path in evil if path.exists()]
    assert not (bench.directory / "home/evil").exists()
    # and nothing of the sandbox itself is left in the tree
    assert git("-C", str(bench.workspace), "status", "--short") == "?? made.txt\n"


@needs_sandbox
def test_output_too_long_to_show_can_be_read_where_the_program_keeps_it(bench: Bench, repository: Path) -> None:
    """The state directory is closed, but not what the agent itself saw; commands and the reading tool get there."""
    state = repository / ".coordination"
    closed = (str(state / "runs"), str(state / "sessions"))
    kept = f"{bench.config_directory}/projects"
    session = str(uuid.uuid4())
    steps = [bash("seq 1 100000"), bash(f"tail -n 1 {kept}/*/{session}/tool-results/*; ls {closed[0]}"), say("done")]
    bench.run(steps, commands=True, session=session, deny_read=closed, deny_write=closed)
    assert "Output too large" in bench.results()[0][1]
    assert bench.results()[1][1].splitlines()[0] == "100000"
    assert "T.1.work" not in bench.results()[1][1]
    (file,) = Path(kept).glob("*/*/tool-results/*")
    bench.run([call("Read", file_path=str(file), limit=1), say("done")], session=session, deny_read=closed)
    failed, text = bench.results()[-1]
    assert not failed
    assert "1\t1" in text


@needs_sandbox
def test_a_shell_of_a_role_that_does_not_write_only_reads(bench: Bench, repository: Path) -> None:
    """Reading commands run; anything that could change the workspace is refused."""
    steps = [
        bash("git log --oneline"),
        bash("touch evil"),
        bash("echo x > file.txt"),
        bash("python3 -c 1"),
        say("done"),
    ]
    outcome = bench.run(steps, commands=True, writes=False, deny_write=(str(repository / ".git"),))
    allowed, *refused = bench.results()
    assert "begin" in allowed[1]
    assert all(failed for failed, _ in refused), refused
    assert len(outcome.denials) == 3
    assert git("-C", str(bench.workspace), "status", "--short") == ""


def test_without_a_sandbox_there_is_no_shell_unless_settings_say_so(bench: Bench) -> None:
    """The tool is not even offered; a person's word in the settings brings it back; ``require`` refuses to run."""
    bare = {"PATH": str(bench.directory)}
    bench.run([say("x")], commands=True, variables=bare)
    assert "Bash" not in bench.asked[0].tools
    outcome = bench.run([say("x")], commands=True, sandbox="require", variables=bare)
    assert (outcome.ending, outcome.code) == (Ending.FAILED, "unsuitable")
    bench.run(
        [bash("echo out > out.txt"), say("x")], commands=True, sandbox="off", options={"shell_without_sandbox": True}
    )
    assert (bench.workspace / "out.txt").read_text() == "out\n"


# Programs that misbehave in ways the real one cannot be made to on demand


def executable(path: Path, body: str) -> str:
    head = f"#!{sys.executable}\nimport json, os, signal, sys, time\n"
    path.write_text(head + textwrap.dedent(body))
    path.chmod(0o755)
    return str(path)


OBEDIENT = """
def tell(**message): sys.stdout.buffer.write(json.dumps(message).encode() + b"\\n"); sys.stdout.flush()
canary = json.loads(sys.argv[sys.argv.index("--settings") + 1])["hooks"]["SessionStart"][0]["hooks"][0]["command"]
asked = json.loads(sys.stdin.readline())
tell(type="system", subtype="hook_response", hook_event="SessionStart", stderr=canary)
tell(type="control_response", response={"subtype": "success", "request_id": asked["request_id"], "response": {}})
prompt = json.loads(sys.stdin.readline())
def end(**more): tell(type="result", is_error=False, terminal_reason="completed", result="the end", **more)
"""


def misbehaving(path: Path, body: str) -> str:
    return executable(path, OBEDIENT + textwrap.dedent(body))


def children() -> list[psutil.Process]:
    """Our children, but for the fork server that other tests of the same process may have started."""
    return [child for child in psutil.Process().children() if not serves_forks(child)]


def serves_forks(child: psutil.Process) -> bool:
    try:
        return "multiprocessing" in " ".join(child.cmdline())
    except psutil.ZombieProcess:  # dead and not yet collected: one of ours, whose words are gone
        return False


def only_child() -> psutil.Process:
    (child,) = children()
    return child


def test_a_program_that_never_exits_after_its_result_has_succeeded(bench: Bench, tmp_path: Path) -> None:
    """The result counts; the process is ended after a grace time, even if it ignores SIGTERM."""
    program = misbehaving(
        tmp_path / "lingers", "signal.signal(signal.SIGTERM, signal.SIG_IGN); end()\nwhile True: time.sleep(60)"
    )
    options = {"binary": program, "result_grace_seconds": 0.1, "stop_grace_seconds": 0.1}
    outcome = bench.run([], options=options)
    assert (outcome.ending, outcome.report) == (Ending.SUCCEEDED, "the end")
    assert children() == []


def test_a_silent_program_is_ended(bench: Bench, tmp_path: Path) -> None:
    """No output for too long ends the run as timed out, with its own code."""
    program = misbehaving(tmp_path / "silent", "while True: time.sleep(60)")
    outcome = bench.run([], options={"binary": program, "no_output_seconds": 0.3, "stop_grace_seconds": 0.1})
    assert (outcome.ending, outcome.code) == (Ending.TIMED_OUT, "no_output")


def test_a_program_that_never_answers_is_ended(bench: Bench, tmp_path: Path) -> None:
    """A start without a sign of life is a crash, not an endless wait."""
    program = executable(tmp_path / "mute", "time.sleep(60)")
    outcome = bench.run([], options={"binary": program, "start_seconds": 0.2, "stop_grace_seconds": 0.1})
    assert (outcome.ending, outcome.code) == (Ending.CRASHED, "no_start")


def test_noise_on_the_output_does_no_harm(bench: Bench, tmp_path: Path) -> None:
    """Invalid UTF-8, a line of five megabytes, deep nesting, unknown kinds and odd shapes are passed over."""
    program = misbehaving(
        tmp_path / "noisy",
        r"""
        out = sys.stdout.buffer
        for noise in (b"\xff\xfe{", b"[" * 100_000, b"", b"null", b"7", b'{"type": ["a"]}', b'{"type": "assistant"}'):
            out.write(noise + b"\n")
        tell(type="assistant", message={"id": 7, "content": "text", "usage": []})
        tell(type="assistant", message={"id": "a", "content": [7, {"type": "tool_use", "input": []}]})
        tell(type="rate_limit_event", rate_limit_info={"status": "allowed_warning", "resetsAt": "soon"})
        tell(type="system", subtype="unheard_of", text="x" * 5_000_000)
        end(model_usage_since_last_result={"m": 7, "n": {"costUSD": 0.5, "outputTokens": "many"}})
        out.write(b'{"type": "result", "is_err'); out.flush()
        """,
    )
    outcome = bench.run([], options={"binary": program})
    assert (outcome.ending, outcome.report, outcome.usage.cost_usd) == (Ending.SUCCEEDED, "the end", 0.5)


def test_death_in_the_middle_of_a_line_is_a_crash(bench: Bench, tmp_path: Path) -> None:
    """Half a result is none; the last words on stderr tell a person more."""
    program = misbehaving(
        tmp_path / "dies",
        """
        sys.stdout.write('{"type": "result", "is_error": false'); sys.stdout.flush()
        sys.exit("out of memory")
        """,
    )
    outcome = bench.run([], options={"binary": program})
    assert (outcome.ending, outcome.code) == (Ending.CRASHED, "exit:1")
    assert "out of memory" in outcome.reason


def test_what_is_left_of_the_programs_group_is_killed(bench: Bench, tmp_path: Path) -> None:
    """A child that outlives the program does not outlive the run."""
    child = tmp_path / "child"
    program = misbehaving(
        tmp_path / "parent",
        f"""
        pid = os.fork()
        if pid == 0:
            signal.pause()
        with open({str(child)!r}, "w") as file: file.write(str(pid))
        end()
        """,
    )
    outcome = bench.run([], options={"binary": program})
    assert outcome.ending is Ending.SUCCEEDED
    gone = psutil.wait_procs([psutil.Process(int(child.read_text()))], timeout=5)[0] if alive(child) else [child]
    assert len(gone) == 1


def alive(pid_file: Path) -> bool:
    pid = int(pid_file.read_text())
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_prompt_larger_than_a_pipe_is_delivered_whole(bench: Bench, tmp_path: Path) -> None:
    """256 KiB go through stdin without blocking us on a program that reads slowly."""
    program = misbehaving(tmp_path / "counts", 'end(); tell(type="noise", length=len(prompt["message"]["content"]))')
    outcome = bench.run([], options={"binary": program}, prompt="☃" * 100_000)
    transcript = (bench.run_directory / "transcript.jsonl").read_text()
    assert outcome.ending is Ending.SUCCEEDED
    assert '"length": 100000' in transcript


def test_a_program_that_cannot_be_started_is_a_failure(bench: Bench, tmp_path: Path) -> None:
    """A missing program, or one that is none, is reported with what to do, not raised."""
    missing = bench.run([], options={"binary": str(tmp_path / "nowhere")})
    assert (missing.ending, missing.code) == (Ending.FAILED, "unsuitable")
    (tmp_path / "text").write_bytes(b"\x00\x01")
    os.chmod(tmp_path / "text", 0o755)  # noqa: PTH101, S103
    broken = bench.run([], options={"binary": str(tmp_path / "text")})
    assert (broken.ending, broken.code) == (Ending.FAILED, "spawn_failed")


def test_what_the_program_asks_beyond_the_fence_is_refused(bench: Bench, tmp_path: Path) -> None:
    """A request nobody here answers gets an error at once instead of silence."""
    program = misbehaving(
        tmp_path / "asks",
        """
        tell(type="control_request", request_id="q", request={"subtype": "can_use_tool", "tool_name": "Write"})
        answer = json.loads(sys.stdin.readline())["response"]
        tell(type="control_request", request_id="h", request={"subtype": "hook_callback", "input": {}})
        hook = json.loads(sys.stdin.readline())["response"]
        decision = hook["response"]["hookSpecificOutput"]["permissionDecision"]
        end(structured_output=None); tell(type="noise", said=[answer["subtype"], decision])
        """,
    )
    bench.run([], options={"binary": program})
    assert '["error", "deny"]' in (bench.run_directory / "transcript.jsonl").read_text()


def test_the_ladder_interrupts_first(bench: Bench, tmp_path: Path) -> None:
    """A run that is asked to stop is asked in the program's own words before any signal is sent."""
    program = misbehaving(
        tmp_path / "polite",
        """
        signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        stop = json.loads(sys.stdin.readline())["request"]["subtype"]
        tell(type="result", is_error=True, subtype="error_during_execution", terminal_reason="aborted_tools", said=stop)
        """,
    )
    outcome = bench.run(
        [], options={"binary": program, "stop_grace_seconds": 10}, stopping=lambda: "ask" if prompted(bench) else ""
    )
    assert (outcome.ending, outcome.code) == (Ending.STOPPED, "stopped")
    assert '"said": "interrupt"' in (bench.run_directory / "transcript.jsonl").read_text()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def prompted(bench: Bench) -> bool:
    return "control_response" in (bench.run_directory / "transcript.jsonl").read_text()
