"""Errors in OpenAI's shape: ours, those of FastAPI's validation, and vLLM's where theirs differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

PROMPTS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt"}
"""Route -> the parameter that holds what vLLM calls the input."""


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
    """A refusal as OpenAI's clients read it: `code` is what a program looks at, `message` what a person reads."""
    error = {"message": message, "type": type, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status.value, headers=dict(headers or {}))


def reshaped(status: HTTPStatus, content: Any, path: str) -> JSONResponse | None:
    """vLLM's or FastAPI's JSON error as OpenAI's; None where it has its shape already, or that of another API."""
    error = content.get("error") if isinstance(content, dict) else None
    if isinstance(error, dict) and isinstance(error.get("code"), int):
        param = error.get("param")
        message = str(error.get("message")).partition(f" (parameter={param}")[0]  # vLLM says it twice
    elif isinstance(content, dict) and isinstance(content.get("detail"), str):
        param, message = None, content["detail"]
    else:
        return None
    code = status.phrase.lower().replace(" ", "_")
    if param in ("input_text", "input_tokens"):
        param, code = PROMPTS.get(path), "context_length_exceeded"
    elif param is not None:
        code = "model_not_found" if (status, param) == (HTTPStatus.NOT_FOUND, "model") else "invalid_value"
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return openai_error(status, message, code=code, type=kind, param=param)


async def refuse_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """What FastAPI could not read of a request, in one line."""
    return _invalid(error.errors(), error.body)


async def confess_failure(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw. The traceback goes to the log, and nothing of it to the client."""
    message = "The server had an error while processing the request; its log says more."
    return openai_error(HTTPStatus.INTERNAL_SERVER_ERROR, message, code="internal_error", type="server_error")


def install_error_handlers(app: FastAPI) -> None:
    """In place of vLLM's, which come later than any endpoint plugin, but before the app builds its middleware.

    It must not build it twice: the second instrumentator would find its metrics registered, and count nothing.
    """
    build = app.build_middleware_stack

    def build_with_handlers() -> ASGIApp:
        app.exception_handler(RequestValidationError)(refuse_invalid)
        app.exception_handler(Exception)(confess_failure)
        return build()

    app.build_middleware_stack = build_with_handlers  # type: ignore[method-assign]


def _invalid(errors: Sequence[Any], body: Any) -> JSONResponse:
    """Pydantic complains of every member of a union, so many errors may be one. The path that most of them complain
    of is taken for what is wrong; of several, the deepest one."""
    plain = [error for error in errors if not isinstance(error, dict)]
    if plain:  # of vLLM's `validate_json_request`
        return openai_error(HTTPStatus.BAD_REQUEST, str(plain[0]), code="invalid_request")
    paths = [_path(error, body) for error in errors]
    counts = Counter(paths)
    path = max(counts, key=lambda path: (counts[path], len(path)))
    found = [error for error, where in zip(errors, paths, strict=True) if where == path]
    param, kind = _parameter(path), found[0]["type"]
    if kind == "json_invalid":
        message, code = f"The body is not valid JSON: {found[0]['ctx']['error']}.", "invalid_json"
    elif kind == "missing":
        message, code = f"Missing required parameter: '{param}'.", "missing_required_parameter"
    else:
        wishes = " or ".join(dict.fromkeys(error["msg"].removeprefix("Input ") for error in found))
        where = f"'{param}'" if param else "the body"
        message, code = f"Invalid value for {where}: {wishes}.", "invalid_value"
    return openai_error(HTTPStatus.BAD_REQUEST, message, code=code, param=param)


def _path(error: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:
    """Where the body is wrong. Pydantic's location also names the members of unions: what the body has not, but for
    a missing field at the end."""
    if error["type"] == "json_invalid":
        return ()
    kind, *location = error["loc"]
    if kind != "body":
        return tuple(location)
    path: list[str | int] = []
    for i, step in enumerate(location):
        try:
            body = body[step]
        except (KeyError, IndexError, TypeError):
            if error["type"] != "missing" or i + 1 < len(location):
                continue
        path.append(step)
    return tuple(path)


def _parameter(path: Sequence[str | int]) -> str | None:
    """As OpenAI writes it: `messages[0].role`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".") or None
