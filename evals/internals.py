"""Statistics of a Pattention for one input row: how well the keys match it, and how its weights are spread.

By themselves they say nothing about whether an answer is right, so the server does not compute them.
"""

from __future__ import annotations

import torch

from model_impl.config import PROJECTIONS
from model_impl.reference.model import ReferenceTokenformer
from model_impl.reference.watch import Seen, watching

INTERNALS = ("score_norm", "kurtosis", "participation", "positive_share")
"""Columns of `row_internals`."""


def row_internals(x: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Input x [..., d], scores s = x K^T and weights w [..., n] -> float64 [..., 4], columns as in `INTERNALS`:

    - score_norm: ln(||s|| / ||x||), which the L2 norms divide away: how much of the input the keys see at all;
    - kurtosis: m4 / m2^2 of the weights, with m_k the mean of (w - mean w)^k (Pearson's; 3 for a normal distribution);
    - participation: (sum w^2)^2 / (n sum w^4), the participation ratio of w^2 as a share of n: 1 if all tokens weigh
      alike, 1/n if a single one does it all;
    - positive_share: the share of the weights that are above 0.

    NaN or -inf where a statistic is not defined: x, s or w all zero, or all weights equal.
    """
    x, scores, weights = x.double(), scores.double(), weights.double()
    score_norm = scores.norm(dim=-1).log() - x.norm(dim=-1).log()
    centred = weights - weights.mean(dim=-1, keepdim=True)
    kurtosis = centred.pow(4).mean(dim=-1) / centred.square().mean(dim=-1).square()
    squares = weights.square()
    participation = squares.mean(dim=-1).square() / squares.square().mean(dim=-1)
    positive_share = (weights > 0).double().mean(dim=-1)
    return torch.stack([score_norm, kurtosis, participation, positive_share], dim=-1)


def stage_sums(seen: Seen) -> torch.Tensor:
    """The contributions in one Pattention, summed over the tokens of each growth stage: [..., stages]."""
    return torch.stack([part.sum(dim=-1) for part in seen.by_stage(seen.contributions)], dim=-1)


@torch.no_grad()
def internals(model: ReferenceTokenformer, input_ids: torch.Tensor, stage: int = -1) -> torch.Tensor:
    """input_ids [B, T] -> float64 [B, T, layers, 5, 4 + stages]: of every position, layer and projection (as in
    `PROJECTIONS`) the four `INTERNALS`, and sum of w_i^2 ||v_i||^2 over the parameter tokens of each growth stage."""
    found: list[torch.Tensor] = []

    def note(seen: Seen) -> None:
        found.append(torch.cat([row_internals(seen.x, seen.scores, seen.weights), stage_sums(seen).double()], dim=-1))

    with watching(model, note):
        model(input_ids, stage)
    rows = torch.stack(found, dim=2)
    return rows.view(*rows.shape[:2], -1, len(PROJECTIONS), rows.shape[-1])
