"""How much each growth stage writes of a token's logit, directly: another measure of which stage answered.

The residual stream is a sum of what layers add to it, and what an output projection or feed-forward adds is a sum over
parameter tokens, sum_i w_i v_i. So the logit of a token, read through the final norm with its scale held fixed, splits
into the parts of the stages, the embedding's part aside (direct logit attribution, Elhage et al. 2021). Unlike
w_i^2 ||v_i||^2 it asks in which direction a stage pushes, not how hard.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model_impl.config import READING_OUT
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

RIVALS = 10
"""Likeliest other tokens that a token's logit is compared with: most of a logit is common to all sensible tokens."""


@torch.no_grad()
def logit_parts(
    model: ReferenceTokenformer, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """What each stage adds to all logits at positions (rows, columns) of ids [B, T]: float32 [N, stages, V]."""
    added = torch.zeros(len(rows), len(model.config.stages), model.config.hidden_size)

    def note(seen: Seen) -> None:
        parts = zip(seen.by_stage(seen.weights[rows, columns]), seen.by_stage(seen.values, dim=0), strict=True)
        for stage, (weights, values) in enumerate(parts):
            added[:, stage] += weights @ values

    with watching(model, note, READING_OUT):
        final = model.hidden_states(ids)[-1][rows, columns]
    norm = model.get_submodule(f"sequential.{model.config.num_hidden_layers + 3}.norm")
    scale = (final.var(dim=-1, correction=0) + model.config.layer_norm_eps).rsqrt()[:, None, None]
    normed = (added - added.mean(dim=-1, keepdim=True)) * scale * norm.get_parameter("weight")
    return F.linear(normed, model.embedding().weight[: model.config.vocab_size])


def contrast(parts: torch.Tensor, logits: torch.Tensor, token: int) -> torch.Tensor:
    """What each stage adds to the logit of `token` above the mean of its RIVALS: parts [stages, V], logits [V] of the
    whole model -> [stages]."""
    ranked = logits.topk(min(RIVALS + 1, len(logits))).indices.tolist()
    rivals = [rival for rival in ranked if rival != token][:RIVALS]
    return parts[:, token] - parts[:, rivals].mean(dim=-1)
