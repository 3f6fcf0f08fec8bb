"""A Pattention of a few rows on packed weights as one call: scores, row operation and outputs (csrc/packed.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from model_impl.kernels.collector import Collector
from model_impl.kernels.cpu.library import library, mirrors
from model_impl.kernels.cpu.rows import TABLES, Layout, RowKernel
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH, Packed, PackedWeight
from model_impl.variants import Selection
from model_impl.wire import ReportLevel

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS: list[Any] = [_ADDRESS, _INTEGER, _ADDRESS, _ADDRESS, *TABLES]


@mirrors("packed_module")
class PackedModule(ctypes.Structure):
    """The structure `packed_module` of csrc/packed.h."""

    _fields_: ClassVar = (
        ("module", ctypes.POINTER(Layout)),
        ("keys", ctypes.POINTER(Packed)),
        ("values", ctypes.POINTER(Packed)),
        ("scores", _ADDRESS),
        ("weights", ctypes.POINTER(_ADDRESS)),
        ("x_squares", _ADDRESS),
    )


class PackedPattention:
    """The Pattentions of one module, whose projections read the same input, without deltas."""

    def __init__(self, rows: RowKernel, keys: PackedWeight, values: Sequence[PackedWeight]) -> None:
        kernels = library()
        assert kernels is not None
        self.function = kernels.packed_pattention
        self.function.argtypes = _ARGUMENTS
        self.function.restype = None
        self.rows, self.keys, self.values = rows, keys, values
        dtype = torch.bfloat16 if keys.layout.bfloat16 else torch.float32
        self.scores = torch.empty(MAX_SMALL_BATCH, keys.layout.outputs, dtype=dtype)
        self.weights = [torch.empty(MAX_SMALL_BATCH, own.layout.depth, dtype=dtype) for own in values]
        self.x_squares = torch.empty(MAX_SMALL_BATCH, dtype=torch.float64)
        self.module = PackedModule(
            ctypes.pointer(rows.layout),
            ctypes.pointer(keys.layout),
            (Packed * len(values))(*(own.layout for own in values)),
            self.scores.data_ptr(),
            (_ADDRESS * len(values))(*(own.data_ptr() for own in self.weights)),
            self.x_squares.data_ptr(),
        )
        self.address = ctypes.addressof(self.module)
        self.width = values[0].layout.outputs
        self.small_batch = min(own.small_batch for own in (keys, *values))

    def __call__(self, x: torch.Tensor, selection: Selection, collector: Collector | None) -> list[torch.Tensor]:
        """x [T, d], T at most `small_batch` -> one [T, d] per projection; `collector` gets the sums that it wants."""
        x = x.contiguous()
        out = torch.empty((len(self.values), x.shape[0], self.width), dtype=x.dtype)
        self.function(
            self.address, x.shape[0], x.data_ptr(), out.data_ptr(), *self.tables(x.shape[0], selection, collector)
        )
        return list(out.unbind())

    def tables(self, rows: int, selection: Selection, collector: Collector | None) -> tuple[int | None, ...]:
        """The last arguments (`TABLES`) of the kernel for this module in a step of `rows` rows."""
        if collector is not None and collector.level == ReportLevel.INTERNALS:
            collector.x_squares += [self.x_squares[:rows]] * len(self.values)  # the call fills them
        return self.rows.tables(selection, collector)
