"""Blocks of few rows, one call from attention to attention, are norms, Pattentions, rotations and residuals in turn."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from model_impl.config import TokenformerConfig
from model_impl.kernels.cpu.block import PackedBlock
from model_impl.kernels.cpu.pattention import PackedPattention
from model_impl.kernels.cpu.rows import RowKernel
from model_impl.kernels.cpu.stack import Heads, PackedStack
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH
from model_impl.variants import Selection
from tests.support.packing import packed
from tests.unit.model_impl.kernels.test_packed_pattention import even
from tests.unit.model_impl.kernels.test_row_kernel import one_rank, seeded
from tests.unit.model_impl.reference.test_row_operation import STAGES, select

__all__ = ["one_rank"]

D, HEAD, ROTARY, POSITIONS, LAYERS = 48, 12, 6, 20, 2
MODULES = ("query", "key", "value"), ("output",), ("ffn",)


def pattention(
    config: TokenformerConfig, projections: Sequence[str], dtype: torch.dtype, generator: torch.Generator
) -> PackedPattention:
    shares = [[stage.tokens[projection] for stage in config.stages] for projection in projections]
    keys = torch.randn(sum(map(sum, shares)), D, generator=generator).to(dtype)
    values = [torch.randn(D, sum(own), generator=generator).to(dtype) for own in shares]
    kernel = RowKernel(projections, shares, [[] for _ in shares], config.norm_activation_type, dtype)
    return PackedPattention(kernel, packed(keys), [packed(own) for own in values])


def norm(affine: bool, dtype: torch.dtype, generator: torch.Generator) -> Any:
    weight, bias = (torch.randn(D, generator=generator).to(dtype) if affine else None for _ in range(2))
    return SimpleNamespace(weight=weight, bias=bias, eps=1e-3)


def normed(own: Any, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, (D,), own.weight, own.bias, own.eps)


def rotated(x: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """x [T, d] by rotation [T, rotary_dim], as GPT-NeoX does it: half of the numbers against the other half."""
    heads = x.float().view(len(x), -1, HEAD)
    cosine, sine = rotation.float().unsqueeze(1).chunk(2, dim=-1)
    first, second, rest = heads.split([ROTARY // 2, ROTARY // 2, HEAD - ROTARY], dim=-1)
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)
    return turned.flatten(1).to(x.dtype)


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """In place of attention: all three count, each in its own way."""
    return (query - 2 * key + 3 * value) / 4


def attend_heads(heads: Heads, context: object) -> None:
    heads.mixed.copy_(attend(heads.query, heads.key, heads.value))


class Parts:
    """A random block, one by one and put together."""

    def __init__(
        self, config: TokenformerConfig, affine: bool, dtype: torch.dtype, generator: torch.Generator, layer: int
    ) -> None:
        self.modules = [pattention(config, names, dtype, generator) for names in MODULES]
        self.before, self.between = (norm(affine, dtype, generator) for _ in range(2))
        self.rotation = torch.rand(POSITIONS, ROTARY, generator=generator).to(dtype)
        query_key_value, output, ffn = self.modules
        norms = self.before, self.between
        self.packed = PackedBlock(layer, norms, (query_key_value, output, ffn), self.rotation, HEAD)

    def __call__(self, positions: torch.Tensor, x: torch.Tensor, selection: Selection) -> torch.Tensor:
        query_key_value, output, ffn = self.modules
        first = normed(self.before, x)
        query, key, value = query_key_value(first, selection)
        mixed = attend(rotated(query, self.rotation[positions]), rotated(key, self.rotation[positions]), value)
        middle = x + output(mixed, selection)[0]
        last = normed(self.between, middle)
        return middle + ffn(last, selection)[0]


@pytest.mark.parametrize("rows", [1, 5, MAX_SMALL_BATCH])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("stages", STAGES)
def test_blocks_one_by_one(stages: str, affine: bool, dtype: torch.dtype, rows: int) -> None:
    config, generator = even(stages, "l2_norm_gelu"), seeded()
    selection = select(config, [row % len(config.stages) for row in range(rows)])
    blocks = [Parts(config, affine, dtype, generator, layer) for layer in range(LAYERS)]
    last = norm(True, dtype, generator) if affine else None
    stack = PackedStack([block.packed for block in blocks], [attend_heads] * LAYERS, last)
    x = torch.randn(rows, D, generator=generator).to(dtype)
    positions = torch.randint(POSITIONS, (rows,), generator=generator)
    given = x.clone()
    for _ in range(2):  # the second finds what the first has left
        found = stack(positions, x, selection)
    assert torch.equal(x, given)

    expected = x
    for block in blocks:
        expected = block(positions, expected, selection)
    residual = expected
    if last is not None:
        expected = normed(last, expected)
    error = {"rtol": 2**-5, "atol": 1e-1} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(found, expected, **error)
    if last is not None:
        torch.testing.assert_close(stack.residual[:rows], residual, **error)
