"""JSON schemas narrowed so that a small model can finish; every instance of the result is one of the original."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAPS = ("properties", "patternProperties", "$defs", "definitions")
"""Keywords that hold schemas by name."""

ALTERNATIVES = ("anyOf", "oneOf")
PARTS = (*ALTERNATIVES, "allOf", "items", "prefixItems", "additionalProperties")
"""Keywords that hold a schema or a list of them."""

HIGHEST = 2**63 - 1024
LOWEST = -HIGHEST
"""The outermost 64-bit integers that are floats as well, into which the library converts bounds."""

BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def narrowed(schema: Any) -> Any:
    """`schema` with integers of 64 bits. The backend closes objects without `additionalProperties`; objects that
    several schemas describe together are left open here, because each schema would forbid the others' properties."""
    return _narrowed(schema, Compositions(schema).members)


def _narrowed(schema: Any, open_ones: set[int]) -> Any:
    if isinstance(schema, list):
        return [_narrowed(part, open_ones) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {**schema}
    for key in MAPS:
        if isinstance(schema.get(key), dict):
            found[key] = {name: _narrowed(part, open_ones) for name, part in schema[key].items()}
    for key in PARTS:
        if key in schema:
            found[key] = _narrowed(schema[key], open_ones)
    if id(schema) in open_ones and schema.keys() & {"properties", "patternProperties"}:
        found.setdefault("additionalProperties", True)
    if _is_wide_integer(schema):
        found = {"minimum": LOWEST, "maximum": HIGHEST, **found}
    return found


def _is_wide_integer(schema: dict[str, Any]) -> bool:
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    bounds = [schema[key] for key in BOUNDS if key in schema]
    return (
        "integer" in kinds
        and "number" not in kinds
        and not schema.keys() & {"enum", "const", "multipleOf"}
        and all(isinstance(bound, int | float) and LOWEST <= bound <= HIGHEST for bound in bounds)
    )


class Compositions:
    """The schemas below `root` that describe an object together with others. Each is visited once."""

    def __init__(self, root: Any) -> None:
        self.root = root
        self.described: dict[int, bool] = {}
        """A schema's id -> whether it describes properties."""
        self.members: set[int] = set()
        """Ids of the schemas found."""
        self._find(root)

    def _find(self, schema: Any) -> None:
        if isinstance(schema, dict) and sum(self._descriptions(schema)) > 1:
            self._add(schema)
        for part in _inner(schema):
            self._find(part)

    def _descriptions(self, schema: dict[str, Any]) -> Iterator[bool]:
        """For each independent part, whether it describes properties. Alternatives are one part."""
        yield from (name in schema for name in ("properties", "patternProperties", "$ref"))
        yield from (any(map(self._describes, schema.get(key) or ())) for key in ALTERNATIVES)
        yield from map(self._describes, schema.get("allOf") or ())

    def _describes(self, schema: Any) -> bool:
        if id(schema) not in self.described:
            self.described[id(schema)] = isinstance(schema, dict) and any(self._descriptions(schema))
        return self.described[id(schema)]

    def _add(self, schema: Any) -> None:
        """Add a schema and its parts that describe the same object, also by reference."""
        if not isinstance(schema, dict) or id(schema) in self.members:
            return
        self.members.add(id(schema))
        for key in (*ALTERNATIVES, "allOf"):
            for part in schema.get(key) or ():
                self._add(part)
        self._add(_referred(schema.get("$ref"), self.root))


def _inner(schema: Any) -> Iterator[Any]:
    if isinstance(schema, list):
        yield from schema
    elif isinstance(schema, dict):
        for key in MAPS:
            if isinstance(schema.get(key), dict):
                yield from schema[key].values()
        yield from (schema[key] for key in PARTS if key in schema)


def _referred(reference: Any, root: Any) -> Any:
    """The schema at a JSON pointer; None if there is none."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for step in reference[2:].split("/"):
        root = root.get(step) if isinstance(root, dict) else None
    return root
