"""Which statistics wait in the engine, and which columns of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.outputs import LogprobsLists

from model_impl.holding_scheduler import can_wait, columns_of_the_chosen, joined
from model_impl.uncertainty import INTERNALS_ARG, INTERNALS_ID, PROVENANCE_ID, STATISTICS_ID, UNSHOWN_ARG


@pytest.mark.parametrize(
    ("options", "wanted", "waits"),
    [
        ({}, {UNSHOWN_ARG: True}, True),
        ({}, {UNSHOWN_ARG: False}, False),
        ({}, None, False),
        ({"stop": ["."]}, {UNSHOWN_ARG: True}, False),
        ({"stop_token_ids": [3]}, {UNSHOWN_ARG: True}, True),
        ({}, {UNSHOWN_ARG: True, INTERNALS_ARG: True}, False),
    ],
)
def test_only_what_nobody_misses_waits(options: dict[str, Any], wanted: dict[str, bool] | None, waits: bool) -> None:
    assert can_wait(SamplingParams(logprobs=0, extra_args=wanted, **options)) is waits
    assert not can_wait(None)


@pytest.mark.parametrize("alternatives", [0, 2])
@pytest.mark.parametrize("provenance", [0, 3])
@pytest.mark.parametrize("internals", [0, 5])
def test_other_requests_columns_are_left_out(alternatives: int, provenance: int, internals: int) -> None:
    own = [7, *[STATISTICS_ID] * 3, *[PROVENANCE_ID] * provenance]
    row = [*own[:1], *range(100, 100 + alternatives), *own[1:], *[INTERNALS_ID] * internals]
    ids = np.array([row, row])
    assert ids[:, columns_of_the_chosen(ids)].tolist() == [own, own]


def test_parts_of_different_widths_are_cut_to_the_narrowest() -> None:
    parts = [
        LogprobsLists(np.full((1, width), i), np.full((1, width), float(i)), np.array([i]))
        for i, width in enumerate((4, 6, 4))
    ]
    found = joined(parts)
    assert found.logprob_token_ids.tolist() == [[i] * 4 for i in range(3)]
    assert found.logprobs.tolist() == [[float(i)] * 4 for i in range(3)]
    assert found.sampled_token_ranks.tolist() == [0, 1, 2]
