"""A whole Pattention by the kernels, on each way through them, against the plain formulas."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from model_impl.kernels.gpu.choice import Way, choose, gram_wins
from model_impl.kernels.gpu.pattention import WholePattention
from tests.kernels.cases import (
    ACTIVATIONS,
    ONE,
    STAGES,
    TOLERANCE,
    Counts,
    expected_weights,
    groups_of,
    normal,
    selection_of,
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("rows", "width", "counts"), [(1, 32, ONE), (0, 32, ONE), (18, 44, STAGES), (70, 24, [[150]])])
@pytest.mark.parametrize("way", get_args(Way))
def test_outputs_equal_the_plain_formulas(
    way: Way, rows: int, width: int, counts: Counts, dtype: torch.dtype, activation: str, device: torch.device
) -> None:
    if way == "gram" and activation != "l2_norm_gelu":
        with pytest.raises(ValueError, match="Gram"):
            WholePattention.of(torch.ones(40, 32), [torch.ones(32, 40)], ONE, activation).with_grams()
        return
    groups = groups_of(rows, len(counts[0]))
    coupling, tau = (table.to(device) for table in selection_of(groups, counts))
    keys = normal(sum(map(sum, counts)), width, seed=1).to(device, dtype)
    values = [(normal(width, sum(own), seed=2) * 0.2).to(device, dtype) for own in counts]
    x = normal(rows, width, seed=3).to(device, dtype)
    whole = WholePattention.of(keys, values, counts, activation)
    outputs = (whole.with_grams() if way == "gram" else whole)(x, coupling, tau, way)
    weights = expected_weights(x.double() @ keys.double().t(), groups, counts, activation)
    parts = weights.split([sum(own) for own in counts], dim=1)
    expected = [part @ own.double().t() for part, own in zip(parts, values, strict=True)]
    for found, exact in zip(outputs, expected, strict=True):
        assert found.dtype == dtype and found.shape == (rows, width)
        torch.testing.assert_close(found.double(), exact, rtol=TOLERANCE[dtype], atol=3 * TOLERANCE[dtype])


def test_the_same_input_gives_the_same_bits(device: torch.device) -> None:
    coupling, tau = (table.to(device) for table in selection_of(groups_of(3, 3), STAGES))
    keys, x = normal(102, 32).to(device), normal(3, 32).to(device)
    whole = WholePattention.of(keys, [normal(32, 38).to(device), normal(32, 64).to(device)], STAGES, "l2_norm_gelu")
    first, second = (torch.cat(whole(x, coupling, tau, "fused")) for _ in range(2))
    assert torch.equal(first, second)


def test_ranks_can_sum_their_squares_between_the_kernels(device: torch.device) -> None:
    from model_impl.kernels.gpu import triton_pattention as fused

    keys, values, x = normal(40, 32).to(device), normal(32, 40, seed=1).to(device), normal(3, 32, seed=2).to(device)
    coupling, tau = (table.to(device) for table in selection_of(groups_of(3, 1), ONE))
    ranks = [
        WholePattention.of(keys[own], [values[:, own]], [[20]], "l2_norm_gelu") for own in (slice(20), slice(20, 40))
    ]
    halves = [fused.scores_and_squares(x, own.keys, own.few_tiles, 4, "l2_norm_gelu") for own in ranks]
    totals = [parts.total(1) for _, parts in halves]
    norms = fused.Parts(totals[0].squares + totals[1].squares, totals[0].segments)
    shares = [
        fused.values_of_scores(scores, own.values, own.layout.bounds, 4, norms, coupling, tau, "l2_norm_gelu")
        for own, (scores, _) in zip(ranks, halves, strict=True)
    ]
    whole = WholePattention.of(keys, [values], ONE, "l2_norm_gelu")
    torch.testing.assert_close((shares[0] + shares[1])[0], whole(x, coupling, tau, "gemm")[0], rtol=1e-5, atol=1e-5)


def test_gram_matrices_are_made_where_they_may_pay(device: torch.device) -> None:
    def made(tokens: int, width: int, activation: str) -> bool:
        keys, values = torch.ones(tokens, width, device=device), [torch.ones(width, tokens, device=device)]
        return WholePattention.of(keys, values, [[tokens]], activation).grams is not None

    assert made(64, 16, "l2_norm_gelu") and not made(64, 16, "gelu_l2_norm")
    assert gram_wins(3072, 768) and not gram_wins(768, 768) and not gram_wins(6144, 1536)


def test_the_way_follows_from_the_sizes() -> None:
    ways = [choose(rows, 3072, 768, has_grams=True) for rows in (0, 1, 16, 17, 511, 512, 8192)]
    assert ways == ["fused", "fused", "fused", "gemm", "gemm", "gram", "gram"]
    assert choose(8192, 3072, 768, has_grams=False) == "gemm"


def test_the_operator_is_fit_for_compilers(device: torch.device) -> None:
    coupling, tau = (table.to(device) for table in selection_of(groups_of(1, 1), ONE))
    whole = WholePattention.of(normal(40, 32).to(device), [normal(32, 40).to(device)], ONE, "l2_norm_gelu")
    arguments = (normal(3, 32).to(device), whole.keys, whole.values, whole.layout.bounds, whole.layout.alignment)
    tiles = (whole.few_tiles, whole.many_tiles, whole.gram_tiles)
    for way in ("fused", "gemm"):
        torch.library.opcheck(
            torch.ops.tokenformer.whole_pattention,
            (*arguments, *tiles, None, coupling, tau, "l2_norm_gelu", way),
        )
