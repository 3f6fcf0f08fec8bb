"""Entropy, variance and margin of a next-token distribution, exact over the whole vocabulary.

H = -sum p ln p in nats and V = Var_p(-ln p) in nats^2 (varentropy), from the raw logits in float32.
"""

from __future__ import annotations

import torch

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.gpu import operators as kernels


def token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """Statistics of softmax(logits): [..., V] of any dtype -> float32 [..., 3], columns as in `wire.STATISTICS`."""
    if kernels.runs_on(logits.device):
        return kernels.token_statistics(logits)
    if cpu_kernels.supports(logits):
        return cpu_kernels.token_statistics(logits)
    return eager_token_statistics(logits)


def eager_token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """`token_statistics` in PyTorch.

    Any per-row shift of the logits gives the same result, so log-probabilities do as well. A logit of -inf has
    probability zero and contributes nothing. With z = logit - max and S_k = sum z^k e^z: ln p = z - ln S_0, so
    H = ln S_0 - S_1/S_0; the variance is taken around the mean S_1/S_0, where it cannot cancel or go negative.
    """
    top = logits.topk(min(2, logits.shape[-1]), dim=-1).values.float()
    # Below -104 float32 exp is 0 already; the clamp keeps -inf * 0 from becoming NaN.
    shifted = (logits.float() - top[..., :1]).clamp_min_(-200.0)
    mass = shifted.exp()
    total = mass.sum(dim=-1, keepdim=True)
    mean = (mass * shifted).sum(dim=-1, keepdim=True) / total
    variance = (mass * (shifted - mean).square_()).sum(dim=-1, keepdim=True) / total
    top_mass = (top - top[..., :1]).exp() / total  # [..., 2]; a one-word vocabulary has no second
    margin = top_mass[..., :1] - top_mass[..., 1:].sum(dim=-1, keepdim=True)
    # A one-hot distribution's entropy can round to a negative zero-ish value.
    return torch.cat([(total.log() - mean).clamp_min_(0.0), variance, margin], dim=-1)
