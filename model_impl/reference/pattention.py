"""Pattention: attention over learnable parameter tokens, in place of a linear layer.

Source: Wang et al., "TokenFormer: Rethinking Transformer Scaling with Tokenized Model Parameters" (2024), section 3.2,
and the official implementation for the exact order of normalisation and activation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from model_impl.config import NormGroup


def pattention(
    x: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    groups: Sequence[NormGroup],
    activation: str,
    keep: torch.Tensor | None = None,
) -> torch.Tensor:
    """y = act(x K^T) V with every normalisation group activated on its own.

    x [..., d], keys [n, d], values [n, d] -> [..., d]. Only the tokens that `groups` cover take part, so the groups
    of an earlier growth stage give that stage's output from the same tensors. `keep` bool [..., n]: the other tokens'
    weights become zero, which changes neither norms nor tau (`model_impl.reference.ensemble`).
    """
    used = groups[-1].stop
    weights = token_weights(F.linear(x, keys[:used]), groups, activation)
    return (weights if keep is None else weights * keep[..., :used]) @ values[:used]


def token_weights(scores: torch.Tensor, groups: Sequence[NormGroup], activation: str) -> torch.Tensor:
    """Weights w of the parameter tokens from their scores s = x K^T (no 1/sqrt(d)); both are [..., n]."""
    parts = [activate(scores[..., group.start : group.stop], group.tau, activation) for group in groups]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def activate(scores: torch.Tensor, tau: float, activation: str) -> torch.Tensor:
    """One group's weights, [..., n]: the three values of the official `norm_activation_type`.

    `l2_norm_gelu`: GELU(s / ||s|| tau), exact (erf) GELU; `gelu_l2_norm`: g / ||g|| tau with g = GELU(s);
    `softmax`: softmax(s) tau^2, which is the official softmax(s) n for tau = sqrt(n). A row of zero scores, where
    the official code divides zero by zero, has zero weights.
    """
    if activation == "l2_norm_gelu":
        return F.gelu(scores * (tau * inverse_norm(scores)))
    if activation == "gelu_l2_norm":
        gelu = F.gelu(scores)
        return gelu * (tau * inverse_norm(gelu))
    return torch.softmax(scores, dim=-1) * tau**2


def inverse_norm(rows: torch.Tensor) -> torch.Tensor:
    """1 / ||row||_2 of [..., n] as [..., 1], finite for a row of zeros."""
    wide = rows.float() if rows.dtype == torch.float16 else rows  # whose squares end at 65,504
    squares = wide.square().sum(dim=-1, keepdim=True)
    return torch.rsqrt(squares.clamp_min(torch.finfo(rows.dtype).tiny)).to(rows.dtype)
