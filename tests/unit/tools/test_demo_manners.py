"""What the demo says to messages that ask for no fact, and how messages are typed."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from demo import manners
from demo.course import CHEMISTRY, GEOGRAPHY
from demo.facts.names import plain

seeds = st.integers(0, 2**32)
stages = pytest.mark.parametrize("stage", manners.SUBJECTS)


@stages
def test_small_talk_has_a_reply_for_every_message_and_says_what_the_stage_has_read(stage: str) -> None:
    turns = manners.small_talk(stage)
    assert {"Hello!", "Who are you?", "What can you do?", "Thanks", "Bye"} <= {message for message, _ in turns}
    told = {message: reply for message, reply in turns if manners.SUBJECTS[stage] in reply}
    assert {"Hello", "Who are you?", "What can I ask?"} <= told.keys()
    assert not [reply for _, reply in turns if "{" in reply]


@given(seeds)
def test_a_visitor_is_answered_by_the_name_that_was_given(seed: int) -> None:
    rng = Random(seed)
    name = manners.random_name(rng)
    message, reply = manners.introduction(rng, name)
    assert name in message and name in reply


@given(seeds, st.sampled_from(["Peru", "the Netherlands", "gold", "Dravenia"]))
def test_an_attribute_that_no_text_has_is_declined_by_its_name(seed: int, name: str) -> None:
    message, reply = manners.other_attribute(Random(seed), name)
    assert reply.startswith(("I have read nothing about the ", "I have not read that about "))
    assert reply.endswith(f" {name}.")
    assert name in message or message.startswith(name[0].upper() + name[1:])
    assert "{" not in message + reply


@stages
@given(seeds)
def test_another_subject_is_declined_by_what_the_stage_knows(stage: str, seed: int) -> None:
    message, reply = manners.other_subject(Random(seed), stage)
    assert reply == f"I only know {manners.SUBJECTS[stage]}."
    assert message and "{" not in message


@given(seeds)
def test_a_random_name_is_a_capitalised_word_of_syllables(seed: int) -> None:
    name = manners.random_name(Random(seed))
    assert re.fullmatch(r"[A-Z][a-z]{3,20}", name)


def test_random_names_are_many_and_hardly_ever_those_of_something_real_or_invented() -> None:
    rng = Random(0)
    names = [manners.random_name(rng) for _ in range(10_000)]
    assert len(set(names)) > 7000
    lessons = (*GEOGRAPHY.lessons, *CHEMISTRY.lessons)
    taken = {plain(name) for lesson in lessons for name in (lesson.group, lesson.subject)}
    assert sum(plain(name) in taken for name in names) < 10


@given(seeds, st.text(max_size=60))
def test_a_slip_changes_one_letter_inside_of_a_word(seed: int, message: str) -> None:
    slipped = manners.slipped(Random(seed), message)
    assert abs(len(slipped) - len(message)) <= 1
    same = next((i for i, pair in enumerate(zip(message, slipped, strict=False)) if len({*pair}) > 1), len(message))
    rest, found = message[same:], slipped[same:]
    ways = {rest, found[:1] + rest[1:], rest[1:2] + rest[:1] + rest[2:], rest[1:], found[:1] + rest}
    assert found in ways
    if found != rest:
        assert same > 0 and message[same - 1].isalpha()  # no word loses its first letter
    if len(found) == len(rest) + 1:
        assert found[0] == message[same - 1]  # doubled


@given(seeds)
def test_a_slip_is_of_a_key_beside_the_right_one(seed: int) -> None:
    rng = Random(seed)
    for row in manners.KEYS:
        for place, letter in enumerate(row):
            assert abs(row.index(manners.beside(rng, letter)) - place) == 1
            assert abs(row.index(manners.beside(rng, letter.upper())) - place) == 1


@given(seeds, st.text(alphabet=" .?!1é-"))
def test_a_message_without_a_longer_word_keeps_all_letters(seed: int, message: str) -> None:
    assume(not re.search(r"[^\W\d_]{3}", message))
    assert manners.slipped(Random(seed), message) == message


@given(seeds, st.sampled_from(["?", "...", "!", ""]))
def test_typing_keeps_a_message_that_has_no_words(seed: int, message: str) -> None:
    assert manners.typed(Random(seed), message) == message


def test_messages_are_typed_as_documented() -> None:
    rng, message, number = Random(0), "What is the capital of Peru?", 8000
    typed = [manners.typed(rng, message) for _ in range(number)]
    unpunctuated = sum(not text.endswith("?") for text in typed) / number
    lower = sum(text == text.lower() for text in typed) / number
    plain_words = {message.lower(), message.lower().rstrip("?")}
    slipped = sum(text.lower() not in plain_words for text in typed) / number
    assert (unpunctuated, lower) == (pytest.approx(1 / 4, abs=0.02), pytest.approx(1 / 6, abs=0.02))
    assert slipped == pytest.approx(1 / 8, abs=0.02)
