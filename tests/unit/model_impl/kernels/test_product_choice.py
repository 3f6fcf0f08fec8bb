"""Our product serves the numbers of rows at which it wins by measurement, and no more."""

from __future__ import annotations

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_impl.kernels.cpu import library as cpu_kernels
from model_impl.kernels.cpu.product_choice import MARGIN, ROWS, rows_worth, worthwhile


@given(st.lists(st.floats(0.1, 10), min_size=len(ROWS), max_size=len(ROWS)))
def test_it_wins_at_every_measured_number_of_rows_up_to_the_choice(ratios: list[float]) -> None:
    most = worthwhile(ratios)
    for rows, ratio in zip(ROWS, ratios, strict=True):
        if rows <= most:
            assert ratio <= MARGIN
    following = [ratio for rows, ratio in zip(ROWS, ratios, strict=True) if rows > most]
    assert not following or following[0] > MARGIN


@pytest.mark.parametrize(("slow_from", "expected"), [(0, 0), (5, 4), (65, 64)])
def test_the_slower_product_is_found(slow_from: int, expected: int) -> None:
    def ours(x: torch.Tensor) -> None:
        time.sleep(0.02 if len(x) >= slow_from else 0)

    def theirs(x: torch.Tensor) -> None:
        time.sleep(0.005)

    threads = torch.get_num_threads()
    assert rows_worth(ours, theirs, 8, torch.float32) == expected
    assert torch.get_num_threads() == threads


def test_products_are_measured_on_one_thread() -> None:
    seen = set()
    kernels = cpu_kernels.library()
    assert kernels is not None

    def product(x: torch.Tensor) -> None:
        seen.add(kernels.omp_get_max_threads())

    rows_worth(product, product, 8, torch.float32)
    assert seen == {1}
