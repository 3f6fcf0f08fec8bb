"""Rows hold every sample once an epoch, whole, and old texts at their share."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_impl.training.rows import IGNORED, Rows, evaluation_rows, mixed, pack, training_rows
from model_impl.training.samples import Samples

ROW = 12
LENGTHS = st.lists(st.integers(1, ROW), min_size=1, max_size=30)


def numbered(lengths: list[int], first: int = 0) -> Samples:
    """Sample i has its number as every token; its first token is not learned."""
    return Samples([(np.full(n, first + i, np.int32), np.arange(n) > 0) for i, n in enumerate(lengths)])


@given(lengths=LENGTHS)
def test_packing_keeps_the_order_and_fills_rows_until_the_next_does_not_fit(lengths: list[int]) -> None:
    rows = pack(lengths, range(len(lengths)), ROW)
    assert [number for row in rows for number in row] == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in row) for row in rows]
    assert max(filled) <= ROW
    assert all(filled[i] + lengths[following[0]] > ROW for i, (_, following) in enumerate(pairwise(rows)))


@given(lengths=LENGTHS, epochs=st.integers(1, 3), seed=st.integers(0, 5))
def test_every_epoch_has_every_sample_once_in_an_order_of_its_own(lengths: list[int], epochs: int, seed: int) -> None:
    samples = numbered(lengths)
    settings: dict[str, Any] = {"share": 0.5, "row_tokens": ROW, "separator": 99, "seed": seed}
    rows = training_rows(samples, None, epochs=epochs, **settings)
    order = [number for row in rows.rows for number in row]
    passes = [order[i : i + len(lengths)] for i in range(0, len(order), len(lengths))]
    assert len(passes) == epochs
    assert all(sorted(each) == list(range(len(lengths))) for each in passes)
    assert rows.rows == training_rows(samples, None, epochs=epochs, **settings).rows
    if len(lengths) > 10 and epochs > 1:
        assert passes[0] != passes[1]


@given(count=st.integers(1, 200), share=st.floats(0.05, 0.95))
def test_old_rows_have_their_share_everywhere(count: int, share: float) -> None:
    kinds = [row[0] for row in mixed([[0]] * count, iter(lambda: [1], None), share)]
    assert kinds.count(0) == count
    for stop in range(1, len(kinds) + 1):
        new = kinds[:stop].count(0)
        assert abs((stop - new) - new * share / (1 - share)) <= share / (1 - share) + 1


def test_replayed_rows_hold_old_samples_each_once_before_any_twice() -> None:
    new, old = numbered([6] * 20), numbered([6] * 8, first=50)
    rows = training_rows(new, old, epochs=1, share=0.5, row_tokens=ROW, separator=99, seed=0)
    tokens = [set(rows[i]["input_ids"].tolist()) for i in range(len(rows))]
    assert len(rows) == 20
    drawn = [token for i, each in enumerate(tokens) for token in sorted(each) if i % 2]
    assert all(token >= 50 for token in drawn)
    assert len(set(drawn[:8])) == 8
    assert all(token < 50 for i, each in enumerate(tokens) for token in each if i % 2 == 0)


def test_a_row_is_its_samples_and_then_separators_that_are_not_learned() -> None:
    samples = Samples(
        [(np.array([5, 6], np.int32), np.array([False, True])), (np.array([7], np.int32), np.array([True]))]
    )
    row = Rows(samples, [[0, 1]], 5, separator=9)[0]
    assert row["input_ids"].equal(torch.tensor([5, 6, 7, 9, 9]))
    assert row["labels"].equal(torch.tensor([IGNORED, 6, 7, IGNORED, IGNORED]))
    assert row["input_ids"].dtype == row["labels"].dtype == torch.int64


def test_a_reading_of_texts_held_out_has_each_once() -> None:
    rows = evaluation_rows(numbered([5] * 7), ROW, separator=99)
    assert sorted(number for row in rows.rows for number in row) == list(range(7))


@pytest.mark.parametrize("lengths", [[], [3]])
def test_samples_can_be_few(lengths: list[int]) -> None:
    assert len(numbered(lengths)) == len(lengths)
