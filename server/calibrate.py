"""`tokenformer calibrate`: learn from labelled answers how likely an answer is wrong, and measure how well it works."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from model_impl.checkpoint import load_config
from model_impl.checkpoint_writer import as_json, write_bytes
from model_impl.config import TokenformerConfig
from model_impl.fingerprint import fingerprint
from server.calibration import FEATURES, METHODS, Calibration, CalibrationError, Method, calibration_file
from server.figures import Flags, Values, conformal_threshold, summary
from server.labels import Label, read_labels
from server.report import report

FIT_SHARE = 0.5
"""Of the questions; the answers to the others are held out. Half each: figures need as many answers as the fit does."""

FEWEST = 10
"""Right answers, and wrong ones, that each part must have at least."""

ISOTONIC_FEATURE = "max_entropy"
"""What isotonic calibration maps: the strongest single baseline that does not depend on the sampling."""


@dataclass(frozen=True)
class Answers:
    """Scored answers: features float64 [n, features of `FEATURES`], and which are wrong."""

    features: Values
    wrong: Flags

    def __getitem__(self, rows: Sequence[int]) -> Answers:
        return Answers(self.features[list(rows)], self.wrong[list(rows)])


def calibrate(
    checkpoint: Path, data: Path, method: Method, stage: str | None, abstain: float | None, out: Path | None
) -> tuple[Calibration, Path]:
    """Score the labelled answers in `data`, fit, and write the calibration and its report; returns it and its file.

    `stage` None is the last. `out` None is the checkpoint directory, where `serve` finds it. Raises CalibrationError
    for labels that do not do, before the engine starts where that can be told.
    """
    if method not in METHODS:
        raise CalibrationError(f"--method: {method!r} is unknown; known are {', '.join(METHODS)}")
    if abstain is not None and not 0 < abstain < 1:
        raise CalibrationError(f"--abstain: {abstain:g} is no error rate between 0 and 1")
    config = load_config(checkpoint)
    index = stage_index(config, stage)
    if not (checkpoint / "tokenizer.json").is_file():
        raise CalibrationError(f"{checkpoint}: has no tokenizer, which labels need")
    labels, data_hash = read_labels(data)
    if len(labels) < 4 * FEWEST:
        raise CalibrationError(f"--data: {len(labels)} labels are too few; {4 * FEWEST} is the least")
    from server.offline import score_labels

    scored = score_labels(checkpoint, config, index, labels)
    rows = []
    for label, (score, _) in zip(labels, scored, strict=True):
        features = score.features()
        if features is None:
            raise CalibrationError(f"--data: line {label.line}: the model gives no finite statistics for this answer")
        rows.append([features[name] for name in FEATURES])
    answers = Answers(np.array(rows), np.array([not correct for _, correct in scored]))
    fit_rows, held_rows = split(labels)
    fitted, held = answers[fit_rows], answers[held_rows]
    for name, part in (("fitted on", fitted), ("held out", held)):
        check_both_kinds(name, part)
    parameters = fit(method, fitted)
    calibration = Calibration(method, fingerprint(checkpoint, index), config.stages[index].name, **parameters)
    counts = {"labels": len(labels), "fitted_on": len(fit_rows), "held_out": len(held_rows)}
    calibration = replace(
        calibration,
        abstain=threshold(calibration, held, abstain),
        data={"sha256": data_hash, **counts, "wrong": int(answers.wrong.sum())},
        figures=figures(calibration, held),
    )
    file = (out or checkpoint) / calibration_file(stage if index != len(config.stages) - 1 else None)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_file(file, as_json(calibration.to_dict()))
    replace_file(file.with_suffix(".md"), report(calibration).encode())
    return calibration, file


def stage_index(config: TokenformerConfig, stage: str | None) -> int:
    """Index of the growth stage of this name (None: the last); raises CalibrationError if it cannot be served."""
    names = [config.stages[i].name for i in config.servable_stages]
    if stage is not None and stage not in names:
        raise CalibrationError(f"--stage: no stage {stage!r} to serve; there are {', '.join(names)}")
    return config.servable_stages[-1 if stage is None else names.index(stage)]


def split(labels: Sequence[Label]) -> tuple[list[int], list[int]]:
    """Indexes of the labels to fit on and of those to hold out; answers to one question are on the same side."""
    questions = sorted({label.question for label in labels})
    random.Random(0).shuffle(questions)
    chosen = set(questions[: round(len(questions) * FIT_SHARE)])
    rows = range(len(labels))
    return [i for i in rows if labels[i].question in chosen], [i for i in rows if labels[i].question not in chosen]


def check_both_kinds(part: str, answers: Answers) -> None:
    wrong = int(answers.wrong.sum())
    right = len(answers.wrong) - wrong
    if min(right, wrong) < FEWEST:
        raise CalibrationError(
            f"--data: too few or one-sided labels: of the answers {part}, {right} are right and {wrong} wrong; "
            f"at least {FEWEST} of each are needed"
        )


def fit(method: Method, answers: Answers) -> dict[str, Any]:
    """The fitted parameters, as fields of `Calibration`."""
    if method == "isotonic":
        least = 1 / (len(answers.wrong) + 2)  # no surer than so many labels can make anyone
        regression = IsotonicRegression(y_min=least, y_max=1 - least)
        regression.fit(answers.features[:, FEATURES.index(ISOTONIC_FEATURE)], answers.wrong)
        knots, risks = regression.X_thresholds_.tolist(), regression.y_thresholds_.tolist()
        return {"features": [ISOTONIC_FEATURE], "knots": knots, "risks": risks}
    scaler = StandardScaler().fit(answers.features)
    regression = LogisticRegression(max_iter=1000).fit(scaler.transform(answers.features), answers.wrong)
    # In units of the features themselves: w . (x - mean) / scale + b.
    coefficients = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - coefficients @ scaler.mean_)
    return {"features": list(FEATURES), "coefficients": coefficients.tolist(), "intercept": intercept}


def risks_of(calibration: Calibration, answers: Answers) -> Values:
    """Float64 [n], by the very code that serves."""
    return np.array([calibration.risk(dict(zip(FEATURES, row, strict=True))) for row in answers.features.tolist()])


def threshold(calibration: Calibration, held: Answers, error_rate: float | None) -> dict[str, float] | None:
    if error_rate is None:
        return None
    above = conformal_threshold(held.wrong, risks_of(calibration, held), error_rate)
    if above is None:
        raise CalibrationError(
            f"--abstain: {error_rate:g} cannot be promised: even among the surest of the {len(held.wrong)} held-out "
            "answers too many are wrong, or there are too few of them"
        )
    return {"error_rate": error_rate, "above": above}


def figures(calibration: Calibration, held: Answers) -> dict[str, Any]:
    column = {name: held.features[:, FEATURES.index(name)] for name in FEATURES}
    baselines = {
        "max_entropy": column["max_entropy"],
        "mean_entropy": column["mean_entropy"],
        "-min_logprob": -column["min_logprob"],
    }
    return summary(held.wrong, risks_of(calibration, held), baselines)


def replace_file(file: Path, content: bytes) -> None:
    """Write `file` so that nobody ever reads half of it."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write_bytes(part, content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
