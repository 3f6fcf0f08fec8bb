"""The library accepts only valid documents under a schema that the server has narrowed and closed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from pydantic import BaseModel
from vllm.v1.structured_output.backend_guidance import serialize_guidance_grammar
from vllm.v1.structured_output.backend_types import StructuredOutputOptions

from server.requests.json_schemas import HIGHEST, LOWEST, narrowed

TOKENIZER = LLTokenizer("byte")


def takes(schema: dict[str, Any], value: Any) -> bool:
    grammar = serialize_guidance_grammar(StructuredOutputOptions.JSON, json.dumps(narrowed(schema)), True, True)
    matcher = LLMatcher(TOKENIZER, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    text = json.dumps(value, separators=(",", ":")).encode()
    return matcher.try_consume_tokens(list(text)) == len(text) and matcher.is_accepting()


def having(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"type": "integer"}}, "required": [name]} | more


class Pet(BaseModel):
    name: str


class Person(BaseModel):
    age: int
    pet: Pet | None


def test_an_object_has_no_properties_that_its_schema_does_not_name() -> None:
    schema = Person.model_json_schema()
    assert takes(schema, {"age": 4, "pet": {"name": "Rex"}})
    assert takes(schema, {"age": 4, "pet": None})
    assert not takes(schema, {"age": 4, "pet": {"name": "Rex", "kind": "dog"}})
    assert not takes(schema, {"age": 4, "pet": None, "more": 5})


def test_an_object_that_says_so_has_more_properties() -> None:
    assert takes(having("a", additionalProperties=True), {"a": 1, "b": 2})
    assert takes({"type": "object"}, {"b": 2})


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [having("a"), having("b")]},
        having("a", allOf=[having("b")]),
        having("a", anyOf=[having("b"), having("c")]),
        having("a", oneOf=[{"$ref": "#/$defs/b"}], **{"$defs": {"b": having("b")}}),
        {"allOf": [{"$ref": "#/$defs/a"}, having("b")], "$defs": {"a": having("a")}},
        {"properties": {"x": {"allOf": [having("a"), having("b")]}}},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_an_object_that_several_schemas_describe_can_be_written(schema: dict[str, Any]) -> None:
    value = {"a": 1, "b": 2}
    assert takes(schema, {"x": value} if "x" in schema.get("properties", {}) else value)


def test_alternatives_are_closed_one_by_one() -> None:
    schema = {"anyOf": [having("a"), having("b")]}
    assert takes(schema, {"b": 1})
    assert not takes(schema, {"a": 1, "b": 2})


def test_what_stands_beside_a_composition_is_closed() -> None:
    schema = {"type": "object", "properties": {"x": {"allOf": [having("a"), having("b")]}}, "required": ["x"]}
    assert not takes(schema, {"x": {"a": 1, "b": 2}, "more": 1})


@pytest.mark.parametrize("value", [0, 5, -5, HIGHEST, LOWEST])
def test_integers_of_64_bits(value: int) -> None:
    assert takes({"type": "integer"}, value)
    assert takes({"type": ["integer", "null"]}, value)
    assert takes({"type": "integer", "minimum": 0}, value) == (value >= 0)
    assert takes({"type": "integer", "exclusiveMaximum": 5}, value) == (value < 5)


@pytest.mark.parametrize("value", [10**25, -(10**25), HIGHEST + 1024])
def test_integers_do_not_go_on(value: int) -> None:
    assert not takes({"type": "integer"}, value)
    assert not takes({"type": "integer", "minimum": 0}, value)


@pytest.mark.parametrize(
    "schema", [{"type": "integer", "enum": [5]}, {"type": "integer", "multipleOf": 5}, {"type": "number"}]
)
def test_numbers_that_are_bounded_otherwise_or_not_whole_are_as_they_are(schema: dict[str, Any]) -> None:
    assert narrowed(schema) == schema
    assert takes(schema, 5)


def test_what_only_looks_like_a_schema_stays() -> None:
    schema = {"properties": {"type": {"enum": [{"type": "integer"}]}, "allOf": {"const": {"type": "integer"}}}}
    assert narrowed(schema) == schema


def test_a_schema_that_refers_to_itself() -> None:
    tree = having("v") | {"$defs": {}}
    tree["properties"]["kids"] = {"type": "array", "items": {"$ref": "#"}}
    assert takes(tree, {"v": 1, "kids": [{"v": 2}]})
    looped = {"$defs": {"a": having("a", allOf=[{"$ref": "#/$defs/a"}])}, "$ref": "#/$defs/a"}
    assert narrowed(looped)["$defs"]["a"]["additionalProperties"] is True


def test_schemas_that_refer_to_each_other_many_times_take_no_time() -> None:
    """Written out, this one would have 2^60 parts."""
    levels = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    schema = {"allOf": [{"$ref": "#/$defs/d0"}] * 2, "$defs": levels | {"d60": having("a")}}
    assert narrowed(schema)["$defs"]["d60"]["additionalProperties"] is True


def test_a_schema_of_many_levels_takes_no_time() -> None:
    """Each level looks at all below it."""
    schema: Any = {"anyOf": [{"type": "string"} for _ in range(2000)]}
    for _ in range(100):
        schema = {"anyOf": [schema, {"type": "null"}]}
    began = time.perf_counter()
    narrowed(schema)
    assert time.perf_counter() - began < 1
