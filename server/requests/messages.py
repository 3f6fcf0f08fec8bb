"""Messages of a chat, for the validation of every route.

vLLM's types have unions, whose errors name every member, and iterables, which pydantic validates only when they are
read, behind the route: there a malformed part ends as an empty message or as pydantic's own text.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import Discriminator, Field, StrictStr, Tag
from typing_extensions import TypedDict


class TextPart(TypedDict):
    type: Literal["text", "input_text", "output_text"]
    text: StrictStr


class RefusalPart(TypedDict):
    type: Literal["refusal"]
    refusal: StrictStr


class ThinkingPart(TypedDict):
    type: Literal["thinking"]
    thinking: StrictStr


def _kind_of_part(part: Any) -> str:
    """The tag of a union's member. It is no key of a part, so that parameter names leave it out."""
    kind = part.get("type") if isinstance(part, dict) else None
    return f"{kind} part" if kind in ("refusal", "thinking") else "text part"


Part = Annotated[
    Annotated[TextPart, Tag("text part")]
    | Annotated[RefusalPart, Tag("refusal part")]
    | Annotated[ThinkingPart, Tag("thinking part")],
    Discriminator(_kind_of_part),
]
Content = StrictStr | list[Part]
Role = Annotated[str, Field(pattern=r"^[\w.:/-]{1,64}$", strict=True)]
"""The template decides which roles exist; its errors quote them."""


class FunctionCall(TypedDict):
    name: StrictStr
    arguments: StrictStr


class ToolCall(TypedDict):
    id: StrictStr
    type: Literal["function"]
    function: FunctionCall


class Message(TypedDict, total=False):
    role: Required[Role]
    content: Required[Content]
    name: StrictStr | None
    tool_call_id: StrictStr | None


class AssistantMessage(TypedDict, total=False):
    role: Required[Literal["assistant"]]
    content: Content | None
    name: StrictStr | None
    tool_calls: list[ToolCall] | None
    reasoning: StrictStr | None


def _kind_of_message(message: Any) -> str:
    role = message.get("role") if isinstance(message, dict) else None
    return "assistant message" if role == "assistant" else "message"


Messages = Annotated[
    list[
        Annotated[
            Annotated[Message, Tag("message")] | Annotated[AssistantMessage, Tag("assistant message")],
            Discriminator(_kind_of_message),
        ]
    ],
    Field(min_length=1),
]
