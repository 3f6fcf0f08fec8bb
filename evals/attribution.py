"""Direct logit attribution (Elhage et al. 2021) to growth stages: another measure of which stage answered.

The residual stream is the sum of the layers' outputs, and the output of an output projection or feed-forward is a sum
over parameter tokens, sum_i w_i v_i. So the logit of a token, read through the final norm with its scale held fixed,
splits into the parts of the stages and the embedding's part, which is left out. Unlike w_i^2 ||v_i||^2, it measures the
direction in which a stage pushes, not the strength.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model_impl.config import READING_OUT
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

RIVALS = 10
"""The number of likeliest other tokens that a logit is compared with: sensible tokens share most of their logits."""


@torch.no_grad()
def logit_parts(
    model: ReferenceTokenformer, ids: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> torch.Tensor:
    """Each stage's part of all logits, at positions (rows, columns) of ids [B, T]: float32 [N, stages, V]."""
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
    """The part that each stage adds to the logit of `token`, less the mean of its RIVALS.

    parts [stages, V], logits [V] of the whole model -> [stages].
    """
    ranked = logits.topk(min(RIVALS + 1, len(logits))).indices.tolist()
    rivals = [rival for rival in ranked if rival != token][:RIVALS]
    return parts[:, token] - parts[:, rivals].mean(dim=-1)
