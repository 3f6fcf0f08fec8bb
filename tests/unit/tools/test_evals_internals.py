"""The internals of a Pattention agree with numpy and scipy on its scores and weights."""

import numpy as np
import pytest
import scipy.stats
import torch

from evals.internals import internals, row_internals
from model_impl.config import ACTIVATIONS, PROJECTIONS
from model_impl.reference.contributions import at_position, places
from model_impl.reference.model import Pattention, ReferenceTokenformer
from tests.support.tiny import tiny_config, tiny_weights
from tests.unit.model_impl.reference.test_row_operation import STAGES

ROWS, WIDTH, TOKENS = 6, 8, 50


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_internals_agree_with_numpy_and_scipy() -> None:
    x, scores, weights = random(ROWS, WIDTH), random(ROWS, TOKENS), random(ROWS, TOKENS) + 0.3
    found = row_internals(x, scores, weights).numpy()
    w = weights.double().numpy()
    norms = np.linalg.norm(scores.double(), axis=1) / np.linalg.norm(x.double(), axis=1)
    np.testing.assert_allclose(found[:, 0], np.log(norms), rtol=1e-12)
    np.testing.assert_allclose(found[:, 1], scipy.stats.kurtosis(w, axis=1, fisher=False), rtol=1e-12)
    shares = w**2 / (w**2).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 2], np.exp(-np.log(TOKENS * (shares**2).sum(axis=1))), rtol=1e-12)
    np.testing.assert_allclose(found[:, 3], np.count_nonzero(w > 0, axis=1) / TOKENS, rtol=1e-12)


def test_participation_counts_the_tokens_that_work() -> None:
    weights = torch.zeros(3, TOKENS)
    weights[0, 7], weights[1, :10], weights[2] = -2.0, 0.5, 3.0
    found = row_internals(random(3, WIDTH), random(3, TOKENS), weights)[:, 2]
    torch.testing.assert_close(found, torch.tensor([1 / TOKENS, 10 / TOKENS, 1.0], dtype=torch.float64))


def test_what_is_not_defined_is_not_finite() -> None:
    zero, some = torch.zeros(1, TOKENS), random(1, TOKENS)
    assert not row_internals(random(1, WIDTH), zero, zero)[0, :3].isfinite().any()
    assert not row_internals(torch.zeros(1, WIDTH), some, some)[0, 0].isfinite()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("stage", [0, 1, 2])
def test_of_every_layer_with_the_tokens_of_the_stage(activation: str, stage: int) -> None:
    config = tiny_config(norm_activation_type=activation, growth_stages=STAGES["joint, then grouped"])
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    ids = torch.randint(config.vocab_size, (2, 5), generator=torch.Generator().manual_seed(0))
    found = internals(model, ids, stage)
    assert found.shape == (2, 5, config.num_hidden_layers, len(PROJECTIONS), 4 + stage + 1)
    names = [place.stage for place in places(config, stage)]
    traced = at_position(model, ids[1].tolist(), 3, stage).contributions
    by_stage = [
        sum(float(own) for name, own in zip(names, traced, strict=True) if name == step.name)
        for step in config.stages[: stage + 1]
    ]
    assert found[1, 3, ..., 4:].sum(dim=(0, 1)).tolist() == pytest.approx(by_stage, rel=1e-4)
    # The first layer's feed-forward by hand, from its input and its tokens.
    seen: list[torch.Tensor] = []
    layer = model.get_submodule("sequential.2.mlp")
    assert isinstance(layer, Pattention)
    hook = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))  # not the watcher under test
    model(ids, stage)
    hook.remove()
    scores = seen[0] @ layer.key_param_tokens[: config.token_count("ffn", stage)].T
    norms = np.linalg.norm(scores.detach(), axis=-1) / np.linalg.norm(seen[0].detach(), axis=-1)
    np.testing.assert_allclose(found[:, :, 0, PROJECTIONS.index("ffn"), 0], np.log(norms), rtol=1e-5)
