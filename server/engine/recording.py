"""Counts and times the generated tokens of all routes, as they pass the engine client."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from vllm.outputs import RequestOutput

from server import metrics
from server.engine.statistics import scored
from server.gate.context import RequestRecord

COUNTED_AT_ONCE = 4096
"""Tokens whose growth is read in about 3 ms; that of more is read in a thread."""


async def counted(
    outputs: AsyncGenerator[RequestOutput, None], record: RequestRecord, stages: Sequence[str], *, stream: bool
) -> AsyncGenerator[RequestOutput, None]:
    """`stages` are those of the model that answers, by place."""
    counters = [metrics.TOKENS.labels(record.model, stage) for stage in stages]
    first, late = True, 0
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
                    if tokens > COUNTED_AT_ONCE:
                        made = await asyncio.to_thread(strongest_places, result, len(stages))
                    else:
                        made = strongest_places(result, len(stages))
                    late += tokens - made.total()
                    for place, number in made.items():
                        counters[place].inc(number)
                if ended:
                    note_finished(record, result)
                yield result
    except Exception:
        record.failed = True
        raise
    finally:
        counters[-1].inc(max(late, 0))  # tokens of an aborted answer whose statistics have not come


def strongest_places(result: RequestOutput, stages: int) -> Counter[int]:
    """The tokens by the place, of the first `stages`, that adds most to their logit; by the last where that is not
    known. Statistics may come after their tokens."""
    made = Counter[int]()
    for output in result.outputs:
        if stages == 1 or output.logprobs is None:
            made[stages - 1] += len(output.token_ids)
            continue
        for entry in map(scored, output.logprobs):
            places = entry.places[:stages] if entry is not None and entry.places else None
            made[places.index(max(places)) if places else stages - 1] += 1
    return made


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
