"""People whom the demo model knows, and others."""

from __future__ import annotations

from evals.world.people import WORLD_B, Fact, Kind, World


def cities(kind: Kind, count: int) -> list[Fact]:
    """Where the first `count` people of world A live whose city is known, unknown, ...; one is not enough to tell
    kinds apart, as the model is sure of some of what it makes up."""
    return [fact for fact in World().facts_of(kind) if fact.attribute.name == "city"][:count]


def pet_of_the_newest_stage() -> Fact:
    """A fact about somebody whom the last growth stage has learned and the base has not."""
    return next(fact for fact in WORLD_B.facts_of("known") if fact.attribute.name == "pet")


def question(fact: Fact) -> str:
    return fact.questions()[0]
