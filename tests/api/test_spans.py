"""`uncertainty.spans`: doubted words lie at their offsets, in streams and plain answers alike."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from server.uncertainty.spans import DOUBTED_RISK
from tests.api.test_chat import Streamed, ask, calling_a_tool, is_content
from tests.api.test_completions import complete
from tests.support.demo_answers import DemoAnswer, completion_content, without_numbers
from tests.support.facts import UNKNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

SPANS = {"uncertainty": {"spans": True}}
HOT = {"temperature": 1.5, "seed": 3, "max_tokens": 40}

CASES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": HOT | {"n": 2},
    "letters in several tokens": {"structured_outputs": {"choice": ["Café 東京 🙂 sure"]}, "max_tokens": 60},
    "special tokens shown": HOT | {"extra": {"skip_special_tokens": False, "ignore_eos": True}},
    "stop in a word": {"structured_outputs": {"choice": ["certainly not sure"]}, "stop": ["inly"], "max_tokens": 60},
    "stop string kept": {
        "structured_outputs": {"choice": ["certainly not sure"]},
        "stop": ["inly"],
        "extra": {"include_stop_str_in_output": True},
        "max_tokens": 60,
    },
    "no text": {"structured_outputs": {"choice": ["never"]}, "stop": ["n"], "max_tokens": 60},
    "a stop token": HOT | {"extra": {"stop_token_ids": list(range(5, 500))}},
}
PLAIN = {"greedy", "sampled", "a stop token"}
"""Whose text is that of their tokens, one after the other: so a test can tell which token is in which span."""


def asked(client: OpenAI, case: dict[str, Any], **options: Any) -> Any:
    options = {name: value for name, value in case.items() if name != "extra"} | SPANS | options
    defaults: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Who are you?"}]}
    extra = {name: options.pop(name) for name in ("uncertainty", "structured_outputs") if name in options}
    defaults |= {"max_tokens": 24, "temperature": 0}
    extra |= {"return_token_ids": True} | case.get("extra", {})
    return client.chat.completions.create(**(defaults | options), extra_body=extra)


def assert_in_place(spans: list[dict[str, Any]], text: str) -> None:
    position = 0
    for span in spans:
        assert list(span) == ["start", "end", "text", "kind", "risk", "reason"]
        assert position <= span["start"] < span["end"] <= len(text)
        assert text[span["start"] : span["end"]] == span["text"]
        assert span["text"].strip()
        assert span["reason"].startswith(("high entropy", "an unlikely word"))
        assert span["kind"] == "undecided" if span["risk"] is None else "doubted"
        assert DOUBTED_RISK < (1 if span["risk"] is None else span["risk"]) <= 1
        position = span["end"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.demo_only) if name in PLAIN else name for name in CASES]
)
def test_spans_lie_in_the_text_streamed_and_plain(client: OpenAI, name: str) -> None:
    response = asked(client, CASES[name], logprobs=True)
    choices = response.choices
    streamed = Streamed(asked(client, CASES[name], stream=True))
    for choice in choices:
        text = choice.message.content
        assert_in_place(choice.uncertainty["spans"], text)
        assert streamed.texts[choice.index] == text
        told = [
            list(map(without_numbers, one["spans"])) for one in (choice.uncertainty, streamed.summaries[choice.index])
        ]
        assert told[0] == told[1]
        if name in PLAIN:
            answer = DemoAnswer.generated(response, choice)
            answer.assert_same_summary(streamed.summaries[choice.index], choice.uncertainty)
    found = [span["text"] for choice in choices for span in choice.uncertainty["spans"]]
    text = choices[0].message.content
    match name:
        case "sampled":
            assert found
        case "letters in several tokens":  # "Who are you?" is never answered so, whatever the grammar leaves
            assert text == "Café 東京 🙂 sure"
            assert "Café" in found
        case "stop in a word":
            assert (text, found) == ("certa", ["certa"])
        case "stop string kept":
            assert (text, found) == ("certainly", ["certainly"])
        case "no text":
            assert (text, found) == ("", [])


@pytest.mark.demo_only
def test_every_undecided_token_is_in_a_span_and_no_span_is_without(client: OpenAI) -> None:
    """Of a bare completion, which the demo's calibration does not judge: none is left out for its low risk."""
    body = {"uncertainty": {"spans": True}, "return_token_ids": True}
    prompt = "<|user|>What is life?<|end|><|assistant|>"
    fixed = {"model": "demo", "prompt": prompt, "max_tokens": 40, "logprobs": 0, "temperature": 2.0, "seed": 27}
    choice = client.completions.create(**fixed, extra_body=body).choices[0]
    assert choice.uncertainty["reason"] == "other_form"
    text, position, doubted = choice.text, 0, []
    for token in completion_content(choice.logprobs):
        if is_content(token["token"]):
            assert text[position:].startswith(token["token"])
            if token["entropy"] > math.log(2) or -token["logprob"] - token["entropy"] > math.log(5):
                doubted.append(range(position, position + len(token["token"])))
        position += 0 if token["token"].startswith("<|") else len(token["token"])
    spans = choice.uncertainty["spans"]
    assert doubted and {span["kind"] for span in spans} == {"undecided"}
    for places in doubted:
        letters = [place for place in places if text[place].isalnum()]
        assert all(any(span["start"] <= place < span["end"] for span in spans) for place in letters)
    for span in spans:
        assert any(span["start"] <= place < span["end"] for places in doubted for place in places)


def test_nothing_unless_asked_for(client: OpenAI) -> None:
    for uncertainty in (True, {}, {"spans": False}, {"tokens": True}):
        assert ask(client, uncertainty=uncertainty).choices[0].uncertainty["spans"] is None


@pytest.mark.parametrize("wrong", [1, "yes", None, []])
def test_a_wrong_value_is_refused(client: OpenAI, wrong: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(client, uncertainty={"spans": wrong})
    assert caught.value.param == "uncertainty.spans"
    assert "Invalid value for 'uncertainty.spans': should be a valid boolean." in str(caught.value)


@pytest.mark.parametrize("echo", [False, True])
def test_completions_count_in_the_choices_text(client: OpenAI, echo: bool) -> None:
    """Which an echoed prompt is a part of; it is not doubted itself."""
    prompts = ["Ünder the", "I am a sma"]
    options = SPANS | HOT | {"prompt": prompts, "n": 2, "echo": echo}
    plain = complete(client, **options).choices
    spans: dict[int, list[dict[str, Any]]] = {}
    for chunk in complete(client, stream=True, **options):
        for choice in chunk.choices:
            if choice.finish_reason:
                spans[choice.index] = choice.uncertainty["spans"]
    for choice in plain:
        assert_in_place(choice.uncertainty["spans"], choice.text)
        told = [list(map(without_numbers, part)) for part in (spans[choice.index], choice.uncertainty["spans"])]
        assert told[0] == told[1]
        prompt = prompts[choice.index // 2]
        assert choice.text.startswith(prompt) == echo
        if echo:
            assert all(span["end"] > len(prompt) for span in choice.uncertainty["spans"])
    assert any(choice.uncertainty["spans"] for choice in plain)


@pytest.mark.parametrize("stream", [False, True])
def test_a_message_that_is_continued_counts_where_it_is_echoed(client: OpenAI, stream: bool) -> None:
    begun = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am a tall"}]
    extra = SPANS | {"echo": True, "continue_final_message": True, "add_generation_prompt": False}
    answer: Any = client.chat.completions.create(
        model="demo", messages=begun, extra_body=extra, stream=stream, temperature=2, seed=5, max_tokens=12
    )  # type: ignore[call-overload]
    if stream:
        streamed = Streamed(answer)
        text, spans = streamed.texts[0], streamed.summaries[0]["spans"]
    else:
        text, spans = answer.choices[0].message.content, answer.choices[0].uncertainty["spans"]
    assert text.startswith("I am a tall")
    assert_in_place(spans, text)
    assert spans
    assert all(span["end"] > len("I am a tall") for span in spans)


@pytest.mark.demo_only
def test_a_given_text_is_doubted_as_a_generated_one(client: OpenAI, demo: Server) -> None:
    messages = [{"role": "user", "content": UNKNOWN}]
    response = asked(client, {}, messages=messages, logprobs=True)
    (choice,) = response.choices
    body = {"model": "demo", "messages": messages, "completion": [choice.message.content, "In Bern, or in Rome?"]}
    given = httpx.post(f"{demo.url}/v1/uncertainty", json=body | SPANS, timeout=60).json()["choices"]
    assert choice.uncertainty["spans"]
    answer = DemoAnswer.generated(response, choice)
    answer.assert_same_spans(given[0]["uncertainty"]["spans"], choice.uncertainty["spans"])
    assert_in_place(given[1]["uncertainty"]["spans"], "In Bern, or in Rome?")
    assert "Bern" in {span["text"] for span in given[1]["uncertainty"]["spans"]}


def test_a_mere_echo_has_no_spans(client: OpenAI) -> None:
    choice = complete(client, echo=True, max_tokens=0, **SPANS).choices[0]
    assert choice.text == "I am a small"
    assert choice.uncertainty["spans"] == []


def test_tool_calls_are_doubted_as_they_were_generated(client: OpenAI) -> None:
    """Spans lie in the text that the calls were read out of."""
    options = calling_a_tool()
    choice = asked(client, {}, logprobs=True, **options).choices[0]
    streamed = [c for chunk in asked(client, {}, stream=True, **options) for c in chunk.choices]
    spans = choice.uncertainty["spans"]
    generated = "".join(token.token for token in choice.logprobs.content if not token.token.startswith("<|"))
    assert choice.message.tool_calls[0].function.arguments in generated
    assert_in_place(spans, generated)
    assert "place" in {span["text"] for span in spans}
    (others,) = (c.uncertainty["spans"] for c in streamed if c.finish_reason)
    assert list(map(without_numbers, others)) == list(map(without_numbers, spans))
