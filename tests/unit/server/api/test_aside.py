"""Large answers are built in threads."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from vllm.entrypoints.openai.completion.protocol import CompletionResponse, CompletionResponseChoice
from vllm.entrypoints.serve.engine.protocol import UsageInfo
from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens

from server.api.answers import ModelResponse
from server.api.aside import LONG_ANSWER, built, is_long
from server.engine.statistics import known_texts
from server.requests.schemas import ScoredCompletionChoice, ScoredCompletionLogprobs, ScoredCompletionResponse
from tests.support.demo_server import DEMO


def result(positions: list[dict[int, Logprob]] | None, prompt: list[Any] | None = None) -> RequestOutput:
    output = CompletionOutput(0, "", [5] * len(positions or ()), None, positions)
    return RequestOutput("r", None, [5], prompt, [output], finished=True)


def many(count: int) -> list[dict[int, Logprob]]:
    return [{5: Logprob(-1.0), 6: Logprob(-2.0)}] * (count // 2)


@pytest.mark.parametrize(
    ("found", "long"),
    [
        (result(None), False),
        (result(many(LONG_ANSWER)), False),
        (result(many(LONG_ANSWER + 2)), True),
        (result(many(2), [None, *many(LONG_ANSWER)]), True),
    ],
)
def test_what_is_made_aside_is_what_shows_many_logprobs(found: RequestOutput, long: bool) -> None:
    assert is_long([found]) == long

    async def given() -> AsyncGenerator[RequestOutput, None]:
        yield found

    async def build(results: list[AsyncGenerator[RequestOutput, None]]) -> tuple[Any, int]:
        await asyncio.sleep(0)  # as vLLM's merge of several prompts needs a loop
        return [[result async for result in one] for one in results], threading.get_ident()

    taken, thread = asyncio.run(built([given()], build))
    assert taken == [[found]]
    assert (thread != threading.get_ident()) == long


def test_an_error_comes_out_as_it_is() -> None:
    async def given() -> AsyncGenerator[RequestOutput, None]:
        yield result(many(LONG_ANSWER + 2))

    async def build(results: Any) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        asyncio.run(built([given()], build))


def test_json_made_choice_by_choice_is_that_of_the_whole() -> None:
    logprobs = ScoredCompletionLogprobs(tokens=['"a'], token_logprobs=[float("-inf")], entropy=[0.5])
    choice = ScoredCompletionChoice(index=0, text="ä", logprobs=logprobs, finish_reason="stop")
    found = ScoredCompletionResponse(model="m", choices=[choice, choice], usage=UsageInfo())
    assert json.loads(bytes(ModelResponse(found).body)) == json.loads(found.model_dump_json())
    plain = CompletionResponse(model="m", choices=[CompletionResponseChoice(index=0, text="x")], usage=UsageInfo())
    assert bytes(ModelResponse(plain).body).decode() == plain.model_dump_json()


def test_texts_of_tokens_are_those_of_vllm() -> None:
    from vllm.tokenizers import get_tokenizer

    tokenizer = get_tokenizer(str(DEMO))
    ids = [*range(len(tokenizer)), *range(50)]
    assert known_texts(tokenizer, ids) == convert_ids_list_to_tokens(tokenizer, ids)
