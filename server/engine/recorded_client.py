"""The engine client, as a place where every generated token of every route passes by and can be counted."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from vllm.lora.request import LoRARequest
from vllm.outputs import RequestOutput
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.engine.async_llm import AsyncLLM

from server import metrics
from server.engine.variants import VariantModels
from server.gate.context import RECORD, RequestRecord


class RecordedEngine(AsyncLLM):
    """Counts what the engine generates for clients, by the served model and growth stage, and times it.

    Every route of vLLM asks for deltas or for the final answer. Cumulative outputs, vLLM's default, are what the
    server asks for itself: given texts, members of an ensemble, every beam of a search, probes.
    """

    models: VariantModels

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams,
        request_id: str,
        *,
        lora_request: LoRARequest | None = None,
        **options: Any,
    ) -> AsyncGenerator[RequestOutput, None]:
        outputs = super().generate(prompt, sampling_params, request_id, lora_request=lora_request, **options)
        if sampling_params.output_kind == RequestOutputKind.CUMULATIVE:
            return outputs
        return self.recorded(outputs, lora_request, stream=sampling_params.output_kind == RequestOutputKind.DELTA)

    def recorded(
        self, outputs: AsyncGenerator[RequestOutput, None], adapter: LoRARequest | None, *, stream: bool
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of one prompt of the request that runs, each counted when it is taken."""
        record = RECORD.get()
        if record is None:
            return outputs
        record.model = self.models.model_name(adapter)
        stage = self.models.variants[adapter.lora_int_id if adapter else 0][-1].name
        return counted(outputs, record, stage, stream=stream)


async def counted(
    outputs: AsyncGenerator[RequestOutput, None], record: RequestRecord, stage: str, *, stream: bool
) -> AsyncGenerator[RequestOutput, None]:
    counter = metrics.TOKENS.labels(record.model, stage)
    first = True
    try:
        async with aclosing(outputs):
            async for result in outputs:
                if first:
                    first = False
                    note_first(record, result, stream)
                tokens, ended = 0, False
                for output in result.outputs:
                    tokens += len(output.token_ids)
                    ended |= output.finish_reason is not None
                if not record.nothing_shown:
                    record.completion_tokens += tokens
                    counter.inc(tokens)
                if ended:
                    note_finished(record, result)
                yield result
    except Exception:
        record.failed = True
        raise


def note_first(record: RequestRecord, result: RequestOutput, stream: bool) -> None:
    """The first output of a prompt."""
    record.prompt_tokens += len(result.prompt_token_ids or ())
    if stream and record.first_token_seconds is None and not record.nothing_shown:
        record.first_token_seconds = record.seconds
        metrics.FIRST_TOKEN_SECONDS.labels(record.model).observe(record.first_token_seconds)
    if (stats := result.metrics) is not None:  # None where the engine keeps no statistics
        record.queued_seconds = max(record.queued_seconds or 0.0, stats.scheduled_ts - stats.queued_ts)


def note_finished(record: RequestRecord, result: RequestOutput) -> None:
    """An output that ends sequences. The times are the engine's own, which a slow reader does not stretch."""
    record.finish_reasons.update(output.finish_reason for output in result.outputs if output.finish_reason)
    stats = result.metrics
    if stats is not None and stats.num_generation_tokens > 1:
        seconds = (stats.last_token_ts - stats.first_token_ts) / (stats.num_generation_tokens - 1)
        metrics.TOKEN_SECONDS.labels(record.model).observe(seconds)
