"""Direct logit attribution to growth stages."""

from __future__ import annotations

import torch
from torch import nn

from model_impl.checkpoint.grow import new_stage
from model_impl.reference.attribution import added_by_stage, attribution, contrast, logit_parts, rivals
from model_impl.reference.model import ReferenceTokenformer
from tests.support.tiny import TOKENS, tiny_config, tiny_weights

IDS = torch.tensor([[1, 5, 2, 9, 3, 3], [4, 0, 8, 7, 6, 10]])


def grown() -> ReferenceTokenformer:
    config = tiny_config()
    config = config.with_stages([*config.stages, new_stage(config, TOKENS, None, "grouped", "random")])
    model = ReferenceTokenformer(config)
    model.load_state_dict(tiny_weights(config))
    return model.eval().requires_grad_(False)


def test_the_parts_of_the_stages_and_of_the_embedding_add_up_to_the_logits() -> None:
    model = grown()
    added, residual = added_by_stage(model, IDS)
    embedded = model.embedding()(IDS)
    torch.testing.assert_close(added.sum(dim=-2) + embedded, residual)
    norm, head = model.final_norm(), model.head_weight()
    direction = head[7].expand_as(residual)
    parts = logit_parts(torch.cat([added, embedded[..., None, :]], dim=-2), residual, direction, norm.weight, norm.eps)
    torch.testing.assert_close(parts.sum(dim=-1) + norm.bias @ head[7], model(IDS)[..., 7], atol=1e-4, rtol=1e-4)


def test_an_earlier_stage_has_no_part_of_a_later_one() -> None:
    assert attribution(grown(), IDS, IDS, stage=0).shape == (2, 6, 1)
    assert attribution(grown(), IDS, IDS).shape == (2, 6, 2)


def test_contrast_takes_the_rivals_mean_off() -> None:
    norm, head = nn.LayerNorm(3), torch.eye(3)
    residual, logits = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([3.0, 2.0, 1.0])
    added = torch.tensor([[1.0, 2.0, 6.0], [0.5, 0.0, -1.0]])
    found = contrast(added, residual, logits, torch.tensor(2), norm, head)
    torch.testing.assert_close(found, torch.tensor([4.5, -1.25]) / (2 / 3 + norm.eps) ** 0.5)


def test_rivals_are_the_likeliest_other_tokens() -> None:
    ranked = torch.arange(30).expand(2, 30)
    found = rivals(ranked, torch.tensor([3, 99]))
    assert found[0].nonzero().flatten().tolist() == [0, 1, 2, *range(4, 11)]
    assert found[1].nonzero().flatten().tolist() == [*range(10)]
