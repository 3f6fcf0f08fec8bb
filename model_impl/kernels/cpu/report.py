"""Epistemic uncertainty and growth of sampled rows as one call (csrc/report.c).

It serves packed value tokens without deltas on a single rank; PyTorch does everything else
(model_impl/model/report.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import ClassVar

import torch

from model_impl.kernels.cpu.library import library, mirrors
from model_impl.kernels.cpu.weights import Packed, PackedWeight
from model_impl.reference.attribution import RIVALS
from model_impl.reference.closed_form import STRONGEST, WORDS

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64


@mirrors("part")
class Part(ctypes.Structure):
    """The structure `part` of csrc/report.h."""

    _fields_: ClassVar = (
        ("values", ctypes.POINTER(Packed)),
        ("weights", _ADDRESS),
        *((name, _INTEGER) for name in ("first", "stop")),
    )


@mirrors("reporter")
class ReporterTable(ctypes.Structure):
    """The structure `reporter` of csrc/report.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("width", "bfloat16", "words", "strongest", "rivals")),
        ("values", ctypes.POINTER(Packed)),
        *((name, _ADDRESS) for name in ("head", "norm")),
        *((name, ctypes.c_double) for name in ("eps", "scale")),
    )


@mirrors("reported")
class Reported(ctypes.Structure):
    """The structure `reported` of csrc/report.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("rows", "segments")),
        *((name, _ADDRESS) for name in ("numbers", "weights", "residual", "embedded", "added")),
        *((name, _ADDRESS) for name in ("logits", "ids", "chosen", "out")),
        ("columns", _INTEGER),
    )


def likeliest_words(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The `count` largest logits of each row of [N, V], largest first: float32 and int64 [N, count]; below 64."""
    kernels = library()
    assert kernels is not None and count < 64
    logits = logits if logits.stride(-1) == 1 else logits.contiguous()
    values = torch.empty(len(logits), count, dtype=torch.float32)
    ids = torch.empty(len(logits), count, dtype=torch.int64)
    kind = logits.dtype == torch.bfloat16
    kernels.likeliest_words(
        logits.data_ptr(), *logits.shape, logits.stride(0), kind, count, values.data_ptr(), ids.data_ptr()
    )
    return values, ids


class SegmentParts:
    """Adds up what one segment's tokens of several layers add to the residual stream, from buffers of their weights."""

    def __init__(
        self, values: Sequence[PackedWeight], weights: Sequence[torch.Tensor], tokens: Sequence[range]
    ) -> None:
        """Per layer the value tokens, the buffer of weights [rows, n], and the segment's tokens among them; in bfloat16
        both ends of it are even."""
        kernels = library()
        assert kernels is not None
        self.function = kernels.add_parts
        self.kept = values, weights  # C reads them: keep them alive
        together = values[0].panels.shape[-1]
        self.parts = (Part * len(values))(
            *(
                Part(ctypes.pointer(own.layout), buffer.data_ptr(), place.start // together, place.stop // together)
                for own, buffer, place in zip(values, weights, tokens, strict=True)
            )
        )
        self.address = ctypes.addressof(self.parts)

    def __call__(self, out: torch.Tensor) -> None:
        """Add them to `out` float32 [T, d], of the first T rows of the buffers."""
        self.function(self.address, len(self.parts), len(out), out.data_ptr(), out.stride(0))


class ReportKernel:
    """Makes the reported columns of a model whose last feed-forward has these packed value tokens."""

    def __init__(self, values: PackedWeight, head: torch.Tensor, norm: torch.Tensor, eps: float, scale: float) -> None:
        """`head` [V, d] and `norm` [d], the last norm's weight, in the dtype of the values; `scale` is r (1 - r) / 2 of
        the rate at which an ensemble's member leaves tokens out."""
        kernels = library()
        assert kernels is not None
        self.function = kernels.report_rows
        self.kept = values, head, norm  # C reads them: keep them alive
        width, tokens = values.layout.outputs, values.layout.depth
        self.words = min(WORDS, len(head))
        sizes = width, values.layout.bfloat16, self.words, min(STRONGEST, tokens), RIVALS
        layout, addresses = ctypes.pointer(values.layout), (head.data_ptr(), norm.data_ptr())
        self.table = ReporterTable(*sizes, layout, *addresses, eps, scale)
        self.address = ctypes.addressof(self.table)

    def place(self) -> tuple[int, int]:
        """Address and length in bytes of the head, whose rows lie far apart."""
        _, head, _ = self.kept
        return head.data_ptr(), head.nbytes

    def __call__(
        self,
        matrices: Sequence[torch.Tensor],
        numbers: torch.Tensor | None,
        logits: torch.Tensor,
        ids: torch.Tensor,
        chosen: torch.Tensor,
    ) -> torch.Tensor:
        """`matrices` are the last feed-forward's weights [R, n], the residual stream after and before all blocks [R, d]
        and, float32 [R, S - 1, d], what each segment after the first has added to it. `numbers` int64 [N]: the rows
        among these; None for the first N. Likeliest words' logits and ids [N, k], chosen tokens int64 [N]
        -> float32 [N, 2 + S], the last column 0, or, without growth, [N, 1] where S is 1."""
        segments = 1 + matrices[-1].shape[1]
        columns = segments + 2 if segments > 1 else 1
        out = torch.zeros(len(ids), columns, dtype=torch.float32)
        held = [*matrices, logits, ids, chosen, out]
        place = None if numbers is None else numbers.data_ptr()
        step = Reported(len(ids), segments, place, *(own.data_ptr() for own in held), columns)
        self.function(self.address, ctypes.addressof(step))
        return out
