"""The row operation as compiled for CPUs: `model_impl.reference.row_operation.token_weights` in one pass
(csrc/rows.c).

It serves activations with an L2 norm on a single rank; PyTorch does everything else.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.cpu.library import library, mirrors
from model_impl.kernels.cpu.weights import empty_rows
from model_impl.variants import Selection

_INTEGER, _ADDRESS = ctypes.c_int64, ctypes.c_void_p
TABLES: list[Any] = [_ADDRESS, _INTEGER, _ADDRESS, _INTEGER]
"""The last arguments of every kernel that holds a row operation, see `RowKernel.tables`."""
_ARGUMENTS: list[Any] = [_ADDRESS, _INTEGER, _ADDRESS, _ADDRESS, *TABLES]


@mirrors("segment")
class Segment(ctypes.Structure):
    """The structure `segment` of csrc/rows.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("scores", "first_score", "scores_stride")),
        *((name, _INTEGER) for name in ("weights", "first_weight", "weights_stride", "width")),
    )


@mirrors("layout")
class Layout(ctypes.Structure):
    """The structure `layout` of csrc/rows.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("projections", "segments", "bfloat16", "gelu_first")),
        ("table", ctypes.POINTER(Segment)),
    )


class RowKernel:
    """The row operation of one module, whose projections read the same input. A change of segments needs a new one."""

    def __init__(
        self,
        projections: Sequence[str],
        shares: Sequence[Sequence[int]],
        delta_shares: Sequence[Sequence[int]],
        activation: str,
        dtype: torch.dtype,
    ) -> None:
        """`shares`: per projection, the tokens of each of the checkpoint's segments; `delta_shares`: of each delta."""
        kernels = library()
        assert kernels is not None
        self.function = kernels.row_operation
        self.function.argtypes = _ARGUMENTS
        self.function.restype = None
        self.first = PROJECTIONS.index(projections[0])
        self.widths = [sum(own) for own in shares]
        self.deltas = len(delta_shares[0])
        self.segments = len(shares[0]) + self.deltas
        table = self._segments(shares, delta_shares)
        self.table = (Segment * (len(shares) * self.segments))(*table)  # C reads it: keep it alive
        self.layout = Layout(
            len(shares), self.segments, dtype == torch.bfloat16, activation == "gelu_l2_norm", self.table
        )
        self.address = ctypes.addressof(self.layout)
        self.score_addresses = (_ADDRESS * (1 + self.deltas * len(shares)))()
        self.weight_addresses = (_ADDRESS * ((1 + self.deltas) * len(shares)))()

    def _segments(self, shares: Sequence[Sequence[int]], delta_shares: Sequence[Sequence[int]]) -> Iterator[Segment]:
        """The scores are one matrix for the checkpoint, then one per delta and projection. The weights are one matrix
        per projection for the checkpoint, then one per delta and projection."""
        first_score = 0
        for p, (own, deltas) in enumerate(zip(shares, delta_shares, strict=True)):
            first_weight = 0
            for width in own:
                score, weight = (0, first_score, sum(self.widths)), (p, first_weight, self.widths[p])
                yield Segment(*score, *weight, width)
                first_score, first_weight = first_score + width, first_weight + width
            for number, width in enumerate(deltas):
                place = number * len(shares) + p
                yield Segment(1 + place, 0, width, len(shares) + place, 0, width, width)

    def __call__(
        self, scores: torch.Tensor, delta_scores: Sequence[Sequence[torch.Tensor]], selection: Selection
    ) -> list[list[torch.Tensor]]:
        """Scores of the checkpoint's tokens [T, W], all projections side by side, and per delta and projection [T, m]
        -> per projection the weights of its checkpoint's tokens [T, n], then of each delta's [T, m]."""
        rows, dtype = scores.shape[0], scores.dtype
        matrices = [scores.contiguous(), *(part.contiguous() for own in delta_scores for part in own)]
        made = [empty_rows(rows, width, dtype) for width in self.widths]
        made += [torch.empty_like(part) for part in matrices[1:]]
        for i, matrix in enumerate(matrices):
            self.score_addresses[i] = matrix.data_ptr()
        for i, matrix in enumerate(made):
            self.weight_addresses[i] = matrix.data_ptr()
        self.function(self.address, rows, self.score_addresses, self.weight_addresses, *self.tables(selection))
        count = len(self.widths)
        return [made[p::count] for p in range(count)]

    def tables(self, selection: Selection) -> tuple[int, ...]:
        """The last arguments (`TABLES`) of the kernel for this module in a step."""
        tau, coupling = selection.tau, selection.coupling
        by_row = tau.shape[0] > 1
        return (
            tau.data_ptr() + self.first * self.segments * 4,
            tau.stride(0) if by_row else 0,
            coupling.data_ptr(),
            coupling.stride(0) if by_row else 0,
        )
