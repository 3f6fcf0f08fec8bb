"""Errors in OpenAI's shape: those that never reach vLLM, and vLLM's where theirs differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Response
from fastapi.responses import JSONResponse


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


def with_openai_codes(response: Response) -> Response:
    """Give a 404 for an unknown model the code that OpenAI's clients look for; other responses pass."""
    if response.status_code != 404 or not isinstance(response, JSONResponse):
        return response
    content = json.loads(bytes(response.body))
    if content.get("error", {}).get("param") == "model":
        content["error"] |= {"type": "invalid_request_error", "code": "model_not_found"}
    return JSONResponse(content, status_code=404)
