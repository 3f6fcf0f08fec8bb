"""Fields of requests that must be refused, because ignoring them would answer another question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vllm.exceptions import VLLMValidationError

UNSUPPORTED = {
    "audio": "this server makes no audio",
    "function_call": "use `tool_choice`",
    "functions": "use `tools`",
    "moderation": "this server moderates nothing",
    "web_search_options": "this server searches nothing",
}

"""Fields of OpenAI's chats that a text-only server has no use for."""


def refuse_unsupported(body: Any) -> Any:
    """The unchanged body; raises VLLMValidationError."""
    if not isinstance(body, Mapping):
        return body
    for name, reason in UNSUPPORTED.items():
        if body.get(name) is not None:
            raise VLLMValidationError(f"`{name}` is not supported: {reason}.", parameter=name)
    if body.get("modalities") not in (None, ["text"]):
        raise VLLMValidationError('`modalities` must be ["text"].', parameter="modalities")
    return body


def refuse_uncertainty(body: Any) -> Any:
    """The unchanged body of a route that returns no uncertainty. Raises VLLMValidationError if it asks for any."""
    if isinstance(body, Mapping) and body.get("uncertainty") not in (None, False):
        message = "This route returns no `uncertainty`; /v1/chat/completions and /v1/completions do."
        raise VLLMValidationError(message, parameter="uncertainty")
    return body
