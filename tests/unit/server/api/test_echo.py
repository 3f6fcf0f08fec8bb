"""Completions echo the prompt before every choice, and no generated token where none was wanted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput

from server.api.completion import ScoredCompletion
from server.requests.schemas import ScoredCompletionRequest

TOKENIZER: Any = SimpleNamespace(decode=str)
PROMPT = [5, 6]
PROMPT_LOGPROBS: list[Any] = [None, {6: Logprob(-1.0, 1, "b")}]


def serving() -> ScoredCompletion:
    made: Any = ScoredCompletion.__new__(ScoredCompletion)
    made.models = made.system_fingerprint = None
    made.renderer = SimpleNamespace(tokenizer=TOKENIZER)
    made.enable_force_include_usage = made.enable_prompt_tokens_details = made.enable_per_request_metrics = False
    made.return_tokens_as_token_ids = False
    found: ScoredCompletion = made
    return found


def request(**fields: Any) -> ScoredCompletionRequest:
    return ScoredCompletionRequest(prompt=PROMPT, echo=True, uncertainty=False, **fields)


def result(index: int, token_id: int, prompt_logprobs: Any, ended: str | None = None) -> RequestOutput:
    logprobs = [{token_id: Logprob(-2.0, 1, str(token_id))}]
    output = CompletionOutput(index, str(token_id), [token_id], None, logprobs, finish_reason=ended)
    return RequestOutput("r", "ab", PROMPT, prompt_logprobs, [output], finished=ended is not None)


def events(asked: ScoredCompletionRequest, *results: RequestOutput) -> list[dict[str, Any]]:
    async def passing() -> AsyncIterator[tuple[int, RequestOutput]]:
        for passed in results:
            yield 0, passed

    async def collect() -> list[dict[str, Any]]:
        chunks = serving().completion_stream_generator(
            asked, [{}], passing(), "r", 0, "m", num_prompts=1, tokenizer=TOKENIZER, request_metadata=SimpleNamespace()
        )
        return [json.loads(chunk[6:]) async for chunk in chunks if chunk.startswith("data: {")]

    return asyncio.run(collect())


def test_every_choice_of_a_stream_echoes_the_prompt_with_its_logprobs() -> None:
    """vLLM merges results that nobody has taken yet, and of the second it drops the prompt's logprobs."""
    merged = result(0, 8, [], "length")
    merged.add(result(1, 7, PROMPT_LOGPROBS, "length"), aggregate=True)
    found = events(request(n=2, logprobs=0, max_tokens=2), result(0, 7, PROMPT_LOGPROBS), merged)
    choices = [choice for event in found for choice in event["choices"]]
    firsts = [next(choice for choice in choices if choice["index"] == index) for index in (0, 1)]
    for first in firsts:
        assert first["text"].startswith("ab")
        assert first["logprobs"]["token_logprobs"][:2] == [None, -1.0]
        assert len(first["logprobs"]["tokens"]) == len(PROMPT) + 1


def test_a_mere_echo_generates_nothing_in_a_stream() -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = request(max_tokens=0, stream=True, stream_options=options, return_token_ids=True)
    first, last = events(asked, result(0, 7, None, "length"))
    assert first["choices"][0]["token_ids"] == []
    for event in (first, last):
        assert (event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]) == (2, 0)


def test_a_mere_echo_generates_nothing_in_a_whole_answer() -> None:
    asked = request(max_tokens=0, n=2, return_token_ids=True)
    found = result(0, 7, None, "length")
    found.add(result(1, 8, None, "length"), aggregate=False)
    collected = serving().request_output_to_completion_response(
        [found], asked, "r", 0, "m", tokenizer=TOKENIZER, request_metadata=SimpleNamespace()
    )
    answer = asyncio.run(serving().respond(asked, collected))
    assert [choice.token_ids for choice in answer.choices] == [[], []]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 0, 2)
