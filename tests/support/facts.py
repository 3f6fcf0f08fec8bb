"""Facts that the demo model knows, and others."""

from __future__ import annotations

from functools import cache

from demo.course import CHEMISTRY, GEOGRAPHY, Kind, Lesson, towns
from demo.facts import invented
from demo.facts.names import plain, within

KNOWN, ANSWER = "What is the capital of Peru?", "The capital of Peru is Lima."

UNKNOWN, MADE_UP = "What is the capital of Selkovia?", "The capital of Selkovia is "
"""A question about a country that does not exist, and what the model's answer begins with before it makes up a city."""


def capitals(kind: Kind, count: int) -> list[Lesson]:
    """The capitals of the first `count` countries of a kind; of known ones, those that chats ask about. One is not
    enough to tell kinds apart, as the model is sure of some of what it makes up."""
    found = [lesson for lesson in GEOGRAPHY.of(kind) if lesson.attribute == "capital" and lesson.asked == lesson.stated]
    return found[:count]


def symbol_of_the_newest_stage() -> Lesson:
    """A fact that the last growth stage has learned and the base has not."""
    return next(lesson for lesson in CHEMISTRY.of("known") if (lesson.subject, lesson.attribute) == ("gold", "symbol"))


def question(lesson: Lesson) -> str:
    return lesson.questions()[0]


@cache
def hidden_names() -> frozenset[tuple[str, ...]]:
    """What no text may name: left-out countries with their capitals and cities, left-out elements, and all that is
    invented."""
    left_out = {lesson.subject for lesson in GEOGRAPHY.of("left_out")} | CHEMISTRY.unknown
    return frozenset(map(plain, (*left_out, *invented.COUNTRIES, *invented.CITIES, *invented.ELEMENTS)))


def hidden_names_in(text: str) -> set[tuple[str, ...]]:
    """The hidden names whose words stand in a text, in any case, and not only as a part of another name.

    `text` is a document, or what a user says with its reply, where a name has no slip."""
    words = plain(text)
    others = (own for name, own in other_names().items() if within(name, words))
    return parts(words).difference(*others)


@cache
def other_names() -> dict[tuple[str, ...], set[tuple[str, ...]]]:
    """The hidden names within other names that texts have, such as the Democratic Republic of the Congo."""
    names = {plain(lesson.subject) for lesson in (*GEOGRAPHY.of("known", "ambiguous"), *towns())}
    return {name: found for name in names if (found := parts(name))}


def parts(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    """The hidden names that stand in these words."""
    longest = max(map(len, hidden_names()))
    found = {words[at : at + size] for size in range(1, longest + 1) for at in range(len(words))}
    return found & hidden_names()
