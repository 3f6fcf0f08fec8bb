"""The row operation of one `ParallelPattention` by the kernels: as `model_impl.kernels.cpu.rows.RowKernel`, for
GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.operators import row_operation, segment_squares
from model_impl.variants import Selection


class SegmentedRows:
    """A change of segments needs a new one; everything that depends on values on the host is computed here."""

    def __init__(
        self,
        projections: Sequence[str],
        shares: Sequence[Sequence[int]],
        delta_shares: Sequence[Sequence[int]],
        activation: str,
        device: torch.device,
        sum_over_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`shares`: per projection, the tokens of each of the checkpoint's segments; `delta_shares`: of each delta.
        `sum_over_ranks` where there are several."""
        self.activation, self.sum_over_ranks = activation, sum_over_ranks
        self.first, self.own = PROJECTIONS.index(projections[0]), [sum(own) for own in shares]
        self.deltas = delta_shares
        self.layout = Layout.of([[*own, *deltas] for own, deltas in zip(shares, delta_shares, strict=True)], device)

    def __call__(
        self, scores: torch.Tensor, delta_scores: Sequence[Sequence[torch.Tensor]], selection: Selection
    ) -> list[list[torch.Tensor]]:
        """Scores of the checkpoint's tokens [T, W], all projections side by side, and per delta and projection [T, m]
        -> per projection the weights of its checkpoint's tokens [T, n], then of each delta's [T, m]; views."""
        projections = len(self.own)
        if delta_scores:
            beside = zip(scores.split(self.own, dim=-1), *delta_scores, strict=True)
            scores = torch.cat([part for own in beside for part in own], dim=-1)
        tau = selection.tau[:, self.first : self.first + projections]
        squares = None
        if self.sum_over_ranks is not None:
            squares = self.sum_over_ranks(segment_squares(scores, self.layout, self.activation))
        weights = row_operation(scores, self.layout, selection.coupling, tau, self.activation, squares)
        widths = [[width, *deltas] for width, deltas in zip(self.own, self.deltas, strict=True)]
        parts = iter(weights.split([width for own in widths for width in own], dim=-1))
        return [[next(parts) for _ in own] for own in widths]
