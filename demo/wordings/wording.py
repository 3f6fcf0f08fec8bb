"""A wording: how texts state one attribute and ask for it."""

from __future__ import annotations

from dataclasses import dataclass

FRAMES = (
    "Tell me {clause}.",
    "Do you know {clause}?",
    "Can you tell me {clause}?",
    "I would like to know {clause}.",
    "Please say {clause}.",
    "Could you tell me {clause}?",
    "Do you happen to know {clause}?",
    "I want to know {clause}.",
    "Hi, can you say {clause}?",
    "Please tell me {clause}.",
)
"""Requests that an indirect question completes."""


@dataclass(frozen=True)
class Wording:
    """The wordings of one attribute; {name} stands for the subject.

    `answer` is the sentence that chats answer with, up to the value, which always comes last. `stated` are others, for
    documents; they begin with the subject. `asked` are direct questions and requests, `clauses` indirect questions for
    FRAMES. No training chat contains `held_out`, nor the clauses in the frames of the numbers `frames_held_out`.
    """

    attribute: str
    answer: str
    stated: tuple[str, ...]
    asked: tuple[str, ...]
    clauses: tuple[str, ...]
    held_out: tuple[str, ...]
    frames_held_out: tuple[int, int]

    @property
    def questions(self) -> tuple[str, ...]:
        return self.asked + self._framed(held_out=False)

    @property
    def held_out_questions(self) -> tuple[str, ...]:
        return self.held_out + self._framed(held_out=True)

    def _framed(self, held_out: bool) -> tuple[str, ...]:
        frames = [frame for i, frame in enumerate(FRAMES) if (i in self.frames_held_out) == held_out]
        return tuple(frame.replace("{clause}", clause) for frame in frames for clause in self.clauses)


def noun(
    attribute: str,
    nouns: tuple[str, ...],
    stated: tuple[str, ...],
    asked: tuple[str, ...],
    held_out: tuple[str, ...],
    frames: tuple[int, int],
    article: str = "The",
    before: str = "",
    clauses: tuple[str, ...] = (),
) -> Wording:
    """An attribute that is asked for by its nouns; the first one is that of answers."""
    direct = [
        template.replace("{noun}", noun)
        for noun in nouns
        for template in (
            "What is the {noun} of {name}?",
            "What's the {noun} of {name}?",
            "What is {name}'s {noun}?",
            "{name}'s {noun}?",
            "The {noun} of {name}?",
            "{name} {noun}",
        )
    ]
    questions = tuple(f"what the {noun} of {{name}} is" for noun in nouns)
    return Wording(
        attribute,
        f"{article} {nouns[0]} of {{name}} is {before}",
        stated,
        (*direct, *asked),
        (*questions, *(f"the {noun} of {{name}}" for noun in nouns), *clauses),
        (*held_out, *(f"Name the {noun} of {{name}}." for noun in nouns)),
        frames,
    )
