"""vLLM's beam search. It ignores most parameters of a request; ours refuses them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

from vllm.config import ModelConfig
from vllm.entrypoints.generate.base.serving import GenerateBaseServing
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput

from server.engine.client import TokenformerClient
from server.requests.formats import PlainFormat

IGNORED: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": (),
    "bad_words": ([],),
    "ec_transfer_params": (),
    "frequency_penalty": (0,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "priority": (0,),
    "prompt_logprobs": (),
    "repetition_detection": (),
    "repetition_penalty": (1,),
    "response_format": (PlainFormat(type="text"),),
    "spaces_between_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "temperature": (0, 1),
    "thinking_token_budget": (),
    "tool_choice": ("auto", "none"),
    "top_k": (-1, 0),
    "top_p": (1,),
    "vllm_xargs": ({},),
}
"""Ignored parameters -> the values, beside null, that have no effect."""


def check_beams(request: ChatCompletionRequest | CompletionRequest, config: ModelConfig) -> None:
    """Raises VLLMValidationError for parameters that beam search does not support."""
    for name, nothing in IGNORED.items():
        value = getattr(request, name, None)
        if value is not None and value not in nothing:
            raise unsupported(name)
    beams = request.n or 1
    candidates = 2 * beams  # the logprobs that every step asks the engine for
    most = config.get_vocab_size() if config.max_logprobs == -1 else config.max_logprobs
    if candidates > most:
        message = f"`n` must be at most {most // 2} with beam search, not {beams}."
        raise VLLMValidationError(message, parameter="n")
    name = "top_logprobs" if isinstance(request, ChatCompletionRequest) else "logprobs"
    if not 0 <= (getattr(request, name) or 0) <= candidates:
        message = f"`{name}` must be 0 to {candidates} with {beams} beams, twice their number."
        raise VLLMValidationError(message, parameter=name)
    if isinstance(request, CompletionRequest) and request.echo and request.logprobs is not None:
        raise VLLMValidationError("`echo` with logprobs is not supported with beam search.", parameter="echo")


def unsupported(name: str) -> VLLMValidationError:
    return VLLMValidationError(f"`{name}` is not supported with beam search.", parameter=name)


class BeamSearch(GenerateBaseServing):
    """Adds the end token and the adapter to beams, and counts the tokens of the beams that are returned."""

    def beam_search(
        self,
        prompt: Any,
        request_id: str,
        params: Any,
        lora_request: LoRARequest | None = None,
        *rest: Any,
        **more: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        if params.max_tokens < 1:
            raise VLLMValidationError("`max_tokens` must be at least 1 with beam search.", parameter="max_tokens")
        beams = super().beam_search(prompt, request_id, params, lora_request, *rest, **more)
        complete = completed_beams(beams, lora_request)
        return cast(TokenformerClient, self.engine_client).recorded(complete, lora_request, stream=False)


async def completed_beams(
    results: AsyncGenerator[RequestOutput, None], adapter: LoRARequest | None
) -> AsyncGenerator[RequestOutput, None]:
    """Adds what vLLM leaves out: the adapter, and the end token of a beam, whose logprobs are there."""
    async for result in results:
        result.lora_request = adapter
        for output in result.outputs:
            if output.finish_reason == "stop":
                output.token_ids = [*output.token_ids, cast(int, output.stop_reason)]
        yield result
