"""Counts of the engine's outputs on their way to the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

import pytest
from prometheus_client import REGISTRY
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.v1.metrics.stats import RequestStateStats

from server.api.chat import ScoredChat
from server.api.completion import ScoredCompletion
from server.engine.recording import counted
from server.engine.statistics import ScoredLogprob
from server.gate.context import RequestContext, RequestRecord, entered


@pytest.fixture
def record() -> Iterator[RequestRecord]:
    found = RequestRecord("id", model="counted")
    with entered(RequestContext(found)):
        yield found


def result(*lengths: int, reason: str | None = None, stats: RequestStateStats | None = None) -> RequestOutput:
    outputs = [
        CompletionOutput(i, "", list(range(length)), None, None, finish_reason=reason)
        for i, length in enumerate(lengths)
    ]
    return RequestOutput("id", None, [1, 2, 3], None, outputs, finished=reason is not None, metrics=stats)


async def engine(*results: RequestOutput | Exception, closed: list[bool]) -> AsyncGenerator[RequestOutput, None]:
    try:
        for found in results:
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        closed.append(True)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"tokenformer_{name}", {"model_name": "counted"} | labels) or 0.0


def test_a_stream_is_recorded_with_its_tokens_and_times(record: RequestRecord) -> None:
    stats = RequestStateStats(
        num_generation_tokens=4, queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.0, last_token_ts=5.0
    )
    before = [value(f"{name}_count") for name in ("time_to_first_token_seconds", "time_per_output_token_seconds")]
    seconds, tokens = value("time_per_output_token_seconds_sum"), value("tokens_total", growth_stage="s")

    async def run() -> None:
        outputs = engine(
            result(1, stats=stats), result(2, 0, stats=stats), result(1, reason="stop", stats=stats), closed=[]
        )
        async for _ in counted(outputs, record, ["s"], stream=True):
            pass

    asyncio.run(run())
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reasons) == (3, 4, {"stop": 1})
    assert record.queued_seconds == 0.5
    assert record.first_token_seconds is not None and not record.failed
    assert value("tokens_total", growth_stage="s") == tokens + 4
    assert [value(f"{name}_count") for name in ("time_to_first_token_seconds", "time_per_output_token_seconds")] == [
        count + 1 for count in before
    ]
    assert value("time_per_output_token_seconds_sum") == seconds + 1.0


def grown(*places: list[float] | None) -> list[ScoredLogprob]:
    entries = []
    for part in places:
        entries.append(ScoredLogprob(-0.1, 1, None, entropy=0.5, variance=0.5, margin=0.5))
        entries[-1].places = part
    return entries


@pytest.mark.parametrize("at_once", [1, 100])
def test_a_token_counts_for_the_stage_that_adds_most_to_it(
    record: RequestRecord, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """The statistics lag behind the tokens, and those of the last token never come. The third place is of no stage of
    the model."""
    monkeypatch.setattr("server.engine.recording.COUNTED_AT_ONCE", at_once)
    results = [result(length) for length in (1, 2, 3)]
    entries = grown([2.0, 1.0, 0.0], [-1.0, 1.0, 9.0], [0.5, 0.0, 0.0], None, [3.0, -3.0, 9.0])
    for found, part in zip(results, (entries[:0], entries[:2], entries[2:]), strict=True):
        found.outputs[0].logprobs = part  # type: ignore[assignment]
    before = [value("tokens_total", growth_stage=stage) for stage in ("old", "new")]

    async def run() -> None:
        async for _ in counted(engine(*results, closed=[]), record, ["old", "new"], stream=True):
            pass

    asyncio.run(run())
    after = [value("tokens_total", growth_stage=stage) for stage in ("old", "new")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1 + 2]


def test_who_leaves_lets_go_of_the_engine_at_once(record: RequestRecord) -> None:
    closed: list[bool] = []

    async def run() -> None:
        outputs = counted(engine(result(1), result(1), closed=closed), record, ["s"], stream=True)
        async for _ in outputs:
            break
        await outputs.aclose()
        assert closed == [True]

    asyncio.run(run())
    assert (record.completion_tokens, record.finish_reasons, record.failed) == (1, {}, False)


def test_an_engine_that_fails(record: RequestRecord) -> None:
    async def run() -> None:
        async for _ in counted(engine(result(1), RuntimeError(), closed=[]), record, ["s"], stream=False):
            pass

    with pytest.raises(RuntimeError):
        asyncio.run(run())
    assert record.failed and record.first_token_seconds is None


@pytest.mark.parametrize("serving", [ScoredChat, ScoredCompletion])
def test_an_error_event_is_noted(record: RequestRecord, serving: type[ScoredChat | ScoredCompletion]) -> None:
    found = object.__new__(serving)
    found.log_error_stack = False
    assert "went wrong" in found.create_streaming_error_response("went wrong")
    assert record.failed
