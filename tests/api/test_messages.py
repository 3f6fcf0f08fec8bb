"""Every route that takes messages accepts and refuses the same ones."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.routes import by_route
from tests.support.servers import Server

pytestmark = pytest.mark.server

CHAT = "/v1/chat/completions"
ROUTES: dict[str, dict[str, Any]] = {
    CHAT: {"max_tokens": 1},
    "/invocations": {"max_tokens": 1},
    "/v1/chat/completions/batch": {"max_tokens": 1},
    "/v1/uncertainty": {"completion": "x"},
    "/v1/trace": {},
    "/tokenize": {},
}
TEXT = {"type": "text", "text": "Where"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

WRONG_CONTENT: dict[str, Any] = {
    "messages[0].content": None,
    "messages[0].content[0]": ["a text that is no part"],
    "messages[0].content[1]": [TEXT, "a text that is no part"],
    "messages[0].content[2]": [TEXT, TEXT, None],
    "messages[0].content[0].text": [{"type": "text", "text": None}, TEXT],
    "messages[0].content[1].text": [TEXT, {"type": "text", "text": ["a text in a list"]}],
    "messages[0].content[0].type": [{"text": "a text without a type"}],
    "messages[0].content[1].type": [TEXT, {"type": "a type that there is not", "text": "a text"}],
    "messages[0].content[2].type": [TEXT, TEXT, {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/"}}],
}
RIGHT = [
    [{"role": "user", "content": [TEXT]}],
    [{"role": "user", "content": [TEXT, {"type": "input_text", "text": "?"}]}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [CALL]}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": []}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "tool_calls": None}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
]
WRONG_MESSAGES: dict[str, Any] = {
    "messages": [],
    "messages[0]": [5],
    "messages[0].role": [{"content": "x"}],
    "messages[0].content": [{"role": "user"}],
    "messages[1].tool_calls": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": 5}],
    "messages[1].tool_calls[0].id": [{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [{}]}],
}


def ask(server: Server, route: str, messages: Any) -> httpx.Response:
    batch = route.endswith("batch")
    body = {"model": "demo", "messages": [messages] if batch else messages, **ROUTES[route]}
    return httpx.post(server.url + route, content=json.dumps(body), headers={"content-type": "application/json"})


def assert_refused(server: Server, route: str, messages: Any, param: str) -> None:
    answer = ask(server, route, messages)
    error = answer.json()["error"]
    expected = param.replace("messages", "messages[0]", 1) if route.endswith("batch") else param
    assert (answer.status_code, error["param"]) == (400, expected), error
    assert error["code"] in ("invalid_value", "missing_required_parameter")
    assert "\n" not in error["message"]
    assert "a text" not in error["message"] and "a type" not in error["message"]


@pytest.mark.parametrize("route", by_route(ROUTES))
@pytest.mark.parametrize(("param", "content"), WRONG_CONTENT.items(), ids=str)
def test_a_malformed_part_is_named_and_takes_no_good_one_with_it(
    demo: Server, route: str, param: str, content: Any
) -> None:
    assert_refused(demo, route, [{"role": "user", "content": content}], param)


@pytest.mark.parametrize("route", by_route(ROUTES))
@pytest.mark.parametrize(("param", "messages"), WRONG_MESSAGES.items(), ids=str)
def test_a_malformed_message_is_named(demo: Server, route: str, param: str, messages: Any) -> None:
    assert_refused(demo, route, messages, param)


@pytest.mark.parametrize("route", by_route(ROUTES))
@pytest.mark.parametrize("messages", RIGHT, ids=str)
def test_well_formed_messages_are_taken(demo: Server, route: str, messages: Any) -> None:
    answer = ask(demo, route, messages)
    assert answer.status_code == 200, answer.text


def test_parts_are_the_prompt_that_is_scored(demo: Server) -> None:
    """As many tokens as the chat's prompt has, from texts that the server reads once."""
    messages = [{"role": "user", "content": [TEXT, {"type": "text", "text": "does Ann live?"}]}]
    asked = {route: ask(demo, route, messages).json() for route in (CHAT, "/v1/uncertainty", "/tokenize")}
    counts = {asked[CHAT]["usage"]["prompt_tokens"], asked["/v1/uncertainty"]["usage"]["prompt_tokens"]}
    assert counts == {asked["/tokenize"]["count"]}
    whole = ask(demo, "/tokenize", [{"role": "user", "content": "Where\ndoes Ann live?"}]).json()
    assert whole["tokens"] == asked["/tokenize"]["tokens"]
