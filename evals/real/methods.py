"""Risks of wrong answers that are fitted on labelled answers: those of `tokenformer calibrate`, and published ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evals.fitted import PROBE_STRENGTH, Inputs, Splits, folds_of, logistic, predicted, splits_by
from evals.matching import Flags, Values
from evals.real.view import SERVED, SOURCES, View
from server.calibrate.fitting import fit, probe_of, risks_of
from server.uncertainty.calibration import Calibration, Method
from server.uncertainty.features import GROUPS, terms

Fit = Callable[[View, Flags, Flags], Values]
"""(answers, rows to fit on, rows to judge) -> risks of the latter."""

PROBE = "calibrated (probe)"
"""As the command fits it: it reads the closed form only where that clearly helps on held-out folds."""

LOGITS, BOTH = "probe of the logits", "probe of the logits and the closed form"
BLOCKS, NEW = "probe of all blocks (study)", "probe with new words (study)"

BLOCKS_FLOOR = 1e-6


def served(method: Method) -> Fit:
    """As `tokenformer calibrate --method` fits it."""

    def risks(view: View, fitted: Flags, held: Flags) -> Values:
        answers = view.answers
        found = fit(method, answers[np.flatnonzero(fitted).tolist()])
        return risks_of(Calibration(method, "", "", **found), answers[np.flatnonzero(held).tolist()])

    return risks


def probe_with(*groups: str) -> Fit:
    """A probe of exactly these groups of features."""

    def risks(view: View, fitted: Flags, held: Flags) -> Values:
        answers = view.answers
        names = [name for group in groups for name in GROUPS[group]]
        found = probe_of(answers[np.flatnonzero(fitted).tolist()], names)
        return risks_of(Calibration("probe", "", "", **found), answers[np.flatnonzero(held).tolist()])

    return risks


def regression(inputs: Callable[[View], Inputs], strength: float = np.inf) -> Fit:
    def risks(view: View, fitted: Flags, held: Flags) -> Values:
        return predicted(logistic(strength), inputs(view), view.wrong, [(fitted, held)])[held]

    return risks


def block_inputs(view: View) -> Inputs:
    logits = view.answers.matrix(terms(GROUPS["logits"]))
    return np.hstack([logits, np.log(view.by_block + BLOCKS_FLOOR)])


NEW_WORDS = ("first new word", "max of new words")


def new_word_inputs(view: View) -> Inputs:
    names = [f"{name}, {how}" for name in (*SOURCES, SERVED) for how in NEW_WORDS]
    return np.hstack([view.answers.matrix(terms(GROUPS["logits"])), np.stack([view.signals[n] for n in names], axis=1)])


METHODS: dict[str, Fit] = {
    PROBE: served("probe"),
    LOGITS: probe_with("logits"),
    BOTH: probe_with("logits", "closed_form"),
    "calibrated (logistic)": served("logistic"),
    "EPR (published)": regression(lambda view: view.signals["EPR"][:, None]),
    "WEPR (published)": regression(lambda view: view.wepr),
    BLOCKS: regression(block_inputs, PROBE_STRENGTH),
    NEW: regression(new_word_inputs, 1.0),
}


def risks_by(view: View, method: str, splits: Splits) -> Values:
    """The risk of every answer, by fits that have not seen its group."""
    found = np.full(len(view.wrong), np.nan)
    for fitted, held in splits:
        found[held] = METHODS[method](view, fitted, held)
    return found


def seen(view: View) -> Splits:
    """Other countries' answers of all attributes."""
    return splits_by(folds_of(view.groups))


def unseen(view: View) -> Splits:
    """Answers of the other attributes, of all countries."""
    return splits_by(view.attribute)
