"""The closed form of epistemic uncertainty, against what it stands for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.func import jacrev, vmap

from model_impl.checkpoint.grow import new_stage
from model_impl.reference.closed_form import epistemic, logit_variances, word_directions
from model_impl.reference.model import Pattention, ReferenceTokenformer
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

IDS = torch.tensor([[1, 5, 2, 9, 3, 3], [4, 0, 8, 7, 6, 10]])


def tiny_model(rate: float = 0.03, **fields: object) -> ReferenceTokenformer:
    config = tiny_config(ensemble_rate=rate, **fields)
    config = config.with_stages([*config.stages, new_stage(config, TOKENS, None, "grouped", "random")])
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    return model.double().eval().requires_grad_(False)


def test_directions_are_the_gradients_of_the_logits() -> None:
    model = tiny_model()
    residual = model.hidden_states(IDS)[-1]
    norm, head = model.final_norm(), model.head_weight()

    def logits(x: torch.Tensor) -> torch.Tensor:
        return norm(x) @ head.T

    probabilities, found = word_directions(residual, norm, head, head.shape[0])
    gradients = vmap(vmap(jacrev(logits)))(residual)  # [B, T, V, d]
    order = logits(residual).argsort(dim=-1, descending=True)
    gradients = gradients.gather(2, order[..., None].expand_as(gradients))
    mean = (probabilities[..., None] * gradients).sum(dim=-2, keepdim=True)
    torch.testing.assert_close(probabilities, logits(residual).softmax(dim=-1).sort(descending=True).values)
    torch.testing.assert_close(found, gradients - mean)


@pytest.mark.parametrize("stage", [0, -1])
def test_small_rates_give_the_ensembles_mutual_information(stage: int) -> None:
    """Enumerates all masks of one or two tokens of the last feed-forward: rarer ones weigh r^3."""
    rate = 1e-3
    model = tiny_model(rate)
    last = [m for m in model.modules() if isinstance(m, Pattention) and m.projection == "ffn"][-1]
    last.value_param_tokens.mul_(0.02)  # small moves, as the formula is of second order in them
    count = model.config.norm_groups("ffn", stage)[-1].stop
    mean_probabilities, mean_entropy, total = torch.zeros(()), torch.zeros(()), 0.0
    for size in (0, 1, 2):
        for masked in itertools.combinations(range(count), size):
            keep = torch.ones(len(last.key_param_tokens), dtype=torch.bool)
            keep[list(masked)] = False
            last.keep = keep
            share = rate**size * (1 - rate) ** (count - size)
            p = model(IDS, stage).softmax(dim=-1)
            mean_probabilities = mean_probabilities + share * p
            mean_entropy = mean_entropy + share * torch.special.entr(p).sum(dim=-1)
            total += share
    last.keep = None
    expected = torch.special.entr(mean_probabilities / total).sum(dim=-1) - mean_entropy / total
    found = epistemic(model, IDS, stage, words=model.config.vocab_size)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.0)


def test_one_word_has_no_rival_to_be_unsure_about() -> None:
    assert (epistemic(tiny_model(), IDS, words=1) < 1e-20).all()


def test_a_word_that_is_certain_leaves_nothing_to_be_unsure_of() -> None:
    model = tiny_model()
    residual = model.hidden_states(IDS)[-1]
    probabilities, directions = word_directions(residual, model.final_norm(), model.head_weight() * 1e6, 8)
    weights, values = torch.ones(*IDS.shape, 5).double(), torch.randn(5, residual.shape[-1]).double()
    assert (logit_variances(values, probabilities, directions / 1e6, weights) < 1e-12).all()
