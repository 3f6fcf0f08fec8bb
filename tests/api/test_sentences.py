"""`uncertainty.sentences`: each sentence of an answer, in streams and plain answers alike."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.api.test_chat import Streamed, ask
from tests.api.test_completions import complete
from tests.support.facts import ANSWER, KNOWN
from tests.support.servers import Server

pytestmark = pytest.mark.server

GREETING = [{"role": "user", "content": "Hello"}]
SENTENCES = {"uncertainty": {"sentences": True}}
HOT = {"temperature": 1.5, "seed": 3, "max_tokens": 60, "n": 2}


def assert_partition(summary: dict[str, Any], text: str, begin: int = 0) -> list[str]:
    """The texts of the sentences, which partition the text and the tokens."""
    found: list[dict[str, Any]] = summary["sentences"]
    assert "".join(sentence["text"] for sentence in found) == text[begin:]
    for sentence in found:
        assert (sentence["start"], sentence["text"]) == (begin, text[begin : sentence["end"]])
        assert all(begin <= span["start"] < span["end"] <= sentence["end"] for span in sentence["spans"])
        assert 0 <= sentence["mean_entropy"] <= sentence["max_entropy"] <= summary["max_entropy"]
        assert (sentence["risk"] is None) == (summary["risk"] is None)
        assert sentence["risk"] is None or sentence["risk"] <= summary["risk"]
        begin = sentence["end"]
    assert sum(sentence["tokens"] for sentence in found) == (summary["tokens"] if found else 0)
    assert max(sentence["max_entropy"] for sentence in found) == summary["max_entropy"]
    return [sentence["text"] for sentence in found]


@pytest.mark.demo_only
def test_an_answer_of_two_sentences(client: OpenAI) -> None:
    choice = ask(client, messages=GREETING, **SENTENCES).choices[0]
    texts = assert_partition(choice.uncertainty, choice.message.content)
    assert texts == ["Hello! ", "Ask me about countries and elements."]
    assert choice.uncertainty["spans"] is None
    assert ask(client, messages=GREETING).choices[0].uncertainty["sentences"] is None


def test_a_stream_tells_the_same_sentences(client: OpenAI) -> None:
    options: dict[str, Any] = {"messages": GREETING, **HOT, **SENTENCES}
    streamed = Streamed(ask(client, stream=True, **options))
    for choice in ask(client, **options).choices:
        texts = assert_partition(choice.uncertainty, choice.message.content)
        assert assert_partition(streamed.summaries[choice.index], streamed.texts[choice.index]) == texts


@pytest.mark.parametrize("stop", [[], ["ask"]])
def test_completions_count_in_the_choices_text(client: OpenAI, stop: list[str]) -> None:
    prompt = "Hm. I am a"
    choice = complete(client, prompt=prompt, echo=True, stop=stop, **SENTENCES, **HOT).choices[0]
    assert choice.text.startswith(prompt)
    assert_partition(choice.uncertainty, choice.text, len(prompt))


def test_the_sentences_of_a_given_text(demo: Server) -> None:
    text = f"{ANSWER} It is also Oslo, e.g. in 1.5 years!\nOr so."
    question = [{"role": "user", "content": KNOWN}]
    body = {"model": "demo", "messages": question, "completion": text, **SENTENCES}
    (choice,) = httpx.post(f"{demo.url}/v1/uncertainty", json=body, timeout=60).json()["choices"]
    texts = assert_partition(choice["uncertainty"], text)
    assert texts == [f"{ANSWER} ", "It is also Oslo, e.g. in 1.5 years!\n", "Or so."]
    first, second, _ = choice["uncertainty"]["sentences"]
    assert first["max_entropy"] < second["max_entropy"]
    assert first["min_logprob"] > second["min_logprob"]


def test_a_wrong_value_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as caught:
        ask(client, uncertainty={"sentences": 1})
    assert caught.value.param == "uncertainty.sentences"
