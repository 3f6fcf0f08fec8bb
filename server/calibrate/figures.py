"""Figures of a risk on labelled answers: discrimination, calibration and selection.

Everywhere `wrong` is bool [n], and `risk` is float64 [n] in [0, 1], higher for answers that are more likely wrong;
figures of the order alone take any numbers. Intervals and bands hold 95 % of a percentile bootstrap over clusters of
answers: int64 [n], numbered from 0.

scikit-learn has AUROC, AUPRC and the Brier score, too, and the tests hold ours to them. Its functions check and sort
the risks at every call: 1.2 ms for the AUROC of a resample of 2,000 answers, where counts per level take 0.02 ms. A
calibration needs some 50,000 such figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]
Indexes = npt.NDArray[np.int64]

BINS = 15
POINTS = 20
"""Points of the risk-coverage curve."""

RESAMPLES = 1000
INTERVAL = 0.95


@dataclass(frozen=True)
class Ranked:
    """Answers by ascending risk, one level per distinct risk, float64 [levels] each; levels may be empty.

    A figure that cuts through a level is the mean over all orders of the answers in it.
    """

    risk: Values
    wrong: Values
    answers: Values

    @property
    def right(self) -> Values:
        return self.answers - self.wrong

    def first(self, sizes: Values, values: Values) -> Values:
        """Float64 [k]: the sums of `values` [levels] over the first `sizes` [k] answers."""
        held = self.answers > 0
        counts, sums = (np.concatenate([[0.0], np.cumsum(part[held])]) for part in (self.answers, values))
        found: Values = np.interp(sizes, counts, sums)
        return found


class Ranking:
    """The levels of one risk, for counting resamples of its answers."""

    def __init__(self, wrong: Flags, risk: Values) -> None:
        self.wrong = wrong
        self.levels, self.place = np.unique(risk, return_inverse=True)

    def counted(self, weights: Values) -> Ranked:
        """Count a resample; `weights`, float64 [n], is how often each answer was drawn."""
        size = len(self.levels)
        wrong, answers = (
            np.bincount(self.place, weights=part, minlength=size).astype(np.float64)
            for part in (weights * self.wrong, weights)
        )
        return Ranked(self.levels, wrong, answers)


def ranked(wrong: Flags, risk: Values) -> Ranked:
    return Ranking(wrong, risk).counted(np.ones(len(wrong)))


def auroc(answers: Ranked) -> float:
    """Probability that a wrong answer has a higher risk than a right one; ties count half."""
    right = answers.right
    below = np.cumsum(right) - right / 2
    return float((answers.wrong @ below) / (answers.wrong.sum() * right.sum()))


def auprc(answers: Ranked) -> float:
    """Average precision of finding wrong answers; the share of wrong answers is what chance reaches."""
    found, flagged = np.cumsum(answers.wrong[::-1]), np.cumsum(answers.answers[::-1])
    precision = found / np.maximum(flagged, 1)
    return float((answers.wrong[::-1] @ precision) / found[-1])


def brier(answers: Ranked) -> float:
    """Mean squared distance of risk and outcome."""
    errors = answers.wrong * (1 - answers.risk) ** 2 + answers.right * answers.risk**2
    return float(errors.sum() / answers.answers.sum())


def reliability(answers: Ranked, bins: int | None = None) -> tuple[Values, Values, Values]:
    """Mean risk, share of wrong answers and number of answers of bins of nearly equal size, float64 [bins].

    The default is 15 bins, or one per answer if there are fewer. With more bins than answers, as in small resamples,
    every bin holds the same fraction of an answer.
    """
    total = round(answers.answers.sum())
    bins = bins or min(BINS, total)
    if total < bins:
        sizes = np.full(bins, total / bins)
    else:
        sizes = (total // bins + (np.arange(bins) < total % bins)).astype(np.float64)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    risk = np.diff(answers.first(ends, answers.risk * answers.answers)) / sizes
    return risk, np.diff(answers.first(ends, answers.wrong)) / sizes, sizes


def ece(answers: Ranked) -> float:
    """Expected calibration error: |mean risk - share wrong| of the bins, weighted by their size."""
    risk, wrong, sizes = reliability(answers)
    return float(np.abs(risk - wrong) @ sizes / sizes.sum())


def chance_eces(risk: Values, draws: int = 100) -> Values:
    """Float64 [draws]: ECEs of a perfectly calibrated risk of these values, above 0 because its bins are finite."""
    generator = np.random.default_rng(0)
    return np.array([ece(ranked(generator.random(len(risk)) < risk, risk)) for _ in range(draws)])


def selective_errors(answers: Ranked) -> Values:
    """Float64 [n]: the share of wrong answers among the k + 1 of lowest risk; equal risks share their errors evenly."""
    kept = np.arange(1, round(answers.answers.sum()) + 1)
    return answers.first(kept, answers.wrong) / kept


def prr(answers: Ranked) -> float:
    """Prediction rejection ratio: the share of the area under the risk-coverage curve between a random and a perfect
    order that this order saves; 1 is perfect, 0 random."""
    errors = selective_errors(answers)
    kept = np.arange(1, len(errors) + 1)
    perfect = (np.maximum(0, kept - answers.right.sum()) / kept).mean()
    random = errors[-1]
    return float((random - errors.mean()) / (random - perfect))


def coverage(size: int) -> Indexes:
    """Int64 [20]: how many of `size` answers are the 5 %, 10 %, ... 100 % of them, one at least."""
    return np.maximum(1, np.rint(np.arange(1, POINTS + 1) * size / POINTS).astype(np.int64))


def risk_coverage(answers: Ranked) -> Values:
    """Float64 [20]: the share of wrong answers among the 5 %, 10 %, ... 100 % of answers with the lowest risk."""
    errors = selective_errors(answers)
    return errors[coverage(len(errors)) - 1]


def conformal_threshold(wrong: Flags, risk: Values, error_rate: float) -> float | None:
    """The risk above which answers must be flagged so that at most `error_rate` of all answers are wrong and unflagged.

    Conformal risk control (Angelopoulos et al. 2022): for answers exchangeable with these, the expected share of wrong
    unflagged ones is at most `error_rate`, however good the risk is. Returns the largest such threshold among the
    observed risks; None if even the lowest is too high.
    """
    answers = ranked(wrong, risk)
    allowed = (np.cumsum(answers.wrong) + 1) / (len(risk) + 1) <= error_rate
    return float(answers.risk[allowed].max()) if allowed.any() else None


Figure = Callable[[Ranked], float]

ORDERING: dict[str, Figure] = {"auroc": auroc, "auprc": auprc, "prr": prr}
"""Figures of the order only, which baselines have as well."""

PROBABILITY: dict[str, Figure] = {"ece": ece, "brier": brier}


def draws(clusters: Indexes) -> Iterator[Values]:
    """Endless bootstrap resamples, always the same: how often each answer is drawn, float64 [n].

    As many clusters as there are are drawn with replacement, each with all its answers.
    """
    generator = np.random.default_rng(0)
    number = int(clusters.max()) + 1
    while True:
        times = np.bincount(generator.integers(number, size=number), minlength=number)
        yield times[clusters].astype(np.float64)


def resamples(wrong: Flags, clusters: Indexes) -> Iterator[Values]:
    """The first RESAMPLES draws that have right and wrong answers; without both, most figures have no value."""
    return islice((weights for weights in draws(clusters) if 0 < weights @ wrong < weights.sum()), RESAMPLES)


class Bootstrap:
    """Figures of one risk on the answers and on every resample.

    All risks of the same answers have the same resamples, so differences between two risks are paired.
    """

    def __init__(self, wrong: Flags, risk: Values, clusters: Indexes) -> None:
        self.ranking, self.clusters = Ranking(wrong, risk), clusters
        self.answers = self.ranking.counted(np.ones(len(wrong)))

    def draws(self, figure: Callable[[Ranked], float | Values]) -> Values:
        """Float64 [RESAMPLES, ...]."""
        return np.array([figure(self.ranking.counted(w)) for w in resamples(self.ranking.wrong, self.clusters)])

    def interval(self, figure: Figure) -> dict[str, float]:
        return interval(figure(self.answers), self.draws(figure))

    def band(self, curve: Callable[[Ranked], Values]) -> Values:
        """Float64 [2, points]: the lower and the upper end at each point of the curve."""
        return ends(self.draws(curve))


def interval(value: float, draws: Values) -> dict[str, float]:
    low, high = ends(draws)
    return {"value": value, "low": float(low), "high": float(high)}


def ends(draws: Values) -> Values:
    """Float64 [2, ...]: the 95 % percentile interval of draws, float64 [draws, ...]; NaN draws are left out."""
    tail = (1 - INTERVAL) / 2
    found: Values = np.nanquantile(draws, (tail, 1 - tail), axis=0)
    return found


def compared(wrong: Flags, risk: Values, others: Mapping[str, Values], clusters: Indexes) -> dict[str, Any]:
    """Figures of each other order of the same answers, by name; `added` is the advantage of `risk` over it."""
    mine = Bootstrap(wrong, risk, clusters)
    values = {key: (figure(mine.answers), mine.draws(figure)) for key, figure in ORDERING.items()}
    found: dict[str, Any] = {name: {"added": {}} for name in others}
    for name, order in others.items():
        other = Bootstrap(wrong, order, clusters)
        for key, figure in ORDERING.items():
            value, draws = figure(other.answers), other.draws(figure)
            found[name][key] = interval(value, draws)
            found[name]["added"][key] = interval(values[key][0] - value, values[key][1] - draws)
    return found


def summary(wrong: Flags, risk: Values, clusters: Indexes) -> dict[str, Any]:
    """All figures of a risk as JSON, with its bins and curve."""
    mine = Bootstrap(wrong, risk, clusters)
    found = reliability(mine.answers)
    bins = zip(*found, *mine.band(lambda answers: reliability(answers, len(found[0]))[1]), strict=True)
    by_chance = chance_eces(risk)
    points = coverage(len(wrong)) / len(wrong), risk_coverage(mine.answers), *mine.band(risk_coverage)
    return {
        **{name: mine.interval(figure) for name, figure in (ORDERING | PROBABILITY).items()},
        "ece_by_chance": interval(float(by_chance.mean()), by_chance),
        "reliability": [
            {"risk": float(mean), "wrong": float(error), "answers": int(size), "low": float(low), "high": float(high)}
            for mean, error, size, low, high in bins
        ],
        "risk_coverage": [
            {"coverage": float(kept), "wrong": float(error), "low": float(low), "high": float(high)}
            for kept, error, low, high in zip(*points, strict=True)
        ],
    }
