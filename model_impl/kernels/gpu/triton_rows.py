"""The row operation of `model_impl.reference.row_operation` in one kernel: segments, L2 norms, taus and
GELU.

A program does one row of one projection. It reads its scores twice, the second time from the cache, and writes the
weights; nothing else of the row's size is read or written. Under tensor parallelism the two halves are two kernels,
between which the sums of squares are summed over the ranks. Softmax is left to PyTorch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from model_impl.kernels.gpu.triton_elementary import SMALLEST, gelu, segment_bounds

MAX_BLOCK = 1024


@triton.jit
def sum_of_squares(row, start, stop, GELU_FIRST: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of squares over the columns from start to stop of one row."""
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for offset in range(start, stop, BLOCK):
        columns = offset + tl.arange(0, BLOCK)
        s = tl.load(row + columns, mask=columns < stop, other=0.0).to(tl.float32)
        if GELU_FIRST:
            s = gelu(s)
        total += s * s
    return tl.sum(total, axis=0)


@triton.jit
def squares_kernel(
    scores,
    squares,
    bounds,
    scores_stride,
    GELU_FIRST: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, segment = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start, stop = segment_bounds(bounds, segment, ALIGNMENT)
    total = sum_of_squares(scores + row * scores_stride, start, stop, GELU_FIRST, BLOCK)
    tl.store(squares + row * tl.num_programs(1) + segment, total)


@triton.jit
def row_operation_kernel(
    scores,
    weights,
    bounds,
    squares,  # [T, P S], read if SQUARES
    coupling,
    tau,
    scores_stride,
    weights_stride,
    coupling_stride,
    tau_stride,
    SEGMENTS: tl.constexpr,
    PADDED: tl.constexpr,  # SEGMENTS, made a power of two
    GELU_FIRST: tl.constexpr,
    SQUARES: tl.constexpr,
    ALIGNMENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, projection = tl.program_id(0).to(tl.int64), tl.program_id(1)
    scores += row * scores_stride
    weights += row * weights_stride
    bounds += projection * SEGMENTS
    place = row * tl.num_programs(1) + projection
    index = tl.arange(0, PADDED)
    held = index < SEGMENTS

    if SQUARES:
        own = tl.load(squares + place * SEGMENTS + index, mask=held, other=0.0)
    else:
        own = tl.zeros([PADDED], dtype=tl.float32)
        for s in range(SEGMENTS):
            start, stop = segment_bounds(bounds, s, ALIGNMENT)
            total = sum_of_squares(scores, start, stop, GELU_FIRST, BLOCK)
            own = tl.where(index == s, total, own)
    pairs = index[:, None] * SEGMENTS + index[None, :]
    coupled = tl.load(coupling + row * coupling_stride + pairs, mask=held[:, None] & held[None, :], other=0.0)
    shared = tl.sum(own[:, None] * coupled, axis=0)
    taus = tl.load(tau + row * tau_stride + projection * SEGMENTS + index, mask=held, other=0.0)
    scales = taus * tl.rsqrt(tl.maximum(shared, SMALLEST))

    for s in range(SEGMENTS):
        start, stop = segment_bounds(bounds, s, ALIGNMENT)
        scale = tl.sum(tl.where(index == s, scales, 0.0), axis=0)
        for offset in range(start, stop, BLOCK):
            columns = offset + tl.arange(0, BLOCK)
            inside = columns < stop
            score = tl.load(scores + columns, mask=inside, other=0.0).to(tl.float32)
            weight = gelu(score) * scale if GELU_FIRST else gelu(score * scale)
            tl.store(weights + columns, weight.to(weights.dtype.element_ty), mask=inside)


def segment_squares(scores: torch.Tensor, bounds: torch.Tensor, alignment: int, activation: str) -> torch.Tensor:
    """Scores [T, W] -> float32 [T, P S]: every segment's sum of squares, of the GELUs for `gelu_l2_norm`."""
    rows, segments = len(scores), len(bounds) - 1
    squares = torch.empty(rows, segments, dtype=torch.float32, device=scores.device)
    squares_kernel[(rows, segments)](
        scores,
        squares,
        bounds,
        scores.stride(0),
        GELU_FIRST=activation == "gelu_l2_norm",
        ALIGNMENT=alignment,
        BLOCK=block_size(scores.shape[1], segments),
    )
    return squares


def row_operation(
    scores: torch.Tensor,
    bounds: torch.Tensor,
    alignment: int,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
    squares: torch.Tensor | None,
) -> torch.Tensor:
    """See `model_impl.kernels.gpu.operators.row_operation`."""
    rows, width = scores.shape
    projections, segments = tau.shape[1:]
    weights = torch.empty_like(scores, memory_format=torch.contiguous_format)
    row_operation_kernel[(rows, projections)](
        scores,
        weights,
        bounds,
        squares,
        coupling,
        tau,
        scores.stride(0),
        weights.stride(0),
        row_stride(coupling),
        row_stride(tau),
        SEGMENTS=segments,
        PADDED=triton.next_power_of_2(segments),
        GELU_FIRST=activation == "gelu_l2_norm",
        SQUARES=squares is not None,
        ALIGNMENT=alignment,
        BLOCK=block_size(width, projections * segments),
    )
    return weights


def block_size(width: int, segments: int) -> int:
    """Columns at a time: a segment of average length, unless that is long."""
    return min(int(triton.next_power_of_2(max(width // segments, 1))), MAX_BLOCK)


def row_stride(table: torch.Tensor) -> int:
    """From one row of the batch to the next; 0 where one row of `table` serves all of them."""
    return 0 if len(table) == 1 else table.stride(0)
