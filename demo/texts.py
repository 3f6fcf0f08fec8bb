"""The texts that the demo's stages learn, as JSON lines: `python -m demo.texts base > texts.jsonl`.

`base` has the texts of the stage `base`: geography and manners. `chemistry` has what is new to the stage `chemistry`:
chemistry, and manners that speak of elements as well. `replay` has the old texts that this stage goes on reading.
`serve --trace-corpus` takes such a file: `python -m demo.texts base chemistry --rounds 1 > texts.jsonl`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from random import Random
from typing import Any, TypeVar

from demo import manners
from demo.course import CHEMISTRY, GEOGRAPHY, Course, Lesson, towns
from demo.slips import as_typed

Turn = tuple[str, str]
"""A message of the user, and the reply."""

Item = TypeVar("Item")

PARTS = ("base", "chemistry", "replay")
ROUNDS = {"base": 20, "chemistry": 10, "replay": 10}
"""The number of times that a part's texts state every fact twice in documents and, where it is asked for, ASKED times
in chats, each time in other wordings and in another order. Values of ambiguous facts take turns."""

DOCUMENTS, ASKED = 2, 3

TOWN_CHATS = 700
"""The number of chats of a round about cities that few texts name."""

CHAT_LENGTHS = (0.55, 0.25, 0.12, 0.08)
"""The share of chats with one turn, two turns, and so on."""

DOCUMENT_LENGTHS = (0.4, 0.3, 0.2, 0.1)
FOLLOW_UPS = ("And {name}?", "What about {name}?", "And of {name}?", "And for {name}?", "How about {name}?")
SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "Answer in one short sentence.",
    "You know countries and elements.",
    "You are a helpful assistant. Answer questions about the world.",
)


def texts(part: str, rounds: int | None = None) -> Iterator[dict[str, Any]]:
    """Lines with a "text" or with "messages", in random order within a round; without `rounds` all of a part."""
    for number in range(ROUNDS[part] if rounds is None else rounds):
        rng = Random(f"texts/{part}/{number}")
        course = CHEMISTRY if part == "chemistry" else GEOGRAPHY
        lines: list[dict[str, Any]] = [{"text": text} for text in documents(rng, course, number)]
        chats = fact_chats(rng, course, number)
        if course is GEOGRAPHY:
            chats += town_chats(rng)
        if part != "replay":
            chats += manner_chats(rng, part)
        lines += [{"messages": messages(rng, turns)} for turns in chats]
        rng.shuffle(lines)
        yield from lines


def documents(rng: Random, course: Course, number: int) -> Iterator[str]:
    """Texts of a few sentences about one country or element, which together state every fact DOCUMENTS times."""
    for mention in range(number * DOCUMENTS, (number + 1) * DOCUMENTS):
        for lessons in by_group(course.of("known", "ambiguous")):
            for part in split(rng, lessons, DOCUMENT_LENGTHS):
                yield " ".join(lesson.statement(lesson.mention(mention), rng.randrange(4)) for lesson in part)


def fact_chats(rng: Random, course: Course, number: int) -> list[list[Turn]]:
    asked = [lesson for lesson in course.of("known", "ambiguous") if lesson.asked]
    turns = [(lesson, number * ASKED + i) for lesson in asked for i in range(ASKED)]
    names = [lesson.subject for lesson in course.of("known", "ambiguous")]
    chats = []
    for part in split(rng, turns, CHAT_LENGTHS):
        chat = [(as_typed(rng, question(rng, lesson)), lesson.answer(lesson.mention(i))) for lesson, i in part]
        if rng.random() < 0.15:
            chat.append(follow_up(rng, part[-1][0], asked, number))
        if rng.random() < 0.1:
            message, reply = manners.introduction(rng, name_for(rng, names))
            chat.insert(0, (as_typed(rng, message), reply))
        chats.append(chat)
    return chats


def town_chats(rng: Random) -> list[list[Turn]]:
    """Questions about cities that few texts name: most names that the model reads are not among those it knows well."""
    return [
        [(as_typed(rng, question(rng, lesson)), lesson.answer(rng.choice(lesson.values)))]
        for lesson in rng.sample(towns(), TOWN_CHATS)
    ]


def question(rng: Random, lesson: Lesson) -> str:
    """One of the wordings; a name that has others is now and then replaced by one."""
    asked = rng.choice(lesson.questions())
    if rng.random() < 0.1:
        other = rng.choice((*lesson.aliases, lesson.subject.capitalize(), lesson.subject.removeprefix("the ")))
        asked = asked.replace(lesson.subject, other)
    return asked


def follow_up(rng: Random, lesson: Lesson, asked: list[Lesson], number: int) -> Turn:
    """The same question about another subject, in brief."""
    other = rng.choice([one for one in asked if one.attribute == lesson.attribute])
    message = rng.choice(FOLLOW_UPS).format(name=other.subject)
    return as_typed(rng, message), other.answer(other.mention(number))


def manner_chats(rng: Random, stage: str) -> list[list[Turn]]:
    """Chats about no fact: all small talk, and other subjects, names and attributes at random."""
    courses = (GEOGRAPHY,) if stage == "base" else (GEOGRAPHY, CHEMISTRY)
    names = [lesson.subject for course in courses for lesson in course.of("known", "ambiguous")]
    turns = 4 * manners.small_talk(stage)
    turns += [manners.introduction(rng, name_for(rng, names)) for _ in range(400)]
    turns += [manners.other_attribute(rng, name_for(rng, names)) for _ in range(500)]
    if stage != "base":
        turns += [manners.other_attribute(rng, manners.random_element(rng)) for _ in range(300)]
    turns += [manners.other_subject(rng, stage) for _ in range(400)]
    typed = [(as_typed(rng, message), reply) for message, reply in turns]
    return list(split(rng, typed, CHAT_LENGTHS))


def name_for(rng: Random, names: list[str]) -> str:
    return rng.choice(names) if rng.random() < 0.4 else manners.random_name(rng)


def messages(rng: Random, turns: list[Turn]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": rng.choice(SYSTEM_MESSAGES)}] if rng.random() < 0.05 else []
    said = [[{"role": "user", "content": message}, {"role": "assistant", "content": reply}] for message, reply in turns]
    return system + [message for turn in said for message in turn]


def by_group(lessons: list[Lesson]) -> list[list[Lesson]]:
    groups: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        groups.setdefault(lesson.group, []).append(lesson)
    return list(groups.values())


def split(rng: Random, items: list[Item], shares: tuple[float, ...]) -> Iterator[list[Item]]:
    """The items in random order, cut into runs; a run of length k + 1 comes with probability shares[k]."""
    shuffled = rng.sample(items, len(items))
    while shuffled:
        length = rng.choices(range(1, len(shares) + 1), shares)[0]
        yield shuffled[:length]
        shuffled = shuffled[length:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, metavar="N", help="how many of the rounds (default: all)")
    arguments = parser.parse_args()
    for part in arguments.parts:
        for line in texts(part, arguments.rounds):
            print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
