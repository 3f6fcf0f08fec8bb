"""Validation that stops at the first wrong item."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ValidationError
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

from server.api.protocols.conversations import Batch
from server.gate.errors import install_error_handlers
from server.requests.fail_fast import fail_fast, validated
from server.requests.schemas import ScoredChatCompletionRequest, ScoredCompletionRequest

MANY = 10_000
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("model", "body", "most"),
    [
        (ResponsesRequest, {"input": [{}] * MANY}, 300),
        (ResponsesRequest, {"input": [{"role": "user", "content": [{}] * MANY}]}, 300),
        (ResponsesRequest, {"input": "Hi", "tools": [1] * MANY}, 100),
        (ScoredChatCompletionRequest, {"messages": [{}] * MANY}, 4),
        (ScoredChatCompletionRequest, {"messages": [{"role": "user", "content": [{}] * MANY}]}, 4),
        (ScoredChatCompletionRequest, {"messages": MESSAGES, "tools": [1] * MANY}, 4),
        (ScoredCompletionRequest, {"prompt": "x", "logit_bias": {str(i): "x" for i in range(MANY)}}, 4),
        (ScoredCompletionRequest, {"prompt": "x", "stop": [1] * MANY}, 2),
        (Batch, {"messages": [[{}] * MANY] * 2}, 4),
        (AnthropicMessagesRequest, {"model": "x", "max_tokens": 1, "messages": [{}] * MANY}, 4),
    ],
    ids=lambda value: str(value)[:50],
)
def test_errors_are_those_of_one_item(model: type[BaseModel], body: dict[str, Any], most: int) -> None:
    with pytest.raises(ValidationError) as refused:
        validated(model, body)
    assert 1 <= refused.value.error_count() <= most


def test_what_is_right_is_read_as_ever() -> None:
    body = {"messages": MESSAGES, "n": 2, "logit_bias": {"5": 1}}
    read, expected = validated(ScoredChatCompletionRequest, body), ScoredChatCompletionRequest(**body)
    assert read.model_dump(exclude={"request_id"}) == expected.model_dump(exclude={"request_id"})


def test_the_bodies_of_routes_are_read_so() -> None:
    app = FastAPI()
    taken: list[ScoredChatCompletionRequest] = []

    @app.post("/")
    def take(request: ScoredChatCompletionRequest) -> None:
        taken.append(request)

    fail_fast(app)
    install_error_handlers(app)
    with TestClient(app) as client:
        refused = client.post("/", json={"messages": [{}] * MANY})
        assert refused.json()["error"]["param"] == "messages[0].role"
        assert client.post("/", json={"messages": MESSAGES}).status_code == 200
    assert [request.messages for request in taken] == [MESSAGES]
