"""Tool calls under a grammar, and in answers that are cut off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from transformers import AutoTokenizer
from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager

from server.api.protocols.responses import ResponsesRequest
from server.requests.tool_calls import ToolCallReader, ToolMessages, open_tool_calls
from tests.support.demo_server import DEMO

CALLS = [{"name": "look", "parameters": {"place": "here"}}, {"name": "walk", "parameters": {"place": '{"there"]'}}]
MESSAGES = [{"role": "user", "content": "Hi"}]
PLACE = {"type": "object", "properties": {"place": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": PLACE}} for name in ("look", "walk")]
FLAT_TOOLS = [{"type": "function", **tool["function"]} for tool in TOOLS]  # type: ignore[dict-item]


class Holder:
    parser_cls: Any = None
    unused: Any = None


@pytest.fixture(scope="module")
def reader() -> type[ToolCallReader]:
    """Hermes' parser, as the server has it."""
    Holder.parser_cls = ParserManager.get_parser(tool_parser_name="hermes", enable_auto_tools=True)
    tool_parser = Holder.parser_cls.tool_parser_cls
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool_parser, "structural_tag_model", None)  # as `server.engine.client` does
        patch.setattr(tool_parser, "supports_required_and_named", True)
        open_tool_calls((Holder, "parser_cls"), (Holder, "unused"))
        assert Holder.unused is None
        yield Holder.parser_cls


def asked(**options: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest(messages=MESSAGES, tools=TOOLS, **options)


def read(reader: type[ToolCallReader], text: str, choice: str) -> tuple[list[tuple[str, Any]], str | None]:
    request = asked(tool_choice=choice)
    parser = reader(AutoTokenizer.from_pretrained(DEMO), request.tools)
    _, content, calls = parser.parse(text, request, enable_auto_tools=True)
    return [(call.name, json.loads(call.arguments)) for call in calls or []], content


def as_list(calls: list[Any]) -> str:
    return json.dumps(calls, separators=(",", ":"))


def as_hermes(calls: list[Any]) -> str:
    written = [json.dumps({"name": call["name"], "arguments": call["parameters"]}) for call in calls]
    return "Well. " + "\n".join(f"<tool_call>{text}</tool_call>" for text in written)


EXPECTED = [(call["name"], call["parameters"]) for call in CALLS]


@pytest.mark.parametrize("end", range(1, len(as_list(CALLS)) + 1))
def test_the_finished_calls_of_a_required_list_are_kept(reader: type[ToolCallReader], end: int) -> None:
    text = as_list(CALLS)
    ends = [text.index("}") + 1, text.rindex("}")]  # where the arguments of each are whole
    found, content = read(reader, text[:end], "required")
    assert found == EXPECTED[: sum(end >= whole for whole in ends)]
    assert content is None


def test_the_finished_calls_of_a_text_are_kept(reader: type[ToolCallReader]) -> None:
    text = as_hermes(CALLS)
    second = text.rindex("<tool_call>")
    for end in (second + 11, second + 20, len(text) - 20):
        found, content = read(reader, text[:end], "auto")
        assert (found, (content or "").strip()) == (EXPECTED[:1], "Well.")
    assert read(reader, text, "auto")[0] == EXPECTED


def test_a_text_without_a_finished_call_stays_a_text(reader: type[ToolCallReader]) -> None:
    for text in ("", "Well.", "Well. <tool_call>", 'Well. <tool_call>{"name": "look", "argum'):
        assert read(reader, text, "auto") == ([], text)
    assert read(reader, as_list(CALLS), "none") == ([], as_list(CALLS))


def most(reader: type[ToolCallReader], request: Any) -> int | None:
    adjusted = reader(AutoTokenizer.from_pretrained(DEMO), request.tools).adjust_request(request)
    grammar = adjusted.extract_structured_outputs()
    assert grammar is not None
    found: int | None = grammar.json.get("maxItems")
    return found


@pytest.mark.parametrize(
    ("parallel", "expected"),
    [({}, 2), ({"parallel_tool_calls": None}, 2), ({"parallel_tool_calls": False}, 1)],
    ids=str,
)
def test_a_required_list_ends(reader: type[ToolCallReader], parallel: dict[str, Any], expected: int) -> None:
    assert most(reader, asked(tool_choice="required", **parallel)) == expected
    flat = ResponsesRequest(input="Hi", tools=FLAT_TOOLS, tool_choice="required", **parallel)
    assert most(reader, flat) == expected


def test_parallel_calls_that_are_asked_for_have_no_number(reader: type[ToolCallReader]) -> None:
    assert most(reader, asked(tool_choice="required", parallel_tool_calls=True)) is None


@pytest.mark.parametrize(("disabled", "expected"), [(None, 2), (True, 1), (False, None)])
def test_messages_say_it_in_their_own_words(
    reader: type[ToolCallReader], disabled: bool | None, expected: int | None
) -> None:
    tools = [{"name": tool["name"], "input_schema": PLACE} for tool in FLAT_TOOLS]
    choice = {"type": "any"} | ({} if disabled is None else {"disable_parallel_tool_use": disabled})
    body = {"model": "demo", "max_tokens": 9, "messages": MESSAGES, "tools": tools, "tool_choice": choice}
    request = ToolMessages.to_chat_completion_request(AnthropicMessagesRequest(**body))
    assert most(reader, request) == expected
