"""The fields that a pydantic model adds to those of vLLM, as clients see them in JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

OURS = ("server.", "model_impl.")
REQUESTS = ("Request", "Options", "Limits")


@dataclass(frozen=True)
class JsonField:
    schema: dict[str, Any]
    definitions: dict[str, Any]

    def alternatives(self) -> Iterator[JsonField]:
        """The members of a union; the field itself if it is none."""
        if "$ref" in self.schema:
            named = self.schema["$ref"].rsplit("/", 1)[1]
            yield from JsonField(self.definitions[named], self.definitions).alternatives()
        elif found := self.schema.get("anyOf") or self.schema.get("oneOf"):
            for part in found:
                yield from JsonField(part, self.definitions).alternatives()
        else:
            yield self

    @property
    def may_be_null(self) -> bool:
        return any(part.schema.get("type") == "null" for part in self.alternatives())

    @property
    def bounds(self) -> set[float]:
        """The least and greatest values that are allowed."""
        keys = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
        return {part.schema[key] for part in self.alternatives() for key in keys if key in part.schema}

    @property
    def words(self) -> set[str]:
        """The only values that are allowed."""
        return {word for part in self.alternatives() for word in part.schema.get("enum", ())}

    @property
    def type(self) -> str:
        """Such as `number or array of string`; null is left out."""
        return " or ".join(dict.fromkeys(name for part in self.alternatives() if (name := part._name()) != "null"))

    def _name(self) -> str:
        kind = str(self.schema.get("type", "string" if "const" in self.schema else "any"))
        return f"array of {JsonField(self.schema['items'], self.definitions).type}" if kind == "array" else kind


def own_fields(model: type[BaseModel]) -> dict[str, JsonField]:
    """The fields by name that no class outside of this project has."""
    bases = [base for base in model.__mro__ if issubclass(base, BaseModel) and not base.__module__.startswith(OURS)]
    foreign = {name for base in bases for name in base.model_fields}
    schema = model.model_json_schema(mode="validation" if model.__name__.endswith(REQUESTS) else "serialization")
    parts = schema["properties"].items()
    return {name: JsonField(part, schema.get("$defs", {})) for name, part in parts if name not in foreign}
