"""The demo's growth: the base knows world A only, the grown model knows A and B and shows which growth answered."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random
from statistics import mean, median

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from demo.evaluate import draw_question, load_checkpoint, separation
from demo.grow import WORLD_A, WORLD_B, newest_growth
from demo.growing import GrowthRecipe, GrowthRun
from demo.scoring import Score, score_questions
from demo.tokenizer import load_tokenizer
from demo.world import World
from model_impl.checkpoint.grow import side_files
from model_impl.checkpoint.reading import load_config
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.reference.model import ReferenceTokenformer
from tests.conformance.models import random_weights
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


def test_no_person_lives_in_both_worlds() -> None:
    assert not {person.name for person in WORLD_A.people} & {person.name for person in WORLD_B.people}


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


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base with random weights: only the places that training writes to matter here."""
    config = load_config(CHECKPOINT)
    config.growth_stages = config.growth_stages[:1]
    path = tmp_path_factory.mktemp("base") / "base"
    write_checkpoint(path, config, random_weights(config).items(), side_files(CHECKPOINT))
    return path


@pytest.mark.parametrize("trained", ["new", "all"])
def test_training_touches_what_the_recipe_says(small_base: Path, trained: str) -> None:
    """New tokens only: every old tensor keeps its bytes, and the base is still what it was."""
    worlds = World(known=64, unknown=0), World(known=64, unknown=0, offset=64)
    recipe = GrowthRecipe(epochs=1, trained=trained, dtype="float32")  # type: ignore[arg-type]
    run = GrowthRun(small_base, load_tokenizer(small_base), *worlds, recipe)
    base = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    ids = torch.arange(40)[None]
    before = run.model(ids, 0).detach()
    torch.testing.assert_close(run.model(ids).detach(), before, atol=1e-4, rtol=0)  # growing alone changes nothing
    run.train(lambda progress: None)
    model = run.finished_model()
    assert run.config.servable_stages == ([0, 1] if trained == "new" else [1])
    assert (model(ids) - before).abs().max() > 1e-2
    assert torch.equal(model(ids, 0), before) == (trained == "new")
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, base[name])]
    assert changed
    assert any("word_embeddings" in name for name in changed) == (trained == "all")
