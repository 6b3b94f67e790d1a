"""Are people told what happened, by a real supervisor, whoever they listen with?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from coordination import locks
from coordination.cli import run

KEY = "sk-ant-this-is-a-secret"
SETTINGS = """
[git]
target = "main"
[agents]
backend = "scripted"
[gates]
default = ["there"]
there = ["test", "-e", "README.md"]
[supervisor]
poll_seconds = 0.1
[limits]
attempts_max = 1
[notify]
events = ["needs_person", "parked", "merged", "done", "failed", "all_done"]
wait_seconds = 0.1
"""


class Receiver(ThreadingHTTPServer):
    """Takes messages; answers the first ones with these statuses, -1 being no answer at all."""

    daemon_threads = True

    def __init__(self, statuses: list[int]) -> None:
        self.statuses, self.messages, self.requests = statuses, list[dict[str, Any]](), 0
        self.released = threading.Event()
        super().__init__(("127.0.0.1", 0), _Taking)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook/token-in-the-path"


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        server.requests += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = server.statuses.pop(0) if server.statuses else 204
        if status == -1:
            server.released.wait(50)
            return
        if status < 300:
            server.messages.append(body)
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", server.url)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def receiver(*statuses: int) -> Iterator[Receiver]:
    server = Receiver(list(statuses))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def until(condition: Callable[[], Any], timeout_seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + timeout_seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


class Place:
    """A prepared repository."""

    def __init__(self, root: Path) -> None:
        self.root, self.state = root, root / ".coordination"
        assert run(["-C", str(root), "init"]) == 0

    def configure(self, notify: str) -> None:
        (self.state / "coordination.toml").write_text(SETTINGS + notify)

    def submit(self, task: str, kind: str = "implement", **actions: Any) -> None:
        prompt = f"Do as told\n```script\n{json.dumps(actions)}\n```\n"
        assert run(["-C", str(self.root), "submit", prompt, "--id", task, "--title", task, "--kind", kind]) == 0

    def process(self, *arguments: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "-P", "-m", "coordination", "-C", str(self.root), *arguments]
        environment = {**os.environ, "ANTHROPIC_API_KEY": KEY}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(argv, env=environment, text=True, **streams)  # type: ignore[call-overload,no-any-return]

    def finished(self, *arguments: str, code: int = 0) -> str:
        with self.process(*arguments) as process:
            out, told = process.communicate(timeout=50)
        assert process.returncode == code, out + told
        return str(out + told)

    @property
    def log(self) -> str:
        path = self.state / "notify.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def place(repository: Path) -> Place:
    return Place(repository)


def of(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["kind"], row["task"]) for message in messages for row in message["notices"]]


def test_a_supervisor_tells_what_happened(place: Place) -> None:
    """By webhook and by command, all of it once, although the receiver failed at first; no key, no escape."""
    taken = place.root.parent / "taken.jsonl"
    listener = (
        "import os, sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10)); "
        "assert 'ANTHROPIC_API_KEY' not in os.environ"
    )
    with receiver(500) as server:
        command = json.dumps([sys.executable, "-c", listener, str(taken)])
        place.configure(f'webhook = "{server.url}"\ncommand = {command}\n')
        place.submit("good", write={"new.txt": "new\n"})
        place.submit("seen", "search", report="It is there.")
        place.submit("bad", ending="failed", reason=f"no luck with {KEY} \x1b[31mred")
        place.finished("start", "--once", code=1)
        expected = [("all_done", ""), ("done", "seen"), ("failed", "bad"), ("merged", "good")]
        assert sorted(of(server.messages)) == expected
        assert server.requests == len(server.messages) + 1
        lines = [json.loads(line) for line in taken.read_text().splitlines()]
        assert sorted(of(lines)) == expected
        text = "\n".join(message["text"] for message in server.messages)
        assert f"{place.root.name}: bad failed" in text
        assert "no luck with [redacted]" in text
        assert KEY not in json.dumps(server.messages) + taken.read_text()
        assert "\x1b" not in text
        place.submit("later", "search", report="There.")
        place.finished("start", "--once", code=1)
        assert sorted(of(server.messages))[1:4] == [("all_done", ""), ("done", "later"), ("done", "seen")]


def test_who_does_not_answer_holds_up_nothing(place: Place) -> None:
    """The work is done meanwhile; what never arrives is complained of, without the address."""
    with receiver(*[-1] * 9) as server:
        place.configure(f'webhook = "{server.url}"\n')
        place.submit("good", write={"new.txt": "new\n"})
        place.submit("next", write={"next.txt": "new\n"})
        with place.process("start", "--once") as process:
            until(lambda: server.requests)
            shown = until(lambda: "2 merged" in place.finished("status"))
            assert shown
            server.released.set()
            assert process.wait(50) == 0
    place.configure('command = ["false"]\nretries_max = 0\n')
    place.submit("seen", "search", report="There.")
    place.finished("start", "--once")
    assert "[notify] command: a message did not arrive: it exited with 1" in place.log
    assert "token-in-the-path" not in place.log


def test_what_was_not_told_when_everything_was_killed_is_told_later(place: Place) -> None:
    """The supervisor is killed, and the process that tells ends with it; so is that; the next one tells."""
    with receiver(*[500] * 4) as server:
        place.configure(f'webhook = "{server.url}"\n')
        place.submit("good", write={"new.txt": "new\n"})
        lock = place.state / "locks" / "notifier.lock"
        with place.process("start", "--foreground") as process:
            until(lambda: server.requests >= 1)
            teller = locks.holder(lock)
            assert teller is not None
            psutil.Process(teller.pid).kill()
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        until(lambda: not locks.held(lock))
        server.statuses.clear()
        assert server.messages == []
        place.finished("start", "--once")
        assert ("merged", "good") in of(server.messages)
        with place.process("start", "--foreground") as process:
            until(lambda: locks.held(lock))
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)
        until(lambda: not locks.held(lock))


def test_the_death_of_a_worker_is_not_the_death_of_who_tells_of_it(place: Place) -> None:
    """What a dead worker leaves is killed; the process that tells is nobody's orphan, and tells."""
    with receiver() as server:
        place.configure(f'webhook = "{server.url}"\n')
        place.submit("long", write={"new.txt": "new\n"}, sleep_seconds=50)
        teller, worker = place.state / "locks" / "notifier.lock", place.state / "runs" / "long.1.work" / "worker.lock"
        with place.process("start", "--foreground") as process:
            try:
                telling = until(lambda: locks.holder(teller) if locks.held(teller) else None)
                working = until(lambda: locks.holder(worker) if worker.exists() and locks.held(worker) else None)
                psutil.Process(working.pid).kill()
                until(lambda: '"crashed"' in place.finished("show", "long.1.work", "--json"))
                place.submit("next", "search", report="There.")
                until(lambda: ("done", "next") in of(server.messages))
                assert locks.holder(teller) == telling
                assert locks.held(teller)
                assert psutil.pid_exists(telling.pid)
            finally:
                place.finished("stop", "--force")
                process.communicate(timeout=30)


def test_one_message_can_be_tried(place: Place) -> None:
    """--test says whether it arrived; without anybody to tell, or of the wrong form, it is refused."""
    assert "names neither a command nor a webhook" in place.finished("notify", "--test", code=4)
    with receiver(204, 404, 302) as server:
        place.configure(f'webhook = "{server.url}"\n')
        assert place.finished("notify", "--test") == "It arrived.\n"
        assert "only a test" in server.messages[0]["text"]
        assert "HTTP status 404" in place.finished("notify", "--test", code=1)
        assert "HTTP status 302" in place.finished("notify", "--test", code=1)
        assert server.requests == 3
    place.configure('webhook = "http://127.0.0.1:9/"\n')
    assert "refused" in place.finished("notify", "--test", code=1)
    for wrong, said in (
        ('webhook = "file:///etc/passwd"', "notify.webhook"),
        ('command = "notify-send"', "notify.command"),
        ('events = ["mergd"]', "notify.events"),
    ):
        (place.state / "coordination.toml").write_text(f"[notify]\n{wrong}\n")
        assert said in place.finished("notify", "--test", code=2)


def test_nobody_to_tell_starts_nothing(place: Place) -> None:
    """Without [notify] there is no process, and what happened meanwhile is not told later."""
    place.configure("")
    (place.state / "notified.json").write_text('{"log": "x", "seq": 1}')
    place.submit("seen", "search", report="There.")
    place.finished("start", "--once")
    assert not (place.state / "notify.log").exists()
    assert not (place.state / "notified.json").exists()
