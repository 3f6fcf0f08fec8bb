"""A pydantic error in one line, with the place where the value is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from pydantic import ValidationError

LONGEST_KEY = 64
"""A longer key is no name of a parameter, but a text that the client sent."""

LONGEST_NAME = 40
"""Characters of an unknown field's name that a message repeats."""


def written(path: Sequence[str | int]) -> str | None:
    """A path as OpenAI's errors write it, `messages[0].role`, as far as its keys may be names; None for no step."""
    path = list(takewhile(lambda step: isinstance(step, int) or len(step) <= LONGEST_KEY, path))
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".") or None


def first_fault(error: ValidationError) -> str:
    """The first complaint of pydantic, with the field's name."""
    fault = error.errors(include_url=False, include_input=False)[0]
    steps, message = fault["loc"], fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
    match fault["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":  # the file's own name: it may be long, of several lines
            steps, message = (*steps[:-1], shown(str(steps[-1]))), "unknown field"
        case "missing":
            message = "is missing"
    return f"{written(steps)}: {message}" if steps else message


def shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}...")


def refusal(error: BaseException) -> str:
    """The first line of why vLLM refuses its settings."""
    # The first line of a pydantic error only counts the errors. vLLM ends some messages with a list of all it knows.
    text = error.errors()[0]["msg"].removeprefix("Value error, ") if isinstance(error, ValidationError) else str(error)
    return text.strip().partition("\n")[0].partition(". Must be one of")[0] or type(error).__name__
