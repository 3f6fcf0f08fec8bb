"""Every figure against another implementation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from server.calibrate import figures
from server.calibrate.figures import Flags, Indexes, Values, ranked


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
    assert figures.auroc(ranked(wrong, risk)) == pytest.approx(
        mannwhitneyu(risk[wrong], risk[~wrong]).statistic / pairs
    )


@given(labelled())
def test_auprc_is_scikit_learns_average_precision(answers: tuple[Flags, Values]) -> None:
    assert figures.auprc(ranked(*answers)) == pytest.approx(average_precision_score(*answers))


@given(labelled())
def test_the_brier_score_is_scikit_learns(answers: tuple[Flags, Values]) -> None:
    assert figures.brier(ranked(*answers)) == pytest.approx(brier_score_loss(*answers))


def test_ece_of_bins_counted_by_hand() -> None:
    risk = np.repeat(np.linspace(0.1, 0.9, 15), 4)
    wrong = np.tile([True, False, False, False], 15)
    expected = np.abs(np.linspace(0.1, 0.9, 15) - 0.25).mean()
    assert figures.ece(ranked(wrong, risk)) == pytest.approx(expected)
    mean_risk, share_wrong, sizes = figures.reliability(ranked(wrong, risk))
    assert mean_risk == pytest.approx(np.linspace(0.1, 0.9, 15))
    assert share_wrong == pytest.approx(np.full(15, 0.25))
    assert sizes.tolist() == [4] * 15


@given(labelled())
def test_bins_that_cut_equal_risks_share_their_errors_evenly(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    mean_risk, share_wrong, sizes = figures.reliability(ranked(wrong, risk))
    outcome = np.array([wrong[risk == value].mean() for value in risk])
    parts = [part for part in np.array_split(np.argsort(risk), 15) if len(part)]
    assert sizes.tolist() == [len(part) for part in parts]
    assert mean_risk == pytest.approx([risk[part].mean() for part in parts])
    assert share_wrong == pytest.approx([outcome[part].mean() for part in parts])


@given(labelled(), st.integers(1, 80))
def test_bins_hold_the_same_parts_of_answers_where_there_are_more_bins(
    answers: tuple[Flags, Values], bins: int
) -> None:
    """With more bins than answers, each answer counts in several bins, as that many copies of all answers would."""
    wrong, risk = answers
    found = figures.reliability(ranked(wrong, risk), bins)
    assert all(len(values) == bins for values in found)
    assert found[2].sum() == pytest.approx(len(risk))
    if bins > len(risk):
        assert found[2] == pytest.approx(np.full(bins, len(risk) / bins))
        copies = figures.reliability(ranked(np.repeat(wrong, bins), np.repeat(risk, bins)), bins)
        assert found[0] == pytest.approx(copies[0])
        assert found[1] == pytest.approx(copies[1])


def test_ece_falls_towards_zero_for_true_probabilities_and_not_for_false_ones() -> None:
    generator = np.random.default_rng(0)
    risk = generator.random(100_000)
    wrong = generator.random(100_000) < risk
    assert figures.ece(ranked(wrong, risk)) < 0.005
    assert figures.ece(ranked(wrong, risk**2)) == pytest.approx(1 / 6, abs=0.01)  # mean of x - x^2


@given(labelled(), st.randoms())
def test_no_figure_depends_on_the_order_of_the_answers(answers: tuple[Flags, Values], shuffle: object) -> None:
    wrong, risk = answers
    order = np.arange(len(risk))
    shuffle.shuffle(order)  # type: ignore[attr-defined]
    for figure in (figures.ORDERING | figures.PROBABILITY).values():
        assert figure(ranked(wrong[order], risk[order])) == pytest.approx(figure(ranked(wrong, risk)))
    assert figures.conformal_threshold(wrong[order], risk[order], 0.3) == figures.conformal_threshold(wrong, risk, 0.3)


@given(labelled())
def test_selective_errors_are_the_mean_over_all_orders_of_equal_risks(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    generator = np.random.default_rng(0)
    runs = []
    for _ in range(4000 if len(risk) < 6 else 0):
        order = np.lexsort((generator.random(len(risk)), risk))
        runs.append(np.cumsum(wrong[order]) / np.arange(1, len(risk) + 1))
    found = figures.selective_errors(ranked(wrong, risk))
    if runs:
        assert found == pytest.approx(np.mean(runs, axis=0), abs=0.05)
    assert found[-1] == pytest.approx(wrong.mean())


def test_prr_of_perfect_random_and_reversed_orders() -> None:
    wrong = np.arange(10_000) % 4 == 0
    assert figures.prr(ranked(wrong, wrong.astype(float))) == pytest.approx(1)
    assert figures.prr(ranked(wrong, np.zeros(len(wrong)))) == pytest.approx(0)
    assert figures.prr(ranked(wrong, np.random.default_rng(0).random(len(wrong)))) == pytest.approx(0, abs=0.05)
    assert figures.prr(ranked(wrong, 1 - wrong.astype(float))) < -0.5


def test_prr_by_hand() -> None:
    """Four answers, one wrong, second in order: errors 0, 1/2, 1/3, 1/4 against 0, 0, 0, 1/4 and 1/4 everywhere."""
    found = figures.prr(ranked(np.array([False, True, False, False]), np.array([0.1, 0.2, 0.3, 0.4])))
    mean = (0 + 1 / 2 + 1 / 3 + 1 / 4) / 4
    assert found == pytest.approx((1 / 4 - mean) / (1 / 4 - 1 / 16))


def test_risk_coverage_counts_the_answers_kept() -> None:
    kept = figures.coverage(10)
    assert kept.tolist() == [1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 8, 8, 8, 9, 10, 10]  # halves go to even numbers
    found = figures.risk_coverage(ranked(np.array([False] * 5 + [True] * 5), np.linspace(0, 1, 10)))
    assert found == pytest.approx(np.maximum(0, kept - 5) / kept)


@given(labelled(), st.floats(0.01, 0.99))
def test_the_threshold_is_the_largest_that_the_definition_allows(answers: tuple[Flags, Values], rate: float) -> None:
    wrong, risk = answers
    allowed = [t for t in set(risk) if ((wrong & (risk <= t)).sum() + 1) / (len(risk) + 1) <= rate]
    assert figures.conformal_threshold(wrong, risk, rate) == (max(allowed) if allowed else None)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3])
def test_the_threshold_keeps_its_promise_on_new_answers(rate: float) -> None:
    """The rate holds also for risks that are no probabilities, and is missed by little more than chance demands."""
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
    """Also where answers come in clusters of three that are all right or all wrong."""
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    generator = np.random.default_rng(2)
    for size in (1, 3):
        covered = 0
        for _ in range(100):
            risk = generator.random(200)
            wrong = np.repeat(generator.random(200) < risk, size)
            clusters = np.repeat(np.arange(200), size)
            found = figures.Bootstrap(wrong, np.repeat(risk, size), clusters).interval(figures.brier)
            assert found["low"] <= found["value"] <= found["high"]
            covered += found["low"] <= 1 / 6 <= found["high"]  # mean of p (1 - p)
        assert 87 <= covered <= 99


@given(labelled())
def test_a_resample_has_the_figures_of_the_answers_that_were_drawn(answers: tuple[Flags, Values]) -> None:
    wrong, risk = answers
    ranking = figures.Ranking(wrong, risk)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "RESAMPLES", 3)
        drawn = list(figures.resamples(wrong, np.arange(len(wrong))))
    assert len(drawn) == 3
    for weights in drawn:
        rows = np.repeat(np.arange(len(wrong)), weights.astype(int))
        assert len(rows) == len(wrong)
        alone = ranked(wrong[rows], risk[rows])
        for figure in (*figures.ORDERING.values(), *figures.PROBABILITY.values()):
            assert figure(ranking.counted(weights)) == pytest.approx(figure(alone))
        assert figures.risk_coverage(ranking.counted(weights)) == pytest.approx(figures.risk_coverage(alone))


def clustered(size: int, seed: int) -> tuple[Flags, Values, Values, Indexes]:
    """Answers in pairs, a good risk and a worse one that goes with it."""
    generator = np.random.default_rng(seed)
    risk = generator.random(size)
    return (
        generator.random(size) < risk,
        risk,
        np.clip(risk + generator.normal(0, 0.3, size), 0, 1),
        np.arange(size) // 2,
    )


def test_differences_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same draws of whole clusters; so they are narrower than those of two figures by themselves."""
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    wrong, risk, other, clusters = clustered(400, 5)
    found = figures.compared(wrong, risk, {"other": other, "same": risk}, clusters)
    drawn = []
    for weights in figures.resamples(wrong, clusters):
        assert (weights[::2] == weights[1::2]).all()
        rows = np.repeat(np.arange(len(wrong)), weights.astype(int))
        drawn.append(roc_auc_score(wrong[rows], risk[rows]) - roc_auc_score(wrong[rows], other[rows]))
    added = found["other"]["added"]["auroc"]
    assert added["value"] == pytest.approx(roc_auc_score(wrong, risk) - roc_auc_score(wrong, other))
    assert (added["low"], added["high"]) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))))
    assert added["low"] > 0
    assert added["high"] - added["low"] < found["other"]["auroc"]["high"] - found["other"]["auroc"]["low"]
    for key in figures.ORDERING:
        assert found["same"]["added"][key] == {"value": 0, "low": 0, "high": 0}


def test_a_summary_has_bands_around_its_bins_and_its_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESAMPLES", 200)
    wrong, risk, _, clusters = clustered(3000, 6)
    found = figures.summary(wrong, risk, clusters)
    assert len(found["reliability"]) == figures.BINS
    assert len(found["risk_coverage"]) == figures.POINTS
    for point in (*found["reliability"], *found["risk_coverage"]):
        assert 0 <= point["low"] <= point["wrong"] <= point["high"] <= 1
    inside = [b["low"] <= b["risk"] <= b["high"] for b in found["reliability"]]
    assert sum(inside) >= figures.BINS - 3  # the risks are the true probabilities
