"""The growth of a model on a second world: training changes the parameters that the recipe names, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evals.world.growing import GrowthRecipe, GrowthRun
from evals.world.people import World
from evals.world.tokenizer import load_tokenizer, train_tokenizer
from evals.world.training import Recipe, model_config, world_texts
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.training.tokenizer import tokenizer_files
from tests.conformance.models import random_weights

OLD, NEW = World(known=128, unknown=0), World(known=64, unknown=0, offset=128)


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with random weights: only the places that training writes to matter here."""
    tokenizer = train_tokenizer(world_texts(OLD))
    config = model_config(Recipe(), tokenizer)
    path = tmp_path_factory.mktemp("base") / "base"
    write_checkpoint(path, config, random_weights(config).items(), tokenizer_files(tokenizer))
    return path


@pytest.mark.parametrize("trained", ["new", "all"])
def test_training_touches_what_the_recipe_says(small_base: Path, trained: str) -> None:
    """New tokens only: every old tensor keeps its bytes, and the base is still what it was."""
    recipe = GrowthRecipe(epochs=1, trained=trained, dtype="float32")  # type: ignore[arg-type]
    run = GrowthRun(small_base, load_tokenizer(small_base), OLD, NEW, recipe)
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
