"""`model_impl.kernels.statistics.token_statistics` in one pass over the vocabulary.

Every block of words of every row is a program of its own, so that a single row also keeps a GPU busy. A block gives its
maximum m and second, its mass sum e^(z-m), and the mean and squared deviations of z - m under it. Blocks merge as
running means and variances do: nothing cancels, as it would between sums of z and z^2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096
PARTS = tl.constexpr(5)


@triton.jit
def blocks_kernel(logits, parts, words, stride, BLOCK: tl.constexpr):
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = block * BLOCK + tl.arange(0, BLOCK)
    own = logits + row * stride + columns
    if (block + 1) * BLOCK <= words:
        z = tl.load(own).to(tl.float32)  # several words at once, which no mask of an odd number of words allows
    else:
        z = tl.load(own, mask=columns < words, other=-float("inf")).to(tl.float32)
    top = tl.max(z, axis=0)
    second = tl.max(tl.where(columns == block * BLOCK + tl.argmax(z, axis=0), -float("inf"), z), axis=0)
    # Where the whole block is -inf it has no mass, but must not become NaN.
    z = tl.maximum(z - tl.maximum(top, -3.0e38), -200.0, propagate_nan=tl.PropagateNan.ALL)
    mass = tl.exp(z)
    total = tl.sum(mass, axis=0)
    mean = tl.sum(mass * z, axis=0) / tl.where(total == 0.0, 1.0, total)
    away = z - mean
    out = parts + (row * tl.num_programs(1) + block) * PARTS
    tl.store(out, top)
    tl.store(out + 1, second)
    tl.store(out + 2, total)
    tl.store(out + 3, mean)
    tl.store(out + 4, tl.sum(mass * away * away, axis=0))


@triton.jit
def merge_kernel(parts, statistics, blocks, PADDED: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    index = tl.arange(0, PADDED)
    held = index < blocks
    own = parts + (row * blocks + index) * PARTS
    tops = tl.load(own, mask=held, other=-float("inf"))
    seconds = tl.load(own + 1, mask=held, other=-float("inf"))
    masses = tl.load(own + 2, mask=held, other=0.0)
    means = tl.load(own + 3, mask=held, other=0.0)
    deviations = tl.load(own + 4, mask=held, other=0.0)
    top = tl.max(tops, axis=0)
    second = tl.max(tl.where(index == tl.argmax(tops, axis=0), seconds, tops), axis=0)
    shift = tl.maximum(tops - top, -200.0, propagate_nan=tl.PropagateNan.ALL)
    factor = tl.exp(shift)
    masses *= factor
    means += shift
    total = tl.sum(masses, axis=0)
    mean = tl.sum(masses * means, axis=0) / total
    away = means - mean
    variance = tl.sum(factor * deviations + masses * away * away, axis=0) / total
    out = statistics + row * 3
    # A one-hot distribution's entropy can round to a negative zero-ish value.
    tl.store(out, tl.maximum(tl.log(total) - mean, 0.0, propagate_nan=tl.PropagateNan.ALL))
    tl.store(out + 1, variance)
    tl.store(out + 2, (1.0 - tl.exp(second - top)) / total)


def token_statistics(logits: torch.Tensor) -> torch.Tensor:
    """[..., V] of any float dtype -> float32 [..., 3], as `model_impl.kernels.statistics.token_statistics`."""
    words = logits.shape[-1]
    rows = logits.reshape(-1, words)
    if rows.stride(-1) != 1:
        rows = rows.contiguous()
    blocks = triton.cdiv(words, BLOCK)
    block = min(BLOCK, triton.next_power_of_2(words))
    parts = torch.empty(len(rows), blocks, PARTS.value, dtype=torch.float32, device=rows.device)
    statistics = torch.empty(len(rows), 3, dtype=torch.float32, device=rows.device)
    blocks_kernel[(len(rows), blocks)](rows, parts, words, rows.stride(0), BLOCK=block, num_warps=8)
    merge_kernel[(len(rows),)](parts, statistics, blocks, PADDED=triton.next_power_of_2(blocks), num_warps=1)
    return statistics.view(*logits.shape[:-1], 3)
