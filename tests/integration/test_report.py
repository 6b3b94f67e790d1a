"""Does ``coord report`` write a page that a real browser shows without asking anybody for anything?"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coordination.cli import run
from coordination.coordinator import locate
from coordination.log import file as file_log
from coordination.model.state import Core
from coordination.store import SnapshotDirectory, Store
from coordination.testing import histories

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
SETTINGS = """
[git]
target = "main"
[agents]
backend = "scripted"
[gates]
default = ["there"]
there = ["test", "-e", "README.md"]
[money]
day_usd = 2.0
[limits]
attempts_max = 1
"""


def script(**actions: Any) -> str:
    return f"Do as told\n```script\n{json.dumps(actions)}\n```\n"


class Coord:
    """``coord`` in one repository."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.state = root / ".coordination"
        self._capsys = capsys
        self.told = ""

    def __call__(self, *arguments: str, code: int = 0) -> str:
        self._capsys.readouterr()
        if arguments[0] == "start":  # a process of its own: it asks for the signals and the orphans of the one it is
            argv = [sys.executable, "-P", "-m", "coordination", "-C", str(self.root), *arguments]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            found, out, self.told = done.returncode, done.stdout, done.stderr
        else:
            found = run(["-C", str(self.root), *arguments])
            out, self.told = self._capsys.readouterr()
        assert found == code, f"coord {arguments} exited {found}: {out}{self.told}"
        assert "Traceback" not in self.told
        return out

    def submit(self, task: str, prompt: str, title: str, kind: str = "implement") -> None:
        self("submit", prompt, "--id", task, "--title", title, "--kind", kind)


@pytest.fixture
def coord(repository: Path, capsys: pytest.CaptureFixture[str]) -> Coord:
    """A prepared repository."""
    made = Coord(repository, capsys)
    made("init")
    (made.state / "coordination.toml").write_text(SETTINGS)
    return made


def test_what_a_real_supervisor_did_is_on_the_page(coord: Coord) -> None:
    """Merged, answered, failed: the numbers of the report are those of status, and git sees nothing of it."""
    coord.submit("good", script(write={"new.txt": "new\n"}, cost_usd=0.25, report="done"), "Write a file")
    coord.submit("seen", script(report="It is there.", cost_usd=0.125), "Look", kind="search")
    coord.submit("bad", script(ending="failed", reason="no luck", cost_usd=0.0625), "Fail")
    coord("start", "--foreground", "--once", code=1)
    status, found = json.loads(coord("status", "--json")), json.loads(coord("report", "--json"))
    assert {key: found["status"][key] for key in found["status"]} == {key: status[key] for key in found["status"]}
    assert found["totals"]["spent_usd"] == status["cost_usd"] > 0
    assert found["landed"]["merged"]["tasks"] == 1
    (landed,) = found["landed"]["merged"]["rows"]
    assert landed["merge"] == json.loads(coord("show", "good", "--json"))["merge"]
    assert found["landed"]["done"]["rows"][0]["task"] == "seen"
    assert not (coord.state / "reports").exists()
    path = Path(coord("report").strip())
    assert path.parent == coord.state / "reports"
    assert landed["merge"][:12] in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    seen = subprocess.run(["git", "status", "--porcelain"], cwd=coord.root, capture_output=True, check=True, timeout=30)
    assert seen.stdout == b""


def test_the_page_goes_where_it_is_asked_to_and_replaces_what_was_there(coord: Coord, tmp_path: Path) -> None:
    """--out names a file; with --json both are made; what cannot be written is refused and leaves nothing."""
    page = tmp_path / "night.html"
    page.write_text("an older one")
    assert coord("report", "--out", str(page)).strip() == str(page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    page.unlink()
    assert json.loads(coord("report", "--json", "--out", str(page)))["path"] == str(page)
    assert page.exists()
    coord("report", "--out", str(tmp_path), code=2)
    coord("report", "--out", str(tmp_path / "nowhere" / "x.html"), code=4)
    assert "No such file or directory" in coord.told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["night.html", coord.root.name]


@pytest.mark.parametrize(
    ("since", "code", "said"),
    [
        *((since, 0, "") for since in ("0", "1", "24h", "1d12h30m", "90s", "2020-01-31", "2020-01-31T12:00:00Z")),
        ("2", 3, "the log ends at batch 1"),
        ("tomorrow", 2, "found 'tomorrow'"),
        ("2h5", 2, "a duration (24h, 1d12h)"),
        ("", 2, "found ''"),
        ("-5", 2, "found '-5'"),
        ("٣", 2, "expected a batch"),
        ("9" * 40, 2, "expected a batch"),
        ("2999-01-01T00:00:00Z", 2, "lies ahead"),
        ("0001-01-01T00:00:00", 2, "expected a batch"),
    ],
)
def test_since_is_a_batch_a_time_or_a_duration(coord: Coord, since: str, code: int, said: str) -> None:
    """Each form is taken, and anything else is refused with what is expected."""
    coord.submit("one", "Do it", "It")
    out = coord("report", "--json", "--since", since, code=code)
    assert said in coord.told
    if not code:
        assert json.loads(out)["totals"]["submitted"] == (0 if since == "1" else 1)


def test_a_damaged_log_is_no_report(coord: Coord) -> None:
    """Exit code 5 and no page, as for every other reader."""
    for number in range(3):
        coord.submit(f"task{number}", "Do it", "It")
    (segment,) = (coord.state / "log").glob("*.jsonl")
    data = segment.read_bytes()
    at = data.index(b"task1")
    segment.write_bytes(data[:at] + b"tusk1" + data[at + 5 :])
    coord("report", code=5)
    assert "coord repair" in coord.told
    assert not (coord.state / "reports").exists()


def test_settings_that_cannot_be_read_are_told(coord: Coord) -> None:
    """Caps and slots come from there: exit code 2, and which key."""
    (coord.state / "coordination.toml").write_text("[monny]\n")
    coord("report", code=2)
    assert "monny" in coord.told


def test_a_key_that_an_agent_wrote_down_is_not_passed_on(
    coord: Coord, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the keys that are set here no value stands on the page."""
    coord.submit("leaky", script(ending="failed", reason="tried sk-ant-a-real-key"), "sk-ant-a-real-key in the title")
    coord("start", "--foreground", "--once", code=1)
    assert "sk-ant-a-real-key" in json.loads(coord("show", "leaky", "--json"))["title"]
    coord("report", "--out", str(tmp_path / "before.html"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-a-real-key")
    coord("report", "--out", str(tmp_path / "after.html"))
    assert "sk-ant-a-real-key" in (tmp_path / "before.html").read_text()
    assert "sk-ant-a-real-key" not in (tmp_path / "after.html").read_text()
    assert "[redacted] in the title" in (tmp_path / "after.html").read_text()


def test_what_was_taken_away_is_said(coord: Coord) -> None:
    """Of a log whose oldest segments were moved away the rest is shown, from the snapshot that stands for them."""
    home = locate(coord.root)
    log = file_log.FileLog(home.log, segment_bytes=1)  # every batch begins a segment
    snapshots = SnapshotDirectory(home.state / "snapshots")
    store = Store(log, Core(), snapshots, now=lambda: histories.EPOCH)
    for number, (_, batch) in enumerate(histories.batches(60, 6)):
        store.transact(lambda _, batch=batch: batch)  # type: ignore[misc]
        if number == 20:
            store.snapshot()
    whole = json.loads(coord("report", "--json"))
    for segment in sorted(home.log.glob("*.jsonl"))[:15]:
        segment.unlink()
    found = json.loads(coord("report", "--json"))
    assert found["window"]["taken_away"] == 21
    assert found["status"] == whole["status"]
    assert found["totals"]["submitted"] < whole["totals"]["submitted"] == 6
    page = Path(coord("report").strip()).read_text()
    assert "The log up to batch 21 was taken away" in page


# ---- in a browser ----------------------------------------------------------------------------------------------------


class Lure(ThreadingHTTPServer):
    """Notes everybody who comes."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Noting)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Noting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Lure)
        self.server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def lure() -> Iterator[Lure]:
    server = Lure()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def opened(page: Path, directory: Path) -> tuple[str, set[str], str]:
    """What a browser makes of a page: its tree, what it asked for over a network, and what it complained about."""
    netlog = directory / "net.json"
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *(
            f"--user-data-dir={directory / 'profile'}",
            f"--log-net-log={netlog}",
            "--enable-logging=stderr",
            "--dump-dom",
        ),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=55)
    events = json.loads(netlog.read_text())["events"]
    urls = {str(event.get("params", {}).get("url", "")) for event in events if "params" in event}
    return done.stdout, {url for url in urls if url.startswith("http://127.0.0.1")}, done.stderr


@pytest.mark.skipif(not BROWSER, reason="no Chromium here to open the page with")
def test_a_browser_asks_nobody_for_anything(coord: Coord, tmp_path: Path) -> None:
    """With hostile titles, reasons and findings: no request, no complaint about our own style, nothing run."""
    with lure() as server:
        url = server.url
        evil = (
            f"</title><img src={url}/i><script src={url}/j></script><link rel=stylesheet href={url}><iframe src={url}>"
        )
        coord.submit("evil", script(ending="failed", code="refusal", reason=evil, cost_usd=0.5), evil[:200])
        coord("start", "--foreground", "--once", code=1)
        page = Path(coord("report").strip())
        tree, asked, complaints = opened(page, tmp_path)
        assert (server.asked, asked) == ([], set())
        assert "Content Security Policy" not in complaints
        assert "<script" not in tree
        assert "<img" not in tree
        assert "&lt;img src=" in tree
        control = tmp_path / "control.html"
        control.write_text(f"<!DOCTYPE html><img src={url}/control>")
        opened(control, tmp_path)
        assert server.asked == ["/control"]
