"""Turns of a chat that ask for no fact: small talk, visitors who name themselves, and other subjects."""

from __future__ import annotations

from random import Random

from demo.messages import (
    EVENTS,
    INTRODUCTIONS,
    MORE_QUESTIONS,
    MORE_REPLY,
    OTHER_ATTRIBUTE_QUESTIONS,
    OTHER_ATTRIBUTE_REPLY,
    OTHER_ATTRIBUTES,
    OTHER_QUESTIONS,
    OTHER_REPLY,
    PEOPLE,
    SMALL_TALK,
    SUBJECTS,
    THINGS,
    TRAITS,
    WORKS,
)

ONSETS = (
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "st",
    "t",
    "tr",
    "v",
    "z",
)
VOWELS = ("a", "e", "i", "o", "u", "a", "e", "ia", "ai", "ou")
ENDINGS = ("", "", "n", "l", "r", "s", "nd", "nia", "land", "stan", "ria", "burg", "ville", "ton", "ca", "via")


def small_talk(stage: str) -> list[tuple[str, str]]:
    """Every message of small talk with its reply."""
    return [
        (message, reply.format(subjects=SUBJECTS[stage]))
        for messages, replies in SMALL_TALK
        for message in messages
        for reply in replies
    ]


def introduction(rng: Random, name: str) -> tuple[str, str]:
    message, reply = rng.choice(INTRODUCTIONS)
    return message.format(name=name), reply.format(name=name)


def other_attribute(rng: Random, name: str) -> tuple[str, str]:
    """A question about a country or an element that no text answers."""
    if rng.random() < 0.4:
        asked = rng.choice(MORE_QUESTIONS).format(name=name)
        return asked[0].upper() + asked[1:], MORE_REPLY.format(name=name)
    attribute, question = rng.choice(OTHER_ATTRIBUTES), rng.choice(OTHER_ATTRIBUTE_QUESTIONS)
    asked = question.format(attribute=attribute, name=name)
    return asked[0].upper() + asked[1:], OTHER_ATTRIBUTE_REPLY.format(attribute=attribute, name=name)


def other_subject(rng: Random, stage: str) -> tuple[str, str]:
    message = rng.choice(OTHER_QUESTIONS)
    filled = message.format(
        thing=rng.choice(THINGS),
        person=rng.choice(PEOPLE),
        work=rng.choice(WORKS),
        event=rng.choice(EVENTS),
        trait=rng.choice(TRAITS),
        number=rng.randint(2, 999),
    )
    return filled, OTHER_REPLY.format(subjects=SUBJECTS[stage])


def random_element(rng: Random) -> str:
    """A name that no element has, such as `dravenium`."""
    return random_name(rng).rstrip("aeiou").lower() + rng.choice(("ium", "ium", "um", "ine", "on"))


def random_name(rng: Random) -> str:
    """Two to four random syllables, such as `Dravenia`."""
    syllables = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(1, 3))]
    return (
        "".join(syllables) + rng.choice(("n", "l", "r", "m")) + rng.choice(VOWELS) + rng.choice(ENDINGS)
    ).capitalize()
