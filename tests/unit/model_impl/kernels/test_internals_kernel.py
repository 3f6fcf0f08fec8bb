"""The columns of internals are the same from the compiled kernel and from PyTorch, for any segments of a row."""

from __future__ import annotations

import pytest
import torch

from model_impl.config import PROJECTIONS, GrowthStage
from model_impl.kernels.collector import Collector
from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.variants import Selection, VariantTable
from model_impl.wire import ReportLevel
from tests.support.tiny import tiny_config
from tests.unit.model_impl.kernels.test_row_kernel import one_rank, seeded
from tests.unit.model_impl.reference.test_row_operation import STAGES

__all__ = ["one_rank"]

LAYERS, ROWS, TOKENS = 3, 5, 20


@pytest.mark.parametrize("deltas", [0, 1, 2])
@pytest.mark.parametrize("shared", [False, True], ids=["rows of their own", "one row for all"])
@pytest.mark.parametrize("stages", STAGES)
def test_columns_equal_those_of_pytorch(
    stages: str, shared: bool, deltas: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants, collector, selection = collected(stages, deltas)
    if shared:
        selection = Selection(selection.coupling[:1], selection.tau[:1])
    assert cpu_kernels.supports(collector.sums.float())
    found = collector.columns(variants, selection)
    monkeypatch.setattr(cpu_kernels, "supports", lambda tensor: False)
    expected = collector.columns(variants, selection)
    assert found.dtype == torch.float32
    assert found.shape[1] == ReportLevel.INTERNALS.width(variants.stage_count + 1, LAYERS * len(PROJECTIONS))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_what_is_not_defined_is_not_finite_in_both(monkeypatch: pytest.MonkeyPatch) -> None:
    variants, collector, selection = collected("one stage", 0)
    collector.sums[0], collector.x_squares[0] = 0.0, torch.zeros(ROWS, dtype=torch.float64)
    found = collector.columns(variants, selection)
    monkeypatch.setattr(cpu_kernels, "supports", lambda tensor: False)
    assert not found[0].isfinite().all()
    torch.testing.assert_close(found, collector.columns(variants, selection), rtol=1e-5, atol=1e-6, equal_nan=True)


def collected(stages: str, deltas: int) -> tuple[VariantTable, Collector, Selection]:
    """Random sums, of weights as if they had been normally distributed; every row uses other segments."""
    config, generator = tiny_config(growth_stages=STAGES[stages]), seeded()
    variants = VariantTable(config, ROWS)
    for number in range(deltas):
        variants.add_delta(
            100 + number, GrowthStage(f"delta {number}", dict(config.stages[0].tokens), norm_group=7 + number)
        )
    segments = len(config.stages) + deltas
    collector = Collector(ReportLevel.INTERNALS, ROWS, LAYERS, segments, torch.device("cpu"))
    variants.counts = TOKENS * (variants.counts > 0)  # of one or two weights the kurtosis is all rounding
    weights = torch.randn(*collector.sums.shape[:-1], TOKENS, generator=generator, dtype=torch.float64)
    weights *= (variants.counts > 0).unsqueeze(-1).repeat(LAYERS, 1, 1)
    powers = [weights.pow(k).sum(dim=-1) for k in range(1, 5)]
    collector.sums = torch.stack([powers[1] * 3, *powers, (weights > 0).double().sum(dim=-1), powers[1] / 2], dim=-1)
    shape = ROWS, LAYERS * len(PROJECTIONS)
    collector.x_squares = list((torch.rand(shape, generator=generator, dtype=torch.float64) + 1).unbind(dim=1))
    tau = torch.rand(ROWS, len(PROJECTIONS), segments, generator=generator) + 0.5
    tau *= torch.rand(tau.shape, generator=generator) > 0.3
    tau[..., 0] = 1.0
    return variants, collector, Selection(torch.eye(segments).repeat(ROWS, 1, 1), tau)
