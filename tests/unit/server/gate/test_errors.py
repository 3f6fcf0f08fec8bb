"""Errors have OpenAI's shape, whoever raised them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient
from vllm.entrypoints.serve.engine.protocol import ErrorInfo, ErrorResponse
from vllm.entrypoints.serve.exception_handling.register import init_exception_handler
from vllm.exceptions import VLLMValidationError

from server.gate.body import BodyLimits
from server.gate.error_shape import OpenAIErrors
from server.gate.errors import ErrorBody, install_error_handlers, reshaped
from server.requests.schemas import ScoredChatCompletionRequest, ScoredCompletionRequest

USER = {"role": "user", "content": "Hi"}
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def app(gate: bool = True) -> FastAPI:
    """`gate` leaves out what reads bodies, as stock `vllm serve` does."""
    made = FastAPI()
    if gate:
        made.add_middleware(BodyLimits)
    made.add_middleware(OpenAIErrors)
    made.state.args = SimpleNamespace(log_error_stack=False, max_body_bytes=10**6)
    made.state.openai_serving_models = SimpleNamespace(
        base_model_paths=[SimpleNamespace(name="m")], lora_requests={"m:base": None, "news": None}
    )

    @made.post(CHAT)
    async def chat(request: ScoredChatCompletionRequest) -> dict[str, bool]:
        if request.user == "long":
            raise VLLMValidationError("5,000 tokens are too many", parameter="input_tokens", value=5000)
        if request.user == "bug":
            raise LookupError("secret")
        return {"read": True}

    @made.post(TEXT)
    async def text(request: ScoredCompletionRequest) -> JSONResponse:
        error = ErrorInfo(message="no such model", type="NotFoundError", param="model", code=404)
        return JSONResponse(ErrorResponse(error=error).model_dump(), 404)

    @made.get("/anthropic")
    async def anthropic() -> JSONResponse:
        return JSONResponse({"type": "error", "error": {"type": "not_found_error", "message": "m"}}, 404)

    @made.get("/detail")
    async def detail() -> JSONResponse:
        return JSONResponse({"detail": "slow down"}, 429, {"Retry-After": "7"})

    @made.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b'{"error": '
            yield b'{"message": "m", "type": "BadRequestError", "param": null, "code": 400}}'

        return StreamingResponse(parts(), 400, media_type="application/json")

    install_error_handlers(made)  # vLLM's build_app goes on like this once the plugins are attached
    init_exception_handler(made)
    made.middleware_stack = made.build_middleware_stack()
    return made


@pytest.fixture(scope="module")
def http() -> TestClient:
    return TestClient(app(), raise_server_exceptions=False)


def error(response: Any, status: int = 400) -> dict[str, Any]:
    assert response.status_code == status, response.text
    ErrorBody.model_validate(response.json(), strict=True)
    found: dict[str, Any] = response.json()["error"]
    assert "\n" not in found["message"]
    return found


UNREADABLE: list[tuple[dict[str, Any], str | None, str, str]] = [
    ({"temperature": "x"}, "temperature", "invalid_value", "should be a valid number"),
    ({"messages": "Hi"}, "messages", "invalid_value", "must be a list"),
    ({"stop": ["a", 1]}, "stop[1]", "invalid_value", "should be a valid string"),
    ({"messages": [USER, {"role": "user", "content": 3}]}, "messages[1].content", "invalid_value", "a valid string"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter", "Missing"),
    ({"response_format": {"type": "x"}}, "response_format.type", "invalid_value", "'json_schema'"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format.json_schema.name",
        "missing_required_parameter",
        "Missing",
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
        "Missing",
    ),
    (
        {"structured_outputs": {"whitespace_pattern": "mine"}},
        "structured_outputs",
        "invalid_value",
        "none are specified",
    ),
    ({"tool_choice": "mine", "tools": [{"function": {"name": "f"}}]}, "tool_choice", "invalid_value", '"required"'),
    ({"uncertainty": {"mine": True}}, "uncertainty", "invalid_value", "has a field that is not known"),
    ({"uncertainty": {"internals": True}}, "uncertainty", "invalid_value", "has a field that is not known"),
    ({"tools": [{"function": {}}]}, "tools[0].function.name", "missing_required_parameter", "Missing"),
    ({"request_id": "mine mine"}, "request_id", "invalid_value", "should match pattern"),
    ({"uncertainty": "yes"}, "uncertainty", "invalid_value", "should be true, false or an object"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value", "`tools` must be set"),
]


@pytest.mark.parametrize(("fields", "param", "code", "words"), UNREADABLE, ids=str)
def test_what_is_wrong_is_named_in_one_line(
    http: TestClient, fields: dict[str, Any], param: str | None, code: str, words: str
) -> None:
    found = error(http.post(CHAT, json={"messages": [USER]} | fields))
    assert (found["param"], found["code"], found["type"]) == (param, code, "invalid_request_error")
    assert words in found["message"]
    assert "parameter=" not in found["message"] and "mine" not in found["message"]


def test_a_missing_parameter_is_named(http: TestClient) -> None:
    found = error(http.post(CHAT, json={}))
    assert found == {
        "message": "Missing required parameter: 'messages'.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "missing_required_parameter",
    }


@pytest.mark.parametrize(("body", "code"), [(b"{", "invalid_json"), (b"[]", "invalid_value"), (b"3", "invalid_value")])
def test_body_that_is_no_object(body: bytes, code: str) -> None:
    http = TestClient(app(gate=False), raise_server_exceptions=False)
    found = error(http.post(CHAT, content=body, headers={"Content-Type": "application/json"}))
    assert (found["param"], found["code"]) == (None, code)


def test_too_long_prompt_has_the_code_that_clients_look_for(http: TestClient) -> None:
    found = error(http.post(CHAT, json={"messages": [USER], "user": "long"}))
    assert (found["message"], found["param"]) == ("5,000 tokens are too many", "messages")
    assert found["code"] == "context_length_exceeded"


def test_an_unknown_model_gets_openais_code(http: TestClient) -> None:
    found = error(http.post(TEXT, json={"prompt": "x"}), 404)
    assert (found["type"], found["param"], found["code"]) == ("invalid_request_error", "model", "model_not_found")
    assert found["message"] == "The model does not exist; /v1/models lists those that do: m, m:base, news."


def test_unforeseen_failure_says_nothing_of_the_inside(http: TestClient) -> None:
    found = error(http.post(CHAT, json={"messages": [USER], "user": "bug"}), 500)
    assert (found["type"], found["code"]) == ("server_error", "internal_error")
    assert "secret" not in found["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", CHAT, 405)])
def test_unknown_routes_and_methods_get_errors_of_openais_shape(
    http: TestClient, method: str, path: str, status: int
) -> None:
    assert error(http.request(method, path), status)["type"] == "invalid_request_error"


def test_an_error_keeps_the_headers_of_its_response(http: TestClient) -> None:
    response = http.get("/detail")
    assert error(response, 429)["message"] == "slow down"
    assert response.headers["retry-after"] == "7"
    assert int(response.headers["content-length"]) == len(response.content)


def test_body_in_parts(http: TestClient) -> None:
    assert error(http.get("/stream"))["code"] == "bad_request"


def test_anthropics_errors_have_both_shapes(http: TestClient) -> None:
    found = http.get("/anthropic").json()
    assert found["type"] == "error"
    assert (error(http.get("/anthropic"), 404)["code"], found["error"]["param"]) == ("model_not_found", "model")


def shaped(message: str, body: dict[str, Any], param: str | None = None) -> dict[str, Any]:
    told = {"error": {"message": message, "type": "BadRequestError", "param": param, "code": 400}}
    response = reshaped(HTTPStatus.BAD_REQUEST, told, body)
    assert response is not None
    found: dict[str, Any] = json.loads(bytes(response.body))["error"]
    return found


VLLMS: list[tuple[str, str | None, dict[str, Any], str]] = [
    ("min_p must be in [0, 1], got 5.0.", None, {"prompt": "x", "min_p": 5}, "min_p"),
    ("Cannot set both `echo` and `n`.", None, {"prompt": "x", "n": 5}, "n"),
    ("a role that nobody knows", None, {"messages": []}, "messages"),
    ("Missing 'type' field in multimodal part.", "type", {"input": []}, "input"),
    (
        "max_tokens must be at least 1, got -4.",
        "max_tokens",
        {"input": "x", "max_output_tokens": -4},
        "max_output_tokens",
    ),
    ('tool_choice="required" requires --tool-call-parser', "tool_choice", {"messages": [], "tools": []}, "tools"),
    ("`content` is wrong", "messages[0].content", {"messages": [{"content": 5}]}, "messages[0].content"),
]


@pytest.mark.parametrize(("message", "param", "body", "expected"), VLLMS, ids=str)
def test_vllms_errors_name_a_parameter_of_the_body(
    message: str, param: str | None, body: dict[str, Any], expected: str
) -> None:
    assert shaped(message, body, param) == {
        "message": message,
        "type": "invalid_request_error",
        "param": expected,
        "code": "invalid_value",
    }


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("2 validation errors for ValidatorIterator\n0.Text\n  [input_value='mine']", "Invalid value for 'prompt'."),
        ("first\n  second", "first second"),
        (f"No `{'x' * 40}` and no ['{'y y ' * 10}']", "No `...` and no ['...']"),
        ("No 'name' and no `other`", "No 'name' and no `other`"),
        ("x" * 1000, "x" * 300 + "..."),
        ("Wrong (parameter=prompt, value=mine)", "Wrong"),
        ("Wrong (value=mine)", "Wrong"),
    ],
)
def test_vllms_errors_have_one_line_without_what_the_client_sent(message: str, expected: str) -> None:
    assert shaped(message, {"prompt": "mine"})["message"] == expected


def test_answers_pass_unchanged(http: TestClient) -> None:
    assert http.post(CHAT, json={"messages": [USER]}).json() == {"read": True}
