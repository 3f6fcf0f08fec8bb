"""What the demo says to messages that ask for no fact."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import manners
from demo.course import CHEMISTRY, GEOGRAPHY
from demo.facts.names import plain
from demo.messages import MORE_REPLY, OTHER_ATTRIBUTE_REPLY, OTHER_ATTRIBUTES, SUBJECTS

seeds = st.integers(0, 2**32)
stages = pytest.mark.parametrize("stage", SUBJECTS)


@stages
def test_small_talk_has_a_reply_for_every_message_and_says_what_the_stage_has_read(stage: str) -> None:
    turns = manners.small_talk(stage)
    assert {"Hello!", "Who are you?", "What can you do?", "Thanks", "Bye"} <= {message for message, _ in turns}
    told = {message: reply for message, reply in turns if SUBJECTS[stage] in reply}
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
    replies = [MORE_REPLY, *(OTHER_ATTRIBUTE_REPLY.replace("{attribute}", attribute) for attribute in OTHER_ATTRIBUTES)]
    assert reply in {text.format(name=name) for text in replies}
    assert name in message or message.startswith(name[0].upper() + name[1:])
    assert "{" not in message + reply


@stages
@given(seeds)
def test_another_subject_is_declined_by_what_the_stage_knows(stage: str, seed: int) -> None:
    message, reply = manners.other_subject(Random(seed), stage)
    assert reply == f"I only know {SUBJECTS[stage]}."
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
