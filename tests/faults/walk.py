"""Wrong requests that are made from the OpenAPI document: every field of every request, of every wrong kind."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MARKER = "planted by the test, a text that no word of the server holds, longer than any name"
"""A text of the client's that no error may repeat."""

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 2**31, 10**30, 1.5, 1e308, "", MARKER, f"{MARKER}\n{MARKER}" * 100),
    *([], [None], [5], [MARKER], [[]], [{}], {}, {MARKER: MARKER}, {"key": MARKER}, {"key": 10**30}, {"type": MARKER}),
)

LEVELS = 6
"""The depth to which a schema is followed; some schemas contain themselves."""

Schema = Mapping[str, Any]
Path = tuple[str | int, ...]


class Walk:
    """The requests that a document describes, and how each can be wrong."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def routes(self) -> Iterator[tuple[str, Schema]]:
        """The routes that take a body, with its schema."""
        for path, methods in self.document["paths"].items():
            body = methods.get("post", {}).get("requestBody")
            if body is not None:
                yield path, body["content"]["application/json"]["schema"]

    def bodies(self, schema: Schema, good: Mapping[str, Any], levels: int = LEVELS) -> Iterator[dict[str, Any]]:
        """Bodies that are wrong in one place, where `good` is right; each once."""
        seen = set()
        examples = (example for example in self._examples(schema, levels) if isinstance(example, dict))
        for example in examples:
            for path in _places(example):
                for body in _mutations(example, path):
                    found = {**good, **{name: body[name] for name in path[:1] if name in body}}
                    if path[0] not in body:
                        found.pop(str(path[0]), None)
                    key = json.dumps(found, sort_keys=True)
                    if key not in seen:
                        seen.add(key)
                        yield found

    def _examples(self, schema: Schema, levels: int) -> Iterator[Any]:
        """A value for every member of a union, and for every field of an object."""
        if levels < 0:
            return
        if "$ref" in schema:
            yield from self._examples(self._resolved(schema["$ref"]), levels - 1)
        elif "const" in schema:
            yield schema["const"]
        elif "enum" in schema:
            yield schema["enum"][0]
        elif members := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
            for member in members:
                yield from self._examples(member, levels)
        elif schema.get("type") == "object":
            yield from self._filled(schema, levels)
        elif schema.get("type") == "array":
            items = list(self._examples(schema.get("items", {}), levels))
            yield from ([item] for item in items)
        elif schema.get("type") == "null":
            yield None
        else:
            yield {"integer": 1, "number": 1.0, "boolean": True}.get(str(schema.get("type")), MARKER)

    def _filled(self, schema: Schema, levels: int) -> Iterator[dict[str, Any]]:
        fields = {name: list(self._examples(field, levels - 1)) for name, field in schema.get("properties", {}).items()}
        needed = {name: fields[name][0] for name in schema.get("required", ()) if fields.get(name)}
        yield needed
        for name, values in fields.items():
            yield from (needed | {name: value} for value in values)
        if isinstance(further := schema.get("additionalProperties"), Mapping):
            yield from (needed | {"key": value} for value in self._examples(further, levels - 1))

    def _resolved(self, reference: str) -> Schema:
        found: Schema = self.document["components"]["schemas"][reference.rpartition("/")[2]]
        return found


def _places(value: Any, path: Path = ()) -> Iterator[Path]:
    """The paths of everything inside a value, without the value itself."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*path, step)
        yield from _places(inner, (*path, step))


def _mutations(value: Any, path: Path) -> Iterator[Any]:
    """`value` without what is at a place, with it, and with what is wrong there."""
    (step, *rest) = path
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    yield copy
    if rest:
        for inner in _mutations(value[step], tuple(rest)):
            copy[step] = inner
            yield dict(copy) if isinstance(copy, dict) else list(copy)
        return
    for wrong in WRONG:
        copy[step] = wrong
        yield dict(copy) if isinstance(copy, dict) else list(copy)
    del copy[step]
    yield copy
