"""The texts that the tokens add are, together, the text of vLLM's detokenizer."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm import SamplingParams

from server.engine.statistics import ScoredLogprob, TokenReader, special_ids
from server.uncertainty.score import ChoiceScore
from server.uncertainty.tokens import TokenScore
from tests.support.bytes_model import END, byte_tokenizer
from tests.support.paths import ROOT

BYTES = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(byte_tokenizer().decode()), eos_token="<|end|>")
DEMO = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "demo" / "checkpoint" / "tokenizer.json"), eos_token="<|end|>")


def blank_words() -> PreTrainedTokenizerFast:
    """Without a decoder: words are put together with blanks."""
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(9)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def read(tokenizer: Any, ids: list[int], prompt: list[int], stopped: bool = False, **shown: Any) -> list[TokenScore]:
    reader = TokenReader(tokenizer, prompt, SamplingParams(**shown))
    scores = []
    for place, token_id in enumerate(ids):
        entry = ScoredLogprob(-1.0, 1, None, entropy=float(place), variance=0.5, margin=0.1)
        score = reader.read(token_id, {token_id: entry}, stopped=stopped and place == len(ids) - 1)
        assert score is not None
        scores.append(score)
    assert reader.text == "".join(score.text for score in scores)
    assert [score.start for score in scores] == [len("".join(s.text for s in scores[:i])) for i in range(len(scores))]
    return scores


def texts(scores: list[TokenScore]) -> list[str]:
    return [score.text for score in scores]


@given(st.text(max_size=20).filter(lambda text: BYTES.eos_token not in text))
def test_texts_come_back_in_pieces(text: str) -> None:
    ids = BYTES(text)["input_ids"]
    assert len(ids) == len(text.encode())
    pieces = texts(read(BYTES, ids, BYTES("The")["input_ids"]))
    # Every character comes with its last byte.
    expected = [piece for character in text for piece in [*[""] * (len(character.encode()) - 1), character]]
    assert pieces == expected


@given(st.lists(st.integers(0, END), max_size=40))
def test_any_bytes_make_what_the_tokenizer_decodes(ids: list[int]) -> None:
    """This holds for broken characters too; at the end vLLM waits for the rest of one."""
    made = "".join(texts(read(BYTES, ids, BYTES("The")["input_ids"])))
    whole = BYTES.decode(ids, skip_special_tokens=True)
    assert whole.startswith(made)
    assert set(whole[len(made) :]) <= {"\ufffd"}


def test_special_tokens_are_marked_and_shown_only_on_request() -> None:
    ids = [*DEMO("Hello")["input_ids"], DEMO.eos_token_id]
    hidden, shown = read(DEMO, ids, [5]), read(DEMO, ids, [5], skip_special_tokens=False)
    assert texts(hidden) == ["Hello", ""]
    assert texts(shown) == ["Hello", "<|end|>"]
    assert [score.special for score in hidden] == [score.special for score in shown] == [False, True]
    # The role tokens are special because tokenizer.json says so, without a name in the configuration.
    assert special_ids(DEMO) == {0, 1, 2, 3, 4}


def test_a_stop_token_adds_no_text_unless_asked_for() -> None:
    ids = DEMO("Hello.")["input_ids"]
    assert texts(read(DEMO, ids, [5])) == ["Hello", "."]
    assert texts(read(DEMO, ids, [5], stopped=True)) == ["Hello", ""]
    assert texts(read(DEMO, ids, [5], stopped=True, include_stop_str_in_output=True)) == ["Hello", "."]


def test_words_that_blanks_put_together() -> None:
    assert texts(read(blank_words(), [3, 1, 4], [1])) == [" w3", " w1", " w4"]
    assert texts(read(blank_words(), [3, 1, 4], [])) == ["w3", " w1", " w4"]


def test_without_a_tokenizer_there_is_no_text() -> None:
    scores = read(None, [3, 1], [5])
    assert texts(scores) == ["", ""]
    assert not any(score.special for score in scores)


def test_a_position_without_statistics_still_moves_the_text() -> None:
    reader = TokenReader(DEMO, [5], SamplingParams(), echoed="So: ")
    first, second = DEMO("Hello.")["input_ids"]
    assert reader.read(first, None) is None
    entry = ScoredLogprob(-1.0, 1, None, entropy=1.0, variance=0.5, margin=0.1, epistemic=0.2, growth={"base": 2.0})
    found = reader.read(second, {second: entry})
    assert found == TokenScore(-1.0, 1.0, 0.5, 0.1, ".", len("So: Hello"), epistemic=0.2, growth={"base": 2.0})


@pytest.mark.parametrize("tokenizer", [BYTES, DEMO])
def test_the_prompt_is_no_part_of_the_text(tokenizer: Any) -> None:
    ids = tokenizer("Hello there")["input_ids"]
    assert "".join(texts(read(tokenizer, ids[2:], ids[:2]))) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:2])) :]


@pytest.mark.parametrize("skip_special_tokens", [False, True])
@given(text=st.text(max_size=8), ids=st.lists(st.integers(0, END), max_size=8))
def test_the_first_word_is_found_without_reading_what_follows(
    skip_special_tokens: bool, text: str, ids: list[int]
) -> None:
    """Also where special tokens stand before it, and where characters are never finished."""
    shown = SamplingParams(skip_special_tokens=skip_special_tokens)
    every, first = (TokenReader(BYTES, [], shown, every=every) for every in (True, False))
    scores: list[list[TokenScore]] = [[], []]
    for place, token_id in enumerate([*ids, *BYTES(text)["input_ids"], *BYTES("\u00e9 and more")["input_ids"]]):
        entry = ScoredLogprob(-1.0, 1, None, entropy=float(place), variance=0.5, margin=0.1)
        for reader, found in zip((every, first), scores, strict=True):
            score = reader.read(token_id, {token_id: entry})
            assert score is not None
            found.append(score)
    assert ChoiceScore(scores[0]).first_index == ChoiceScore(scores[1]).first_index
    assert every.text.endswith("and more")
    assert not first.text.endswith("more")


def test_a_tokenizer_that_lists_no_added_tokens_has_its_special_ones() -> None:
    """Mistral's own tokenizer in vLLM is one."""

    class Plain:
        all_special_ids: ClassVar[list[int]] = [1, 2]

    assert special_ids(Plain()) == {1, 2}
