"""Tool calls: their number under a grammar, and the finished ones of an answer that is cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from vllm.entrypoints.anthropic.serving import AnthropicServingMessages
from vllm.entrypoints.generate.base.protocol import DeltaToolCall, FunctionCall
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.outputs import RequestOutput
from vllm.parser.abstract_parser import DelegatingParser
from vllm.tool_parsers.utils import is_complete_json


class ToolCallReader(DelegatingParser):
    """Mixed into the class that vLLM composes of a tool parser and a reasoning parser."""

    def adjust_request(self, request: Any) -> Any:
        """Limits the list of required calls to the number of tools, unless the client asks for parallel calls: vLLM's
        grammar allows any length, and a small model does not end such a list."""
        request = super().adjust_request(request)
        wished = request.parallel_tool_calls and "parallel_tool_calls" in request.model_fields_set
        in_json = self._tool_parser is not None and self._tool_parser.supports_required_and_named
        if request.tool_choice == "required" and in_json and not wished:
            calls = _schema(request)
            calls.setdefault("maxItems", len(calls["items"]["anyOf"]))
        return request

    def _extract_tool_calls(
        self, content: str | None, request: Any, enable_auto_tools: bool = False
    ) -> tuple[list[FunctionCall] | None, str | None]:
        """Keeps the finished calls of a text that is cut off in its last call, where vLLM drops all calls. They are
        read as in streams."""
        calls, rest = super()._extract_tool_calls(content, request, enable_auto_tools)
        if calls or not content or not request.tools or request.tool_choice == "none" or self._engine_based:
            return calls, rest
        begun, _ = self._extract_tool_calls_streaming("", content, content, [], [], [], request)
        finished = list(_finished(begun.tool_calls)) if begun is not None else []
        return (finished, begun.content) if finished and begun is not None else (calls, rest)


def _schema(request: Any) -> Any:
    """The schema of the calls, where vLLM's tool parser has put it."""
    chat = isinstance(request, ChatCompletionRequest)
    return request.structured_outputs.json if chat else request.text.format.schema_


def _finished(parts: Iterable[DeltaToolCall]) -> Iterator[FunctionCall]:
    """The calls with complete arguments, from the parts of a stream."""
    calls: dict[int, FunctionCall] = {}
    for part in parts:
        call = calls.setdefault(part.index, FunctionCall(id=part.id, name="", arguments=""))
        if part.function is not None:
            call.name += part.function.name or ""
            call.arguments += part.function.arguments or ""
    return (call for call in calls.values() if is_complete_json(call.arguments))


class CutOffChoices:
    """Choices that the token limit ended. vLLM reports it in streams, but `tool_calls` in plain answers with a call."""

    def __init__(self) -> None:
        self.indices: set[int] = set()

    def note(self, result: RequestOutput) -> None:
        self.indices.update(output.index for output in result.outputs if output.finish_reason == "length")

    def tell(self, response: ErrorResponse | ChatCompletionResponse) -> None:
        for choice in response.choices if isinstance(response, ChatCompletionResponse) else ():
            if choice.index in self.indices:
                choice.finish_reason = "length"


class ToolMessages(AnthropicServingMessages):
    @classmethod
    def _convert_tool_choice(cls, anthropic_request: Any, req: Any) -> None:
        """Leaves `parallel_tool_calls` unset where the client does; vLLM sets it."""
        super()._convert_tool_choice(anthropic_request, req)
        if anthropic_request.tool_choice and anthropic_request.tool_choice.disable_parallel_tool_use is None:
            req.parallel_tool_calls = None


def open_tool_calls(*holders: tuple[Any, str]) -> None:
    """Mix the reader into the parser classes that these attributes hold."""
    readers: dict[type, type] = {}
    for holder, name in holders:
        parser = getattr(holder, name)
        if isinstance(parser, type) and issubclass(parser, DelegatingParser) and parser.tool_parser_cls is not None:
            reader = readers.setdefault(parser, type(ToolCallReader.__name__, (ToolCallReader, parser), {}))
            setattr(holder, name, cast(Any, reader))
