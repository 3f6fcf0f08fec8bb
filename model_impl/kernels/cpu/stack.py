"""All blocks of a step of few rows on packed weights: one call from each attention to the next (csrc/stack.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from vllm.model_executor.layers.layernorm import LayerNorm

from model_impl.kernels.cpu.attention import Heads
from model_impl.kernels.cpu.block import Norm, PackedBlock
from model_impl.kernels.cpu.library import library, mirrors
from model_impl.kernels.cpu.report import SegmentParts
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH
from model_impl.variants import Selection

_ADDRESS, _INTEGER = ctypes.c_void_p, ctypes.c_int64


@mirrors("stack_step")
class StackStep(ctypes.Structure):
    """The structure `stack_step` of csrc/stack.h."""

    _fields_: ClassVar = (
        ("rows", _INTEGER),
        *((name, _ADDRESS) for name in ("positions", "x", "query_key_value", "mixed", "tau", "coupling")),
        *((name, _INTEGER) for name in ("tau_stride", "coupling_stride")),
        ("last", ctypes.POINTER(Norm)),
        ("residual", _ADDRESS),
    )


class Attend(Protocol):
    """Attention of one block: caches keys and values, and fills `heads.mixed`."""

    def __call__(self, heads: Heads, context: Any) -> None: ...


class PackedStack:
    """The blocks of one rank. A step reuses the last one's buffers and views: new ones cost as much as attention."""

    def __init__(
        self,
        blocks: Sequence[PackedBlock],
        attentions: Sequence[Attend],
        last: LayerNorm | None = None,
        parts: Sequence[SegmentParts] | None = (),
    ) -> None:
        """`attentions` of the blocks, in order; `last` is the norm after the last block, where this rank has it.
        `parts`: of each segment after the first; None where its parts cannot be told apart."""
        kernels = library()
        assert kernels is not None
        self.begin, self.go_on = kernels.stack_begin, kernels.stack_go_on
        self.begin.argtypes, self.go_on.argtypes = [_ADDRESS] * 2, [_ADDRESS] * 3
        self.begin.restype = self.go_on.restype = None
        self.blocks, self.parts = blocks, parts
        addresses = [block.address for block in blocks]
        self.turns = list(zip(attentions, addresses, [*addresses[1:], None], strict=True))
        self.modules = [module for block in blocks for module in block.modules]
        self.small_batch = min(module.small_batch for module in self.modules)
        self.width, self.head_dim = blocks[0].width, blocks[0].layout.head_dim
        self.room = torch.empty(4 * MAX_SMALL_BATCH * self.width, dtype=blocks[0].dtype)
        self.heads: dict[int, Heads] = {}
        self.residual = torch.empty(MAX_SMALL_BATCH, self.width, dtype=blocks[0].dtype)
        self.step = StackStep(residual=self.residual.data_ptr())
        if last is not None:
            self.last = last  # C reads it: keep it alive
            self.step.last = ctypes.pointer(Norm.of(last))
        self.address = ctypes.addressof(self.step)

    def __call__(
        self, positions: torch.Tensor, x: torch.Tensor, selection: Selection, context: Any = None
    ) -> torch.Tensor:
        """x [T, d] at positions int64 [T], T at most `small_batch` -> the last block's output [T, d], normed where
        there is a last norm; then `residual` holds it as it was before. Every attention gets the `context`."""
        rows = len(x)
        heads = self.heads.get(rows)
        if heads is None:
            heads = self.heads[rows] = self._heads(rows)
        x, positions = x.clone(memory_format=torch.contiguous_format), positions.contiguous()
        self._describe(rows, positions, x, heads, selection)
        self.begin(self.blocks[0].address, self.address)
        for attend, own, following in self.turns:
            attend(heads, context)
            self.go_on(own, following, self.address)
        return x

    def _heads(self, rows: int) -> Heads:
        parts = self.room[: 4 * rows * self.width].view(4, rows, self.width)
        return Heads(parts[:3], *(part.view(rows, -1, self.head_dim) for part in parts.unbind()))

    def _describe(
        self, rows: int, positions: torch.Tensor, x: torch.Tensor, heads: Heads, selection: Selection
    ) -> None:
        """Fill `self.step`; the tensors that it points to must live until the last call."""
        step, tau, coupling = self.step, selection.tau, selection.coupling
        by_row = len(tau) > 1
        step.rows, step.positions, step.x = rows, positions.data_ptr(), x.data_ptr()
        step.query_key_value, step.mixed = heads.query_key_value.data_ptr(), heads.mixed.data_ptr()
        step.tau, step.coupling = tau.data_ptr(), coupling.data_ptr()
        step.tau_stride, step.coupling_stride = (tau.stride(0), coupling.stride(0)) if by_row else (0, 0)
