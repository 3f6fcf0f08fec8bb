"""Predictions learned from labels, each for people of whom the fit saw no answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.matching import Flags, Values

FOLDS = 5
PROBE_STRENGTH = 0.01
"""Inverse of the penalty of probes on many inputs (hidden states, internals); elsewhere it is scikit-learn's 1."""

Inputs = npt.NDArray[Any]
Splits = Sequence[tuple[Flags, Flags]]
"""Rows to fit on and rows to judge; every row is judged once."""


def folds_of(groups: Sequence[str], seed: int = 0) -> npt.NDArray[np.int64]:
    """A fold number per example, the same for all of a group (a person); folds are about equally large."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    return np.random.default_rng(seed).permutation(len(names))[place] % FOLDS


def splits_by(folds: npt.NDArray[Any], people: Sequence[str] | None = None) -> Splits:
    """One fold is judged, the others are fitted on.

    Where the folds divide `people`, the fit leaves out those of the fold that is judged altogether.
    """
    names = None if people is None else np.array(people)
    held = [folds == fold for fold in np.unique(folds)]
    return [(~rows if names is None else ~rows & ~np.isin(names, names[rows]), rows) for rows in held]


def crossed(people: Sequence[str], kinds: npt.NDArray[Any]) -> Splits:
    """One kind of one fold of the people is judged; the fit sees neither these people nor this kind."""
    folds = folds_of(people)
    pairs = sorted(set(zip(folds.tolist(), kinds.tolist(), strict=True)))
    return [((folds != fold) & (kinds != kind), (folds == fold) & (kinds == kind)) for fold, kind in pairs]


def predicted(model: Any, inputs: Inputs, label: Flags, splits: Splits) -> Values:
    """Probability of the label by an unfitted scikit-learn model, which is fitted anew for every split: float64 [n]."""
    found = np.full(len(label), np.nan)
    for fit, held in splits:
        fitted = clone(model).fit(inputs[fit], label[fit])
        if hasattr(fitted, "predict_proba"):
            found[held] = fitted.predict_proba(inputs[held])[:, 1]
        else:
            found[held] = fitted.predict(inputs[held])
    return found


def logistic(strength: float = 1.0) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))


def isotonic() -> Any:
    """An increasing function of one signal."""
    return IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")


def text_only() -> Any:
    """Reads the words of question and answer alone, without any model."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    return make_pipeline(words, LogisticRegression(max_iter=2000))
