"""Predictions learned from labels, each for people of whom the fit saw no answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.matching import Flags, Values

FOLDS = 5
PROBE_STRENGTH = 0.01
"""Inverse of the penalty of probes on many inputs (hidden states, internals); elsewhere it is scikit-learn's 1."""


def folds_of(groups: Sequence[str], seed: int = 0) -> npt.NDArray[np.int64]:
    """A fold number per example, the same for all of a group (a person); folds are about equally large."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    return np.random.default_rng(seed).permutation(len(names))[place] % FOLDS


def logistic(
    inputs: npt.NDArray[np.floating],
    label: Flags,
    folds: npt.NDArray[np.int64],
    strength: float = 1.0,
    people: Sequence[str] | None = None,
) -> Values:
    """Probability of the label by logistic regression on the other folds: inputs [n, k] -> float64 [n].

    Where the folds divide `people`, the fit leaves out those of the fold that is judged altogether.
    """
    found, names = np.full(len(label), np.nan), None if people is None else np.array(people)
    for fold in np.unique(folds):
        held = folds == fold
        fit = ~held if names is None else ~held & ~np.isin(names, names[held])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        found[held] = model.fit(inputs[fit], label[fit]).predict_proba(inputs[held])[:, 1]
    return found


def isotonic(signal: Values, label: Flags, folds: npt.NDArray[np.int64]) -> Values:
    """The probability of the label as an increasing function of the signal, fitted on the other folds."""
    found = np.full(len(label), np.nan)
    for fold in np.unique(folds):
        held = folds == fold
        model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(signal[~held], label[~held])
        found[held] = model.predict(signal[held])
    return found


def text_only(texts: Sequence[str], label: Flags, folds: npt.NDArray[np.int64]) -> Values:
    """The prediction from the words of question and answer alone, without any model."""
    found, array = np.full(len(label), np.nan), np.array(texts)
    for fold in np.unique(folds):
        held = folds == fold
        words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        model = make_pipeline(words, LogisticRegression(max_iter=2000))
        found[held] = model.fit(array[~held], label[~held]).predict_proba(array[held])[:, 1]
    return found
