"""vLLM's version of Anthropic's Messages API, without a logged traceback for every mistake of a client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.serve import create_error_response
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.exceptions import VLLMValidationError

from server.requests.limits import TRANSFERS
from server.requests.unsupported import refuse_uncertainty

NEEDED = {"image": "source", "text": "text", "thinking": "thinking", "tool_result": "tool_use_id", "tool_use": "name"}
"""Type of a block -> its required field. Without it, vLLM drops the block or makes a name up."""

Answer = TypeVar("Answer")


class QuietMessages(AnthropicServingMessages):
    async def create_messages(self, request: Any, raw_request: Any = None) -> Any:
        return await answered(super().create_messages, request, raw_request)

    async def count_tokens(self, request: Any, raw_request: Any = None) -> Any:
        return await answered(super().count_tokens, request, raw_request)


def problem(request: Any) -> VLLMValidationError | None:
    """Why a request is refused: vLLM would drop parts of it silently, or pass it to engines that do not exist."""
    for name in TRANSFERS:
        if getattr(request, name, None) is not None:
            return VLLMValidationError(f"This server takes no `{name}` from clients.", parameter=name)
    if (choice := request.tool_choice) is not None and choice.type in ("any", "tool"):
        names = [tool.name for tool in request.tools or ()]
        if not names or (choice.type == "tool" and choice.name not in names):
            message = "`tool_choice` demands a tool that `tools` does not have."
            return VLLMValidationError(message, parameter="tool_choice")
    contents = [("system", request.system)]
    contents += [(f"messages[{i}].content", message.content) for i, message in enumerate(request.messages)]
    for parameter, content in contents:
        for i, block in enumerate(content if isinstance(content, list) else ()):
            field = NEEDED.get(block.type)
            if field is not None and getattr(block, field) is None:
                message = f"A block of type `{block.type}` needs `{field}`."
                return VLLMValidationError(message, parameter=f"{parameter}[{i}]")
            if parameter == "system" and block.type != "text":
                return VLLMValidationError("`system` takes text only.", parameter=f"{parameter}[{i}]")
    return None


async def answered(
    answer: Callable[[Any, Any], Awaitable[Answer]], request: Any, raw_request: Any
) -> Answer | ErrorResponse:
    """The answer, or the error of the client as a response. Errors of the server are raised."""
    try:
        refuse_uncertainty(getattr(raw_request.state, "json", None))  # vLLM's request lacks the field
        if (wrong := problem(request)) is not None:
            raise wrong
        return await answer(request, raw_request)
    except Exception as error:
        response = create_error_response(error)
        if response.error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise
        return response
