"""Both GEMMs of a Pattention with the row operation inside them: see `model_impl.kernels.gpu.choice`.

Sums of squares come in parts, one per tile of columns. Each reader adds them in a fixed order, so that the same input
gives the same bits. A sum over tensor-parallel ranks fits between the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
import triton
import triton.language as tl

from model_impl.kernels.gpu.choice import FEW_COLUMNS, MANY_COLUMNS
from model_impl.kernels.gpu.triton_elementary import INTERPRETED, SMALLEST, add_product, gelu, segment_bounds
from model_impl.kernels.gpu.triton_rows import row_stride

FEW_ROWS, MANY_ROWS = 16, 64

PROGRAMS = 256
"""The least number of programs among which the sum over parameter tokens is divided, if there are as many tiles."""

OUTPUTS = 32
"""Columns of the output per program."""


@dataclass(frozen=True)
class Parts:
    """Sums of squares [T, M] in parts, and the segment (p S + s) that each part belongs to, int32 [M]."""

    squares: torch.Tensor
    segments: torch.Tensor

    def total(self, segments: int) -> Parts:
        """Summed per segment, as the sum over ranks needs them."""
        order = torch.arange(segments, dtype=torch.int32, device=self.segments.device)
        return Parts(self.squares @ (self.segments[:, None] == order).float(), order)


def configurations(**sizes: Sequence[int]) -> list[triton.Config]:
    """The autotuner's configurations over one named block size; the interpreter gets a single one."""
    ((name, values),) = sizes.items()
    found = [
        triton.Config({name: value}, num_warps=warps, num_stages=stages)
        for value in values
        for warps in (4, 8)
        for stages in (3, 4)
    ]
    return found[:1] if INTERPRETED.value else found


@triton.jit
def scales_of(
    squares, segments, parts, coupling, tau, rows, inside, segment,
    squares_stride, coupling_stride, tau_stride, SEGMENTS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """tau / norm of one segment [BLOCK_T] for the rows: its group's squares are those of the segments coupled to it."""
    index = tl.arange(0, PADDED)
    held = index < parts
    owner = tl.load(segments + index, mask=held, other=-1)
    projection, own = segment // SEGMENTS, segment % SEGMENTS
    held &= owner // SEGMENTS == projection
    wanted = inside[:, None] & held[None, :]
    pairs = (owner % SEGMENTS) * SEGMENTS + own
    coupled = tl.load(coupling + rows[:, None] * coupling_stride + pairs[None, :], mask=wanted, other=0.0)
    part = tl.load(squares + rows[:, None] * squares_stride + index[None, :], mask=wanted, other=0.0)
    total = tl.sum(part * coupled, axis=1)
    taus = tl.load(tau + rows * tau_stride + segment, mask=inside, other=0.0)
    return taus * tl.rsqrt(tl.maximum(total, SMALLEST))


@triton.autotune(configs=configurations(BLOCK_D=(64, 128)), key=["width", "RESULT"], cache_results=True)
@triton.jit
def keys_kernel(
    x, keys, tiles, outputs, squares, norms, norm_segments, norm_parts, coupling, tau,
    rows, width, x_stride, keys_stride, outputs_stride, norms_stride, coupling_stride, tau_stride,
    RESULT: tl.constexpr, GELU_FIRST: tl.constexpr, SEGMENTS: tl.constexpr, PADDED: tl.constexpr,
    ALIGNMENT: tl.constexpr, BLOCK_T: tl.constexpr, TILE: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """x [T, d] times keys [W, d], one tile of one segment's columns per program. By RESULT:

    scores: the product, and the sum of its squares in this tile;
    norm: the part of x K^T K x^T that this tile has, where the keys are rows of K^T K;
    weights: GELU(scores scale), the norms being known.
    """
    tile = tl.program_id(0)
    start, stop = segment_bounds(tiles, tile * 3, ALIGNMENT)
    segment = tl.load(tiles + tile * 3 + 2)
    t = tl.program_id(1).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    columns = start + tl.arange(0, TILE)
    inside, known = t < rows, columns < stop
    product = tl.zeros([BLOCK_T, TILE], dtype=tl.float32)
    for offset in range(0, width, BLOCK_D):
        k = offset + tl.arange(0, BLOCK_D)
        own = tl.load(x + t[:, None] * x_stride + k[None, :], mask=inside[:, None] & (k < width)[None, :], other=0.0)
        key = tl.load(
            keys + columns[None, :].to(tl.int64) * keys_stride + k[:, None],
            mask=known[None, :] & (k < width)[:, None],
            other=0.0,
        )
        product = add_product(product, own, key)
    place = t[:, None] * outputs_stride + columns[None, :]
    mask = inside[:, None] & known[None, :]
    if RESULT == "norm":
        # Column j of a segment's K^T K multiplies x_j; a segment's rows begin at a multiple of the width.
        own = tl.load(x + t[:, None] * x_stride + (columns % width)[None, :], mask=mask, other=0.0)
        tl.store(squares + t * tl.num_programs(0) + tile, tl.sum(product * own.to(tl.float32), axis=1), mask=inside)
    elif RESULT == "scores":
        scores = product.to(outputs.dtype.element_ty)
        tl.store(outputs + place, scores, mask=mask)
        scores = scores.to(tl.float32)
        if GELU_FIRST:
            scores = gelu(scores)
        tl.store(squares + t * tl.num_programs(0) + tile, tl.sum(scores * scores, axis=1), mask=inside)
    else:
        scales = scales_of(
            norms, norm_segments, norm_parts, coupling, tau, t, inside, segment,
            norms_stride, coupling_stride, tau_stride, SEGMENTS, PADDED,
        )  # fmt: skip
        weights = gelu(product * scales[:, None])
        tl.store(outputs + place, weights.to(outputs.dtype.element_ty), mask=mask)


@triton.autotune(configs=configurations(BLOCK_N=(64, 128)), key=["width", "splits"], cache_results=True)
@triton.jit
def values_kernel(
    scores, values, shares, bounds, squares, segments, parts, coupling, tau,
    rows, width, splits, projection, scores_stride, values_stride, squares_stride, coupling_stride, tau_stride,
    GELU_FIRST: tl.constexpr, SEGMENTS: tl.constexpr, PADDED: tl.constexpr,
    ALIGNMENT: tl.constexpr, BLOCK_T: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One split's share of act(scores [T, n]) times the projection's values [d, n], into shares [splits, T, d]."""
    split = tl.program_id(1)
    t = tl.program_id(2).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    columns = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    inside, known = t < rows, columns < width
    first = tl.multiple_of(tl.load(bounds + projection * SEGMENTS), ALIGNMENT)
    product = tl.zeros([BLOCK_T, OUTPUTS], dtype=tl.float32)
    for s in range(SEGMENTS):
        segment = projection * SEGMENTS + s
        start, stop = segment_bounds(bounds, segment, ALIGNMENT)
        scales = scales_of(
            squares, segments, parts, coupling, tau, t, inside, segment,
            squares_stride, coupling_stride, tau_stride, SEGMENTS, PADDED,
        )  # fmt: skip
        for offset in range(start + split * BLOCK_N, stop, splits * BLOCK_N):
            n = offset + tl.arange(0, BLOCK_N)
            score = tl.load(
                scores + t[:, None] * scores_stride + n[None, :],
                mask=inside[:, None] & (n < stop)[None, :],
                other=0.0,
            )
            value = tl.load(
                values + columns[None, :].to(tl.int64) * values_stride + (n - first)[:, None],
                mask=known[None, :] & (n < stop)[:, None],
                other=0.0,
            )
            weight = score.to(tl.float32)
            weight = gelu(weight) * scales[:, None] if GELU_FIRST else gelu(weight * scales[:, None])
            product = add_product(product, weight.to(value.dtype), value)
    place = (split * rows + t[:, None]) * width + columns[None, :]
    tl.store(shares + place, product, mask=inside[:, None] & known[None, :])


@triton.jit
def sum_kernel(shares, outputs, size, splits, BLOCK: tl.constexpr):
    """shares [P, splits, size] -> outputs [P, size]."""
    projection = tl.program_id(1)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < size
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for split in range(splits):
        total += tl.load(shares + (projection * splits + split) * size + columns, mask=inside, other=0.0)
    tl.store(outputs + projection * size + columns, total.to(outputs.dtype.element_ty), mask=inside)


def scores_and_squares(
    x: torch.Tensor, keys: torch.Tensor, tiles: torch.Tensor, alignment: int, activation: str
) -> tuple[torch.Tensor, Parts]:
    """x [T, d], keys [W, d] -> scores [T, W] in x's dtype, and the parts of their sums of squares."""
    scores = x.new_empty(len(x), len(keys))
    squares = x.new_empty(len(x), len(tiles), dtype=torch.float32)
    _keys(x, keys, tiles, alignment, scores, squares, "scores", activation)
    return scores, Parts(squares, tiles[:, 2].contiguous())


def gram_squares(x: torch.Tensor, grams: torch.Tensor, tiles: torch.Tensor) -> Parts:
    """The same sums from every segment's K^T K, their rows one after the other [P S d, d], in tiles of MANY_COLUMNS."""
    squares = x.new_empty(len(x), len(tiles), dtype=torch.float32)
    _keys(x, grams, tiles, gcd(16, x.shape[1]), squares, squares, "norm", "l2_norm_gelu")
    return Parts(squares, tiles[:, 2].contiguous())


def weights_by_norm(
    x: torch.Tensor,
    keys: torch.Tensor,
    tiles: torch.Tensor,
    alignment: int,
    norms: Parts,
    coupling: torch.Tensor,
    tau: torch.Tensor,
) -> torch.Tensor:
    """The weights [T, W] of `l2_norm_gelu`, their scores' sums of squares being known already."""
    weights = x.new_empty(len(x), len(keys))
    _keys(x, keys, tiles, alignment, weights, weights, "weights", "l2_norm_gelu", norms, coupling, tau)
    return weights


def _keys(
    x: torch.Tensor,
    keys: torch.Tensor,
    tiles: torch.Tensor,
    alignment: int,
    outputs: torch.Tensor,
    squares: torch.Tensor,
    result: str,
    activation: str,
    norms: Parts | None = None,
    coupling: torch.Tensor | None = None,
    tau: torch.Tensor | None = None,
) -> None:
    known: tuple[Any, ...] = (None, None, 0, None, None)
    strides, segments, padded = (0, 0, 0), 1, 1
    if norms is not None and coupling is not None and tau is not None:
        parts = len(norms.segments)
        known = (norms.squares, norms.segments, parts, coupling, tau)
        strides = (norms.squares.stride(0), row_stride(coupling), row_stride(tau))
        segments, padded = tau.shape[-1], triton.next_power_of_2(parts)
    tile = FEW_COLUMNS if result == "scores" else MANY_COLUMNS
    block = FEW_ROWS if result == "scores" else MANY_ROWS
    keys_kernel[(len(tiles), triton.cdiv(len(x), block))](
        x, keys, tiles, outputs, squares, *known,
        len(x), x.shape[1], x.stride(0), keys.stride(0), outputs.stride(0), *strides,
        RESULT=result, GELU_FIRST=activation == "gelu_l2_norm", SEGMENTS=segments, PADDED=padded,
        ALIGNMENT=alignment, BLOCK_T=block, TILE=tile,
    )  # fmt: skip


def values_of_scores(
    scores: torch.Tensor,
    values: Sequence[torch.Tensor],
    bounds: torch.Tensor,
    alignment: int,
    norms: Parts,
    coupling: torch.Tensor,
    tau: torch.Tensor,
    activation: str,
) -> torch.Tensor:
    """Scores [T, W] and per projection values [d, n] -> outputs [P, T, d] in the scores' dtype."""
    rows, width, segments = len(scores), len(values[0]), tau.shape[-1]
    tiles = triton.cdiv(width, OUTPUTS)
    splits = max(min(PROGRAMS // tiles, triton.cdiv(scores.shape[1] // len(values), 64)), 1)
    shares = scores.new_empty(len(values), splits, rows, width, dtype=torch.float32)
    for projection, own in enumerate(values):
        values_kernel[(tiles, splits, triton.cdiv(rows, FEW_ROWS))](
            scores, own, shares[projection], bounds, norms.squares, norms.segments, len(norms.segments), coupling, tau,
            rows, width, splits, projection, scores.stride(0), own.stride(0),
            norms.squares.stride(0), row_stride(coupling), row_stride(tau),
            GELU_FIRST=activation == "gelu_l2_norm", SEGMENTS=segments,
            PADDED=triton.next_power_of_2(len(norms.segments)), ALIGNMENT=alignment, BLOCK_T=FEW_ROWS, OUTPUTS=OUTPUTS,
        )  # fmt: skip
    outputs = scores.new_empty(len(values), rows, width)
    size = rows * width
    sum_kernel[(triton.cdiv(size, 1024), len(values))](shares, outputs, size, splits, BLOCK=1024)
    return outputs
