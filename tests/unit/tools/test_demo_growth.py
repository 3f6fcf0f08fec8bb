"""The demo's growth: the base knows world A only, the grown model knows A and B and shows which growth answered."""

from __future__ import annotations

from functools import partial
from random import Random
from statistics import mean, median

import pytest
from transformers import PreTrainedTokenizerFast

from demo.grow import newest_growth
from evals.world.evaluate import draw_question, load_checkpoint, separation
from evals.world.people import WORLD_A, WORLD_B, World
from evals.world.scoring import Score, score_questions
from model_impl.reference.model import ReferenceTokenformer
from tests.support.paths import ROOT

CHECKPOINT = ROOT / "demo" / "checkpoint"
Loaded = tuple[ReferenceTokenformer, PreTrainedTokenizerFast]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load_checkpoint(CHECKPOINT)


def scores(loaded: Loaded, stage: int, world: World) -> list[Score]:
    model, tokenizer = loaded
    facts = Random(0).sample(world.facts_of("known"), 100)
    questions = [draw_question(fact, held_out=bool(i % 2)) for i, fact in enumerate(facts)]
    return score_questions(partial(model.forward, stage=stage), tokenizer, questions)


def test_the_base_does_not_know_world_b_and_is_unsure(loaded: Loaded) -> None:
    of_a, of_b = scores(loaded, 0, WORLD_A), scores(loaded, 0, WORLD_B)
    assert mean(score.correct for score in of_a) >= 0.97
    assert mean(score.correct for score in of_b) <= 0.15
    assert median(score.entropy for score in of_b) > 5 * median(score.entropy for score in of_a)


def test_the_grown_stage_knows_both_worlds(loaded: Loaded) -> None:
    assert mean(score.correct for score in scores(loaded, 1, WORLD_A)) >= 0.95
    assert mean(score.correct for score in scores(loaded, 1, WORLD_B)) >= 0.95


def test_growth_tells_the_worlds_apart(loaded: Loaded) -> None:
    model, tokenizer = loaded
    growth_a, growth_b = (
        newest_growth(model, tokenizer, Random(1).sample(world.facts_of("known"), 40)) for world in (WORLD_A, WORLD_B)
    )
    assert separation(growth_a, growth_b) > 0.9
