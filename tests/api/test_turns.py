"""A second turn, with the first turn as clients send it back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.facts import ANSWER, KNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

QUESTION, SAID, NEXT = KNOWN, ANSWER, "And who are you?"


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(client: OpenAI) -> str:
    """The answer of a chat with the same turns in a chat's own form."""
    messages: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": SAID},
        {"role": "user", "content": NEXT},
    ]
    answer = client.chat.completions.create(model="demo", messages=messages, temperature=0, max_tokens=24)
    assert answer.choices[0].message.content
    return answer.choices[0].message.content


def respond(client: OpenAI, *turns: Any) -> str:
    answer = client.responses.create(model="demo", input=list(turns), temperature=0, max_output_tokens=24)
    return answer.output_text


ASKED = {"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}
ASKED_NEXT = {"role": "user", "content": [{"type": "input_text", "text": NEXT}]}
TEXT = {"type": "output_text", "text": SAID}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": [TEXT]},
        {"role": "assistant", "content": [TEXT], "id": "msg_1"},
        {"type": "message", "role": "assistant", "content": [TEXT | {"annotations": []}], "id": "msg_1"},
        {"type": "message", "role": "assistant", "content": [TEXT | {"annotations": None}], "id": None, "status": None},
        {"role": "assistant", "content": [TEXT | {"text": SAID[:9]}, TEXT | {"text": SAID[9:]}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": SAID}]},
        {"role": "assistant", "content": SAID},
    ],
    ids=["AI SDK", "AI SDK with an id", "LangChain", "nulls", "two parts", "refusal", "text"],
)
def test_responses_take_an_earlier_turn(client: OpenAI, expected: str, turn: Any) -> None:
    assert respond(client, ASKED, turn, ASKED_NEXT) == expected


@pytest.mark.demo_only
def test_responses_take_their_own_items_back(client: OpenAI, expected: str) -> None:
    first = client.responses.create(model="demo", input=QUESTION, temperature=0)
    assert first.output_text == SAID
    asked = {"role": "user", "content": QUESTION}
    for items in (first.output, [item.model_dump() for item in first.output]):
        assert respond(client, asked, *items, ASKED_NEXT) == expected


def test_responses_take_reasoning_back(client: OpenAI, expected: str) -> None:
    """The demo's chat template shows none of it."""
    for more in ({"summary": []}, {"summary": [{"type": "summary_text", "text": "Hm."}]}, {"content": None}):
        turn = {"type": "reasoning", "id": "rs_1", "encrypted_content": None, **more}
        assert respond(client, ASKED, turn, {"role": "assistant", "content": [TEXT]}, ASKED_NEXT) == expected


@pytest.mark.parametrize(
    "content",
    [
        SAID,
        [{"type": "text", "text": SAID, "citations": None}],
        [{"type": "thinking", "thinking": "Hm.", "signature": "abc"}, {"type": "text", "text": SAID}],
        [{"type": "redacted_thinking", "data": "abc"}, {"type": "text", "text": SAID}],
    ],
    ids=["text", "parts", "thinking", "redacted"],
)
def test_messages_take_an_earlier_turn(http: httpx.Client, expected: str, content: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": content},
        {"role": "user", "content": NEXT},
    ]
    body = {"model": "demo", "messages": messages, "max_tokens": 24, "temperature": 0}
    assert http.post("/v1/messages", json=body).json()["content"][0]["text"] == expected
