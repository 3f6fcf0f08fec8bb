"""The likeliest words of a next-token distribution."""

from __future__ import annotations

from typing import NamedTuple

import torch

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.report import likeliest_words
from model_impl.reference.closed_form import WORDS


class Words(NamedTuple):
    """The k likeliest words of some rows, likeliest first."""

    logits: torch.Tensor
    """Float32 [N, k], up to a constant per row."""
    ids: torch.Tensor
    """Int64 [N, k]."""


def likeliest(logits: torch.Tensor) -> Words:
    """logits or log-probabilities [N, V] -> `WORDS` words, or all where there are fewer."""
    count = min(WORDS, logits.shape[-1])
    if cpu_kernels.supports(logits):
        return Words(*likeliest_words(logits, count))
    found = logits.topk(count, dim=-1)
    return Words(found.values.float(), found.indices)
