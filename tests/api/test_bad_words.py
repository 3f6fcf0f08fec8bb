"""Bad words of clients, in chats and completions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from tests.support.facts import KNOWN

pytestmark = [pytest.mark.server, pytest.mark.demo_only]

Answers = Callable[..., list[str]]


def chats(client: OpenAI, words: list[str], **options: Any) -> list[str]:
    body = {"bad_words": words}
    messages: Any = [{"role": "user", "content": KNOWN}]
    answer = client.chat.completions.create(model="demo", messages=messages, max_tokens=12, extra_body=body, **options)
    return [choice.message.content or "" for choice in answer.choices]


def completions(client: OpenAI, words: list[str], **options: Any) -> list[str]:
    body = {"bad_words": words}
    prompt = f"<|user|>{KNOWN}<|end|><|assistant|>"
    answer = client.completions.create(model="demo", prompt=prompt, max_tokens=12, extra_body=body, **options)
    return [choice.text for choice in answer.choices]


@pytest.mark.parametrize("answers", [chats, completions])
@pytest.mark.parametrize(
    "word", ["capital", " capital", "of Peru", "is Lima", "Lima", "Peru", "The capital", "The capital of"]
)
def test_a_bad_word_is_in_no_answer(client: OpenAI, answers: Answers, word: str) -> None:
    assert word.strip() in answers(client, [], temperature=0)[0]
    drawn = answers(client, [word], temperature=1, n=8, seed=1)
    assert not any(word.strip() in text for text in answers(client, [word], temperature=0) + drawn)
