"""Every error of every route, as OpenAI's clients read it: wrong requests are made from the OpenAPI document."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from server.gate.errors import LONGEST_MESSAGE
from tests.faults.walk import MARKER, Walk
from tests.support.routes import by_route
from tests.support.servers import Server

pytestmark = pytest.mark.server

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
FEW, ALL = 3, 6
"""Levels of a route's schema to follow. Those of OpenAI's responses would take a thousand times longer."""

GOOD: list[tuple[str, dict[str, Any], int]] = [
    (CHAT, {"messages": MESSAGES, "max_tokens": 1}, ALL),
    (CHAT, {"messages": MESSAGES, "max_tokens": 1, "stream": True}, FEW),
    (CHAT, {"messages": MESSAGES, "max_tokens": 1, "logprobs": True}, FEW),
    (CHAT, {"messages": MESSAGES, "max_tokens": 1, "tools": TOOLS}, FEW),
    ("/v1/chat/completions/batch", {"messages": [MESSAGES], "max_tokens": 1}, ALL),
    (TEXT, {"prompt": "Hi", "max_tokens": 1}, ALL),
    (TEXT, {"prompt": "Hi", "max_tokens": 1, "stream": True}, FEW),
    ("/v1/uncertainty", {"prompt": "Hi", "completion": "x"}, ALL),
    ("/v1/uncertainty", {"messages": MESSAGES, "completion": "x"}, ALL),
    ("/v1/trace", {"prompt": "Hi"}, ALL),
    ("/v1/trace", {"messages": MESSAGES}, ALL),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 1, "store": False}, FEW),
    ("/v1/messages", {"messages": MESSAGES, "max_tokens": 1}, FEW),
    ("/v1/messages/count_tokens", {"messages": MESSAGES}, FEW),
    ("/tokenize", {"prompt": "Hi"}, ALL),
    ("/tokenize", {"messages": MESSAGES}, ALL),
    ("/detokenize", {"tokens": [5]}, ALL),
]
"""Each route with its answer, and requests to it that are wrong in one place."""

HIDDEN = [(CHAT, {"messages": MESSAGES, "max_tokens": 1}), (TEXT, {"prompt": "Hi", "max_tokens": 1})]
"""Requests to `/invocations`, which no document describes except as these two."""


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60, headers={"content-type": "application/json"}) as opened:
        yield opened


@pytest.fixture(scope="module")
def walk(http: httpx.Client) -> Walk:
    return Walk(http.get("/openapi.json").json())


def found(body: Any, param: str) -> bool:
    """Whether a body has a parameter, which is written as `messages[0].role`."""
    for index, name in re.findall(r"\[(\d+)\]|([^.\[\]]+)", param):
        try:
            body = body[int(index) if index else name]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def complaint(body: dict[str, Any], answer: httpx.Response) -> str | None:
    """The fault of an answer; None if it has none."""
    if answer.status_code >= 500:
        return "the server failed"
    if answer.status_code < 400:
        return None
    error = answer.json()["error"]
    if error.keys() != {"message", "type", "param", "code"} or not isinstance(error["code"], str):
        return "not OpenAI's shape"
    message = error["message"]
    if "\n" in message or len(message) > LONGEST_MESSAGE + 3:
        return "not one line"
    if "pydantic" in message or "validation error" in message:
        return "pydantic's own text"
    if MARKER in answer.text:
        return "repeats what the client sent"
    if error["param"] is None:
        return "names no parameter"
    if found(body, error["param"]) == (error["code"] == "missing_required_parameter"):
        return "names another parameter"
    return None


def complaints(http: httpx.Client, route: str, bodies: Iterator[dict[str, Any]]) -> list[str]:
    def ask(body: dict[str, Any]) -> str | None:
        answer = http.post(route, content=json.dumps(body))
        while answer.status_code == HTTPStatus.TOO_MANY_REQUESTS:  # which says nothing of this body
            time.sleep(0.1 * float(answer.headers["retry-after"]))
            answer = http.post(route, content=json.dumps(body))
        wrong = complaint(body, answer)
        return wrong and f"{wrong}: {json.dumps(body)[:300]} -> {answer.text[:300]}"

    with ThreadPoolExecutor(4) as pool:
        return [wrong for wrong in pool.map(ask, bodies) if wrong]


@pytest.mark.demo_only
def test_no_route_is_left_out(walk: Walk) -> None:
    assert {route for route, _ in walk.routes()} == {route for route, _, _ in GOOD}


@pytest.mark.parametrize(("route", "good", "levels"), by_route(GOOD), ids=lambda value: str(value)[:60])
def test_errors_name_the_parameter_and_nothing_else(
    http: httpx.Client, walk: Walk, route: str, good: dict[str, Any], levels: int
) -> None:
    bodies = walk.bodies(dict(walk.routes())[route], {"model": "demo", **good}, levels)
    assert complaints(http, route, bodies) == []


@pytest.mark.parametrize(("described", "good"), HIDDEN, ids=lambda value: str(value)[:60])
def test_so_do_those_of_the_route_for_sagemaker(
    http: httpx.Client, walk: Walk, described: str, good: dict[str, Any]
) -> None:
    bodies = walk.bodies(dict(walk.routes())[described], {"model": "demo", **good}, FEW)
    assert complaints(http, "/invocations", bodies) == []


@pytest.mark.parametrize("route", by_route([*(route for route, _, _ in GOOD), "/invocations"]))
def test_an_empty_body_is_called_so(http: httpx.Client, route: str) -> None:
    error = http.post(route, content=b"").json()["error"]
    assert error == {
        "message": "The body is empty; it must be a JSON object.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_json",
    }


FULL: list[tuple[str, str, dict[str, Any]]] = [
    (TEXT, "prompt", {}),
    (TEXT, "prompt", {"max_tokens": 1}),
    (TEXT, "prompt", {"max_tokens": 5, "stream": True}),
    (TEXT, "prompt", {"max_tokens": 0, "echo": True}),
    (CHAT, "messages", {}),
    (CHAT, "messages", {"max_tokens": 5}),
    (CHAT, "messages", {"max_completion_tokens": 5, "stream": True}),
    ("/v1/chat/completions/batch", "messages", {}),
    ("/v1/uncertainty", "prompt", {"completion": "x"}),
    ("/v1/uncertainty", "messages", {"completion": "x"}),
    ("/v1/responses", "input", {"store": False}),
    ("/v1/messages", "messages", {"max_tokens": 5}),
]


@pytest.fixture(scope="module")
def filling(http: httpx.Client) -> dict[str, Any]:
    """Prompts that fill the context to the last token, by the name of their parameter."""

    def count(text: str) -> dict[str, int]:
        messages = [{"role": "user", "content": text}]
        counted: dict[str, int] = http.post("/tokenize", content=json.dumps({"messages": messages})).json()
        return counted

    word = " the"
    limit, least = count(word)["max_model_len"], count(word)["count"]
    text = word * (limit - least + 1)
    assert count(text)["count"] == limit
    return {"prompt": [5] * limit, "messages": [{"role": "user", "content": text}], "input": text}


@pytest.mark.parametrize(("route", "name", "fields"), FULL, ids=str)
def test_a_prompt_that_fills_the_context_exceeds_it(
    http: httpx.Client, filling: dict[str, Any], route: str, name: str, fields: dict[str, Any]
) -> None:
    value = [filling[name]] if route.endswith("batch") else filling[name]
    answer = http.post(route, content=json.dumps({"model": "demo", name: value, **fields}))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, name, "context_length_exceeded")


def test_a_completion_that_does_not_fit_is_to_blame_itself(http: httpx.Client) -> None:
    for prompt, completion in ((500, "x y z" * 10), (1, "x" * 100_000)):
        body = {"model": "demo", "prompt": [5] * prompt, "completion": completion}
        error = http.post("/v1/uncertainty", content=json.dumps(body)).json()["error"]
        assert (error["param"], error["code"]) == ("completion", "context_length_exceeded")
        assert "prompt contains" not in error["message"]


def test_no_tokens_are_a_wrong_number_where_the_client_asks_for_them(http: httpx.Client) -> None:
    body = {"model": "demo", "prompt": "Hi", "max_tokens": 0}
    error = http.post(TEXT, content=json.dumps(body)).json()["error"]
    assert (error["param"], error["code"]) == ("max_tokens", "invalid_value")
