"""Tool calls and JSON by a schema end and fit the schema, on every route."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import pytest
from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel

from tests.support.facts import KNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

MESSAGES: Any = [{"role": "user", "content": KNOWN}]
TOKENS = 120


class Home(BaseModel):
    city: Literal["Lima", "Oslo"]


class Person(BaseModel):
    """A typical schema: a text of any length, a number of any size, an object in an object."""

    name: str
    age: int
    home: Home


class Move(BaseModel):
    to: Home
    soon: bool


def tool(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    function = {"name": model.__name__, "parameters": model.model_json_schema()} | more
    return {"type": "function", "function": function}


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60) as opened:
        yield opened


def calls_of(client: OpenAI, stream: bool, **options: Any) -> tuple[list[tuple[str, str]], str]:
    """The calls of one answer, and why it ended."""
    defaults: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "max_tokens": TOKENS, "temperature": 0}
    answer: Any = client.chat.completions.create(**(defaults | options), stream=stream)
    found: dict[int, list[str]] = {}
    reason = ""
    for part in answer if stream else [answer]:
        for choice in part.choices:
            for i, call in enumerate((choice.delta if stream else choice.message).tool_calls or []):
                own = found.setdefault(call.index if stream else i, ["", ""])
                own[0] += call.function.name or ""
                own[1] += call.function.arguments or ""
            reason = choice.finish_reason or reason
    return [(name, arguments) for name, arguments in found.values()], reason


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("strict", [{}, {"strict": True}, {"strict": False}], ids=str)
@pytest.mark.parametrize("choice", ["required", "named"])
def test_a_call_ends_and_fits(client: OpenAI, choice: str, strict: Any, temperature: int, stream: bool) -> None:
    named = {"type": "function", "function": {"name": "Person"}}
    options = {"tool_choice": named if choice == "named" else choice, "temperature": temperature, "seed": 1}
    ((name, arguments),), reason = calls_of(client, stream, tools=[tool(Person, **strict)], **options)
    assert (name, reason) == ("Person", "stop" if choice == "named" else "tool_calls")
    Person.model_validate_json(arguments, strict=True)
    assert json.loads(arguments).keys() == {"name", "age", "home"}


def test_one_of_several_tools_is_called(client: OpenAI) -> None:
    tools = [tool(Person), tool(Move)]
    found, reason = calls_of(client, False, tools=tools, tool_choice="required", max_tokens=200)
    assert reason == "tool_calls"
    assert 1 <= len(found) <= 2
    for name, arguments in found:
        {"Person": Person, "Move": Move}[name].model_validate_json(arguments)


def test_the_clients_own_tool(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo",
        messages=MESSAGES,
        tools=[pydantic_function_tool(Person)],
        tool_choice="required",
        max_tokens=TOKENS,
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Person)


@pytest.mark.demo_only
def test_a_cut_off_answer_keeps_its_finished_calls(client: OpenAI) -> None:
    options = {"tools": [tool(Move)], "tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 120}
    streamed, reason = calls_of(client, True, **options)
    assert reason == "length"
    *finished, (_, last) = streamed
    with pytest.raises(ValueError):
        json.loads(last)
    assert finished
    plain, reason = calls_of(client, False, **options)
    assert reason == "length"
    assert [(name, json.loads(text)) for name, text in plain] == [(name, json.loads(text)) for name, text in finished]


@pytest.mark.parametrize("strict", [None, True, False])
def test_json_by_a_schema_ends(client: OpenAI, strict: bool | None) -> None:
    form: Any = {"name": "person", "schema": Person.model_json_schema(), "strict": strict}
    answer = client.chat.completions.create(
        model="demo",
        messages=MESSAGES,
        max_tokens=TOKENS,
        response_format={"type": "json_schema", "json_schema": form},
    )
    choice = answer.choices[0]
    assert choice.finish_reason == "stop"
    Person.model_validate_json(choice.message.content or "", strict=True)


def test_completions_by_a_schema_end(client: OpenAI) -> None:
    body = {"structured_outputs": {"json": Person.model_json_schema()}}
    answer = client.completions.create(model="demo", prompt=KNOWN, max_tokens=TOKENS, temperature=0, extra_body=body)
    assert answer.choices[0].finish_reason == "stop"
    Person.model_validate_json(answer.choices[0].text)


def test_a_schema_of_several_parts_is_not_refused(client: OpenAI) -> None:
    move = Move.model_json_schema()
    parts = {"allOf": [Home.model_json_schema(), move], "$defs": move.pop("$defs")}
    body = {"structured_outputs": {"json": parts}}
    options: dict[str, Any] = {"model": "demo", "messages": MESSAGES, "max_tokens": 200, "stop": ["}}", "},"]}
    content = client.chat.completions.create(**options, extra_body=body).choices[0].message.content or ""
    assert content.startswith('{"city":"')
    assert '"to":{"city":"' in content


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "Person"}], ids=str)
def test_responses_call_tools(client: OpenAI, choice: Any) -> None:
    tools: Any = [{"type": "function", "strict": True} | tool(Person)["function"]]
    options: dict[str, Any] = {"model": "demo", "input": KNOWN, "max_output_tokens": TOKENS, "temperature": 0}
    answer = client.responses.create(**options, tools=tools, tool_choice=choice)
    (call,) = answer.output
    assert (call.type, answer.status) == ("function_call", "completed")
    Person.model_validate_json(call.arguments)


def test_responses_by_a_schema_end(client: OpenAI) -> None:
    answer = client.responses.parse(model="demo", input=KNOWN, max_output_tokens=TOKENS, text_format=Person)
    assert isinstance(answer.output_parsed, Person)


@pytest.mark.parametrize(
    "choice",
    [{"type": "allowed_tools", "mode": "required", "tools": []}, {"type": "web_search_preview"}, "nope"],
    ids=str,
)
def test_responses_ignore_no_tool_choice(http: httpx.Client, choice: Any) -> None:
    tools = [{"type": "function"} | tool(Person)["function"]]
    answer = http.post("/v1/responses", json={"input": KNOWN, "tools": tools, "tool_choice": choice})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("tool_choice")


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "Person"}], ids=str)
def test_messages_call_tools(http: httpx.Client, choice: Any) -> None:
    tools = [{"name": "Person", "input_schema": Person.model_json_schema()}]
    body = {"model": "demo", "messages": MESSAGES, "max_tokens": TOKENS, "tools": tools, "tool_choice": choice}
    answer = http.post("/v1/messages", json=body).json()
    assert answer["stop_reason"] == "tool_use"
    Person.model_validate(answer["content"][0]["input"])
