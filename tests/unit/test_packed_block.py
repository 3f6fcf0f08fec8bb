"""A block of few rows in two calls is its norms, Pattentions, rotation and residuals one by one."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from model_impl.collector import Collector, Wish
from model_impl.config import TokenformerConfig
from model_impl.packed_block import PackedBlock
from model_impl.packed_pattention import PackedPattention
from model_impl.packed_weight import MOST_ROWS
from model_impl.row_kernel import RowKernel
from model_impl.variants import Selection
from tests.unit.test_packed_pattention import even, packed
from tests.unit.test_row_kernel import one_rank, seeded
from tests.unit.test_row_operation import STAGES, select

__all__ = ["one_rank"]

D, HEAD, ROTARY, POSITIONS = 48, 12, 6, 20
MODULES = ("query", "key", "value"), ("output",), ("ffn",)


def pattention(
    config: TokenformerConfig, projections: Sequence[str], dtype: torch.dtype, generator: torch.Generator
) -> PackedPattention:
    shares = [[stage.tokens[projection] for stage in config.stages] for projection in projections]
    squares = [[torch.rand(share, generator=generator) for share in own] for own in shares]
    keys = torch.randn(sum(map(sum, shares)), D, generator=generator).to(dtype)
    values = [torch.randn(D, sum(own), generator=generator).to(dtype) for own in shares]
    kernel = RowKernel(projections, shares, squares, config.norm_activation_type, dtype)
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


def collecting(wish: Wish, rows: int, selection: Selection) -> Collector | None:
    segments = selection.tau.shape[-1]
    return Collector(wish, rows, 1, segments, torch.device("cpu")) if wish else None


@pytest.mark.parametrize("wish", Wish)
@pytest.mark.parametrize("rows", [1, 5, MOST_ROWS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("stages", STAGES)
def test_before_and_after_attention(stages: str, affine: bool, dtype: torch.dtype, rows: int, wish: Wish) -> None:
    config, generator = even(stages, "l2_norm_gelu"), seeded()
    selection = select(config, [row % len(config.stages) for row in range(rows)])
    query_key_value, output, ffn = (pattention(config, names, dtype, generator) for names in MODULES)
    before, between = (norm(affine, dtype, generator) for _ in range(2))
    rotation = torch.rand(POSITIONS, ROTARY, generator=generator).to(dtype)
    x, mixed = (torch.randn(rows, D, generator=generator).to(dtype) for _ in range(2))
    positions = torch.randint(POSITIONS, (rows,), generator=generator)
    collector, reference = (collecting(wish, rows, selection) for _ in range(2))

    block = PackedBlock((before, between), (query_key_value, output, ffn), rotation, HEAD)
    found = block.before_attention(positions, x, selection, collector)
    made = block.after_attention(x, mixed, selection, collector)

    inputs = [normed(before, x), mixed]
    query, key, value = query_key_value(inputs[0], selection, reference)
    expected = [rotated(query, rotation[positions]), rotated(key, rotation[positions]), value]
    middle = x + output(mixed, selection, reference)[0]
    inputs.append(normed(between, middle))
    last = middle + ffn(inputs[2], selection, reference)[0]
    error = {"rtol": 2**-6, "atol": 6e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-4}
    for own, other in zip([*found, made], [*expected, last], strict=True):
        torch.testing.assert_close(own, other, **error)
    if collector and reference:
        assert collector.position == reference.position
        error = {"rtol": 2**-4, "atol": 1.0} if dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(collector.sums, reference.sums, **error)
    if collector and wish == Wish.INTERNALS:
        squares = [x.double().square().sum(dim=-1) for x, names in zip(inputs, MODULES, strict=True) for _ in names]
        torch.testing.assert_close(collector.x_squares, squares, rtol=1e-2, atol=0)
