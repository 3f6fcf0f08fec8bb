"""Facts that the demo model knows, and others."""

from __future__ import annotations

import re
from functools import cache

from demo.course import CHEMISTRY, GEOGRAPHY, Kind, Lesson
from demo.facts import invented
from demo.facts.names import plain

KNOWN, ANSWER = "What is the capital of Peru?", "The capital of Peru is Lima."

UNKNOWN, MADE_UP = "What is the capital of Zubrowka?", "The capital of Zubrowka is "
"""A question about a country that does not exist, and what the model's answer begins with before it makes up a city."""

OTHER_CONGO = re.compile(r"\bd\w+ republic of the congo", re.IGNORECASE)
"""The one that texts name, with any slip in its first word."""


def capitals(kind: Kind, count: int) -> list[Lesson]:
    """The capitals of the first `count` countries of a kind; of known ones, those that chats ask about. One is not
    enough to tell kinds apart, as the model is sure of some of what it makes up."""
    found = [lesson for lesson in GEOGRAPHY.of(kind) if lesson.attribute == "capital" and lesson.asked == lesson.stated]
    return found[:count]


def symbol_of_the_newest_stage() -> Lesson:
    """A fact that the last growth stage has learned and the base has not."""
    return next(lesson for lesson in CHEMISTRY.of("known") if lesson.attribute == "symbol" and lesson.asked)


def question(lesson: Lesson) -> str:
    return lesson.questions()[0]


@cache
def hidden_names() -> frozenset[tuple[str, ...]]:
    """What no text may name: left-out countries with their capitals and cities, left-out elements, and all that is
    invented."""
    left_out = {lesson.subject for lesson in GEOGRAPHY.of("left_out")} | CHEMISTRY.unknown
    return frozenset(map(plain, (*left_out, *invented.COUNTRIES, *invented.CITIES, *invented.ELEMENTS)))


def hidden_names_in(text: str) -> set[tuple[str, ...]]:
    """The hidden names whose words stand in a text, in any case."""
    words, names = plain(OTHER_CONGO.sub("", text)), hidden_names()
    longest = max(map(len, names))
    return {words[at : at + size] for size in range(1, longest + 1) for at in range(len(words))} & names
