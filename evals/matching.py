"""Comparison of two kinds of questions at equal entropy, and weighted figures for bootstrap and matching."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from server.calibrate import figures
from server.calibrate.figures import Flags, Values

BIN = 0.1
"""nats: questions of equal entropy lie in the same bin of this width."""

RESAMPLES = 500


def weighted_auroc(positive: Flags, score: Values, weights: Values) -> Values:
    """AUROC for every row of weights [R, n] of the examples: float64 [R]; ties count half.

    A weight of k counts an example k times, so a bootstrap resample is a row of counts. NaN where a side has none.
    """
    ranking = figures.Ranking(positive, score)
    with np.errstate(invalid="ignore"):
        return np.array([figures.auroc(ranking.counted(row)) for row in weights])


def matching_weights(positive: Flags, entropy: Values, weights: Values) -> Values:
    """Weights [R, n] after which both kinds have the same histogram of entropy, in bins of BIN.

    In every bin the more frequent kind is weighted down to the less frequent one. Drawing equally many of each gives
    the same on average, but with noise.
    """
    _, place = np.unique(np.floor(entropy / BIN), return_inverse=True)
    bins = np.arange(place.max() + 1)[:, None] == place  # [bins, n]
    up, down = (weights * positive) @ bins.T, (weights * ~positive) @ bins.T  # [R, bins]
    least = np.minimum(up, down)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor_up = np.where(up > 0, least / up, 0.0)
        factor_down = np.where(down > 0, least / down, 0.0)
    matched: Values = weights * np.where(positive, factor_up[:, place], factor_down[:, place])
    return matched


def resample_counts(groups: Sequence[str]) -> Values:
    """Float64 [1 + RESAMPLES, n]: a row of ones, then how often each example is in a bootstrap resample of the groups.

    Groups, here people, are drawn with all their answers, since answers about one person are not independent. The same
    groups give the same resamples, so that figures of several signals can be compared pair by pair.
    """
    _, place = np.unique(np.array(groups), return_inverse=True)
    return np.vstack([np.ones(len(place)), *islice(figures.draws(place), RESAMPLES)])


def interval(values: Values) -> dict[str, float]:
    """`value`, the first, and `low` and `high` of the 95 % percentile interval of the others."""
    return figures.interval(float(values[0]), values[1:])


def matched_auroc(positive: Flags, score: Values, entropy: Values, weights: Values) -> Values:
    """AUROC at matched entropy, for every row of weights."""
    return weighted_auroc(positive, score, matching_weights(positive, entropy, weights))
