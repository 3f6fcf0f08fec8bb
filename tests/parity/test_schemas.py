"""Answers have the shape that the server's OpenAPI document and OpenAI's published schema promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.api.test_chat import calling_a_tool
from tests.support.servers import Server

pytestmark = pytest.mark.server

CHAT, TEXT, GIVEN = "/v1/chat/completions", "/v1/completions", "/v1/uncertainty"
MESSAGES = [{"role": "user", "content": "Who are you?"}]

REQUIRED: dict[str, dict[str, set[str]]] = {
    "chat.completion": {
        "answer": {"id", "object", "created", "model", "choices", "usage"},
        "choice": {"index", "message", "logprobs", "finish_reason"},
        "logprobs": {"content", "refusal"},
    },
    "chat.completion.chunk": {
        "answer": {"id", "object", "created", "model", "choices"},
        "choice": {"index", "delta", "logprobs", "finish_reason"},
        "logprobs": {"content", "refusal"},
    },
    "text_completion": {
        "answer": {"id", "object", "created", "model", "choices"},
        "choice": {"index", "text", "logprobs", "finish_reason"},
        "logprobs": {"tokens", "token_logprobs", "top_logprobs", "text_offset"},
    },
}
"""The fields that OpenAI's published schemas require; such a field may be null, but is never missing."""

REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": MESSAGES}),
    "chat with logprobs": (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 1}),
    "chat with all that can be asked": (
        CHAT,
        {"messages": MESSAGES, "uncertainty": {"tokens": True, "spans": True, "ensemble": 2}, "max_tokens": 4},
    ),
    "chat without uncertainty": (CHAT, {"messages": MESSAGES, "uncertainty": False}),
    "tools": (CHAT, {"messages": MESSAGES, **calling_a_tool()}),
    "completion": (TEXT, {"prompt": "Hi", "max_tokens": 4}),
    "completion with logprobs": (
        TEXT,
        {"prompt": ["Hi", "Who"], "logprobs": 2, "max_tokens": 4, "n": 2, "temperature": 1},
    ),
    "completion with all that can be asked": (
        TEXT,
        {"prompt": "Hi", "uncertainty": {"tokens": True, "spans": True, "ensemble": 2}, "max_tokens": 4},
    ),
}


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60) as opened:
        yield opened


@pytest.fixture(scope="module")
def document(http: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = http.get("/openapi.json").json()
    return found


def validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def documented(document: dict[str, Any], path: str, status: str, kind: str = "application/json") -> dict[str, Any]:
    schema: dict[str, Any] = document["paths"][path]["post"]["responses"][status]["content"][kind]["schema"]
    return schema


def assert_has_required(answer: dict[str, Any]) -> None:
    required = REQUIRED[answer["object"]]
    assert required["answer"] <= answer.keys()
    for choice in answer["choices"]:
        assert required["choice"] <= choice.keys()
        if choice["logprobs"] is not None:
            assert required["logprobs"] <= choice["logprobs"].keys()
        if "message" in choice:
            assert {"role", "content", "refusal"} <= choice["message"].keys()


def asks_for_logprobs(body: dict[str, Any]) -> bool:
    options = body.get("uncertainty")
    return "logprobs" in body or (isinstance(options, dict) and options.get("tokens", False))


@pytest.mark.parametrize("case", REQUESTS)
def test_answers_follow_the_document_and_have_logprobs_only_on_request(
    http: httpx.Client, document: dict[str, Any], case: str
) -> None:
    path, body = REQUESTS[case]
    response = http.post(path, json={"model": "demo", **body})
    answer = response.json()
    assert response.status_code == 200, answer
    validate(document, documented(document, path, "200"), answer)
    assert_has_required(answer)
    (ChatCompletion if path == CHAT else Completion).model_validate(answer, strict=True)
    for choice in answer["choices"]:
        assert (choice["logprobs"] is not None) == asks_for_logprobs(body)


@pytest.mark.parametrize("case", REQUESTS)
def test_chunks_follow_the_document_and_their_stream_ends_with_done(
    http: httpx.Client, document: dict[str, Any], case: str
) -> None:
    path, body = REQUESTS[case]
    options = {"stream": True, "stream_options": {"include_usage": True}}
    response = http.post(path, json={"model": "demo", **body, **options})
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, done, end = response.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    for event in events:
        chunk = json.loads(event.removeprefix("data: "))
        validate(document, documented(document, path, "200", "text/event-stream"), chunk)
        assert_has_required(chunk)
        if (
            path == CHAT
        ):  # the client has no class for chunks of completions, which end without a reason but for the last
            ChatCompletionChunk.model_validate(chunk, strict=True)


def test_scores_of_a_given_text_follow_the_document(http: httpx.Client, document: dict[str, Any]) -> None:
    answer = http.post(GIVEN, json={"model": "demo", "prompt": "Hi", "completion": " there", "top_logprobs": 2}).json()
    validate(document, documented(document, GIVEN, "200"), answer)


@pytest.mark.parametrize("path", [CHAT, TEXT, GIVEN, "/tokenize", "/v1/chat/completions/batch"])
@pytest.mark.parametrize(("model", "status"), [("demo", 400), ("none", 404)])
def test_errors_follow_the_document(
    http: httpx.Client, document: dict[str, Any], path: str, model: str, status: int
) -> None:
    body: dict[str, Any] = {"prompt": "Hi", "messages": MESSAGES}
    if path == GIVEN:
        body = {"prompt": "Hi", "completion": "x"}
    if path.endswith("batch"):
        body = {"messages": [MESSAGES]}
    wrong = {"prompt": {}, "messages": {}} if status == 400 else {}
    response = http.post(path, json={"model": model, **body, **wrong})
    assert response.status_code == status, response.text
    validate(document, documented(document, path, str(status)), response.json())


def test_the_document_promises_no_answer_that_does_not_come(document: dict[str, Any]) -> None:
    """FastAPI documents a 422 wherever it validates; vLLM answers with 400. Ours are refusals of doubted answers."""
    promised = {path: [found["responses"] for found in methods.values()] for path, methods in document["paths"].items()}
    assert {path for path, found in promised.items() if any("422" in one for one in found)} == {CHAT, TEXT}
    for path in (CHAT, TEXT, GIVEN):
        assert {"400", "401", "404", "413", "415", "429", "503"} <= document["paths"][path]["post"]["responses"].keys()
