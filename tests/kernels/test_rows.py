"""The row operation by the kernels, against the plain formulas."""

from __future__ import annotations

import pytest
import torch

from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.rows import SegmentedRows
from model_impl.variants import Selection
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
@pytest.mark.parametrize(("rows", "counts"), [(1, ONE), (0, STAGES), (7, STAGES), (2, [[1500], [3]])])
def test_weights_equal_the_plain_formulas(
    rows: int, counts: Counts, dtype: torch.dtype, activation: str, device: torch.device
) -> None:
    groups, layout = groups_of(rows, len(counts[0])), Layout.of(counts, device)
    coupling, tau = (table.to(device) for table in selection_of(groups, counts))
    scores = (normal(rows, sum(map(sum, counts))) * 3).to(device, dtype)
    weights = kernels.row_operation(scores, layout, coupling, tau, activation)
    assert weights.dtype == dtype
    expected = expected_weights(scores, groups, counts, activation).to(dtype)
    torch.testing.assert_close(weights, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_segments_that_are_left_out_weigh_nothing(device: torch.device) -> None:
    groups = [[[0, 1]]] * 2
    coupling, tau = (table.to(device) for table in selection_of(groups, STAGES))
    scores = normal(2, 102).to(device)
    weights = kernels.row_operation(scores, Layout.of(STAGES, device), coupling, tau, "l2_norm_gelu")
    assert not weights[:, 18:38].any() and weights[:, :18].all()


def test_a_row_of_zeros_has_zero_weights(device: torch.device) -> None:
    scores = torch.zeros(2, 40, device=device)
    scores[1, 3] = 1e-30
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 1, 1), 6.0, device=device)
    for activation in ACTIVATIONS:
        weights = kernels.row_operation(scores, Layout.of(ONE, device), coupling, tau, activation)
        assert not weights[0].any() and weights.isfinite().all()


def test_one_variant_serves_all_rows_of_a_strided_view(device: torch.device) -> None:
    groups = [[[0, 1, 2]]]
    coupling, tau = (table.to(device) for table in selection_of(groups, STAGES))
    scores = normal(5, 200).to(device)[:, 50:152]
    every = torch.cat([tau.new_zeros(1, 1, 3), tau], dim=1)[:, 1:]  # as a model's five projections are sliced
    weights = kernels.row_operation(scores, Layout.of(STAGES, device), coupling, every, "l2_norm_gelu")
    expected = expected_weights(scores, groups * 5, STAGES, "l2_norm_gelu").float()
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ranks_that_sum_their_squares_compute_what_one_does(activation: str, device: torch.device) -> None:
    groups, whole = groups_of(3, 2), [[12, 8]]
    coupling, tau = (table.to(device) for table in selection_of(groups, whole))
    scores, share = normal(3, 20).to(device), Layout.of([[6, 4]], device)
    ranks = [scores[:, [*range(6), *range(12, 16)]], scores[:, [*range(6, 12), *range(16, 20)]]]
    squares = sum(kernels.segment_squares(own, share, activation) for own in ranks)
    first, second = (kernels.row_operation(own, share, coupling, tau, activation, squares) for own in ranks)
    together = torch.cat([first[:, :6], second[:, :6], first[:, 6:], second[:, 6:]], dim=1)
    torch.testing.assert_close(together, expected_weights(scores, groups, whole, activation).float())


def test_a_compiler_takes_it_for_any_number_of_rows(device: torch.device) -> None:
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 5, 1), 6.0, device=device)
    rows = SegmentedRows(("ffn",), ONE, [[]], "l2_norm_gelu", device, lambda squares: 4 * squares)

    def run(scores: torch.Tensor) -> torch.Tensor:
        return rows(scores, [], Selection(coupling, tau))[0][0]

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="eager")
    for count in (2, 5):
        scores = normal(count, 40).to(device)
        torch.testing.assert_close(compiled(scores), run(scores))


def test_alignment_is_what_divides_every_bound() -> None:
    assert [Layout.of(counts, "cpu").alignment for counts in (ONE, STAGES, [[32, 64]], [[4], [12]])] == [8, 1, 16, 4]
    assert Layout.of(ONE, "cpu").tiles(32).tolist() == [[0, 32, 0], [32, 40, 0]]


def test_the_operators_are_fit_for_compilers(device: torch.device) -> None:
    coupling, tau = (table.to(device) for table in selection_of(groups_of(3, 3), STAGES))
    layout, scores = Layout.of(STAGES, device), normal(3, 102).to(device)
    arguments = (scores, layout.bounds, layout.alignment, coupling, tau, "l2_norm_gelu", None)
    torch.library.opcheck(torch.ops.tokenformer.row_operation_of, arguments)
    torch.library.opcheck(torch.ops.tokenformer.segment_squares_of, arguments[:3] + arguments[5:6])
    torch.library.opcheck(torch.ops.tokenformer.token_statistics, (scores,))


def test_a_module_with_a_delta(device: torch.device) -> None:
    groups, counts = groups_of(4, 3), [[13, 5, 20], [48, 16, 8]]
    coupling, tau = (table.to(device) for table in selection_of(groups, counts))
    selection = Selection(coupling, torch.cat([tau.new_ones(4, 3, 3), tau], dim=1))  # query, key and value before them
    scores, delta = normal(4, 82).to(device), [normal(4, 20, seed=1).to(device), normal(4, 8, seed=2).to(device)]
    shares, deltas = [own[:2] for own in counts], [own[2:] for own in counts]
    rows = SegmentedRows(("output", "ffn"), shares, deltas, "l2_norm_gelu", device)
    found = rows(scores, [delta], selection)

    whole = torch.cat([scores[:, :18], delta[0], scores[:, 18:], delta[1]], dim=1)
    assert [[part.shape[1] for part in own] for own in found] == [[18, 20], [64, 8]]
    weights = torch.cat([part for own in found for part in own], dim=1)
    torch.testing.assert_close(weights, expected_weights(whole, groups, counts, "l2_norm_gelu").float())


def test_a_module_whose_other_ranks_hold_as_much(device: torch.device) -> None:
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 5, 1), 6.0, device=device)
    scores = normal(3, 40).to(device)
    alone = SegmentedRows(("ffn",), ONE, [[]], "gelu_l2_norm", device)
    one_of_four = SegmentedRows(("ffn",), ONE, [[]], "gelu_l2_norm", device, lambda squares: 4 * squares)
    whole, quarter = (rows(scores, [], Selection(coupling, tau))[0][0] for rows in (alone, one_of_four))
    torch.testing.assert_close(whole, 2 * quarter)
