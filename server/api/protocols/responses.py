"""vLLM's version of OpenAI's Responses API. Ours reads earlier turns as clients send them, and obeys `tool_choice`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from openai.types.responses import ResponseTextConfig, Tool, ToolChoiceCustom, ToolChoiceFunction
from pydantic import BeforeValidator, Field, model_validator
from vllm.entrypoints.openai.responses import protocol
from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses
from vllm.entrypoints.serve.engine.protocol import ErrorResponse

from server.requests.earlier_turns import readable
from server.requests.input_items import checked_item, checked_text, checked_tool
from server.requests.limits import MAX_ALTERNATIVES, refuse_templates
from server.requests.unsupported import refuse_uncertainty

Item = Annotated[
    protocol.ResponseInputOutputItem,
    BeforeValidator(protocol._default_input_image_details),
    BeforeValidator(checked_item),
]


class ResponsesRequest(protocol.ResponsesRequest):
    input: str | list[Item]
    tools: list[Annotated[Tool, BeforeValidator(checked_tool)]] = Field(default_factory=list)
    text: Annotated[ResponseTextConfig | None, BeforeValidator(checked_text)] = None
    top_logprobs: Annotated[protocol.TopLogprobsParam, Field(ge=0, le=MAX_ALTERNATIVES)] = 0

    @model_validator(mode="before")
    @classmethod
    def _has_readable_turns(cls, body: Any) -> Any:
        if isinstance(body, Mapping):
            refuse_templates(body)
        return readable(refuse_uncertainty(body))


class CheckedResponses(OpenAIServingResponses):
    def _validate_create_responses_input(self, request: protocol.ResponsesRequest) -> ErrorResponse | None:
        if request.background and not self.enable_store:
            return self.create_error_response(
                "`background` is not supported: this server stores nothing.", param="background"
            )
        return super()._validate_create_responses_input(request) or self._refused_choice(request.tool_choice)

    def _refused_choice(self, choice: Any) -> ErrorResponse | None:
        """Why `tool_choice` cannot be obeyed. vLLM refuses such chats itself."""
        if choice == "none":
            return None
        if choice not in ("auto", "required") and not isinstance(choice, ToolChoiceFunction | ToolChoiceCustom):
            known = '"none", "auto", "required" or a named function'
            return self.create_error_response(f"`tool_choice` must be {known}.", param="tool_choice")
        if self.parser is not None and self.parser.tool_parser_cls is not None:
            return None
        reason = "`tool_choice` requires --enable-auto-tool-choice and --tool-call-parser to be set."
        return self.create_error_response(reason, param="tool_choice")
