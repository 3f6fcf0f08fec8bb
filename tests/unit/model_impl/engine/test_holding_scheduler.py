"""The choice of statistics, and of their columns, that wait in the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.outputs import LogprobsLists

from model_impl.engine.scheduler import can_wait, joined
from model_impl.wire import EPISTEMIC_ID, GROWTH_ID, STATISTICS_ID, UNSHOWN_ARG


@pytest.mark.parametrize(
    ("options", "wanted", "waits"),
    [
        ({}, {UNSHOWN_ARG: True}, True),
        ({}, {UNSHOWN_ARG: False}, False),
        ({}, None, False),
        ({"stop": ["."]}, {UNSHOWN_ARG: True}, False),
        ({"stop_token_ids": [3]}, {UNSHOWN_ARG: True}, True),
    ],
)
def test_only_what_nobody_misses_waits(options: dict[str, Any], wanted: dict[str, bool] | None, waits: bool) -> None:
    assert can_wait(SamplingParams(logprobs=0, extra_args=wanted, **options)) is waits
    assert not can_wait(None)


def step(*ids: int) -> LogprobsLists:
    """One row, in which a column's value is 10 times its token id."""
    return LogprobsLists(np.array([ids]), np.array([ids]) * 10.0, np.array([ids[0] + 1]))


OWN = (*[STATISTICS_ID] * 3, EPISTEMIC_ID, *[GROWTH_ID] * 2)


@pytest.mark.parametrize("alternatives", [(), (40, 41)])
def test_other_requests_alternatives_are_left_out(alternatives: tuple[int, ...]) -> None:
    """In all steps, or in some."""
    wide = [step(token, *alternatives, *OWN) for token in (7, 8)]
    for steps in (wide, [step(6, *OWN), *wide], [*wide, step(9, *OWN)]):
        found = joined(steps)
        tokens = [int(one.logprob_token_ids[0, 0]) for one in steps]
        assert found.logprob_token_ids.tolist() == [[token, *OWN] for token in tokens]
        assert found.logprobs.tolist() == [[10.0 * word for word in (token, *OWN)] for token in tokens]
        assert found.sampled_token_ranks.tolist() == [token + 1 for token in tokens]


def test_as_many_columns_may_be_others() -> None:
    found = joined([step(7, *OWN), step(8, 40, 41, *OWN[:3])])
    assert found.logprob_token_ids.tolist() == [[7, *OWN[:3]], [8, *OWN[:3]]]


def test_growth_that_some_steps_lack_is_cut() -> None:
    found = joined([step(7, *OWN[:4]), step(8, *OWN), step(9, *OWN[:4])])
    assert found.logprob_token_ids.tolist() == [[token, *OWN[:4]] for token in (7, 8, 9)]


def test_an_engine_that_reports_none() -> None:
    assert joined([step(7), step(8)]).logprob_token_ids.tolist() == [[7], [8]]
