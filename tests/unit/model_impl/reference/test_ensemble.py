"""The parameter-token ensemble of the reference model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from model_impl.checkpoint.grow import new_stage
from model_impl.config import PROJECTIONS, ConfigError, GrowthStage
from model_impl.reference.ensemble import decompose, ensemble_uncertainty, masked, token_mask
from model_impl.reference.model import Pattention, ReferenceTokenformer
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

IDS = torch.tensor([[1, 5, 2, 9, 3, 3], [4, 0, 8, 7, 6, 10]])


def tiny_model(rate: float = 0.3) -> ReferenceTokenformer:
    config = tiny_config(ensemble_rate=rate)
    config = config.with_stages([*config.stages, new_stage(config, TOKENS, None, "grouped", "random")])
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    return model.eval().requires_grad_(False)


def test_a_mask_leaves_out_about_the_rate_and_differs_by_member_layer_and_projection() -> None:
    places = [(0, 0, "ffn"), (1, 0, "ffn"), (0, 1, "ffn"), (0, 0, "query")]
    masks = [token_mask(*place, [4000, 1000], 0.03) for place in places]
    assert all(0.02 < 1 - mask.float().mean() < 0.04 for mask in masks)
    dropped = [set(torch.where(~mask)[0].tolist()) for mask in masks]
    assert all(len(a & b) < 20 for i, a in enumerate(dropped) for b in dropped[:i])  # 4.5 by chance


def test_a_mask_is_fixed_for_ever() -> None:
    assert torch.where(~token_mask(3, 1, "value", [128, 32], 0.03))[0].tolist() == [14, 26, 41, 115, 150]


def test_the_mask_of_a_stage_does_not_depend_on_later_stages() -> None:
    alone, grown = token_mask(5, 0, "key", [100], 0.2), token_mask(5, 0, "key", [100, 50], 0.2)
    assert torch.equal(alone, grown[:100])
    assert not torch.equal(grown[100:], grown[:50])


@pytest.mark.parametrize("stage", [0, -1])
def test_a_member_lacks_what_its_masked_tokens_added(stage: int) -> None:
    """y - y_member = sum of w_i v_i over the masked tokens: norms and tau stay."""
    model, x = tiny_model(), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    layer = next(m for m in model.modules() if isinstance(m, Pattention) and m.projection == "ffn")
    counts = [step.tokens["ffn"] for step in model.config.stages]
    keep = token_mask(2, 0, "ffn", counts, model.config.ensemble_rate)
    groups = model.config.norm_groups("ffn", stage)
    scores = (x @ layer.key_param_tokens.T)[:, : groups[-1].stop].numpy()
    missing = np.zeros((3, 8))
    for group in groups:
        part = scores[:, group.start : group.stop]
        for i in range(group.start, group.stop):
            z = scores[:, i] / np.linalg.norm(part, axis=1) * group.tau
            gelu = torch.nn.functional.gelu(torch.tensor(z)).numpy()
            if not keep[i]:
                missing += gelu[:, None] * layer.value_param_tokens[i].numpy()
    whole = layer(x, stage)
    with masked(model, 2, torch.ones(3, dtype=torch.bool)):
        member = layer(x, stage)
    assert np.abs(missing).max() > 0.1
    np.testing.assert_allclose((whole - member).numpy(), missing, atol=1e-5)
    assert torch.equal(layer(x, stage), whole)


def test_members_differ_from_the_prompts_last_position_on() -> None:
    model, prompt = tiny_model(), 4
    whole = model(IDS)
    with masked(model, 0, torch.arange(IDS.shape[1]) >= prompt - 1):
        member = model(IDS)
    torch.testing.assert_close(member[:, : prompt - 1], whole[:, : prompt - 1])
    assert ((member - whole)[:, prompt - 1 :].abs().amax(dim=-1) > 1e-3).all()


def test_uncertainty_is_the_mutual_information_of_token_and_member() -> None:
    model, members, prompt = tiny_model(), 5, 3
    each = []
    for member in range(members):
        with masked(model, member, torch.tensor([False, False, True, True, True, True])):
            each.append(model(IDS)[:, prompt - 1 : -1].double().softmax(dim=-1).numpy())
    total = entropy(np.mean(each, axis=0), axis=-1)
    aleatoric = np.mean([entropy(p, axis=-1) for p in each], axis=0)
    found = ensemble_uncertainty(model, IDS, prompt, members).numpy()
    assert found.shape == (2, 3, 2)
    assert (total - aleatoric).max() > 0.01
    np.testing.assert_allclose(found[..., 0], total - aleatoric, atol=1e-5)
    np.testing.assert_allclose(found[..., 1], aleatoric, atol=1e-5)


def test_only_the_chosen_projections_are_masked() -> None:
    model = tiny_model()
    found = []
    for projections in (None, ["query", "ffn"]):
        with masked(model, 0, torch.ones(6, dtype=torch.bool), projections=projections):
            found.append({m.projection for m in model.modules() if isinstance(m, Pattention) and m.keep is not None})
    assert found == [{"output", "ffn"}, {"query", "ffn"}]


def test_members_that_agree_have_no_epistemic_part() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25, 0.0]])
    found = decompose(p, torch.special.entr(p).sum(-1))
    assert found[0, 0] == 0
    assert found[0, 1] == pytest.approx(1.5 * np.log(2))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.5])
def test_the_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ConfigError, match="ensemble_rate"):
        tiny_config(ensemble_rate=rate)


@pytest.mark.parametrize("projections", [[], ["ffn", "mlp"]])
def test_the_masked_projections_exist(projections: list[str]) -> None:
    with pytest.raises(ConfigError, match="ensemble_projections"):
        tiny_config(ensemble_projections=projections)


def test_every_projection_can_be_masked() -> None:
    stage = GrowthStage("base", dict.fromkeys(PROJECTIONS, 2000))
    for projection in PROJECTIONS:
        assert not token_mask(0, 0, projection, [stage.tokens[projection]], 0.03).all()
