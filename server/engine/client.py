"""vLLM's engine client with our overrides. All requests of all routes pass here, and all tokens.

vLLM checks a request when the engine gets it. By then a stream has already been answered with 200, so ours checks
before.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import RequestOutputCollector

from model_impl.override import override_class
from model_impl.wire import report_args
from server.engine.constraints.grammars import BACKEND, Grammars
from server.engine.input_processor import CheckedInput
from server.engine.models import ScoredModels
from server.engine.recording import counted
from server.gate.context import CONTEXT


class TokenformerClient(AsyncLLM):
    """Refuses requests before there is a stream, and counts the tokens that clients get.

    Checking a grammar takes a while, so `server.api.serving` does it earlier; here it is done for other routes. Clients
    get deltas or final outputs. The server itself asks for cumulative ones: for given texts, members of an ensemble,
    beams and probes.
    """

    models: ScoredModels
    grammars: Grammars | None
    """None if the user has chosen another backend, for which vLLM checks grammars itself."""

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        cast(CheckedInput, self.input_processor).check(prompt, sampling_params)
        cumulative = sampling_params.output_kind == RequestOutputKind.CUMULATIVE
        if cumulative and sampling_params.logprobs and not sampling_params.extra_args:
            sampling_params.extra_args = report_args()  # a step of a beam, which vLLM makes without our arguments
        outputs = super().generate(prompt, sampling_params, request_id, lora_request=lora_request, **options)
        if cumulative:
            return outputs
        return self.recorded(outputs, lora_request, stream=sampling_params.output_kind == RequestOutputKind.DELTA)

    def recorded(
        self, outputs: AsyncGenerator[RequestOutput, None], adapter: LoRARequest | None, *, stream: bool
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of one prompt of the current request, counted as they are taken."""
        record = CONTEXT.get().record
        if record is None:
            return outputs
        record.model = self.models.model_name(adapter)
        return counted(outputs, record, self.models.stages(adapter), stream=stream)

    async def check_grammar(self, request: ChatCompletionRequest | CompletionRequest, parameter: str | None) -> None:
        """Raises VLLMValidationError, naming `parameter`, for a grammar that is not possible."""
        if self.grammars is not None:
            await self.grammars.check(request.extract_structured_outputs(), parameter)

    async def add_request(
        self, request_id: str, prompt: Any, params: SamplingParams | PoolingParams, *args: Any, **kwargs: Any
    ) -> RequestOutputCollector:
        if self.grammars is not None and isinstance(params, SamplingParams):
            await self.grammars.check(params.structured_outputs, "structured_outputs")
        return await super().add_request(request_id, prompt, params, *args, **kwargs)


def open_client(chat: OpenAIServingChat, models: ScoredModels) -> None:
    """Put our overrides on the engine client of all routes.

    With our grammars, vLLM's own trial of them, in the event loop, is switched off. So are its grammars for tools in a
    format that only xgrammar reads; it then makes JSON schemas instead.
    """
    override_class(chat.engine_client, TokenformerClient)
    client = cast(TokenformerClient, chat.engine_client)
    config = client.vllm_config.structured_outputs_config
    client.models, client.grammars = models, Grammars(config) if config.backend == BACKEND else None
    if client.grammars is None:
        return
    client.input_processor.structured_outputs_config = None  # type: ignore[assignment]
    tool_parser = chat.parser_cls.tool_parser_cls if chat.parser_cls is not None else None
    if tool_parser is not None:
        tool_parser.structural_tag_model, tool_parser.supports_required_and_named = None, True
