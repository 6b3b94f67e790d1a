"""Attacks by the code that gates run: each works in a plain run, so that it is one, and none works in the sandbox."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordination import sandbox, worker
from coordination.coordinator import Coordinator
from coordination.errors import Unsuitable
from coordination.model.runs import (
    GateCommand,
    GateResult,
    Limits,
    Purpose,
    RunRequest,
    SandboxRequest,
    WorkspaceRequest,
)
from coordination.supervisor import requests
from coordination.testing.stage import Stage

needs_sandbox = pytest.mark.skipif(not sandbox.find(os.environ["PATH"]), reason="bubblewrap does not work here")

KEY = "private key of a user who sleeps"


class House:
    """A repository with coordination, a user's home with a key in it, and the checkout of a gate."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch) -> None:
        self.stage = stage
        # within the repository: what lies in /tmp is not seen anyway, and would prove nothing
        self.home = stage.repository / "home"
        (stage.repository / ".git" / "hooks").mkdir()
        (self.home / ".ssh").mkdir(parents=True)
        (self.home / ".ssh" / "id").write_text(KEY)
        (self.home / ".netrc").write_text(KEY)
        (self.home / "notes").write_text("no secret")
        patch.setenv("HOME", str(self.home))
        patch.setenv("ANTHROPIC_API_KEY", KEY)
        self.coordinator = Coordinator(stage.home)
        self.commit = stage.git("rev-parse", "HEAD").strip()
        other = WorkspaceRequest(name="B", commit=self.commit)
        self.other = self.coordinator.workspaces.ensure(other)
        self.checkout = self.coordinator.workspaces.ensure(WorkspaceRequest(name="A.2.gate", commit=self.commit))
        self.runs = 0

    def gate(self, program: str, *, plain: bool = False, network: bool = False) -> GateResult:
        """Run a program of Python as a gate, as a worker does."""
        self.runs += 1
        run = f"A.{self.runs}.gate"
        request = RunRequest(
            run=run,
            task="A",
            purpose=Purpose.GATE,
            token=1,
            repository=str(self.coordinator.home.repository.common),
            state_directory=str(self.stage.state),
            workspace=WorkspaceRequest(name="A.2.gate", commit=self.commit),
            limits=Limits(),
            sandbox=SandboxRequest() if plain else requests._sandbox(self.coordinator),
        )
        directory = self.stage.state / "runs" / run
        directory.mkdir(parents=True)
        one = worker._Run(request, directory, worker.Stop(directory / "stop.json"))
        command = GateCommand(name="attack", argv=(sys.executable, "-c", program), network=network, timeout_seconds=30)
        return one._run_gate(command, self.checkout, self.commit)


ALLOW = """
for place in ("/", ROOT, ROOT + "/.git"):
    subprocess.run(["mount", "-o", "remount,rw,bind", place], capture_output=True)
subprocess.run(["umount", "-l", ROOT + "/.coordination"], capture_output=True)
subprocess.run(["umount", "-l", ROOT + "/home/.ssh"], capture_output=True)
"""


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, House]]:
    """One that is attacked from within the sandbox, and another one where the same attacks do their harm."""
    with pytest.MonkeyPatch.context() as patch:
        yield {name: House(Stage(tmp_path_factory.mktemp(name)).build(), patch) for name in ("plain", "guarded")}


@pytest.fixture
def house(houses: dict[str, House]) -> House:
    return houses["guarded"]


WRITE = "open(ROOT + {path!r}, 'a').write('# x')"
ATTACKS = {
    "plants a hook": WRITE.format(path="/.git/hooks/post-checkout"),
    "changes git's configuration": WRITE.format(path="/.git/config"),
    "makes a branch": "open(ROOT + '/.git/refs/heads/other', 'w').write(COMMIT)",
    "writes into the user's checkout": WRITE.format(path="/greeter.py"),
    "drops a task": WRITE.format(path="/.coordination/inbox/t.json"),
    "writes to the log": WRITE.format(path="/.coordination/log/00000000000000000001.jsonl"),
    "remembers a pass": WRITE.format(path="/.coordination/cache/x.json"),
    "changes another's workspace": WRITE.format(path="/.coordination/agent_workspaces/B/greeter.py"),
    "reads the log": "assert os.listdir(ROOT + '/.coordination/log')",
    "reads the settings": "open(ROOT + '/.coordination/coordination.toml').read()",
    "changes the kernel's settings": "p = '/proc/sys/kernel/core_pattern'; v = open(p).read(); open(p, 'w').write(v)",
    "reads a key": "assert 'key' in open(ROOT + '/home/.ssh/id').read()",
    "reads a password": "assert 'key' in open(ROOT + '/home/.netrc').read()",
    "points the checkout at another repository": "open('.git', 'w').write('gitdir: /elsewhere')",
    "reads another process's environment": "assert b'private' in open(f'/proc/{VICTIM}/environ', 'rb').read()",
    "signals another process": "os.kill(VICTIM, 0)",
    "speaks over the network": "socket.create_connection(('127.0.0.1', PORT), 5)",
    "speaks to an abstract socket": "socket.socket(socket.AF_UNIX).connect('\\0' + NAME)",
    "speaks to a socket in /tmp": "socket.socket(socket.AF_UNIX).connect(SOCKET)",
    "shares memory": "open('/dev/shm/' + NAME, 'w').write('x')",
    "leaves a process behind": "subprocess.Popen(['sleep', '300'], start_new_session=True, env={'MARK': NAME})",
}
UNSEEN = ("shares memory", "leaves a process behind")  # works in there, for nobody out here
REFUSALS = ("OSError", "PermissionError", "FileNotFoundError", "ConnectionRefusedError", "ProcessLookupError")


class Traps:
    """What the attacks are after outside of files."""

    def __init__(self, directory: Path) -> None:
        self.name = f"coordination-{uuid.uuid4()}"
        self.port = socket.create_server(("127.0.0.1", 0))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0{self.name}")
        self.path = directory / "s"
        self.named = socket.socket(socket.AF_UNIX)
        self.named.bind(str(self.path))
        for each in (self.abstract, self.named):
            each.listen()
        self.victim = subprocess.Popen(["sleep", "300"], env={"PATH": os.environ["PATH"], "SECRET": KEY})

    def known(self, house: House) -> str:
        """What the programs know of it."""
        values = {
            "ROOT": str(house.stage.repository),
            "COMMIT": house.commit,
            "SOCKET": str(self.path),
            "VICTIM": self.victim.pid,
            "PORT": self.port.getsockname()[1],
            "NAME": self.name,
        }
        return "\n".join(["import os, socket, subprocess", *(f"{name} = {value!r}" for name, value in values.items())])

    def sprung(self) -> bool:
        """Whether something was left where everybody sees it."""
        return bool(self.left()) or Path("/dev/shm", self.name).exists()

    def left(self) -> list[int]:
        """Processes that were left behind."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"MARK={self.name}".encode() in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
            except OSError:
                continue
        return found

    def close(self) -> None:
        for each in (self.port, self.abstract, self.named):
            each.close()
        self.victim.kill()
        self.victim.wait()
        for process in self.left():
            os.kill(process, 9)
        Path("/dev/shm", self.name).unlink(missing_ok=True)


@pytest.fixture
def traps() -> Iterator[Traps]:
    directory = Path("/tmp") / f"c-{uuid.uuid4().hex[:8]}"  # a socket's path is short
    directory.mkdir()
    made = Traps(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


@needs_sandbox
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_works_in_a_plain_run_and_not_in_the_sandbox(
    name: str, houses: dict[str, House], traps: Traps
) -> None:
    """The plain run is the proof that it is one. In the sandbox the program fails, or nothing of it is seen outside.

    There it first tries to change what is mounted, as root might if any capability were left.
    """
    if "kernel" in name and os.getuid():
        pytest.skip("only root might do that")
    house = houses["guarded"]
    inside = house.gate("\n".join([traps.known(house), ALLOW, ATTACKS[name], "print('done')"]))
    assert not traps.sprung()
    if name not in UNSEEN:
        assert inside.output.rstrip().rpartition("\n")[2].startswith(REFUSALS), inside.output
        assert not inside.passed
    house = houses["plain"]
    plain = house.gate("\n".join([traps.known(house), ATTACKS[name], "print('done')"]), plain=True)
    assert plain.output.endswith("done\n"), plain.output
    assert traps.sprung() == (name in UNSEEN)


USUAL = {
    "writes into the checkout": "os.makedirs('build/deep'); open('build/deep/x', 'w'); os.remove('README.md')",
    "has a temporary directory": "import tempfile; assert tempfile.mkstemp()[1].startswith('/tmp/')",
    "shares memory with itself": "import multiprocessing as m; assert m.Pool(2).map(abs, [-1, 2]) == [1, 2]",
    "has an empty home": "assert not os.listdir(os.environ['HOME']); open(os.environ['HOME'] + '/x', 'w')",
    "asks git": "assert b'first' in subprocess.check_output(['git', 'log', '-1', '--format=%s'])",
    "sees a clean checkout": "assert not subprocess.check_output(['git', 'status', '--porcelain'])",
    "reads what is no secret": "assert open(ROOT + '/home/notes').read() == 'no secret'",
    "sees its own processes": "assert os.getppid() == 1 or os.path.exists(f'/proc/{os.getpid()}/status')",
    "serves itself": "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5)",
    "imports what lies there": "import greeter, py_compile; py_compile.compile('greeter.py', doraise=True)",
    "has no credentials": "assert not [name for name in os.environ if name.startswith('ANTHROPIC')]",
    "tests": "open('test_x.py', 'w').write('def test_x(): pass'); import pytest; assert not pytest.main(['test_x.py'])",
}


@needs_sandbox
@pytest.mark.parametrize("name", USUAL)
def test_what_gates_commonly_do_works_in_the_sandbox(name: str, house: House) -> None:
    """A sandbox in which nothing works would be turned off."""
    lines = [f"ROOT = {str(house.stage.repository)!r}", "import os, socket, subprocess", USUAL[name]]
    result = house.gate("\n".join(lines))
    assert result.passed, result.output


@needs_sandbox
def test_a_gate_that_asks_for_the_network_has_it(house: House, traps: Traps) -> None:
    """By its settings, and nothing else is opened by that."""
    program = f"import socket; socket.create_connection(('127.0.0.1', {traps.port.getsockname()[1]}), 5)"
    assert not house.gate(program).passed
    assert house.gate(program, network=True).passed
    assert not house.gate(f"open({str(house.home / '.ssh' / 'id')!r})", network=True).passed


def test_a_required_sandbox_that_does_not_work_is_refused(house: House) -> None:
    """Nothing is run plainly then."""
    directory = house.stage.state / "runs" / "R.1.gate"
    directory.mkdir(parents=True)
    request = RunRequest(
        run="R.1.gate",
        task="R",
        purpose=Purpose.GATE,
        token=1,
        repository=str(house.coordinator.home.repository.common),
        state_directory=str(house.stage.state),
        workspace=WorkspaceRequest(name="R.1.gate", commit=house.commit),
        limits=Limits(),
        sandbox=SandboxRequest(required=True),
        gates=(GateCommand(name="unit", argv=("touch", str(house.stage.repository / "ran"))),),
    )
    outcome = worker.work(request, directory, worker.Stop(directory / "stop.json"))
    assert outcome.code == Unsuitable.__name__
    assert "install bubblewrap" in outcome.reason
    assert not (house.stage.repository / "ran").exists()
