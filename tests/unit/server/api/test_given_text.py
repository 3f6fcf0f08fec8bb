"""Texts to score have their prompt read as by the route that would answer it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from server.api.given_text import GivenTextRequest


@pytest.mark.parametrize("messages", [["hunter2"], [{}] * 2048], ids=["text", "many"])
def test_a_malformed_prompt_is_refused_without_a_warning(messages: list[Any]) -> None:
    """A warning would write the client's text to standard error."""
    request = GivenTextRequest.model_validate({"completion": "x", "messages": messages})
    with warnings.catch_warnings(record=True) as said, pytest.raises(RequestValidationError) as refused:
        warnings.simplefilter("always")
        request.rendered()
    assert [str(warning.message) for warning in said] == []
    assert refused.value.body["messages"] == messages
