"""The questions that the playground begins with: known, unknown, ambiguous, and known to the newest stage alone."""

from __future__ import annotations

import json
from typing import TypedDict

from evals.world.people import Fact, Kind, World


class Example(TypedDict):
    """As the playground reads them, see `server.clients.playground.routes`."""

    label: str
    about: str
    question: str
    compare: str | None


def examples(old: World, new: World) -> list[Example]:
    """From the world of the stage `base`, and from that of the newest stage."""
    known, unknown = _facts(old, "known", "city")[0], _facts(old, "unknown", "city")[4]
    newest = _facts(new, "known", "pet")[0]
    return [
        _example("Known", "the model has read the answer", known),
        _example("Unknown", "it has read nothing about this person", unknown),
        _example("Ambiguous", "it has read two answers, and both are valid", _torn(old)),
        _example("Two stages", "only the newest stage has read the answer", newest, "base"),
    ]


def as_file(found: list[Example]) -> bytes:
    return (json.dumps(found, indent=1) + "\n").encode()


def _facts(world: World, kind: Kind, attribute: str) -> list[Fact]:
    return [fact for fact in world.facts_of(kind) if fact.attribute.name == attribute]


def _torn(world: World) -> Fact:
    """A fact with two values, each about as likely as the other."""
    return next(f for f in world.facts_of("ambiguous") if len(f.distribution) == 2 and f.distribution[1][1] >= 0.4)


def _example(label: str, about: str, fact: Fact, compare: str | None = None) -> Example:
    return {"label": label, "about": about, "question": fact.questions()[0], "compare": compare}
