"""A block of a few rows on packed weights in two calls, before its attention and after it (block_kernel.c)."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

import torch
from vllm.model_executor.layers.layernorm import LayerNorm

from model_impl.collector import Collector
from model_impl.cpu_kernels import library
from model_impl.packed_pattention import PackedModule, PackedPattention
from model_impl.packed_weight import MOST_ROWS
from model_impl.row_kernel import TABLES
from model_impl.variants import Selection

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64
_BEFORE: list[Any] = [_ADDRESS, _INTEGER, *[_ADDRESS] * 3, *TABLES]
_AFTER: list[Any] = [*_BEFORE, *TABLES]


class Norm(ctypes.Structure):
    """As in block_kernel.c."""

    _fields_: ClassVar = (("weight", _ADDRESS), ("bias", _ADDRESS), ("eps", ctypes.c_double))


class Block(ctypes.Structure):
    """As in block_kernel.c."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("width", "head_dim", "rotary_dim", "bfloat16")),
        *((name, Norm) for name in ("before", "between")),
        *((name, ctypes.POINTER(PackedModule)) for name in ("query_key_value", "output", "ffn")),
        *((name, _ADDRESS) for name in ("rotation", "normed", "made")),
    )


class PackedBlock:
    """Of one rank that has everything to itself, and no deltas."""

    def __init__(
        self,
        norms: tuple[LayerNorm, LayerNorm],
        modules: tuple[PackedPattention, PackedPattention, PackedPattention],
        rotation: torch.Tensor,
        head_dim: int,
    ) -> None:
        """`norms` come before attention and before the feed-forward; `modules` are query, key and value in one, the
        output projection and the feed-forward; `rotation` [positions, rotary_dim]: cosines, then sines."""
        kernels = library()
        assert kernels is not None
        self.before, self.after = kernels.block_before_attention, kernels.block_after_attention
        self.before.argtypes, self.after.argtypes = _BEFORE, _AFTER
        self.before.restype = self.after.restype = None
        dtype = modules[0].scores.dtype
        self.modules, self.norms = modules, norms  # kept, as what follows: C reads them
        self.rotation = rotation.to(dtype).contiguous()
        self.width = modules[1].width
        self.normed, self.made = (torch.empty(MOST_ROWS, self.width, dtype=dtype) for _ in range(2))
        self.layout = Block(
            *(self.width, head_dim, rotation.shape[1], dtype == torch.bfloat16),
            *map(_norm, norms),
            *(ctypes.pointer(module.module) for module in modules),
            *(own.data_ptr() for own in (self.rotation, self.normed, self.made)),
        )
        self.address = ctypes.addressof(self.layout)

    def before_attention(
        self, positions: torch.Tensor, x: torch.Tensor, selection: Selection, collector: Collector | None
    ) -> list[torch.Tensor]:
        """x [T, d] at positions int64 [T], T at most `MOST_ROWS` -> query, key, both rotated, and value, each [T, d];
        `collector` gets what it wants."""
        x, positions = x.contiguous(), positions.contiguous()
        out = torch.empty((3, x.shape[0], self.width), dtype=x.dtype)
        tables = self.modules[0].tables(x.shape[0], selection, collector)
        self.before(self.address, x.shape[0], x.data_ptr(), positions.data_ptr(), out.data_ptr(), *tables)
        return list(out.unbind())

    def after_attention(
        self, x: torch.Tensor, mixed: torch.Tensor, selection: Selection, collector: Collector | None
    ) -> torch.Tensor:
        """The block's input and what attention made of it, both [T, d] -> the block's output [T, d]."""
        x, mixed = x.contiguous(), mixed.contiguous()
        out = torch.empty_like(x)
        tables = [number for module in self.modules[1:] for number in module.tables(x.shape[0], selection, collector)]
        self.after(self.address, x.shape[0], x.data_ptr(), mixed.data_ptr(), out.data_ptr(), *tables)
        return out


def _norm(norm: LayerNorm) -> Norm:
    parts = (None if part is None else part.data_ptr() for part in (norm.weight, norm.bias))
    return Norm(*parts, norm.eps)
