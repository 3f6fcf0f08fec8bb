"""The statistics that internals report of all Pattentions, compiled for CPUs, in one pass (csrc/internals.c)."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch

from model_impl.config import PROJECTIONS
from model_impl.kernels.cpu.library import library, mirrors
from model_impl.variants import Selection, VariantTable
from model_impl.wire import ReportLevel

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64


@mirrors("reported")
class Reported(ctypes.Structure):
    """The structure `reported` of csrc/internals.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("pattentions", "projections", "segments", "places", "stages")),
        ("counts", _ADDRESS),
    )


def internals_columns(
    sums: torch.Tensor, x_squares: torch.Tensor, variants: VariantTable, selection: Selection
) -> torch.Tensor:
    """`row_sums` [T, layers * 5, segments, 7] and ||x||^2 [T, layers * 5] -> float32 [T, columns], those of
    `model_impl.kernels.collector.Collector.columns` for internals."""
    kernels = library()
    assert kernels is not None
    rows, pattentions, segments, _ = sums.shape
    places = variants.stage_count + 1
    sums, x_squares = sums.double().contiguous(), x_squares.double().contiguous()
    out = torch.empty(rows, ReportLevel.INTERNALS.width(places, pattentions), dtype=torch.float32)
    table = Reported(pattentions, len(PROJECTIONS), segments, places, variants.stage_count, variants.counts.data_ptr())
    tau_stride = selection.tau.stride(0) if selection.tau.shape[0] > 1 else 0
    addresses = (own.data_ptr() for own in (sums, x_squares, selection.tau))
    kernels.internals_columns(ctypes.addressof(table), rows, *addresses, tau_stride, out.data_ptr())
    return out
