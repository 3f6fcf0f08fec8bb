"""Reports of a forward pass beside its hidden states: provenance, and the internals of every Pattention.

They are trailing columns of the hidden states, so that the runner picks exactly the rows that it samples. The columns
have the same meaning in every row: growth stages have fixed places, and the delta that a row may use has the last one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.internals import internals_columns
from model_impl.reference.internals import SUMS, internals_from_sums, row_sums
from model_impl.reference.row_operation import Columns, sum_over_ranks
from model_impl.variants import Selection, VariantTable
from model_impl.wire import ReportLevel


class Collector:
    """Collects from every `ParallelPattention` in turn: `PROJECTIONS` in order, layer after layer."""

    def __init__(self, level: ReportLevel, rows: int, layers: int, segments: int, device: torch.device) -> None:
        self.level = level
        shape = (segments,) if level == ReportLevel.PROVENANCE else (layers * len(PROJECTIONS), segments, SUMS)
        self.sums = torch.zeros(rows, *shape, dtype=torch.float64, device=device)
        self.x_squares: list[torch.Tensor] = []
        """For every projection ||x||^2 of its input, float64 [T]."""
        self.position = 0

    def room(self, projections: int) -> torch.Tensor:
        """The buffer for the next module's sums, float64. For provenance [T, segments], to which every projection adds
        w^2 ||v||^2; for internals [T, projections, segments, 7], to be filled with `row_sums`."""
        if self.level == ReportLevel.PROVENANCE:
            return self.sums
        self.position += projections
        return self.sums[:, self.position - projections : self.position]

    def add_input(self, x: torch.Tensor, projections: int) -> None:
        """Take the next module's input [T, d], for internals."""
        self.x_squares += [torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64).square()] * projections

    def add(self, scores: Columns, weights: Columns, value_squares: Sequence[Sequence[torch.Tensor]]) -> None:
        """Add the next module's sums. The arguments are, per projection and segment, this rank's scores and weights
        [T, share], and ||v||^2 of its tokens [share]."""
        room, rows = self.room(len(weights)), zip(scores, weights, value_squares, strict=True)
        if self.level == ReportLevel.PROVENANCE:
            parts = [[w.float().square() @ v for _, w, v in zip(*row, strict=True)] for row in rows]
            room += torch.stack([torch.stack(part, dim=-1) for part in parts]).sum(dim=0)
        else:
            parts = [[row_sums(*segment) for segment in zip(*row, strict=True)] for row in rows]
            room.copy_(torch.stack([torch.stack(part, dim=-2) for part in parts], dim=1))

    def columns(self, variants: VariantTable, selection: Selection) -> torch.Tensor:
        """Float32 [T, columns] of all ranks together: sum of w^2 ||v||^2 per place; for internals, then per layer and
        projection the statistics `INTERNALS` and that sum again, for this Pattention alone."""
        sums = sum_over_ranks(self.sums.float())
        if self.level == ReportLevel.PROVENANCE:
            return variants.places(sums)
        x_squares = torch.stack(self.x_squares, dim=1)
        if cpu_kernels.supports(sums):
            return internals_columns(sums, x_squares, variants, selection)
        layered = (-1, len(PROJECTIONS))
        sums, x_squares = sums.unflatten(1, layered), x_squares.unflatten(1, layered)  # [T, layers, 5, segments, sums]
        # Weights of segments that a row leaves out are 0; their scores are not.
        used = (selection.tau > 0).unsqueeze(1)  # [T or 1, 1, 5, segments]
        count = (used * variants.counts).sum(dim=-1)
        statistics = internals_from_sums(x_squares, count, sums.where(used.unsqueeze(-1), 0.0).sum(dim=-2))
        contributions = variants.places(sums[..., -1])
        parts = torch.cat([statistics, contributions], dim=-1)
        return torch.cat([contributions.sum(dim=(1, 2)), parts.flatten(1)], dim=-1).float()
