"""The row operation by the kernels, against the plain formulas."""

from __future__ import annotations

from enum import IntEnum

import pytest
import torch

from model_impl.kernels.gpu import operators as kernels
from model_impl.kernels.gpu.layout import Layout
from model_impl.kernels.gpu.rows import SegmentedRows
from model_impl.reference.internals import row_sums
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
    weights, sums = kernels.row_operation(scores, layout, coupling, tau, activation)
    assert weights.dtype == dtype and sums.numel() == 0
    expected = expected_weights(scores, groups, counts, activation).to(dtype)
    torch.testing.assert_close(weights, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_segments_that_are_left_out_weigh_nothing(device: torch.device) -> None:
    groups = [[[0, 1]]] * 2
    coupling, tau = (table.to(device) for table in selection_of(groups, STAGES))
    scores = normal(2, 102).to(device)
    weights, _ = kernels.row_operation(scores, Layout.of(STAGES, device), coupling, tau, "l2_norm_gelu")
    assert not weights[:, 18:38].any() and weights[:, :18].all()


def test_a_row_of_zeros_has_zero_weights(device: torch.device) -> None:
    scores = torch.zeros(2, 40, device=device)
    scores[1, 3] = 1e-30
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 1, 1), 6.0, device=device)
    for activation in ACTIVATIONS:
        weights, _ = kernels.row_operation(scores, Layout.of(ONE, device), coupling, tau, activation)
        assert not weights[0].any() and weights.isfinite().all()


def test_one_variant_serves_all_rows_of_a_strided_view(device: torch.device) -> None:
    groups = [[[0, 1, 2]]]
    coupling, tau = (table.to(device) for table in selection_of(groups, STAGES))
    scores = normal(5, 200).to(device)[:, 50:152]
    every = torch.cat([tau.new_zeros(1, 1, 3), tau], dim=1)[:, 1:]  # as a model's five projections are sliced
    weights, _ = kernels.row_operation(scores, Layout.of(STAGES, device), coupling, every, "l2_norm_gelu")
    expected = expected_weights(scores, groups * 5, STAGES, "l2_norm_gelu").float()
    torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 7])
def test_sums_are_those_of_the_weights_as_they_are_rounded(
    columns: int, dtype: torch.dtype, device: torch.device
) -> None:
    groups, layout = groups_of(4, 3), Layout.of(STAGES, device)
    coupling, tau = (table.to(device) for table in selection_of(groups, STAGES))
    scores, squares = (normal(4, 102) * 3).to(device, dtype), normal(102).square().to(device)
    weights, sums = kernels.row_operation(
        scores, layout, coupling, tau, "l2_norm_gelu", value_squares=squares, columns=columns
    )
    widths = [count for own in STAGES for count in own]
    parts = zip(scores.split(widths, -1), weights.split(widths, -1), squares.split(widths), strict=True)
    expected = torch.stack([row_sums(*part) for part in parts], dim=1).unflatten(1, (2, 3)).float()
    torch.testing.assert_close(sums, expected[..., -columns:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_ranks_that_sum_their_squares_compute_what_one_does(activation: str, device: torch.device) -> None:
    groups, whole = groups_of(3, 2), [[12, 8]]
    coupling, tau = (table.to(device) for table in selection_of(groups, whole))
    scores, share = normal(3, 20).to(device), Layout.of([[6, 4]], device)
    ranks = [scores[:, [*range(6), *range(12, 16)]], scores[:, [*range(6, 12), *range(16, 20)]]]
    squares = sum(kernels.segment_squares(own, share, activation) for own in ranks)
    first, second = (kernels.row_operation(own, share, coupling, tau, activation, squares)[0] for own in ranks)
    together = torch.cat([first[:, :6], second[:, :6], first[:, 6:], second[:, 6:]], dim=1)
    torch.testing.assert_close(together, expected_weights(scores, groups, whole, activation).float())


def test_a_compiler_takes_it_for_any_number_of_rows(device: torch.device) -> None:
    squares = [[torch.ones(40, device=device)]]
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 5, 1), 6.0, device=device)
    rows = SegmentedRows(("ffn",), ONE, squares, "l2_norm_gelu", lambda squares: 4 * squares)

    def run(scores: torch.Tensor) -> torch.Tensor:
        return rows(scores, [], Selection(coupling, tau), None)[0][0]

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
    arguments = (scores, layout.bounds, layout.alignment, coupling, tau, "l2_norm_gelu", None, scores[0], 7)
    torch.library.opcheck(torch.ops.tokenformer.row_operation_of, arguments)
    torch.library.opcheck(torch.ops.tokenformer.segment_squares_of, arguments[:3] + arguments[5:6])
    torch.library.opcheck(torch.ops.tokenformer.token_statistics, (scores,))


class ReportLevel(IntEnum):
    """As in `model_impl.kernels.collector`, which imports vLLM, and vLLM must not see the Triton of these tests."""

    NOTHING = 0
    PROVENANCE = 1
    INTERNALS = 2


class Sums:
    """As much of a `Collector` as a module's row operation uses."""

    def __init__(self, level: ReportLevel, room: torch.Tensor) -> None:
        self.level, self.sums = level, room

    def room(self, projections: int) -> torch.Tensor:
        return self.sums


@pytest.mark.parametrize("level", ReportLevel)
def test_a_module_with_a_delta_fills_its_collector(level: ReportLevel, device: torch.device) -> None:
    groups, counts = groups_of(4, 3), [[13, 5, 20], [48, 16, 8]]
    coupling, tau = (table.to(device) for table in selection_of(groups, counts))
    selection = Selection(coupling, torch.cat([tau.new_ones(4, 3, 3), tau], dim=1))  # query, key and value before them
    scores, delta = normal(4, 82).to(device), [normal(4, 20, seed=1).to(device), normal(4, 8, seed=2).to(device)]
    squares = [[normal(count, seed=count).square().to(device) for count in own] for own in counts]
    rows = SegmentedRows(("output", "ffn"), [own[:2] for own in counts], squares, "l2_norm_gelu")
    room = torch.zeros((4, 3) if level == ReportLevel.PROVENANCE else (4, 2, 3, 7), dtype=torch.float64, device=device)
    found = rows(scores, [delta], selection, Sums(level, room) if level else None)

    whole = torch.cat([scores[:, :18], delta[0], scores[:, 18:], delta[1]], dim=1)
    assert [[part.shape[1] for part in own] for own in found] == [[18, 20], [64, 8]]
    weights = torch.cat([part for own in found for part in own], dim=1)
    torch.testing.assert_close(weights, expected_weights(whole, groups, counts, "l2_norm_gelu").float())
    widths = [count for own in counts for count in own]
    values = [part for own in squares for part in own]
    parts = zip(whole.split(widths, -1), weights.split(widths, -1), values, strict=True)
    sums = torch.stack([row_sums(*part) for part in parts], dim=1).unflatten(1, (2, 3))
    expected = (torch.zeros_like(room), sums[..., -1].sum(dim=1), sums)[level]
    torch.testing.assert_close(room, expected, rtol=1e-5, atol=1e-5)


def test_a_module_whose_other_ranks_hold_as_much(device: torch.device) -> None:
    coupling, tau = torch.ones(1, 1, 1, device=device), torch.full((1, 5, 1), 6.0, device=device)
    scores, squares = normal(3, 40).to(device), [[torch.ones(40, device=device)]]
    alone = SegmentedRows(("ffn",), ONE, squares, "gelu_l2_norm")
    one_of_four = SegmentedRows(("ffn",), ONE, squares, "gelu_l2_norm", lambda squares: 4 * squares)
    whole, quarter = (rows(scores, [], Selection(coupling, tau), None)[0][0] for rows in (alone, one_of_four))
    torch.testing.assert_close(whole, 2 * quarter)
