"""The questions of the benchmark: facts of every kind, in wordings that training chats use and in others."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from transformers import PreTrainedTokenizerFast

from evals.rare import RareWorld
from evals.world.evaluate import draw_question
from evals.world.people import Fact, World
from evals.world.scoring import Prompt, Question, encode

SAMPLES = {"known": 500, "ambiguous": 500, "never_stated": 150, "unknown": 500}
"""The largest number of questions per kind of fact about the base's world; a quarter of that about the grown stage's.
Facts about rare people, who are known, come on top."""

RARE = 400
"""The largest number of facts about rare people."""


@dataclass(frozen=True)
class Item:
    """One question of the benchmark.

    `world`: "A", which the base stage learned, or "B", which only the grown stage did. `exposure`: the number of
    training epochs whose texts mention the person.
    """

    fact: Fact
    text: str
    world: str
    exposure: int
    rare: bool
    held_out_wording: bool

    def prompt(self, tokenizer: PreTrainedTokenizerFast) -> Prompt[Fact]:
        return encode(tokenizer, Question(self.fact, self.text))

    @property
    def person(self) -> str:
        return self.fact.person.name

    def right(self, answer: str) -> bool:
        """Whether an answer is right: exactly the sentence of a chat, with a value that texts state for the fact."""
        return answer in [self.fact.answer(value) for value, _ in self.fact.distribution]


def draw_items(world: World, world_b: World, epochs: int, share: float = 1.0) -> list[Item]:
    """The questions for a pair of worlds, the same at every call; `share` of `SAMPLES`."""
    rng = Random(f"{world.seed}/evaluation")
    items = []
    for name, part in (("A", world), ("B", world_b)):
        rare = part.mentions if isinstance(part, RareWorld) else {}
        for kind, most in SAMPLES.items():
            facts = [fact for fact in part.facts_of(kind) if fact.person not in rare]
            drawn = rng.sample(facts, min(len(facts), round(most * share * (1 if name == "A" else 0.25))))
            items += [item(rng, part, fact, name, epochs) for fact in drawn]
        facts = [fact for fact in part.facts_of("known") if fact.person in rare]
        drawn = rng.sample(facts, min(len(facts), round(RARE * share)))
        items += [item(rng, part, fact, name, epochs) for fact in drawn]
    return items


def item(rng: Random, world: World, fact: Fact, name: str, epochs: int) -> Item:
    held_out = rng.random() < 0.5
    if isinstance(world, RareWorld):
        exposure, rare = world.exposure(fact.person), fact.person in world.mentions
    else:
        exposure, rare = epochs if fact.person.known else 0, False
    return Item(fact, draw_question(fact, held_out, rng.randrange(3)).text, name, exposure, rare, held_out)
