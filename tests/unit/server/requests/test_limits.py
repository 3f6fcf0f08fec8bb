"""Limits of requests that need no server to test."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from vllm.exceptions import VLLMValidationError

from server.requests.limits import MAX_SEQUENCES, blame_parameter
from server.requests.schemas import ScoredChatCompletionRequest, ScoredCompletionRequest

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": None, "stop": None, "logit_bias": None, "stop_token_ids": None},
        {"n": 128, "best_of": 128},
        {"temperature": 2, "top_p": 1, "top_k": -1, "min_p": 0, "presence_penalty": -2, "frequency_penalty": 2},
        {"seed": -(2**63)},
        {"stop": ["a"] * 64},
        {"stop": "\n"},
        {"logit_bias": {"0": -100, "50256": 100}},
        {"vllm_xargs": {"a": 2**63 - 1, "b": ["x", 0.5]}},
        {"structured_outputs": {"choice": ["a", "b"]}},
    ],
    ids=str,
)
def test_what_is_within_the_limits(fields: dict[str, Any]) -> None:
    ScoredChatCompletionRequest(messages=MESSAGES, **fields)
    ScoredCompletionRequest(prompt="Hi", **fields)


def test_variables_of_the_template_are_for_clients() -> None:
    request = ScoredChatCompletionRequest(messages=MESSAGES, chat_template_kwargs={"enable_thinking": False})
    assert request.chat_template_kwargs == {"enable_thinking": False}


def test_choices_are_counted_over_all_prompts() -> None:
    ScoredCompletionRequest(prompt=["Hi"] * (MAX_SEQUENCES // 8), n=8)
    with pytest.raises(VLLMValidationError) as refused:
        ScoredCompletionRequest(prompt=["Hi"] * (MAX_SEQUENCES // 8 + 1), n=8)
    assert refused.value.parameter == "n"
    ScoredCompletionRequest(prompt=[1] * (MAX_SEQUENCES + 1), n=8)  # one prompt, of token ids


def test_a_number_as_text_would_weigh_less_than_it_costs() -> None:
    with pytest.raises(ValidationError):
        ScoredCompletionRequest(prompt="Hi", n="128")


@pytest.mark.parametrize("name", ["logprobs", "prompt_logprobs"])
def test_false_is_no_number_of_logprobs(name: str) -> None:
    assert getattr(ScoredCompletionRequest(prompt="Hi", **{name: False}), name) is None
    assert getattr(ScoredCompletionRequest(prompt="Hi", **{name: 0}), name) == 0


def test_a_chat_without_logprobs_has_none_of_the_prompt_either() -> None:
    assert ScoredChatCompletionRequest(messages=MESSAGES, prompt_logprobs=False).prompt_logprobs is None


def test_the_document_tells_the_limits() -> None:
    properties = ScoredCompletionRequest.model_json_schema()["properties"]
    assert properties["n"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 128}
    assert properties["logit_bias"]["anyOf"][0]["maxProperties"] == 1024


@pytest.mark.parametrize(
    ("message", "named", "expected"),
    [
        ("top_k must be 0", None, "top_k"),
        ("Token id 5 is out of vocabulary", None, "prompt"),
        ("top_k must be 0", "seed", "seed"),
    ],
)
def test_errors_get_the_name_that_they_lack(message: str, named: str | None, expected: str) -> None:
    with pytest.raises(VLLMValidationError) as refused, blame_parameter("prompt", known={"top_k"}):
        raise VLLMValidationError(message, parameter=named)
    assert refused.value.parameter == expected
    assert refused.value.args[0] == message
