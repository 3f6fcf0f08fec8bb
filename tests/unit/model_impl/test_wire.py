"""The arguments of the API process reach the engine, and the engine's columns are found again."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_impl import wire
from model_impl.wire import Membership, find_columns, pseudo_ids, report_args, wants_report

WORDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=21)
"""The chosen token and its alternatives."""

REPORTED = st.sampled_from([0, 1, 3, 8])
"""Nothing, epistemic uncertainty alone, or with growth by two or seven places."""


@given(WORDS, REPORTED, st.integers(1, 3), st.booleans())
def test_encoded_columns_are_found_again(words: list[int], reported: int, rows: int, lists: bool) -> None:
    """In NumPy's matrices of generated tokens as in PyTorch's of prompts."""
    matrix = np.tile([*words, *pseudo_ids(reported)], (rows, 1))
    start = find_columns(matrix if lists else torch.from_numpy(matrix))
    assert start is not None
    assert matrix[0, :start].tolist() == words
    assert matrix.shape[1] - start == len(wire.STATISTICS) + reported


@given(WORDS)
def test_a_row_without_our_columns_has_none(words: list[int]) -> None:
    assert find_columns(np.array([words])) is None
    assert find_columns(np.empty((0, 4))) is None


@given(WORDS, st.permutations(pseudo_ids(3)))
def test_columns_in_an_unknown_order_are_refused(words: list[int], ids: list[int]) -> None:
    row = np.array([[*words, *ids]])
    if ids == pseudo_ids(3):
        assert find_columns(row) is not None
        return
    with pytest.raises(ValueError, match="unknown order"):
        find_columns(row)


@pytest.mark.parametrize("ids", [[-1] * 2, [-1] * 4, [-1, -1, -1, -4], [-1, -1, -1, 7]])
def test_other_columns_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="unknown order"):
        find_columns(np.array([[5, *ids]]))


@pytest.mark.parametrize("unshown", [False, True])
def test_a_request_that_asks_for_a_report_gets_it(unshown: bool) -> None:
    assert wants_report(report_args(unshown=unshown))
    assert wire.is_unshown(report_args(unshown=unshown)) == unshown


@pytest.mark.parametrize("extra_args", [None, {}, {"other": 1}, dict.fromkeys(report_args(), False)])
def test_a_request_that_asks_for_nothing_gets_nothing(extra_args: dict[str, Any] | None) -> None:
    assert not wants_report(extra_args)
    assert not wire.is_unshown(extra_args)
    assert Membership.of(extra_args) is None


def test_a_membership_reaches_the_engine() -> None:
    own = Membership("e", 1, 2, 3, 4)
    assert Membership.of(own.extra_args()) == own


def test_clients_can_set_none_of_the_keys() -> None:
    keys = {*report_args(), *Membership("e", 1, 2, 3, 4).extra_args()}
    assert all(key.startswith(wire.ARG_PREFIX) for key in keys)


def test_the_module_loads_neither_torch_nor_vllm() -> None:
    code = "import sys, model_impl.wire; sys.exit(bool({'torch', 'vllm', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
