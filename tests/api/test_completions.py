"""Entropy and variance in text completions."""

from typing import Any

import pytest
import torch
from openai import OpenAI

from model_impl.wire import STATISTICS
from tests.api.test_chat import is_content
from tests.support.demo_answers import DemoAnswer, rows
from tests.support.tolerances import assert_within, statistics_tolerance

pytestmark = pytest.mark.server

PROMPT = "I am a small"
PARALLEL = (*STATISTICS, "rank")


def complete(client: OpenAI, **options: Any) -> Any:
    extra = {
        name: options.pop(name) for name in ("uncertainty", "prompt_logprobs", "return_token_ids") if name in options
    }
    defaults: dict[str, Any] = {"model": "demo", "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    return client.completions.create(**(defaults | options), extra_body=extra)


def assert_parallel(logprobs: Any) -> None:
    length = len(logprobs.tokens)
    for name in PARALLEL:
        assert len(getattr(logprobs, name)) == length == len(logprobs.token_logprobs)


def assert_summarises(summary: dict[str, Any], logprobs: Any, echoed: int = 0) -> None:
    entropy, variance = logprobs.entropy[echoed:], logprobs.variance[echoed:]
    assert summary["tokens"] == len(entropy)
    assert summary["mean_entropy"] == pytest.approx(sum(entropy) / len(entropy))
    assert summary["max_entropy"] == max(entropy)
    content = (value for token, value in zip(logprobs.tokens[echoed:], entropy, strict=True) if is_content(token))
    assert summary["first_token_entropy"] == next(content, entropy[0])
    assert summary["mean_variance"] == pytest.approx(sum(variance) / len(variance))
    assert summary["min_logprob"] == min(logprobs.token_logprobs[echoed:])


def test_every_token_has_its_values_and_the_summary_is_theirs(client: OpenAI) -> None:
    choice = complete(client, logprobs=2).choices[0]
    assert_parallel(choice.logprobs)
    assert_summarises(choice.uncertainty, choice.logprobs)


def test_the_summary_without_logprobs(client: OpenAI) -> None:
    choice = complete(client).choices[0]
    assert choice.logprobs is None
    assert choice.uncertainty["tokens"] > 0
    assert not hasattr(complete(client, uncertainty=False).choices[0], "uncertainty")


@pytest.mark.demo_only
def test_prompt_lists_with_several_choices(client: OpenAI) -> None:
    """Choices are numbered prompt by prompt, streamed and plain."""
    options = {"prompt": [PROMPT, "The", "My name is"], "n": 2, "logprobs": 0, "temperature": 1, "seed": 4}
    plain = complete(client, return_token_ids=True, **options).choices
    assert [choice.index for choice in plain] == list(range(6))
    entropy: dict[int, list[float]] = {}
    summaries: dict[int, dict[str, Any]] = {}
    for chunk in complete(client, stream=True, **options):
        for choice in chunk.choices:
            assert choice.index not in summaries
            if choice.logprobs:
                assert_parallel(choice.logprobs)
                entropy.setdefault(choice.index, []).extend(choice.logprobs.entropy)
            if getattr(choice, "uncertainty", None):
                assert choice.finish_reason
                summaries[choice.index] = choice.uncertainty
    for choice in plain:
        assert_summarises(choice.uncertainty, choice.logprobs)
        answer = DemoAnswer.completed(choice)
        allowed = statistics_tolerance(rows(answer.content), answer.e)[:, 0]
        assert_within(torch.tensor(entropy[choice.index]), torch.tensor(choice.logprobs.entropy), allowed)
        assert summaries[choice.index]["tokens"] == choice.uncertainty["tokens"]
        assert summaries[choice.index]["max_entropy"] == max(entropy[choice.index])


@pytest.mark.parametrize("stream", [False, True])
def test_an_echoed_prompt_has_values_but_no_part_in_the_summary(client: OpenAI, stream: bool) -> None:
    """The prompt's tokens come first with values of their own, but the summary is about the answer."""
    answer = complete(client, echo=True, logprobs=1, stream=stream)
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    assert "".join(choice.text for choice in choices).startswith(PROMPT)
    for choice in choices:
        if choice.logprobs:
            assert_parallel(choice.logprobs)
    values = [value for choice in choices if choice.logprobs for value in choice.logprobs.entropy]
    assert values[0] is None
    assert all(value >= 0 for value in values[1:])
    (summary,) = [choice.uncertainty for choice in choices if getattr(choice, "uncertainty", None)]
    assert 0 < summary["tokens"] < len(values)
    answered = values[-summary["tokens"] :]
    assert summary["mean_entropy"] == pytest.approx(sum(answered) / len(answered))


@pytest.mark.parametrize("stream", [False, True])
def test_every_choice_echoes_its_prompt(client: OpenAI, stream: bool) -> None:
    prompts = [PROMPT, "The"]
    options = {"prompt": prompts, "n": 8, "temperature": 1, "echo": True, "logprobs": 0, "max_tokens": 3}
    answer = complete(client, stream=stream, **options)
    texts, tokens = dict[int, str](), dict[int, list[str]]()
    for choice in (choice for part in (answer if stream else [answer]) for choice in part.choices):
        texts[choice.index] = texts.get(choice.index, "") + choice.text
        tokens.setdefault(choice.index, []).extend(choice.logprobs.tokens)
        assert_parallel(choice.logprobs)
    assert sorted(texts) == list(range(16))
    for index, text in texts.items():
        assert text.startswith(prompts[index // 8])
        assert "".join(tokens[index]).startswith(prompts[index // 8])


def test_false_asks_for_no_logprobs(client: OpenAI) -> None:
    assert complete(client, logprobs=False).choices[0].logprobs is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_mere_echo_has_no_answer_to_summarise(client: OpenAI, stream: bool) -> None:
    answer = complete(client, echo=True, max_tokens=0, logprobs=1, stream=stream)
    choices = [choice for part in (answer if stream else [answer]) for choice in part.choices]
    assert "".join(choice.text for choice in choices) == PROMPT
    (summary,) = [choice.uncertainty for choice in choices if getattr(choice, "uncertainty", None)]
    assert summary["tokens"] == 0
    assert summary["mean_entropy"] is summary["max_entropy"] is summary["min_logprob"] is None


def test_only_the_prompts_own_tokens_are_scored_among_its_logprobs(client: OpenAI) -> None:
    positions = complete(client, prompt_logprobs=1).choices[0].prompt_logprobs
    assert positions[0] is None
    for position in positions[1:]:
        scored = [entry for entry in position.values() if "entropy" in entry]
        assert len(scored) == 1  # the prompt's own token
        assert scored[0]["entropy"] >= 0
        assert scored[0]["variance"] >= 0
