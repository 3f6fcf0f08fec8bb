"""docs/compatibility.md names every field of OpenAI's requests, and what it says of them is true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_type_hints

import openai
import pytest
from openai import OpenAI
from openai.types import completion_create_params as text
from openai.types.chat import completion_create_params as chat

PAGE = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
PARAMETERS = {CHAT: chat.CompletionCreateParamsStreaming, TEXT: text.CompletionCreateParamsStreaming}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "temperature": 0},
    TEXT: {"model": "demo", "prompt": "Hi", "max_tokens": 4, "temperature": 0},
}

VALUES: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "mp3"},
    "function_call": "auto",
    "functions": [{"name": "look", "parameters": {}}],
    "metadata": {"a": "b"},
    "moderation": {"model": "omni-moderation-latest"},
    "prediction": {"type": "content", "content": "Hi"},
    "prompt_cache_key": "a",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "a",
    "service_tier": "flex",
    "store": True,
    "suffix": " there",
    "user": "me",
    "verbosity": "low",
    "web_search_options": {},
}
"""A valid value of every field that is ignored or refused."""


def rows(path: str) -> dict[str, str]:
    """Field -> its entry in the table of this route."""
    section = PAGE.partition(f"## `POST {path}`")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", section, re.MULTILINE))


def said(verdict: str) -> list[tuple[str, str]]:
    return [(path, field) for path in PARAMETERS for field, found in rows(path).items() if found == verdict]


@pytest.mark.parametrize("path", PARAMETERS)
def test_every_field_is_named(path: str) -> None:
    assert rows(path).keys() == get_type_hints(PARAMETERS[path]).keys()
    assert set(rows(path).values()) <= {"supported", "ignored", "refused"}


def ask(client: OpenAI, path: str, **fields: Any) -> str:
    """The text of a greedy answer."""
    answer = client.post(path.removeprefix("/v1"), body={**BODIES[path], **fields}, cast_to=dict[str, Any])
    (choice,) = answer["choices"]
    found: str = choice["text"] if path == TEXT else choice["message"]["content"]
    return found


@pytest.mark.server
@pytest.mark.parametrize(("path", "field"), said("refused"), ids=str)
def test_a_field_listed_as_refused_is_refused(client: OpenAI, path: str, field: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, path, **{field: VALUES[field]})
    assert caught.value.param == field
    ask(client, path, **{field: None})


@pytest.mark.server
@pytest.mark.parametrize(("path", "field"), said("ignored"), ids=str)
def test_a_field_listed_as_ignored_changes_nothing(client: OpenAI, path: str, field: str) -> None:
    assert ask(client, path, **{field: VALUES[field]}) == ask(client, path)


@pytest.mark.server
@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"modalities": ["text", "audio"]}, "modalities"),
        (TEXT, {"best_of": 2}, "best_of"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, None),
    ],
    ids=str,
)
def test_refused_in_part(client: OpenAI, path: str, fields: dict[str, Any], param: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, path, **fields)
    assert param in (None, caught.value.param)
