"""Anthropic's Messages API: vLLM's, which writes a traceback of many lines for every mistake of a client."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, TypeVar

from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

Answer = TypeVar("Answer")


class QuietMessages(AnthropicServingMessages):
    async def create_messages(self, request: Any, raw_request: Any = None) -> Any:
        return await refused(super().create_messages(request, raw_request))

    async def count_tokens(self, request: Any, raw_request: Any = None) -> Any:
        return await refused(super().count_tokens(request, raw_request))


async def refused(answer: Awaitable[Answer]) -> Answer | ErrorResponse:
    """The answer, or the error of a request that is to be changed; errors of the server are raised."""
    try:
        return await answer
    except Exception as error:
        response = create_error_response(error)
        if response.error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return response
