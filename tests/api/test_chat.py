"""Entropy and variance in chat completions, read with the official `openai` client."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from openai import OpenAI
from tokenizers import Tokenizer

from model_impl.wire import STATISTICS
from tests.support.demo_answers import DemoAnswer, reference, rows
from tests.support.demo_server import DEMO
from tests.support.engines import assert_recomputed
from tests.support.tolerances import assert_statistics_within

pytestmark = pytest.mark.server

QUESTION = [{"role": "user", "content": "Who are you?"}]
SUMMARY = {"mean_entropy", "max_entropy", "first_token_entropy", "mean_variance", "min_logprob"}


def ask(client: OpenAI, **options: Any) -> Any:
    extra = {name: options.pop(name) for name in list(options) if name in EXTRA}
    defaults: dict[str, Any] = {"model": "demo", "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    return client.chat.completions.create(**(defaults | options), extra_body=extra)


EXTRA = {
    "uncertainty",
    "return_token_ids",
    "ignore_eos",
    "min_tokens",
    "prompt_logprobs",
    "top_k",
    "structured_outputs",
}


def is_content(token: str) -> bool:
    return any(map(str.isalnum, token)) and not token.startswith("<|")


def assert_summarises(summary: dict[str, Any], tokens: list[Any]) -> None:
    """`summary` follows from the tokens' own values."""
    statistics = rows(tokens)
    assert summary["tokens"] == len(tokens)
    assert summary["mean_entropy"] == pytest.approx(statistics[:, 0].mean().item(), rel=1e-9)
    assert summary["max_entropy"] == statistics[:, 0].max().item()
    assert summary["first_token_entropy"] == next(
        (token.entropy for token in tokens if is_content(token.token)), tokens[0].entropy
    )
    assert summary["mean_variance"] == pytest.approx(statistics[:, 1].mean().item(), rel=1e-9)
    assert summary["min_logprob"] == min(token.logprob for token in tokens)
    assert summary["unit"] == "nat"
    assert summary["calibrated"] == (summary["risk"] is not None) == (summary["reason"] is None)
    assert 0 <= (summary["risk"] or 0) <= 1


class Streamed:
    """A reassembled stream: each choice's text, tokens, summary and finish reason."""

    def __init__(self, chunks: Iterable[Any]) -> None:
        self.texts: dict[int, str] = {}
        self.tokens: dict[int, list[Any]] = {}
        self.summaries: dict[int, dict[str, Any]] = {}
        self.reasons: dict[int, str] = {}
        for chunk in chunks:
            for choice in chunk.choices:
                i = choice.index
                assert i not in self.reasons, "a choice went on after its finish_reason"
                self.texts[i] = self.texts.get(i, "") + (choice.delta.content or "")
                self.tokens.setdefault(i, []).extend(choice.logprobs.content if choice.logprobs else [])
                if choice.finish_reason:
                    self.reasons[i] = choice.finish_reason
                if summary := getattr(choice, "uncertainty", None):
                    assert choice.finish_reason, "the summary belongs to the chunk that finishes the choice"
                    self.summaries[i] = summary


@pytest.mark.demo_only
def test_every_token_equals_the_reference(client: OpenAI) -> None:
    answer = ask(client, logprobs=True, top_logprobs=3, return_token_ids=True, temperature=1, seed=5, ignore_eos=True)
    choice = answer.choices[0]
    assert len(choice.logprobs.content) == len(choice.token_ids) == 24
    assert_recomputed(rows(choice.logprobs.content), reference(), answer.prompt_token_ids, choice.token_ids)
    with torch.no_grad():
        logits = reference()(torch.tensor([[*answer.prompt_token_ids, *choice.token_ids]]))[0]
    log_p = logits[len(answer.prompt_token_ids) - 1 : -1].log_softmax(-1)
    allowed = (2 * DemoAnswer.generated(answer, choice).e).tolist()
    for token, word, row, e in zip(choice.logprobs.content, choice.token_ids, log_p, allowed, strict=True):
        assert token.logprob == pytest.approx(row[word].item(), abs=e)
        assert token.rank == 1 + (row > row[word]).sum().item()
        # vLLM lists the drawn token first and cuts off: three entries with it, wherever it ranks.
        best = [token.logprob, *row.topk(3).values.tolist()] if token.rank > 3 else row.topk(3).values.tolist()
        expected = sorted(best[:3], reverse=True)
        found = sorted((top.logprob for top in token.top_logprobs), reverse=True)
        assert found == pytest.approx(expected, abs=e)
    assert_summarises(choice.uncertainty, choice.logprobs.content)


def test_the_summary_is_there_without_asking_and_is_all(client: OpenAI) -> None:
    choice = ask(client).choices[0]
    assert choice.logprobs is None
    assert choice.uncertainty["tokens"] > 0
    assert all(isinstance(choice.uncertainty[name], float) for name in SUMMARY)


@pytest.mark.demo_only
def test_a_stream_says_what_the_plain_answer_says(client: OpenAI) -> None:
    options = {"logprobs": True, "top_logprobs": 2, "temperature": 2, "seed": 11, "n": 2, "return_token_ids": True}
    plain = ask(client, **options)
    streamed = Streamed(ask(client, stream=True, **options))
    assert sorted(streamed.texts) == [0, 1]
    for choice in plain.choices:
        tokens = streamed.tokens[choice.index]
        assert streamed.texts[choice.index] == choice.message.content
        assert streamed.reasons[choice.index] == choice.finish_reason
        DemoAnswer.generated(plain, choice).assert_same_tokens(tokens)
        assert_summarises(choice.uncertainty, choice.logprobs.content)
        assert_summarises(streamed.summaries[choice.index], tokens)
    assert plain.choices[0].message.content != plain.choices[1].message.content


@pytest.mark.demo_only
def test_a_stream_without_logprobs_ends_with_the_summary(client: OpenAI) -> None:
    streamed = Streamed(ask(client, stream=True, stream_options={"include_usage": True}))
    assert streamed.tokens == {0: []}
    plain = ask(client, logprobs=True, return_token_ids=True)
    (choice,) = plain.choices
    DemoAnswer.generated(plain, choice).assert_same_summary(streamed.summaries[0], choice.uncertainty)


def test_several_choices_have_their_own(client: OpenAI) -> None:
    choices = ask(client, n=3, temperature=1.5, seed=3, uncertainty={"tokens": True}).choices
    assert len({choice.message.content for choice in choices}) > 1
    for choice in choices:
        assert_summarises(choice.uncertainty, choice.logprobs.content)


@pytest.mark.demo_only
def test_a_seed_repeats_the_answer_and_its_values(client: OpenAI) -> None:
    answers = [ask(client, temperature=2, seed=7, logprobs=True, return_token_ids=True) for _ in range(2)]
    first, second = (answer.choices[0] for answer in answers)
    other = ask(client, temperature=2, seed=8, logprobs=True).choices[0]
    assert first.message.content == second.message.content != other.message.content
    DemoAnswer.generated(answers[0], first).assert_same_tokens(second.logprobs.content)


@pytest.mark.demo_only
def test_raw_values_whatever_the_sampling(client: OpenAI) -> None:
    """Temperature, nucleus, penalties and bans change what is drawn, not what the model thinks."""
    raw = ask(client, logprobs=True, max_tokens=1, return_token_ids=True)
    banned = {str(i): -100 for i in range(50)}
    bent = {"temperature": 0.1, "top_p": 0.2, "top_k": 1, "presence_penalty": 1.5, "logit_bias": banned}
    token = ask(client, logprobs=True, max_tokens=1, seed=1, **bent).choices[0].logprobs.content[0]
    answer = DemoAnswer.generated(raw, raw.choices[0])
    assert_statistics_within(rows([token]), rows(answer.content), answer.e)


def test_a_stop_string_ends_tokens_and_summary_together(client: OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    stop = whole.split()[3]
    for stream in (False, True):
        answer = ask(client, logprobs=True, stop=[stop], stream=stream)
        streamed = Streamed(answer) if stream else None
        text = streamed.texts[0] if streamed else answer.choices[0].message.content
        tokens = streamed.tokens[0] if streamed else answer.choices[0].logprobs.content
        summary = streamed.summaries[0] if streamed else answer.choices[0].uncertainty
        assert stop not in text
        assert whole.startswith(text)
        assert_summarises(summary, tokens)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [False, True])
def test_false_means_no_field_at_all(client: OpenAI, stream: bool, logprobs: bool) -> None:
    answer = ask(client, uncertainty=False, stream=stream, logprobs=logprobs)
    parts = list(answer) if stream else [answer]
    choices = [choice for part in parts for choice in part.choices]
    assert choices
    assert not any(hasattr(choice, "uncertainty") for choice in choices)
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert bool(tokens) == logprobs  # logprobs requested in OpenAI's way keep their statistics
    assert all(token.entropy >= 0 for token in tokens)


def test_everything_else_is_as_without_us(client: OpenAI) -> None:
    """The answer with the summary taken out is, field by field, the one that vLLM's own classes give."""
    ours, stock = (ask(client, uncertainty=wanted).model_dump() for wanted in (True, False))
    for answer in (ours, stock):
        for changing in ("id", "created"):
            answer.pop(changing)
    ours["choices"][0].pop("uncertainty")
    assert ours == stock


def test_tokens_on_request(client: OpenAI) -> None:
    choice = ask(client, uncertainty={"tokens": True}).choices[0]
    assert_summarises(choice.uncertainty, choice.logprobs.content)
    assert ask(client, uncertainty={"tokens": False}).choices[0].logprobs is None
    assert ask(client, uncertainty={}).choices[0].uncertainty["tokens"] > 0


@pytest.mark.demo_only
def test_the_prompt_is_scored_too(client: OpenAI) -> None:
    answer = ask(client, prompt_logprobs=1, return_token_ids=True, max_tokens=1)
    ids = answer.prompt_token_ids
    entries = [position[str(word)] for position, word in zip(answer.prompt_logprobs[1:], ids[1:], strict=True)]
    found = torch.tensor([[entry[name] for name in STATISTICS] for entry in entries], dtype=torch.float64)
    assert_recomputed(found, reference(), ids[:1], ids[1:])


@pytest.mark.demo_only
def test_a_grammar_bans_words_but_does_not_make_the_model_sure(client: OpenAI) -> None:
    """The statistics are those of the model's own distribution, before a grammar restricts it."""
    response = ask(client, logprobs=True, max_tokens=1, return_token_ids=True)
    free = DemoAnswer.generated(response, response.choices[0])
    forced = ask(client, logprobs=True, structured_outputs={"choice": ["never"]}).choices[0].logprobs.content[0]
    assert forced.token != free.content[0].token
    assert_statistics_within(rows([forced]), rows(free.content), free.e)


def test_a_structured_answer_is_summarised(client: OpenAI) -> None:
    choice = ask(client, structured_outputs={"choice": ["certainly", "never"]}, logprobs=True).choices[0]
    assert choice.message.content in ("certainly", "never")
    assert_summarises(choice.uncertainty, choice.logprobs.content)
    schema = {
        "type": "object",
        "properties": {"sure": {"enum": ["yes", "no"]}},
        "required": ["sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "sureness", "schema": schema, "strict": True}}
    choice = ask(client, response_format=form, logprobs=True, max_tokens=60, stop=["}"]).choices[0]
    assert choice.message.content.lstrip().startswith("{")
    assert_summarises(choice.uncertainty, choice.logprobs.content)


def calling_a_tool() -> dict[str, Any]:
    """Options that make the model call `look` with a place."""
    parameters = {
        "type": "object",
        "properties": {"place": {"enum": ["here", "there"]}},
        "required": ["place"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "look", "parameters": parameters, "strict": True}}
    named = {"type": "function", "function": {"name": "look"}}
    # JSON may hold any whitespace, and a small model continues with it for ever.
    vocabulary = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    blanks = {str(i): -100 for i in range(vocabulary.get_vocab_size()) if vocabulary.decode([i]).isspace()}
    return {"tools": [tool], "tool_choice": named, "logit_bias": blanks, "max_tokens": 60}


def test_a_tool_call_has_one_summary(client: OpenAI) -> None:
    for stream in (False, True):
        answer = ask(client, stream=stream, **calling_a_tool())
        parts = list(answer) if stream else [answer]
        choices = [choice for part in parts for choice in part.choices]
        calls = [call for choice in choices for call in ((choice.delta if stream else choice.message).tool_calls or [])]
        assert calls[0].function.name == "look"
        summaries = [choice.uncertainty for choice in choices if getattr(choice, "uncertainty", None)]
        assert len(summaries) == 1
        assert summaries[0]["tokens"] > 0


def test_a_regular_expression(client: OpenAI) -> None:
    choice = ask(client, structured_outputs={"regex": "[0-9]{6}"}, logprobs=True).choices[0]
    assert choice.message.content.isdigit()
    assert_summarises(choice.uncertainty, choice.logprobs.content)
