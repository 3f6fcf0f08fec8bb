"""The row operation as compiled for CPUs: `model_impl.row_operation.token_weights` in one pass (row_kernel.c).

It has the activations with an L2 norm, and knows of no other ranks; everything else is PyTorch's.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import torch

from model_impl.collector import Collector
from model_impl.config import PROJECTIONS
from model_impl.cpu_kernels import library
from model_impl.variants import Selection

SEGMENT = np.dtype(
    [(name, np.int64) for name in ("scores", "weights", "value_squares", "width", "scores_stride", "weights_stride")]
)
OPERATION = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("rows", "projections", "segments", "table", "tau", "coupling", "tau_stride", "coupling_stride"),
            *("bfloat16", "gelu_first", "report", "sums", "sums_stride"),
        )
    ]
)
"""The structures of row_kernel.c; addresses are integers here."""


class RowKernel:
    """The row operation of one module, whose projections read the same input: made anew when its segments change."""

    def __init__(
        self,
        projections: Sequence[str],
        shares: Sequence[Sequence[int]],
        value_squares: Sequence[Sequence[torch.Tensor]],
        activation: str,
        dtype: torch.dtype,
    ) -> None:
        """`shares`: per projection, the tokens of each of the checkpoint's segments. `value_squares`: ||v||^2 per
        projection and segment, float32 [share], in which the segments of deltas follow."""
        kernels = library()
        assert kernels is not None
        self.function, self.bytes = kernels.row_operation, dtype.itemsize
        self.first = PROJECTIONS.index(projections[0])
        self.widths = [sum(own) for own in shares]
        self.value_squares = [[squares.contiguous() for squares in own] for own in value_squares]
        segments = len(self.value_squares[0])
        self.table = np.zeros((len(shares), segments), dtype=SEGMENT)
        self.resident, self.deltas = self.table[:, : len(shares[0])], self.table[:, len(shares[0]) :]
        counts = np.array(shares, dtype=np.int64)
        self.resident["width"] = counts
        self.resident["scores_stride"] = sum(self.widths)
        self.resident["weights_stride"] = counts.sum(axis=1, keepdims=True)
        # Where a segment's columns begin in the scores of all projections, and within its own projection: bytes.
        starts = np.concatenate([[0], counts.sum(axis=1).cumsum()[:-1]])[:, None] * self.bytes
        within = (counts.cumsum(axis=1) - counts) * self.bytes
        self.starts, self.within, self.places = starts, within, starts + within
        for p, own in enumerate(self.value_squares):
            for s, squares in enumerate(own):
                self.table["value_squares"][p, s] = squares.data_ptr()
                if s >= len(shares[p]):
                    for name in ("width", "scores_stride", "weights_stride"):
                        self.table[name][p, s] = len(squares)
        self.operation = np.zeros(1, dtype=OPERATION)
        self.operation["projections"], self.operation["segments"] = len(shares), segments
        self.operation["table"] = self.table.ctypes.data
        self.operation["bfloat16"] = dtype == torch.bfloat16
        self.operation["gelu_first"] = activation == "gelu_l2_norm"
        self.address = ctypes.c_void_p(self.operation.ctypes.data)

    def __call__(
        self,
        scores: torch.Tensor,
        delta_scores: Sequence[Sequence[torch.Tensor]],
        selection: Selection,
        collector: Collector | None,
    ) -> list[list[torch.Tensor]]:
        """Scores of the checkpoint's tokens [T, W], all projections side by side, and per delta and projection [T, m]
        -> per projection the weights of its checkpoint's tokens [T, n], then of each delta's [T, m].

        `collector` gets the sums that it wants.
        """
        rows = len(scores)
        scores = scores.contiguous()
        flat = torch.empty(scores.numel(), dtype=scores.dtype)
        self.resident["scores"] = self.places + scores.data_ptr()
        self.resident["weights"] = self.starts * rows + self.within + flat.data_ptr()
        weights = [[part.view(rows, -1)] for part in flat.split([width * rows for width in self.widths])]
        kept = [[part.contiguous() for part in own] for own in delta_scores]
        for number, own in enumerate(kept):
            for p, part in enumerate(own):
                weights[p].append(torch.empty_like(part))
                self.deltas["scores"][p, number] = part.data_ptr()
                self.deltas["weights"][p, number] = weights[p][-1].data_ptr()
        tau, coupling, segments = selection.tau, selection.coupling, self.table.shape[1]
        by_row = len(tau) > 1 or rows == 1
        operation = self.operation[0]
        operation["rows"] = rows
        operation["tau"] = tau.data_ptr() + self.first * segments * tau.element_size()
        operation["coupling"] = coupling.data_ptr()
        operation["tau_stride"] = tau.stride(0) if by_row else 0
        operation["coupling_stride"] = coupling.stride(0) if by_row else 0
        operation["report"] = 0
        if collector is not None:
            sums = collector.room(len(weights))
            operation["report"] = collector.wish
            operation["sums"], operation["sums_stride"] = sums.data_ptr(), sums.stride(0)
        self.function(self.address)
        return weights
