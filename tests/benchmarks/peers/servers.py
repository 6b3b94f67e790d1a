"""How fast are the servers that somebody would have to run? Each in a directory of its own, never beyond this machine.

They are started for one measurement and ended by their process id after it. One that is not on PATH is left out,
visibly. Their clients are as short as they can be, so that the server is measured and not a client library.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.peers import Peer, number_of, payload

_START_SECONDS = 30.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.02
_PIPELINED = 500


@contextmanager
def _process(command: Sequence[str], answers: Callable[[], object], directory: Path, user: str = "") -> Iterator[None]:
    """Run a server until the block ends; enter when it answers."""
    identity: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    with (directory / "output").open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **identity)
        try:
            _wait_for(server, answers, directory / "output")
            yield
        finally:
            server.terminate()
            try:
                server.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(server: subprocess.Popen[bytes], answers: Callable[[], object], output: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            answers()
        except Exception as error:  # each client has its own way to say "not yet"
            if server.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{server.args!r} did not start: {error}\n{said}") from error
            time.sleep(_POLL_SECONDS)
        else:
            return


def _not_on_path(program: str) -> str:
    return "" if shutil.which(program) else f"{program} is not on PATH"


# ---- Redis ----------------------------------------------------------------------------------------------------------


class Redis(Peer):
    """Streams with ``appendfsync always``: one stream appended to, one with a consumer group."""

    name = "Redis Streams always"

    def missing(self) -> str:
        """Whether there is a server."""
        return _not_on_path("redis-server")

    def serve(self, directory: Path) -> AbstractContextManager[None]:
        """On a socket in the directory; no snapshots, which would be paid for by others."""
        settings = {"port": "0", "unixsocket": "socket", "dir": ".", "save": "", "daemonize": "no"}
        settings |= {"appendonly": "yes", "appendfsync": "always", "auto-aof-rewrite-percentage": "0"}
        settings |= {"dir": str(directory), "unixsocket": str(directory / "socket")}
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return _process(["redis-server", *options], lambda: _asked(directory, "PING"), directory)

    def create(self, directory: Path) -> None:
        """The group makes its stream."""
        _asked(directory, "XGROUP", "CREATE", "tasks", "workers", "0", "MKSTREAM")

    def submit(self, directory: Path, tasks: int) -> None:
        """Many commands before the first answer is read."""
        with closing(_Resp(directory)) as client:
            for first in range(1, tasks + 1, _PIPELINED):
                numbers = range(first, min(first + _PIPELINED, tasks + 1))
                client.send(b"".join(_command("XADD", "tasks", "*", "p", payload(number)) for number in numbers))
                for _ in numbers:
                    client.receive()

    def connect(self, directory: Path, process: int) -> RedisConnection:
        """One socket a process."""
        return RedisConnection(directory, process)

    def appended(self, directory: Path) -> int:
        """Length of the stream."""
        length: int = _asked(directory, "XLEN", "log")
        return length

    def completed(self, directory: Path) -> int:
        """What the group read and no longer waits for."""
        fields = _asked(directory, "XINFO", "GROUPS", "tasks")[0]
        group = dict(zip(fields[::2], fields[1::2], strict=True))
        completed: int = group[b"entries-read"] - group[b"pending"]
        return completed


class RedisConnection:
    """Commands and answers on a socket."""

    def __init__(self, directory: Path, process: int) -> None:
        self._client = _Resp(directory)
        self._claim = _command("XREADGROUP", "GROUP", "workers", f"p{process}", "COUNT", "1", "STREAMS", "tasks", ">")

    def append(self, payload: bytes) -> None:
        """One entry."""
        self._client.send(_command("XADD", "log", "*", "p", payload))
        self._client.receive()

    def claim_and_complete(self) -> int | None:
        """Read for the group, then acknowledge."""
        self._client.send(self._claim)
        streams = self._client.receive()
        if streams is None:
            return None
        entry, fields = streams[0][1][0]
        self._client.send(_command("XACK", "tasks", "workers", entry))
        assert self._client.receive() == 1
        return number_of(fields[1])

    def close(self) -> None:
        """Close the socket."""
        self._client.close()


class _Resp:
    """The Redis serialization protocol, version 2."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(directory / "socket"))
        self._answers = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> Any:
        kind, rest = self._line()
        match kind:
            case b"+":
                return rest
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._answers.read(int(rest) + 2)[:-2]
            case b"*":
                return None if rest == b"-1" else [self.receive() for _ in range(int(rest))]
            case _:
                raise RuntimeError(f"Redis answered {kind + rest!r}")

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def _line(self) -> tuple[bytes, bytes]:
        line = self._answers.readline()
        return line[:1], line[1:-2]


def _command(*parts: str | bytes) -> bytes:
    encoded = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in encoded)


def _asked(directory: Path, *parts: str) -> Any:
    with closing(_Resp(directory)) as client:
        client.send(_command(*parts))
        return client.receive()


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------

_TABLES = """
CREATE TABLE log (seq bigserial PRIMARY KEY, payload bytea NOT NULL);
CREATE TABLE task (number bigint PRIMARY KEY, payload bytea NOT NULL, status int NOT NULL, holder int);
CREATE INDEX free ON task (number) WHERE status = 0;
"""
_CLAIM = """
UPDATE task SET status = 1, holder = %s
WHERE number = (SELECT number FROM task WHERE status = 0 ORDER BY number FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING number, payload
"""
_COMPLETE = "UPDATE task SET status = 2 WHERE number = %s AND holder = %s AND status = 1"


class PostgreSQL(Peer):
    """``synchronous_commit = on``, ``fsync = on``, tasks claimed with SKIP LOCKED, statements prepared."""

    name = "PostgreSQL"

    def missing(self) -> str:
        """Whether there are a server and psycopg, its client."""
        if importlib.util.find_spec("psycopg") is None:
            return "psycopg is not installed: pip install 'claude-coordination[benchmarks]'"
        return _not_on_path("postgres") or ("" if _unprivileged() else "PostgreSQL refuses root, no user 'postgres'")

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        """On a socket in the directory; never as root, which it refuses."""
        place, user = directory / "postgresql", _unprivileged()
        directory.chmod(0o711)
        place.mkdir()
        shutil.chown(place, user, user)
        found = shutil.which("postgres")
        assert found is not None
        programs = Path(found).resolve().parent
        command = [str(programs / "initdb"), "--no-sync", "--auth=trust", "--username=postgres", f"--pgdata={place}"]
        made = subprocess.run(
            command, user=user, group=user, extra_groups=[], cwd="/", capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stderr
        settings = {"listen_addresses": "", "unix_socket_directories": str(place)}
        settings |= {"fsync": "on", "synchronous_commit": "on", "shared_buffers": "128MB"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        server = [str(programs / "postgres"), "-D", str(place), *options]
        with _process(server, lambda: _postgresql(directory).close(), directory, user):
            yield

    def create(self, directory: Path) -> None:
        """Make the tables."""
        with closing(_postgresql(directory)) as connection:
            connection.execute(_TABLES, prepare=False)

    def submit(self, directory: Path, tasks: int) -> None:
        """By COPY."""
        with closing(_postgresql(directory)) as connection:
            with connection.cursor().copy("COPY task (number, payload, status) FROM STDIN") as copy:
                for number in range(1, tasks + 1):
                    copy.write_row((number, payload(number), 0))
            connection.execute("ANALYZE task")

    def connect(self, directory: Path, process: int) -> PostgreSQLConnection:
        """One connection, and so one server process, a process."""
        return PostgreSQLConnection(directory, process)

    def appended(self, directory: Path) -> int:
        """Rows of the log."""
        return self._count(directory, "SELECT count(*) FROM log")

    def completed(self, directory: Path) -> int:
        """Tasks in their last status."""
        return self._count(directory, "SELECT count(*) FROM task WHERE status = 2")

    def _count(self, directory: Path, query: str) -> int:
        with closing(_postgresql(directory)) as connection:
            count: int = connection.execute(query).fetchone()[0]
        return count


class PostgreSQLConnection:
    """psycopg, every statement prepared at its first use."""

    def __init__(self, directory: Path, process: int) -> None:
        self._connection = _postgresql(directory)
        self._execute = self._connection.cursor(binary=True).execute
        self._process = process

    def append(self, payload: bytes) -> None:
        """One row."""
        self._execute("INSERT INTO log (payload) VALUES (%b)", (payload,))

    def claim_and_complete(self) -> int | None:
        """Two transactions."""
        row = self._execute(_CLAIM, (self._process,)).fetchone()
        if row is None:
            return None
        completed = self._execute(_COMPLETE, (row[0], self._process)).rowcount
        assert completed == 1, f"task {row[0]} was taken from process {self._process}"
        return int(row[0])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _unprivileged() -> str:
    """Who runs the server: we, or a user of its own when we are root; "" when there is none."""
    if os.getuid():
        return pwd.getpwuid(os.getuid()).pw_name
    names = {user.pw_name for user in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), "")


def _postgresql(directory: Path) -> Any:
    import psycopg

    place = directory / "postgresql"
    return psycopg.connect(host=str(place), user="postgres", dbname="postgres", autocommit=True, prepare_threshold=0)


# ---- NATS -----------------------------------------------------------------------------------------------------------


class Nats(Peer):
    """JetStream with ``sync_interval: always``, one stream appended to, one with a pull consumer."""

    name = "NATS JetStream always"
    note = "syncs what is published, but neither who was given a task nor its completion: its claims are not durable"
    claims_durably = False

    def missing(self) -> str:
        """Whether there is a server that can sync always; 2.10 was the first."""
        missing = _not_on_path("nats-server")
        if missing:
            return missing
        said = subprocess.run(["nats-server", "--version"], capture_output=True, text=True, check=False).stdout
        version = tuple(int(part) for part in said.strip().rpartition("v")[2].split(".")[:2])
        return "" if version >= (2, 10) else f"{said.strip()} cannot sync always: 2.10 can"

    @contextmanager
    def serve(self, directory: Path) -> Iterator[None]:
        """On a free port of the loopback address; it writes which one into the directory."""
        (directory / "nats.conf").write_text(
            f'listen: "127.0.0.1:-1"\nports_file_dir: "{directory}"\n'
            f'jetstream {{ store_dir: "{directory}", sync_interval: always }}\n'
        )
        command = ["nats-server", "--config", str(directory / "nats.conf")]
        with _process(command, lambda: _Nats(directory).close(), directory):
            yield

    def create(self, directory: Path) -> None:
        """Two streams and the consumer of one."""
        with closing(_Nats(directory)) as client:
            for stream in ("log", "tasks"):
                client.call(f"STREAM.CREATE.{stream}", {"name": stream, "subjects": [stream], "storage": "file"})
            config = {"durable_name": "workers", "ack_policy": "explicit", "max_ack_pending": 10_000}
            client.call("CONSUMER.DURABLE.CREATE.tasks.workers", {"stream_name": "tasks", "config": config})

    def submit(self, directory: Path, tasks: int) -> None:
        """Many before the first acknowledgement is read."""
        with closing(_Nats(directory)) as client:
            for first in range(1, tasks + 1, _PIPELINED):
                numbers = range(first, min(first + _PIPELINED, tasks + 1))
                for number in numbers:
                    client.publish("tasks", payload(number))
                for _ in numbers:
                    client.receive()

    def connect(self, directory: Path, process: int) -> NatsConnection:
        """One socket a process."""
        return NatsConnection(directory)

    def appended(self, directory: Path) -> int:
        """Messages of the stream."""
        with closing(_Nats(directory)) as client:
            messages: int = client.call("STREAM.INFO.log", {})["state"]["messages"]
        return messages

    def completed(self, directory: Path) -> int:
        """What was delivered and is not waited for."""
        with closing(_Nats(directory)) as client:
            consumer = client.call("CONSUMER.INFO.tasks.workers", {})
        completed: int = consumer["delivered"]["stream_seq"] - consumer["num_ack_pending"]
        return completed


class NatsConnection:
    """Publish and wait for the acknowledgement; an acknowledgement of ours is acknowledged, too."""

    def __init__(self, directory: Path) -> None:
        self._client = _Nats(directory)

    def append(self, payload: bytes) -> None:
        """One message."""
        self._client.publish("log", payload)
        answer = json.loads(self._client.receive()[1])
        assert "seq" in answer, answer

    def claim_and_complete(self) -> int | None:
        """The next message of the consumer, then its acknowledgement."""
        self._client.publish("$JS.API.CONSUMER.MSG.NEXT.tasks.workers", b'{"batch":1,"no_wait":true}')
        reply, data = self._client.receive()
        if not reply:
            return None  # "no messages"
        self._client.publish(reply, b"+ACK")
        self._client.receive()
        return number_of(data)

    def close(self) -> None:
        """Close the socket."""
        self._client.close()


class _Nats:
    """The client protocol of NATS: lines, and payloads of a known length."""

    def __init__(self, directory: Path) -> None:
        ports = next(directory.glob("*.ports"))
        host, port = json.loads(ports.read_text())["nats"][0].removeprefix("nats://").split(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")
        self._inbox = f"_INBOX.{os.urandom(8).hex()}"
        self._answers.readline()  # INFO
        self._socket.sendall(b'CONNECT {"verbose":false,"headers":true}\r\nSUB %b 1\r\n' % self._inbox.encode())

    def publish(self, subject: str, data: bytes) -> None:
        line = f"PUB {subject} {self._inbox} {len(data)}\r\n".encode()
        self._socket.sendall(line + data + b"\r\n")

    def receive(self) -> tuple[str, bytes]:
        """Where the next message wants its answer, and its payload."""
        while True:
            verb, *fields = self._answers.readline().decode().split()
            match verb:
                case "MSG" | "HMSG":
                    header = int(fields[-2]) if verb == "HMSG" else 0
                    reply = fields[2] if len(fields) == (5 if header else 4) else ""
                    return reply, self._answers.read(int(fields[-1]) + 2)[header:-2]
                case "PING":
                    self._socket.sendall(b"PONG\r\n")
                case "-ERR":
                    raise RuntimeError(f"NATS answered {fields}")

    def call(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        self.publish(f"$JS.API.{name}", json.dumps(request).encode())
        answer: dict[str, Any] = json.loads(self.receive()[1])
        if "error" in answer:
            raise RuntimeError(f"NATS answered {answer['error']}")
        return answer

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


SERVERS = (Redis(), PostgreSQL(), Nats())
