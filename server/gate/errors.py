"""Errors in OpenAI's shape: ours, those of FastAPI's validation, and vLLM's where theirs differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import State
from starlette.types import ASGIApp

from model_impl.faults import written
from server.requests.parameters import LIMITS, PROMPTS, prompt_of, to_blame

if TYPE_CHECKING:
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

INPUT_TOKENS = "input_tokens"
"""The parameter in vLLM's errors about a prompt that does not fit into the context."""

COMPLETION_TOKENS = "completion_tokens"
"""The parameter in our errors about a given completion that does not fit."""

TOO_LONG = ("input_text", INPUT_TOKENS, COMPLETION_TOKENS)

LONGEST_MESSAGE = 300

NO_ROOM = "The prompt fills the model's context and leaves no token for an answer."
FULL = ("The engine prompt length ", "The decoder prompt (length ")
"""Beginnings of vLLM's errors about a prompt that fills the context to the last token."""

NONE_LEFT = "max_tokens must be at least 1, got 0"
"""Another such beginning, unless the client itself asked for 0."""

_APPENDED = re.compile(r" \((?:parameter=([^,)]*)|value=).*", re.DOTALL)
"""The appendix that vLLM's errors write behind their message."""

_LIMIT = re.compile(r"\w+(?==\d)")
"""vLLM's own name for a limit, with which its errors about too high a limit begin."""

_QUOTED = re.compile(r"(?<![^\s(\[{])(['`\"])[^'`\"]{32,}\1")
"""A quotation that is too long to be a name."""

_DUMPED = re.compile(r"\d+ validation errors? for ")
"""Beginning of pydantic's error texts, which have many lines and hold the client's values."""


class OpenAIError(BaseModel):
    message: str = Field(description="What is wrong, in one line for a person.")
    type: str = Field(description="`invalid_request_error` where the request is to be changed, and others.")
    param: str | None = Field(description="The parameter that is to blame, as `messages[0].role`, if it is one.")
    code: str | None = Field(description="What is wrong, for a program: `context_length_exceeded` and others.")


class ErrorBody(BaseModel):
    """The body of every response from 400 on, as OpenAI's clients read it."""

    error: OpenAIError


def openai_error(
    status: HTTPStatus,
    message: str,
    *,
    code: str,
    type: str = "invalid_request_error",
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error in OpenAI's shape: `code` for programs, `message` for people."""
    error = {"message": message, "type": type, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status.value, headers=dict(headers or {}))


def no_such_model(names: Iterable[str]) -> str:
    """The error of an unknown model, with the `names` of those that are served."""
    return f"The model does not exist; /v1/models lists those that do: {', '.join(names)}."


def served_names(state: State) -> list[str]:
    """The names of the model, its growth stages, and the deltas that are loaded."""
    models: OpenAIServingModels = state.openai_serving_models
    return [*(base.name for base in models.base_model_paths), *models.lora_requests]


def reshaped(
    status: HTTPStatus, content: Any, body: Mapping[str, Any], state: State | None = None
) -> JSONResponse | None:
    """vLLM's or FastAPI's JSON error in OpenAI's shape; None if it has that shape already. Anthropic's errors keep
    their own fields beside OpenAI's. `body` is the request's, and `state` the app's."""
    error = content.get("error") if isinstance(content, dict) else None
    anthropic = isinstance(content, dict) and content.get("type") == "error"
    if isinstance(error, dict) and (anthropic or isinstance(error.get("code"), int)):
        told, param = str(error.get("message")), error.get("param")
    elif isinstance(content, dict) and isinstance(content.get("detail"), str):
        told, param = content["detail"], None
    else:
        return None
    if (appended := _APPENDED.search(told)) is not None:
        told, param = told[: appended.start()], param or appended[1]
    asked = (body.get("max_tokens"), body.get("max_output_tokens"))
    if told.startswith(FULL) or (told.startswith(NONE_LEFT) and 0 not in asked):
        told, param = NO_ROOM, INPUT_TOKENS
    elif status == HTTPStatus.NOT_FOUND and (param == "model" or anthropic):
        told, param = no_such_model(served_names(state)) if state else told, "model"
    param, code = _blame(status, param, told, body)
    if param in LIMITS and (named := _LIMIT.match(told)) is not None:
        told = f"{param}{told[named.end() :]}"
    message = f"Invalid value for '{param}'." if _DUMPED.match(told) else _one_line(told)
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    shaped = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"type": "error", "error": shaped} if anthropic else {"error": shaped}, status.value)


def _blame(status: HTTPStatus, param: str | None, told: str, body: Mapping[str, Any]) -> tuple[str | None, str]:
    """The parameter of the body that an error is about, and the error's code."""
    if (status, param) == (HTTPStatus.NOT_FOUND, "model"):
        return param, "model_not_found"
    if param in TOO_LONG:
        return "completion" if param == COMPLETION_TOKENS else prompt_of(body), "context_length_exceeded"
    if param in PROMPTS and prompt_of(body) is None:
        return param, "missing_required_parameter"
    if body and (status == HTTPStatus.BAD_REQUEST or (param and status == HTTPStatus.NOT_FOUND)):
        param = to_blame(param, told, body)
    code = status.phrase.lower().replace(" ", "_")
    return param, "invalid_value" if param and status == HTTPStatus.BAD_REQUEST else code


def _one_line(message: str) -> str:
    line = _QUOTED.sub(r"\1...\1", " ".join(message.split()))
    return line if len(line) <= LONGEST_MESSAGE else f"{line[:LONGEST_MESSAGE]}..."


async def refuse_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Answer a request that FastAPI could not read, in one line."""
    # vLLM's validators change FastAPI's body; the gate keeps the one that the client sent.
    return _invalid(error.errors(), getattr(request.state, "json", error.body))


async def internal_error(request: Request, error: Exception) -> JSONResponse:
    """Answer an unforeseen error. Its traceback goes to the log only."""
    message = "The server had an error while processing the request; its log says more."
    return openai_error(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error", type="server_error")


def install_error_handlers(app: FastAPI) -> None:
    """Replace vLLM's handlers, which are set after all endpoint plugins and before the app builds its middleware.

    The app must build it only once: a second instrumentator would find its metrics registered and count nothing.
    """
    build = app.build_middleware_stack

    def build_with_handlers() -> ASGIApp:
        app.exception_handler(RequestValidationError)(refuse_invalid)
        app.exception_handler(Exception)(internal_error)
        return build()

    app.build_middleware_stack = build_with_handlers  # type: ignore[method-assign]


def _invalid(errors: Sequence[Any], body: Any) -> JSONResponse:
    """Pydantic reports an error for every member of a union. The path with the most errors is blamed; among several,
    the deepest one."""
    plain = [error for error in errors if not isinstance(error, dict)]
    if plain:  # of vLLM's `validate_json_request`
        return openai_error(HTTPStatus.BAD_REQUEST, str(plain[0]), code="invalid_request")
    paths = [_path(error, body) for error in errors]
    counts = Counter(paths)
    path = max(counts, key=lambda path: (counts[path], len(path)))
    found = [error for error, where in zip(errors, paths, strict=True) if where == path]
    param, kind = written(path), found[0]["type"]
    if kind == "json_invalid":
        message, code = f"The body is not valid JSON: {found[0]['ctx']['error']}.", "invalid_json"
    elif kind == "missing" and param is None:
        message, code = "The body is empty; it must be a JSON object.", "invalid_json"
    elif kind == "missing":
        message, code = f"Missing required parameter: '{param}'.", "missing_required_parameter"
    else:
        wishes = " or ".join(dict.fromkeys(map(_wish, found)))
        if param is None and isinstance(body, Mapping):  # of a validator that compares fields
            param = to_blame(None, wishes, body)
        where = f"Invalid value for '{param}'" if param else "Invalid value for the body"
        message, code = f"{where}: {wishes}.", "invalid_value"
        if len(message) > LONGEST_MESSAGE:  # a union of many members
            message = f"{where}."
    return openai_error(HTTPStatus.BAD_REQUEST, message, code=code, param=param)


def _wish(error: Mapping[str, Any]) -> str:
    """Pydantic's message, without the client's values."""
    if error["type"] == "union_tag_invalid":
        return f"{error['ctx']['discriminator']} should be one of {error['ctx']['expected_tags']}"
    if error["type"] in ("dict_type", "model_type", "model_attributes_type", "dataclass_type"):
        return "should be an object"
    if error["type"] == "extra_forbidden":
        return "has a field that is not known"
    return str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ").removesuffix(".")


def _path(error: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:
    """The path to the wrong value. Pydantic's location also names union members: steps that the body lacks, unless
    the last one is a missing field."""
    if error["type"] == "json_invalid":
        return ()
    kind, *location = error["loc"]
    if kind != "body":
        return tuple(location)
    if error["type"] == "extra_forbidden":  # the last step is the client's own text
        location.pop()
    path: list[str | int] = []
    for i, step in enumerate(location):
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            if error["type"] != "missing" or i + 1 < len(location):
                continue
        path.append(step)
    return tuple(path)
