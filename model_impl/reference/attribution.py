"""Direct logit attribution (Elhage et al. 2021) to growth stages: which stage answered.

The residual stream is the embedding plus the layers' outputs, and the output of an output projection or feed-forward is
a sum over parameter tokens, sum_i w_i v_i. So the logit of a token, read through the final norm with its scale held
fixed, splits into the parts of the stages and the embedding's part, which is left out. It measures the direction in
which a stage pushes, where w_i^2 ||v_i||^2 measures the strength alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from model_impl.config import READING_OUT
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

RIVALS = 10
"""The number of likeliest other tokens that a logit is compared with: sensible tokens share most of their logits."""


@torch.no_grad()
def attribution(
    model: ReferenceTokenformer, input_ids: torch.Tensor, chosen: torch.Tensor, stage: int = -1
) -> torch.Tensor:
    """What each growth stage adds to the logit of the token `chosen` [B, T] after every position of input_ids [B, T],
    less what it adds to the mean of its RIVALS: [B, T, stages], nats."""
    added, residual = added_by_stage(model, input_ids, stage)
    norm, head = model.final_norm(), model.head_weight()
    return contrast(added, residual, F.linear(norm(residual), head), chosen, norm, head)


def added_by_stage(
    model: ReferenceTokenformer, input_ids: torch.Tensor, stage: int = -1
) -> tuple[torch.Tensor, torch.Tensor]:
    """What each stage's tokens add to the residual stream [B, T, stages, d], and its last state [B, T, d]."""
    found: list[torch.Tensor] = []

    def note(seen: Seen) -> None:
        parts = zip(seen.by_stage(seen.weights), seen.by_stage(seen.values, dim=0), strict=True)
        found.append(torch.stack([weights @ values for weights, values in parts], dim=-2))

    with watching(model, note, READING_OUT):
        residual = model.hidden_states(input_ids, stage)[-1]
    return torch.stack(found).sum(dim=0), residual


def contrast(
    added: torch.Tensor,
    residual: torch.Tensor,
    logits: torch.Tensor,
    chosen: torch.Tensor,
    norm: nn.LayerNorm,
    head: torch.Tensor,
) -> torch.Tensor:
    """The part of every stage in the logit of `chosen` [...], less its mean part in those of the RIVALS.

    added [..., stages, d], residual [..., d], logits [..., V] of the whole model, head [V, d] -> [..., stages].
    """
    ranked = logits.topk(min(RIVALS + 1, logits.shape[-1]), dim=-1).indices
    rival = rivals(ranked, chosen).to(head.dtype)
    count = rival.sum(dim=-1, keepdim=True).clamp_min(1)  # a vocabulary of one word has no rivals
    direction = head[chosen] - (rival[..., None] * head[ranked]).sum(dim=-2) / count
    return logit_parts(added, residual, direction, norm.weight, norm.eps)


def rivals(ranked: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Which of the tokens `ranked` [..., k], likeliest first, are the RIVALS of `chosen` [...]: bool [..., k]."""
    others = ranked != chosen[..., None]
    return others & (others.cumsum(dim=-1) <= RIVALS)


def logit_parts(
    added: torch.Tensor, residual: torch.Tensor, direction: torch.Tensor, weight: torch.Tensor, eps: float
) -> torch.Tensor:
    """What parts of the residual stream add to a logit, or a difference of logits: added [..., S, d], residual [..., d]
    and `direction` [..., d] in the head's space -> [..., S]. `weight` [d] and `eps` are the final norm's."""
    scale = (residual.var(dim=-1, correction=0, keepdim=True) + eps).rsqrt()
    centred = added - added.mean(dim=-1, keepdim=True)
    return scale * (centred @ (weight * direction)[..., None]).squeeze(-1)
