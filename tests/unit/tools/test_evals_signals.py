"""The baselines' formulas against independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import psi
from scipy.stats import entropy, rankdata
from sklearn.metrics import roc_auc_score

from evals.answers import Answer
from evals.epr import RANKS, epr, wepr_features
from evals.matching import (
    BIN,
    RESAMPLES,
    interval,
    matched_auroc,
    matching_weights,
    resample_counts,
    weighted_auroc,
)
from evals.signals import agreement_signals, answer_signals, logtoku, rank_sum, self_certainty, token_signals

LOGITS = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).double() * 3
TOKENS = LOGITS.argmax(dim=-1)


def draw(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores with ties that go with them, and entropies."""
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    return positive, np.round(rng.normal(size=n) + positive, 1), rng.random(n) + 0.3 * positive


def test_token_signals_are_those_of_scipy() -> None:
    found = token_signals(LOGITS, TOKENS)
    p = LOGITS.softmax(dim=-1).numpy()
    surprisal = -np.log(p)
    assert found["entropy"].numpy() == pytest.approx(entropy(p, axis=-1), abs=1e-5)
    variance = [np.cov(row, aweights=weights, bias=True) for row, weights in zip(surprisal, p, strict=True)]
    assert found["variance"].numpy() == pytest.approx(np.array(variance), abs=1e-4)
    ordered = np.sort(p, axis=-1)
    assert found["margin"].numpy() == pytest.approx(ordered[:, -2] - ordered[:, -1], abs=1e-5)
    assert found["surprisal"].numpy() == pytest.approx(surprisal.min(axis=-1), abs=1e-9)
    assert found["logsumexp"].numpy() == pytest.approx(-np.logaddexp.reduce(LOGITS.numpy(), axis=-1))


def test_self_certainty_is_the_divergence_of_the_distribution_from_uniform() -> None:
    p = LOGITS.softmax(dim=-1).numpy()
    uniform = np.full(p.shape[-1], 1 / p.shape[-1])
    expected = [entropy(uniform, row) for row in p]
    assert self_certainty(LOGITS.log_softmax(dim=-1)).numpy() == pytest.approx(np.array(expected))


def test_logtoku_is_the_papers_formula_on_the_ten_highest_logits() -> None:
    aleatoric, epistemic = logtoku(LOGITS)
    for row, au, eu in zip(LOGITS.numpy(), aleatoric.tolist(), epistemic.tolist(), strict=True):
        alpha = np.maximum(np.sort(row)[-10:], 0)
        total = alpha.sum()
        assert au == pytest.approx(-np.sum(alpha / total * (psi(alpha + 1) - psi(total + 1))))
        assert eu == pytest.approx(10 / np.sum(alpha + 1))


def test_an_answer_takes_the_worst_of_its_value_and_the_mean_of_all() -> None:
    tokens = token_signals(LOGITS, TOKENS)
    found = answer_signals(tokens, slice(2, 4))
    assert found["max_probability"] == max(tokens["top_surprisal"][2:4].tolist())
    assert found["entropy_first"] == float(tokens["entropy"][2])
    assert found["entropy_last"] == float(tokens["entropy"][3])
    assert found["variance_mean"] == pytest.approx(float(tokens["variance"].mean()))
    assert math.exp(-found["sequence_probability"]) == pytest.approx(
        float(LOGITS.softmax(dim=-1).max(dim=-1).values.prod())
    )


def test_agreement_counts_equal_answers_as_one_cluster() -> None:
    samples = [Answer((1, 2), 6, 5.0), Answer((1, 3), 3, 4.0), Answer((4,), 1, 1.0)]
    found = agreement_signals((1, 2), 5.5, samples)
    assert found["semantic_entropy"] == pytest.approx(entropy([0.6, 0.3, 0.1]))
    assert found["disagreement"] == pytest.approx(0.4)
    assert found["semantic_energy"] == pytest.approx(-(5.5 + 6 * 5.0) / 11)
    assert agreement_signals((9,), 5.5, samples)["disagreement"] == 1.0


def test_ranks_are_summed_as_scipy_ranks_them() -> None:
    _, a, b = draw(0)
    expected = (rankdata(a) + rankdata(b)) / (2 * len(a))
    assert rank_sum(a, b) == pytest.approx(expected)


def test_weighted_auroc_is_that_of_scikit_learn() -> None:
    positive, score, _ = draw(1)
    weights = np.random.default_rng(2).integers(0, 4, size=(5, len(score))).astype(float)
    expected = [roc_auc_score(positive, score, sample_weight=row) for row in weights]
    assert weighted_auroc(positive, score, weights) == pytest.approx(np.array(expected))


def test_matching_makes_the_histograms_of_entropy_equal_and_blind_to_it() -> None:
    positive, score, level = draw(3, 2000)
    ones = np.ones((1, len(level)))
    weights = matching_weights(positive, level, ones)[0]
    bins = np.floor(level / BIN)
    for place in np.unique(bins):
        here = bins == place
        assert weights[here & positive].sum() == pytest.approx(weights[here & ~positive].sum())
        assert weights[here].sum() / 2 <= min((here & positive).sum(), (here & ~positive).sum()) + 1e-9
    assert weighted_auroc(positive, level, ones)[0] > 0.6
    assert matched_auroc(positive, level, level, ones)[0] == pytest.approx(0.5, abs=0.02)
    assert matched_auroc(positive, score, level, ones)[0] > 0.7


def test_a_person_is_drawn_with_all_answers_and_equally_for_every_signal() -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    counts = resample_counts(groups)
    assert counts.shape == (1 + RESAMPLES, 6)
    assert (counts[0] == 1).all() and (counts[:, 0] == counts[:, 1]).all() and (counts[:, 3] == counts[:, 5]).all()
    assert (counts[1:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert np.array_equal(counts, resample_counts(groups))


def test_an_interval_holds_the_value_and_most_resamples() -> None:
    found = interval(np.append(0.5, np.linspace(0, 1, 1001)))
    assert found == pytest.approx({"value": 0.5, "low": 0.025, "high": 0.975})


def test_wepr_has_the_mean_and_the_maximum_of_each_ranks_part_of_the_entropy() -> None:
    log_probs = LOGITS.log_softmax(dim=-1).numpy()
    p = -np.sort(-np.exp(log_probs), axis=-1)[:, :RANKS]
    parts = [[-x * math.log(x) for x in row] for row in p.tolist()]
    found = wepr_features(log_probs)
    for rank, column in enumerate(zip(*parts, strict=True)):
        assert found[rank] == pytest.approx(sum(column) / len(column))
        assert found[RANKS + rank] == pytest.approx(max(column))
    assert epr(found) == pytest.approx(np.mean([sum(row) for row in parts]))
    assert 0 < epr(found) < entropy(np.exp(log_probs), axis=-1).mean()
