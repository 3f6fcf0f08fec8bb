"""Labelled questions to calibrate the demo checkpoint with: `python -m demo.labels world-b > labels.jsonl`.

The questions and their proportions:

- Six in ten questions are about people whom the stage has read about, each of their facts once: about 82 % of these
  facts are known, 10 % ambiguous and 8 % never stated. The others are about people of whom no stage has read a word;
  they belong to neither world, so that the unknown people of worlds A and B stay for evaluations.
- The model answers. The value that the world gives a fact is right; any stated value of an ambiguous fact is, as none
  of them is made up. A fact that no text states has a value, too, so that a lucky guess counts.
- Half of the wordings occur in no training chat, one message in eight is typed in haste, and one in four follows an
  earlier turn.
- One message in twenty is small talk, where every reply of the training chats is right.

Labels about one person are one group: a calibration is measured on other people than those that it is fitted on. Their
topic is the attribute that they ask about, or small talk.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from demo.texts import READ
from evals.world.corpus import Chat, introduction, small_talk, typed
from evals.world.people import WORLD_A, WORLD_B, Fact, World
from evals.world.phrases import INTRODUCTION_REPLIES, INTRODUCTIONS, SMALL_TALK

STRANGERS_PER_PERSON = 2 / 3
NAME_BLOCK = 64
"""The number of consecutive names that use every name part once; see `World`."""

HELD_OUT_SHARE = 0.5
EARLIER_TURN_SHARE = 0.25
SMALL_TALK_SHARE = 0.05
SMALL_TALK_TOPIC = "small talk"
INTRODUCTION_SHARE = 0.5
"""The share of small talk in which a user says a name; the rest are greetings, thanks and the like."""


class Labels:
    """The labels for a stage that has read the worlds `read`; always the same ones, in a random order."""

    def __init__(self, read: Sequence[World]) -> None:
        self.rng = Random(f"labels/{len(read)}")
        people = sum(world.known for world in read)
        number = round(people * STRANGERS_PER_PERSON / NAME_BLOCK) * NAME_BLOCK
        strangers = World(known=0, unknown=number, offset=WORLD_B.offset + WORLD_B.known + WORLD_B.unknown)
        known = [fact for world in read for fact in world.facts if fact.person.known]
        self.facts = [*known, *strangers.facts]
        self.stated = [fact for fact in self.facts if fact.kind == "known"]
        self.visitors = WORLD_A.visitors

    def __iter__(self) -> Iterator[dict[str, Any]]:
        chats = round(len(self.facts) * SMALL_TALK_SHARE / (1 - SMALL_TALK_SHARE))
        lines = [self.about(fact) for fact in self.facts] + [self.small_talk() for _ in range(chats)]
        self.rng.shuffle(lines)
        return iter(lines)

    def about(self, fact: Fact) -> dict[str, Any]:
        held_out = self.rng.random() < HELD_OUT_SHARE
        question = typed(self.rng, self.rng.choice(fact.questions(held_out)))
        expected = [fact.answer(value) for value, _ in fact.distribution]
        return self.label(question, expected, fact.person.name, fact.attribute.name)

    def small_talk(self) -> dict[str, Any]:
        if self.rng.random() < INTRODUCTION_SHARE:
            name = self.rng.choice(self.visitors)
            message = self.rng.choice(INTRODUCTIONS).replace("{name}", name)
            replies = [reply.replace("{name}", name) for reply in INTRODUCTION_REPLIES]
            return self.label(message, replies, name, SMALL_TALK_TOPIC)
        messages, replies = self.rng.choice(SMALL_TALK)
        message = self.rng.choice(messages)
        return self.label(typed(self.rng, message), replies, message, SMALL_TALK_TOPIC)

    def label(self, message: str, expected: Sequence[str], group: str, topic: str) -> dict[str, Any]:
        turns = (self.earlier_turn(),) if self.rng.random() < EARLIER_TURN_SHARE else ()
        messages = [*Chat(turns).messages(), {"role": "user", "content": message}]
        answer = {"answer": "generate", "expected": list(expected)}
        return {"messages": messages, **answer, "group": group, "topic": topic}

    def earlier_turn(self) -> tuple[str, str]:
        """Small talk, a user's name, or a question about a known fact and its answer."""
        kind = self.rng.randrange(3)
        if kind == 0:
            return small_talk(self.rng)
        if kind == 1:
            return introduction(self.rng, self.visitors)
        fact = self.rng.choice(self.stated)
        return typed(self.rng, self.rng.choice(fact.questions())), fact.answer()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.labels", description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=READ, help="the growth stage to be asked")
    for line in Labels(READ[parser.parse_args().stage]):
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
