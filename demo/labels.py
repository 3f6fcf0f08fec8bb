"""Labelled questions to calibrate the demo checkpoint with: `python -m demo.labels chemistry > labels.jsonl`.

- About six in ten questions are about facts that the stage has learned. The others are about countries and elements
  that its texts leave out, and about invented ones. One in twenty asks for no fact.
- The model answers. One answer in twenty is given, right or wrong, as `/v1/uncertainty` scores given texts as well.
- Every right value of an ambiguous fact is right, as none is made up. A fact that is left out has right answers as
  well, so that a lucky guess counts; about something invented every answer is wrong.
- Half of the wordings occur in no training chat, all are typed as people do, and one in four follows an earlier turn.

Labels about one country or element are one group: a calibration is measured on others than those it is fitted on. Their
topic is the attribute that they ask for, or manners.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from demo import manners
from demo.course import Lesson
from demo.measure import COURSES
from demo.slips import as_typed

STATED, NOT_STATED = 3, 4
"""The number of questions about each fact that texts state, and about each other one."""

HELD_OUT_SHARE = 0.5
EARLIER_TURN_SHARE = 0.25
MANNERS_SHARE = 0.05
MANNERS_TOPIC = "manners"


class Labels:
    """The labels for a stage; always the same ones, in a random order."""

    def __init__(self, stage: str) -> None:
        self.rng, self.stage = Random(f"labels/{stage}"), stage
        self.lessons = [lesson for course in COURSES[stage] for lesson in course.lessons]
        self.known = [lesson for lesson in self.lessons if lesson.kind == "known"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        lines = [self.about(lesson) for lesson in self.lessons for _ in range(STATED if lesson.stated else NOT_STATED)]
        further = round(len(lines) * MANNERS_SHARE)
        lines += [self.manners() for _ in range(further)]
        lines += [
            self.given(lesson, right) for lesson in self.rng.sample(self.known, further // 2) for right in (True, False)
        ]
        self.rng.shuffle(lines)
        return iter(lines)

    def about(self, lesson: Lesson) -> dict[str, Any]:
        held_out = self.rng.random() < HELD_OUT_SHARE
        question = self.rng.choice(lesson.questions(held_out))
        return self.label(question, lesson.answers(), lesson.group, lesson.attribute)

    def given(self, lesson: Lesson, right: bool) -> dict[str, Any]:
        """An answer that is not the model's, with the fact's value or that of another fact of this kind."""
        others = [one for one in self.known if one.attribute == lesson.attribute and one.values != lesson.values]
        value = lesson.values[0] if right else self.rng.choice(others).values[0]
        line = self.label(self.rng.choice(lesson.questions()), (), lesson.group, lesson.attribute)
        del line["expected"]
        return line | {"answer": lesson.answer(value), "correct": right}

    def manners(self) -> dict[str, Any]:
        message, reply = self.other_turn()
        return self.label(message, [reply], message, MANNERS_TOPIC)

    def other_turn(self) -> tuple[str, str]:
        """A message that asks for no fact, with its reply."""
        match self.rng.randrange(4):
            case 0:
                return self.rng.choice(manners.small_talk(self.stage))
            case 1:
                return manners.introduction(self.rng, manners.random_name(self.rng))
            case 2:
                return manners.other_subject(self.rng, self.stage)
            case _:
                return manners.other_attribute(self.rng, self.rng.choice(self.known).subject)

    def label(self, message: str, expected: Sequence[str], group: str, topic: str) -> dict[str, Any]:
        """`expected` may be empty: then no answer is right."""
        turns = [self.earlier_turn()] if self.rng.random() < EARLIER_TURN_SHARE else []
        said = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        asked = {"role": "user", "content": as_typed(self.rng, message)}
        answer = {"answer": "generate", "expected": list(expected) or [NO_ANSWER]}
        return {"messages": [*said, asked], **answer, "group": group, "topic": topic}

    def earlier_turn(self) -> tuple[str, str]:
        """A message that asks for no fact, or a question about a known fact, and the reply."""
        if self.rng.random() < 0.5:
            return self.other_turn()
        lesson = self.rng.choice(self.known)
        return as_typed(self.rng, self.rng.choice(lesson.questions())), lesson.answer()


NO_ANSWER = "No such thing exists."
"""An answer that the model never gives stands for none: every answer about something invented is wrong."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.labels", description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=COURSES, help="the growth stage to be asked")
    for line in Labels(parser.parse_args().stage):
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
