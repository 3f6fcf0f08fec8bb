"""The compiled row operation equals PyTorch's, for every layout of segments and every mixture of variants."""

from __future__ import annotations

import pytest
import torch

from model_impl.config import PROJECTIONS, TokenformerConfig
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.rows import RowKernel
from model_impl.reference import row_operation
from model_impl.reference.row_operation import token_weights
from model_impl.variants import Selection
from tests.unit.model_impl.reference.test_row_operation import STAGES, configuration, select

QKV = PROJECTIONS[:3]
ROWS = 7
DELTAS = 2, 5
"""Tokens per projection of two deltas."""


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an engine there are no groups of ranks."""
    monkeypatch.setattr(row_operation, "get_tensor_model_parallel_world_size", lambda: 1)


@pytest.mark.parametrize("rows", [1, ROWS, 3000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ["l2_norm_gelu", "gelu_l2_norm"])
@pytest.mark.parametrize("stages", STAGES)
def test_weights_are_those_of_pytorch(stages: str, activation: str, dtype: torch.dtype, rows: int) -> None:
    config = configuration(stages, activation)
    selection = select(config, [row % len(config.stages) for row in range(rows)])
    scores = torch.randn(rows, width(config), generator=seeded()) * 3
    if activation == "gelu_l2_norm":
        # A row of a few tokens, all far below 0, divides what rounding has left by itself.
        scores.clamp_min_(-2)
    agree(config, selection, dtype, scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_row_of_the_selection_serves_all(dtype: torch.dtype) -> None:
    config = configuration("one stage", "l2_norm_gelu")
    agree(config, select(config, [0]), dtype, torch.randn(ROWS, width(config), generator=seeded()))


@pytest.mark.parametrize("activation", ["l2_norm_gelu", "gelu_l2_norm"])
def test_rows_of_zeros_and_of_extremes(activation: str) -> None:
    config = configuration("one stage", activation)
    scores = torch.randn(4, width(config), generator=seeded()) * torch.tensor([0.0, 1e-30, 1e4, 1e15])[:, None]
    agree(config, select(config, [0] * 4), torch.float32, scores)


def test_what_is_no_number_stays_so() -> None:
    config = configuration("one stage", "l2_norm_gelu")
    scores = torch.randn(2, width(config), generator=seeded())
    scores[0, 0] = torch.nan
    weights = by_kernel(config, select(config, [0, 0]), scores, [])
    assert weights[0][0][0].isnan().all()
    assert not weights[0][0][1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deltas_lie_beside_the_checkpoint(dtype: torch.dtype) -> None:
    """Rows of the base, of one delta and of the other."""
    config, generator = configuration("one stage", "l2_norm_gelu"), seeded()
    scores = torch.randn(3, width(config), generator=generator)
    deltas = [[torch.randn(3, count, generator=generator) for _ in QKV] for count in DELTAS]
    coupling = torch.eye(3).repeat(3, 1, 1)
    coupling[2, 0, 2] = coupling[2, 2, 0] = 1.0  # the last row's delta is normalised with the base
    tau = torch.rand(3, len(PROJECTIONS), 3, generator=generator) + 1
    tau[0, :, 1:], tau[1, :, 2], tau[2, :, 1] = 0.0, 0.0, 0.0
    agree(config, Selection(coupling, tau), dtype, scores, deltas)


def agree(
    config: TokenformerConfig,
    selection: Selection,
    dtype: torch.dtype,
    scores: torch.Tensor,
    deltas: list[list[torch.Tensor]] | None = None,
) -> None:
    scores, deltas = scores.to(dtype), [[part.to(dtype) for part in own] for own in deltas or []]
    error = {"rtol": 2**-7 if dtype == torch.bfloat16 else 1e-4, "atol": 1e-6}
    weights = by_kernel(config, selection, scores, deltas)
    for own, others in zip(weights, by_pytorch(config, selection, scores, deltas), strict=True):
        torch.testing.assert_close(torch.cat(own, dim=-1), torch.cat(others, dim=-1), **error)


def by_kernel(
    config: TokenformerConfig, selection: Selection, scores: torch.Tensor, deltas: list[list[torch.Tensor]]
) -> list[list[torch.Tensor]]:
    assert cpu_kernels.supports(scores)
    counts = [[delta[i].shape[1] for delta in deltas] for i in range(len(QKV))]
    return RowKernel(QKV, shares(config), counts, config.norm_activation_type, scores.dtype)(scores, deltas, selection)


def by_pytorch(
    config: TokenformerConfig, selection: Selection, scores: torch.Tensor, deltas: list[list[torch.Tensor]]
) -> list[list[torch.Tensor]]:
    own = scores.split([sum(counts) for counts in shares(config)], dim=-1)
    columns = [
        [*part.split(counts, dim=-1), *(delta[i] for delta in deltas)]
        for i, (part, counts) in enumerate(zip(own, shares(config), strict=True))
    ]
    padding = [[torch.zeros(column.shape[1], dtype=torch.bool) for column in row] for row in columns]
    return token_weights(columns, selection.for_projections(QKV), config.norm_activation_type, padding)


def shares(config: TokenformerConfig) -> list[list[int]]:
    return [[stage.tokens[projection] for stage in config.stages] for projection in QKV]


def width(config: TokenformerConfig) -> int:
    return sum(map(sum, shares(config)))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)
