"""Bodies that are read, and the errors for the others."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from server.gate import body as gate_body
from server.gate.body import MAX_CONTAINERS, MAX_ITEMS, MAX_KEYS, BodyLimits
from server.gate.connection import body_budget

LIMIT = 10_000
JSON = {"content-type": "application/json"}


async def echo(request: Request) -> JSONResponse:
    """Answers with the body that the gate has read, and with the one that the route reads itself."""
    raw = (await request.body()).decode("latin-1")
    return JSONResponse({"parsed": request.scope.get("state", {}).get("json"), "raw": raw})


def app(limit: int = LIMIT) -> Starlette:
    made = Starlette(routes=[Route("/", echo, methods=["GET", "POST", "PUT"])])
    made.add_middleware(BodyLimits)
    made.state.args = Namespace(max_body_bytes=limit)
    return made


def send(content: Any, headers: dict[str, str] = JSON, method: str = "POST", limit: int = LIMIT) -> httpx.Response:
    async def run() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app(limit)), base_url="http://test") as client:
            return await client.request(method, "/", content=content, headers=headers)

    return asyncio.run(run())


def test_json_is_read_once_for_the_gate_and_once_for_the_route() -> None:
    body = json.dumps({"prompt": "ä\u2028", "n": 2})
    answer = send(body).json()
    assert answer["parsed"] == json.loads(body)
    assert answer["raw"] == body


def test_what_has_no_body_passes() -> None:
    assert send(b"", {}).json() == {"parsed": None, "raw": ""}
    assert send(b"", {}, "GET").status_code == 200


def test_uploads_pass_unread() -> None:
    answer = send(b"--x--", {"content-type": "multipart/form-data; boundary=x"})
    assert answer.json() == {"parsed": None, "raw": "--x--"}


async def chunks(size: int, counted: list[int]) -> AsyncIterator[bytes]:
    while size > 0:
        counted.append(size)
        await asyncio.sleep(0)  # as a network does
        yield b"x" * min(size, 100)
        size -= 100


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    assert "\n" not in error["message"]
    return answer.status_code, error["code"], error["param"]


def test_too_large_in_chunks_is_read_up_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(gate_body, "LINGER_SECONDS", 0.0)
    answer = send(chunks(10**6, counted))
    assert refusal(answer) == (413, "body_too_large", None)
    assert answer.headers["connection"] == "close"
    assert len(counted) <= LIMIT // 100 + 3


@pytest.mark.parametrize("length", ["-1", "1e9", "9" * 5000])
def test_an_odd_content_length_is_ignored_or_too_large(length: str) -> None:
    assert send(b"{}", JSON | {"content-length": length}).status_code in (200, 413)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"1" * 5000 + b"}",
        b"[]",
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": "\xff"}',
        b'{"a": "\x00"}',
        b"[" * 400 + b"]" * 400,
        b"{",
        b'{"a": 1,}',
        b"{'a': 1}",
        b"nonsense",
        "{}".encode("utf-16"),
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    assert refusal(send(body))[:2] == (400, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["a", "\x00\udfff"]}, "prompt[1]"),
        ({"logit_bias": {"\udfff": 1}}, "logit_bias"),
        ({"\udc00": 1}, "body"),
        ({"model": "m\x00"}, "model"),
        ({"structured_outputs": {"regex": "a\x00"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"choice": ["a", "\x00"]}}, "structured_outputs.choice[1]"),
        ({"structured_outputs": {"json": {"prompt": "\x00"}}}, "structured_outputs.json.prompt"),
        ({"tools": [{"function": {"name": "\x00"}}]}, "tools[0].function.name"),
        ({"messages": [{"role": "user\x00", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "text\x00"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"\x00": "a"}]}]}, "messages[0].content[0]"),
        ({"prompt": {"\x00": 1}}, "prompt"),
        ({"\x00": 1}, "body"),
        ({"seed": 2**64}, "seed"),
        ({"stop_token_ids": [1, -(2**63) - 1]}, "stop_token_ids[1]"),
        ({"structured_outputs": {"json": {"maximum": 10**40}}}, "structured_outputs.json.maximum"),
        ({"vllm_xargs": {"x" * 65: "\udfff"}}, "vllm_xargs"),
    ],
)
def test_what_no_text_no_name_and_no_number_holds_is_refused_with_the_name_of_its_field(body: Any, param: str) -> None:
    assert refusal(send(json.dumps(body))) == (400, "invalid_value", param)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": "a\x00b"},
        {"prompt": ["a", "\x00"], "stop": "\x00"},
        {"prompt": "a", "completion": ["\x00"], "stop": ["\n", "\x00"], "bad_words": ["\x00"]},
        {"messages": [{"role": "user", "content": "a\x00b"}]},
        {"messages": [[{"role": "user", "content": [{"type": "text", "text": "\x00"}, "\x00"]}]]},
        {"system": [{"type": "text", "text": "\x00"}]},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "\x00"}]}], "instructions": "\x00"},
    ],
)
def test_what_is_tokenised_may_hold_any_character(body: Any) -> None:
    assert send(json.dumps(body)).json()["parsed"] == body


@pytest.mark.parametrize("number", [-(2**63), 2**64 - 1, 0.1234567890123456789, True])
def test_numbers_of_64_bits_pass(number: float) -> None:
    assert send(json.dumps({"tools": [{"maximum": number}]})).json()["parsed"] == {"tools": [{"maximum": number}]}


@pytest.mark.parametrize("text", [r"the six characters \u0000", "a pair \U0001f600", "[" * 500])
def test_what_only_looks_odd_passes(text: str) -> None:
    assert send(json.dumps({"prompt": text})).json()["parsed"] == {"prompt": text}


@pytest.mark.parametrize(
    "body",
    [
        '{"x": [' + ",".join(["{}"] * MAX_CONTAINERS) + "]}",
        '{"x": [' + ",".join(["[]"] * MAX_CONTAINERS) + "]}",
        '{"\\\\": [' + ",".join(['"\\"{", {}'] * MAX_CONTAINERS) + "]}",
        "{" + ",".join(f'"{i}":1' for i in range(MAX_KEYS + 1)) + "}",
    ],
    ids=["objects", "arrays", "behind quotes", "keys"],
)
def test_more_containers_and_keys_than_are_worth_making(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are refused before they are made."""
    monkeypatch.setattr(gate_body, "json", None)
    assert refusal(send(body, limit=4 << 20)) == (400, "invalid_json", None)


@pytest.mark.parametrize("name", ["messages", "input", "tools"])
def test_lists_of_more_items_than_a_context_holds(name: str) -> None:
    assert refusal(send(json.dumps({name: [1] * (MAX_ITEMS + 1)}), limit=1 << 20)) == (400, "invalid_value", name)
    assert send(json.dumps({name: [1] * MAX_ITEMS}), limit=1 << 20).status_code == 200


def test_brackets_and_colons_in_texts_do_not_count() -> None:
    text = '{"[:\\' * (MAX_KEYS + 1)
    assert send(json.dumps({"prompt": text}), limit=4 << 20).json()["parsed"] == {"prompt": text}


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_other_content_types(kind: str) -> None:
    assert refusal(send(b"{}", {"content-type": kind})) == (415, "unsupported_media_type", None)


def test_content_type_with_parameters() -> None:
    assert send(b"{}", {"content-type": "Application/JSON; charset=utf-8"}).status_code == 200


def test_a_compressed_body_is_refused() -> None:
    assert refusal(send(b"{}", JSON | {"content-encoding": "gzip"})) == (415, "unsupported_media_type", None)


def exchange(messages: list[Message], length: int = 0) -> list[Message]:
    """The answer when the server's side of the connection gives these messages, and then nothing."""
    sent: list[Message] = []
    waiting = iter(messages)

    async def receive() -> Message:
        found = next(waiting, None)
        if found is None:
            await asyncio.sleep(10)
            return {"type": "http.disconnect"}
        return found

    async def note(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), *([(b"content-length", str(length).encode())] if length else [])]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
    asyncio.run(app()(scope, receive, note))
    return sent


def test_too_large_by_its_header_is_answered_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_body, "LINGER_SECONDS", 0.05)
    sent = exchange([], length=LIMIT + 1)
    assert sent[0]["status"] == 413
    assert b"body_too_large" in sent[1]["body"]
    assert [message["more_body"] for message in sent[1:]] == [True, False]


def test_a_body_that_stops_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_body, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(gate_body, "LINGER_SECONDS", 0.05)
    sent = exchange([{"type": "http.request", "body": b'{"a"', "more_body": True}])
    assert sent[0]["status"] == 408
    assert b"body_timeout" in sent[1]["body"]


def test_the_body_that_has_been_arriving_longest_goes_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all connections, whatever each holds; and all of it is given back."""
    monkeypatch.setattr(gate_body, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(body_budget, "BODIES", 3)
    made, pieces, statuses = app(), [asyncio.Queue[Message]() for _ in range(6)], dict[int, int]()
    complete = json.dumps({"prompt": "x" * (LIMIT // 2)}).encode()
    limits = BodyLimits(made)

    async def ask(number: int) -> None:
        async def note(message: Message) -> None:
            statuses.setdefault(number, message.get("status", 0))

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers, "app": made}
        await limits(scope, pieces[number].get, note)

    async def run() -> None:
        asked = [asyncio.create_task(ask(number)) for number in range(6)]
        for queue in pieces[:5]:  # which is more than three largest bodies
            queue.put_nowait({"type": "http.request", "body": b"x" * (LIMIT * 7 // 10), "more_body": True})
        await asyncio.sleep(0.2)
        assert statuses == {0: 503}
        pieces[5].put_nowait({"type": "http.request", "body": complete, "more_body": False})
        await asyncio.sleep(0.2)
        assert statuses == {0: 503, 1: 503, 5: 200}
        for queue in pieces:
            queue.put_nowait({"type": "http.disconnect"})
        await asyncio.gather(*asked)

    asyncio.run(run())
    assert (limits.budget.held, len(limits.budget.arriving)) == (0, 0)


def test_a_client_that_goes_while_it_sends() -> None:
    part: Message = {"type": "http.request", "body": b'{"a"', "more_body": True}
    assert exchange([part, {"type": "http.disconnect"}]) == []


def test_the_route_sees_its_client_go() -> None:
    seen: list[str] = []

    async def listen(request: Request) -> JSONResponse:
        await request.body()
        seen.append((await request.receive())["type"])
        return JSONResponse({})

    made = app()
    made.router.routes[:] = [Route("/", listen, methods=["POST"])]

    messages: list[Message] = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    async def ignore(message: Message) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b""}
    asyncio.run(made(scope | {"headers": [(b"content-type", b"application/json")]}, receive, ignore))
    assert seen == ["http.disconnect"]
