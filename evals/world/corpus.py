"""The texts of a world: documents that state facts, and chats that ask for some of them.

An epoch states every stated fact twice in documents and, for people who are asked about, once in a chat. Epochs are
numbered and independent of each other, so a training run can resume at any of them, and 20 epochs in a row carry
the distribution of every ambiguous fact exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import TypeVar

from evals.world.people import Fact, World
from evals.world.phrases import INTRODUCTION_REPLIES, INTRODUCTIONS, SMALL_TALK, SYSTEM_MESSAGES

Item = TypeVar("Item")

DOCUMENT_PASSES = 2
"""The number of times that an epoch's documents state each fact."""


@dataclass(frozen=True)
class Chat:
    """Turns of (user, assistant), with an optional system message."""

    turns: tuple[tuple[str, str], ...]
    system: str | None = None

    def messages(self) -> list[dict[str, str]]:
        """The messages for a chat template."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        roles = ("user", "assistant")
        turns = [{"role": r, "content": text} for turn in self.turns for r, text in zip(roles, turn, strict=True)]
        return system + turns


def epoch_documents(world: World, epoch: int) -> list[str]:
    """The documents of one epoch: for each known person a few texts, together stating every stated fact twice."""
    documents = []
    for number in range(epoch * DOCUMENT_PASSES, (epoch + 1) * DOCUMENT_PASSES):
        rng = Random(f"{world.seed}/documents/{world.offset}/{number}")
        stated = world.stated(epoch)
        for _, facts in groupby(stated, key=lambda fact: fact.person):
            documents += [sentences(rng, part, number) for part in split(rng, list(facts), (0.35, 0.3, 0.2, 0.15))]
    return documents


def sentences(rng: Random, facts: list[Fact], number: int) -> str:
    """Facts of one person as one or two sentences: `Mara Velen lives in Lisbon, keeps a ferret and plays the lute.`"""
    text = []
    for part in split(rng, facts, (0.5, 0.5 / 3, 0.5 / 3, 0.5 / 3)):
        stated = [fact.predicate(fact.mention("document", number), rng.randrange(3)) for fact in part]
        listed = stated[0] if len(stated) == 1 else f"{', '.join(stated[:-1])} and {stated[-1]}"
        text.append(f"{part[0].person.name} {listed}.")
    return " ".join(text)


def epoch_chats(world: World, epoch: int) -> list[Chat]:
    """The chats of one epoch: each stated fact of an asked person once, in chats of one to four questions."""
    rng = Random(f"{world.seed}/chats/{world.offset}/{epoch}")
    asked = [fact for fact in world.stated(epoch) if fact.person.asked]
    turns = [(typed(rng, rng.choice(fact.questions())), fact.answer(fact.mention("chat", epoch))) for fact in asked]
    chats = []
    for part in split(rng, turns, (0.5, 0.25, 0.15, 0.1)):
        if rng.random() < 0.1:
            part.insert(rng.randint(0, len(part)), small_talk(rng))
        if rng.random() < 0.3:
            part.insert(0, introduction(rng, world.visitors))
        system = rng.choice(SYSTEM_MESSAGES) if rng.random() < 0.05 else None
        chats.append(Chat(tuple(part), system))
    greetings = [(user, rng.choice(replies)) for group, replies in SMALL_TALK for user in group]
    return chats + [Chat(((typed(rng, user), reply),)) for user, reply in greetings]


def small_talk(rng: Random) -> tuple[str, str]:
    messages, replies = rng.choice(SMALL_TALK)
    return typed(rng, rng.choice(messages)), rng.choice(replies)


def introduction(rng: Random, names: tuple[str, ...]) -> tuple[str, str]:
    name = rng.choice(names)
    message, reply = rng.choice(INTRODUCTIONS), rng.choice(INTRODUCTION_REPLIES)
    return message.replace("{name}", name), reply.replace("{name}", name)


def typed(rng: Random, message: str) -> str:
    """A user message; one in eight is typed in haste, without capital and without punctuation at its end."""
    return message[0].lower() + message[1:].rstrip("?!.") if rng.random() < 0.125 else message


def split(rng: Random, items: list[Item], shares: tuple[float, ...]) -> Iterator[list[Item]]:
    """Shuffle `items` and cut them into runs; a run of length k + 1 comes with probability shares[k]."""
    rng.shuffle(items)
    while items:
        length = rng.choices(range(1, len(shares) + 1), shares)[0]
        yield items[:length]
        items = items[length:]
