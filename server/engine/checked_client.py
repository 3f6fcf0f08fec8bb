"""The engine client, as the place that no request passes which the model cannot serve.

vLLM says so only when the engine is asked, which for a stream is after its response has begun with status 200.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.outputs import RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import RequestOutputCollector

from model_impl.override import specialise
from server.engine.grammars import BACKEND, Grammars
from server.engine.variants import VariantInput


class CheckedEngine(AsyncLLM):
    """Refuses before there is a stream; with grammars, which take a while, the serving classes begin (see
    `server.api.serving`), and this is where those of vLLM's other routes are caught."""

    grammars: Grammars | None
    """None where the user has chosen another backend than ours, which vLLM then checks itself."""

    def generate(
        self, prompt: Any, sampling_params: SamplingParams, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        cast(VariantInput, self.input_processor).check(prompt, sampling_params)
        return super().generate(prompt, sampling_params, *args, **kwargs)

    async def check_grammar(self, request: ChatCompletionRequest | CompletionRequest, parameter: str | None) -> None:
        """Raises VLLMValidationError, naming `parameter`, where the form that the answer is to have is not possible."""
        if self.grammars is not None:
            await self.grammars.check(request.extract_structured_outputs(), parameter)

    async def add_request(
        self, request_id: str, prompt: Any, params: SamplingParams | PoolingParams, *args: Any, **kwargs: Any
    ) -> RequestOutputCollector:
        if self.grammars is not None and isinstance(params, SamplingParams):
            await self.grammars.check(params.structured_outputs, "structured_outputs")
        return await super().add_request(request_id, prompt, params, *args, **kwargs)


def open_checks(chat: OpenAIServingChat) -> None:
    """Make the engine client of all routes check what it is asked.

    Where grammars are ours to try, vLLM must not do so as well: it would, in the event loop, for as long as they take.
    Nor may it write grammars for tools that only xgrammar reads; the JSON schemas that it makes otherwise will do.
    """
    specialise(chat.engine_client, CheckedEngine)
    engine = cast(CheckedEngine, chat.engine_client)
    config = engine.vllm_config.structured_outputs_config
    engine.grammars = Grammars(config) if config.backend == BACKEND else None
    if engine.grammars is None:
        return
    engine.input_processor.structured_outputs_config = None  # type: ignore[assignment]
    tool_parser = chat.parser_cls.tool_parser_cls if chat.parser_cls is not None else None
    if tool_parser is not None:
        tool_parser.structural_tag_model, tool_parser.supports_required_and_named = None, True
