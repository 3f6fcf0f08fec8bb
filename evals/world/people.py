"""A synthetic world of made-up people, where the facts that texts state, and how often, are known exactly.

Every person has one value per attribute, or, for an ambiguous fact, a distribution over values drawn at random for
that fact. The training texts determine the kind of a fact:

- `known`: stated, always with the same value;
- `ambiguous`: stated with different values, in the exact proportions of `Fact.distribution`;
- `never_stated`: an attribute of a known person about which all texts are silent;
- `unknown`: any attribute of a person of whom no text says anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import Literal, get_args

from evals.world.phrases import ATTRIBUTES, FIRST_NAMES, LAST_NAMES, Attribute

Kind = Literal["known", "ambiguous", "never_stated", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)

DECK_SIZE = 20
"""An ambiguous fact's probabilities are multiples of 1/20, so 20 mentions can carry them exactly."""

NEVER_STATED_SHARE = 0.08
AMBIGUOUS_SHARE = 0.10
ASKED_SHARE = 0.60
VISITORS = 1024


@dataclass(frozen=True)
class Person:
    """`known`: documents state facts about this person; `asked`: training chats ask about this person, too."""

    name: str
    known: bool
    asked: bool


@dataclass(frozen=True)
class Fact:
    """One attribute of one person: its kind, and its values with their probabilities (likeliest first, sum 1).

    A fact that no text states (`never_stated`, `unknown`) still has a value, so that a lucky guess counts.
    """

    person: Person
    attribute: Attribute
    kind: Kind
    distribution: tuple[tuple[str, float], ...]

    @property
    def stated(self) -> bool:
        return self.kind in ("known", "ambiguous")

    @property
    def value(self) -> str:
        """The value, or the likeliest one of an ambiguous fact."""
        return self.distribution[0][0]

    def predicate(self, value: str, wording: int = 0) -> str:
        """`lives in Lisbon`; the value always comes last."""
        return f"{self.attribute.predicates[wording]} {value}"

    def answer(self, value: str | None = None) -> str:
        """The sentence with which a training chat answers: `Mara Velen lives in Lisbon.`"""
        return f"{self.person.name} {self.predicate(self.value if value is None else value)}."

    def questions(self, held_out: bool = False) -> tuple[str, ...]:
        """All wordings of the question that training uses, or all those that it never uses."""
        templates = self.attribute.held_out_questions if held_out else self.attribute.questions
        return tuple(template.replace("{name}", self.person.name) for template in templates)

    def mention(self, seed: str, index: int) -> str:
        """The value that mention number `index` states; every DECK_SIZE mentions carry the exact distribution."""
        if len(self.distribution) == 1:
            return self.value
        deck = [value for value, share in self.distribution for _ in range(round(share * DECK_SIZE))]
        rounds, card = divmod(index, DECK_SIZE)
        Random(f"{seed}/{self.person.name}/{self.attribute.name}/{rounds}").shuffle(deck)
        return deck[card]


@dataclass(frozen=True)
class World:
    """People and their facts, generated from `seed`.

    `offset` is the number of the first name used: worlds of one seed whose ranges `offset` to `offset + known +
    unknown` do not overlap share no person. Every 64 names in a row use every first and every last name once, so
    ranges that are multiples of 64 have equal name-part frequencies among known people, unknown people and worlds.
    """

    seed: int = 0
    known: int = 1024
    unknown: int = 256
    offset: int = 0

    def __post_init__(self) -> None:
        available = len(FIRST_NAMES) * len(LAST_NAMES) - VISITORS
        if min(self.known, self.unknown, self.offset) < 0 or self.offset + self.known + self.unknown > available:
            raise ValueError(f"a world has at most {available} names: {self}")

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """The known people first, then the unknown ones."""
        rng = Random(f"{self.seed}/asked/{self.offset}")
        asked = set(rng.sample(range(self.known), round(self.known * ASKED_SHARE)))
        names = person_names(self.seed)[self.offset : self.offset + self.known + self.unknown]
        return tuple(Person(name, known=i < self.known, asked=i in asked) for i, name in enumerate(names))

    @cached_property
    def facts(self) -> tuple[Fact, ...]:
        """One fact per person and attribute, in the order of `people` and ATTRIBUTES."""
        rng = Random(f"{self.seed}/facts/{self.offset}")
        return tuple(draw_fact(rng, person, attribute) for person in self.people for attribute in ATTRIBUTES)

    @cached_property
    def visitors(self) -> tuple[str, ...]:
        """Names of nobody in any world of this seed, for chats in which users say their own."""
        return tuple(person_names(self.seed)[-VISITORS:])

    def stated(self, epoch: int) -> list[Fact]:
        """The facts that the texts of an epoch state; in this world, all facts that are ever stated."""
        return self.facts_of("known", "ambiguous")

    def facts_of(self, *kinds: Kind) -> list[Fact]:
        return [fact for fact in self.facts if fact.kind in kinds]


WORLD_A = World()
"""The world that the base stage of seed 0 learned."""

WORLD_B = World(known=256, unknown=64, offset=WORLD_A.known + WORLD_A.unknown)
"""The world that its grown stage learned: other people, with names from the same parts."""


def person_names(seed: int) -> list[str]:
    """Every pair of a first and a last name once, in an order in which each run of 64 uses all name parts."""
    rng = Random(f"{seed}/names")
    first, last = rng.sample(FIRST_NAMES, len(FIRST_NAMES)), rng.sample(LAST_NAMES, len(LAST_NAMES))
    return [f"{first[i]} {last[(i + shift) % len(last)]}" for shift in range(len(last)) for i in range(len(first))]


def draw_fact(rng: Random, person: Person, attribute: Attribute) -> Fact:
    """A fact of a random kind (`unknown` for people who are) with a random value or distribution."""
    chance = rng.random()
    if not person.known or chance < NEVER_STATED_SHARE:
        kind: Kind = "never_stated" if person.known else "unknown"
        return Fact(person, attribute, kind, ((rng.choice(attribute.values), 1.0),))
    if chance < NEVER_STATED_SHARE + AMBIGUOUS_SHARE:
        return Fact(person, attribute, "ambiguous", draw_distribution(rng, attribute.values))
    return Fact(person, attribute, "known", ((rng.choice(attribute.values), 1.0),))


def draw_distribution(rng: Random, values: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Two to six values that differ in their first word, with a composition of DECK_SIZE drawn uniformly as weights."""
    count = rng.randint(2, 6)
    chosen: dict[str, str] = {}
    while len(chosen) < count:
        value = rng.choice(values)
        chosen.setdefault(value.split()[0], value)
    cuts = [0, *sorted(rng.sample(range(1, DECK_SIZE), count - 1)), DECK_SIZE]
    shares = sorted((stop - start for start, stop in pairwise(cuts)), reverse=True)
    return tuple((value, share / DECK_SIZE) for value, share in zip(chosen.values(), shares, strict=True))
