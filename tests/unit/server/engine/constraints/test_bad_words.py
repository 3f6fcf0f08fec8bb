"""Bad words as the engine gets them, by the demo's tokenizer: " capital" is one token of it, "capital" are several."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from server.engine.constraints.bad_words import banned_sequences
from tests.support.demo_server import DEMO


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    found: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(DEMO)
    return found


@pytest.mark.parametrize("word", ["capital", "capital of", "Peru", "The capital", "ü"])
def test_a_word_is_banned_with_and_without_its_blank(tokenizer: PreTrainedTokenizerFast, word: str) -> None:
    forms = [tokenizer.decode(sequence) for sequence in banned_sequences([word], tokenizer)]
    assert forms == [word, f" {word}"]


def test_a_word_that_is_given_with_its_blank_is_banned_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    assert banned_sequences([" capital"], tokenizer) == banned_sequences(["capital"], tokenizer)


def test_the_forms_are_those_that_vllm_leaves_out(tokenizer: PreTrainedTokenizerFast) -> None:
    several, one = map(len, banned_sequences(["capital"], tokenizer))
    assert several > one == 1


def test_words_keep_their_order(tokenizer: PreTrainedTokenizerFast) -> None:
    both = banned_sequences(["capital", "currency"], tokenizer)
    assert both == banned_sequences(["capital"], tokenizer) + banned_sequences(["currency"], tokenizer)
