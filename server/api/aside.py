"""Threads for large answers, so that the event loop serves others meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from vllm.outputs import RequestOutput

from server.engine.tasks import together

LONG_ANSWER = 512
"""Tokens to note, or logprobs to show, that take about 5 ms. A thread costs less."""

Result = TypeVar("Result")


def is_long(results: Iterable[RequestOutput]) -> bool:
    """Whether making an answer of them takes long."""
    return sum(map(_shown, results)) > LONG_ANSWER


async def built(
    generators: Sequence[AsyncIterator[RequestOutput]],
    build: Callable[[list[AsyncGenerator[RequestOutput, None]]], Coroutine[Any, Any, Result]],
) -> Result:
    """The response that vLLM's `build` makes of all results, once they are complete."""
    taken = await together(_collected(generator) for generator in generators)
    making = build([_replayed(results) for results in taken])
    if is_long(result for results in taken for result in results):
        return await asyncio.to_thread(asyncio.run, making)
    return await making


async def _collected(results: AsyncIterator[RequestOutput]) -> list[RequestOutput]:
    return [result async for result in results]


async def _replayed(results: list[RequestOutput]) -> AsyncGenerator[RequestOutput, None]:
    for result in results:
        yield result


def _shown(result: RequestOutput) -> int:
    positions = [position for output in result.outputs for position in output.logprobs or ()]
    return sum(
        len(position) for position in (*positions, *(result.prompt_logprobs or ())) if isinstance(position, dict)
    )
