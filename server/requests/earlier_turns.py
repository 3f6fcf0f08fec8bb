"""Earlier turns in requests of the Responses API, as OpenAI's clients, the AI SDK and LangChain send them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEXTS = {"output_text": "text", "input_text": "text", "refusal": "refusal"}
"""Type of a content part -> the field that holds its text."""


def readable(body: Any) -> Any:
    """The body with its `input` in vLLM's form; vLLM refuses items that are wrong."""
    items = body.get("input") if isinstance(body, Mapping) else None
    if not isinstance(items, list):
        return body
    return {**body, "input": [_readable(item) if isinstance(item, dict) else item for item in items]}


def _readable(item: dict[str, Any]) -> dict[str, Any]:
    """Null fields are dropped: clients send back every field of an answer."""
    item = {name: value for name, value in item.items() if value is not None}
    if item.get("type") == "reasoning":
        return {"summary": [], **item}
    if item.get("role") == "assistant" and item.get("type", "message") == "message":
        return _said(item)
    return item


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """An assistant's message with one part of text and a `type`: vLLM reads the first part only and needs the type."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = [_text(part) for part in content]
    if not all(isinstance(text, str) for text in texts):
        return message
    part = {"type": "output_text", "text": "".join(texts), "annotations": []}
    return {**message, "type": "message", "content": [part]}


def _text(part: Any) -> Any:
    kind = part.get("type") if isinstance(part, dict) else None
    return part.get(TEXTS[kind]) if kind in TEXTS else None
