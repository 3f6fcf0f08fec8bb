"""A Pattention of a few rows on packed weights as one call: scores, row operation and outputs (csrc/packed.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from model_impl.kernels.cpu.library import library, mirrors
from model_impl.kernels.cpu.rows import TABLES, Layout, RowKernel
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH, Packed, PackedWeight
from model_impl.variants import Selection

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
        ("members", _ADDRESS),
        ("left_out", ctypes.POINTER(_ADDRESS)),
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
        self.module = PackedModule(
            ctypes.pointer(rows.layout),
            ctypes.pointer(keys.layout),
            (Packed * len(values))(*(own.layout for own in values)),
            self.scores.data_ptr(),
            (_ADDRESS * len(values))(*(own.data_ptr() for own in self.weights)),
        )
        self.address = ctypes.addressof(self.module)
        self.width = values[0].layout.outputs
        self.small_batch = min(own.small_batch for own in (keys, *values))

    def leave_out(self, tables: Sequence[torch.Tensor | None], members: torch.Tensor) -> None:
        """From now on set the weights to zero that the rows' ensemble members leave out.

        tables: per projection bool [1 + members, n], row 0 none. members int64 [T] as `Selection.members`, read in
        every step from where they lie now.
        """
        self.left_out, self.members = tables, members  # C reads them: keep them alive
        self.module.members = members.data_ptr()
        self.module.left_out = (_ADDRESS * len(tables))(*(None if own is None else own.data_ptr() for own in tables))

    def __call__(self, x: torch.Tensor, selection: Selection) -> list[torch.Tensor]:
        """x [T, d], T at most `small_batch` -> one [T, d] per projection. The weights stay in `self.weights`."""
        x = x.contiguous()
        out = torch.empty((len(self.values), x.shape[0], self.width), dtype=x.dtype)
        self.function(self.address, x.shape[0], x.data_ptr(), out.data_ptr(), *self.rows.tables(selection))
        return list(out.unbind())
