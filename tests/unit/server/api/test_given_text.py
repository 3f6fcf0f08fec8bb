"""Texts to score, whose prompt is read as the route reads it that would answer it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError

from server.api.given_text import GivenTextRequest


@pytest.mark.parametrize(
    "fields", [{"messages": ["hunter2"]}, {"messages": [{}] * 2048}, {"prompt": "x", "stop": ["hunter2", 5]}], ids=["text", "many", "parameter"]
)
def test_a_malformed_prompt_is_refused_without_a_warning(fields: dict[str, Any]) -> None:
    """A warning would write the client's text to standard error."""
    request = GivenTextRequest.model_validate({"completion": "x", **fields})
    with warnings.catch_warnings(record=True) as said, pytest.raises(RequestValidationError) as refused:
        warnings.simplefilter("always")
        request.rendered()
    assert [str(warning.message) for warning in said] == []
    assert refused.value.body.items() >= fields.items()
