"""Weights packed once for CPUs as oneDNN packs them, so that both its products and ours of a few rows read them.

oneDNN (here PyTorch's) is near the machine's GEMM rate. But its product of one row reads memory at two thirds of the
rate of a plain read, and each of its calls takes longer than a small product (docs/performance.md). csrc/packed.c reads
the same panels at the full memory rate. It multiplies where a measurement finds it faster (product_choice.py).
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu import product_choice

MAX_SMALL_BATCH = 64
"""The largest number of rows of our product, and of its buffers. With more rows a call's cost does not matter."""
SAMPLE = 1 << 19
"""The largest number of weights on which the choice between products is measured."""
FILLED_UP, STEP = 512, 8
"""Up to FILLED_UP rows, oneDNN only gets multiples of STEP."""
PANEL = 64
"""The number of outputs whose weights lie side by side."""

_copies: dict[tuple[int, torch.dtype], torch.Tensor] = {}
"""Buffers for the inputs that `with_more_rows` has to copy, by width: products are computed one after the other."""


@cpu_kernels.mirrors("packed")
class Packed(ctypes.Structure):
    """The structure `packed` of csrc/packed.h."""

    _fields_: ClassVar = (
        ("weights", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("outputs", "depth", "bfloat16", "panel_bytes")),
    )


class PackedWeight:
    """A weight [N, K] in float32 or bfloat16, packed by oneDNN."""

    small_batch = MAX_SMALL_BATCH
    """The largest number of rows for which our product is used."""

    def __init__(self, weight: torch.Tensor) -> None:
        kernels = cpu_kernels.library()
        assert kernels is not None
        self.packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        depth = -(-weight.shape[1] // (16 * _together(weight))) * 16 * _together(weight)
        panel_bytes = PANEL * depth * weight.itemsize
        kind = weight.dtype == torch.bfloat16
        self.layout = Packed(torch.ops.mkldnn.data_ptr(self.packed), *weight.shape, kind, panel_bytes)
        self.address = ctypes.addressof(self.layout)
        self.function, self.part_function = kernels.packed_product, kernels.packed_part
        content = (ctypes.c_char * self.place()[1]).from_address(self.layout.weights)
        panels = torch.frombuffer(content, dtype=weight.dtype)
        self.panels = panels.view(-1, depth // _together(weight), PANEL, _together(weight))
        """The packed weights by panel, line, output and column; the memory is that of `self.packed`."""

    def __call__(self, x: torch.Tensor, weight: object = None, bias: None = None) -> torch.Tensor:
        """x [T, K] -> x W^T [T, N]. Called as vLLM's CPU layers call their products; without bias."""
        return self.ours(x) if x.shape[0] <= self.small_batch else self.onednn(x)

    def ours(self, x: torch.Tensor) -> torch.Tensor:
        """T at most `MAX_SMALL_BATCH`."""
        rows = x.shape[0]
        x, out = x.contiguous(), torch.empty((rows, self.layout.outputs), dtype=x.dtype)
        if rows:
            self.function(self.address, x.data_ptr(), out.data_ptr(), rows)
        return out

    def onednn(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        x = with_more_rows(x, rounded_up(rows))
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return product[:rows]

    def part(self, x: torch.Tensor, first: int, stop: int) -> torch.Tensor:
        """The product of the columns from `first` to `stop` alone: x [T, K] -> x W^T float32 [T, N]."""
        together = 2 if self.layout.bfloat16 else 1
        if first % together or stop % together:  # neighbours lie in one line of csrc/packed.c
            x = x.new_zeros(x.shape).index_copy_(1, torch.arange(first, stop), x[:, first:stop])
        x, out = x.contiguous(), torch.zeros((x.shape[0], self.layout.outputs), dtype=torch.float32)
        lines = first // together, -(-stop // together)
        for start in range(0, x.shape[0], MAX_SMALL_BATCH):
            rows, room = x[start : start + MAX_SMALL_BATCH], out[start : start + MAX_SMALL_BATCH]
            self.part_function(self.address, rows.data_ptr(), room.data_ptr(), len(rows), *lines)
        return out

    def rows(self, indices: torch.Tensor) -> torch.Tensor:
        """The weights of some outputs: int64 [...] -> [..., K]."""
        found = self.panels[indices // PANEL, :, indices % PANEL]
        return found.flatten(-2)[..., : self.layout.depth]

    def columns(self, indices: torch.Tensor) -> torch.Tensor:
        """The weights of all outputs for some columns: int64 [...] -> [..., N]."""
        together = self.panels.shape[-1]
        found = self.panels[:, indices // together, :, indices % together]
        return found.flatten(-2)[..., : self.layout.outputs]

    def place(self) -> tuple[int, int]:
        """Address and length in bytes."""
        return self.layout.weights, -(-self.layout.outputs // PANEL) * self.layout.panel_bytes


def rounded_up(rows: int) -> int:
    """The number of rows that oneDNN gets in place of `rows`.

    oneDNN compiles a product for every number of rows and every shape of weights, which takes half a millisecond, and
    keeps the last 1,024 of them, half a megabyte each. Products of more than `FILLED_UP` rows take so long that this
    does not matter, and matrices of other sizes would cost more, as new pages of memory.
    """
    return -(-rows // STEP) * STEP if rows <= FILLED_UP else rows


def empty_rows(rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    """An empty matrix [rows, width], with room behind it for the rows that `with_more_rows` adds."""
    return torch.empty((rounded_up(rows), width), dtype=dtype)[:rows]


def with_more_rows(x: torch.Tensor, rows: int) -> torch.Tensor:
    """x [T, K] -> [rows, K]: the rows of x, then rows of any content. They are the memory behind x where it is long
    enough, else the last content of a shared copy, which the next call overwrites."""
    if rows == x.shape[0]:
        return x
    width = x.shape[1]
    room = x.untyped_storage().nbytes() // x.itemsize - x.storage_offset()
    if x.is_contiguous() and room >= rows * width:
        return x.as_strided((rows, width), (width, 1))
    copy = _copies.get((width, x.dtype))
    if copy is None:
        with torch.inference_mode(False):  # outside of that mode, nothing may write to its tensors
            copy = _copies[width, x.dtype] = x.new_zeros((FILLED_UP, width))
    copy[: x.shape[0]] = x
    return copy[:rows]


def pack(weight: torch.Tensor) -> PackedWeight | None:
    """The packed weight; None where oneDNN has no products of this dtype on this processor, packs weights in another
    way, or is faster than our product already at one row."""
    if not cpu_kernels.supports(weight) or not weight.numel() or not torch.backends.mkldnn.is_available():
        return None
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    if weight.shape[1] % _together(weight):
        return None
    packed = PackedWeight(weight)
    if not _as_expected(packed, weight):
        return None
    outputs = min(weight.shape[0], max(SAMPLE // weight.shape[1] // PANEL, 1) * PANEL)
    packed.small_batch = _small_batch(outputs, weight.shape[1], weight.dtype)
    return packed if packed.small_batch else None


@cache
def _small_batch(outputs: int, width: int, dtype: torch.dtype) -> int:
    """The largest number of rows for which our product is faster on weights of this shape; 0 where oneDNN lays such
    weights out differently, which weights of zeros would not show."""
    weight = torch.rand(outputs, width).to(dtype)
    sample = PackedWeight(weight)
    if not _as_expected(sample, weight):
        return 0
    return product_choice.rows_worth(sample.ours, sample.onednn, width, dtype)


def _as_expected(packed: PackedWeight, weight: torch.Tensor) -> bool:
    """Whether the first and the last panel lie where csrc/packed.c looks for them."""
    depth = weight.shape[1]
    if torch.ops.mkldnn._nbytes(packed.packed) < packed.place()[1]:
        return False
    panels = packed.panels.flatten(1)
    filled = panels.shape[1] // PANEL - depth
    first, last = weight[:PANEL], weight[(len(panels) - 1) * PANEL :]
    return all(
        torch.equal(_panel(F.pad(rows, (0, filled, 0, PANEL - len(rows)))), panel)
        for rows, panel in ((first, panels[0]), (last, panels[-1]))
    )


def _panel(rows: torch.Tensor) -> torch.Tensor:
    """[PANEL, K] -> for every k, in bfloat16 for every two, the weights of all outputs."""
    return rows.reshape(PANEL, -1, _together(rows)).transpose(0, 1).flatten()


def _together(weight: torch.Tensor) -> int:
    return 2 if weight.dtype == torch.bfloat16 else 1
