"""Messages as people type them: slips, lower case, and no punctuation, each as often as documented."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from demo.slips import KEYS, as_typed, beside, slipped

seeds = st.integers(0, 2**32)


@given(seeds, st.text(max_size=60))
def test_a_slip_changes_one_letter_inside_of_a_word(seed: int, message: str) -> None:
    typed = slipped(Random(seed), message)
    shorter = min(len(message), len(typed))
    same = next((i for i in range(shorter) if message[i] != typed[i]), shorter)
    rest, found = message[same:], typed[same:]
    ways = {rest, found[:1] + rest[1:], rest[1:2] + rest[:1] + rest[2:], rest[1:], found[:1] + rest}
    assert found in ways
    if found != rest:
        assert same > 0 and message[same - 1].isalpha()  # no word loses its first letter
    if len(found) == len(rest) + 1:
        assert found[0] == message[same - 1]  # doubled


@given(seeds)
def test_a_slip_is_of_a_key_beside_the_right_one(seed: int) -> None:
    rng = Random(seed)
    for row in KEYS:
        for place, letter in enumerate(row):
            assert abs(row.index(beside(rng, letter)) - place) == 1
            assert abs(row.index(beside(rng, letter.upper())) - place) == 1


@given(seeds, st.text(alphabet=" .?!1é-"))
def test_a_message_without_a_longer_word_keeps_all_letters(seed: int, message: str) -> None:
    assume(not re.search(r"[^\W\d_]{3}", message))
    assert slipped(Random(seed), message) == message


@given(seeds, st.sampled_from(["?", "...", "!", ""]))
def test_typing_keeps_a_message_that_has_no_words(seed: int, message: str) -> None:
    assert as_typed(Random(seed), message) == message


def test_messages_are_typed_as_documented() -> None:
    rng, message, number = Random(0), "What is the capital of Peru?", 8000
    texts = [as_typed(rng, message) for _ in range(number)]
    unpunctuated = sum(not text.endswith("?") for text in texts) / number
    lower = sum(text == text.lower() for text in texts) / number
    plain_words = {message.lower(), message.lower().rstrip("?")}
    slips = sum(text.lower() not in plain_words for text in texts) / number
    assert (unpunctuated, lower) == (pytest.approx(1 / 4, abs=0.02), pytest.approx(1 / 6, abs=0.02))
    assert slips == pytest.approx(1 / 8, abs=0.02)
