"""The row operation, between the two GEMMs of a Pattention: segments, masks, norms and activation of a row of scores.

Scores come in segments (see `model_impl.variants`), and under tensor parallelism every rank holds a share of every
segment. The formulas are those of `model_impl.reference.pattention.activate`, for every row with the segments it uses.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)

from model_impl.variants import Selection

Columns = Sequence[Sequence[torch.Tensor]]
"""Per projection, per segment: this rank's columns [T, share]."""

TINY = torch.finfo(torch.float32).tiny


class TokenShard:
    """The parameter tokens of one projection that this tensor-parallel rank holds, and their places.

    `counts` are the tokens per segment. Every segment is split evenly over the ranks, filled up with zero tokens
    where it does not divide, so a segment is one run of `shares[i]` columns on every rank.
    """

    def __init__(self, counts: Sequence[int], rank: int, size: int) -> None:
        self.size = size
        self.counts = tuple(counts)
        self.token_count = sum(counts)
        self.shares = [-(-count // size) for count in counts]
        self.local_count = sum(self.shares)
        self.padded_count = self.local_count * size
        order: list[int] = []
        for owner in range(size):
            start = 0
            for count, share in zip(counts, self.shares, strict=True):
                own = range(owner * share, (owner + 1) * share)
                order += [start + i if i < count else self.token_count for i in own]
                start += count
        # On the CPU, where checkpoints are read: vLLM builds models with the GPU as the default device.
        self.order = torch.tensor(order, dtype=torch.int64, device="cpu")
        self.local = self.order[rank * self.local_count : (rank + 1) * self.local_count]
        self.is_padding = self.local == self.token_count

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        """Official order [n, d] -> the ranks' shares one after the other [padded_count, d]."""
        return tokens if self.size == 1 else with_zero_row(tokens)[self.order]

    def own(self, tokens: torch.Tensor) -> torch.Tensor:
        """Official order [n, d] -> this rank's share [local_count, d]."""
        return tokens if self.size == 1 else with_zero_row(tokens)[self.local]


def with_zero_row(tokens: torch.Tensor) -> torch.Tensor:
    return torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])


def token_weights(
    columns: Columns, selection: Selection, activation: str, padding: Columns
) -> list[list[torch.Tensor]]:
    """Weights of this rank's tokens, for several projections with one exchange of row statistics between ranks.

    The weights have the shapes and the dtype of `columns`; row statistics are float32. `selection.tau` holds just
    these projections. `padding`: bool per column, true where a zero token only fills up this rank's share.
    """
    if activation == "softmax":
        weights = _softmax(columns, selection, padding)
    else:
        before = activation == "gelu_l2_norm"
        rows = [[F.gelu(column.float()) if before else column for column in row] for row in columns]
        norms = [torch.linalg.vector_norm(c, dim=-1, keepdim=True, dtype=torch.float32) for row in rows for c in row]
        squares = _shape(sum_over_ranks(torch.cat(norms, dim=-1).square_()), columns)
        scales = _share(squares, selection).clamp_min_(TINY).rsqrt_() * selection.tau
        scaled = _scale(rows, scales)
        weights = scaled if before else [[F.gelu(column) for column in row] for row in scaled]
    return [
        [weight.to(column.dtype) for weight, column in zip(*pair, strict=True)]
        for pair in zip(weights, columns, strict=True)
    ]


def _softmax(columns: Columns, selection: Selection, padding: Columns) -> list[list[torch.Tensor]]:
    """softmax(s) tau^2 over the segments of each group, with the group's maximum subtracted: it cannot overflow."""
    rows = [
        [column.float().masked_fill(fill, -torch.inf) for column, fill in zip(*pair, strict=True)]
        for pair in zip(columns, padding, strict=True)
    ]
    lowest = rows[0][0].new_full((len(rows[0][0]), 1), -torch.inf)  # where a segment has no tokens here
    tops = torch.cat([c.amax(dim=-1, keepdim=True) if c.shape[-1] else lowest for row in rows for c in row], dim=-1)
    size = get_tensor_model_parallel_world_size()
    if size > 1:
        tops = tensor_model_parallel_all_gather(tops).view(len(tops), size, -1).amax(dim=1)
    tops = _shape(tops, columns)
    # [T, P, S, S]: every segment's maximum as seen by every segment of its group; itself where it is left out
    shared = selection.coupling.bool() | torch.eye(tops.shape[-1], dtype=torch.bool, device=tops.device)
    tops = torch.where(shared.unsqueeze(1), tops.unsqueeze(-1), -torch.inf).amax(dim=-2)
    masses = [[(c - top).exp_() for c, top in _with_scale(row, tops[:, p])] for p, row in enumerate(rows)]
    totals = torch.cat([mass.sum(dim=-1, keepdim=True) for row in masses for mass in row], dim=-1)
    totals = _shape(sum_over_ranks(totals), columns)
    return _scale(masses, selection.tau.square() / _share(totals, selection).clamp_min_(TINY))


def _shape(statistics: torch.Tensor, columns: Columns) -> torch.Tensor:
    """[T, P S] -> [T, P, S]."""
    return statistics.view(len(statistics), len(columns), len(columns[0]))


def _share(sums: torch.Tensor, selection: Selection) -> torch.Tensor:
    """Sums over each segment [T, P, S] -> sums over the segment's normalisation group, [T, P, S]."""
    return sums if sums.shape[-1] == 1 else sums @ selection.coupling


def _scale(rows: Columns, scales: torch.Tensor) -> list[list[torch.Tensor]]:
    return [[column * scale for column, scale in _with_scale(row, scales[:, p])] for p, row in enumerate(rows)]


def _with_scale(row: Sequence[torch.Tensor], scales: torch.Tensor) -> zip[tuple[torch.Tensor, torch.Tensor]]:
    """Each segment's columns with its column of scales [T, 1]."""
    return zip(row, scales.split(1, dim=-1), strict=True)


def sum_over_ranks(shares: torch.Tensor) -> torch.Tensor:
    return tensor_model_parallel_all_reduce(shares) if get_tensor_model_parallel_world_size() > 1 else shares
