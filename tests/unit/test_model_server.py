"""The scripted model answers as the real service would, as far as Claude Code looks."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from coordination.rehearsal.model_server import Catalogue, ModelServer, NoScript, compose, working_directory

TEXT = {"type": "text", "text": "hello"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": text}]}


def tool_result(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": text}]}


def assistant(text: str = "…") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def ask(server: ModelServer, body: Any, *, method: str = "POST", path: str = "/v1/messages?beta=true") -> Any:
    address = urlsplit(server.url)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.request(method, path, raw, {"X-Claude-Code-Session-Id": "session"})
        response = connection.getresponse()
        return response, response.read()


def events(content: bytes) -> list[dict[str, Any]]:
    lines = content.decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_the_step_is_the_number_of_answers_since_the_directive() -> None:
    """Retries repeat a step, because only answers count, and tool results are not prompts."""
    catalogue = Catalogue({"s": [[TEXT], [{"type": "text", "text": "two"}]]})
    messages = [user("[[script s]] go")]
    assert catalogue.choose(messages).step == 0
    assert catalogue.choose(messages).step == 0
    messages += [assistant(), tool_result("[[script other]]")]
    assert catalogue.choose(messages).step == 1


def test_a_resumed_session_starts_the_new_prompts_script() -> None:
    """Answers before the newest directive do not count."""
    catalogue = Catalogue({"a": [[TEXT]], "b": [[TEXT]]})
    choice = catalogue.choose([user("[[script a]]"), assistant(), user("[[script b]]")])
    assert (choice.script, choice.step) == ("b", 0)


def test_a_nudge_of_the_program_does_not_change_the_script() -> None:
    """A user text that names nothing leaves the older one in force."""
    catalogue = Catalogue({"a": [[TEXT], [TEXT]]})
    choice = catalogue.choose([user("[[script a]]"), assistant(), user("You MUST call the tool.")])
    assert (choice.script, choice.step) == ("a", 1)


def test_one_script_can_play_work_and_review_differently() -> None:
    """Cases of a named script are chosen by the prompt it stands in; the first that fits wins."""
    script = {
        "match": [
            {"contains": ["# Review", "of task T"], "steps": [[{"type": "text", "text": "review"}]]},
            {"contains": ["before"], "name": "again", "steps": [[{"type": "text", "text": "again"}]]},
        ],
        "steps": [[{"type": "text", "text": "work"}]],
    }
    catalogue = Catalogue({"scripts": {"s": script}})
    assert catalogue.choose([user("# Review of task T before [[script s]]")]).items[0]["text"] == "review"
    assert catalogue.choose([user("before [[script s]]")]).script == "s/again"
    assert catalogue.choose([user("[[script s]]")]).items[0]["text"] == "work"


def test_cases_alone_need_no_directive() -> None:
    """A list of cases, or the key ``match``, is matched against any prompt."""
    case = {"contains": ["please"], "steps": [TEXT]}
    for catalogue in (Catalogue([case]), Catalogue({"match": [case]})):
        assert catalogue.choose([user("please")]).items == (TEXT,)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([user("hello")], "no user text"),
        ([user("[[script nobody]]")], "'nobody'; there are: s"),
        ([user("[[script s]]"), assistant()], "has 1 steps; the conversation asks for step 2"),
    ],
)
def test_what_is_not_scripted_is_said_plainly(messages: list[dict[str, Any]], said: str) -> None:
    """A rehearsal that has lost its script says why instead of inventing an answer."""
    with pytest.raises(NoScript, match=said.replace("?", r"\?")):
        Catalogue({"s": [[TEXT]]}).choose(messages)


def test_the_working_directory_is_taken_from_where_the_program_says_it() -> None:
    """Paths in scripts become absolute; the latest word of the system counts."""
    body = {
        "model": "m",
        "system": [{"type": "text", "text": "Working directory: /old"}],
        "messages": [user("x"), {"role": "system", "content": " - Primary working directory: /work space/T\n - more"}],
    }
    call = {"type": "tool_use", "name": "Write", "input": {"file_path": "{cwd}/a", "lines": ["{cwd}"]}}
    message = compose([call], body)
    assert message.blocks[0]["input"] == {"file_path": "/work space/T/a", "lines": ["/work space/T"]}
    assert message.stop_reason == "tool_use"
    assert working_directory("nothing is said") == ""


def test_a_stream_carries_the_message_in_the_services_events() -> None:
    """Text and tool calls stream as the protocol orders, with usage at both ends."""
    call = {"type": "tool_use", "name": "Read", "input": {"file_path": "/x"}}
    usage = {"usage": {"output_tokens": 77}}
    with ModelServer({"s": [[TEXT, call, usage]]}) as server:
        _, content = ask(server, {"model": "m", "stream": True, "messages": [user("[[script s]]")]})
    stream = events(content)
    kinds = [event["type"] for event in stream]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert kinds == ["message_start", *block, *block, "message_delta", "message_stop"]
    assert json.loads(stream[5]["delta"]["partial_json"]) == {"file_path": "/x"}
    assert stream[-2]["delta"]["stop_reason"] == "tool_use"
    assert stream[-2]["usage"]["output_tokens"] == 77
    assert stream[0]["message"]["usage"]["input_tokens"] > 0


def test_without_a_stream_the_message_comes_whole() -> None:
    """The program's recovery requests are answered in one piece."""
    with ModelServer({"s": [[TEXT, {"stop_reason": "max_tokens"}]]}) as server:
        response, content = ask(server, {"model": "m", "messages": [user("[[script s]]")]})
    message = json.loads(content)
    assert response.status == 200
    assert (message["content"], message["stop_reason"], message["model"]) == ([TEXT], "max_tokens", "m")


def test_an_error_comes_with_status_headers_and_its_number_of_times() -> None:
    """A scripted failure is what the service would send, and passes when it has happened often enough."""
    error = {"status": 529, "type": "overloaded_error", "message": "busy", "headers": {"retry-after": "7"}, "times": 2}
    body = {"model": "m", "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[error, TEXT]]}) as server:
        answers = [ask(server, body) for _ in range(3)]
        assert [asked.status for asked in server.requests] == [529, 529, 200]
    first, content = answers[0]
    assert (first.status, first.getheader("retry-after")) == (529, "7")
    assert json.loads(content) == {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}


def test_tokens_are_counted_and_greetings_answered() -> None:
    """The other two calls of the program have answers too; anything else is not found."""
    with ModelServer({}) as server:
        _, counted = ask(server, {"messages": [user("x" * 400)]}, path="/v1/messages/count_tokens?beta=true")
        assert json.loads(counted)["input_tokens"] >= 100
        assert ask(server, b"", method="HEAD", path="/api/hello")[0].status == 200
        assert ask(server, {}, path="/v1/other")[0].status == 404
        assert ask(server, b"{", path="/v1/messages")[0].status == 400


@pytest.mark.parametrize("item", [{"type": "tool_use"}, {"text": "no type"}, {"delay_seconds": "1"}, "text"])
def test_an_item_of_no_known_form_is_refused(item: Any) -> None:
    """A misspelt script fails loudly, as an API error that quotes the item."""
    with ModelServer({"s": [[item]]}) as server:
        response, content = ask(server, {"model": "m", "messages": [user("[[script s]]")]})
    assert response.status == 400
    assert "item of no known form" in json.loads(content)["error"]["message"]


def test_answers_that_gather_come_together() -> None:
    """The first waits for the second, however late that is asked for."""
    body = {"model": "m", "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[{"gather": 2}, TEXT]]}) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, server, body)
        with pytest.raises(TimeoutError):
            first.result(timeout=0.2)
        assert json.loads(ask(server, body)[1])["content"] == [TEXT]
        assert json.loads(first.result(timeout=10)[1])["content"] == [TEXT]


def test_closing_ends_an_answer_that_hangs() -> None:
    """A hung answer does not outlive the server, so no test has to wait for it."""
    body = {"model": "m", "stream": True, "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[TEXT, {"hang": True}]]}) as server:
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        connection.request("POST", "/v1/messages", json.dumps(body))
        response = connection.getresponse()
        assert b"message_start" in response.readline()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_a_connection_breaks_off_as_often_as_it_is_to() -> None:
    """Before any answer, and then the message comes; the log says that there was no answer."""
    body = {"model": "m", "stream": True, "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[{"drop": True, "times": 2}, TEXT]]}) as server:
        for _ in range(2):
            with pytest.raises(http.client.RemoteDisconnected):
                ask(server, body)
        assert events(ask(server, body)[1])[-1]["type"] == "message_stop"
        assert [asked.status for asked in server.requests] == [0, 0, 200]


def test_a_connection_breaks_off_in_the_midst_of_words() -> None:
    """The stream has begun a block that it does not end; without a stream there is no answer at all."""
    body = {"model": "m", "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[{"drop": True, "said": "I will", "times": 2}, TEXT]]}) as server:
        with pytest.raises(http.client.IncompleteRead) as cut:
            ask(server, {**body, "stream": True})
        kinds = [event["type"] for event in events(cut.value.partial)]
        assert kinds == ["message_start", "content_block_start", "content_block_delta"]
        with pytest.raises(http.client.RemoteDisconnected):
            ask(server, body)
        assert json.loads(ask(server, body)[1])["content"] == [TEXT]


def test_a_silence_that_is_played_once_gives_way_to_the_message() -> None:
    """Who gives up waiting and asks again is answered."""
    body = {"model": "m", "messages": [user("[[script s]]")]}
    with ModelServer({"s": [[{"hang": True, "times": 1}, TEXT]]}) as server:
        address = urlsplit(server.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=0.2)
        connection.request("POST", "/v1/messages", json.dumps(body), {"X-Claude-Code-Session-Id": "session"})
        with pytest.raises(TimeoutError):
            connection.getresponse()
        connection.close()
        assert json.loads(ask(server, body)[1])["content"] == [TEXT]


def test_the_log_says_what_was_asked() -> None:
    """Tests can look at model, system text, prompt, tools and step of every request."""
    body = {
        "model": "m",
        "system": "Be brief.",
        "messages": [user("[[script s]] go")],
        "tools": [{"name": "Read"}],
    }
    with ModelServer({"s": [TEXT]}) as server:
        ask(server, body)
        asked = server.requests[0]
    assert (asked.model, asked.messages, asked.tools, asked.script, asked.step) == ("m", 1, ("Read",), "s", 0)
    assert "Be brief." in asked.system
    assert (asked.prompt, asked.session) == ("[[script s]] go", "session")


def test_it_runs_as_a_program(tmp_path: Path) -> None:
    """Another process can serve scripts from a file and say where."""
    scripts, port_file = tmp_path / "scripts.json", tmp_path / "url"
    scripts.write_text(json.dumps({"s": [TEXT]}))
    arguments = ["-m", "coordination.rehearsal.model_server", "--scripts", str(scripts), "--port-file", str(port_file)]
    process = subprocess.Popen([sys.executable, *arguments])
    try:
        while not port_file.exists():
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
        address = urlsplit(port_file.read_text())
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        connection.request("POST", "/v1/messages", json.dumps({"model": "m", "messages": [user("[[script s]]")]}))
        assert json.loads(connection.getresponse().read())["content"] == [TEXT]
        connection.close()
    finally:
        process.terminate()
        process.wait()
