"""Figures of calibrations on topics that their fit has not seen, beside those on topics that it has.

The labels name their topics. Questions and groups are held out as ever. So of two fits of one method, judged on the
same answers, one has seen other answers of their topic, and the other none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.model_selection import GroupKFold

from server.calibrate.figures import Flags, Values, compared, ece, ranked
from server.calibrate.fitting import Answers, check_both_kinds, risks_of
from server.uncertainty.calibration import Calibration, CalibrationError, Method

MOST_FOLDS = 10
"""Fits per method. With at most as many topics, each is left out alone, otherwise several at a time."""

Fit = Callable[[Method, Answers], Calibration]


def transfer(
    method: Method, fit: Fit, seen: Mapping[Method, Calibration], fitted: Answers, held: Answers
) -> dict[str, Any] | None:
    """AUROC and ECE of every method on held-out answers: by the calibrations `seen`, and by fits without their topics.

    For `method` also its mean risk in every topic. `left_out` are topics without which the labels are too few to fit
    on. None where the labels have fewer than two topics, or where too few answers are left to judge.
    """
    unseen = {name: np.full(len(held.wrong), np.nan) for name in seen}
    for rows, out in splits(fitted.topics, held.topics):
        part, answers = fitted[rows], held[out]
        if fits_both_kinds(part):
            for name, risks in unseen.items():
                risks[out] = risks_of(fit(name, part), answers)
    known = np.flatnonzero(~np.isnan(unseen[method])).tolist()
    answers = held[known]
    if not 0 < answers.wrong.sum() < len(known):
        return None
    pairs = {name: {"seen": risks_of(one, answers), "unseen": unseen[name][known]} for name, one in seen.items()}
    topics = np.array(answers.topics)
    return {
        "answers": len(known),
        "left_out": sorted(set(held.topics) - set(answers.topics)),
        "methods": {name: beside(answers, pair) for name, pair in pairs.items()},
        "topics": [in_topic(str(topic), topics == topic, answers.wrong, pairs[method]) for topic in np.unique(topics)],
    }


def splits(fitted: Sequence[str], held: Sequence[str]) -> Iterator[tuple[list[int], list[int]]]:
    """Rows of `fitted` to fit on, and the rows of `held`, whose topics are others. Every row of `held` is judged once,
    unless there is but one topic."""
    topics = np.array([*fitted, *held])
    number = min(MOST_FOLDS, len(np.unique(topics)))
    if number < 2:
        return
    for rows, out in GroupKFold(number).split(topics, groups=topics):
        yield rows[rows < len(fitted)].tolist(), (out[out >= len(fitted)] - len(fitted)).tolist()


def fits_both_kinds(answers: Answers) -> bool:
    try:
        check_both_kinds("of other topics", ~answers.wrong, answers.wrong, answers.clusters)
    except CalibrationError:
        return False
    return True


def beside(answers: Answers, risks: Mapping[str, Values]) -> dict[str, Any]:
    """Figures of both risks of the same answers; `lost` is the AUROC that the topics' absence costs."""
    found = compared(answers.wrong, risks["seen"], risks, answers.clusters)
    figures = {
        name: {"auroc": found[name]["auroc"], "ece": ece(ranked(answers.wrong, risk))} for name, risk in risks.items()
    }
    return figures | {"lost": found["unseen"]["added"]["auroc"]}


def in_topic(topic: str, rows: Flags, wrong: Flags, risks: Mapping[str, Values]) -> dict[str, Any]:
    means = {name: float(risk[rows].mean()) for name, risk in risks.items()}
    return {"topic": topic, "answers": int(rows.sum()), "wrong": float(wrong[rows].mean()), **means}
