"""What happens to a row of scores between the two GEMMs of a Pattention, when its tokens are sharded over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)

from model_impl.config import NormGroup, TokenformerConfig


class TokenShard:
    """Which parameter tokens of one projection this tensor-parallel rank holds, and where.

    Every growth stage is split evenly over the ranks, filled up with zero tokens where it does not divide, so a
    stage is one run of columns on every rank. `groups` are the normalisation groups in local columns.
    """

    def __init__(self, config: TokenformerConfig, projection: str, rank: int, size: int) -> None:
        counts = [stage.tokens[projection] for stage in config.stages]
        shares = [-(-count // size) for count in counts]
        self.size = size
        self.token_count = sum(counts)
        self.local_count = sum(shares)
        self.padded_count = self.local_count * size
        order: list[int] = []
        for owner in range(size):
            start = 0
            for count, share in zip(counts, shares, strict=True):
                own = range(owner * share, (owner + 1) * share)
                order += [start + i if i < count else self.token_count for i in own]
                start += count
        self.order = torch.tensor(order)
        local = self.order[rank * self.local_count : (rank + 1) * self.local_count]
        self.padding = local == self.token_count if self.padded_count > self.token_count else None
        self.groups = [
            NormGroup(
                start=sum(shares[: self._stage_at(counts, group.start)]),
                stop=sum(shares[: self._stage_at(counts, group.stop)]),
                tau=group.tau,
            )
            for group in config.norm_groups(projection)
        ]

    @staticmethod
    def _stage_at(counts: Sequence[int], token: int) -> int:
        """Number of stages whose tokens all lie before `token`."""
        return next(i for i in range(len(counts) + 1) if sum(counts[:i]) >= token)

    def arrange(self, tokens: torch.Tensor) -> torch.Tensor:
        """Official order [n, d] -> the ranks' shares one after the other [padded_count, d]."""
        if self.size == 1:
            return tokens
        padded = torch.cat([tokens, tokens.new_zeros(1, tokens.shape[1])])
        return padded[self.order]


def token_weights(scores: Sequence[torch.Tensor], shards: Sequence[TokenShard], activation: str) -> list[torch.Tensor]:
    """Weights of this rank's tokens, for several projections with one exchange of row statistics between ranks.

    scores: per projection [T, local_count]; the weights have the same shapes and dtype. Row statistics are float32.
    The formulas are those of `model_impl.pattention.activate`.
    """
    runs = [(i, group) for i, shard in enumerate(shards) for group in shard.groups]
    columns = [scores[i][:, group.start : group.stop] for i, group in runs]
    if activation == "softmax":
        weights = _softmax(columns, [shards[i].padding for i, _ in runs], [group for _, group in runs])
    else:
        rows = columns if activation == "l2_norm_gelu" else [F.gelu(column.float()) for column in columns]
        norms = [torch.linalg.vector_norm(row, dim=-1, keepdim=True, dtype=torch.float32) for row in rows]
        squares = _sum_over_ranks(torch.cat(norms, dim=-1).square_())
        scales = squares.clamp_min_(torch.finfo(torch.float32).tiny).rsqrt_()
        scales *= scales.new_tensor([group.tau for _, group in runs])
        scaled = [row * scale for row, scale in zip(rows, scales.split(1, dim=-1), strict=True)]
        weights = [F.gelu(row) for row in scaled] if activation == "l2_norm_gelu" else scaled
    return [
        torch.cat([w for (j, _), w in zip(runs, weights, strict=True) if j == i], dim=-1).to(score.dtype)
        for i, score in enumerate(scores)
    ]


def _softmax(
    columns: Sequence[torch.Tensor], paddings: Sequence[torch.Tensor | None], groups: Sequence[NormGroup]
) -> list[torch.Tensor]:
    """softmax(s) tau^2 per group with the maximum subtracted: it cannot overflow."""
    rows = [
        column.float()
        if padding is None
        else column.float().masked_fill(padding[group.start : group.stop].to(column.device), -torch.inf)
        for column, padding, group in zip(columns, paddings, groups, strict=True)
    ]
    tops = torch.cat([row.amax(dim=-1, keepdim=True) for row in rows], dim=-1)  # [T, groups]
    size = get_tensor_model_parallel_world_size()
    if size > 1:
        tops = tensor_model_parallel_all_gather(tops).view(len(tops), size, -1).amax(dim=1)
    masses = [(row - top).exp_() for row, top in zip(rows, tops.split(1, dim=-1), strict=True)]
    totals = _sum_over_ranks(torch.cat([mass.sum(dim=-1, keepdim=True) for mass in masses], dim=-1))
    scales = totals.new_tensor([group.tau**2 for group in groups]) / totals
    return [mass * scale for mass, scale in zip(masses, scales.split(1, dim=-1), strict=True)]


def _sum_over_ranks(statistics: torch.Tensor) -> torch.Tensor:
    return tensor_model_parallel_all_reduce(statistics) if get_tensor_model_parallel_world_size() > 1 else statistics
