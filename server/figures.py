"""How good a risk is: discrimination, calibration and selection, on labelled answers.

Everywhere `wrong` is bool [n] and `risk` float64 [n] in [0, 1], higher for answers that are more likely wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]

BINS = 15
RESAMPLES = 1000
INTERVAL = 0.95


def auroc(wrong: Flags, risk: Values) -> float:
    """Probability that a wrong answer has a higher risk than a right one; ties count half."""
    return float(roc_auc_score(wrong, risk))


def auprc(wrong: Flags, risk: Values) -> float:
    """Average precision of finding wrong answers; the share of wrong answers is what chance reaches."""
    return float(average_precision_score(wrong, risk))


def brier(wrong: Flags, risk: Values) -> float:
    """Mean squared distance of risk and outcome."""
    return float(np.mean((risk - wrong) ** 2))


def reliability(wrong: Flags, risk: Values) -> list[dict[str, float]]:
    """Mean risk and share of wrong answers in up to 15 bins of nearly equal size, from the lowest risk up."""
    outcome = mean_outcome(wrong, risk)
    bins = [part for part in np.array_split(np.argsort(risk, kind="stable"), BINS) if len(part)]
    return [
        {"risk": float(risk[part].mean()), "wrong": float(outcome[part].mean()), "answers": len(part)} for part in bins
    ]


def mean_outcome(wrong: Flags, risk: Values) -> Values:
    """Float64 [n]: the share of wrong answers among those with exactly the same risk.

    What is cut between equal risks then does not depend on the order of the data.
    """
    _, place, counts = np.unique(risk, return_inverse=True, return_counts=True)
    outcome: Values = (np.bincount(place, weights=wrong) / counts)[place]
    return outcome


def ece(wrong: Flags, risk: Values) -> float:
    """Expected calibration error: |mean risk - share wrong| of the bins, weighted by their size."""
    return sum(abs(b["risk"] - b["wrong"]) * b["answers"] for b in reliability(wrong, risk)) / len(risk)


def selective_errors(wrong: Flags, risk: Values) -> Values:
    """Float64 [n]: the share of wrong answers among the k + 1 of lowest risk; equal risks share their errors evenly."""
    errors: Values = np.cumsum(mean_outcome(wrong, risk)[np.argsort(risk, kind="stable")])
    return errors / np.arange(1, len(risk) + 1)


def prr(wrong: Flags, risk: Values) -> float:
    """Prediction rejection ratio: how much of the area under the risk-coverage curve that a perfect order would save
    over a random one this order saves; 1 perfect, 0 random."""
    perfect = selective_errors(wrong, wrong.astype(np.float64)).mean()
    random = wrong.mean()
    return float((random - selective_errors(wrong, risk).mean()) / (random - perfect))


def risk_coverage(wrong: Flags, risk: Values) -> list[dict[str, float]]:
    """The share of wrong answers among the 10 %, 20 %, ... 100 % of answers with the lowest risk."""
    errors = selective_errors(wrong, risk)
    kept = [max(1, round(share * len(errors) / 10)) for share in range(1, 11)]
    return [{"coverage": k / len(errors), "wrong": float(errors[k - 1])} for k in kept]


def conformal_threshold(wrong: Flags, risk: Values, error_rate: float) -> float | None:
    """The risk above which answers must be flagged so that at most `error_rate` of all answers are wrong and unflagged.

    Conformal risk control (Angelopoulos et al. 2022): for answers exchangeable with these, the expected share of wrong
    unflagged ones stays at or below `error_rate`, whatever the risk is worth. The largest such threshold among the
    risks seen; None if even the lowest is too high.
    """
    order = np.argsort(risk, kind="stable")
    sorted_risk = risk[order]
    errors = np.cumsum(wrong[order])  # [k]: wrong answers with a risk of at most sorted_risk[k], once ties are over
    last_of_ties = np.append(sorted_risk[1:] != sorted_risk[:-1], True)
    allowed = last_of_ties & ((errors + 1) / (len(risk) + 1) <= error_rate)
    return float(sorted_risk[allowed].max()) if allowed.any() else None


ORDERING: dict[str, Callable[[Flags, Values], float]] = {"auroc": auroc, "auprc": auprc, "prr": prr}
"""Figures that depend on the order of the risks only, which baselines have as well."""

PROBABILITY: dict[str, Callable[[Flags, Values], float]] = {"ece": ece, "brier": brier}


def with_interval(
    figure: Callable[[Flags, Values], float], wrong: Flags, risk: Values, seed: int = 0
) -> dict[str, float]:
    """`value` of a figure, and `low` and `high` of its 95 % percentile bootstrap interval.

    Resamples in which all or none are wrong are drawn again, as most figures have no value there. The same `seed`
    draws the same resamples for any figure and risk.
    """
    generator = np.random.default_rng(seed)
    drawn: list[float] = []
    while len(drawn) < RESAMPLES:
        rows = generator.integers(len(wrong), size=len(wrong))
        if 0 < wrong[rows].sum() < len(wrong):
            drawn.append(figure(wrong[rows], risk[rows]))
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail))
    return {"value": figure(wrong, risk), "low": float(low), "high": float(high)}


def summary(wrong: Flags, risk: Values, baselines: dict[str, Values]) -> dict[str, Any]:
    """All figures as JSON: of the risk, with its bins and curve, and how well the baselines alone order the answers."""
    orders = {
        baseline: {name: with_interval(figure, wrong, values) for name, figure in ORDERING.items()}
        for baseline, values in baselines.items()
    }
    return {
        **{name: with_interval(figure, wrong, risk) for name, figure in (ORDERING | PROBABILITY).items()},
        "baselines": orders,
        "reliability": reliability(wrong, risk),
        "risk_coverage": risk_coverage(wrong, risk),
    }
