"""The study of the closed form: its signals are the reference's, and twins have them by their hidden units."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evals.answers import Answer
from evals.closed_form import ALL, LAST, LAST_BLOCK, MAIN, token_signals
from evals.run import RATE
from evals.score import Judged
from evals.twin import Twin
from evals.world.people import World
from evals.world.scoring import Prompt, Question
from model_impl.reference.closed_form import epistemic
from model_impl.reference.model import ReferenceTokenformer
from tests.support.tiny import tiny_config, tiny_weights


def prompt(ids: list[int]) -> Prompt:
    return Prompt(Question(World(known=1, unknown=1).facts[0], ""), ids, len(ids), len(ids), 1)


ANSWERS = [
    Judged(prompt([1, 5, 2]), Answer((9, 3, 4), 1, 0.0), slice(0, 2)),
    Judged(prompt([4, 0, 8, 7]), Answer((6, 10), 1, 0.0), slice(1, 2)),
]
WIDTH = f"{MAIN} words"


def test_it_takes_the_reference_at_the_values_of_answers() -> None:
    config = tiny_config(ensemble_rate=RATE)
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    model = model.eval().requires_grad_(False)
    for one, found in zip(ANSWERS, token_signals(model, ANSWERS), strict=True):
        start = one.prompt.start - 1
        expected = epistemic(model, torch.tensor([one.ids]))[0, start:][one.span]
        np.testing.assert_allclose(found[f"{LAST}, {WIDTH}"], expected, rtol=1e-4)
        share = found[f"{LAST}, {WIDTH}, share of the entropy"] * found["entropy"]
        np.testing.assert_allclose(share, expected, rtol=1e-4)
        assert (found[f"{ALL}, {WIDTH}"] > found[f"{LAST_BLOCK}, {WIDTH}"]).all()
        assert (found[f"{LAST_BLOCK}, {WIDTH}"] > found[f"{LAST}, {WIDTH}"]).all()


def test_a_twin_has_one_layer_of_units_per_block() -> None:
    torch.manual_seed(0)
    twin = Twin(tiny_config()).eval().requires_grad_(False)
    [found, _] = token_signals(twin, ANSWERS)
    assert found[f"{LAST_BLOCK}, {WIDTH}"] == pytest.approx(found[f"{LAST}, {WIDTH}"])
    assert (found[f"{ALL}, {WIDTH}"] > found[f"{LAST}, {WIDTH}"]).all()
