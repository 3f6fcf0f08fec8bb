"""A Pattention of few rows in one call is its three steps, for every layout of segments and every mixture of stages."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from model_impl.config import TokenformerConfig
from model_impl.kernels.cpu.pattention import PackedPattention
from model_impl.kernels.cpu.rows import RowKernel
from model_impl.kernels.cpu.weights import MAX_SMALL_BATCH
from tests.support.packing import packed
from tests.support.tiny import tiny_config
from tests.unit.model_impl.kernels.test_row_kernel import QKV, one_rank, seeded, shares, width
from tests.unit.model_impl.reference.test_row_operation import STAGES, select

__all__ = ["one_rank"]

D = 48


def even(stages: str, activation: str) -> TokenformerConfig:
    """Twice as many tokens: an odd number of them is not packed in bfloat16."""
    doubled = [
        {**stage, "tokens": {name: 2 * count for name, count in stage["tokens"].items()}} for stage in STAGES[stages]
    ]
    return tiny_config(norm_activation_type=activation, growth_stages=doubled)


@pytest.mark.parametrize("rows", [1, 2, 6, 7, MAX_SMALL_BATCH])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["l2_norm_gelu", "gelu_l2_norm"])
@pytest.mark.parametrize("stages", STAGES)
def test_outputs_are_those_of_its_parts(stages: str, activation: str, dtype: torch.dtype, rows: int) -> None:
    config = even(stages, activation)
    selection = select(config, [row % len(config.stages) for row in range(rows)])
    generator = seeded()
    keys = torch.randn(width(config), D, generator=generator).to(dtype)
    values = [torch.randn(D, sum(own), generator=generator).to(dtype) for own in shares(config)]
    x = torch.randn(rows, D, generator=generator).to(dtype)
    kernel = RowKernel(QKV, shares(config), [[] for _ in QKV], activation, dtype)
    once = PackedPattention(kernel, packed(keys), [packed(own) for own in values])

    scores = F.linear(x, keys)
    weights = kernel(scores, [], selection)
    error = {"rtol": 2**-6, "atol": 3e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    outputs = once(x, selection)
    for output, own, value in zip(outputs, weights, values, strict=True):
        torch.testing.assert_close(output, F.linear(own[0], value), **error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_leave_out_what_their_member_does(dtype: torch.dtype) -> None:
    """In the projections that have masks. The numbers of the rows' members are read anew in every call."""
    config, rows, members = even("grouped", "l2_norm_gelu"), 7, 3
    selection, generator = select(config, [row % 2 for row in range(rows)]), seeded()
    keys = torch.randn(width(config), D, generator=generator).to(dtype)
    values = [torch.randn(D, sum(own), generator=generator).to(dtype) for own in shares(config)]
    x = torch.randn(rows, D, generator=generator).to(dtype)
    kernel = RowKernel(QKV, shares(config), [[]] * 3, "l2_norm_gelu", dtype)
    once = PackedPattention(kernel, packed(keys), [packed(own) for own in values])
    tables = [torch.rand(1 + members, sum(own), generator=generator) < 0.4 for own in shares(config)]
    for table in tables:
        table[0] = False
    own_members = torch.zeros(MAX_SMALL_BATCH, dtype=torch.int64)
    once.leave_out([tables[0], None, tables[2]], own_members)
    error = {"rtol": 2**-6, "atol": 3e-2} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    for numbers in ([0] * rows, [0, 1, 2, 3, 3, 0, 1]):
        own_members[:rows] = torch.tensor(numbers)
        weights = kernel(F.linear(x, keys), [], selection)
        outputs = once(x, selection)
        for p, (output, own, value) in enumerate(zip(outputs, weights, values, strict=True)):
            kept = own[0] if p == 1 else own[0].masked_fill(tables[p][own_members[:rows]], 0.0)
            torch.testing.assert_close(output, F.linear(kept, value), **error)
