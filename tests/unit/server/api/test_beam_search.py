"""Beam search refuses what it would ignore, and its answers have their end token and their model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import BeamSearchParams

from server.api.beam_search import IGNORED, BeamSearch, check_beams, completed_beams
from server.requests.schemas import ScoredChatCompletionRequest, ScoredCompletionRequest

REQUESTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat": (ScoredChatCompletionRequest, {"messages": [{"role": "user", "content": "Hi"}]}),
    "completion": (ScoredCompletionRequest, {"prompt": "Hi"}),
}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
ASKED: dict[str, Any] = {
    "allowed_token_ids": [5],
    "bad_words": ["a"],
    "ec_transfer_params": {"a": 1},
    "frequency_penalty": 0.5,
    "include_stop_str_in_output": True,
    "kv_transfer_params": {"a": 1},
    "logit_bias": {"5": 1},
    "min_p": 0.1,
    "min_tokens": 1,
    "presence_penalty": -1,
    "priority": 1,
    "prompt_logprobs": 0,
    "repetition_detection": {"max_pattern_size": 2, "min_count": 2},
    "repetition_penalty": 1.1,
    "response_format": {"type": "json_object"},
    "spaces_between_special_tokens": False,
    "stop": "a",
    "stop_token_ids": [5],
    "structured_outputs": {"choice": ["a", "b"]},
    "temperature": 0.7,
    "thinking_token_budget": 5,
    "tool_choice": "required",
    "top_k": 5,
    "top_p": 0.9,
    "vllm_xargs": {"a": 1},
}


def check(kind: str, max_logprobs: int = 20, **fields: Any) -> None:
    request, prompt = REQUESTS[kind]
    if "tool_choice" in fields:
        fields["tools"] = TOOLS
    config: Any = SimpleNamespace(max_logprobs=max_logprobs, get_vocab_size=lambda: 40)
    check_beams(request(use_beam_search=True, **prompt, **fields), config)


def blamed(kind: str, max_logprobs: int = 20, **fields: Any) -> str | None:
    with pytest.raises(VLLMValidationError) as refused:
        check(kind, max_logprobs, **fields)
    return refused.value.parameter


def test_every_ignored_parameter_is_tried() -> None:
    assert ASKED.keys() == IGNORED.keys()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, (request, _) in REQUESTS.items() for name in IGNORED if name in request.model_fields],
)
def test_what_would_be_ignored_is_refused_by_its_name(kind: str, name: str) -> None:
    assert blamed(kind, **{name: ASKED[name]}) == name


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 10, "ignore_eos": True, "length_penalty": 0.5, "seed": 3, "user": "a", "cache_salt": "a"},
        {"skip_special_tokens": False, "return_token_ids": True, "echo": True},
        {"uncertainty": {"spans": True, "ensemble": 2}},
        {"temperature": 0, "top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1, "min_tokens": 0},
        {"temperature": 1.0, "top_k": 0, "presence_penalty": 0.0, "frequency_penalty": 0, "prompt_logprobs": False},
        {"stop": [], "stop_token_ids": [], "bad_words": [], "logit_bias": {}, "response_format": {"type": "text"}},
        {"stop": None, "logit_bias": None, "response_format": None, "thinking_token_budget": -1},
    ],
    ids=str,
)
def test_what_beam_search_does_or_what_asks_for_nothing_passes(kind: str, fields: dict[str, Any]) -> None:
    check(kind, **fields)


def test_a_chat_may_have_tools_that_it_need_not_call() -> None:
    check("chat", tool_choice="auto")


@pytest.mark.parametrize("kind", REQUESTS)
def test_too_many_beams_are_the_fault_of_n(kind: str) -> None:
    assert blamed(kind, n=11) == "n"
    assert blamed(kind, 0, n=1) == "n"
    assert blamed(kind, -1, n=21) == "n"  # no limit but the vocabulary
    check(kind, -1, n=20)


def test_no_more_alternatives_than_a_step_asks_for() -> None:
    check("chat", n=2, logprobs=True, top_logprobs=4)
    assert blamed("chat", n=2, logprobs=True, top_logprobs=5) == "top_logprobs"
    check("completion", n=2, logprobs=4)
    assert blamed("completion", n=2, logprobs=5) == "logprobs"
    assert blamed("completion", n=2, logprobs=-1) == "logprobs"


def test_beams_have_a_token() -> None:
    with pytest.raises(VLLMValidationError) as refused:
        BeamSearch.__new__(BeamSearch).beam_search({}, "r", BeamSearchParams(beam_width=2, max_tokens=0))
    assert refused.value.parameter == "max_tokens"


def test_the_prompt_of_beams_has_no_logprobs_to_echo() -> None:
    assert blamed("completion", echo=True, uncertainty={"tokens": True}) == "echo"


def test_a_beam_that_ended_has_its_end_token_and_every_result_its_model() -> None:
    adapter = LoRARequest("demo:base", 1, "path")

    async def beams() -> AsyncGenerator[RequestOutput, None]:
        ended = CompletionOutput(0, "a", [5], None, [{}, {}], finish_reason="stop", stop_reason=2)  # type: ignore[list-item]
        cut = CompletionOutput(1, "a b", [5, 6], None, [{}, {}], finish_reason="length")  # type: ignore[list-item]
        yield RequestOutput("r", None, [1], None, [ended, cut], finished=True)

    async def collect() -> list[RequestOutput]:
        return [result async for result in completed_beams(beams(), adapter)]

    (result,) = asyncio.run(collect())
    assert [list(output.token_ids) for output in result.outputs] == [[5, 2], [5, 6]]
    assert result.lora_request is adapter
