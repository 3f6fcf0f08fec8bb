"""A choice's summary."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.scoring import LOWEST_LOGPROB, ChoiceScore

TOKENS = [(-0.1, 0.4, 0.7), (-2.3, 2.9, 1.1), (-0.5, 0.0, 0.0)]


def score_of(tokens: list[tuple[float, float, float]]) -> ChoiceScore:
    score = ChoiceScore()
    for token in tokens:
        score.add(*token)
    return score


def test_the_summary_aggregates_its_tokens() -> None:
    summary = score_of(TOKENS).summary()
    assert summary.tokens == 3
    assert summary.mean_entropy == pytest.approx((0.4 + 2.9) / 3)
    assert summary.max_entropy == 2.9
    assert summary.first_token_entropy == 0.4
    assert summary.mean_variance == pytest.approx((0.7 + 1.1) / 3)
    assert summary.min_logprob == -2.3
    assert summary.unit == "nat"
    assert (summary.risk, summary.calibrated, summary.calibration) == (None, False, None)


def test_nothing_generated_gives_null_and_no_sentinel() -> None:
    values = ChoiceScore().summary().model_dump()
    assert values.pop("tokens") == 0
    assert values.pop("unit") == "nat"
    assert values.pop("calibrated") is False
    assert set(values.values()) == {None}


def test_a_probability_of_zero_is_clamped_as_json_has_no_infinity() -> None:
    summary = score_of([(-math.inf, 0.5, 0.5), (-1.0, 0.5, 0.5)]).summary()
    assert summary.min_logprob == LOWEST_LOGPROB
    assert "Infinity" not in summary.model_dump_json()


statistic = st.floats(0, 20)


@given(st.lists(st.tuples(st.floats(-30, 0), statistic, statistic), min_size=1))
def test_every_prefix_has_the_summary_it_would_have_alone(tokens: list[tuple[float, float, float]]) -> None:
    running = ChoiceScore()
    for length, token in enumerate(tokens, start=1):
        running.add(*token)
        summary, prefix = running.summary(), tokens[:length]
        assert summary == score_of(prefix).summary()
        assert summary.max_entropy == max(entropy for _, entropy, _ in prefix)
        assert summary.min_logprob == min(logprob for logprob, _, _ in prefix)
        assert summary.mean_entropy == pytest.approx(sum(entropy for _, entropy, _ in prefix) / length)
        assert summary.first_token_entropy == tokens[0][1]
