"""The closed form's spread (`model_impl.reference.closed_form`) in one kernel: no gradient is ever written to memory.

A program does one row. It reads the likely words' rows of the head twice, the second time from the cache, and the
strongest value tokens once, between which it multiplies on the tensor cores.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 64
"""Columns of the residual stream at a time."""
LEAST = 16
"""The least size of a product's side."""


@triton.jit
def gradient_block(head, ids, probabilities, norm, columns, inside, held, stride):
    """Some columns of the likely words' logits as functions of the normed residual stream, above their mean: [K, B]."""
    found = tl.load(head + ids[:, None] * stride + columns[None, :], mask=held[:, None] & inside[None, :], other=0.0)
    scaled = found.to(tl.float32) * tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)[None, :]
    mean = tl.sum(scaled * probabilities[:, None], axis=0)
    return tl.where(held[:, None] & inside[None, :], scaled - mean[None, :], 0.0)


@triton.jit
def spread_kernel(
    residual,  # [N, d]
    head,  # [V, d]
    norm,  # [d]
    ids,  # [N, words]
    probabilities,  # [N, words]
    values,  # [d, n]
    tokens,  # [N, strongest]
    weights,  # [N, strongest]
    out,  # [N]
    width,
    residual_stride,
    head_stride,
    values_stride,
    eps,
    WORDS: tl.constexpr,
    STRONGEST: tl.constexpr,
    PADDED_WORDS: tl.constexpr,
    PADDED_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    residual += row * residual_stride
    word, token = tl.arange(0, PADDED_WORDS), tl.arange(0, PADDED_TOKENS)
    held, counted = word < WORDS, token < STRONGEST
    own_ids = tl.load(ids + row * WORDS + word, mask=held, other=0)
    p = tl.load(probabilities + row * WORDS + word, mask=held, other=0.0)
    own_tokens = tl.load(tokens + row * STRONGEST + token, mask=counted, other=0)
    w = tl.load(weights + row * STRONGEST + token, mask=counted, other=0.0)

    total = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        total += tl.load(residual + columns, mask=columns < width, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / width
    square = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < width
        x = tl.load(residual + columns, mask=inside, other=0.0).to(tl.float32)
        square += tl.where(inside, (x - mean) * (x - mean), 0.0)
    inverse = tl.rsqrt(tl.sum(square, axis=0) / width + eps)

    level = tl.zeros([PADDED_WORDS], dtype=tl.float32)
    along = tl.zeros([PADDED_WORDS], dtype=tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < width
        x = (tl.load(residual + columns, mask=inside, other=0.0).to(tl.float32) - mean) * inverse
        g = gradient_block(head, own_ids, p, norm, columns, inside, held, head_stride)
        level += tl.sum(g, axis=1)
        along += tl.sum(g * tl.where(inside, x, 0.0)[None, :], axis=1)
    level, along = level / width, along / width

    moves = tl.zeros([PADDED_TOKENS, PADDED_WORDS], dtype=tl.float32)
    for first in range(0, width, BLOCK):
        columns = first + tl.arange(0, BLOCK)
        inside = columns < width
        x = (tl.load(residual + columns, mask=inside, other=0.0).to(tl.float32) - mean) * inverse
        g = gradient_block(head, own_ids, p, norm, columns, inside, held, head_stride)
        g = (g - level[:, None] - along[:, None] * x[None, :]) * inverse
        places = values + columns[None, :].to(tl.int64) * values_stride + own_tokens[:, None]
        v = tl.load(places, mask=counted[:, None] & inside[None, :], other=0.0).to(tl.float32)
        moves += tl.dot(v, tl.trans(g), input_precision="ieee")
    variances = tl.sum(moves * moves * p[None, :], axis=1)
    tl.store(out + row, tl.sum(w * w * variances, axis=0))


def logit_spread(
    residual: torch.Tensor,
    head: torch.Tensor,
    norm: torch.Tensor,
    eps: float,
    ids: torch.Tensor,
    probabilities: torch.Tensor,
    values: torch.Tensor,
    tokens: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """See `model_impl.kernels.gpu.operators.logit_spread`."""
    rows, words = ids.shape
    strongest = tokens.shape[1]
    out = torch.empty(rows, dtype=torch.float32, device=residual.device)
    spread_kernel[(rows,)](
        residual,
        head,
        norm,
        ids.contiguous(),
        probabilities.contiguous(),
        values,
        tokens.contiguous(),
        weights.contiguous(),
        out,
        residual.shape[1],
        residual.stride(0),
        head.stride(0),
        values.stride(0),
        eps,
        WORDS=words,
        STRONGEST=strongest,
        PADDED_WORDS=max(int(triton.next_power_of_2(words)), LEAST),
        PADDED_TOKENS=max(int(triton.next_power_of_2(strongest)), LEAST),
        BLOCK=BLOCK,
    )
    return out
