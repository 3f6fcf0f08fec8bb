"""Items of requests of the Responses API.

Errors of vLLM's large unions name the members' tags. So the intended type is validated alone, before the union.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, StrictStr, Tag, TypeAdapter
from typing_extensions import TypedDict

from server.requests.messages import RefusalPart

MEDIA = ("input_audio", "input_file", "input_image")
"""Types of parts that vLLM refuses."""


class TextPart(TypedDict):
    type: Literal["input_text", "output_text"]
    text: StrictStr


def _kind_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return "media part" if kind in MEDIA else "refusal part" if kind == "refusal" else "text part"


Part = Annotated[
    Annotated[TextPart, Tag("text part")]
    | Annotated[RefusalPart, Tag("refusal part")]
    | Annotated[dict[str, Any], Tag("media part")],
    Discriminator(_kind_of_part),
]


class Message(TypedDict):
    role: Literal["user", "assistant", "system", "developer"]
    content: StrictStr | list[Part]


class FunctionTool(TypedDict):
    name: StrictStr


class SchemaFormat(TypedDict):
    name: StrictStr
    schema: dict[str, Any]


class TextConfig(TypedDict):
    format: SchemaFormat


class FunctionCall(TypedDict):
    call_id: StrictStr
    name: StrictStr
    arguments: StrictStr


class FunctionCallOutput(TypedDict):
    call_id: StrictStr
    output: StrictStr | list[Any]


_MESSAGE, _TOOL, _TEXT = TypeAdapter(Message), TypeAdapter(FunctionTool), TypeAdapter(TextConfig)
_ITEMS: dict[str, TypeAdapter[Any]] = {
    "message": _MESSAGE,
    "function_call": TypeAdapter(FunctionCall),
    "function_call_output": TypeAdapter(FunctionCallOutput),
}


def checked_item(item: Any) -> Any:
    """The item as it came; raises ValidationError. A message may leave its type out."""
    if isinstance(item, dict):
        kind = item.get("type", "message" if "role" in item else None)
        if isinstance(kind, str) and kind in _ITEMS:
            _ITEMS[kind].validate_python(item)
    return item


def checked_tool(tool: Any) -> Any:
    """The tool as it came; raises ValidationError."""
    if isinstance(tool, dict) and tool.get("type") == "function":
        _TOOL.validate_python(tool)
    return tool


def checked_text(text: Any) -> Any:
    """`text` as it came, with the answer's format; raises ValidationError."""
    kind = text.get("format") if isinstance(text, dict) else None
    if isinstance(kind, dict) and kind.get("type") == "json_schema":
        _TEXT.validate_python(text)
    return text
