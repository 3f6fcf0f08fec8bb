"""Every figure against another implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu
from sklearn.metrics import brier_score_loss

from server import figures
from server.figures import Flags, Values


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Flags, Values]:
    """Answers of both kinds; many risks are equal."""
    size = draw(st.integers(2, 60))
    wrong = draw(arrays(bool, size).filter(lambda flags: 0 < flags.sum() < len(flags)))
    steps = draw(st.integers(1, 50))
    return wrong, draw(arrays(np.int64, size, elements=st.integers(0, steps))) / steps


@given(labelled())
def test_auroc_is_the_share_of_pairs_in_order(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    pairs = wrong.sum() * (~wrong).sum()
    assert figures.auroc(wrong, risk) == pytest.approx(mannwhitneyu(risk[wrong], risk[~wrong]).statistic / pairs)


@given(labelled())
def test_auprc_is_the_mean_precision_where_recall_grows(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    area, recall = 0.0, 0.0
    for limit in sorted(set(risk), reverse=True):
        taken = risk >= limit
        found = wrong[taken].sum() / wrong.sum()
        area += (found - recall) * wrong[taken].mean()
        recall = found
    assert figures.auprc(wrong, risk) == pytest.approx(area)


@given(labelled())
def test_brier_score(answers: tuple[Flags, Values]) -> None:
    assert figures.brier(*answers) == pytest.approx(brier_score_loss(*answers))


def test_ece_of_bins_counted_by_hand() -> None:
    risk = np.repeat(np.linspace(0.1, 0.9, 15), 4)
    wrong = np.tile([True, False, False, False], 15)
    expected = np.abs(np.linspace(0.1, 0.9, 15) - 0.25).mean()
    assert figures.ece(wrong, risk) == pytest.approx(expected)
    assert [b["answers"] for b in figures.reliability(wrong, risk)] == [4] * 15


def test_ece_falls_towards_zero_for_true_probabilities_and_not_for_false_ones() -> None:
    generator = np.random.default_rng(0)
    risk = generator.random(100_000)
    wrong = generator.random(100_000) < risk
    assert figures.ece(wrong, risk) < 0.005
    assert figures.ece(wrong, risk**2) == pytest.approx(1 / 6, abs=0.01)  # mean of x - x^2


@given(labelled(), st.randoms())
def test_no_figure_depends_on_the_order_of_the_answers(answers: tuple[Flags, Values], shuffle: object) -> None:
    wrong, risk = answers
    order = np.arange(len(risk))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    for figure in (figures.ORDERING | figures.PROBABILITY).values():
        assert figure(wrong[order], risk[order]) == pytest.approx(figure(wrong, risk))
    assert figures.conformal_threshold(wrong[order], risk[order], 0.3) == figures.conformal_threshold(wrong, risk, 0.3)


@given(labelled())
def test_selective_errors_are_the_mean_over_all_orders_of_equal_risks(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(4000 if len(risk) < 6 else 0):
        order = np.lexsort((generator.random(len(risk)), risk))
        runs.append(np.cumsum(wrong[order]) / np.arange(1, len(risk) + 1))
    found = figures.selective_errors(wrong, risk)
    if runs:
        assert found == pytest.approx(np.mean(runs, axis=0), abs=0.05)
    assert found[-1] == pytest.approx(wrong.mean())


def test_prr_of_perfect_random_and_reversed_orders() -> None:
    wrong = np.arange(10_000) % 4 == 0
    assert figures.prr(wrong, wrong.astype(float)) == pytest.approx(1)
    assert figures.prr(wrong, np.zeros(len(wrong))) == pytest.approx(0)
    assert figures.prr(wrong, np.random.default_rng(0).random(len(wrong))) == pytest.approx(0, abs=0.05)
    assert figures.prr(wrong, 1 - wrong.astype(float)) < -0.5


def test_prr_by_hand() -> None:
    """Four answers, one wrong, second in order: errors 0, 1/2, 1/3, 1/4 against 0, 0, 0, 1/4 and 1/4 everywhere."""
    found = figures.prr(np.array([False, True, False, False]), np.array([0.1, 0.2, 0.3, 0.4]))
    mean = (0 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert found == pytest.approx((1 / 4 - mean) / (1 / 4 - 1 / 16))


def test_risk_coverage_counts_the_answers_kept() -> None:
    points = figures.risk_coverage(np.array([False] * 5 + [True] * 5), np.linspace(0, 1, 10))
    assert [point["coverage"] for point in points] == pytest.approx([k / 10 for k in range(1, 11)])
    assert [point["wrong"] for point in points] == pytest.approx([0] * 5 + [1 / 6, 2 / 7, 3 / 8, 4 / 9, 1 / 2])


@given(labelled(), st.floats(0.01, 0.99))
def test_the_threshold_is_the_largest_that_the_definition_allows(answers: tuple[Flags, Values], rate: float) -> None:
    wrong, risk = answers
    allowed = [t for t in set(risk) if ((wrong & (risk <= t)).sum() + 1) / (len(risk) + 1) <= rate]
    assert figures.conformal_threshold(wrong, risk, rate) == (max(allowed) if allowed else None)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_threshold_keeps_its_promise_on_new_answers(rate: float) -> None:
    """Also of risks that are no probabilities at all, and not by much more than chance demands."""
    generator = np.random.default_rng(1)
    missed = []
    for _ in range(400):
        chance = generator.random(300)
        wrong, risk = generator.random(300) < chance, chance**3
        above = figures.conformal_threshold(wrong[:200], risk[:200], rate)
        assert above is not None
        missed.append((wrong[200:] & (risk[200:] <= above)).mean())
    noise = 3 * np.std(missed) / np.sqrt(len(missed))
    assert rate - 0.01 - noise < np.mean(missed) < rate + noise


def test_intervals_cover_the_truth_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(100):
        risk = generator.random(200)
        found = figures.with_interval(figures.brier, generator.random(200) < risk, risk)
        assert found["low"] <= found["value"] <= found["high"]
        covered += found["low"] <= 1 / 6 <= found["high"]  # mean of p (1 - p)
    assert 87 <= covered <= 99
