"""Sequences of unequal lengths as batches that need no padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

BATCH_TOKENS = 2048


def batches(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Batches of sequences of equal length T, shortest first and without empty ones: their numbers [B] and ids,
    int64 [B, T]."""
    lengths = [len(ids) for ids in sequences]
    order = sorted((i for i, length in enumerate(lengths) if length), key=lengths.__getitem__)
    for length, group in groupby(order, key=lengths.__getitem__):
        numbers, size = list(group), max(BATCH_TOKENS // length, 1)
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            yield part, torch.tensor([sequences[i] for i in part])
