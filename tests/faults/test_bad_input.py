"""Bad input to a real server that has other work to do."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from server.engine.constraints.grammars import GRAMMAR_SECONDS
from tests.faults.bad_inputs import BAD
from tests.faults.lasting import FLAGS, NAME, Stream, checkpoint, idle, status, wait_for
from tests.support.servers import Server, serving

pytestmark = pytest.mark.server

TOKENS = 1000
"""The length of the answer beside which the bad requests come."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("lasting")
    flags = [*FLAGS, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    with serving(checkpoint(root / "checkpoint"), root / "log", flags, NAME) as started:
        started.wait_until_ready()
        yield started
        assert started.process.poll() is None, started.tail()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as opened:
        yield opened


def send(client: httpx.Client, route: str, body: dict[str, Any]) -> httpx.Response:
    return client.post(route, content=json.dumps(body), headers={"content-type": "application/json"})


def named(case: tuple[str, str, Any]) -> str:
    route, name, body = case
    return f"{route}-{name}-{json.dumps(body[name])[:30]}"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", BAD, ids=named)
def test_refused_with_the_name_of_the_parameter(client: httpx.Client, case: Any, stream: bool) -> None:
    route, name, body = case
    answer = send(client, route, body | ({"stream": True} if stream else {}))
    assert answer.status_code == 400, answer.text[:500]
    error = answer.json()["error"]
    assert error["param"] is not None, error
    assert error["param"].startswith(name), error
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]
    assert len(error["message"]) < 1000


BODIES: list[tuple[bytes, int]] = [
    (b'{"prompt": NaN}', 400),
    (b'{"temperature": Infinity}', 400),
    (b'{"temperature": 1e999}', 400),
    (b'{"seed": ' + b"9" * 5000 + b"}", 400),
    (b'{"prompt": "\\ud800"}', 400),
    (b'{"prompt": "\xff"}', 400),
    (b"[" * 100_000, 400),
    (b'{"tools": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
    (b"[]", 400),
    (b"", 400),
    (b'{"prompt": "' + b"x" * (4 << 20) + b'"}', 413),
]


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions", "/v1/uncertainty", "/tokenize"])
@pytest.mark.parametrize(("body", "expected"), BODIES, ids=lambda value: repr(value)[:30])
def test_a_body_that_cannot_be_read_is_refused_with_a_code(
    client: httpx.Client, route: str, body: bytes, expected: int
) -> None:
    answer = client.post(route, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == expected, answer.text[:500]
    assert answer.json()["error"]["code"]


def test_nul_is_a_character_like_others_where_texts_are_tokens(client: httpx.Client) -> None:
    """A byte-level tokenizer has it among its tokens, so texts of random tokens hold it."""
    text = "a\x00b"
    [a, nul, b] = send(client, "/tokenize", {"model": NAME, "prompt": text}).json()["tokens"]
    assert send(client, "/detokenize", {"model": NAME, "tokens": [a, nul, b]}).json()["prompt"] == text
    asked = {"model": NAME, "prompt": text, "max_tokens": 4, "echo": True, "logit_bias": {str(nul): 100}}
    answer = send(client, "/v1/completions", asked).json()
    assert answer["choices"][0]["text"] == text + 4 * "\x00"
    assert answer["usage"]["prompt_tokens"] == 3
    stopped = send(client, "/v1/completions", asked | {"echo": False, "stop": "\x00"}).json()["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == ("", "stop")
    banned = send(client, "/v1/completions", asked | {"echo": False, "bad_words": ["\x00"]}).json()["choices"][0]
    assert "\x00" not in banned["text"]
    given = {"model": NAME, "prompt": "a", "completion": text, "max_tokens": 4}
    assert send(client, "/v1/uncertainty", given).json()["usage"]["completion_tokens"] == 3
    lengths = []
    for content in ("ab", text, [{"type": "text", "text": text}]):
        chat = {"model": NAME, "max_tokens": 4, "messages": [{"role": "user", "content": content}]}
        lengths.append(send(client, "/v1/chat/completions", chat).json()["usage"]["prompt_tokens"])
    assert lengths[1:] == [lengths[0] + 1] * 2


def test_other_media_types(client: httpx.Client) -> None:
    answer = client.post("/v1/completions", content=b'{"prompt": "Hi"}', headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


MESSAGES = [{"role": "user", "content": "Hi"}]
FURTHER: list[tuple[str, dict[str, Any]]] = [
    ("/tokenize", {}),
    ("/tokenize", {"messages": MESSAGES, "chat_template": "{% for i in range(10**9) %}x{% endfor %}"}),
    ("/detokenize", {"tokens": [-1]}),
    ("/detokenize", {"tokens": [2**32 + 5]}),
    ("/detokenize", {"tokens": [2**63]}),
    ("/v1/messages", {"max_tokens": 4, "messages": None}),
    ("/v1/messages", {"max_tokens": 4, "messages": MESSAGES, "temperature": 9}),
    ("/v1/messages", {"max_tokens": 4, "messages": MESSAGES, "stream": True, "top_k": -5}),
    ("/v1/responses", {"input": None}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": -4}),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "file:///x"}]}]}),
    ("/v1/chat/completions/batch", {"messages": [None]}),
    ("/v1/chat/completions/batch", {"messages": [MESSAGES], "logit_bias": {"-1": 1}}),
    ("/invocations", {}),
    ("/invocations", {"messages": 5}),
    ("/invocations", {"prompt": "Hi", "structured_outputs": "x"}),
    ("/invocations", {"prompt": "Hi", "n": 10**9}),
]


@pytest.mark.parametrize(("route", "body"), FURTHER, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_on_further_routes(client: httpx.Client, route: str, body: dict[str, Any]) -> None:
    answer = send(client, route, {"model": NAME, **body})
    assert answer.status_code == 400, answer.text[:500]


NESTED = "((((a{0,1000}){0,1000}){0,1000}){0,1000}){0,1000}"
MANY = {"type": "array", "items": {"type": "string"}, "minItems": 10**8}
CALL = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": MANY}}}}]
CONSTRAINTS: list[tuple[str, dict[str, Any]]] = [
    ("structured_outputs", {"structured_outputs": {"regex": NESTED}}),
    ("structured_outputs", {"structured_outputs": {"json": MANY}}),
    ("structured_outputs", {"structured_outputs": {"grammar": "root ::= a" + "\n" * 60_000}}),
    ("structured_outputs", {"structured_outputs": {"grammar": 'root ::= s\ns ::= s s s s s | s s s | s s | "a" | ""'}}),
    ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": MANY}}}),
    ("tools", {"tools": CALL, "tool_choice": "required"}),
    ("tools", {"tools": CALL, "tool_choice": {"type": "function", "function": {"name": "f"}}}),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("name", "fields"), CONSTRAINTS, ids=lambda value: str(value)[:50])
def test_grammars_that_take_too_much(server: Server, name: str, fields: dict[str, Any], stream: bool) -> None:
    """While one grammar is tried, other requests are answered."""
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 4, "stream": stream} | fields
    beside = Stream(server, TOKENS)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        began = time.monotonic()
        answer = send(client, "/v1/chat/completions", body)
        seconds = time.monotonic() - began
    assert answer.status_code == 400, answer.text[:500]
    assert answer.json()["error"]["param"] == name
    assert seconds < GRAMMAR_SECONDS + 10  # a busy machine may take long to start a process
    beside.join(120)
    assert beside.done


SMALL = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"], "additionalProperties": False}


def test_schemas_are_followed(client: httpx.Client) -> None:
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 200, "structured_outputs": {"json": SMALL}}
    choice = send(client, "/v1/chat/completions", body).json()["choices"][0]
    assert json.loads(choice["message"]["content"])["a"] in ("x", "y")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}], ids=str)
def test_tools_are_called_by_their_schema(client: httpx.Client, choice: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": SMALL}}]
    # A random model may go on with further keys and calls for ever: all shall end as soon as they can.
    ends = send(client, "/tokenize", {"model": NAME, "prompt": "}]", "add_special_tokens": False}).json()["tokens"]
    body = {"model": NAME, "messages": MESSAGES, "max_tokens": 400, "tools": tools, "tool_choice": choice}
    body |= {"parallel_tool_calls": False, "logit_bias": {str(token): 50 for token in ends}}
    answer = send(client, "/v1/chat/completions", body).json()
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"])["a"] in ("x", "y")


def test_other_answers_stay_as_they_are(server: Server) -> None:
    """A greedy answer is the same, to the last character, with every bad request beside it and without."""
    alone = Stream(server, TOKENS)
    alone.join(120)
    assert alone.done
    seconds: list[float] = []

    def timed(case: tuple[str, str, dict[str, Any]]) -> None:
        began = time.perf_counter()
        assert send(client, case[0], case[2]).status_code == 400
        seconds.append(time.perf_counter() - began)

    with httpx.Client(base_url=server.url, timeout=60) as client, ThreadPoolExecutor(2) as pool:
        beside = Stream(server, TOKENS)
        while beside.is_alive():
            list(pool.map(timed, BAD))
    assert beside.done
    assert beside.text() == alone.text()
    median, longest = statistics.median(seconds) * 1000, max(seconds) * 1000
    print(f"{len(seconds)} refusals: median {median:.1f} ms, longest {longest:.0f} ms")
    wait_for(lambda: idle(server))
    assert status(server, "/health") == 200
