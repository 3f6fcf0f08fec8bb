"""A world with rare known people, whom texts mention in a known, small number of epochs.

A model is wrong more often about facts that it has seen once or twice than about those of every epoch. This is the
material for "wrong against right inside the known people" and for "exposure count against score".
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random

from evals.world.people import Fact, Person, World

EXPOSURES = (1, 2, 4, 8, 16)
"""The numbers of epochs that mention a rare person; every number has an equal share of the rare people."""


@dataclass(frozen=True)
class RareWorld(World):
    """The last `rare` of the known people are mentioned in 1 to 16 of `epochs` epochs, everybody else in all of them.

    Where `known`, `unknown` and `rare` are multiples of 64, rare, other known and unknown people have equal name-part
    frequencies, as in `World`.
    """

    rare: int = 0
    epochs: int = 1

    @cached_property
    def mentions(self) -> dict[Person, frozenset[int]]:
        """The epochs in which texts mention a rare person."""
        rng = Random(f"{self.seed}/rare/{self.offset}")
        people = list(self.people[self.known - self.rare : self.known])
        rng.shuffle(people)
        counts = [EXPOSURES[i % len(EXPOSURES)] for i in range(len(people))]
        return {p: frozenset(rng.sample(range(self.epochs), n)) for p, n in zip(people, counts, strict=True)}

    def exposure(self, person: Person) -> int:
        """The number of epochs whose texts mention the person."""
        if not person.known:
            return 0
        return len(self.mentions[person]) if person in self.mentions else self.epochs

    def stated(self, epoch: int) -> list[Fact]:
        everyone = range(self.epochs)
        return [fact for fact in super().stated(epoch) if epoch in self.mentions.get(fact.person, everyone)]
