"""A block of few rows on packed weights, as `model_impl.kernels.cpu.stack` has its kernel read it (csrc/stack.c)."""

from __future__ import annotations

import ctypes
from typing import ClassVar

import torch
from vllm.model_executor.layers.layernorm import LayerNorm

from model_impl.kernels.cpu.library import mirrors
from model_impl.kernels.cpu.pattention import PackedModule, PackedPattention
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64


@mirrors("norm")
class Norm(ctypes.Structure):
    """The structure `norm` of csrc/stack.h."""

    _fields_: ClassVar = (("weight", _ADDRESS), ("bias", _ADDRESS), ("eps", ctypes.c_double))

    @classmethod
    def of(cls, norm: LayerNorm) -> Norm:
        """`norm` must keep its weights."""
        parts = (None if part is None else part.data_ptr() for part in (norm.weight, norm.bias))
        return cls(*parts, norm.eps)


@mirrors("block")
class Block(ctypes.Structure):
    """The structure `block` of csrc/stack.h."""

    _fields_: ClassVar = (
        *((name, _INTEGER) for name in ("layer", "width", "head_dim", "rotary_dim", "bfloat16")),
        *((name, Norm) for name in ("before", "between")),
        *((name, ctypes.POINTER(PackedModule)) for name in ("query_key_value", "output", "ffn")),
        *((name, _ADDRESS) for name in ("rotation", "normed", "made")),
    )


class PackedBlock:
    """A block that lies whole on one rank, without deltas."""

    def __init__(
        self,
        layer: int,
        norms: tuple[LayerNorm, LayerNorm],
        modules: tuple[PackedPattention, PackedPattention, PackedPattention],
        rotation: torch.Tensor,
        head_dim: int,
    ) -> None:
        """`layer` counts from 0. `norms` precede attention and the feed-forward. `modules` are query, key and value
        in one, the output projection, and the feed-forward. `rotation` [positions, rotary_dim]: cosines, then sines."""
        self.dtype = modules[0].scores.dtype
        self.modules, self.norms = modules, norms  # C reads these and the following: keep them alive
        self.rotation = rotation.to(self.dtype).contiguous()
        self.width = modules[1].width
        self.normed, self.made = (torch.empty(MAX_SMALL_BATCH, self.width, dtype=self.dtype) for _ in range(2))
        self.layout = Block(
            *(layer, self.width, head_dim, rotation.shape[1], self.dtype == torch.bfloat16),
            *map(Norm.of, norms),
            *(ctypes.pointer(module.module) for module in modules),
            *(own.data_ptr() for own in (self.rotation, self.normed, self.made)),
        )
        self.address = ctypes.addressof(self.layout)
