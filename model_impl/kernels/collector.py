"""What a forward pass reports beside its hidden states: provenance, and the internals of every Pattention.

It rides as trailing columns of the hidden states, so that the runner picks exactly the rows it samples. The columns
have the same meaning in every row: growth stages have fixed places, and the delta that a row may use has the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.internals import internals_columns
from model_impl.kernels.statistics import INTERNALS_ARG, PROVENANCE_ARG
from model_impl.reference.internals import INTERNALS, SUMS, internals_from_sums, row_sums
from model_impl.reference.row_operation import Columns, sum_over_ranks
from model_impl.variants import Selection, VariantTable


class Reporter(Protocol):
    """The model, which may report nothing, or what a compiled forward always does."""

    reports: bool
    traced: bool
    variants: VariantTable


class ReportLevel(IntEnum):
    """What a request wants to have reported; a step reports what the most demanding of its requests wants."""

    NOTHING = 0
    PROVENANCE = 1
    INTERNALS = 2

    @classmethod
    def of(cls, extra_args: Mapping[str, Any] | None, model: Reporter) -> ReportLevel:
        """What a request with these `extra_args` is to have reported, of what it wants and what this engine can."""
        wanted = extra_args or {}
        if not model.reports:
            return cls.NOTHING
        if wanted.get(INTERNALS_ARG) and not model.traced:
            return cls.INTERNALS
        return cls.PROVENANCE if wanted.get(PROVENANCE_ARG) and model.variants.grown else cls.NOTHING

    def width(self, places: int, layers: int) -> int:
        """Number of trailing columns: provenance first, then what internals add to it."""
        internals = layers * len(PROJECTIONS) * (len(INTERNALS) + places)
        return (0, places, places + internals)[self]


class Collector:
    """Fed by every `ParallelPattention` in turn, whose projections are those of `PROJECTIONS`, layer after layer."""

    def __init__(self, level: ReportLevel, rows: int, layers: int, segments: int, device: torch.device) -> None:
        self.level = level
        shape = (segments,) if level == ReportLevel.PROVENANCE else (layers * len(PROJECTIONS), segments, SUMS)
        self.sums = torch.zeros(rows, *shape, dtype=torch.float64, device=device)
        self.x_squares: list[torch.Tensor] = []
        """For every projection ||x||^2 of its input, float64 [T]."""
        self.position = 0

    def room(self, projections: int) -> torch.Tensor:
        """Where the next module's sums belong, in float64: [T, segments], to which w^2 ||v||^2 of every projection is
        added; or [T, projections, segments, 7], which are to be `row_sums`."""
        if self.level == ReportLevel.PROVENANCE:
            return self.sums
        self.position += projections
        return self.sums[:, self.position - projections : self.position]

    def add_input(self, x: torch.Tensor, projections: int) -> None:
        """The next module's input [T, d], which internals want."""
        self.x_squares += [torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64).square()] * projections

    def add(self, scores: Columns, weights: Columns, value_squares: Sequence[Sequence[torch.Tensor]]) -> None:
        """The next module's sums from, per projection and segment, this rank's scores and weights [T, share] and
        ||v||^2 of its tokens [share]."""
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
