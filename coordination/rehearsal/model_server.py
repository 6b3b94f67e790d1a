"""What would the model say? A Messages API on the loopback that plays scripts to the real Claude Code.

Nothing here is a mock of the agent: the real program talks to it as it would to any gateway, with streams, tool
calls, errors and usage numbers. A configuration can therefore be rehearsed without a key, a network or a cost.

Scripts are data. A *catalogue* is either a mapping ``{name: script}``, a list of *cases*, or both at once::

    {"scripts": {name: script, …}, "match": [case, …]}
    script: [step, …]  or  {"match": [case, …], "steps": [step, …]}
    case:   {"contains": [substring, …], "steps": [step, …]}         all substrings; the first case wins
    step:   [item, …]  or one item
    item:   {"type": "text", "text": …}                               a content block, streamed
            {"type": "tool_use", "name": …, "input": {…}}             likewise; stop_reason becomes tool_use
            {"status": 529, "type": …, "message": …, "headers": {…}, "times": n}     an error instead of a message;
                                                                      with ``times``, what follows it plays after those
            {"status": 502, "body": "<html>…"}                        likewise, with these very bytes; 200 is allowed
            {"delay_seconds": 1.5}                                    silence, before or within the stream
            {"hang": true}                                            silence until one side goes away
            {"gather": n}                                             silence until n answers have come to such an item
            {"drop": true, "said": …}                                 the connection breaks, before or within the stream
                                                                      or, with ``said``, amid these words
            {"drop": true, "times": n}, {"hang": true, "times": n}    likewise n times; then what follows it plays
            {"headers": {…}}                                          sent with the stream
            {"usage": {"output_tokens": …, …}}                        these numbers instead of counted ones
            {"stop_reason": "max_tokens"}                             this instead of the derived one

A conversation finds its script in its newest user text that names one in a line ``[[script NAME]]`` or that a case
matches. Older texts are asked when newer ones (the program's own nudges) say nothing. Which step is played is the
number of assistant messages after that text, so retries and resumed sessions stay in step without any memory here.
``{cwd}`` in any string of an item stands for the working directory that the program named as the system, ``{commit}``
for the first commit that the text which chose the script names in full.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

JSON = Any
Item = Mapping[str, JSON]

_DIRECTIVE = re.compile(r"\[\[script ([A-Za-z0-9_.:-]+)\]\]")
_COMMIT = re.compile(r"\bcommit ([0-9a-f]{40,64})\b")
_WORKING_DIRECTORY = re.compile(r"[Ww]orking directory: *(\S[^\n]*)")


class NoScript(LookupError):
    """The conversation names no script we have, or has outrun the one it named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request, as tests and rehearsals look at it afterwards."""

    path: str
    model: str = ""
    messages: int = 0
    system: str = ""
    prompt: str = ""  # the user text that chose the script
    tools: tuple[str, ...] = ()
    session: str = ""
    script: str = ""
    step: int = -1
    status: int = 200
    stream: bool = False
    body: Mapping[str, JSON] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which step of which script is to be played, and why."""

    script: str
    step: int
    prompt: str
    items: tuple[Item, ...]


class Catalogue:
    """Scripts by name and by what a prompt contains."""

    def __init__(self, scripts: Mapping[str, JSON] | Sequence[JSON]) -> None:
        """Accept the three forms of the module's docstring. Raises ValueError for anything else."""
        if not isinstance(scripts, Mapping):
            scripts = {"match": list(scripts)}
        structured = bool(scripts) and set(scripts) <= {"scripts", "match"} and "steps" not in scripts
        self._named: Mapping[str, JSON] = scripts.get("scripts", {}) if structured else scripts
        self._cases: Sequence[JSON] = scripts.get("match", []) if structured else []
        if not isinstance(self._named, Mapping) or not isinstance(self._cases, Sequence):
            raise ValueError('scripts: expected {"scripts": {name: script}, "match": [case]}')  # noqa: TRY004

    def choose(self, messages: Sequence[Mapping[str, JSON]]) -> Choice:
        """Find the script and the step of a conversation. Raises NoScript, naming what was looked for."""
        for index, text in _user_texts_backwards(messages):
            found = self._find(text)
            if found is None:
                continue
            name, steps = found
            played = sum(1 for message in messages[index + 1 :] if message.get("role") == "assistant")
            if played >= len(steps):
                raise NoScript(f"script {name!r} has {len(steps)} steps; the conversation asks for step {played + 1}")
            step = steps[played]
            items = tuple(step) if isinstance(step, Sequence) else (step,)
            return Choice(script=name, step=played, prompt=text, items=items)
        raise NoScript("no user text of the conversation names a script that is here, and no case matches")

    def _find(self, text: str) -> tuple[str, Sequence[JSON]] | None:
        directive = _DIRECTIVE.search(text)
        if directive is None:
            return _first_case("", self._cases, text)
        name = directive.group(1)
        if name not in self._named:
            raise NoScript(f"the prompt names script {name!r}; there are: {', '.join(sorted(self._named)) or 'none'}")
        script = self._named[name]
        if isinstance(script, Mapping):
            found = _first_case(f"{name}/", script.get("match", []), text)
            return found or (name, script.get("steps", []))
        return name, script


def _first_case(prefix: str, cases: Sequence[Mapping[str, JSON]], text: str) -> tuple[str, Sequence[JSON]] | None:
    for number, case in enumerate(cases):
        if all(part in text for part in case["contains"]):
            return f"{prefix}{case.get('name', number)}", case["steps"]
    return None


def _user_texts_backwards(messages: Sequence[Mapping[str, JSON]]) -> Iterator[tuple[int, str]]:
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "user":
            text = _text_of(messages[index].get("content", ""))
            if text:
                yield index, text


def _text_of(content: JSON) -> str:
    """Return the text blocks of a message or system prompt; tool results are not text."""
    if isinstance(content, str):
        return content
    return "\n".join(str(block.get("text", "")) for block in content if block.get("type") == "text")


def system_text(body: Mapping[str, JSON]) -> str:
    """Return all a request says as the system: its prompt, and the system messages within the conversation."""
    within = (message for message in body.get("messages", []) if message.get("role") == "system")
    return "\n".join([_text_of(body.get("system", "")), *(_text_of(message.get("content", "")) for message in within)])


def working_directory(system: str) -> str:
    """Return the directory the program says it works in, or "" when it does not say. The latest word counts."""
    found = _WORKING_DIRECTORY.findall(system)
    return str(found[-1]).strip() if found else ""


def commit_named(prompt: str) -> str:
    """Return the first commit that a text names in full, or "" when it names none."""
    found = _COMMIT.search(prompt)
    return found[1] if found else ""


def _filled(value: JSON, names: Mapping[str, str]) -> JSON:
    if isinstance(value, str):
        for name, meant in names.items():
            value = value.replace(name, meant)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(inner, names) for key, inner in value.items()}
    if isinstance(value, Sequence):
        return [_filled(inner, names) for inner in value]
    return value


_identities = itertools.count(1)


def _identity(prefix: str) -> str:
    # unique over server restarts too: one session may be resumed against the next server
    return f"{prefix}_{os.getpid():x}{next(_identities):08x}{os.urandom(4).hex()}"


def _counted_usage(body: Mapping[str, JSON], blocks: Iterable[JSON]) -> dict[str, int]:
    """Count four characters as a token, which is near enough for budgets to be rehearsed."""
    asked = len(json.dumps([body.get("system"), body.get("messages"), body.get("tools")]))
    said = sum(len(json.dumps(block)) for block in blocks)
    return {
        "input_tokens": max(1, asked // 4),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": max(1, said // 4),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """An answer, ready to be sent whole or as a stream."""

    identity: str
    model: str
    parts: tuple[Item, ...]  # content blocks and silences, in order
    stop_reason: str
    usage: Mapping[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def blocks(self) -> list[JSON]:
        """The content blocks alone."""
        return [part for part in self.parts if "type" in part]

    def whole(self) -> dict[str, JSON]:
        """The answer of a request that did not ask for a stream."""
        return self._head(self.usage) | {"content": self.blocks, "stop_reason": self.stop_reason}

    def events(self) -> Iterator[dict[str, JSON] | Item]:
        """Yield the events of the stream; silences come through as they are."""
        yield {"type": "message_start", "message": self._head(dict(self.usage) | {"output_tokens": 1})}
        index = 0
        for part in self.parts:
            if "type" not in part:
                if part.get("said"):
                    yield from list(_block_events(index, {"type": "text", "text": part["said"]}))[:-1]
                yield part
                continue
            yield from _block_events(index, part)
            index += 1
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None}
        yield {"type": "message_delta", "delta": delta, "usage": dict(self.usage)}
        yield {"type": "message_stop"}

    def _head(self, usage: Mapping[str, int]) -> dict[str, JSON]:
        head = {"id": self.identity, "type": "message", "role": "assistant", "model": self.model, "content": []}
        return head | {"stop_reason": None, "stop_sequence": None, "usage": dict(usage)}


def _block_events(index: int, block: Item) -> Iterator[dict[str, JSON]]:
    if block["type"] == "text":
        start: dict[str, JSON] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    else:
        start = {"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield {"type": "content_block_start", "index": index, "content_block": start}
    yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}


def compose(items: Sequence[Item], body: Mapping[str, JSON], prompt: str = "") -> Message:
    """Make the message that a step's items describe. Raises ValueError for an item of no known form."""
    names = {"{cwd}": working_directory(system_text(body))}
    if commit := commit_named(prompt):
        names["{commit}"] = commit
    parts: list[Item] = []
    usage: Mapping[str, int] = {}
    headers: Mapping[str, str] = {}
    stop_reason = ""
    for raw in items:
        item = _filled(raw, names)
        match item:
            case {"type": "text", "text": str()} | {"hang": True} | {"drop": True}:
                parts.append(item)
            case {"delay_seconds": float() | int()} | {"gather": int()}:
                parts.append(item)
            case {"type": "tool_use", "name": str()}:
                parts.append({"id": _identity("toolu"), "input": {}} | item)
            case {"usage": Mapping() as numbers}:
                usage = numbers
            case {"headers": Mapping() as named}:
                headers = named
            case {"stop_reason": str() as reason}:
                stop_reason = reason
            case _:
                raise ValueError(f"script item of no known form: {json.dumps(raw)[:200]}")
    blocks = [part for part in parts if "type" in part]
    calls = any(block["type"] == "tool_use" for block in blocks)
    return Message(
        identity=_identity("msg"),
        model=str(body.get("model", "")),
        parts=tuple(parts),
        stop_reason=stop_reason or ("tool_use" if calls else "end_turn"),
        usage=_counted_usage(body, blocks) | dict(usage),
        headers=headers,
    )


def _is_fault(item: Item) -> bool:
    """Whether it stands before a message and may be played instead of it."""
    return "status" in item or ("times" in item and ("drop" in item or "hang" in item))


def _cut(fault: Item) -> Sequence[Item]:
    """What is sent of a message when that comes instead."""
    return () if "status" in fault else (fault,)


class _Closed(Exception):
    """Not an error: the script breaks the connection, or the server is being closed while an answer is silent."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name the base class has
        """Say nothing: what was asked is in ``ModelServer.requests``."""

    def do_HEAD(self) -> None:
        """Answer the program's greeting."""
        self._send(200, b"")

    def do_GET(self) -> None:
        """Answer what is asked beside messages: nothing is here."""
        self._send_error(404, "not_found_error", f"nothing at {self.path}")

    def do_POST(self) -> None:
        """Answer a message, or count its tokens."""
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        path = urlsplit(self.path).path
        try:
            body = json.loads(raw)
        except ValueError:
            self._send_error(400, "invalid_request_error", "the body is not JSON")
            return
        if path.endswith("/v1/messages/count_tokens"):
            counted = _counted_usage(body, [])["input_tokens"]
            self._send(200, json.dumps({"input_tokens": counted}).encode())
        elif path.endswith("/v1/messages"):
            self._message(path, body)
        else:
            self._send_error(404, "not_found_error", f"nothing at {path}")

    def _message(self, path: str, body: Mapping[str, JSON]) -> None:
        session = self.headers.get("X-Claude-Code-Session-Id", "")
        try:
            choice = self.server.catalogue.choose(body.get("messages", []))
            fault, items = self.server.due(session, choice)
            message = compose(items if fault is None else _cut(fault), body, choice.prompt)
        except (NoScript, ValueError) as refusal:
            self._record(path, session, body, status=400)
            self._send_error(400, "invalid_request_error", str(refusal))
            return
        status = 200 if fault is None else int(fault.get("status", 0))  # 0: there is no answer
        self._record(path, session, body, status=status, choice=choice)
        if fault is not None and "status" in fault:
            self._send_scripted_error(fault)
        elif body.get("stream"):
            self._stream(message)
        else:
            self._whole(message)

    def _record(
        self, path: str, session: str, body: Mapping[str, JSON], *, status: int, choice: Choice | None = None
    ) -> None:
        asked = Asked(
            path=path,
            model=str(body.get("model", "")),
            messages=len(body.get("messages", [])),
            system=system_text(body),
            prompt=choice.prompt if choice else "",
            tools=tuple(tool.get("name", "") for tool in body.get("tools", [])),
            session=session,
            script=choice.script if choice else "",
            step=choice.step if choice else -1,
            status=status,
            stream=bool(body.get("stream")),
            body=body,
        )
        self.server.asked.append(asked)

    def _whole(self, message: Message) -> None:
        try:
            for part in message.parts:
                self._keep_silent(part)
        except _Closed:
            self.close_connection = True
            return
        self._send(200, json.dumps(message.whole()).encode())

    def _stream(self, message: Message) -> None:
        # a silence that comes first delays the headers too: that is how a slow service looks
        silent = list(itertools.takewhile(lambda part: not {"type", "said"} & set(part), message.parts))
        try:
            for part in silent:
                self._keep_silent(part)
            self._open_stream(message.headers)
            for event in replace(message, parts=message.parts[len(silent) :]).events():
                if "type" in event:
                    self._chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
                else:
                    self._keep_silent(event)
            self._chunk(b"")
        except (_Closed, BrokenPipeError, ConnectionResetError):
            # either side may leave at any time; the program reports a cut stream itself
            self.close_connection = True

    def _open_stream(self, headers: Mapping[str, str]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("request-id", _identity("req"))
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def _keep_silent(self, part: Item) -> None:
        if "type" in part:
            return
        if part.get("drop"):
            raise _Closed
        if "gather" in part:
            self.server.gather(int(part["gather"]))
            return
        seconds = None if part.get("hang") else float(part["delay_seconds"])
        if self.server.closing.wait(seconds):
            raise _Closed

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _send_scripted_error(self, error: Item) -> None:
        if "body" in error:
            self._send(int(error["status"]), str(error["body"]).encode(), error.get("headers", {}))
            return
        kind = str(error.get("type", "api_error"))
        message = str(error.get("message", kind))
        self._send_error(int(error["status"]), kind, message, error.get("headers", {}))

    def _send_error(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        body = {"type": "error", "error": {"type": kind, "message": message}}
        self._send(status, json.dumps(body).encode(), headers or {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in (headers or {}).items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], catalogue: Catalogue) -> None:
        super().__init__(address, _Handler)
        self.catalogue = catalogue
        self.closing = threading.Event()
        self.asked: list[Asked] = []  # list.append is atomic: handlers run in threads
        self._failures: Counter[tuple[str, str, int]] = Counter()
        self._counting = threading.Lock()
        self._gathered = 0

    def handle_error(self, request: object, client_address: object) -> None:
        """Leave connections that break alone; anything else is a bug and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def gather(self, count: int) -> None:
        """Wait until so many have come here. Raises _Closed."""
        with self._counting:
            self._gathered += 1
        while self._gathered < count:
            if self.closing.wait(0.01):
                raise _Closed

    def due(self, session: str, choice: Choice) -> tuple[Item | None, tuple[Item, ...]]:
        """Return the fault to be played now, if any, and the items that make the message otherwise."""
        key = (session, choice.script, choice.step)
        leading = tuple(itertools.takewhile(_is_fault, choice.items))
        rest = choice.items[len(leading) :]
        with self._counting:
            failed = self._failures[key]
            for fault in leading:
                if "times" not in fault or failed < int(fault["times"]):
                    self._failures[key] += 1
                    return fault, ()
                failed -= int(fault["times"])
        return None, rest


class ModelServer:
    """The server as a context manager: it answers from entering until leaving."""

    def __init__(self, scripts: Mapping[str, JSON] | Sequence[JSON], host: str = "127.0.0.1", port: int = 0) -> None:
        """Bind at once, so that ``url`` is known; answer from ``__enter__`` on."""
        self._server = _Server((host, port), Catalogue(scripts))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What ``ANTHROPIC_BASE_URL`` must be."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def requests(self) -> list[Asked]:
        """Every request for a message so far, in the order they came."""
        return list(self._server.asked)

    def __enter__(self) -> Self:
        """Answer in the background."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering, also where an answer is silent, and free the port."""
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self) -> None:
        """Answer in the foreground, until interrupted."""
        self._server.serve_forever(0.05)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the scripts of a file until interrupted; write the URL where it is wanted."""
    parser = argparse.ArgumentParser(prog="python -m coordination.rehearsal.model_server", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--scripts", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, metavar="FILE", help="written with the URL once it answers")
    chosen = parser.parse_args(arguments)
    server = ModelServer(json.loads(chosen.scripts.read_text(encoding="utf-8")), port=chosen.port)
    if chosen.port_file:
        # renamed into place: whoever waits for the file must not read half a URL
        part = chosen.port_file.with_name(chosen.port_file.name + ".part")
        part.write_text(server.url, encoding="utf-8")
        part.rename(chosen.port_file)
    else:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
    try:
        server.serve()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
