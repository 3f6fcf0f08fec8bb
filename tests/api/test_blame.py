"""Errors that blame the right parameter, also where a part of the request was once dropped in silence."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.servers import Server

pytestmark = pytest.mark.server

USER = [{"role": "user", "content": "Hi"}]
TEXT, BATCH, RESPONSES, MESSAGES = "/v1/completions", "/v1/chat/completions/batch", "/v1/responses", "/v1/messages"
BASE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": USER, "max_tokens": 1},
    "/v1/uncertainty": {"prompt": "Hi", "completion": "x"},
    BATCH: {"messages": [USER], "max_tokens": 1},
    TEXT: {"max_tokens": 1},
    RESPONSES: {"input": "Hi", "max_output_tokens": 1, "store": False},
    MESSAGES: {"messages": USER, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": USER},
}


def message(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    (MESSAGES, {"max_tokens": 10**9}, "max_tokens", "max_tokens=1000000000 cannot"),
    (TEXT, {"prompt": ["x"] * 300}, "prompt", "`prompt` makes 300"),
    (TEXT, {"prompt": ["x"] * 3, "n": 100}, "n", "`n` makes 300"),
    ("/v1/uncertainty", {"completion": ["x"] * 128, "n": 3}, "n", "`n` makes"),
    (BATCH, {"messages": [USER] * 300}, "messages", "`messages` makes 300"),
    (TEXT, {"prompt": ["x"] * 1025}, "prompt", "at most 1024 prompts"),
    (TEXT, {}, "prompt", "`prompt` must be given"),
    (TEXT, {"prompt": ""}, "prompt", "`prompt` must be given"),
    (TEXT, {"prompt": [1, "a"]}, "prompt[1]", "a list of token ids"),
    (TEXT, {"prompt": ["a", 1]}, "prompt[1]", "a list of token ids"),
    (TEXT, {"prompt": [True]}, "prompt[0]", "a list of token ids"),
    (TEXT, {"prompt": [[5], [5, True]]}, "prompt[1][1]", "a list of token ids"),
    (RESPONSES, {"background": True, "store": True}, "background", "stores nothing"),
    (RESPONSES, {"top_logprobs": 50}, "top_logprobs", "20"),
    (BATCH, {"stream": True}, "stream", "not supported"),
    (RESPONSES, {"input": [message([{"type": "input_text"}])]}, "input[0].content[0].text", "Missing"),
    (RESPONSES, {"input": [message("x", role="wizard")]}, "input[0].role", "'user', 'assistant'"),
    (RESPONSES, {"input": [{"role": "user"}]}, "input[0].content", "Missing"),
    (RESPONSES, {"input": [message(["bare"])]}, "input[0].content[0]", "an object"),
    (RESPONSES, {"input": [message(5)]}, "input[0].content", "a valid string"),
    (RESPONSES, {"input": [message([{"type": "text", "text": "x"}])]}, "input[0].content[0].type", "'input_text'"),
    (RESPONSES, {"input": [message("x"), message(5, type="message")]}, "input[1].content", "a valid string"),
    (RESPONSES, {"input": [{"type": "function_call", "call_id": "a", "name": "f"}]}, "input[0].arguments", "Missing"),
    (RESPONSES, {"tools": [{"type": "function"}]}, "tools[0].name", "Missing"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", "Missing"),
    (RESPONSES, {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", "Missing"),
]
WRONG += [
    (route, fields, param, words)
    for route in (MESSAGES, "/v1/messages/count_tokens")
    for fields, param, words in (
        (
            {"messages": [message([{"type": "text"}, {"type": "text", "text": "x"}])]},
            "messages[0].content[0]",
            "`text`",
        ),
        ({"messages": [message([{"type": "text", "text": None}])]}, "messages[0].content[0]", "`text`"),
        (
            {"messages": [message([{"type": "text", "text": "x"}, {"type": "thinking"}])]},
            "messages[0].content[1]",
            "need",
        ),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "`tools`"),
        ({"tool_choice": {"type": "any"}, "tools": []}, "tool_choice", "`tools`"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice", "`tools`"),
        ({"system": [{"type": "text"}]}, "system[0]", "`text`"),
        ({"system": [{"type": "thinking", "thinking": "x"}]}, "system[0]", "text only"),
    )
]
WRONG += [
    (route, {"prompt": "Hi"} | {name: {"a": 1}} if route == TEXT else {name: {"a": 1}}, name, f"no `{name}`")
    for name in ("kv_transfer_params", "ec_transfer_params")
    for route in ("/v1/chat/completions", TEXT, BATCH, RESPONSES, MESSAGES)
]


@pytest.mark.parametrize(("route", "fields", "param", "words"), WRONG, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_blamed(demo: Server, route: str, fields: dict[str, Any], param: str, words: str) -> None:
    body = {"model": "demo", **BASE[route], **fields}
    answer = httpx.post(demo.url + route, json=body, timeout=60)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param, error
    assert words in error["message"]
    assert error["code"] in ("invalid_value", "missing_required_parameter", "too_many_sequences")
    assert "environment" not in error["message"] and "prompt_embeds" not in error["message"]
