"""The row operation of one `ParallelPattention` by the kernels: as `model_impl.kernels.cpu.rows.RowKernel`, for
GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.operators import row_operation, segment_squares
from model_impl.reference.internals import SUMS
from model_impl.variants import Selection

if TYPE_CHECKING:  # it imports vLLM, which must not see the Triton of the kernels' tests
    from model_impl.kernels.collector import Collector


class SegmentedRows:
    """A change of segments needs a new one; everything that depends on values on the host is computed here."""

    def __init__(
        self,
        projections: Sequence[str],
        shares: Sequence[Sequence[int]],
        value_squares: Sequence[Sequence[torch.Tensor]],
        activation: str,
        sum_over_ranks: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`shares`: per projection, the tokens of each of the checkpoint's segments. `value_squares`: ||v||^2 per
        projection and segment, float32 [share], in which the segments of deltas follow. `sum_over_ranks` where there
        are several."""
        self.activation, self.sum_over_ranks = activation, sum_over_ranks
        self.first, self.own = PROJECTIONS.index(projections[0]), [sum(own) for own in shares]
        counts = [[len(squares) for squares in own] for own in value_squares]
        self.deltas = [own[len(shares[0]) :] for own in counts]
        self.value_squares = torch.cat([squares for own in value_squares for squares in own])
        self.layout = Layout.of(counts, self.value_squares.device)

    def __call__(
        self,
        scores: torch.Tensor,
        delta_scores: Sequence[Sequence[torch.Tensor]],
        selection: Selection,
        collector: Collector | None,
    ) -> list[list[torch.Tensor]]:
        """Scores of the checkpoint's tokens [T, W], all projections side by side, and per delta and projection [T, m]
        -> per projection the weights of its checkpoint's tokens [T, n], then of each delta's [T, m]; views.

        `collector` gets the sums that it wants.
        """
        projections = len(self.own)
        if delta_scores:
            beside = zip(scores.split(self.own, dim=-1), *delta_scores, strict=True)
            scores = torch.cat([part for own in beside for part in own], dim=-1)
        tau = selection.tau[:, self.first : self.first + projections]
        squares = None
        if self.sum_over_ranks is not None:
            squares = self.sum_over_ranks(segment_squares(scores, self.layout, self.activation))
        columns = 0 if collector is None else (0, 1, SUMS)[collector.level]
        weights, sums = row_operation(
            scores, self.layout, selection.coupling, tau, self.activation, squares, self.value_squares, columns
        )
        if collector is not None:
            room = collector.room(projections)
            if columns == 1:
                room += sums.sum(dim=1).squeeze(-1)
            else:
                room.copy_(sums)
        widths = [[width, *deltas] for width, deltas in zip(self.own, self.deltas, strict=True)]
        parts = iter(weights.split([width for own in widths for width in own], dim=-1))
        return [[next(parts) for _ in own] for own in widths]
