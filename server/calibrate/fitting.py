"""From scored answers to the parameters of a calibration. scikit-learn fits; serving does not need it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from server.calibrate.figures import Flags, Indexes, Values
from server.calibrate.labels import FEWEST
from server.uncertainty.calibration import Calibration, CalibrationError, Method
from server.uncertainty.features import AGGREGATES, GROUPS, term, terms

FIT_SHARE = 0.5
"""Share of the questions to fit on; the others are held out. Half each: figures need as many answers as the fit."""

ISOTONIC_FEATURE = "max_entropy"
"""The input of isotonic calibration: the strongest single baseline that does not depend on the sampling."""

FOLDS = 5
INVERSE_PENALTIES = np.logspace(-3, 2, 6)
"""Values of scikit-learn's C for the probe, among which cross-validation chooses."""

LOG_LIKELIHOOD = make_scorer(log_loss, greater_is_better=False, response_method="predict_proba", labels=(False, True))
"""scikit-learn's `neg_log_loss`, which also takes a fold of only right or only wrong answers."""


@dataclass(frozen=True)
class Answers:
    """Scored answers: their features by name, which ones are wrong, the number of their cluster, int64 [n], and their
    topics.

    Answers of one cluster (one question, or one group of labels) are not independent.
    """

    features: Sequence[Mapping[str, float]]
    wrong: Flags
    clusters: Indexes
    topics: Sequence[str]

    def __getitem__(self, rows: Sequence[int]) -> Answers:
        _, clusters = np.unique(self.clusters[rows], return_inverse=True)
        features, topics = [self.features[i] for i in rows], [self.topics[i] for i in rows]
        return Answers(features, self.wrong[rows], clusters, topics)

    @property
    def groups(self) -> list[str]:
        """The groups of features that every answer has."""
        return [group for group, names in GROUPS.items() if all(set(names) <= found.keys() for found in self.features)]

    def matrix(self, names: Sequence[str]) -> Values:
        """Float64 [n, names]; see `server.uncertainty.features.term`."""
        return np.array([[term(features, name) for name in names] for features in self.features])

    def column(self, name: str) -> Values:
        return np.array([features[name] for features in self.features])


def split(clusters: Indexes) -> tuple[list[int], list[int]]:
    """Rows to fit on and rows to hold out; no cluster is split."""
    numbers = np.unique(clusters).tolist()
    random.Random(0).shuffle(numbers)
    chosen = np.isin(clusters, numbers[: round(len(numbers) * FIT_SHARE)])
    return np.flatnonzero(chosen).tolist(), np.flatnonzero(~chosen).tolist()


def check_both_kinds(part: str, right: Flags, wrong: Flags, clusters: Indexes) -> None:
    """Raises CalibrationError for too few right or wrong answers, or too few questions with either.

    An unknown answer counts as both.
    """
    counts = [int(kind.sum()) for kind in (right, wrong)]
    are = "can be" if (right & wrong).any() else "are"
    if min(counts) < FEWEST or len(wrong) < 2 * FEWEST:
        raise CalibrationError(
            f"--data: too few or one-sided labels: of the {len(wrong)} answers {part}, {counts[0]} {are} right and "
            f"{counts[1]} wrong; at least {FEWEST} of each are needed"
        )
    questions = [len(np.unique(clusters[kind])) for kind in (right, wrong)]
    if min(questions) < FOLDS:
        raise CalibrationError(
            f"--data: too few questions: of the answers {part}, {questions[0]} have ones that {are} right and "
            f"{questions[1]} ones that {are} wrong; at least {FOLDS} are needed for each"
        )


def fit(method: Method, answers: Answers) -> dict[str, Any]:
    """The fitted parameters, as fields of `Calibration`."""
    return FITS[method](answers)


def fit_logistic(answers: Answers) -> dict[str, Any]:
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    return linear(AGGREGATES, answers, model.fit(answers.matrix(AGGREGATES), answers.wrong))


def fit_isotonic(answers: Answers) -> dict[str, Any]:
    least = 1 / (len(answers.wrong) + 2)  # the certainty that so many labels can support
    regression = IsotonicRegression(y_min=least, y_max=1 - least)
    regression.fit(answers.column(ISOTONIC_FEATURE), answers.wrong)
    knots, risks = regression.X_thresholds_.tolist(), regression.y_thresholds_.tolist()
    return {"features": [ISOTONIC_FEATURE], "knots": knots, "risks": risks}


def fit_probe(answers: Answers) -> dict[str, Any]:
    """A probe of the logits, and of every further group of features that helps on held-out folds.

    Serving a group may be expensive, so it must improve the cross-validated likelihood by more than three standard
    errors over the folds (2.8 is 95 % of Student's t for five).
    """
    first, *others = answers.groups
    names = GROUPS[first]
    search = probe_search(answers, names)
    for group in others:
        more = probe_search(answers, (*names, *GROUPS[group]))
        gain = fold_likelihoods(more) - fold_likelihoods(search)
        if gain.mean() > 3 * gain.std(ddof=1) / np.sqrt(FOLDS):
            names, search = (*names, *GROUPS[group]), more
    return linear(terms(names), answers, search.best_estimator_)


def probe_of(answers: Answers, names: Sequence[str]) -> dict[str, Any]:
    """A probe of exactly these features."""
    return linear(terms(names), answers, probe_search(answers, names).best_estimator_)


def probe_search(answers: Answers, names: Sequence[str]) -> GridSearchCV:
    """Logistic regressions on the terms of these features, one per penalty."""
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)),
        {"logisticregression__C": INVERSE_PENALTIES},
        scoring=LOG_LIKELIHOOD,
        cv=StratifiedGroupKFold(FOLDS),
    )
    return search.fit(answers.matrix(terms(names)), answers.wrong, groups=answers.clusters)


def fold_likelihoods(search: GridSearchCV) -> Values:
    """Float64 [FOLDS]: mean log-likelihood of each held-out fold under the chosen penalty."""
    return np.array([search.cv_results_[f"split{i}_test_score"][search.best_index_] for i in range(FOLDS)])


def linear(names: Sequence[str], answers: Answers, pipeline: Any) -> dict[str, Any]:
    """Scaler and regression as one linear function of the raw features: w . (x - mean) / scale + b."""
    scaler, regression = (step for _, step in pipeline.steps)
    coefficients, values = regression.coef_[0] / scaler.scale_, answers.matrix(names)
    return {
        "features": list(names),
        "coefficients": coefficients.tolist(),
        "intercept": float(regression.intercept_[0] - coefficients @ scaler.mean_),
        "lowest": values.min(axis=0).tolist(),
        "highest": values.max(axis=0).tolist(),
    }


FITS: Mapping[Method, Callable[[Answers], dict[str, Any]]] = {
    "logistic": fit_logistic,
    "isotonic": fit_isotonic,
    "probe": fit_probe,
}


def risks_of(calibration: Calibration, answers: Answers) -> Values:
    """Float64 [n], computed by the serving code."""
    return np.array([calibration.risk(features) for features in answers.features])
