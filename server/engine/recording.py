"""Counts and times the generated tokens of all routes, as they pass the engine client."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from vllm.outputs import RequestOutput

from server import metrics
from server.gate.context import RequestRecord


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
    """Record the first output of a prompt."""
    record.prompt_tokens += len(result.prompt_token_ids or ())
    if stream and record.first_token_seconds is None and not record.nothing_shown:
        record.first_token_seconds = record.seconds
        metrics.FIRST_TOKEN_SECONDS.labels(record.model).observe(record.first_token_seconds)
    if (stats := result.metrics) is not None:  # the engine may keep no statistics
        record.queued_seconds = max(record.queued_seconds or 0.0, stats.scheduled_ts - stats.queued_ts)


def note_finished(record: RequestRecord, result: RequestOutput) -> None:
    """Record an output that ends sequences. The times are the engine's, so a slow reader does not change them."""
    record.finish_reasons.update(output.finish_reason for output in result.outputs if output.finish_reason)
    stats = result.metrics
    if stats is not None and stats.num_generation_tokens > 1:
        seconds = (stats.last_token_ts - stats.first_token_ts) / (stats.num_generation_tokens - 1)
        metrics.TOKEN_SECONDS.labels(record.model).observe(seconds)
