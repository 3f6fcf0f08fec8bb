"""Errors in OpenAI's shape where vLLM's differ."""

from __future__ import annotations

import json

from fastapi import Response
from fastapi.responses import JSONResponse


def with_openai_codes(response: Response) -> Response:
    """Give a 404 for an unknown model the code that OpenAI's clients look for; other responses pass."""
    if response.status_code != 404 or not isinstance(response, JSONResponse):
        return response
    content = json.loads(bytes(response.body))
    if content.get("error", {}).get("param") == "model":
        content["error"] |= {"type": "invalid_request_error", "code": "model_not_found"}
    return JSONResponse(content, status_code=404)
