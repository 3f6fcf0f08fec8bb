"""Names of request parameters in errors, in OpenAI's form: `messages[0].role`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

PROMPTS = ("messages", "prompt", "input", "query", "tokens")
"""Names of the input in the APIs that vLLM serves."""

LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
"""Names of the limit on an answer in all routes."""

OTHER_NAMES = {
    "extra_args": "vllm_xargs",
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_output_tokens",
    "response_id": "previous_response_id",
    "structured_outputs": "text",
    "tool_choice": "tools",
}
"""vLLM's name -> the client's, for bodies without the first."""

_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")
_NAMED = re.compile(r"^\w+|(?<=[`'\"])\w+(?=[`'\"])")


def holds(body: Any, parameter: str) -> bool:
    """Whether a body has a parameter."""
    for index, name in _STEP.findall(parameter):
        try:
            body = body[int(index) if index else name]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def prompt_of(body: Mapping[str, Any]) -> str | None:
    """The parameter that is the input."""
    return next((name for name in PROMPTS if name in body), None)


def to_blame(parameter: str | None, message: str, body: Mapping[str, Any]) -> str | None:
    """The parameter of the body that vLLM means: the one that it names, or the first at the beginning of its message or
    in quotes, under either name. All other errors are about the input."""
    return next((name for name in _candidates(parameter, message) if holds(body, name)), prompt_of(body))


def _candidates(parameter: str | None, message: str) -> Iterator[str]:
    for name in (*([parameter] if parameter else ()), *_NAMED.findall(message)):
        yield name
        if name in OTHER_NAMES:
            yield OTHER_NAMES[name]
