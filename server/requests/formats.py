"""`response_format` as a tagged union: vLLM's plain union reports errors of members that the client did not mean."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag
from vllm.entrypoints.generate.base.protocol import (
    AnyStructuralTagResponseFormat,
    JsonSchemaResponseFormat,
    ResponseFormat,
)


class NamedSchema(JsonSchemaResponseFormat):
    json_schema: dict[str, Any] = Field(alias="schema")


class PlainFormat(ResponseFormat):
    json_schema: NamedSchema | None = None


def _kind_of_format(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "structural tag" if kind == "structural_tag" else "plain format"


AnyFormat = Annotated[
    Annotated[PlainFormat, Tag("plain format")] | Annotated[AnyStructuralTagResponseFormat, Tag("structural tag")],
    Discriminator(_kind_of_format),
]
