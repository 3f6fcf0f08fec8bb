"""Scores, variants and parameter tokens for the tests of kernels, and their results by the plain formulas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_impl.reference.pattention import activate

Counts = Sequence[Sequence[int]]

ACTIVATIONS = ("l2_norm_gelu", "gelu_l2_norm")
ONE, STAGES = [[40]], [[13, 5, 20], [48, 16, 0]]
"""Parameter tokens per projection and segment: one model; two projections of three growth stages."""

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def groups_of(rows: int, segments: int) -> list[list[list[int]]]:
    """For each row, which segments share a norm: all, each its own, or all but the last, which the row leaves out."""
    kinds = [
        [list(range(segments))],
        [[s] for s in range(segments)],
        [list(range(segments - 1))] if segments > 1 else [[0]],
    ]
    return [kinds[row % len(kinds)] for row in range(rows)]


def selection_of(groups: list[list[list[int]]], counts: Counts) -> tuple[torch.Tensor, torch.Tensor]:
    """coupling [T, S, S] and tau [T, P, S], as `model_impl.variants` makes them."""
    segments = len(counts[0])
    coupling, tau = torch.zeros(len(groups), segments, segments), torch.zeros(len(groups), len(counts), segments)
    for row, own in enumerate(groups):
        for group in own:
            for s in group:
                coupling[row, s, group] = 1.0
                for p in range(len(counts)):
                    tau[row, p, s] = sum(counts[p][i] for i in group) ** 0.5
    return coupling, tau


def expected_weights(scores: torch.Tensor, groups: list[list[list[int]]], counts: Counts, name: str) -> torch.Tensor:
    """In float64, group by group from the formula of `model_impl.reference.pattention`."""
    weights, start = torch.zeros_like(scores, dtype=torch.float64), 0
    for own in counts:
        places, columns = [], start
        for count in own:
            places.append(range(columns, columns + count))
            columns += count
        for row, chosen in enumerate(groups):
            for group in chosen:
                index = [column for s in group for column in places[s]]
                tau = sum(own[s] for s in group) ** 0.5
                weights[row, index] = activate(scores[row, index].double(), tau, name)
        start = columns
    return weights
