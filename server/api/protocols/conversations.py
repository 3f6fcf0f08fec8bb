"""vLLM's further routes for chats, with the messages and parameters of `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Discriminator, Field, Tag, model_validator
from vllm.entrypoints.openai.chat_completion.batch_serving import OpenAIServingChatBatch
from vllm.entrypoints.openai.chat_completion.protocol import (
    BatchChatCompletionRequest,
    ChatCompletionRequest,
    ChatCompletionResponse,
)
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.tokenize.api_router import tokenize
from vllm.entrypoints.serve.tokenize.protocol import TokenizeChatRequest, TokenizeCompletionRequest, TokenizeResponse
from vllm.entrypoints.serve.utils.api_utils import load_aware_call, validate_json_request, with_cancellation
from vllm.exceptions import VLLMValidationError

from server.api.answers import answer
from server.api.aside import built
from server.requests.limits import RequestLimits, refuse_templates
from server.requests.messages import Messages
from server.requests.schemas import ScoredChatCompletionRequest
from server.requests.unsupported import refuse_uncertainty

router = APIRouter()


class TokenizedChat(TokenizeChatRequest):
    messages: Messages  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _check_before_vllm_reads(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_templates(data)
        return data


class Batch(RequestLimits, BatchChatCompletionRequest):  # type: ignore[misc]  # narrower fields
    messages: Annotated[list[Messages], Field(min_length=1)]  # type: ignore[assignment]

    @model_validator(mode="before")
    @classmethod
    def _is_no_stream(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("stream"):
            raise VLLMValidationError("`stream` is not supported for batches of chats.", parameter="stream")
        return refuse_uncertainty(data)

    def to_chat_completion_request(self, messages: Any) -> ChatCompletionRequest:
        """One of the chats. It has no scores, as this route returns none. It is not validated again: vLLM also calls
        this after the renderer has parsed tool calls' arguments in place."""
        fields = {name: value for name, value in self if value is not None}
        return ScoredChatCompletionRequest.model_construct(**fields | {"messages": messages, "uncertainty": False})


class ChatBatch(OpenAIServingChatBatch):
    async def chat_completion_full_generator_batch(
        self, request: Any, generators: list[Any], *args: Any, **kwargs: Any
    ) -> ErrorResponse | ChatCompletionResponse:
        build = super().chat_completion_full_generator_batch
        return await built(generators, lambda results: build(request, results, *args, **kwargs))


def chat_or_text(body: Any) -> str:
    """The tag of a body, for unions of both types of requests."""
    return "a chat" if isinstance(body, Mapping) and "messages" in body else "a text"


@router.post(
    "/tokenize",
    dependencies=[Depends(validate_json_request)],
    responses={200: {"model": TokenizeResponse}},
)
async def tokenize_prompt(
    request: Annotated[
        Annotated[TokenizedChat, Tag("a chat")] | Annotated[TokenizeCompletionRequest, Tag("a text")],
        Discriminator(chat_or_text),
    ],
    raw_request: Request,
) -> Response:
    """Token ids of a text, or of a chat's prompt."""
    return cast(Response, await tokenize(request, raw_request))


@router.post("/v1/chat/completions/batch", dependencies=[Depends(validate_json_request)])
@with_cancellation  # type: ignore[untyped-decorator]
@load_aware_call  # type: ignore[untyped-decorator]
async def create_batch(request: Batch, raw_request: Request) -> Response:
    """vLLM's answers to several chats at once, a choice each."""
    serving: ChatBatch = raw_request.app.state.openai_serving_chat_batch
    return await answer(await serving.create_batch_chat_completion(request, raw_request), raw_request)
