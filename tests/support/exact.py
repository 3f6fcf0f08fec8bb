"""The token statistics in float64, straight from their definitions."""

from __future__ import annotations

import torch


def exact_statistics(logits: torch.Tensor) -> torch.Tensor:
    """float64 [..., 3] of logits [..., V]: entropy, variance and margin, as
    `model_impl.kernels.statistics.STATISTICS`."""
    log_p = logits.double().log_softmax(-1)
    p = log_p.exp()
    surprise = torch.where(p > 0, -log_p, 0.0)  # 0 ln 0 = 0
    entropy = (p * surprise).sum(-1)
    variance = (p * (surprise - entropy[..., None]).square()).sum(-1)
    best = p.topk(min(2, p.shape[-1]), dim=-1).values
    margin = best[..., 0] - best[..., 1:].sum(-1)
    return torch.stack([entropy, variance, margin], dim=-1)
